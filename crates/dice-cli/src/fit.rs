//! `dice fit`: features and head in, a calibrated detector out.

pub(crate) mod account;
mod outputs;
mod record;
mod stand_ins;
mod start;

use std::path::PathBuf;
use std::sync::Arc;

use dice_ood::evaluation::SetLabel;
use dice_ood::{Error, ErrorKind, FeatureSource as _, Fitted, HoldOut, LinearHead, Needs, Result, Spec};

use crate::columns::{Columns, tell};
use crate::data::{Inputs, head};
use crate::methods::steps;
use crate::network::{Choices, Network, Running, arrays};
use crate::progress::Bar;
use crate::said::Context;
use crate::wanted::{DEFAULT, Named, Wanted, named};
use account::Account;
use outputs::check_destination;
use start::{Opened, Start};

/// Fit a detector to a trained network: to its features and head, or to an ONNX model and images or other inputs.
///
/// One pass over the training data gathers statistics; detectors are fitted from these, and a threshold is set on
/// in-distribution inputs held out of the fit, so that a fresh one is accepted with at least the promised probability.
#[derive(clap::Args)]
#[command(after_help = help())]
pub(crate) struct Fit {
    /// Penultimate features [N, D] of in-distribution training inputs (labels beside them stratify the hold-out).
    #[arg(long, short = 'f', num_args = 1.., value_name = "FILE", required_unless_present_any = ["statistics", "images", "inputs"], group = "rows")]
    features: Vec<String>,
    /// Class labels [N] of --features or --inputs, where they are in a file of their own.
    #[arg(long, value_name = "FILE", requires = "rows")]
    labels: Option<String>,
    /// The linear head: weight [C, D] and bias [C]; or the ONNX model it is part of.
    #[arg(long, value_name = "FILE", required_unless_present = "model")]
    head: Option<String>,
    /// An ONNX model, whose head is found and whose features are computed from --images or --inputs; MODEL.onnx#NODE names its head.
    #[arg(long, value_name = "MODEL.onnx", conflicts_with = "head", requires = "through")]
    model: Option<String>,
    /// Training images instead of features: folders, patterns, .txt lists of paths, .tar shards, .parquet[#COLUMN]; subfolders
    /// of a single folder are classes, which stratify the hold-out.
    #[arg(
        long,
        num_args = 1..,
        value_name = "PATH",
        requires = "model",
        group = "through",
        conflicts_with_all = ["features", "labels", "statistics", "head"]
    )]
    images: Vec<String>,
    /// Training inputs that are not images: arrays named as the model's inputs, the first axis N (.npz, .safetensors, .npy,
    /// .parquet, or a table with a column for each value of the only input); see `dice features --help`.
    #[arg(
        long,
        num_args = 1..,
        value_name = "FILE",
        requires = "model",
        groups = ["through", "rows"],
        conflicts_with_all = ["features", "statistics", "head"]
    )]
    inputs: Vec<String>,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    columns: Columns,
    /// The detector to fit; repeat to fit several from the same pass. `auto`: a panel of one score a family, which was best on
    /// average over the networks that we measured. `all`: every method with its defaults, as far as it can be fitted.
    ///
    /// By default `auto`, where it can be fitted, with `dice(0.9) | energy` and `energy` behind it.
    #[arg(long = "detector", short = 'd', value_name = "SPEC|auto|all")]
    detectors: Vec<Wanted>,
    /// Probability with which a fresh in-distribution input is to be accepted.
    ///
    /// 0.95 takes at least 19 calibration inputs, 0.99 takes 99; thousands make the realised rate certain.
    #[arg(long, default_value_t = 0.95, value_name = "RATE", value_parser = crate::flags::rate, allow_negative_numbers = true)]
    tpr: f64,
    /// In-distribution features (with --model: images, or arrays as in --inputs) for the threshold, not seen in training; better than a held-out part.
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with = "calibration_fraction")]
    calibration: Vec<String>,
    /// Share of the training data to hold out of the fit for the threshold, to the nearest percent; 0 for none, and no decisions.
    #[arg(long, default_value_t = 0.1, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    calibration_fraction: f64,
    /// Out-of-distribution inputs that weigh the members of `auto`: half of each set fits weights, which are taken where they
    /// reject more of the other half. Do not evaluate on these inputs.
    #[arg(long, value_name = "NAME=FILE", value_parser = crate::eval::parse_set)]
    validation_ood: Vec<(SetLabel, String)>,
    /// With --model: of so many images of --calibration, or else of --images, show what the detectors reject once these are
    /// distorted in eight ways: 100 by default, 0 for none.
    #[arg(long, value_name = "N")]
    stand_ins: Option<u32>,
    /// Seed of the hold-out.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Published statistics instead of features: a mean activation [D], or another detector; several are merged.
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with_all = ["features", "calibration_fraction", "seed"])]
    statistics: Vec<String>,
    /// Also write the statistics alone here: those of several parts of the data merge with --statistics A B.
    #[arg(long, value_name = "FILE", value_parser = file_to_write)]
    pub(crate) save_statistics: Option<PathBuf>,
    /// Where to write; an existing directory gets one file for each detector, that of `auto` being auto.safetensors.
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
  dice fit --model text.onnx --inputs train.npz --calibration val.npz -o detector.safetensors
  dice fit --features train.safetensors --head resnet50.pth -o detector.safetensors
  dice fit --features train.npy --labels y.npy --head head.npz --calibration val.npy \\
      -d 'react(0.99) | dice(0.7) | energy' -d energy --tpr 0.99 -o detector.safetensors
  dice fit --features train.npz --head head.npz --calibration val.npy -d auto -o detector.safetensors
  dice fit --features train.npz --head head.npz --calibration val.npy -d all -o all.safetensors
  dice fit --statistics mean.npy --head model.pth --calibration val.npy -o d.safetensors";

fn help() -> String {
    format!(
        "{EXAMPLES}\n\nDetectors are written [SHAPING |] [SPARSITY |] SCORE, as in 'react(0.99) | dice(0.9) | energy', or as combinations. \
         The steps, which `dice methods` explains:{}\n\n`-d all` is every sparsity and shaping as in its example before the energy, every \
         score with its defaults, and the panel of `auto`, evidence(lts, nci, mds, vim, core, caref), also without caref. What cannot be \
         fitted to the inputs at hand is left out, and said; detectors named beside it must be fitted, and come first.",
        steps()
    )
}

impl Fit {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        // The library refuses a detector that is named twice too, but only once images have become features.
        let auto = named(&self.wanted()?)?.auto.is_some();
        if !auto && !self.validation_ood.is_empty() {
            return Err(Error::new(ErrorKind::Argument, "other detectors")
                .argument("--validation-ood")
                .expected("-d auto, whose members it weighs"));
        }
        if self.images.is_empty() && self.stand_ins.is_some() {
            let found = if self.inputs.is_empty() { "features" } else { "arrays" };
            return Err(Error::new(ErrorKind::Argument, found)
                .argument("--stand-ins")
                .expected("images to distort, with --model and --images"));
        }
        check_destination(&self.output)?;
        let open = |model| {
            let arrays = arrays(&self.inputs, self.labels.as_ref(), &self.columns)?;
            Network::open(model, &self.choices, arrays, &self.running, context)
        };
        let network = self.model.as_deref().map(open).transpose()?;
        let fitted = self.fit(network.as_ref(), context)?;
        let account = Account { fitted: &fitted, head: self.head_name(), held_out: self.holds_out() };
        context.note(account.text());
        account.left_out().iter().for_each(|line| context.note(line));
        for finding in &fitted.findings {
            context.warn(finding);
        }
        let outputs = self.outputs_of(&fitted);
        self.write(&fitted.artifact, &outputs, context)?;
        let stand_ins = match &network {
            Some(network) => self.stand_ins(network, fitted.artifact.detectors(), context)?,
            None => None,
        };
        stand_ins.iter().for_each(|found| context.note(found.text().trim_end()));
        match self.format {
            Some(SummaryFormat::Json) => account.print_json(&outputs, stand_ins.as_ref()),
            None => Ok(()),
        }
    }

    /// Everything but the writing.
    fn fit(&self, network: Option<&Network>, context: &Context) -> Result<Fitted> {
        let calibration = self.calibration_inputs(network)?;
        let start = Start::find(self, network, context)?;
        let origin = match network {
            Some(network) => Some(network.origin().clone()),
            None => self.recorded_origin(&start, calibration.as_ref())?,
        };
        let opened = start.open()?;
        let layout = opened.layout();
        tell(&layout, &start.name(), context);
        let (head, classes) = self.read_head(network, &opened, &start.name(), context)?;
        let head = Arc::new(head);
        let calibration = calibration.map(|inputs| inputs.with_units(head.units(), &layout.units));
        let name = calibration.as_ref().map_or_else(|| start.name(), Inputs::name);
        let fit = dice_ood::Fit::new(Arc::clone(&head))
            .tpr(self.tpr)
            .gather(Needs::marginals())
            .provenance(self.provenance(origin.as_ref(), &layout, &classes)?)
            .progress(Bar::new(context));
        let fit = match (&calibration, start.features()) {
            (Some(inputs), _) => fit.calibrate_on(|| {
                let source = inputs.open(context)?;
                head.check_features(source.units()).map_err(|error| error.file(&name))?;
                Ok(source)
            }),
            (None, Some(training)) if self.holds_out() => {
                fit.hold_out(HoldOut::new(self.calibration_fraction, self.seed)?, || training.open())
            }
            _ => fit,
        };
        let validation = self.validation_inputs(network)?;
        let validation =
            validation.into_iter().map(|(name, inputs)| (name, inputs.with_units(head.units(), &layout.units)));
        let fit = validation.fold(fit, |fit, (name, inputs)| fit.validate_on(name, move || inputs.open(context)));
        let fitted = opened.fit(self.with_detectors(fit)?);
        fitted.map_err(|error| if error.kind() == ErrorKind::Calibration { error.file(&name) } else { error })
    }

    /// The detectors to fit.
    fn wanted(&self) -> Result<Vec<Wanted>> {
        match self.detectors.is_empty() {
            true => DEFAULT.iter().map(|text| text.parse()).collect(),
            false => Ok(self.detectors.clone()),
        }
    }

    /// Adds the detectors that were asked for: those named one by one first, as the first of a file decides.
    fn with_detectors<'a>(&self, fit: dice_ood::Fit<'a>) -> Result<dice_ood::Fit<'a>> {
        let wanted = self.wanted()?;
        let Named { specs, all, auto } = named(&wanted)?;
        let (before, after) = specs.split_at(auto.unwrap_or(0));
        let fit = before.iter().map(|spec| (*spec).clone()).fold(fit, dice_ood::Fit::detector);
        // Who names it, or gives inputs for its weights, is told where it cannot be fitted; the default goes on without.
        let fit = match (auto, self.detectors.is_empty() && self.validation_ood.is_empty()) {
            (None, _) => fit,
            (Some(_), true) => fit.auto_if_possible(),
            (Some(_), false) => fit.auto(),
        };
        let fit = after.iter().map(|spec| (*spec).clone()).fold(fit, dice_ood::Fit::detector);
        let all = if all { Spec::all() } else { Vec::new() };
        Ok(all.into_iter().fold(fit, dice_ood::Fit::detector_if_possible))
    }

    /// Whether the threshold rests on a part of the training data.
    fn holds_out(&self) -> bool {
        self.statistics.is_empty() && self.calibration.is_empty() && self.calibration_fraction > 0.0
    }

    /// What `--calibration` names.
    fn calibration_inputs<'a>(&self, network: Option<&'a Network>) -> Result<Option<Inputs<'a>>> {
        if self.calibration.is_empty() {
            return Ok(None);
        }
        let inputs = Inputs::find(network, &self.calibration)?.without_labels();
        Ok(Some(inputs.with_columns(&self.columns)))
    }

    /// What `--validation-ood` names.
    fn validation_inputs<'a>(&self, network: Option<&'a Network>) -> Result<Vec<(String, Inputs<'a>)>> {
        let find = |(label, file): &(SetLabel, String)| {
            let inputs = Inputs::find(network, std::slice::from_ref(file))?.without_labels();
            Ok((label.name.clone(), inputs.with_columns(&self.columns)))
        };
        self.validation_ood.iter().map(find).collect()
    }

    /// The head that was asked for, where several are there the one that the features, called `name`, feed, and names of its
    /// classes; says which tensors it is.
    fn read_head(
        &self,
        network: Option<&Network>,
        features: &Opened,
        name: &str,
        context: &Context,
    ) -> Result<(LinearHead, Vec<String>)> {
        let units = features.units();
        let (head, classes) = match network {
            Some(network) => (network.head().clone(), Vec::new()),
            None => head(self.head_name(), units, context)?,
        };
        head.check_features(units).map_err(|error| {
            let stray = features.layout().one_too_many(units, head.units());
            stray.unwrap_or(error).file(name)
        })?;
        Ok((head, classes))
    }

    /// What was taken as the head, as far as it is known here.
    fn head_name(&self) -> &str {
        self.head.as_deref().or(self.model.as_deref()).unwrap_or_default()
    }
}
