//! What a fit starts from: features, the features of images or arrays, or statistics.

use dice_ood::artifact::read_merged_statistics;
use dice_ood::io::Dataset;
use dice_ood::io::files::TemporaryFolder;
use dice_ood::{Error, ErrorKind, FeatureSource, Fitted, Layout, Result, Statistics};

use super::Fit;
use crate::columns::recorded_in;
use crate::data::dataset;
use crate::network::{Network, Set, arrays};
use crate::said::Context;
use dice_onnx::ImageSet;

/// What a fit starts from.
pub(super) enum Start {
    /// Features, in a temporary folder where they were computed: it is deleted when dropped.
    Features {
        training: Dataset,
        _folder: Option<TemporaryFolder>,
    },
    Statistics(Box<Statistics>, Layout),
}

/// A [`Start`] that is ready to be read.
pub(super) enum Opened {
    Features(Box<dyn FeatureSource>),
    Statistics(Box<Statistics>, Layout),
}

impl Start {
    /// Finds what the arguments name; features that a network makes are computed now.
    pub(super) fn find(fit: &Fit, network: Option<&Network>, context: &Context) -> Result<Self> {
        if !fit.statistics.is_empty() {
            let statistics = read_merged_statistics(fit.statistics.iter().map(String::as_str))?;
            let layout = Layout { units: recorded_in(&fit.statistics)?, ..Layout::default() };
            return Ok(Self::Statistics(Box::new(statistics), layout));
        }
        if let Some(network) = network {
            // The held-out rows are read in a second pass, which images do not take: their features are kept meanwhile.
            let folder = TemporaryFolder::new()?;
            let path = folder.path().join("features.safetensors");
            let (set, name) = match arrays(&fit.inputs, fit.labels.as_ref(), &fit.columns)? {
                Some(data) => (Set::Arrays(data.without_ids()), fit.inputs.join(" ")),
                None => (Set::Images(ImageSet::find(&fit.images)?), fit.images.join(" ")),
            };
            network.save_features(&set, None, &path, context)?;
            let features = Dataset::new(&[path.to_string_lossy().into_owned()])?.called(&name);
            return Ok(Self::Features { training: features, _folder: Some(folder) });
        }
        if [&fit.features, &fit.calibration].into_iter().flatten().filter(|file| *file == "-").count() > 1 {
            return Err(Error::new(ErrorKind::Argument, "`-` twice").expected("standard input once"));
        }
        let training = dataset(&fit.features, fit.labels.as_ref())?.with_columns(&fit.columns.chosen());
        let training = if fit.holds_out() { training.rereadable()? } else { training };
        Ok(Self::Features { training, _folder: None })
    }

    /// The features, where there are any.
    pub(super) fn features(&self) -> Option<&Dataset> {
        match self {
            Self::Features { training, .. } => Some(training),
            Self::Statistics(..) => None,
        }
    }

    /// The first file, for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Features { training, .. } => training.names()[0].to_string(),
            Self::Statistics(..) => "statistics".into(),
        }
    }

    pub(super) fn open(&self) -> Result<Opened> {
        Ok(match self {
            Self::Features { training, .. } => Opened::Features(training.open()?),
            Self::Statistics(statistics, layout) => Opened::Statistics(statistics.clone(), layout.clone()),
        })
    }
}

impl Opened {
    pub(super) fn layout(&self) -> Layout {
        match self {
            Self::Features(source) => source.layout(),
            Self::Statistics(_, layout) => layout.clone(),
        }
    }

    pub(super) fn units(&self) -> usize {
        match self {
            Self::Features(source) => source.units(),
            Self::Statistics(statistics, _) => statistics.units(),
        }
    }

    pub(super) fn fit(self, fit: dice_ood::Fit<'_>) -> Result<Fitted> {
        match self {
            Self::Features(source) => fit.features(source),
            Self::Statistics(statistics, _) => fit.statistics(*statistics),
        }
    }
}
