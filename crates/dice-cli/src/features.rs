//! `dice features`: images or arrays through an ONNX model, cached for fitting and scoring.

use std::path::PathBuf;

use dice_onnx::{Distortion, ImageSet};
use dice_ood::Result;
use indicatif::HumanDuration;

use crate::columns::Columns;
use crate::network::{Choices, Network, Running, Set, arrays};
use crate::report::count;
use crate::said::Context;

/// Compute penultimate features of images, or of other inputs, with an ONNX model.
///
/// Finds the model's linear head, runs the network up to what feeds it, and writes features [N, D], class labels where
/// images lie in class folders or the file of inputs has them, names, the head itself, and which model and preprocessing they came
/// from.
/// Nothing is downloaded and no runtime has to be installed.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Features {
    /// The model; MODEL.onnx#NODE names its head where it is not found.
    #[arg(long, value_name = "MODEL.onnx")]
    model: String,
    /// Images: folders, patterns, .txt lists of paths, .tar shards (WebDataset), .parquet[#COLUMN] (Hugging Face).
    ///
    /// Labels are the subfolders of a single folder, the .cls or .json beside an image of a shard, the label column of a table.
    #[arg(long, required_unless_present = "inputs", num_args = 1.., value_name = "PATH")]
    images: Vec<String>,
    /// Arrays instead of images, named as the model's inputs, the first axis N: .npz, .safetensors, .npy, .parquet, or a table with a
    /// column for each value of the only input. `dice inspect MODEL.onnx` lists the inputs.
    ///
    /// Lists of tokens in Parquet need not be of one length. Without attention_mask every token counts, without token_type_ids
    /// these are zeros, which is said. Labels and ids beside the arrays are taken over.
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with_all = ["images", "distort", "at_most"])]
    inputs: Vec<String>,
    /// Distort the images before the network sees them, as stand-ins for out-of-distribution ones: flip, turn, mix, jigsaw (near),
    /// phase, zoom, shuffle, blur (far).
    #[arg(long, value_name = "NAME")]
    distort: Option<Distortion>,
    /// Take at most N of the images, evenly spaced; of shards and tables the first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    at_most: Option<u32>,
    #[command(flatten)]
    choices: Choices,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    columns: Columns,
    /// Where to write.
    #[arg(long, short, value_name = "FILE.safetensors", value_parser = |text: &str| crate::flags::ending(text, "safetensors"))]
    pub(crate) output: PathBuf,
}

const EXAMPLES: &str = "Examples:
  dice features --model resnet.onnx --images train/ --preprocess imagenet -o train.safetensors
  dice fit --features train.safetensors --head resnet.onnx -o detector.safetensors
  dice features --model resnet.onnx --images 'new/*.jpg' --preprocess imagenet -o new.safetensors
  dice features --model resnet.onnx --images val/ --preprocess imagenet --distort phase --at-most 400 -o phase.safetensors
  dice features --model text.onnx --inputs train.npz -o train.safetensors
  dice score detector.safetensors new.safetensors";

impl Features {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let arrays = arrays(&self.inputs, None, &self.columns)?;
        let network = Network::open(&self.model, &self.choices, arrays.clone(), &self.running, context)?;
        let set = match (arrays, self.at_most) {
            (Some(data), _) => Set::Arrays(data),
            (None, Some(most)) => Set::Images(ImageSet::find(&self.images)?.thinned(most as usize)),
            (None, None) => Set::Images(ImageSet::find(&self.images)?),
        };
        let start = std::time::Instant::now();
        let rows = network.save_features(&set, self.distort, &self.output, context)?;
        let classes = set.classes().len();
        context.note(format_args!(
            "Wrote {}: {} {} in {} ({:.0} a second){}",
            self.output.display(),
            count(rows),
            if network.takes_arrays() { "inputs" } else { "images" },
            HumanDuration(start.elapsed()),
            rows as f64 / start.elapsed().as_secs_f64().max(1e-9),
            if classes == 0 { String::new() } else { format!(", {classes} class folders as labels") }
        ));
        Ok(())
    }
}
