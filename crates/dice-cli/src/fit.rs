//! `dice fit`: features and head in, a calibrated detector out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dice_onnx::{ImageSet, Model, Origin};
use dice_ood::io::{Dataset, Location, expand, read_statistics};
use dice_ood::{
    Artifact, Calibrated, Calibration, Detector, Error, ErrorKind, FeatureSource, Gather, HoldOut, LinearHead,
    NonFinite, Result, Salience, Sparsity, Spec, Statistics,
};

use crate::data::{Inputs, Progress, Scores, dataset, head, is_onnx, origin_of_features};
use crate::network::{Choices, Network, Running, check_fingerprint};
use crate::report::{count, percent};
use crate::{Context, refuse_overwrite};

/// Fit a detector to a trained network: to its features and head, or to an ONNX model and images.
///
/// One pass over the training data gathers statistics; detectors are fitted from these, and a threshold is set on
/// in-distribution inputs held out of the fit, so that a fresh one is accepted with at least the promised probability.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Fit {
    /// Penultimate features [N, D] of in-distribution training inputs (labels beside them stratify the hold-out).
    #[arg(long, short = 'f', num_args = 1.., value_name = "FILE", required_unless_present_any = ["statistics", "images"])]
    pub(crate) features: Vec<String>,
    /// Class labels [N] of the features, where they are in a file of their own.
    #[arg(long, value_name = "FILE", requires = "features")]
    pub(crate) labels: Option<String>,
    /// The linear head: weight [C, D] and bias [C]; or the ONNX model it is part of.
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    pub(crate) head: Option<String>,
    /// An ONNX model, whose head is found and whose features are computed from --images; MODEL.onnx#NODE names its head.
    #[arg(long, value_name = "MODEL.onnx", conflicts_with = "head", requires = "images")]
    pub(crate) model: Option<String>,
    /// Training images instead of features: folders, patterns, .txt lists of paths, .tar shards, .parquet[#COLUMN]; subfolders
    /// of a single folder are classes, which stratify the hold-out.
    #[arg(long, num_args = 1.., value_name = "PATH", requires = "model", conflicts_with_all = ["features", "labels", "statistics"])]
    pub(crate) images: Vec<String>,
    #[command(flatten)]
    pub(crate) choices: Choices,
    #[command(flatten)]
    pub(crate) running: Running,
    /// The detector to fit; give several to fit them all from the same pass.
    #[arg(long = "detector", short = 'd', value_name = "SPEC", default_value = "dice(0.9) | energy")]
    pub(crate) detectors: Vec<Spec>,
    /// Probability with which a fresh in-distribution input is to be accepted.
    ///
    /// 0.95 takes at least 19 calibration inputs, 0.99 takes 99; thousands make the realised rate certain.
    #[arg(long, default_value_t = 0.95, value_name = "RATE", value_parser = crate::rate, allow_negative_numbers = true)]
    pub(crate) tpr: f64,
    /// In-distribution features (with --model: images) for the threshold, not seen in training; better than a held-out part.
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with = "calibration_fraction")]
    pub(crate) calibration: Vec<String>,
    /// Share of the training data to hold out of the fit for the threshold, to the nearest percent; 0 for none, and no decisions.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    pub(crate) calibration_fraction: f64,
    /// Seed of the hold-out.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Published statistics instead of features: a mean activation [D], or another detector; several are merged.
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with_all = ["features", "calibration_fraction", "seed"])]
    pub(crate) statistics: Vec<String>,
    /// Also write the statistics alone here: those of several parts of the data merge with --statistics A B.
    #[arg(long, value_name = "FILE", value_parser = file_to_write)]
    pub(crate) save_statistics: Option<PathBuf>,
    /// Where to write; an existing directory gets one file for each detector.
    #[arg(long, short, value_name = "FILE", value_parser = file_to_write)]
    pub(crate) output: PathBuf,
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
      -d 'react(0.9) | dice(0.7) | energy' -d energy --tpr 0.99 -o detector.safetensors
  dice fit --statistics mean.npy --head model.pth --calibration val.npy -o d.safetensors

Detectors are written [SHAPING |] [SPARSITY |] SCORE, as in 'react(0.9) | dice(0.9) | energy'.
  shaping   react(Q): clip at that quantile of all training activations; react(c=VALUE)
  sparsity  dice(P): keep the largest contributions; P is the fraction of weights dropped
            dice(P, preset=paper|official|openood|pytorch-ood): paper keeps exactly the top
              (1-P) C D; the others copy a peer's percentile and arithmetic
            dice(P, contribution=absolute|absolute-mean, scope=per-class)
            weight-drop(P, seed=N) unit-drop(P, seed=N) weight-prune(P) unit-prune(P)
  score     energy, msp, max-logit, energy(temperature=T), msp(temperature=T)";

impl Fit {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let outputs = match self.output.is_dir() {
            true => self.detectors.iter().map(|spec| self.output.join(file_name(spec))).collect(),
            false => vec![self.output.clone()],
        };
        let inputs = self.files()?;
        for output in outputs.iter().chain(&self.save_statistics) {
            refuse_overwrite(output, inputs.iter().map(PathBuf::as_path))?;
        }
        if let Some(twice) = (1..self.detectors.len()).find(|at| self.detectors[..*at].contains(&self.detectors[*at])) {
            return Err(Error::new(ErrorKind::Argument, format!("'{}' twice", self.detectors[twice]))
                .tensor("--detector")
                .expected("different detectors"));
        }
        let artifact = self.fit(context)?;
        if let Some(path) = &self.save_statistics {
            artifact.statistics.save(path)?;
            context.note(format_args!("Wrote {}", path.display()));
        }
        let several = outputs.len() > 1;
        let detectors = artifact.detectors.clone();
        let mut part = artifact;
        for (place, output) in outputs.iter().enumerate() {
            if several {
                part.detectors = vec![detectors[place].clone()];
            }
            part.save(output)?;
            context.note(format_args!("Wrote {}", output.display()));
        }
        Ok(())
    }

    /// Everything but the writing.
    pub(crate) fn fit(&self, context: &Context) -> Result<Artifact> {
        check_destination(&self.output)?;
        let network = match &self.model {
            Some(model) => Some(Network::open(model, &self.choices, &self.running, context)?),
            None => None,
        };
        let calibration = match self.calibration.is_empty() {
            true => None,
            false => Some(Inputs::find(network.as_ref(), &self.calibration)?.without_labels()),
        };
        // The held-out rows are read in a second pass, which images do not take: their features are kept meanwhile.
        let copy = match &network {
            Some(network) => Some(self.features_of_images(network, context)?),
            None => None,
        };
        let from = self.start(calibration, copy.as_ref().map(|(_folder, features)| features))?;
        let origin = match &network {
            Some(network) => Some(network.origin().clone()),
            None => self.recorded_origin(&from)?,
        };
        let (head_file, head_of) = match (&network, &self.head) {
            (None, Some(file)) => (file.as_str(), None),
            (network, _) => (self.model.as_deref().unwrap_or_default(), network.as_ref().map(Network::head)),
        };
        let head = |units: usize| head_of.map_or_else(|| head(head_file, units), |head| Ok(head.clone()));
        let (head, statistics, calibration) = match &from {
            From::Statistics(calibration) => {
                let statistics = self.merged_statistics()?;
                let head = head(statistics.units())?;
                (head, statistics, calibration.as_ref().map(|inputs| inputs.open(context)).transpose()?)
            }
            From::Features { training, calibration } => {
                let source = training.open()?;
                let head = head(source.units())?;
                check_widths(&head, source.units(), &training.names()[0], head_file)?;
                let rows = source.rows();
                let fitted_on = match calibration {
                    CalibrateOn::HoldOut(hold_out) => hold_out.select(source, false),
                    _ => source,
                };
                let statistics =
                    Statistics::gather(&mut Progress::new(fitted_on, rows, "gathering", context), Gather::ALL)?;
                let held_out = match calibration {
                    CalibrateOn::HoldOut(hold_out) => Some(hold_out.select(training.open()?, true)),
                    CalibrateOn::Inputs(inputs) => Some(inputs.open(context)?),
                    CalibrateOn::Nothing => None,
                };
                (head, statistics, held_out)
            }
        };
        let head = Arc::new(head);
        let fitted: Vec<Detector> =
            self.detectors.iter().map(|spec| spec.fit(&head, &statistics)).collect::<Result<_>>()?;
        let detectors = match calibration {
            None => fitted.into_iter().map(Calibrated::scores_only).collect(),
            Some(source) => self.calibrate(fitted, source, &from.calibration_name(), head_file, context)?,
        };
        let provenance = self.provenance(&from, origin.as_ref(), head_file)?;
        let artifact = Artifact { head, statistics, detectors, provenance };
        context.note(self.summary(&artifact, &from));
        Ok(artifact)
    }

    /// Every file that is read.
    fn files(&self) -> Result<Vec<PathBuf>> {
        let (images, features): (Vec<&String>, Vec<&String>) = match &self.model {
            Some(_) => (self.images.iter().chain(&self.calibration).collect(), Vec::new()),
            None => (Vec::new(), self.features.iter().chain(&self.calibration).chain(&self.labels).collect()),
        };
        let named = features.into_iter().chain(&self.statistics).cloned().collect::<Vec<_>>();
        let heads = self.head.iter().chain(&self.model).map(|file| Location::parse(file));
        let mut files: Vec<PathBuf> = expand(&named)?.into_iter().chain(heads).map(|location| location.path).collect();
        for input in images {
            files.extend(ImageSet::find(std::slice::from_ref(input))?.files().map(Path::to_path_buf));
        }
        Ok(files)
    }

    /// The features of `--images`, in a temporary folder that is deleted when dropped.
    fn features_of_images(&self, network: &Network, context: &Context) -> Result<(tempfile::TempDir, Dataset)> {
        let folder = tempfile::tempdir().map_err(|error| Error::io(std::env::temp_dir(), error))?;
        let path = folder.path().join("features.safetensors");
        network.save_features(&ImageSet::find(&self.images)?, &path, context)?;
        let features = Dataset::new(&[path.to_string_lossy().into_owned()])?.called(&self.images.join(" "));
        Ok((folder, features))
    }

    /// Where features came from, if their files say so; a head of another model is refused.
    fn recorded_origin(&self, from: &From<'_>) -> Result<Option<Origin>> {
        let mut files = Vec::new();
        if let From::Features { training, .. } = from {
            files.extend_from_slice(training.files());
        }
        if let From::Statistics(Some(Inputs::Features(data)))
        | From::Features { calibration: CalibrateOn::Inputs(Inputs::Features(data)), .. } = from
        {
            files.extend_from_slice(data.files());
        }
        let origin = origin_of_features(&files)?;
        let model = self.head.as_deref().map(Location::parse).filter(is_onnx);
        if let (Some(origin), Some(model)) = (&origin, model) {
            check_fingerprint(&Model::open(&model.path)?, origin, &files[0].path)?;
        }
        Ok(origin)
    }

    fn merged_statistics(&self) -> Result<Statistics> {
        let mut files = self.statistics.iter().map(|file| read_statistics(&Location::parse(file)));
        let Some(first) = files.next() else { return Err(Error::new(ErrorKind::Missing, "no statistics")) };
        let mut merged = first?;
        for statistics in files {
            merged.merge(&statistics?)?;
        }
        Ok(merged)
    }

    /// What the fit starts from; `images` where features were computed from images.
    fn start<'a>(&self, calibration: Option<Inputs<'a>>, images: Option<&Dataset>) -> Result<From<'a>> {
        if !self.statistics.is_empty() {
            return Ok(From::Statistics(calibration));
        }
        if [&self.features, &self.calibration].into_iter().flatten().filter(|file| *file == "-").count() > 1 {
            return Err(Error::new(ErrorKind::Argument, "`-` twice").expected("standard input once"));
        }
        let training = match images {
            Some(images) => images.clone(),
            None => dataset(&self.features, self.labels.as_ref())?,
        };
        Ok(match calibration {
            Some(inputs) => From::Features { training, calibration: CalibrateOn::Inputs(inputs) },
            None if self.calibration_fraction == 0.0 => From::Features { training, calibration: CalibrateOn::Nothing },
            None => From::Features {
                training: training.rereadable()?,
                calibration: CalibrateOn::HoldOut(HoldOut::new(self.calibration_fraction, self.seed)?),
            },
        })
    }

    fn calibrate(
        &self,
        fitted: Vec<Detector>,
        source: Box<dyn FeatureSource + '_>,
        name: &str,
        head_file: &str,
        context: &Context,
    ) -> Result<Vec<Calibrated>> {
        check_widths(fitted[0].head(), source.units(), name, head_file)?;
        let mut source = Progress::new(source, None, "calibrating", context);
        let scored = Scores::of(&mut source, &fitted.iter().collect::<Vec<_>>(), NonFinite::Reject)?;
        if scored.rows() == 0 {
            return Err(Error::new(ErrorKind::Calibration, "no calibration inputs")
                .file(name)
                .expected(format!("at least {} for a TPR of {}", Calibration::inputs_needed(self.tpr), self.tpr))
                .fix("give --calibration, or more training data"));
        }
        fitted
            .into_iter()
            .zip(scored.scores)
            .map(|(detector, scores)| Calibrated::new(detector, Calibration::new(scores)?, self.tpr))
            .collect()
    }

    fn provenance(
        &self,
        from: &From<'_>,
        origin: Option<&Origin>,
        head_file: &str,
    ) -> Result<BTreeMap<String, String>> {
        let mut provenance = match origin {
            Some(origin) => origin.to_notes()?,
            None => BTreeMap::new(),
        };
        let training = match from {
            From::Statistics(_) => ("statistics", self.statistics.join(" ")),
            From::Features { .. } if self.images.is_empty() => ("features", self.features.join(" ")),
            From::Features { .. } => ("images", self.images.join(" ")),
        };
        let calibration = match from {
            From::Statistics(Some(_)) | From::Features { calibration: CalibrateOn::Inputs(_), .. } => {
                self.calibration.join(" ")
            }
            From::Features { calibration: CalibrateOn::HoldOut(_), .. } => {
                format!("{:.2} of the {}, seed {}", self.calibration_fraction, training.0, self.seed)
            }
            _ => "none".into(),
        };
        let record = [("head", head_file.to_owned()), ("fitted", now()), training, ("calibration", calibration)];
        provenance.extend(record.map(|(key, value)| (key.to_owned(), value)));
        Ok(provenance)
    }

    fn summary(&self, artifact: &Artifact, from: &From<'_>) -> String {
        let head = &artifact.head;
        let mut text = String::new();
        let _ = writeln!(
            text,
            "Fitted to {}; head of {} classes and {} units.",
            behind(&artifact.statistics),
            head.classes(),
            head.units()
        );
        if head.bias().iter().all(|bias| *bias == 0.0) {
            text += "The head has no bias, or one of zeros: make sure that its file is not missing it.\n";
        }
        for calibrated in &artifact.detectors {
            let _ = writeln!(text, "\n\x1b[1m{}\x1b[0m", calibrated.detector.spec());
            text += &describe(calibrated, &artifact.statistics);
        }
        if let From::Features { calibration: CalibrateOn::HoldOut(_), .. } = from {
            text += "\nThe threshold rests on a part of the training data. If the network was trained on these inputs it is surer of \
                     them than of new ones, and new ones are then accepted less often than promised: give --calibration a \
                     set that the network has not seen.\n";
        }
        text.trim_end().to_owned()
    }
}

/// What a fit starts from.
enum From<'a> {
    Statistics(Option<Inputs<'a>>),
    Features { training: Dataset, calibration: CalibrateOn<'a> },
}

enum CalibrateOn<'a> {
    HoldOut(HoldOut),
    Inputs(Inputs<'a>),
    Nothing,
}

impl From<'_> {
    /// What is calibrated on, for messages.
    fn calibration_name(&self) -> String {
        match self {
            Self::Statistics(Some(inputs)) | Self::Features { calibration: CalibrateOn::Inputs(inputs), .. } => {
                inputs.name()
            }
            Self::Features { training, .. } => training.names()[0].to_string(),
            Self::Statistics(None) => String::new(),
        }
    }
}

/// What statistics rest on.
pub(crate) fn behind(statistics: &Statistics) -> String {
    match statistics.is_published() {
        true => "a published mean activation".into(),
        false => format!("{} inputs", count(statistics.rows() as usize)),
    }
}

/// What a detector is, and what its threshold promises, in sentences.
pub(crate) fn describe(calibrated: &Calibrated, statistics: &Statistics) -> String {
    let detector = &calibrated.detector;
    let mut text = String::new();
    if let Some(clip) = detector.clip() {
        let _ = writeln!(text, "  Features are clipped at {clip:.4}.");
    }
    if let Some(mask) = detector.mask() {
        let salience = Salience::measure(detector.head(), statistics, Some(mask));
        let all = mask.kept().len();
        let _ = writeln!(
            text,
            "  Keeps {} of {} weights, which carry {} % of the positive contribution; {} % of the units keep none.",
            count(mask.count()),
            count(all),
            percent(salience.contribution_kept),
            percent(salience.unused_units)
        );
        if matches!(detector.spec().sparsity, Sparsity::Dice { .. }) {
            let _ = writeln!(text, "  {}", verdict(&salience));
        }
    }
    match &calibrated.threshold {
        None => text += "  Not calibrated: it gives scores, but no p-values and no decisions.\n",
        Some(threshold) => {
            let (low, high) = threshold.interval(0.95);
            let _ = writeln!(
                text,
                "  Accepts an input that scores at least {:.6}: a fresh one, drawn as the calibration inputs were, with \
                 probability at least {} %.\n  The realised rate of this threshold, set on {} inputs, lies between {} and {} % \
                 with 95 % confidence.",
                threshold.score(),
                percent(threshold.tpr()),
                count(threshold.calibration_size()),
                percent(low),
                percent(high)
            );
        }
    }
    text
}

/// In a sentence, whether DICE has noise to prune on this head.
pub(crate) fn verdict(salience: &Salience) -> String {
    let silent = percent(salience.silent_units);
    let median = percent(salience.median_activation);
    if salience.silent_units >= 0.25 || salience.median_activation < 0.05 {
        format!(
            "{silent} % of the units are near-silent on training data (below 1 % of the largest mean; the median unit has \
             {median} % of it): there is noise to prune, and DICE usually helps on far OOD."
        )
    } else {
        format!(
            "{silent} % of the units are near-silent on training data (below 1 % of the largest mean; the median unit has \
             {median} % of it): nearly all carry signal, pruning removes some of it, and DICE often does worse than energy. \
             Compare both with `dice eval`."
        )
    }
}

fn check_widths(head: &LinearHead, units: usize, file: &str, head_file: &str) -> Result<()> {
    if head.units() == units {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Shape, format!("[N, {units}]"))
        .file(file)
        .tensor("features")
        .expected(format!(
            "[N, {}], as the head in {head_file} is [{}, {}]",
            head.units(),
            head.classes(),
            head.units()
        ))
        .fix("are these the inputs of that very layer?"))
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

/// The time in UTC, as RFC 3339 writes it.
fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    rfc_3339(seconds)
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
        assert_eq!(file_name(&spec), "react-c-1.0-dice-0.9-preset-official-energy.safetensors");
    }
}
