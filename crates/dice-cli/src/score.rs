//! `dice score`: a score, a p-value and a decision for each input.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use dice_ood::io::{ScoreRow, ScoreWriter};
use dice_ood::{Artifact, Calibrated, Decision, Error, ErrorKind, NonFinite, Result, Spec, for_each_block};

use crate::data::{Inputs, Progress, check_origin, network};
use crate::network::Running;
use crate::report::{count, percent};
use crate::{Context, refuse_overwrite};

/// Score inputs: id, score (higher = more in-distribution), p-value and decision for each.
///
/// Results go to standard output as CSV, or to a file in the format of its extension (.csv .jsonl .npy .parquet);
/// .npy holds the scores alone. Memory does not grow with the number of inputs.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Score {
    /// The detector, as written by `dice fit`.
    #[arg(value_name = "DETECTOR")]
    artifact: PathBuf,
    /// Features [N, D] of the inputs, - for standard input; with --model, images: folders, patterns, .txt lists, .tar, .parquet.
    #[arg(required = true, value_name = "FEATURES")]
    inputs: Vec<String>,
    /// The network that the detector was fitted to; FEATURES are then images, prepared as for the fit.
    #[arg(long, value_name = "MODEL.onnx")]
    model: Option<String>,
    #[command(flatten)]
    running: Running,
    /// Where to write; - or nothing for standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Format on standard output.
    #[arg(long, default_value = "csv", conflicts_with = "output")]
    format: StreamFormat,
    /// Which detector of the file, where it holds several; the first by default.
    #[arg(long, short = 'd', value_name = "SPEC")]
    detector: Option<Spec>,
    /// Print only inputs with this decision.
    #[arg(long, value_name = "DECISION")]
    only: Option<Only>,
    /// What to do with inputs that hold NaN or infinity.
    #[arg(long, default_value = "reject")]
    non_finite: OnNonFinite,
    /// The sign of the printed scores; p-values and decisions do not change.
    #[arg(long, default_value = "in-distribution")]
    orientation: Orientation,
}

const EXAMPLES: &str = "Examples:
  dice score detector.safetensors new.npy -o scores.parquet
  dice score detector.safetensors --model resnet.onnx photos/ --only ood
  extract-features | dice score detector.safetensors - --format jsonl";

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
        let artifact = Artifact::load(&self.artifact)?;
        let calibrated =
            choose(&artifact, self.detector.as_ref()).map_err(|error| error.file(self.artifact.display()))?;
        if self.only.is_some() && calibrated.threshold.is_none() {
            return Err(Error::new(ErrorKind::Calibration, "a detector without calibration")
                .file(self.artifact.display())
                .expected("decisions, for --only")
                .fix("fit it with --calibration"));
        }
        let scores_alone = self.output.as_ref().and_then(|path| path.extension()).is_some_and(|end| end == "npy");
        if self.only.is_some() && scores_alone {
            return Err(Error::new(ErrorKind::Argument, ".npy")
                .tensor("--only")
                .expected("a format that says which inputs these are: .csv, .jsonl or .parquet"));
        }
        let network = network(self.model.as_ref(), &artifact, &self.artifact, &self.running, context)?;
        let inputs = Inputs::find(network.as_ref(), &self.inputs)?.without_labels();
        check_origin(&inputs, &artifact, &self.artifact)?;
        let files = inputs.files();
        if let Some(output) = &self.output {
            let model = self.model.as_ref().map(Path::new);
            refuse_overwrite(output, files.iter().map(PathBuf::as_path).chain([self.artifact.as_path()]).chain(model))?;
        }
        let several = files.len() > 1;
        let mut source = Progress::new(inputs.open(context)?, None, "scoring", context);
        let destination = self.output.as_deref().filter(|path| *path != Path::new("-"));
        let mut writer = match (destination, self.format) {
            (None, StreamFormat::Jsonl) => ScoreWriter::json_lines_to_stdout(),
            _ => ScoreWriter::create(destination)?,
        };
        let (mut total, mut accepted) = (0usize, 0usize);
        // Results are formatted and written on a thread of their own, while the next block is scored.
        let (scored_rows, batches) = mpsc::sync_channel::<Vec<ScoreRow>>(2);
        let (scored, written) = thread::scope(|scope| {
            let writing =
                scope.spawn(move || batches.into_iter().try_for_each(|rows| writer.write(&rows)).map(|()| writer));
            let scored = for_each_block(&mut source, |block| {
                let scored = calibrated.detector.score_block(block, self.non_finite.into())?;
                let mut rows = Vec::with_capacity(scored.scores.len());
                for (row, score) in scored.scores.into_iter().enumerate() {
                    let decision = calibrated.threshold.map(|threshold| threshold.decide(score));
                    total += 1;
                    accepted += usize::from(decision == Some(Decision::InDistribution));
                    let wanted = match self.only {
                        None => true,
                        Some(Only::Id) => decision == Some(Decision::InDistribution),
                        Some(Only::Ood) => decision == Some(Decision::OutOfDistribution),
                    };
                    if wanted {
                        let id = block.id(row);
                        rows.push(ScoreRow {
                            id: if several && block.ids.is_none() { format!("{}:{id}", block.origin) } else { id },
                            score: self.orientation.apply(score),
                            p_value: calibrated.calibration.as_ref().map(|calibration| calibration.p_value(score)),
                            decision,
                        });
                    }
                }
                // Refused only where writing has failed, whose error is the one to report.
                scored_rows.send(rows).map_err(|_| Error::new(ErrorKind::Io, "the output is closed"))
            });
            drop(scored_rows);
            (scored, writing.join())
        });
        let writer = written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        scored?;
        if total == 0 {
            return Err(Error::new(ErrorKind::Empty, "no rows").file(inputs.name()).expected("at least one input"));
        }
        writer.finish()?;
        if calibrated.threshold.is_some() {
            context.note(format_args!(
                "{} inputs: {} accepted as in-distribution ({} %), {} rejected.",
                count(total),
                count(accepted),
                percent(accepted as f64 / total as f64),
                count(total - accepted)
            ));
        } else {
            context.note(format_args!(
                "{} inputs scored; the detector has no threshold and decides nothing.",
                count(total)
            ));
        }
        Ok(())
    }
}

/// The detector that `spec` names, or the first.
pub(crate) fn choose<'a>(artifact: &'a Artifact, spec: Option<&Spec>) -> Result<&'a Calibrated> {
    let Some(spec) = spec else { return Ok(&artifact.detectors[0]) };
    artifact.detectors.iter().find(|calibrated| calibrated.detector.spec() == spec).ok_or_else(|| {
        let held: Vec<String> = artifact.detectors.iter().map(|c| format!("'{}'", c.detector.spec())).collect();
        Error::new(ErrorKind::Missing, held.join(", "))
            .tensor(format!("detector '{spec}'"))
            .expected("one of the fitted detectors")
            .fix("fit it too: dice fit --detector ... --detector ...")
    })
}
