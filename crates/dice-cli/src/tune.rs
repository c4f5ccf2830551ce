//! `dice tune`: chooses a detector, and says how sure the choice is.

use std::fmt::Write as _;
use std::path::PathBuf;

use dice_ood::evaluation::SetLabel;
use dice_ood::grid::{Grid, Template, expand};
use dice_ood::io::files::claim_outputs;
use dice_ood::tune::{Hopeful, Loss, Memo, Open, Options, Outcome, Training, Tuned, Validation, tune};
use dice_ood::{Error, ErrorKind, FeatureSource, HoldOut, Missing, Result};

use crate::basis::{Basis, Gathered, Read, standard_input_once};
use crate::data::Inputs;
use crate::eval::parse_set;
use crate::progress::Bar;
use crate::report::{Table, count, json, percent};
use crate::said::{Context, print};

/// Choose a detector, and say how sure the choice is.
///
/// Candidates are compared on one part of the inputs, what is said of the chosen one was measured on another, and its threshold rests
/// on a third. For comparison inputs that are out-of-distribution are taken in this order: --ood; --standin, or with --model images that are
/// distorted in eight ways; classes that are held out in turn, where --features have labels; Gaussian noise. The better the stand-in,
/// the more the choice is worth: it says so.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tune {
    #[command(flatten)]
    basis: Basis,
    /// In-distribution inputs [N, D] to choose, report and calibrate on, best ones that the network has not seen; by default three
    /// tenths of --features or --images, which the fit then leaves out.
    #[arg(long, num_args = 1.., value_name = "FILE", required_unless_present_any = ["features", "images", "inputs"])]
    id: Vec<String>,
    /// Labels of --id, where they are in a file of their own.
    #[arg(long, value_name = "FILE", requires = "id")]
    id_labels: Option<String>,
    /// A candidate, with placeholders where --grid gives values; repeat for several. By default energy, DICE, ReAct with DICE, six
    /// single scores and the panel evidence(lts, nci, mds, vim, core, caref), also without caref.
    #[arg(long = "detector", short = 'd', value_name = "SPEC")]
    detectors: Vec<Template>,
    /// The values of a placeholder: NAME=VALUE,VALUE,... or NAME=FROM:TO:COUNT, ends included.
    #[arg(long = "grid", value_name = "NAME=VALUES", requires = "detectors")]
    grids: Vec<Grid>,
    /// Out-of-distribution inputs to choose by; repeat for several.
    #[arg(long, value_name = "NAME=FILE", value_parser = parse_set)]
    ood: Vec<(SetLabel, String)>,
    /// Features of distorted in-distribution images to choose by; repeat for several.
    #[arg(long = "standin", value_name = "NAME=FILE", value_parser = parse_set)]
    stand_ins: Vec<(SetLabel, String)>,
    /// With --model and without --ood and --standin: distort so many of the training images, or of --id where there are none; 0 for none.
    #[arg(long = "stand-ins", default_value_t = 200, value_name = "N", requires = "model")]
    distorted: u32,
    /// What to choose by, where not the best there is.
    #[arg(long, default_value = "best")]
    validation: Choice,
    /// How many classes are held out, one at a time.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    classes: u16,
    /// What is minimised, averaged over sets.
    #[arg(long, default_value = "fpr95")]
    metric: Metric,
    /// The TPR at which FPR is taken.
    #[arg(long, default_value_t = 0.95, value_name = "RATE", value_parser = crate::flags::rate, allow_negative_numbers = true)]
    at_tpr: f64,
    /// The probability with which a fresh in-distribution input is to be accepted.
    #[arg(long, default_value_t = 0.95, value_name = "RATE", value_parser = crate::flags::rate, allow_negative_numbers = true)]
    tpr: f64,
    /// Bootstrap replicates for the intervals.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    bootstrap: u32,
    /// Seed of the split, of held-out classes, of noise and of the bootstrap.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Keep the stages that are done in this file, and go on from it where it exists.
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// How to print.
    #[arg(long, default_value = "table")]
    format: Printed,
    /// Where to write the chosen detector.
    #[arg(long, short, value_name = "DETECTOR.safetensors")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Choice {
    /// --ood where given, else stand-ins, else held-out classes where there are labels, else noise.
    Best,
    /// The --ood sets.
    Ood,
    /// The --standin sets, or images that are distorted.
    Standins,
    /// Held-out classes.
    Classes,
    /// Gaussian noise in feature space.
    Noise,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Metric {
    /// FPR at the TPR of --at-tpr.
    Fpr95,
    /// One minus AUROC.
    Auroc,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Printed {
    /// Sentences and tables.
    Table,
    /// Everything.
    Json,
}

const EXAMPLES: &str = "Examples:
  dice tune --features train.safetensors --head head.safetensors --id test.safetensors \\
      --ood svhn=svhn.npy --ood textures=dtd.npy -o chosen.safetensors
  dice tune --features train.safetensors --head head.safetensors --id test.safetensors -o chosen.safetensors
  dice tune detector.safetensors --id test.safetensors --standin blur=blur.npy --standin flip=flip.npy \\
      -d 'dice(P) | energy' -d 'react(R) | dice(P) | energy' --grid P=0.1:0.9:9 --grid R=0.9,0.99 -o chosen.safetensors
  dice tune --model resnet50.onnx --images train/ --id val/ -o chosen.safetensors
  dice tune detector.safetensors --model resnet50.onnx --id val/ --ood textures=dtd/

Of ten in-distribution inputs three choose, three report, two set the threshold, and on two rest the p-values of members of
combinations; of two out-of-distribution inputs one chooses and one reports. Intervals are 95 % paired bootstrap percentiles of the
reporting inputs. More than 16 candidates are compared on a part of the inputs first, the better half on twice as many, and so on.";

/// The candidates unless others are given; grids go with them.
const CANDIDATES: [&str; 11] = [
    "energy",
    "dice(P) | energy",
    "react(R) | dice(Q) | energy",
    "lts",
    "fdbd",
    "nci",
    "mds++",
    "vim",
    "core",
    "evidence(lts, nci, mds, vim, core)",
    "evidence(lts, nci, mds, vim, core, caref)",
];
/// The same in place of those that take labels.
const WITHOUT_LABELS: [(&str, &str); 4] = [
    ("mds++", "mds++(by=prediction)"),
    ("core", "core(by=prediction)"),
    ("evidence(lts, nci, mds, vim, core)", "evidence(lts, nci, mds(by=prediction), vim, core(by=prediction))"),
    (
        "evidence(lts, nci, mds, vim, core, caref)",
        "evidence(lts, nci, mds(by=prediction), vim, core(by=prediction), caref)",
    ),
];
const GRIDS: [&str; 3] = ["P=0.1:0.9:9", "R=0.9,0.99", "Q=0.5,0.7,0.9"];

impl Tune {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        // The file of stages is read before it is written: it cannot be claimed as other outputs are.
        let mut memo = match &self.resume {
            None => Memo::nowhere(),
            Some(path) => {
                let memo = Memo::open(path)?;
                claim_outputs([path])?;
                memo
            }
        };
        let tuned = self.tune(&mut memo, context)?;
        print(&match self.format {
            Printed::Json => json(&tuned.1.outcome)?,
            Printed::Table => account(&tuned.1),
        })?;
        if let Some(path) = &self.output {
            let (basis, tuned) = &tuned;
            tuned.artifact(self.provenance(basis, &tuned.outcome))?.save(path)?;
            context.note(format_args!("Wrote {}", path.display()));
        }
        Ok(())
    }

    fn tune(&self, memo: &mut Memo, context: &Context) -> Result<(Read, Tuned)> {
        let files = || self.ood.iter().chain(&self.stand_ins).map(|(_, file)| file);
        standard_input_once(self.id.iter().chain(files()).chain(&self.basis.features))?;
        let basis = self.basis.read(self.id.iter().chain(files()).map(String::as_str), context)?;
        let candidates = self.candidates(basis.labelled()?)?;
        let sets = |given: &[(SetLabel, String)]| -> Result<Vec<(String, Inputs<'static>)>> {
            let set = |(label, file): &(SetLabel, String)| {
                Ok((label.name.clone(), basis.inputs(std::slice::from_ref(file), None, context)?.without_labels()))
            };
            given.iter().map(set).collect()
        };
        let ood = sets(&self.ood)?;
        let stand_ins = match self.distorts(!ood.is_empty()) {
            true => basis.stand_ins(self.to_distort(), self.distorted as usize, context)?,
            false => sets(&self.stand_ins)?,
        };
        let id = match self.id.is_empty() {
            true => None,
            false => Some(basis.inputs(&self.id, self.id_labels.as_ref(), context)?),
        };
        let part = HoldOut::new(0.3, self.seed)?;
        let training = match &basis.from {
            Gathered::Statistics(statistics) => Training::Statistics(statistics.clone()),
            Gathered::Features(data) if id.is_some() => {
                Training::Features(Box::new(move || Ok(Box::new(data.open()?))))
            }
            Gathered::Features(data) => Training::Features(Box::new(move || Ok(part.remaining(data.open()?)))),
        };
        let held: Open<'_> = match (&id, &basis.from) {
            (Some(inputs), _) => Box::new(move || inputs.open(context)),
            (None, Gathered::Features(data)) => Box::new(move || Ok(part.held_out(data.open()?))),
            (None, Gathered::Statistics(_)) => {
                return Err(Error::lacking(Missing::Features, "statistics alone").expected("in-distribution inputs"));
            }
        };
        let labelled = labelled(&held)? && matches!(basis.from, Gathered::Features(_));
        let validation = self.validation(&ood, &stand_ins, labelled, context)?;
        let options = Options {
            loss: match self.metric {
                Metric::Fpr95 => Loss::Fpr,
                Metric::Auroc => Loss::Auroc,
            },
            at_tpr: self.at_tpr,
            tpr: self.tpr,
            replicates: self.bootstrap,
            seed: self.seed,
            ..Options::default()
        };
        let tuned = tune(&basis.head, training, held, validation, &candidates, &options, memo, &mut Bar::new(context))?;
        Ok((basis, tuned))
    }

    /// Whether images are to be distorted, where there are any: nothing better is given, or nothing else is wanted.
    fn distorts(&self, ood: bool) -> bool {
        let wanted = self.validation == Choice::Standins || (self.validation == Choice::Best && !ood);
        wanted && self.stand_ins.is_empty()
    }

    /// The images to distort.
    fn to_distort(&self) -> &[String] {
        if self.basis.images.is_empty() { &self.id } else { &self.basis.images }
    }

    /// The candidates that are given, or the usual ones, of which those are passed over that cannot be fitted.
    fn candidates(&self, labelled: Option<bool>) -> Result<Vec<Hopeful>> {
        let required = !self.detectors.is_empty();
        let expanded = match required {
            true => expand(&self.detectors, &self.grids)?,
            false => {
                let other = |text: &&'static str| WITHOUT_LABELS.iter().find(|(with, _)| with == text);
                let text = |text: &'static str| match (labelled, other(&text)) {
                    (Some(false), Some((_, without))) => without,
                    _ => text,
                };
                let templates = CANDIDATES.iter().map(|template| text(template).parse()).collect::<Result<Vec<_>>>()?;
                let grids = GRIDS.iter().map(|grid| grid.parse()).collect::<Result<Vec<_>>>()?;
                expand(&templates, &grids)?
            }
        };
        Ok(expanded.into_iter().map(|one| Hopeful { spec: one.spec, required }).collect())
    }

    /// What to choose by: what was asked for, or the best there is.
    fn validation<'a>(
        &self,
        ood: &'a [(String, Inputs<'static>)],
        stand_ins: &'a [(String, Inputs<'static>)],
        labelled: bool,
        context: &'a Context,
    ) -> Result<Validation<'a>> {
        let open = |sets: &'a [(String, Inputs<'static>)]| -> Vec<(String, Open<'a>)> {
            let set = |(name, inputs): &'a (String, Inputs<'static>)| {
                (name.clone(), Box::new(move || inputs.open(context)) as Open<'a>)
            };
            sets.iter().map(set).collect()
        };
        let wanted = match (self.validation, ood.is_empty(), stand_ins.is_empty()) {
            (Choice::Best, false, _) => Choice::Ood,
            (Choice::Best, true, false) => Choice::Standins,
            (Choice::Best, true, true) if labelled => Choice::Classes,
            (Choice::Best, true, true) => Choice::Noise,
            (chosen, ..) => chosen,
        };
        match wanted {
            Choice::Ood if ood.is_empty() => Err(none_given("--ood")),
            Choice::Standins if stand_ins.is_empty() => Err(none_given("--standin, or --model with images")),
            Choice::Ood => Ok(Validation::Sets(open(ood))),
            Choice::Standins => Ok(Validation::StandIns(open(stand_ins))),
            Choice::Classes => Ok(Validation::Classes(self.classes.into())),
            Choice::Noise | Choice::Best => Ok(Validation::Noise),
        }
    }

    fn provenance(&self, basis: &Read, outcome: &Outcome) -> std::collections::BTreeMap<String, String> {
        let mut provenance = basis.provenance();
        let id = if self.id.is_empty() { "three tenths of the features".to_owned() } else { self.id.join(" ") };
        provenance.insert("calibration".into(), format!("a part of {id}, seed {}", self.seed));
        provenance.insert("chosen".into(), format!("of {} by {}", outcome.ranking.len(), outcome.validation));
        provenance
    }
}

fn none_given(flag: &str) -> Error {
    Error::new(ErrorKind::Argument, "none").argument(flag).expected("at least one set to choose by")
}

/// Whether the inputs have labels, by the first of them.
fn labelled(open: &Open<'_>) -> Result<bool> {
    let mut block = dice_ood::Block::default();
    open()?.read(&mut block, 1)?;
    Ok(block.labels.is_some())
}

/// The account in sentences and tables.
fn account(tuned: &Tuned) -> String {
    let outcome = &tuned.outcome;
    let metric = match outcome.loss {
        Loss::Fpr => format!("FPR at {} % TPR", percent(outcome.at_tpr)),
        Loss::Auroc => "1 - AUROC".to_owned(),
    };
    let mut text = format!("\x1b[1mChosen: {}\x1b[0m\n", outcome.chosen);
    let names: Vec<&str> = outcome.parts.sets.iter().map(|(name, ..)| name.as_str()).collect();
    let _ = writeln!(text, "Compared by {}: {}. {}", outcome.validation, names.join(", "), outcome.worth);
    for name in &outcome.dropped {
        let _ = writeln!(text, "{name} does not count: no candidate tells it from in-distribution inputs.");
    }
    text += &split(outcome);
    text += "\n";
    text += &finalists(outcome, &metric).on_terminal();
    for difference in &outcome.differences {
        let points = |value: f64| format!("{:+.2}", 100.0 * value);
        let _ = writeln!(
            text,
            "Difference to {}: {} points, {:.0} % interval {} to {}: {}.",
            difference.to,
            points(difference.estimate),
            100.0 * outcome.level,
            points(difference.interval.low),
            points(difference.interval.high),
            match (difference.shown, difference.estimate < 0.0) {
                (false, _) => "no difference that these data can show",
                (true, true) => "better, by more than chance explains",
                (true, false) => "worse, by more than chance explains",
            }
        );
    }
    text += "\n";
    text += &ranking(outcome, &metric).on_terminal();
    for (name, reason) in &outcome.left_out {
        let _ = writeln!(text, "Left out: {name} ({reason}).");
    }
    if let Some(threshold) = tuned.calibrated.threshold() {
        let (low, high) = threshold.interval(0.95);
        let _ = writeln!(
            text,
            "\nIts threshold, {:.6}, rests on {} inputs that neither chose nor reported: a fresh in-distribution input is accepted with \
             probability at least {} %; the realised rate lies between {} and {} % with 95 % confidence.",
            threshold.score(),
            count(threshold.calibration_size()),
            percent(threshold.tpr()),
            percent(low),
            percent(high)
        );
    }
    text
}

fn split(outcome: &Outcome) -> String {
    let parts = &outcome.parts;
    let mut text = format!(
        "Split by seed {}: of the ID inputs {} chose, {} report, {} set the threshold, {} are for p-values of members",
        outcome.seed,
        count(parts.id_choosing),
        count(parts.id_reporting),
        count(parts.id_calibration),
        count(parts.id_reference)
    );
    for (name, choosing, reporting) in &parts.sets {
        let _ = write!(text, "; of {name} {} chose, {} report", count(*choosing), count(*reporting));
    }
    text + ".\n"
}

fn finalists(outcome: &Outcome, metric: &str) -> Table {
    let title = format!("On inputs that did not choose: {metric}, mean over sets, in percent");
    let mut table = Table::new(title, &["detector", "loss", "interval"], 1);
    for one in &outcome.finalists {
        let interval = format!("{} to {}", percent(one.interval.low), percent(one.interval.high));
        table.rows.push(vec![one.detector.clone(), percent(one.loss), interval]);
    }
    table
}

/// The best candidates on inputs that chose.
fn ranking(outcome: &Outcome, metric: &str) -> Table {
    const SHOWN: usize = 10;
    let title = format!(
        "The best of {} candidates on inputs that chose: {metric}, in percent (a choice makes its own figure look better than it is)",
        outcome.ranking.len()
    );
    let mut table = Table::new(title, &["detector", "compared on", "loss"], 2);
    for one in outcome.ranking.iter().take(SHOWN) {
        table.rows.push(vec![one.detector.clone(), one.compared_on.clone(), percent(one.loss)]);
    }
    table
}
