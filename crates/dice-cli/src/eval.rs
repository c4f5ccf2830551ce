//! `dice eval`: how well detectors tell data sets apart, by every convention, and what their thresholds do.

use std::path::{Path, PathBuf};

use dice_ood::io::{AtomicFile, SCORE_NAMES, expand, read_vector};
use dice_ood::metrics::{Curve, Interval, Intervals, Metrics, ccr_at_fpr};
use dice_ood::{
    Artifact, Calibrated, Decision, Detector, Error, ErrorKind, LinearHead, NonFinite, Result, Score, Shaping,
    Sparsity, Spec,
};
use serde::Serialize;
use std::io::Write as _;

use crate::data::{Inputs, Progress, Scores, check_origin, dataset, network};
use crate::network::Running;
use crate::report::{Format, Table, count, percent};
use crate::score::{OnNonFinite, Orientation};
use crate::{Context, print};

/// Evaluate detectors on in-distribution and out-of-distribution test sets.
///
/// Prints FPR@95TPR (share of OOD accepted when 95 % of ID is; ID positive, as in the DICE paper), AUROC, AUPR, bootstrap
/// intervals, ID accuracy where labels are there, and what each detector's own threshold accepts. Rates are in percent.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Eval {
    /// The detector file, as written by `dice fit`.
    #[arg(value_name = "DETECTOR", required_unless_present = "scores")]
    pub(crate) artifact: Option<PathBuf>,
    /// In-distribution test features [N, D]; images with --model, scores [N] with --scores.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub(crate) id: Vec<String>,
    /// Labels of the in-distribution test set, where they are in a file of their own.
    #[arg(long, value_name = "FILE")]
    pub(crate) id_labels: Option<String>,
    /// An out-of-distribution test set; repeat for several.
    #[arg(long, required = true, value_name = "NAME=FILE", value_parser = parse_set)]
    pub(crate) ood: Vec<(String, String)>,
    /// The network that the detector was fitted to: FILEs are then images (folders, patterns, .txt lists, .tar shards,
    /// .parquet), prepared as for the fit; class folders, as many as the network has classes and numbered by name, are labels.
    #[arg(long, value_name = "MODEL.onnx", conflicts_with_all = ["scores", "id_labels"])]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) running: Running,
    /// Detectors to compare: of the file, or fitted from its head and statistics (these have no threshold). All of the
    /// file by default.
    #[arg(long = "detector", short = 'd', value_name = "SPEC")]
    pub(crate) detectors: Vec<Spec>,
    /// FILEs hold scores of any tool, not features; no DETECTOR then.
    #[arg(long, conflicts_with_all = ["artifact", "detectors", "id_labels"])]
    pub(crate) scores: bool,
    /// The sign of scores given with --scores.
    #[arg(long, default_value = "in-distribution", requires = "scores")]
    pub(crate) orientation: Orientation,
    /// The TPR at which FPR is taken.
    #[arg(long, default_value_t = 0.95, value_name = "RATE", value_parser = crate::rate, allow_negative_numbers = true)]
    pub(crate) at_tpr: f64,
    /// Bootstrap replicates for the intervals; 0 for none.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub(crate) bootstrap: u32,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// How to print; by default as the extension of --output says (.md .tex .csv .json), else a table.
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Print every metric and convention, not only the usual ones.
    #[arg(long)]
    pub(crate) all_metrics: bool,
    /// What to do with inputs that hold NaN or infinity.
    #[arg(long, default_value = "reject")]
    pub(crate) non_finite: OnNonFinite,
    /// Where to write; standard output by default.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  dice eval detector.safetensors --id test.safetensors --ood svhn=svhn.npy --ood textures=dtd.npy
  dice eval detector.safetensors --id test.npy --ood svhn=svhn.npy \\
      -d energy -d msp -d 'dice(0.9) | energy' -o table.tex
  dice eval detector.safetensors --model resnet.onnx --id val/ --ood textures=dtd/images/
  dice eval --scores --id id_scores.npy --ood svhn=svhn_scores.csv#score

Conventions of the names in --all-metrics, csv and json:
  fpr_at_tpr               OOD accepted when 95 % of ID is (ID positive: DICE, ReAct, ASH papers)
  fpr_at_tpr_ood_positive  ID rejected when 95 % of OOD is (OOD positive: OpenOOD v1.5)
  aupr_in, aupr_out        average precision; aupr_*_trapezoid is OpenOOD's area
  official_*               what the DICE authors' util/metrics.py prints
  ccr_at_fpr_1, _10        correctly classified ID above the threshold of 1 %, 10 % FPR
Intervals are 95 % bootstrap percentiles.";

fn parse_set(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.into(), file.into())),
        _ => Err("expected NAME=FILE, as in svhn=svhn.npy".into()),
    }
}

/// Everything an evaluation found: what `--format json` prints.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) at_tpr: f64,
    pub(crate) id_inputs: usize,
    /// Of the dense head, where labels are there.
    pub(crate) dense_accuracy: Option<f64>,
    pub(crate) detectors: Vec<DetectorReport>,
}

/// What one detector did.
#[derive(Serialize)]
pub(crate) struct DetectorReport {
    pub(crate) detector: String,
    /// Of the detector's own head.
    pub(crate) accuracy: Option<f64>,
    pub(crate) decision: Option<DecisionReport>,
    pub(crate) sets: Vec<SetReport>,
    pub(crate) average: Averages,
}

impl DetectorReport {
    /// Whether the in-distribution set is accepted less often than chance explains.
    fn breaks_its_promise(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.id_accepted < decision.id_expected.low)
    }
}

/// What its threshold did on the in-distribution set.
#[derive(Serialize)]
pub(crate) struct DecisionReport {
    pub(crate) threshold: f64,
    pub(crate) promised_tpr: f64,
    pub(crate) id_accepted: f64,
    /// Where the share accepted of so many inputs was to be expected with 95 % confidence.
    pub(crate) id_expected: Interval,
}

/// How it did against one out-of-distribution set.
#[derive(Serialize)]
pub(crate) struct SetReport {
    pub(crate) ood: String,
    pub(crate) ood_inputs: usize,
    #[serde(flatten)]
    pub(crate) metrics: Metrics,
    pub(crate) intervals: Option<Intervals>,
    /// Correct-classification rate at 1 % and 10 % FPR (OpenOOD), where labels are there.
    pub(crate) ccr_at_fpr_1: Option<f64>,
    pub(crate) ccr_at_fpr_10: Option<f64>,
    /// Share accepted by the detector's own threshold.
    pub(crate) accepted: Option<f64>,
}

/// Means over the sets.
#[derive(Serialize)]
pub(crate) struct Averages {
    pub(crate) fpr_at_tpr: f64,
    pub(crate) auroc: f64,
    pub(crate) aupr_in: f64,
    pub(crate) aupr_out: f64,
}

impl Eval {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let report = self.evaluate(context)?;
        let broken: Vec<&str> =
            report.detectors.iter().filter(|d| d.breaks_its_promise()).map(|d| d.detector.as_str()).collect();
        if !broken.is_empty() {
            context.note(format_args!(
                "Note: these in-distribution inputs are not like the calibration inputs: fewer are accepted than chance \
                 explains, by {}.\nWas the calibration a part of the training data? Then fit with --calibration on inputs \
                 that the network has not seen.\n",
                broken.join("; ")
            ));
        }
        let text = self.render(&report)?;
        match &self.output {
            Some(path) if path != Path::new("-") => {
                let mut file = AtomicFile::create(path)?;
                let plain = anstream::adapter::strip_str(&text).to_string();
                file.write_all(plain.as_bytes()).map_err(|error| Error::io(path, error))?;
                file.commit()
            }
            _ => print(&text),
        }
    }

    pub(crate) fn evaluate(&self, context: &Context) -> Result<Report> {
        if let Some(twice) =
            (1..self.ood.len()).find(|at| self.ood[..*at].iter().any(|(name, _)| *name == self.ood[*at].0))
        {
            return Err(Error::new(ErrorKind::Argument, format!("'{}' twice", self.ood[twice].0))
                .tensor("--ood")
                .expected("different names"));
        }
        match &self.artifact {
            Some(path) => self.of_features(path, context),
            None => self.of_scores(),
        }
    }

    fn of_scores(&self) -> Result<Report> {
        let read = |files: &[String]| -> Result<Vec<f64>> {
            let mut scores = Vec::new();
            for file in expand(files)? {
                scores.extend(read_vector(&file, &SCORE_NAMES)?);
            }
            Ok(scores.into_iter().map(|score| self.orientation.apply(score)).collect())
        };
        let id = read(&self.id)?;
        let sets = self
            .ood
            .iter()
            .map(|(name, file)| Ok((name.as_str(), read(std::slice::from_ref(file))?)))
            .collect::<Result<Vec<_>>>()?;
        let report =
            self.report("scores".into(), &id, None, None, sets.iter().map(|(name, scores)| (*name, &scores[..])))?;
        Ok(Report { at_tpr: self.at_tpr, id_inputs: id.len(), dense_accuracy: None, detectors: vec![report] })
    }

    fn of_features(&self, path: &Path, context: &Context) -> Result<Report> {
        let artifact = Artifact::load(path)?;
        let compared = self.compared(&artifact)?;
        // The dense head's predictions come from the last one.
        let dense = dense_head(&artifact)?;
        let mut detectors: Vec<&Detector> = compared.iter().map(|calibrated| &calibrated.detector).collect();
        detectors.push(&dense);
        let network = network(self.model.as_ref(), &artifact, path, &self.running, context)?;
        // All are found before the first is read: a wrong name is told at once.
        let inputs = match (&network, &self.id_labels) {
            (None, labels) => Inputs::Features(dataset(&self.id, labels.as_ref())?),
            (Some(_), _) => Inputs::find(network.as_ref(), &self.id)?,
        };
        let ood = self.ood.iter().map(|(name, file)| {
            Ok((name, Inputs::find(network.as_ref(), std::slice::from_ref(file))?.without_labels()))
        });
        let ood: Vec<(&String, Inputs<'_>)> = ood.collect::<Result<_>>()?;
        for inputs in ood.iter().map(|(_, inputs)| inputs).chain([&inputs]) {
            check_origin(inputs, &artifact, path)?;
        }
        let mut id = self.score("in-distribution", &inputs, &detectors, context)?;
        if let Inputs::Images(_, set) = &inputs
            && id.labels.is_some()
            && ![0, artifact.head.classes()].contains(&set.classes().len())
        {
            context.note(format_args!(
                "Note: {} class folders for {} classes: they are not taken as labels, and no accuracy is given.",
                set.classes().len(),
                artifact.head.classes()
            ));
            id.labels = None;
        }
        let labels = id.labels.as_ref();
        if let Some(labels) = labels {
            check_labels(labels, &artifact.head)?;
        }
        detectors.pop();
        let sets = ood
            .iter()
            .map(|(name, inputs)| Ok((name, self.score(name, inputs, &detectors, context)?)))
            .collect::<Result<Vec<_>>>()?;
        let correct = |index: usize| -> Option<Vec<bool>> {
            let classes = &id.classes[index];
            labels.map(|labels| labels.iter().zip(classes).map(|(label, class)| *label == i64::from(*class)).collect())
        };
        let detectors = compared
            .iter()
            .enumerate()
            .map(|(index, calibrated)| {
                let sets = sets.iter().map(|(name, set)| (name.as_str(), &set.scores[index][..]));
                let name = calibrated.detector.spec().to_string();
                self.report(name, &id.scores[index], correct(index).as_deref(), Some(calibrated), sets)
            })
            .collect::<Result<_>>()?;
        let dense_accuracy = correct(compared.len()).as_deref().map(share);
        Ok(Report { at_tpr: self.at_tpr, id_inputs: id.rows(), dense_accuracy, detectors })
    }

    /// The detectors asked for: calibrated ones of the file, or fitted now from what it carries.
    fn compared(&self, artifact: &Artifact) -> Result<Vec<Calibrated>> {
        if self.detectors.is_empty() {
            return Ok(artifact.detectors.clone());
        }
        self.detectors
            .iter()
            .map(|spec| match artifact.detectors.iter().find(|held| held.detector.spec() == spec) {
                Some(held) => Ok(held.clone()),
                None => Ok(Calibrated::scores_only(spec.fit(&artifact.head, &artifact.statistics)?)),
            })
            .collect()
    }

    fn score(&self, what: &str, inputs: &Inputs<'_>, detectors: &[&Detector], context: &Context) -> Result<Scores> {
        let source = inputs.open(context)?;
        let non_finite: NonFinite = self.non_finite.into();
        let scores = Scores::of(&mut Progress::new(source, None, what, context), detectors, non_finite)?;
        if scores.rows() == 0 {
            return Err(Error::new(ErrorKind::Empty, "no rows").file(inputs.name()).expected("at least one input"));
        }
        Ok(scores)
    }

    fn report<'a>(
        &self,
        detector: String,
        id: &[f64],
        correct: Option<&[bool]>,
        calibrated: Option<&Calibrated>,
        sets: impl Iterator<Item = (&'a str, &'a [f64])>,
    ) -> Result<DetectorReport> {
        let threshold = calibrated.and_then(|calibrated| calibrated.threshold);
        let accepted = |scores: &[f64]| {
            threshold.map(|threshold| {
                let accepted: Vec<bool> =
                    scores.iter().map(|score| threshold.decide(*score) == Decision::InDistribution).collect();
                share(&accepted)
            })
        };
        let mut reports = Vec::new();
        for (name, ood) in sets {
            let curve = Curve::new(id, ood).map_err(|error| error.file(name))?;
            let intervals =
                (self.bootstrap > 0).then(|| curve.intervals(self.at_tpr, self.bootstrap as usize, 0.95, self.seed));
            let ccr = |fpr: f64| correct.map(|correct| ccr_at_fpr(id, correct, ood, fpr)).transpose();
            reports.push(SetReport {
                ood: name.to_owned(),
                ood_inputs: ood.len(),
                metrics: curve.metrics(self.at_tpr),
                intervals,
                ccr_at_fpr_1: ccr(0.01)?,
                ccr_at_fpr_10: ccr(0.1)?,
                accepted: accepted(ood),
            });
        }
        let mean = |of: fn(&Metrics) -> f64| {
            reports.iter().map(|report| of(&report.metrics)).sum::<f64>() / reports.len() as f64
        };
        let average = Averages {
            fpr_at_tpr: mean(|m| m.fpr_at_tpr),
            auroc: mean(|m| m.auroc),
            aupr_in: mean(|m| m.aupr_in),
            aupr_out: mean(|m| m.aupr_out),
        };
        let decision = threshold.zip(accepted(id)).map(|(threshold, id_accepted)| {
            let (low, high) = threshold.interval_among(id.len(), 0.95);
            DecisionReport {
                threshold: threshold.score(),
                promised_tpr: threshold.tpr(),
                id_accepted,
                id_expected: Interval { low, high },
            }
        });
        Ok(DetectorReport { detector, accuracy: correct.map(share), decision, sets: reports, average })
    }

    fn chosen_format(&self) -> Format {
        let extension = self.output.as_ref().and_then(|path| path.extension()).and_then(|extension| extension.to_str());
        self.format.unwrap_or(match extension {
            Some("md") => Format::Markdown,
            Some("tex") => Format::Latex,
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            _ => Format::Table,
        })
    }

    fn render(&self, report: &Report) -> Result<String> {
        match self.chosen_format() {
            Format::Json => serde_json::to_string_pretty(report)
                .map(|text| text + "\n")
                .map_err(|error| Error::new(ErrorKind::Malformed, error.to_string())),
            Format::Csv => Ok(every_metric(report).render(Format::Csv)),
            format => Ok(self.tables(report).iter().map(|table| table.render(format)).collect::<Vec<_>>().join("\n")),
        }
    }

    pub(crate) fn tables(&self, report: &Report) -> Vec<Table> {
        let mut tables = vec![if self.all_metrics { every_metric(report) } else { headline(report) }];
        if report.detectors.iter().any(|detector| detector.decision.is_some()) {
            tables.push(decisions(report));
        }
        if report.dense_accuracy.is_some() {
            tables.push(accuracies(report));
        }
        tables
    }
}

/// The paper's columns, with intervals.
fn headline(report: &Report) -> Table {
    let fpr = format!("FPR@{}TPR ↓", trimmed(100.0 * report.at_tpr));
    let has_intervals = report.detectors.iter().flat_map(|detector| &detector.sets).any(|set| set.intervals.is_some());
    let mut table = Table::new(
        format!(
            "{} in-distribution inputs; in percent, ID positive{}",
            count(report.id_inputs),
            if has_intervals { ", with 95 % bootstrap intervals" } else { "" }
        ),
        &["detector", "OOD set", "inputs", &fpr, "", "AUROC ↑", "", "AUPR-in ↑", "AUPR-out ↑"],
        2,
    );
    let interval = |interval: Option<Interval>| {
        interval.map(|i| format!("[{:.1}, {:.1}]", 100.0 * i.low, 100.0 * i.high)).unwrap_or_default()
    };
    for detector in &report.detectors {
        for (place, set) in detector.sets.iter().enumerate() {
            table.rows.push(vec![
                if place == 0 { detector.detector.clone() } else { String::new() },
                set.ood.clone(),
                count(set.ood_inputs),
                percent(set.metrics.fpr_at_tpr),
                interval(set.intervals.map(|i| i.fpr_at_tpr)),
                percent(set.metrics.auroc),
                interval(set.intervals.map(|i| i.auroc)),
                percent(set.metrics.aupr_in),
                percent(set.metrics.aupr_out),
            ]);
        }
        if detector.sets.len() > 1 {
            let average = &detector.average;
            let mut row =
                vec![String::new(), "average".into(), String::new(), percent(average.fpr_at_tpr), String::new()];
            row.extend([percent(average.auroc), String::new(), percent(average.aupr_in), percent(average.aupr_out)]);
            table.rows.push(row);
        }
    }
    table
}

/// What each threshold accepts.
fn decisions(report: &Report) -> Table {
    let mut table = Table::new(
        "Accepted by each detector's own threshold, in percent",
        &["detector", "threshold", "promised", "ID accepted", "expected (95 %)"],
        1,
    );
    let names: Vec<String> = report.detectors[0].sets.iter().map(|set| format!("{} accepted", set.ood)).collect();
    table.header.extend(names);
    for detector in &report.detectors {
        let mut row = vec![detector.detector.clone()];
        match &detector.decision {
            Some(decision) => row.extend([
                format!("{:.6}", decision.threshold),
                format!("≥ {}", percent(decision.promised_tpr)),
                percent(decision.id_accepted),
                format!("[{:.2}, {:.2}]", 100.0 * decision.id_expected.low, 100.0 * decision.id_expected.high),
            ]),
            None => row.extend(["none".into(), "-".into(), "-".into(), "-".into()]),
        }
        row.extend(detector.sets.iter().map(|set| set.accepted.map_or("-".into(), percent)));
        table.rows.push(row);
    }
    table
}

fn accuracies(report: &Report) -> Table {
    let mut table =
        Table::new("Classification accuracy on the in-distribution set, in percent", &["head", "accuracy"], 1);
    let dense = report.dense_accuracy.map_or("-".into(), percent);
    table.rows.push(vec!["dense head (use this one to predict)".into(), dense]);
    for detector in &report.detectors {
        table.rows.push(vec![detector.detector.clone(), detector.accuracy.map_or("-".into(), percent)]);
    }
    table
}

/// One row for each detector and set, one column for each metric by its full name, as fractions.
fn every_metric(report: &Report) -> Table {
    let mut table = Table::new(
        "",
        &[
            "detector",
            "ood",
            "id_inputs",
            "ood_inputs",
            "at_tpr",
            "fpr_at_tpr",
            "fpr_at_tpr_low",
            "fpr_at_tpr_high",
            "fpr_at_tpr_ood_positive",
            "auroc",
            "auroc_low",
            "auroc_high",
            "aupr_in",
            "aupr_out",
            "aupr_in_trapezoid",
            "aupr_out_trapezoid",
            "autc",
            "official_fpr",
            "official_auroc",
            "official_dterr",
            "official_auin",
            "official_auout",
            "ccr_at_fpr_1",
            "ccr_at_fpr_10",
            "accepted",
            "id_accepted",
            "promised_tpr",
            "accuracy",
            "dense_accuracy",
        ],
        2,
    );
    for detector in &report.detectors {
        for set in &detector.sets {
            let m = &set.metrics;
            let bound = |of: fn(&Intervals) -> f64| set.intervals.as_ref().map(of);
            let decision = detector.decision.as_ref();
            let mut row = vec![
                detector.detector.clone(),
                set.ood.clone(),
                report.id_inputs.to_string(),
                set.ood_inputs.to_string(),
            ];
            let values = [
                Some(report.at_tpr),
                Some(m.fpr_at_tpr),
                bound(|i| i.fpr_at_tpr.low),
                bound(|i| i.fpr_at_tpr.high),
                Some(m.fpr_at_tpr_ood_positive),
                Some(m.auroc),
                bound(|i| i.auroc.low),
                bound(|i| i.auroc.high),
                Some(m.aupr_in),
                Some(m.aupr_out),
                Some(m.aupr_in_trapezoid),
                Some(m.aupr_out_trapezoid),
                Some(m.autc),
                Some(m.official.fpr),
                Some(m.official.auroc),
                Some(m.official.dterr),
                Some(m.official.auin),
                Some(m.official.auout),
                set.ccr_at_fpr_1,
                set.ccr_at_fpr_10,
                set.accepted,
                decision.map(|decision| decision.id_accepted),
                decision.map(|decision| decision.promised_tpr),
                detector.accuracy,
                report.dense_accuracy,
            ];
            row.extend(values.map(|value| value.map(|value| value.to_string()).unwrap_or_default()));
            table.rows.push(row);
        }
    }
    table
}

/// A detector whose predictions are those of the dense head.
fn dense_head(artifact: &Artifact) -> Result<Detector> {
    Spec { shaping: Shaping::None, sparsity: Sparsity::Dense, score: Score::MaxLogit }
        .fit(&artifact.head, &artifact.statistics)
}

fn check_labels(labels: &[i64], head: &LinearHead) -> Result<()> {
    let classes = head.classes() as i64;
    match labels.iter().enumerate().find(|(_, label)| !(0..classes).contains(*label)) {
        None => Ok(()),
        Some((row, label)) => Err(Error::new(ErrorKind::Shape, format!("{label} at row {row}"))
            .tensor("labels")
            .expected(format!("class indices 0 to {}, as the head has {classes} classes", classes - 1))),
    }
}

fn share(flags: &[bool]) -> f64 {
    flags.iter().filter(|flag| **flag).count() as f64 / flags.len() as f64
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
