//! `dice score`: a score, a p-value, a decision and a predicted class for each input.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use dice_ood::evaluation::dense_predictor;
use dice_ood::io::{AtomicFile, ScoreRow, ScoreWriter};
use dice_ood::metrics::Interval;
use dice_ood::{
    Artifact, BatchCheck, Block, Calibrated, Check, Decision, Detector, Error, ErrorKind, Id, NO_CLASS, NonFinite,
    Plan, Result, Scored, Spec, Threshold, Verdict, for_each_block,
};
use serde::Serialize;

use crate::classes::Classes;
use crate::columns::Columns;
use crate::data::{Inputs, check_origin, detector, network};
use crate::network::Running;
use crate::progress::Watched;
use crate::report::{contradiction, count, json, percent};
use crate::said::Context;

/// Score inputs: id, score (higher = more in-distribution), p-value, decision and predicted class for each.
///
/// Results go to standard output as CSV, or to a file in the format of its extension (.csv .jsonl .npy .parquet);
/// .npy holds the scores alone. Memory does not grow with the number of inputs.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Score {
    /// The detector, as written by `dice fit`.
    #[arg(value_name = "DETECTOR")]
    artifact: PathBuf,
    /// Features [N, D] of the inputs, - for standard input; with --model, images: folders, patterns, .txt lists, .tar, .parquet; or
    /// arrays, where the detector was fitted to --inputs.
    #[arg(required = true, value_name = "FEATURES")]
    inputs: Vec<String>,
    /// The network that the detector was fitted to; FEATURES are then images, prepared as for the fit, or arrays, as
    /// in --inputs of the fit.
    #[arg(long, value_name = "MODEL.onnx")]
    model: Option<String>,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    columns: Columns,
    /// Where to write; - or nothing for standard output.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Format on standard output.
    #[arg(long, default_value = "csv", conflicts_with = "output")]
    format: StreamFormat,
    /// Which detector of the file, where it holds several; the first by default.
    #[arg(long, short = 'd', value_name = "SPEC")]
    detector: Option<Spec>,
    /// Promise another TPR than the fit did: the threshold is taken anew from the calibration scores in the file.
    #[arg(long, value_name = "RATE", value_parser = crate::flags::rate, allow_negative_numbers = true)]
    tpr: Option<f64>,
    /// Print only inputs with this decision.
    #[arg(long, value_name = "DECISION")]
    only: Option<Only>,
    /// Also say what each member of a combination says: a column RULE.MEMBER for each, as in evidence.vim. The lower, the more
    /// this member speaks against the input.
    #[arg(long)]
    explain: bool,
    /// Leave out the predicted class: saves the product with the whole head.
    #[arg(long)]
    no_prediction: bool,
    /// Write a summary as JSON: numbers accepted and rejected, what is promised, whether the inputs are like those of the
    /// calibration.
    #[arg(long, value_name = "FILE")]
    pub(crate) summary: Option<PathBuf>,
    /// Exit with 1, after all outputs are written, where the inputs are not like those of the calibration.
    #[arg(long)]
    check: bool,
    /// What to do with inputs that hold NaN or infinity.
    #[arg(long, default_value = "reject")]
    non_finite: OnNonFinite,
    /// The sign of the printed scores; p-values and decisions do not change.
    #[arg(long, default_value = "in-distribution")]
    orientation: Orientation,
}

const EXAMPLES: &str = "Examples:
  dice score detector.safetensors new.npy -o scores.parquet
  dice score detector.safetensors new.npy -o scores.parquet --summary summary.json --check
  dice score panel.safetensors new.npy -d 'evidence(lts, nci, mds, vim, core, caref)' --explain
  dice score detector.safetensors --model resnet.onnx photos/ --only ood
  dice score detector.safetensors --model text.onnx test.npz
  extract-features | dice score detector.safetensors - --format jsonl

Columns:
  score       the detector's score; higher = more in-distribution. An energy score is the log of the
              sum of the exponentials of the logits: its scale is that of the network's logits
  p_value     of \"this input is in-distribution\": the share of calibration inputs that score no higher,
              counting the input itself. In-distribution inputs have p-values spread evenly over 0 to 1
  decision    id where the score reaches the threshold, else ood. An in-distribution input is accepted
              with probability at least the TPR promised
  prediction  the class that the network itself predicts (its whole head), from 0
  class       its name, where the detector knows the names of the classes
  RULE.MEMBER with --explain: a member's part in the score of a combination. These parts add up to the score
              (of simes, the smallest is the score); with evidence and fisher each is the weighted log of
              the member's p-value, 0 where the input is as ordinary as can be

Whether the inputs are like those of the calibration is tested on their scores, both ways: the two-sample
Kolmogorov-Smirnov test against the calibration scores (statistic 0 to 1, the size of the difference) and
the exact beta-binomial law of the number accepted. Contradicted: a p-value below 0.0005 plan with a
statistic of at least 0.1 or 1.2 times the rejections promised. A warning says so, also with --quiet.";

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum StreamFormat {
    Csv,
    Jsonl,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Only {
    Id,
    Ood,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub(crate) enum OnNonFinite {
    /// Stop with an error that names row and column.
    Reject,
    /// Score them negative infinity: out-of-distribution.
    Ood,
}

impl Only {
    fn decision(self) -> Decision {
        match self {
            Self::Id => Decision::InDistribution,
            Self::Ood => Decision::OutOfDistribution,
        }
    }
}

impl From<OnNonFinite> for NonFinite {
    fn from(choice: OnNonFinite) -> Self {
        match choice {
            OnNonFinite::Reject => Self::Reject,
            OnNonFinite::Ood => Self::OutOfDistribution,
        }
    }
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
pub(crate) enum Orientation {
    /// Higher = more in-distribution.
    InDistribution,
    /// Higher = more out-of-distribution, as pytorch-ood prints them.
    Outlier,
}

impl Orientation {
    pub(crate) fn apply(self, score: f64) -> f64 {
        match self {
            Self::InDistribution => score,
            Self::Outlier => -score,
        }
    }
}

impl Score {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let others = self.inputs.iter().chain(&self.model).map(String::as_str);
        let artifact = detector(&self.artifact, others)?;
        let calibrated = self.chosen(&artifact, context).map_err(|error| error.file(self.artifact.display()))?;
        self.refuse_what_it_cannot(&calibrated)?;
        let network = network(self.model.as_ref(), &artifact, &self.artifact, &self.running, context)?;
        let inputs = Inputs::find(network.as_ref(), &self.inputs)?.without_labels().with_ids();
        let inputs = inputs.fitted_to(&artifact, &self.artifact, &self.columns)?;
        check_origin(&inputs, &artifact, &self.artifact)?;
        let dense = self.predicts().then(|| dense_predictor(calibrated.detector().head())).transpose()?;
        let members = if self.explain { calibrated.detector().members() } else { Vec::new() };
        let mut scorer = Scorer::new(&calibrated, dense.as_ref(), &members, self);
        let classes = Classes::of(&artifact).map_err(|error| error.file(self.artifact.display()))?;
        self.write_scores(&mut scorer, &inputs, &classes, context)?;
        if scorer.rows == 0 {
            return Err(Error::new(ErrorKind::Empty, "no rows").file(inputs.name()).expected("at least one input"));
        }
        let summary = scorer.summary();
        if let Some(path) = &self.summary {
            let mut file = AtomicFile::create(path)?;
            file.write_all(json(&summary)?.as_bytes()).map_err(|error| Error::io(path, error))?;
            file.commit()?;
        }
        summary.tell(context);
        self.conclude(&summary, &inputs, context)
    }

    /// The detector that decides, at the TPR asked for. Which one of several is told.
    fn chosen(&self, artifact: &Artifact, context: &Context) -> Result<Calibrated> {
        let calibrated = choose(artifact, self.detector.as_ref())?;
        if artifact.detectors().len() > 1 && self.detector.is_none() {
            context.note(format_args!(
                "Note: scored by '{}', the first of {} detectors in {}; --detector chooses another.",
                calibrated.detector().spec(),
                artifact.detectors().len(),
                self.artifact.display()
            ));
        }
        match self.tpr {
            Some(tpr) => at_tpr(calibrated.clone(), tpr),
            None => Ok(calibrated.clone()),
        }
    }

    fn refuse_what_it_cannot(&self, calibrated: &Calibrated) -> Result<()> {
        let needs = [(self.only.is_some(), "decisions, for --only"), (self.check, "a promise, for --check")];
        if let Some((_, what)) = needs.iter().find(|(asked, _)| *asked && calibrated.threshold().is_none()) {
            return Err(Error::new(ErrorKind::Calibration, "a detector without calibration")
                .file(self.artifact.display())
                .expected(*what)
                .fix("fit it with --calibration"));
        }
        if self.explain && calibrated.detector().spec().as_pipeline().is_some() {
            return Err(Error::new(
                ErrorKind::Argument,
                format!("'{}', which has no members", calibrated.detector().spec()),
            )
            .argument("--explain")
            .expected("a combination, as in evidence(energy, knn)"));
        }
        let more = [
            (self.only.is_some(), "--only", "which inputs these are"),
            (self.explain, "--explain", "more than scores"),
        ];
        match more.iter().find(|(asked, ..)| *asked && self.writes_scores_alone()) {
            None => Ok(()),
            Some((_, flag, what)) => Err(Error::new(ErrorKind::Argument, ".npy")
                .argument(flag)
                .expected(format!("a format that says {what}: .csv, .jsonl or .parquet"))),
        }
    }

    fn writes_scores_alone(&self) -> bool {
        self.output.as_ref().and_then(|path| path.extension()).is_some_and(|end| end == "npy")
    }

    fn predicts(&self) -> bool {
        !self.no_prediction && !self.writes_scores_alone()
    }

    fn write_scores(
        &self,
        scorer: &mut Scorer<'_>,
        inputs: &Inputs<'_>,
        classes: &Classes,
        context: &Context,
    ) -> Result<()> {
        let several = inputs.files().len() > 1;
        let mut source = Watched::new(inputs.open(context)?, None, "scoring", context);
        let destination = self.output.as_deref().filter(|path| *path != Path::new("-"));
        let mut writer = match (destination, self.format) {
            (None, StreamFormat::Jsonl) => ScoreWriter::json_lines_to_stdout(),
            (None, StreamFormat::Csv) => ScoreWriter::csv_to_stdout(),
            (Some(path), _) => ScoreWriter::create(path)?,
        }
        .with_votes(scorer.columns())
        .with_classes(if self.predicts() { classes.names().to_vec() } else { Vec::new() });
        // Results are formatted and written on a thread of their own, while the next block is scored.
        let (scored_rows, batches) = mpsc::sync_channel::<Vec<ScoreRow>>(2);
        let (scored, written) = thread::scope(|scope| {
            let writing =
                scope.spawn(move || batches.into_iter().try_for_each(|rows| writer.write(&rows)).map(|()| writer));
            let scored = for_each_block(&mut source, |block| {
                // Refused only where writing has failed, whose error is the one to report.
                let rows = scorer.score(block, several)?;
                scored_rows.send(rows).map_err(|_| Error::new(ErrorKind::Io, "the output is closed"))
            });
            drop(scored_rows);
            (scored, writing.join())
        });
        let writer = written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        scored?;
        // Nothing is left of a run without rows.
        if scorer.rows == 0 {
            return Ok(());
        }
        if self.writes_scores_alone() {
            context.note("Note: .npy holds the scores alone, in the order of the rows; other formats hold ids too.");
        }
        writer.finish()
    }

    /// Says where the promise is contradicted: by an error where asked to check, else by a warning, which is printed also
    /// where notes are not.
    fn conclude(&self, summary: &Summary, inputs: &Inputs<'_>, context: &Context) -> Result<()> {
        let (Some(promise), Some(check)) = (&summary.promise, &summary.check) else { return Ok(()) };
        if check.verdict != Verdict::Contradicted {
            return Ok(());
        }
        let accepted = summary.accepted.unwrap_or(0) as f64 / summary.rows as f64;
        let text = format!(
            "these inputs are not like those of the calibration: {}.\nThe promise does not speak of them. Either they are \
             out-of-distribution, or their features, layer or preprocessing are others than at the fit.",
            contradiction(check, promise.tpr, accepted)
        );
        match self.check {
            true => Err(Error::new(ErrorKind::Calibration, text).file(inputs.name())),
            false => {
                context.warn(text);
                Ok(())
            }
        }
    }
}

/// Scores blocks, decides, and keeps count.
struct Scorer<'a> {
    /// The detector, its members where they are to be told of, and behind them the dense head where classes are wanted.
    plan: Plan,
    calibrated: &'a Calibrated,
    members: &'a [Detector],
    check: Option<BatchCheck<'a>>,
    rows: u64,
    only: Option<Only>,
    non_finite: NonFinite,
    orientation: Orientation,
}

impl<'a> Scorer<'a> {
    fn new(calibrated: &'a Calibrated, dense: Option<&'a Detector>, members: &'a [Detector], wanted: &Score) -> Self {
        let check = calibrated.calibration().zip(calibrated.threshold().copied());
        Self {
            plan: Plan::new(std::iter::once(calibrated.detector()).chain(members).chain(dense)),
            calibrated,
            members,
            check: check.map(|(calibration, threshold)| BatchCheck::new(calibration, threshold)),
            rows: 0,
            only: wanted.only,
            non_finite: wanted.non_finite.into(),
            orientation: wanted.orientation,
        }
    }

    /// The rows to be written; ids name their file where there are several.
    fn score(&mut self, block: &Block, several: bool) -> Result<Vec<ScoreRow>> {
        let Evaluated { scores, votes, classes } = self.evaluate(block)?;
        let mut rows = Vec::with_capacity(scores.len());
        for (row, score) in scores.into_iter().enumerate() {
            self.rows += 1;
            let p_value = self.check.as_mut().map(|check| check.add(score));
            let decision = self.calibrated.threshold().copied().map(|threshold| threshold.decide(score));
            if self.only.is_some_and(|only| decision != Some(only.decision())) {
                continue;
            }
            let id = block.id(row);
            rows.push(ScoreRow {
                id: match &block.ids {
                    None if several => Id::Text(format!("{}:{id}", block.origin)),
                    _ => id,
                },
                score: self.orientation.apply(score),
                p_value,
                decision,
                prediction: classes.as_ref().map(|classes| classes[row]).filter(|class| *class != NO_CLASS),
                votes: votes.iter().map(|votes| self.orientation.apply(votes[row])).map(finite).collect(),
            });
        }
        Ok(rows)
    }

    fn evaluate(&self, block: &Block) -> Result<Evaluated> {
        let mut scored = self.plan.score_block(block, self.non_finite)?.into_iter();
        let scores = scored.next().map(|Scored { scores, .. }| scores).unwrap_or_default();
        let own: Vec<Vec<f64>> = scored.by_ref().take(self.members.len()).map(|scored| scored.scores).collect();
        let votes = if own.is_empty() { Vec::new() } else { self.calibrated.detector().votes(&own)? };
        Ok(Evaluated { scores, votes, classes: scored.next().map(|Scored { classes, .. }| classes) })
    }

    /// Names of the columns of what members say. Members that print alike are numbered.
    fn columns(&self) -> Vec<String> {
        let spec = self.calibrated.detector().spec().to_string();
        let rule = spec.split('(').next().unwrap_or_default();
        let names: Vec<String> = self.members.iter().map(|member| format!("{rule}.{}", member.spec())).collect();
        let alike = |place: usize| names[..place].iter().filter(|name| **name == names[place]).count();
        let numbered = |(place, name): (usize, &String)| match alike(place) {
            0 => name.clone(),
            before => format!("{name} #{}", before + 1),
        };
        names.iter().enumerate().map(numbered).collect()
    }

    fn summary(&self) -> Summary {
        let accepted = self.check.as_ref().map(BatchCheck::accepted);
        Summary {
            detector: self.calibrated.detector().spec().to_string(),
            rows: self.rows,
            accepted,
            rejected: accepted.map(|accepted| self.rows - accepted),
            promise: self.calibrated.threshold().copied().map(|threshold| Promise::of(&threshold, self.rows)),
            check: self.check.as_ref().and_then(BatchCheck::result),
        }
    }
}

/// What is made of a block.
struct Evaluated {
    /// `[n]`.
    scores: Vec<f64>,
    /// What each member says `[members][n]`, where that is to be told.
    votes: Vec<Vec<f64>>,
    /// What the dense head predicts `[n]`, where that is wanted.
    classes: Option<Vec<u32>>,
}

/// Inputs that a member could not score have no vote.
fn finite(vote: f64) -> Option<f64> {
    Some(vote).filter(|vote| vote.is_finite())
}

/// What a run found, for programs: `--summary`.
#[derive(Serialize)]
struct Summary {
    detector: String,
    /// Rows read and scored, written or not.
    rows: u64,
    accepted: Option<u64>,
    rejected: Option<u64>,
    promise: Option<Promise>,
    check: Option<Check>,
}

/// What is promised for in-distribution inputs.
#[derive(Serialize)]
struct Promise {
    tpr: f64,
    threshold: f64,
    calibration_inputs: usize,
    /// Where the share accepted of so many in-distribution inputs is to be expected with 95 % confidence.
    expected: Interval,
}

impl Promise {
    fn of(threshold: &Threshold, rows: u64) -> Self {
        let (low, high) = threshold.interval_among(rows as usize, 0.95);
        Self {
            tpr: threshold.tpr(),
            threshold: threshold.score(),
            calibration_inputs: threshold.calibration_size(),
            expected: Interval { low, high },
        }
    }
}

impl Summary {
    fn tell(&self, context: &Context) {
        let rows = count(self.rows as usize);
        let (Some(accepted), Some(rejected)) = (self.accepted, self.rejected) else {
            return context
                .note(format_args!("{rows} inputs scored; the detector has no threshold and decides nothing."));
        };
        context.note(format_args!(
            "{rows} inputs: {} accepted as in-distribution ({} %), {} rejected.",
            count(accepted as usize),
            percent(accepted as f64 / self.rows as f64),
            count(rejected as usize)
        ));
        if let Some((promise, check)) = self.promise.as_ref().zip(self.check.as_ref())
            && check.verdict == Verdict::SlightlyDifferent
        {
            context.note(format_args!(
                "Note: a small difference from the calibration inputs: {}.",
                contradiction(check, promise.tpr, accepted as f64 / self.rows as f64)
            ));
        }
    }
}

/// The same detector with another promise, from the calibration scores that it carries.
pub(crate) fn at_tpr(calibrated: Calibrated, tpr: f64) -> Result<Calibrated> {
    match calibrated.calibration() {
        Some(_) => calibrated.with_tpr(tpr),
        None => Err(Error::new(ErrorKind::Calibration, "a detector without calibration")
            .expected("calibration scores, for --tpr")
            .fix("fit it with --calibration")),
    }
}

/// The detector that `spec` names, or the first.
pub(crate) fn choose<'a>(artifact: &'a Artifact, spec: Option<&Spec>) -> Result<&'a Calibrated> {
    let Some(spec) = spec else { return Ok(&artifact.detectors()[0]) };
    artifact.detectors().iter().find(|calibrated| calibrated.detector().spec() == spec).ok_or_else(|| {
        let held: Vec<String> = artifact.detectors().iter().map(|c| format!("'{}'", c.detector().spec())).collect();
        Error::new(ErrorKind::Missing, held.join(", "))
            .argument(format!("detector '{spec}'"))
            .expected("one of the fitted detectors")
            .fix("fit it too: dice fit --detector ... --detector ...")
    })
}
