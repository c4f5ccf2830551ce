//! `dice export`: the network again, with its OOD score inside.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dice_onnx::{DECISION, Export as Exported, HeadOptions, Model, SCORE};
use dice_ood::io::Location;
use dice_ood::{Result, Spec};

use crate::Context;
use crate::data::detector;
use crate::network::{check_fingerprint, origin_of};
use crate::report::{count, percent};
use crate::score::choose;

/// Put a detector inside its network: an ONNX file that returns its own OOD score.
///
/// The outputs of the model stay as they are, bit for bit; ood_score [N] (f32, higher = more in-distribution) and is_ood [N]
/// (bool, by the detector's threshold) come after them. Any ONNX runtime serves the result.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Export {
    /// The detector, as written by `dice fit`.
    #[arg(value_name = "DETECTOR")]
    artifact: PathBuf,
    /// The model it was fitted to; MODEL.onnx#NODE names its head where the detector does not record it.
    #[arg(long, value_name = "MODEL.onnx")]
    model: String,
    /// Which detector of the file, where it holds several; the first by default.
    #[arg(long, short = 'd', value_name = "SPEC")]
    detector: Option<Spec>,
    /// Also return the penultimate features [N, D], as output features.
    #[arg(long)]
    features: bool,
    /// Where to write; external data of the model are copied beside it.
    #[arg(long, short, value_name = "FILE.onnx", value_parser = |text: &str| crate::ending(text, "onnx"))]
    pub(crate) output: PathBuf,
}

const EXAMPLES: &str = "Examples:
  dice fit --model resnet50.onnx --images train/ --preprocess imagenet --calibration val/ -o detector.safetensors
  dice export detector.safetensors --model resnet50.onnx -o resnet50-ood.onnx

In Python, with ONNX Runtime:
  session = onnxruntime.InferenceSession('resnet50-ood.onnx')
  logits, score, is_ood = session.run(None, {'input': batch})
Detector, threshold, TPR and preprocessing are in the model's metadata: dice inspect resnet50-ood.onnx.";

impl Export {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let artifact = detector(&self.artifact, [self.model.as_str()])?;
        let calibrated =
            choose(&artifact, self.detector.as_ref()).map_err(|error| error.file(self.artifact.display()))?;
        let location = Location::parse(&self.model);
        let model = Model::open(&location.path)?;
        let origin = origin_of(&artifact, &self.artifact)?;
        let (options, notes) = match &origin {
            Some(origin) => {
                check_fingerprint(&model, origin, &self.artifact)?;
                let mut notes = origin.to_notes()?;
                // What is handed on need not say where it was made.
                if let Some(name) = location.path.file_name() {
                    notes.insert("model".into(), name.to_string_lossy().into_owned());
                }
                (origin.head_options(), notes)
            }
            None => (HeadOptions { head: location.name, features: None }, BTreeMap::new()),
        };
        let found = model.find_head(&options)?;
        let exported = Exported::new(&model, &found, calibrated, self.features, &notes)?;
        exported.write(&self.output)?;
        let mut outputs = vec![format!("{SCORE} [N]")];
        outputs.extend(calibrated.threshold().map(|_| format!("{DECISION} [N]")));
        outputs.extend(exported.features().map(|name| format!("{name} [N, {}]", found.units())));
        context.note(format_args!(
            "Wrote {}: {} by {}, {} bytes larger than {}.",
            self.output.display(),
            outputs.join(", "),
            calibrated.detector().spec(),
            count(exported.added()),
            location.path.display(),
        ));
        match calibrated.threshold() {
            Some(threshold) => context.note(format_args!(
                "{DECISION} is false for a fresh in-distribution input with probability at least {} %.",
                percent(threshold.tpr())
            )),
            None => context.note("The detector has no threshold: there is no is_ood. Fit it with --calibration."),
        }
        match &origin {
            Some(origin) => {
                context.note(format_args!("Inputs must be prepared as for the fit: {}.", origin.preprocess))
            }
            None => context.note(format_args!(
                "Inputs must be prepared as for the fit, which {} does not record.",
                self.artifact.display()
            )),
        }
        for note in &found.notes {
            context.note(format_args!("Note: {note}"));
        }
        Ok(())
    }
}
