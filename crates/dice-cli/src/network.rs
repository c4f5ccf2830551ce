//! Images through a network: what `features`, `fit`, `score`, `eval` and `export` share.

use std::path::Path;

use dice_onnx::{Backbone, Broken, FoundHead, HeadOptions, ImageSet, ImageSource, Model, Origin, Preprocess, Runtime};
use dice_ood::io::{FeaturesWriter, Location};
use dice_ood::{Artifact, Block, Error, ErrorKind, FeatureSource, LinearHead, Result, for_each_block};

use crate::Context;
use crate::data::Progress;
use crate::report::count;

/// What a network is told once, when features are first computed; detectors record it.
#[derive(clap::Args, Default)]
pub(crate) struct Choices {
    /// How images become inputs: imagenet, cifar10, mnist, or a preprocessor_config.json of Hugging Face; with settings after
    /// it, as in imagenet,resize=232,filter=bicubic, or settings alone.
    ///
    /// Settings: resize=keep|N|HxW, crop=none|N|HxW, filter=nearest|bilinear|bicubic|lanczos, channels=rgb|bgr|grey,
    /// scale=1/255, mean=R/G/B, std=R/G/B. By default the one of the presets whose size fits the model, which is said.
    #[arg(long, value_name = "NAME|FILE|SETTINGS", requires = "model")]
    pub(crate) preprocess: Option<String>,
    /// The tensor of the model to take as features, where it is not what the head reads.
    #[arg(long, value_name = "TENSOR", requires = "model")]
    pub(crate) tensor: Option<String>,
}

/// How images are run, each time.
#[derive(clap::Args, Default)]
pub(crate) struct Running {
    /// What runs the network: built-in, or onnxruntime=PATH for an ONNX Runtime that you have, often several times as fast.
    ///
    /// PATH is its library (libonnxruntime.so, onnxruntime.dll, libonnxruntime.dylib) of version 1.21 or newer, or a folder
    /// that holds it, such as that of the Python package onnxruntime.
    #[arg(
        long,
        default_value_t,
        value_name = "built-in|onnxruntime=PATH",
        hide_default_value = true,
        requires = "model"
    )]
    pub(crate) runtime: Runtime,
    /// What to do with an image that cannot be decoded: skip leaves it out, and says how many and which first.
    #[arg(long, default_value = "fail", requires = "model")]
    pub(crate) broken: OnBroken,
}

#[derive(Clone, Copy, PartialEq, Default, clap::ValueEnum)]
pub(crate) enum OnBroken {
    #[default]
    Fail,
    Skip,
}

/// A network that is ready to make features of images, and where they will come from.
pub(crate) struct Network {
    backbone: Backbone,
    found: FoundHead,
    origin: Origin,
    broken: Broken,
}

impl Network {
    /// The network `MODEL.onnx` or `MODEL.onnx#NODE`, its head found and its preprocessing chosen, which is said.
    pub(crate) fn open(file: &str, choices: &Choices, running: &Running, context: &Context) -> Result<Self> {
        let location = Location::parse(file);
        let options = HeadOptions { head: location.name.clone(), features: choices.tensor.clone() };
        let model = Model::open(&location.path)?;
        let found = model.find_head(&options)?;
        let backbone = Backbone::new(&model, &found, &running.runtime)?;
        let preprocess = choices.preprocess(file, &backbone, context)?;
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
        Ok(Self::ready(backbone, found, preprocess, running))
    }

    /// The network that `artifact` was fitted to, from `file`; another one is refused.
    pub(crate) fn of_artifact(
        file: &str,
        artifact: &Artifact,
        path: &Path,
        running: &Running,
        context: &Context,
    ) -> Result<Self> {
        let recorded = origin_of(artifact, path)?.ok_or_else(|| {
            Error::new(ErrorKind::Missing, "a detector that was fitted to features of unknown origin")
                .file(path.display())
                .tensor("model")
                .expected("a record of the model and the preprocessing")
                .fix("fit it with `dice fit --model`, or to features that `dice features` made")
        })?;
        let location = Location::parse(file);
        let model = Model::open(&location.path)?;
        check_fingerprint(&model, &recorded, path)?;
        let found = model.find_head(&recorded.head_options())?;
        let backbone = Backbone::new(&model, &found, &running.runtime)?;
        if found.quantization.is_some() && recorded.runtime != backbone.runtime() {
            context.note(format_args!(
                "Note: fitted with the {} runtime and run with the {} one, which round quantised models differently.",
                recorded.runtime,
                backbone.runtime()
            ));
        }
        let preprocess = backbone.input().adapt(recorded.preprocess)?;
        Ok(Self::ready(backbone, found, preprocess, running))
    }

    fn ready(backbone: Backbone, found: FoundHead, preprocess: Preprocess, running: &Running) -> Self {
        let origin = Origin::new(&backbone, &found, preprocess);
        let broken = if running.broken == OnBroken::Skip { Broken::Skip } else { Broken::Fail };
        Self { backbone, found, origin, broken }
    }

    /// The linear head.
    pub(crate) fn head(&self) -> &LinearHead {
        &self.found.head
    }

    /// What features of this network are recorded with.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The features of `set`.
    pub(crate) fn features<'a>(&'a self, set: &ImageSet, context: &'a Context) -> Result<Box<dyn FeatureSource + 'a>> {
        let source = ImageSource::new(&self.backbone, set.clone(), self.origin.preprocess.clone(), self.broken)?;
        Ok(Box::new(Images { source, context }))
    }

    /// Writes the features of `set`, their labels and ids, the head and where they come from to `output`; how many.
    pub(crate) fn save_features(&self, set: &ImageSet, output: &Path, context: &Context) -> Result<usize> {
        let mut writer = FeaturesWriter::create(output, self.found.units())?;
        let mut source = Progress::new(self.features(set, context)?, None, "images", context);
        for_each_block(&mut source, |block| writer.write(block))?;
        drop(source);
        let rows = writer.rows();
        if rows == 0 {
            return Err(Error::new(ErrorKind::Empty, "none that can be decoded")
                .tensor("images")
                .expected("at least one"));
        }
        let mut notes = self.origin.to_notes()?;
        let classes = serde_json::to_string(set.classes());
        notes.insert("classes".into(), classes.map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()))?);
        writer.finish(Some(&self.found.head), notes)?;
        Ok(rows)
    }
}

impl Choices {
    fn preprocess(&self, file: &str, backbone: &Backbone, context: &Context) -> Result<Preprocess> {
        let input = backbone.input();
        let name = match &self.preprocess {
            Some(name) => name,
            None => {
                let fitting = input.suggest().ok_or_else(|| {
                    Error::new(ErrorKind::Missing, format!("an input of {input}"))
                        .file(file)
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

/// Where the features that `artifact`, read from `path`, was fitted to came from, if that is recorded.
pub(crate) fn origin_of(artifact: &Artifact, path: &Path) -> Result<Option<Origin>> {
    Origin::of_notes(artifact.provenance()).map_err(|error| error.file(path.display()))
}

/// Refuses a model that is not the one `recorded` in `path`.
pub(crate) fn check_fingerprint(model: &Model, recorded: &Origin, path: &Path) -> Result<()> {
    let fingerprint = model.fingerprint()?;
    if fingerprint == recorded.fingerprint {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Argument, format!("another model (sha256 {fingerprint:.12}...)"))
        .file(model.path().display())
        .expected(format!(
            "the one that {} was fitted to: {} (sha256 {:.12}...)",
            path.display(),
            recorded.model,
            recorded.fingerprint
        ))
        .fix("give that very file, or fit a detector to this one"))
}

/// Images whose end says what was left out.
struct Images<'a> {
    source: ImageSource<'a>,
    context: &'a Context,
}

impl FeatureSource for Images<'_> {
    fn units(&self) -> usize {
        self.source.units()
    }

    fn rows(&self) -> Option<u64> {
        self.source.rows()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        self.source.read(block, max_rows)?;
        if let (0, Some((_, error))) = (block.rows(), self.source.skipped().first()) {
            let left_out = self.source.skipped().len();
            self.context.note(format_args!(
                "Left out {} image{} that cannot be decoded, the first: {error}",
                count(left_out),
                if left_out == 1 { "" } else { "s" },
            ));
        }
        Ok(())
    }
}
