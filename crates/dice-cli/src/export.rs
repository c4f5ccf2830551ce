//! `dice export`: a detector as an ONNX model, inside its network or behind features.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dice_onnx::{
    DECISION, Export as Exported, Exporter, FEATURES, FoundHead, HeadOptions, Measured, Model, Origin, P_VALUE,
    PREDICTION, Runtime, SCORE, measure, measure_alone,
};
use dice_ood::io::Location;
use dice_ood::{Calibrated, Error, ErrorKind, Result, Spec};

use crate::data::detector;
use crate::network::{check_fingerprint, origin_of};
use crate::report::{count, percent};
use crate::said::Context;
use crate::score::choose;

/// Put a detector inside its network, or write it alone: an ONNX file that returns OOD scores.
///
/// With --model, the network again, with its operators and outputs as they are. A runtime may round those of a network in 16 or 8
/// bits in other places than before, as more outputs change what it fuses: what it makes of both is measured on random inputs, and
/// said. ood_score [N] (f32, higher = more in-distribution),
/// p_value [N] (f32, conformal) and is_ood [N] (bool, by the detector's threshold) come after them. Without, a model from
/// features [N, D] (f32) to these and prediction [N] (int64), for whoever has features. Any ONNX runtime serves the result.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {
    /// The detector, as written by `dice fit`.
    #[arg(value_name = "DETECTOR")]
    artifact: PathBuf,
    /// The model it was fitted to; MODEL.onnx#NODE names its head where the detector does not record it.
    #[arg(long, value_name = "MODEL.onnx")]
    model: Option<String>,
    /// Which detector of the file, where it holds several; the first by default.
    #[arg(long, short = 'd', value_name = "SPEC")]
    detector: Option<Spec>,
    /// Also return the penultimate features [N, D], as output features.
    #[arg(long, requires = "model")]
    features: bool,
    /// Megabytes that the detector's constants may take beside the head, such as a bank of training features.
    #[arg(long, value_name = "MB", default_value_t = 256)]
    max_size: usize,
    /// What measures the exported model, beside the network and the detector that it is made of: built-in, or onnxruntime=PATH as in
    /// `dice score`.
    #[arg(long, default_value_t, value_name = "built-in|onnxruntime[@LEVEL]=PATH", hide_default_value = true)]
    runtime: Runtime,
    /// Random inputs to measure on; 0 measures nothing.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(..=1000))]
    measure: u16,
    /// Where to write; external data of the model are copied beside it.
    #[arg(long, short, value_name = "FILE.onnx", value_parser = |text: &str| crate::flags::ending(text, "onnx"))]
    pub(crate) output: PathBuf,
}

const EXAMPLES: &str = "Examples:
  dice fit --model resnet50.onnx --images train/ --preprocess imagenet --calibration val/ -o detector.safetensors
  dice export detector.safetensors --model resnet50.onnx -o resnet50-ood.onnx
  dice export detector.safetensors -o head.onnx

In Python, with ONNX Runtime:
  session = onnxruntime.InferenceSession('resnet50-ood.onnx')
  logits, score, p_value, is_ood = session.run(None, {'input': images})
  session = onnxruntime.InferenceSession('head.onnx')
  score, p_value, is_ood, prediction = session.run(None, {'features': features})
Inputs that hold NaN or infinity get a score of NaN and class -1, and are OOD. Detector, threshold, TPR and preprocessing are in
the model's metadata: dice inspect head.onnx.";

impl Export {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let artifact = detector(&self.artifact, self.model.as_deref())?;
        let located = |error: Error| error.file(self.artifact.display());
        let calibrated = choose(&artifact, self.detector.as_ref()).map_err(located)?;
        let origin = origin_of(&artifact, &self.artifact)?;
        let exporter =
            Exporter::new(calibrated).and_then(|exporter| self.checked(exporter, calibrated)).map_err(located)?;
        match &self.model {
            Some(model) => self.in_model(&Location::parse(model), exporter, calibrated, origin.as_ref(), context),
            None => self.alone(exporter, calibrated, origin.as_ref(), context),
        }
    }

    /// Refuses constants that nobody expects.
    fn checked<'a>(&self, exporter: Exporter<'a>, calibrated: &Calibrated) -> Result<Exporter<'a>> {
        let megabytes = exporter.constant_bytes().div_ceil(1_000_000);
        if megabytes <= self.max_size {
            return Ok(exporter);
        }
        Err(Error::new(ErrorKind::Argument, format!("{} MB of them", count(megabytes)))
            .tensor(format!("constants of detector '{}'", calibrated.detector().spec()))
            .expected(format!("at most {} MB", count(self.max_size)))
            .fix(format!("fit it with a smaller bank, or allow them: --max-size {megabytes}")))
    }

    fn in_model(
        &self,
        location: &Location,
        exporter: Exporter<'_>,
        calibrated: &Calibrated,
        origin: Option<&Origin>,
        context: &Context,
    ) -> Result<()> {
        let model = Model::open(&location.path)?;
        let (found, notes) = match origin {
            Some(origin) => {
                check_fingerprint(&model, origin, &self.artifact)?;
                (origin.find_head(&model, location.name.as_deref())?, notes(origin, &location.path)?)
            }
            None => {
                let options = HeadOptions { head: location.name.clone(), features: None };
                (model.find_head(&options)?, BTreeMap::new())
            }
        };
        let exporter = exporter.notes(&notes);
        let exported = match self.features {
            true => exporter.in_model_with_features(&model, &found)?,
            false => exporter.in_model(&model, &found)?,
        };
        exported.write(&self.output)?;
        context.note(format_args!(
            "Wrote {}: {} by {}, {} bytes larger than {}.",
            self.output.display(),
            outputs(calibrated, features_of(&exported, &found)),
            calibrated.detector().spec(),
            count(exported.added()),
            location.path.display(),
        ));
        promise(calibrated, context);
        self.tell_measured(context, |exported| {
            let prepared = origin.map(|origin| &origin.prepared);
            measure((&model, &found), exported, calibrated, prepared, &self.runtime, self.measure.into())
        });
        match origin {
            Some(origin) => context.note(format_args!("Inputs must be prepared as for the fit: {}.", origin.prepared)),
            None => context.note(format_args!(
                "Inputs must be prepared as for the fit, which {} does not record.",
                self.artifact.display()
            )),
        }
        for note in &found.notes {
            context.note(format_args!("Note: {note}"));
        }
        if let Some(origin) = origin.filter(|_| found.rounding.is_some()) {
            context.note(format_args!("The detector was fitted with {}.", origin.ran_by()));
        }
        Ok(())
    }

    /// Runs what was written, and says what it gives. Nothing is wrong with a model that this runtime lacks operators for.
    fn tell_measured(&self, context: &Context, measure: impl FnOnce(&Model) -> Result<Measured>) {
        if self.measure == 0 || context.quiet {
            return;
        }
        let runtime = self.runtime.name();
        match Model::open(&self.output).and_then(|exported| measure(&exported)) {
            Ok(measured) => context.note(format_args!(
                "Measured by the {runtime} runtime on {} random inputs: {}.",
                count(measured.rows),
                found(&measured)
            )),
            Err(error) => {
                context.note(format_args!("Could not be measured by the {runtime} runtime, because: {error}"))
            }
        }
    }

    fn alone(
        &self,
        exporter: Exporter<'_>,
        calibrated: &Calibrated,
        origin: Option<&Origin>,
        context: &Context,
    ) -> Result<()> {
        let notes = origin.map(|origin| notes(origin, Path::new(&origin.model))).transpose()?.unwrap_or_default();
        let exported = exporter.notes(&notes).alone()?;
        exported.write(&self.output)?;
        context.note(format_args!(
            "Wrote {}: from {FEATURES} [N, {}] to {} by {}, {} bytes.",
            self.output.display(),
            calibrated.detector().head().units(),
            outputs(calibrated, Some(format!("{PREDICTION} [N]"))),
            calibrated.detector().spec(),
            count(exported.added()),
        ));
        promise(calibrated, context);
        self.tell_measured(context, |exported| measure_alone(exported, calibrated, &self.runtime, self.measure.into()));
        if let Some(origin) = origin {
            context.note(format_args!(
                "Features must be those that {} makes of inputs prepared as for the fit: {}.",
                origin.model, origin.prepared
            ));
        }
        Ok(())
    }
}

/// What was found, in a sentence.
fn found(measured: &Measured) -> String {
    let own = measured.worst().map(|(name, difference)| match difference {
        0.0 => "the network's own outputs are the same, bit for bit; ".to_owned(),
        _ => format!(
            "the network's own outputs differ by up to {difference:.1e} of the largest (`{}`); ",
            name.escape_debug()
        ),
    });
    let score = match measured.score {
        0.0 => format!("{SCORE} is what the detector scores"),
        difference => format!("{SCORE} differs from what the detector scores by up to {difference:.1e} of the largest"),
    };
    let decisions = measured.decisions.map(|differing| match differing {
        0 => format!(", and {DECISION} decides the same"),
        _ => format!(", and {DECISION} decides otherwise on {}", count(differing)),
    });
    [own, Some(score), decisions].into_iter().flatten().collect()
}

/// What the file says of where the detector comes from: what is handed on need not say in which folder it was made.
fn notes(origin: &Origin, model: &Path) -> Result<BTreeMap<String, String>> {
    let mut notes = origin.to_notes()?;
    if let Some(name) = model.file_name() {
        notes.insert("model".into(), name.to_string_lossy().into_owned());
    }
    Ok(notes)
}

fn features_of(exported: &Exported, found: &FoundHead) -> Option<String> {
    exported.features().map(|name| format!("{name} [N, {}]", found.units()))
}

fn outputs(calibrated: &Calibrated, more: Option<String>) -> String {
    let decided = calibrated.threshold().map(|_| format!("{P_VALUE} [N], {DECISION} [N]"));
    [Some(format!("{SCORE} [N]")), decided, more].into_iter().flatten().collect::<Vec<String>>().join(", ")
}

fn promise(calibrated: &Calibrated, context: &Context) {
    match calibrated.threshold() {
        Some(threshold) => context.note(format_args!(
            "{DECISION} is false for a fresh in-distribution input with probability at least {} %.",
            percent(threshold.tpr())
        )),
        None => context.note(format_args!(
            "The detector has no threshold: there is no {P_VALUE} and no {DECISION}. Fit it with --calibration."
        )),
    }
}
