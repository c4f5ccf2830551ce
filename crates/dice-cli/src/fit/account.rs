//! What was fitted, in sentences and as JSON.

use std::fmt::Write;
use std::path::PathBuf;

use dice_ood::auto::{Choice, Chosen, Measured, RECIPE, Weighed};
use dice_ood::{Accuracy, Calibrated, Error, ErrorKind, Finding, Fitted, LeftOut, Mask, Result, Salience, Statistics};
use serde::Serialize;

use super::stand_ins::StandIns;
use crate::report::{Table, count, percent};
use crate::said::print;

/// More detectors than this are told of in a table.
const DESCRIBED: usize = 8;

/// An account of a fit.
pub(crate) struct Account<'a> {
    pub(crate) fitted: &'a Fitted,
    /// What was taken as the head.
    pub(crate) head: &'a str,
    /// Whether thresholds rest on a part of the training data.
    pub(crate) held_out: bool,
}

impl Account<'_> {
    pub(crate) fn text(&self) -> String {
        let artifact = &self.fitted.artifact;
        let head = artifact.head();
        let mut text = format!(
            "Fitted to {}; head of {} classes and {} units from {}.\n",
            behind(artifact.statistics()),
            head.classes(),
            head.units(),
            self.head,
        );
        if let Some(accuracy) = self.fitted.accuracy {
            let _ = writeln!(
                text,
                "Accuracy of the head on the training features: {} % (of {} labelled rows).",
                percent(accuracy.share),
                count(accuracy.rows)
            );
        }
        if head.bias().iter().all(|bias| *bias == 0.0) {
            text += "The head has no bias, or one of zeros: make sure that its file is not missing it.\n";
        }
        if let Some(choice) = &self.fitted.choice {
            text += &format!("\n{}", chosen(choice));
        }
        match artifact.detectors().len() {
            0..=DESCRIBED => {
                for calibrated in artifact.detectors() {
                    let _ = writeln!(text, "\n\x1b[1m{}\x1b[0m", calibrated.detector().spec());
                    text += &describe(calibrated, artifact.statistics());
                }
            }
            _ => text += &format!("\n{}", overview(artifact.detectors()).on_terminal()),
        }
        if self.held_out {
            text += "\nThe threshold rests on a part of the training data. If the network was trained on these inputs it is surer of \
                     them than of new ones, and new ones are then accepted less often than promised: give --calibration a \
                     set that the network has not seen.\n";
        }
        text.trim_end().to_owned()
    }

    /// What was left out, and why: a line for each reason.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
        for LeftOut { spec, reason } in &self.fitted.left_out {
            let (spec, reason) = (spec.to_string(), reason.to_string());
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, specs)) => specs.push(spec),
                None => reasons.push((reason, vec![spec])),
            }
        }
        reasons.into_iter().map(|(reason, specs)| format!("Left out: {} ({reason}).", specs.join(", "))).collect()
    }

    /// Prints the account of detectors that were written to `outputs`, for machines.
    pub(crate) fn print_json(&self, outputs: &[PathBuf], stand_ins: Option<&StandIns>) -> Result<()> {
        let artifact = &self.fitted.artifact;
        let written = |place: usize| outputs.get(place).or(outputs.last());
        let told = Told {
            fitted_to: (!artifact.statistics().is_published()).then(|| artifact.statistics().rows()),
            head: ToldHead { file: self.head, classes: artifact.head().classes(), units: artifact.head().units() },
            accuracy: self.fitted.accuracy,
            held_out: self.held_out,
            detectors: artifact
                .detectors()
                .iter()
                .enumerate()
                .map(|(place, one)| ToldDetector::of(one, written(place)))
                .collect(),
            left_out: self.fitted.left_out.iter().map(ToldLeftOut::of).collect(),
            choice: self.fitted.choice.as_ref().map(ToldChoice::of),
            stand_ins,
            warnings: self.fitted.findings.iter().map(Warning::of).collect(),
        };
        let json = serde_json::to_string_pretty(&told);
        print(&(json.map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()))? + "\n"))
    }
}

/// The account as JSON.
#[derive(Serialize)]
struct Told<'a> {
    /// Training inputs; null where only a published mean is known.
    fitted_to: Option<u64>,
    head: ToldHead<'a>,
    accuracy: Option<Accuracy>,
    held_out: bool,
    detectors: Vec<ToldDetector>,
    left_out: Vec<ToldLeftOut>,
    /// What `auto` chose.
    choice: Option<ToldChoice>,
    /// What detectors reject of distorted images; null without a model.
    stand_ins: Option<&'a StandIns>,
    warnings: Vec<Warning>,
}

#[derive(Serialize)]
struct ToldChoice {
    recipe: &'static str,
    detector: String,
    members: Vec<ToldMember>,
    left_out: Vec<ToldLeftOut>,
    /// Mean FPR at 95 % TPR over the networks that the recipe was judged by.
    measured: Measured,
}

#[derive(Serialize)]
struct ToldMember {
    detector: String,
    looks_at: &'static str,
    weight: f64,
}

impl ToldChoice {
    fn of(choice: &Choice) -> Self {
        let member = |chosen: &Chosen| ToldMember {
            detector: chosen.spec.to_string(),
            looks_at: chosen.family,
            weight: chosen.weight,
        };
        Self {
            recipe: RECIPE.name,
            detector: choice.spec().to_string(),
            members: choice.members().iter().map(member).collect(),
            left_out: choice.left_out().iter().map(ToldLeftOut::of).collect(),
            measured: RECIPE.measured,
        }
    }
}

#[derive(Serialize)]
struct ToldLeftOut {
    detector: String,
    reason: String,
}

impl ToldLeftOut {
    fn of(left_out: &LeftOut) -> Self {
        Self { detector: left_out.spec.to_string(), reason: left_out.reason.to_string() }
    }
}

#[derive(Serialize)]
struct ToldHead<'a> {
    file: &'a str,
    classes: usize,
    units: usize,
}

#[derive(Serialize)]
struct ToldDetector {
    detector: String,
    file: Option<String>,
    weights_kept: Option<usize>,
    threshold: Option<f64>,
    tpr: Option<f64>,
    calibration_inputs: Option<usize>,
    /// Where the realised rate lies with 95 % confidence.
    realised_rate: Option<(f64, f64)>,
}

impl ToldDetector {
    fn of(calibrated: &Calibrated, file: Option<&PathBuf>) -> Self {
        let threshold = calibrated.threshold().copied();
        Self {
            detector: calibrated.detector().spec().to_string(),
            file: file.map(|file| file.display().to_string()),
            weights_kept: calibrated.detector().mask().map(Mask::count),
            threshold: threshold.map(|threshold| threshold.score()),
            tpr: threshold.map(|threshold| threshold.tpr()),
            calibration_inputs: threshold.map(|threshold| threshold.calibration_size()),
            realised_rate: threshold.map(|threshold| threshold.interval(0.95)),
        }
    }
}

/// A finding with its sentence.
#[derive(Serialize)]
struct Warning {
    #[serde(flatten)]
    finding: Finding,
    message: String,
}

impl Warning {
    fn of(finding: &Finding) -> Self {
        Self { finding: *finding, message: finding.to_string() }
    }
}

/// What was chosen and why: three lines, one for each member that cannot be fitted, and one for weights.
pub(crate) fn chosen(choice: &Choice) -> String {
    let looks: Vec<String> =
        choice.members().iter().map(|member| format!("{} ({})", member.family, member.spec)).collect();
    let Measured { networks, panel, best_single, energy } = RECIPE.measured;
    let mut text = format!(
        "Chosen ({}): {}.\nOne score a family: {}.\nOver {networks} networks the mean FPR95 of such a panel was {} %, that of the best \
         single method {} %, of the energy {} % (docs/CHOOSE.md).\n",
        RECIPE.name,
        choice.spec(),
        looks.join(", "),
        percent(panel),
        percent(best_single),
        percent(energy)
    );
    for LeftOut { spec, reason } in choice.left_out() {
        let _ = writeln!(text, "Without {spec}: {reason}.");
    }
    text + &choice.weighed().map(weighed).unwrap_or_default()
}

/// What weights did, and whether they were taken.
fn weighed(weighed: &Weighed) -> String {
    let sets: Vec<String> = weighed
        .accepted
        .iter()
        .map(|(name, [equal, fitted])| format!("{name} {} % ({} %)", percent(*fitted), percent(*equal)))
        .collect();
    format!(
        "Weights fitted to half of the validation sets were {}: of the other half they accept {}, where equal weights accept what is \
         in parentheses.\n",
        if weighed.taken { "taken" } else { "not taken" },
        sets.join(", ")
    )
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
    let detector = calibrated.detector();
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
        let _ = writeln!(text, "  {}", near_silent(&salience));
    }
    if detector.reference_size() > 0 {
        let _ = writeln!(
            text,
            "  The p-values of its members rest on {} calibration inputs, its threshold on others.",
            count(detector.reference_size())
        );
    }
    match calibrated.threshold() {
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

/// A line for each detector.
fn overview(detectors: &[Calibrated]) -> Table {
    let header = ["detector", "accepts from", "promised %", "realised rate, 95 % sure"];
    let mut table = Table::new("", &header, 1);
    for calibrated in detectors {
        let mut row = vec![calibrated.detector().spec().to_string()];
        match calibrated.threshold() {
            None => row.extend(["-", "-", "not calibrated"].map(str::to_owned)),
            Some(threshold) => {
                let (low, high) = threshold.interval(0.95);
                let rate = format!("{} to {} %", percent(low), percent(high));
                row.extend([format!("{:.6}", threshold.score()), percent(threshold.tpr()), rate]);
            }
        }
        table.rows.push(row);
    }
    table
}

/// How many units are near-silent, and what that is, in a sentence.
pub(crate) fn near_silent(salience: &Salience) -> String {
    format!(
        "{} % of the units are near-silent on training data (mean activation below 1 % of the largest); the median unit has \
         {} % of the largest.",
        percent(salience.silent_units),
        percent(salience.median_activation)
    )
}
