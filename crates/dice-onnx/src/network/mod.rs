//! A network that is ready to make features: a model, its head, a runtime, and what its inputs are made of, which must agree.

pub(crate) mod key;
pub(crate) mod measure;
pub(crate) mod origin;

use std::path::{Path, PathBuf};

use dice_ood::io::{Dataset, FeaturesWriter, Location};
use dice_ood::{Error, ErrorKind, FeatureSource, Remedy, Result, for_each_block};

use crate::arrays::source::ArraySource;
use crate::images::distort::Distortion;
use crate::images::preprocess::Preprocess;
use crate::images::set::ImageSet;
use crate::images::source::{Broken, ImageSource};
use crate::model::Model;
use crate::model::head::{FoundHead, HeadOptions};
use crate::network::origin::{Origin, Prepared};
use crate::run::backbone::Backbone;
use crate::run::input::InputShape;
use crate::run::runtime::Runtime;

/// What is chosen when features of a network are first computed.
#[derive(Debug, Clone, Default)]
pub struct NetworkOptions {
    /// Which head and which tensor of features, where the search is not to decide.
    pub head: HeadOptions,
    /// How images become inputs; by default as a `preprocessor_config.json` beside the model says, else as the only preset whose size fits
    /// the model's input.
    pub preprocess: Option<Preprocess>,
    /// Arrays named as the model's inputs, in place of images: the first file tells which columns of a table are the input.
    pub arrays: Option<Dataset>,
    /// What runs the network.
    pub runtime: Runtime,
}

/// A network that makes features of images or arrays, and the [`Origin`] that these features have.
pub struct Network {
    backbone: Backbone,
    found: FoundHead,
    origin: Origin,
    suggested: Option<Suggested>,
}

/// A preprocessing that nobody chose.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Suggested {
    /// The only preset whose size fits the model's input.
    Preset(&'static str),
    /// This file, which lies beside the model.
    Beside(PathBuf),
}

impl Network {
    /// Opens a model, finds its head and chooses its preprocessing.
    ///
    /// # Errors
    /// Those of [`Model::open`], [`Model::find_head`], [`Backbone::new`] and [`InputShape::adapt`]; [`ErrorKind::Missing`] where
    /// `options` name no preprocessing and several presets, or none, fit; those of the first file of arrays.
    pub fn open(path: impl AsRef<Path>, options: &NetworkOptions) -> Result<Self> {
        let model = Model::open(path)?;
        let found = model.find_head(&options.head)?;
        let backbone = Backbone::new(&model, &found, &options.runtime)?;
        if let Some(data) = &options.arrays {
            let columns = ArraySource::new(&backbone, data)?.columns();
            return Ok(Self::ready(backbone, found, |inputs| Prepared::Arrays { inputs, columns }));
        }
        let (preprocess, suggested) = match &options.preprocess {
            Some(chosen) => (chosen.clone(), None),
            None => suggestion(&backbone).map(|(suggested, preprocess)| (preprocess, Some(suggested)))?,
        };
        let preprocess = backbone.input()?.adapt(preprocess)?;
        Ok(Self { suggested, ..Self::ready(backbone, found, |_| Prepared::Images(preprocess)) })
    }

    /// The network that features of `recorded` came from, in the file of `at`: the same model, head, features tensor and preprocessing.
    /// Where `at` names a head, it must be that of `recorded`.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where the file holds another model ([`Origin::check_model`]) or another head is named; else as
    /// [`Network::open`].
    pub fn of_origin(at: &Location, recorded: &Origin, runtime: &Runtime) -> Result<Self> {
        let model = Model::open(&at.path)?;
        recorded.check_model(&model)?;
        let found = recorded.find_head(&model, at.name.as_deref())?;
        let backbone = Backbone::new(&model, &found, runtime)?;
        let prepared = match &recorded.prepared {
            Prepared::Images(preprocess) => Prepared::Images(backbone.input()?.adapt(preprocess.clone())?),
            arrays => arrays.clone(),
        };
        Ok(Self::ready(backbone, found, |_| prepared))
    }

    /// `prepared` is told the inputs.
    fn ready(backbone: Backbone, found: FoundHead, prepared: impl FnOnce(String) -> Prepared) -> Self {
        let inputs: Vec<String> = backbone.inputs().iter().map(ToString::to_string).collect();
        let origin = Origin::new(&backbone, &found, prepared(inputs.join("; ")));
        Self { backbone, found, origin, suggested: None }
    }

    /// Whether features are those of arrays rather than of images.
    pub fn takes_arrays(&self) -> bool {
        matches!(self.origin.prepared, Prepared::Arrays { .. })
    }

    /// The preprocessing of images; an error where there are none.
    fn preprocess(&self) -> Result<Preprocess> {
        match &self.origin.prepared {
            Prepared::Images(preprocess) => Ok(preprocess.clone()),
            Prepared::Arrays { inputs, .. } => Err(Error::new(ErrorKind::Argument, "images")
                .file(self.backbone.path().display())
                .expected(format!("arrays of its inputs, as in the fit: {inputs}"))
                .fix("give arrays named as the model's inputs")),
        }
    }

    /// The head, and what feeds it.
    pub fn found(&self) -> &FoundHead {
        &self.found
    }

    /// What features of this network are recorded with.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What was taken because no preprocessing was chosen.
    pub fn suggested(&self) -> Option<&Suggested> {
        self.suggested.as_ref()
    }

    /// Whether features differ from those of `recorded` by the rounding of a quantised model, which another runtime, or another level of its
    /// optimisation, does elsewhere. A level that is not recorded is taken to be the same.
    pub fn rounds_differently(&self, recorded: &Origin) -> bool {
        let other_level = recorded.level.is_some() && recorded.level != self.origin.level;
        self.found.rounding.is_some() && (recorded.runtime != self.origin.runtime || other_level)
    }

    /// The features of `set`.
    ///
    /// # Errors
    /// As [`ImageSource::new`].
    pub fn features(&self, set: &ImageSet, broken: Broken) -> Result<ImageSource<'_>> {
        ImageSource::new(&self.backbone, set.clone(), self.preprocess()?, broken)
    }

    /// The features of `data`, arrays named as the model's inputs.
    ///
    /// # Errors
    /// As [`ArraySource`]: an array that is missing, or of another type or shape than the model's input. [`ErrorKind::Columns`] for
    /// a table without the columns that the origin records.
    pub fn features_of_arrays(&self, data: &Dataset) -> Result<ArraySource<'_>> {
        match &self.origin.prepared {
            Prepared::Arrays { columns, .. } if !columns.is_empty() => {
                ArraySource::new(&self.backbone, &data.clone().with_units(columns.len(), columns))
            }
            _ => ArraySource::new(&self.backbone, data),
        }
    }

    /// The features of `set`, each image distorted: stand-ins for out-of-distribution inputs.
    ///
    /// # Errors
    /// As [`ImageSource::new`].
    pub fn stand_ins(&self, set: &ImageSet, distortion: Distortion, broken: Broken) -> Result<ImageSource<'_>> {
        ImageSource::distorted(&self.backbone, set.clone(), self.preprocess()?, distortion, broken)
    }

    /// Writes what `source` makes of a set, and the names of its `classes`, the head and the origin; the number of rows.
    ///
    /// `source` is that of [`Network::features`], or one around it that watches. It is dropped before the file is completed.
    ///
    /// # Errors
    /// Those of the source and of writing; [`ErrorKind::Empty`] where there are no rows.
    pub fn save_features(
        &self,
        mut source: impl FeatureSource,
        classes: &[String],
        output: impl AsRef<Path>,
    ) -> Result<usize> {
        let mut writer = FeaturesWriter::create(output.as_ref(), self.found.units())?;
        for_each_block(&mut source, |block| writer.write(block))?;
        drop(source);
        let rows = writer.rows();
        if rows == 0 {
            let found = if self.takes_arrays() { "no rows" } else { "none that can be decoded" };
            return Err(Error::new(ErrorKind::Empty, found).tensor("inputs").expected("at least one"));
        }
        let mut notes = self.origin.to_notes()?;
        let classes = serde_json::to_string(classes);
        notes.insert("classes".into(), classes.map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()))?);
        writer.finish(Some(&self.found.head), notes)?;
        Ok(rows)
    }
}

/// What Hugging Face saves beside a model of images.
const CONFIG: &str = "preprocessor_config.json";

/// The preprocessing that lies beside the model of `backbone`, or the only preset that fits its input.
fn suggestion(backbone: &Backbone) -> Result<(Suggested, Preprocess)> {
    let input: InputShape = backbone.input()?;
    let beside = backbone.path().with_file_name(CONFIG);
    if beside.is_file() {
        return Ok((Suggested::Beside(beside.clone()), Preprocess::read(&beside)?));
    }
    let fitting = input.suggest().and_then(|name| Some((Suggested::Preset(name), Preprocess::preset(name)?)));
    fitting.ok_or_else(|| {
        // A vector or a map of no size that images usually have: perhaps a table, or a spectrogram.
        let arrays = "say what the network was trained with; inputs that are not images are given as arrays";
        Error::new(ErrorKind::Missing, format!("an input of {input}"))
            .file(backbone.path().display())
            .tensor("preprocessing")
            .expected(format!("{}, or a preprocessor_config.json", Preprocess::PRESETS.join(", ")))
            .fix(arrays)
            .with_remedy(Remedy::Preprocessing)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::model::rounding::Rounding;
    use crate::testing::Builder;

    fn write(folder: &Path, name: &str, weight: f32) -> PathBuf {
        let model = Builder::new()
            .features()
            .floats("w", &[3, 2], &[weight; 6])
            .floats("b", &[2], &[0.0; 2])
            .node("Gemm", &["h", "w", "b"], &["y"], &[])
            .node("Gemm", &["h", "w", "b"], &["z"], &[])
            .output("y", &[0, 2])
            .output("z", &[0, 2]);
        let path = folder.join(name);
        std::fs::write(&path, model.encode()).unwrap();
        path
    }

    fn refusal(network: Result<Network>) -> Error {
        network.map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_network_is_opened_again_by_the_origin_of_its_features() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "model.onnx", 1.0);
        // No preset makes images of 4 x 4.
        let head = HeadOptions { head: Some("y".into()), features: None };
        let options = NetworkOptions { head, ..NetworkOptions::default() };
        let error = refusal(Network::open(&path, &options));
        assert_eq!((error.kind(), error.remedy()), (ErrorKind::Missing, Some(Remedy::Preprocessing)), "{error}");
        let options = NetworkOptions { preprocess: Some("resize=4x4,scale=1".parse().unwrap()), ..options };
        let network = Network::open(&path, &options).unwrap();
        assert_eq!((network.found().units(), network.suggested()), (3, None));

        let beside = folder.path().join("preprocessor_config.json");
        std::fs::write(&beside, r#"{"size": {"height": 4, "width": 4}, "do_normalize": false}"#).unwrap();
        let unasked = Network::open(&path, &NetworkOptions { preprocess: None, ..options.clone() }).unwrap();
        assert_eq!(unasked.suggested(), Some(&Suggested::Beside(beside.clone())));
        assert!(unasked.origin().prepared.to_string().starts_with("to 4 x 4 (bilinear), RGB"));
        std::fs::write(&beside, "{").unwrap();
        let error = refusal(Network::open(&path, &NetworkOptions { preprocess: None, ..options })).to_string();
        assert!(error.contains("preprocessor_config.json"), "{error}");

        let image = folder.path().join("one.png");
        image::RgbImage::from_pixel(4, 4, image::Rgb([1, 2, 3])).save(&image).unwrap();
        let set = ImageSet::find([image.to_str().unwrap()]).unwrap();
        let kept = folder.path().join("kept.safetensors");
        let source = network.features(&set, Broken::Fail).unwrap();
        assert_eq!(network.save_features(source, set.classes(), &kept).unwrap(), 1);
        let recorded = Origin::of_files(&[Location::parse(kept.to_str().unwrap())]).unwrap().unwrap();
        assert_eq!(&recorded, network.origin());

        let at = |path: &Path, head: &str| Location::parse(&format!("{}{head}", path.display()));
        let again = Network::of_origin(&at(&path, ""), &recorded, &Runtime::BuiltIn).unwrap();
        assert_eq!(again.origin(), network.origin());
        assert!(!again.rounds_differently(&recorded));
        // A network in f32 is the same in another runtime; a quantised one is not, but where its level is not recorded.
        let elsewhere = Origin { runtime: "onnxruntime".into(), ..recorded.clone() };
        assert!(!again.rounds_differently(&elsewhere));
        let mut quantised = again;
        quantised.found.rounding = Some(Rounding::Static);
        let level = |level: Option<&str>| Origin { level: level.map(Into::into), ..recorded.clone() };
        assert!(quantised.rounds_differently(&elsewhere) && quantised.rounds_differently(&level(Some("none"))));
        assert!(!quantised.rounds_differently(&level(None)) && !quantised.rounds_differently(&recorded));
        assert!(Network::of_origin(&at(&path, "#y"), &recorded, &Runtime::BuiltIn).is_ok());
        for (named, expected) in
            [("#z", "`node_y`, the head that the detector was fitted to"), ("#nonsense", "nonsense")]
        {
            let error = refusal(Network::of_origin(&at(&path, named), &recorded, &Runtime::BuiltIn)).to_string();
            assert!(error.contains(expected), "{error}");
        }
        let other = write(folder.path(), "other.onnx", 2.0);
        let error = refusal(Network::of_origin(&at(&other, ""), &recorded, &Runtime::BuiltIn));
        assert_eq!((error.kind(), error.remedy()), (ErrorKind::Argument, Some(Remedy::FitToModel)), "{error}");
        assert!(error.to_string().contains("other.onnx") && error.to_string().contains("model.onnx"), "{error}");
    }
}
