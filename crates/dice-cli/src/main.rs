//! `dice`: fit, calibrate, score and evaluate out-of-distribution detectors.
#![allow(rustdoc::broken_intra_doc_links, reason = "doc comments of arguments are help texts: [N, D] is a shape there")]
#![cfg_attr(not(test), deny(clippy::disallowed_methods))]

mod advice;
mod basis;
mod classes;
mod columns;
mod data;
mod demo;
mod diagnose;
mod drift;
mod eval;
mod explain;
mod export;
mod features;
mod fit;
mod flags;
mod html;
mod inspect;
mod keep;
mod latex;
mod layout;
mod measure;
mod methods;
mod names;
mod network;
mod page;
mod paper;
mod plot;
mod progress;
mod ranking;
mod records;
mod report;
mod said;
mod score;
#[cfg(unix)]
mod signals;
mod sources;
mod sweep;
mod tune;
mod wanted;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use dice_ood::io::files::claim_outputs;
use dice_ood::{Error, ErrorKind, Result};

use said::{Context, complain, print_bytes};

/// Know when your classifier does not know.
///
/// Fits an out-of-distribution detector (DICE, ReAct, energy, ...) to the penultimate features and the linear head of
/// a trained network, with a threshold that keeps a promise, then scores, decides and evaluates.
///
/// Scores are higher = more in-distribution. A detector is written as a pipeline: 'react(0.99) | dice(0.9) | energy'.
/// Exit codes: 0 done, 1 the run failed, 2 bad usage.
#[derive(Parser)]
#[command(name = "dice", version, max_term_width = 110, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Threads to use; all cores by default. Results do not depend on it. (Between machines of different instruction sets, or
    /// with DICE_SIMD, scores differ by less than 2e-6 of the largest, which can turn a decision right at the threshold.)
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Print results and warnings only: no progress, no notes.
    #[arg(long, short, global = true)]
    quiet: bool,
}

const EXAMPLES: &str = "Examples:
  dice demo
  dice fit --model resnet.onnx --images train/ --preprocess imagenet --calibration val/ -o detector.safetensors
  dice score detector.safetensors --model resnet.onnx photos/
  dice export detector.safetensors --model resnet.onnx -o resnet-ood.onnx
  dice fit --features train.safetensors --head model.pth -o detector.safetensors
  dice score detector.safetensors new.npy -o scores.parquet
  dice eval detector.safetensors --id test.npz --ood svhn=svhn.npy --ood textures=dtd.npy
  dice diagnose train.safetensors --head model.pth
  dice explain detector.safetensors new.npy --row 17
  dice sweep detector.safetensors -d 'dice(P) | energy' --grid P=0:0.99:20 --id test.npz --ood svhn=svhn.npy
  dice tune --features train.safetensors --head model.pth --id test.npz --ood svhn=svhn.npy -o chosen.safetensors
  dice inspect detector.safetensors

Features: .npy .npz .safetensors .csv .parquet .arrow, a glob, a directory, or - for
standard input. FILE#NAME chooses a tensor or column; else it is the one named features
(or embeddings, penultimate, ...), or the only one that can be. Labels are found beside
them as labels (or label, targets, y), ids as id (or path, user_id, uuid, index, ...).
Files are known by their content, whatever they are called.
Heads: .safetensors .npz .pt .pth (pickle is never executed) or an .onnx model. FILE#LAYER names the layer
where it is not fc, classifier, head or the like, FILE#WEIGHT,BIAS any two tensors.

Words: a p-value is the share of calibration inputs that score no higher than the input (counting itself); the
realised rate is the share of all in-distribution inputs that a threshold really accepts; a unit is near-silent
where its mean training activation is below 1 % of the largest; a preset (dice(0.9, preset=openood)) copies the
conventions of a published code; energies have the scale of the network's logits and do not compare between
networks; `avx512, by rows` is how scoring runs here: instructions, and layout of the weights. The README has all.

Penultimate features are the inputs of the last linear layer. `dice features` makes them
from an ONNX model and images. In PyTorch:
  rows = []
  model.fc.register_forward_hook(lambda m, i, o: rows.append(i[0].detach().cpu()))
  ...  # run the model over the data
  numpy.save('train.npy', torch.cat(rows).numpy())";

#[derive(Subcommand)]
enum Command {
    Features(features::Features),
    Fit(fit::Fit),
    Score(score::Score),
    Eval(eval::Eval),
    Report(page::Page),
    Paper(paper::Paper),
    Plot(plot::Plot),
    Explain(explain::Explain),
    Diagnose(diagnose::Diagnose),
    Sweep(sweep::Sweep),
    Tune(tune::Tune),
    Export(export::Export),
    Inspect(inspect::Inspect),
    Methods(methods::Methods),
    Demo(demo::Demo),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print a manual page (roff): of dice, or of one of its commands.
    Man {
        /// The command.
        command: Option<String>,
    },
}

impl Command {
    /// Every file that the command writes: no other one can be written, and none of them read before. A command that
    /// writes files nowhere but to a new folder has none.
    fn outputs(&self) -> Vec<PathBuf> {
        match self {
            Self::Features(features) => vec![features.output.clone()],
            Self::Fit(fit) => fit.outputs().into_iter().chain(fit.save_statistics.clone()).collect(),
            Self::Score(score) => score.output.iter().chain(&score.summary).cloned().collect(),
            Self::Eval(eval) => eval.output.iter().cloned().collect(),
            Self::Report(page) => page.outputs(),
            Self::Paper(paper) => paper.outputs(),
            Self::Explain(explain) => explain.output.iter().cloned().collect(),
            Self::Diagnose(diagnose) => diagnose.output.iter().cloned().collect(),
            Self::Sweep(sweep) => sweep.output.iter().cloned().collect(),
            Self::Tune(tune) => tune.output.iter().cloned().collect(),
            Self::Export(export) => vec![export.output.clone()],
            Self::Inspect(_)
            | Self::Plot(_)
            | Self::Methods(_)
            | Self::Demo(_)
            | Self::Completions { .. }
            | Self::Man { .. } => Vec::new(),
        }
    }
}

fn main() -> ExitCode {
    let mut commands = Arguments::command();
    let matches = commands.get_matches_mut();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut commands).exit());
    if let Some(threads) = arguments.threads {
        // Fails only where the pool exists already, which it cannot at this point.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global();
    }
    let context = Context { quiet: arguments.quiet };
    // Foreign decoders that panic are caught and reported as errors: their messages would only confuse.
    static PLACE: Mutex<String> = Mutex::new(String::new());
    std::panic::set_hook(Box::new(|panic| {
        if let (Some(place), Ok(mut last)) = (panic.location(), PLACE.lock()) {
            *last = place.to_string();
        }
    }));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(arguments.command, &context)));
    match outcome {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // The reader of a pipe has seen enough.
        Ok(Err(error)) if error.io_kind() == Some(io::ErrorKind::BrokenPipe) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            let command = matches.subcommand_name().and_then(|name| commands.find_subcommand(name));
            let code = if error.kind() == ErrorKind::Spec { 2 } else { 1 };
            complain(format_args!("\x1b[1;31merror\x1b[0m: {}", flags::with_flags(error, command)));
            ExitCode::from(code)
        }
        Err(panic) => {
            let message = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let place = PLACE.lock().map(|place| place.clone()).unwrap_or_default();
            complain(format_args!(
                "\x1b[1;31merror\x1b[0m: a bug in dice: {} ({place}); please report it with the command and its input",
                message.unwrap_or("no message")
            ));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, context: &Context) -> Result<()> {
    #[cfg(unix)]
    signals::watch().map_err(|error| Error::io("signals", error))?;
    let outputs = command.outputs();
    claim_outputs(outputs.iter().map(PathBuf::as_path).filter(|path| *path != Path::new("-")))?;
    match command {
        Command::Features(features) => features.run(context),
        Command::Fit(fit) => fit.run(context),
        Command::Score(score) => score.run(context),
        Command::Eval(eval) => eval.run(context),
        Command::Report(page) => page.run(context),
        Command::Paper(paper) => paper.run(context),
        Command::Plot(plot) => plot.run(context),
        Command::Explain(explain) => explain.run(context),
        Command::Diagnose(diagnose) => diagnose.run(context),
        Command::Sweep(sweep) => sweep.run(context),
        Command::Tune(tune) => tune.run(context),
        Command::Export(export) => export.run(context),
        Command::Inspect(inspect) => inspect.run(),
        Command::Methods(methods) => methods.run(context),
        Command::Demo(demo) => demo.run(context),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "dice", &mut script);
            print_bytes(&script)
        }
        Command::Man { command } => {
            let mut all = Arguments::command();
            all.build();
            let page = match &command {
                None => all,
                Some(name) => match all.find_subcommand(name) {
                    Some(found) => found.clone(),
                    None => {
                        return Err(Error::new(ErrorKind::Argument, format!("`{name}`")).expected(
                            "a command: features, fit, score, eval, diagnose, sweep, tune, export, inspect, methods, demo, \
                             completions",
                        ));
                    }
                },
            };
            let mut roff = Vec::new();
            clap_mangen::Man::new(page).render(&mut roff).map_err(|error| Error::io("manual", error))?;
            print_bytes(&roff)
        }
    }
}
