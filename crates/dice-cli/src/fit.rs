//! `dice fit`: features and head in, a calibrated detector out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dice_onnx::{ImageSet, Model, Origin};
use dice_ood::artifact::read_statistics;
use dice_ood::io::files::TemporaryFolder;
use dice_ood::io::{Dataset, Location, find_head};
use dice_ood::{
    Artifact, Error, ErrorKind, FeatureSource as _, Fitted, HoldOut, Layout, LinearHead, Needs, Result, Spec,
    Statistics,
};

use crate::Context;
use crate::account::Account;
use crate::columns::{self, Columns, recorded_in, tell};
use crate::data::{Inputs, dataset, head, is_onnx};
use crate::methods::steps;
use crate::network::{Choices, Network, Running, check_fingerprint};
use crate::progress::Bar;

/// Fit a detector to a trained network: to its features and head, or to an ONNX model and images.
///
/// One pass over the training data gathers statistics; detectors are fitted from these, and a threshold is set on
/// in-distribution inputs held out of the fit, so that a fresh one is accepted with at least the promised probability.
#[derive(clap::Args)]
#[command(after_help = help())]
pub(crate) struct Fit {
    /// Penultimate features [N, D] of in-distribution training inputs (labels beside them stratify the hold-out).
    #[arg(long, short = 'f', num_args = 1.., value_name = "FILE", required_unless_present_any = ["statistics", "images"])]
    features: Vec<String>,
    /// Class labels [N] of the features, where they are in a file of their own.
    #[arg(long, value_name = "FILE", requires = "features")]
    labels: Option<String>,
    /// The linear head: weight [C, D] and bias [C]; or the ONNX model it is part of.
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    head: Option<String>,
    /// An ONNX model, whose head is found and whose features are computed from --images; MODEL.onnx#NODE names its head.
    #[arg(long, value_name = "MODEL.onnx", conflicts_with = "head", requires = "images")]
    model: Option<String>,
    /// Training images instead of features: folders, patterns, .txt lists of paths, .tar shards, .parquet[#COLUMN]; subfolders
    /// of a single folder are classes, which stratify the hold-out.
    #[arg(long, num_args = 1.., value_name = "PATH", requires = "model", conflicts_with_all = ["features", "labels", "statistics"])]
    images: Vec<String>,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    columns: Columns,
    /// The detector to fit; give several to fit them all from the same pass.
    #[arg(long = "detector", short = 'd', value_name = "SPEC", default_value = "dice(0.9) | energy")]
    detectors: Vec<Spec>,
    /// Probability with which a fresh in-distribution input is to be accepted.
    ///
    /// 0.95 takes at least 19 calibration inputs, 0.99 takes 99; thousands make the realised rate certain.
    #[arg(long, default_value_t = 0.95, value_name = "RATE", value_parser = crate::rate, allow_negative_numbers = true)]
    tpr: f64,
    /// In-distribution features (with --model: images) for the threshold, not seen in training; better than a held-out part.
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with = "calibration_fraction")]
    calibration: Vec<String>,
    /// Share of the training data to hold out of the fit for the threshold, to the nearest percent; 0 for none, and no decisions.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    calibration_fraction: f64,
    /// Seed of the hold-out.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Published statistics instead of features: a mean activation [D], or another detector; several are merged.
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with_all = ["features", "calibration_fraction", "seed"])]
    statistics: Vec<String>,
    /// Also write the statistics alone here: those of several parts of the data merge with --statistics A B.
    #[arg(long, value_name = "FILE", value_parser = file_to_write)]
    pub(crate) save_statistics: Option<PathBuf>,
    /// Where to write; an existing directory gets one file for each detector.
    #[arg(long, short, value_name = "FILE", value_parser = file_to_write)]
    output: PathBuf,
    /// Also print what was fitted, the accuracy of the head and all warnings to standard output, for machines.
    #[arg(long, value_name = "FORMAT")]
    format: Option<SummaryFormat>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum SummaryFormat {
    Json,
}

fn share(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share == 0.0 || (0.005..0.995).contains(&share) => Ok(share),
        _ => Err("expected a share between 0.01 and 0.99, or 0 for none".into()),
    }
}

fn file_to_write(text: &str) -> std::result::Result<PathBuf, String> {
    if text == "-" { Err("this is written to a file".into()) } else { Ok(text.into()) }
}

const EXAMPLES: &str = "Examples:
  dice fit --model resnet50.onnx --images train/ --preprocess imagenet --calibration val/ -o detector.safetensors
  dice fit --features train.safetensors --head resnet50.pth -o detector.safetensors
  dice fit --features train.npy --labels y.npy --head head.npz --calibration val.npy \\
      -d 'react(0.99) | dice(0.7) | energy' -d energy --tpr 0.99 -o detector.safetensors
  dice fit --statistics mean.npy --head model.pth --calibration val.npy -o d.safetensors";

fn help() -> String {
    format!(
        "{EXAMPLES}\n\nDetectors are written [SHAPING |] [SPARSITY |] SCORE, as in 'react(0.99) | dice(0.9) | energy', or as combinations. \
         The steps, which `dice methods` explains:{}",
        steps()
    )
}

impl Fit {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        // The library refuses that too, but only once images have become features.
        if let Some(twice) = (1..self.detectors.len()).find(|at| self.detectors[..*at].contains(&self.detectors[*at])) {
            return Err(Error::new(ErrorKind::Argument, format!("'{}' twice", self.detectors[twice]))
                .argument("--detector")
                .expected("different detectors"));
        }
        check_destination(&self.output)?;
        let fitted = self.fit(context)?;
        let held_out = self.statistics.is_empty() && self.calibration.is_empty() && self.calibration_fraction > 0.0;
        let account = Account { fitted: &fitted, head: self.head_name(), held_out };
        context.note(account.text());
        for finding in &fitted.findings {
            context.warn(finding);
        }
        let outputs = self.outputs();
        self.write(&fitted.artifact, &outputs, context)?;
        match self.format {
            Some(SummaryFormat::Json) => account.print_json(&outputs),
            None => Ok(()),
        }
    }

    /// Writes the statistics alone where asked to, and each detector to its own of `outputs`, or all to the only one.
    fn write(&self, artifact: &Artifact, outputs: &[PathBuf], context: &Context) -> Result<()> {
        if let Some(path) = &self.save_statistics {
            artifact.save_statistics(path)?;
            context.note(format_args!("Wrote {}", path.display()));
        }
        for (place, output) in outputs.iter().enumerate() {
            match outputs.len() {
                1 => artifact.save(output)?,
                _ => artifact.part(place)?.save(output)?,
            }
            context.note(format_args!("Wrote {}", output.display()));
        }
        Ok(())
    }

    /// The detector files that are written.
    pub(crate) fn outputs(&self) -> Vec<PathBuf> {
        match self.output.is_dir() {
            true => self.detectors.iter().map(|spec| self.output.join(file_name(spec))).collect(),
            false => vec![self.output.clone()],
        }
    }

    /// Everything but the writing.
    fn fit(&self, context: &Context) -> Result<Fitted> {
        let network = match &self.model {
            Some(model) => Some(Network::open(model, &self.choices, &self.running, context)?),
            None => None,
        };
        let calibration = match self.calibration.is_empty() {
            true => None,
            false => {
                let inputs = Inputs::find(network.as_ref(), &self.calibration)?.without_labels();
                Some(inputs.with_columns(&self.columns))
            }
        };
        // The held-out rows are read in a second pass, which images do not take: their features are kept meanwhile.
        let copy = match &network {
            Some(network) => Some(self.features_of_images(network, context)?),
            None => None,
        };
        let start = self.start(copy.as_ref().map(|(_folder, features)| features))?;
        let origin = match &network {
            Some(network) => Some(network.origin().clone()),
            None => self.recorded_origin(&start, calibration.as_ref())?,
        };
        let opened = match &start {
            Start::Features(training) => Some(training.open()?),
            Start::Statistics(_) => None,
        };
        let layout = match &opened {
            Some(source) => source.layout(),
            None => Layout { units: recorded_in(&self.statistics)?, ..Layout::default() },
        };
        tell(&layout, &start.name(), context);
        let units = match (&opened, &start) {
            (_, Start::Statistics(statistics)) => statistics.units(),
            (source, _) => source.as_ref().map_or(0, |source| source.units()),
        };
        let head = Arc::new(self.read_head(network.as_ref(), units, context)?);
        head.check_features(units).map_err(|error| {
            let stray = layout.one_too_many(units, head.units());
            stray.unwrap_or(error).file(start.name())
        })?;
        let calibration = calibration.map(|inputs| inputs.with_units(head.units(), &layout.units));
        let name = calibration.as_ref().map_or_else(|| start.name(), Inputs::name);
        let mut fit = dice_ood::Fit::new(Arc::clone(&head))
            .tpr(self.tpr)
            .gather(Needs::marginals())
            .provenance(self.provenance(origin.as_ref(), calibration.is_some(), &layout)?)
            .progress(Bar::new(context));
        for spec in &self.detectors {
            fit = fit.detector(spec.clone());
        }
        fit = match (&calibration, &start) {
            (Some(inputs), _) => fit.calibrate_on(|| {
                let source = inputs.open(context)?;
                head.check_features(source.units()).map_err(|error| error.file(&name))?;
                Ok(source)
            }),
            (None, Start::Features(training)) if self.calibration_fraction > 0.0 => {
                fit.hold_out(HoldOut::new(self.calibration_fraction, self.seed)?, || training.open())
            }
            _ => fit,
        };
        let fitted = match (opened, &start) {
            (Some(source), _) => fit.features(source),
            (None, Start::Statistics(statistics)) => fit.statistics(statistics.clone()),
            (None, Start::Features(_)) => return Err(Error::new(ErrorKind::Missing, "no features")),
        };
        fitted.map_err(|error| if error.kind() == ErrorKind::Calibration { error.file(&name) } else { error })
    }

    /// The head that was asked for, where several are there the one that `units` units feed; says which tensors it is.
    fn read_head(&self, network: Option<&Network>, units: usize, context: &Context) -> Result<LinearHead> {
        if let Some(network) = network {
            return Ok(network.head().clone());
        }
        let file = self.head_name();
        let location = Location::parse(file);
        if is_onnx(&location) {
            return head(file, units);
        }
        let found = find_head(&location, Some(units))?;
        context.note(format_args!("Head of {}: {found}.", location.path.display()));
        Ok(found.head)
    }

    /// What was taken as the head, as far as it is known here.
    fn head_name(&self) -> &str {
        self.head.as_deref().or(self.model.as_deref()).unwrap_or_default()
    }

    /// The features of `--images`, in a temporary folder that is deleted when dropped.
    fn features_of_images(&self, network: &Network, context: &Context) -> Result<(TemporaryFolder, Dataset)> {
        let folder = TemporaryFolder::new()?;
        let path = folder.path().join("features.safetensors");
        network.save_features(&ImageSet::find(&self.images)?, &path, context)?;
        let features = Dataset::new(&[path.to_string_lossy().into_owned()])?.called(&self.images.join(" "));
        Ok((folder, features))
    }

    /// Where features came from, if their files say so; a head of another model is refused.
    fn recorded_origin(&self, start: &Start, calibration: Option<&Inputs<'_>>) -> Result<Option<Origin>> {
        let mut files = Vec::new();
        if let Start::Features(training) = start {
            files.extend_from_slice(training.files());
        }
        if let Some(Inputs::Features(data)) = calibration {
            files.extend_from_slice(data.files());
        }
        let origin = Origin::of_files(&files)?;
        let model = self.head.as_deref().map(Location::parse).filter(is_onnx);
        if let (Some(origin), Some(model)) = (&origin, model) {
            check_fingerprint(&Model::open(&model.path)?, origin, &files[0].path)?;
        }
        Ok(origin)
    }

    fn merged_statistics(&self) -> Result<Statistics> {
        let mut files = self.statistics.iter().map(read_statistics);
        let Some(first) = files.next() else { return Err(Error::new(ErrorKind::Missing, "no statistics")) };
        let mut merged = first?;
        for statistics in files {
            merged.merge(&statistics?)?;
        }
        Ok(merged)
    }

    /// What the fit starts from; `images` where features were computed from images.
    fn start(&self, images: Option<&Dataset>) -> Result<Start> {
        if !self.statistics.is_empty() {
            return Ok(Start::Statistics(self.merged_statistics()?));
        }
        if [&self.features, &self.calibration].into_iter().flatten().filter(|file| *file == "-").count() > 1 {
            return Err(Error::new(ErrorKind::Argument, "`-` twice").expected("standard input once"));
        }
        let training = match images {
            Some(images) => images.clone(),
            None => dataset(&self.features, self.labels.as_ref())?.with_columns(&self.columns.chosen()),
        };
        let twice = self.calibration.is_empty() && self.calibration_fraction > 0.0;
        Ok(Start::Features(if twice { training.rereadable()? } else { training }))
    }

    fn provenance(
        &self,
        origin: Option<&Origin>,
        calibrated_on_files: bool,
        layout: &Layout,
    ) -> Result<BTreeMap<String, String>> {
        let mut provenance = match origin {
            Some(origin) => origin.to_notes()?,
            None => BTreeMap::new(),
        };
        let training = match (&*self.statistics, &*self.images) {
            ([], []) => ("features", self.features.join(" ")),
            ([], images) => ("images", images.join(" ")),
            (statistics, _) => ("statistics", statistics.join(" ")),
        };
        let calibration = match (calibrated_on_files, training.0) {
            (true, _) => self.calibration.join(" "),
            (false, "statistics") => "none".into(),
            (false, _) if self.calibration_fraction == 0.0 => "none".into(),
            (false, what) => format!("{:.2} of the {what}, seed {}", self.calibration_fraction, self.seed),
        };
        let record = [("head", self.head_name().to_owned()), training, ("calibration", calibration)];
        let record = record.into_iter().chain(source_date()?.map(|date| ("fitted", date)));
        provenance.extend(record.map(|(key, value)| (key.to_owned(), value)));
        provenance.extend(columns::record(layout));
        Ok(provenance)
    }
}

/// What a fit starts from.
enum Start {
    Features(Dataset),
    Statistics(Statistics),
}

impl Start {
    /// The first file, for messages.
    fn name(&self) -> String {
        match self {
            Self::Features(training) => training.names()[0].to_string(),
            Self::Statistics(_) => "statistics".into(),
        }
    }
}

/// Fails before the work rather than after it.
fn check_destination(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match parent {
        Some(parent) if !parent.is_dir() => Err(Error::new(ErrorKind::Io, "no such directory")
            .file(path.display())
            .fix(format!("create {} first", parent.display()))),
        _ => Ok(()),
    }
}

/// `dice(0.9) | energy` as `dice-0.9-energy.safetensors`.
fn file_name(spec: &Spec) -> String {
    let words: Vec<String> = spec
        .to_string()
        .split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-')))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect();
    words.join("-") + ".safetensors"
}

/// The time that `SOURCE_DATE_EPOCH` names, in UTC, as RFC 3339 writes it. The clock is not asked: the same fit is the same bytes.
fn source_date() -> Result<Option<String>> {
    const VARIABLE: &str = "SOURCE_DATE_EPOCH";
    /// The last second that four digits of a year can write.
    const LAST: u64 = 253_402_300_799;
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(None) };
    match value.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds <= LAST) {
        Some(seconds) => Ok(Some(rfc_3339(seconds))),
        None => Err(Error::new(ErrorKind::Argument, format!("`{}`", value.display()))
            .argument(VARIABLE)
            .expected("whole seconds since 1970")),
    }
}

/// Gregorian date of a Unix time (Hinnant's `civil_from_days`).
fn rfc_3339(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_names() {
        assert_eq!(rfc_3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc_3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc_3339(1_795_435_199), "2026-11-23T11:59:59Z");
        let spec: Spec = "react(c=1) | dice(0.9, preset=official) | energy".parse().unwrap();
        assert_eq!(file_name(&spec), "react-c-1-dice-0.9-preset-official-energy.safetensors");
    }
}
