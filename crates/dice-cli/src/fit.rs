//! `dice fit`: features and head in, a calibrated detector out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use dice_ood::io::{Dataset, Location, expand, read_statistics};
use dice_ood::{
    Artifact, Calibrated, Calibration, Detector, Error, ErrorKind, FeatureSource, Gather, HoldOut, LinearHead,
    NonFinite, Result, Salience, Sparsity, Spec, Statistics,
};

use crate::data::{Progress, Scores, dataset, head};
use crate::report::{count, percent};
use crate::{Context, refuse_overwrite};

/// Fit a detector to the features and the head of a trained network.
///
/// One pass over the training features gathers statistics; detectors are fitted from these, and a threshold is set on
/// in-distribution inputs held out of the fit, so that a fresh one is accepted with at least the promised probability.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Fit {
    /// Penultimate features [N, D] of in-distribution training inputs (labels beside them stratify the hold-out).
    #[arg(long, short = 'f', num_args = 1.., value_name = "FILE", required_unless_present = "statistics")]
    pub(crate) features: Vec<String>,
    /// Class labels [N] of the features, where they are in a file of their own.
    #[arg(long, value_name = "FILE", requires = "features")]
    pub(crate) labels: Option<String>,
    /// The linear head: weight [C, D] and bias [C]; or the ONNX model it is part of.
    #[arg(long, value_name = "FILE")]
    pub(crate) head: String,
    /// The detector to fit; give several to fit them all from the same pass.
    #[arg(long = "detector", short = 'd', value_name = "SPEC", default_value = "dice(0.9) | energy")]
    pub(crate) detectors: Vec<Spec>,
    /// Probability with which a fresh in-distribution input is to be accepted.
    ///
    /// 0.95 takes at least 19 calibration inputs, 0.99 takes 99; thousands make the realised rate certain.
    #[arg(long, default_value_t = 0.95, value_name = "RATE", value_parser = crate::rate, allow_negative_numbers = true)]
    pub(crate) tpr: f64,
    /// In-distribution features for the threshold, not seen in training; better than a part of --features.
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with = "calibration_fraction")]
    pub(crate) calibration: Vec<String>,
    /// Share of --features to hold out of the fit for the threshold, to the nearest percent; 0 for none, and no decisions.
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
        let named = [&self.features, &self.calibration, &self.statistics];
        let inputs = expand(&named.into_iter().flatten().chain(&self.labels).cloned().collect::<Vec<_>>())?;
        let head = Location::parse(&self.head);
        let outputs = match self.output.is_dir() {
            true => self.detectors.iter().map(|spec| self.output.join(file_name(spec))).collect(),
            false => vec![self.output.clone()],
        };
        for output in outputs.iter().chain(&self.save_statistics) {
            refuse_overwrite(output, inputs.iter().chain([&head]).map(|input| input.path.as_path()))?;
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
        let calibrated_on = self.calibration_source()?;
        let (head, statistics, calibration) = match &calibrated_on {
            From::Statistics(calibration) => {
                let statistics = self.merged_statistics()?;
                let head = head(&self.head, statistics.units())?;
                (head, statistics, calibration.as_ref().map(Dataset::open).transpose()?)
            }
            From::Features { training, calibration } => {
                let source = training.open()?;
                let head = head(&self.head, source.units())?;
                check_widths(&head, source.units(), &training.files()[0].to_string(), &self.head)?;
                let rows = source.rows();
                let fitted_on = match calibration {
                    CalibrateOn::HoldOut(hold_out) => hold_out.select(source, false),
                    _ => source,
                };
                let statistics =
                    Statistics::gather(&mut Progress::new(fitted_on, rows, "gathering", context), Gather::ALL)?;
                let held_out = match calibration {
                    CalibrateOn::HoldOut(hold_out) => Some(hold_out.select(training.open()?, true)),
                    CalibrateOn::Files(files) => Some(files.open()?),
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
            Some(source) => self.calibrate(fitted, source, context)?,
        };
        let artifact = Artifact { head, statistics, detectors, provenance: self.provenance(&calibrated_on) };
        context.note(self.summary(&artifact, &calibrated_on));
        Ok(artifact)
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

    fn calibration_source(&self) -> Result<From> {
        let files = match self.calibration.is_empty() {
            true => None,
            false => Some(Dataset::new(&self.calibration)?.without_labels()),
        };
        if !self.statistics.is_empty() {
            return Ok(From::Statistics(files));
        }
        if [&self.features, &self.calibration].into_iter().flatten().filter(|file| *file == "-").count() > 1 {
            return Err(Error::new(ErrorKind::Argument, "`-` twice").expected("standard input once"));
        }
        let training = dataset(&self.features, self.labels.as_ref())?;
        Ok(match files {
            Some(files) => From::Features { training, calibration: CalibrateOn::Files(files) },
            None if self.calibration_fraction == 0.0 => From::Features { training, calibration: CalibrateOn::Nothing },
            None => From::Features {
                // The held-out rows are read in a second pass.
                training: training.rereadable()?,
                calibration: CalibrateOn::HoldOut(HoldOut::new(self.calibration_fraction, self.seed)?),
            },
        })
    }

    fn calibrate(
        &self,
        fitted: Vec<Detector>,
        source: Box<dyn FeatureSource>,
        context: &Context,
    ) -> Result<Vec<Calibrated>> {
        let files = if self.calibration.is_empty() { &self.features } else { &self.calibration };
        check_widths(fitted[0].head(), source.units(), &files[0], &self.head)?;
        let mut source = Progress::new(source, None, "calibrating", context);
        let scored = Scores::of(&mut source, &fitted.iter().collect::<Vec<_>>(), NonFinite::Reject)?;
        if scored.rows() == 0 {
            return Err(Error::new(ErrorKind::Calibration, "no calibration inputs")
                .file(&files[0])
                .expected(format!("at least {} for a TPR of {}", Calibration::inputs_needed(self.tpr), self.tpr))
                .fix("give --calibration FILE, or more features"));
        }
        fitted
            .into_iter()
            .zip(scored.scores)
            .map(|(detector, scores)| Calibrated::new(detector, Calibration::new(scores)?, self.tpr))
            .collect()
    }

    fn provenance(&self, from: &From) -> BTreeMap<String, String> {
        let mut provenance = BTreeMap::from([("head".into(), self.head.clone()), ("fitted".into(), now())]);
        let mut record = |key: &str, value: String| {
            provenance.insert(key.into(), value);
        };
        match from {
            From::Statistics(_) => record("statistics", self.statistics.join(" ")),
            From::Features { .. } => record("features", self.features.join(" ")),
        }
        match from {
            From::Statistics(Some(_)) | From::Features { calibration: CalibrateOn::Files(_), .. } => {
                record("calibration", self.calibration.join(" "));
            }
            From::Features { calibration: CalibrateOn::HoldOut(_), .. } => {
                record("calibration", format!("{:.2} of the features, seed {}", self.calibration_fraction, self.seed));
            }
            _ => record("calibration", "none".into()),
        }
        provenance
    }

    fn summary(&self, artifact: &Artifact, from: &From) -> String {
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
            text += "\nThe threshold rests on a part of --features. If the network was trained on these inputs it is surer of \
                     them than of new ones, and new ones are then accepted less often than promised: give --calibration a \
                     set that the network has not seen.\n";
        }
        text.trim_end().to_owned()
    }
}

/// What a fit starts from.
enum From {
    Statistics(Option<Dataset>),
    Features { training: Dataset, calibration: CalibrateOn },
}

enum CalibrateOn {
    HoldOut(HoldOut),
    Files(Dataset),
    Nothing,
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
