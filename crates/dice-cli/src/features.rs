//! `dice features`: images through an ONNX model, cached for fitting and scoring.

use std::collections::HashMap;
use std::path::PathBuf;

use dice_onnx::{Backbone, Broken, HeadOptions, ImageSet, ImageSource, Model, Preprocess, Runtime};
use dice_ood::io::{Location, write_features};
use dice_ood::{Error, ErrorKind, Result, for_each_block};
use indicatif::HumanDuration;

use crate::data::Progress;
use crate::report::count;
use crate::{Context, refuse_overwrite};

/// Compute penultimate features of images with an ONNX model.
///
/// Finds the model's linear head, runs the network up to what feeds it, and writes features [N, D], class labels where
/// images lie in class folders, and the head itself. Nothing is downloaded and no runtime has to be installed.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Features {
    /// The model; MODEL.onnx#NODE names its head where it is not found.
    #[arg(long, value_name = "FILE")]
    model: String,
    /// Images: folders, patterns, files, or .txt lists of paths; subfolders of a single folder are classes.
    #[arg(long, required = true, num_args = 1.., value_name = "PATH")]
    images: Vec<String>,
    /// How images become inputs: imagenet, cifar10, mnist, or a preprocessor_config.json of Hugging Face.
    ///
    /// By default the one of these presets whose size fits the model, which is said.
    #[arg(long, value_name = "NAME|FILE")]
    preprocess: Option<String>,
    /// The tensor to take as features, where it is not what the head reads.
    #[arg(long, value_name = "TENSOR")]
    tensor: Option<String>,
    /// What runs the network: built-in, or onnxruntime=PATH for an ONNX Runtime that you have, often several times as fast.
    ///
    /// PATH is its library (libonnxruntime.so, onnxruntime.dll, libonnxruntime.dylib) of version 1.21 or newer, or a folder
    /// that holds it, such as that of the Python package onnxruntime.
    #[arg(long, default_value_t, value_name = "built-in|onnxruntime=PATH", hide_default_value = true)]
    runtime: Runtime,
    /// What to do with an image that cannot be decoded: skip leaves it out, and says how many and which first.
    #[arg(long, default_value = "fail")]
    broken: OnBroken,
    /// Where to write.
    #[arg(long, short, value_name = "FILE.safetensors", value_parser = safetensors)]
    output: PathBuf,
}

const EXAMPLES: &str = "Examples:
  dice features --model resnet.onnx --images train/ --preprocess imagenet -o train.safetensors
  dice fit --features train.safetensors --head resnet.onnx -o detector.safetensors
  dice features --model resnet.onnx --images 'new/*.jpg' --preprocess imagenet -o new.safetensors
  dice score detector.safetensors new.safetensors";

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum OnBroken {
    Fail,
    Skip,
}

fn safetensors(text: &str) -> std::result::Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension().is_some_and(|extension| extension == "safetensors") {
        true => Ok(path),
        false => Err("features are written as .safetensors".into()),
    }
}

impl Features {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let location = Location::parse(&self.model);
        let model = Model::open(&location.path)?;
        let found = model.find_head(&HeadOptions { head: location.name, features: self.tensor.clone() })?;
        let backbone = Backbone::new(&model, &found, &self.runtime)?;
        let set = ImageSet::find(&self.images)?;
        refuse_overwrite(&self.output, set.paths.iter().map(PathBuf::as_path).chain([location.path.as_path()]))?;
        let preprocess = self.preprocess(&backbone, context)?;
        context.note(format_args!(
            "{}: {} classes, {} features from {}; images {preprocess}.",
            location.path.display(),
            count(found.classes()),
            count(found.units()),
            found.features
        ));
        for note in &found.notes {
            context.note(format_args!("Note: {note}"));
        }
        let classes = set.classes.clone();
        let policy = if self.broken == OnBroken::Skip { Broken::Skip } else { Broken::Fail };
        let mut source = ImageSource::new(&backbone, set, preprocess.clone(), policy)?;
        let (mut features, mut labels, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        let start = std::time::Instant::now();
        {
            let mut progress = Progress::new(Box::new(&mut source), None, "images", context);
            for_each_block(&mut progress, |block| {
                if let Some(place) = block.features.iter().position(|value| !value.is_finite()) {
                    let row = place / block.units;
                    return Err(Error::new(
                        ErrorKind::NotFinite,
                        format!("{} in column {}", block.features[place], place % block.units),
                    )
                    .file(block.id(row))
                    .tensor(&found.features)
                    .expected("finite features")
                    .fix("is the preprocessing that of the network?"));
                }
                features.extend_from_slice(&block.features);
                labels.extend(block.labels.iter().flatten());
                paths.extend(block.ids.iter().flatten().cloned());
                Ok(())
            })?;
        }
        if paths.is_empty() {
            return Err(Error::new(ErrorKind::Empty, "no image that can be decoded").file(self.images.join(" ")));
        }
        let metadata = HashMap::from([
            ("model".to_owned(), location.path.display().to_string()),
            ("model_sha256".to_owned(), backbone.fingerprint().to_owned()),
            ("features_tensor".to_owned(), found.features.clone()),
            ("preprocess".to_owned(), json(&preprocess)?),
            ("runtime".to_owned(), self.runtime.name().to_owned()),
            ("classes".to_owned(), json(&classes)?),
            ("paths".to_owned(), json(&paths)?),
        ]);
        let labels = (!classes.is_empty()).then_some(labels.as_slice());
        write_features(&self.output, &features, found.units(), labels, Some(&found.head), metadata)?;
        let seconds = start.elapsed().as_secs_f64();
        context.note(format_args!(
            "Wrote {}: {} images in {} ({:.0} a second){}",
            self.output.display(),
            count(paths.len()),
            HumanDuration(start.elapsed()),
            paths.len() as f64 / seconds.max(1e-9),
            if classes.is_empty() { String::new() } else { format!(", {} class folders as labels", classes.len()) }
        ));
        if let Some((path, error)) = source.skipped().first() {
            context.note(format_args!(
                "Left out {} images that cannot be decoded, the first {}: {error}",
                count(source.skipped().len()),
                path.display()
            ));
        }
        Ok(())
    }

    fn preprocess(&self, backbone: &Backbone, context: &Context) -> Result<Preprocess> {
        let input = backbone.input();
        let name = match &self.preprocess {
            Some(name) => name,
            None => {
                let fitting = input.suggest().ok_or_else(|| {
                    Error::new(ErrorKind::Missing, format!("an input of {input}"))
                        .file(&self.model)
                        .tensor("preprocessing")
                        .expected(format!("{}, or a preprocessor_config.json", Preprocess::PRESETS.join(", ")))
                        .fix("say what the network was trained with: --preprocess NAME")
                })?;
                context.note(format_args!(
                    "Preprocessing as for {fitting}, by the size of the input; --preprocess names another."
                ));
                fitting
            }
        };
        input.adapt(name.parse()?)
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()))
}
