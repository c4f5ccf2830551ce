//! Folders as Hugging Face and timm save networks: weights, and a `config.json` that says what the head is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Chosen, HEAD_NAMES, bare, extents, layer};
use crate::error::{Error, ErrorKind, Missing, Result};
use crate::io::files;
use crate::io::format::Format;
use crate::io::tensors::choose::listed;
use crate::io::tensors::info::TensorInfo;
use crate::io::tensors::rows::TensorFile;
use crate::io::tensors::{open_tensors, sharded};

/// Files of weights, in the order in which they are looked for.
const WEIGHTS: [&str; 4] =
    ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"];

/// What the last layer of a classifier of transformers is called.
const LAYERS: [&str; 9] = [
    "classifier",
    "classifier.1",
    "classifier.out_proj",
    "classification_head.out_proj",
    "score",
    "head",
    "fc",
    "logits_proj",
    "classifier.fc",
];

/// Bytes that a `config.json` may have: one with 21,841 names of classes has a million.
const LARGEST_CONFIG: usize = 1 << 24;

/// Kinds of networks that apply tanh between a dense layer and the head.
const TANH: [&str; 22] = [
    "albert",
    "bart",
    "bert",
    "camembert",
    "canine",
    "data2vec-text",
    "ernie",
    "esm",
    "fnet",
    "ibert",
    "layoutlm",
    "layoutlmv3",
    "longformer",
    "luke",
    "mbart",
    "megatron-bert",
    "mpnet",
    "rembert",
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xlnet",
];

/// A folder of a network.
pub(super) struct Pretrained {
    /// The file of weights, or their index.
    weights: PathBuf,
    config: Config,
    /// Names of the classes, where the folder gives one to each.
    pub(super) classes: Vec<String>,
}

/// What of `config.json` concerns the head.
#[derive(Deserialize, Default)]
struct Config {
    model_type: Option<String>,
    num_labels: Option<usize>,
    id2label: Option<BTreeMap<String, String>>,
    // As timm writes it:
    num_classes: Option<usize>,
    label_names: Option<Vec<String>>,
    pretrained_cfg: Option<TimmConfig>,
}

#[derive(Deserialize, Default)]
struct TimmConfig {
    classifier: Option<Layers>,
    num_classes: Option<usize>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Layers {
    One(String),
    Several(Vec<String>),
}

impl Pretrained {
    /// The folder `path`, or that of the index `path`.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (folder, weights) = match path.is_dir() {
            true => (path, weights_in(path)?),
            false => (path.parent().unwrap_or(Path::new("")), path.to_path_buf()),
        };
        let config = Config::read(&folder.join("config.json"))?;
        let classes = config.names();
        Ok(Self { weights, config, classes })
    }

    /// The tensors of the weights; of several files only those that hold a layer of `name`, or one called as heads are.
    pub(super) fn tensors(&self, name: Option<&str>) -> Result<Box<dyn TensorFile>> {
        let asked = name.map(|name| name.split(',').collect::<Vec<_>>());
        open_weights(&self.weights, |tensor| match &asked {
            Some(names) => names.iter().any(|name| tensor == *name || layer_of(tensor) == *name),
            None => self.layers().iter().any(|layer| *layer == bare(layer_of(tensor))),
        })
    }

    /// What the head may be called.
    fn layers(&self) -> Vec<&str> {
        let named = self.config.classifier();
        if named.is_empty() { LAYERS.into_iter().chain(HEAD_NAMES).collect() } else { named }
    }

    /// The weight of the head by what the folder says; none where it says nothing, and names do not tell either.
    pub(super) fn find<'a>(
        &self,
        tensors: &'a [TensorInfo],
        units: Option<usize>,
    ) -> Result<Option<(&'a TensorInfo, Chosen)>> {
        let of_layer = |layer: &str| {
            let is = |tensor: &&TensorInfo| self::layer(&tensor.name).is_some_and(|name| bare(name) == layer);
            tensors.iter().filter(is).find(|tensor| tensor.dtype.is_float() && tensor.matrix().is_some())
        };
        let timm = self.config.classifier();
        if let [only] = timm[..] {
            let found = of_layer(only).ok_or_else(|| {
                Error::lacking(Missing::Head, listed(tensors))
                    .tensor(only)
                    .expected(format!("a weight `{only}.weight` [C, D], as `classifier` of config.json says"))
            })?;
            return Ok(Some((found, Chosen::ByConfig)));
        }
        let two: Vec<&TensorInfo> =
            timm.into_iter().chain(["cls_classifier", "distillation_classifier"]).filter_map(of_layer).collect();
        if let [first, second, ..] = two[..] {
            return Err(distilled(first, second));
        }
        let named: Vec<&TensorInfo> = LAYERS.into_iter().filter_map(of_layer).collect();
        let classes = self.config.count();
        let counted = |tensor: &&&TensorInfo| classes.is_none_or(|count| extents(tensor).0 == count);
        let wide = |tensor: &&&TensorInfo| units.is_none_or(|units| extents(tensor).1 == units);
        let candidates: Vec<&TensorInfo> = named.iter().filter(counted).copied().collect();
        if let (true, Some(first), Some(count)) = (candidates.is_empty(), named.first(), classes) {
            return Err(Error::new(ErrorKind::Shape, format!("`{}` {first}", first.name))
                .tensor("head")
                .expected(format!("[{count}, D]: config.json names {count} classes"))
                .fix("is the file of weights that of this config.json? Name the layer to take it anyway: DIR#LAYER"));
        }
        let fitting: Vec<&TensorInfo> = candidates.iter().filter(wide).copied().collect();
        match if fitting.is_empty() { &candidates[..] } else { &fitting[..] } {
            [] => Ok(None),
            [only] => Ok(Some((only, Chosen::ByConfig))),
            several => Err(super::ambiguous(several)),
        }
    }

    /// What to know of the features that enter the layer `weight`.
    pub(super) fn note(&self, weight: &str, tensors: &[TensorInfo]) -> Option<String> {
        let kind = self.config.model_type.as_deref().filter(|kind| TANH.contains(kind))?;
        let dense = |tensor: &&TensorInfo| {
            ["pooler.dense.weight", "pooler.weight", "summary.weight"].iter().any(|end| tensor.name.ends_with(end))
                || (weight.ends_with("out_proj.weight")
                    && tensor.name == weight.replace("out_proj.weight", "dense.weight"))
        };
        let dense = tensors.iter().find(dense)?;
        Some(format!(
            "The features that enter `{weight}` of {kind} are tanh of what `{}` gives, within -1 and 1: give what the head reads, \
             not what the dense layer does. They can be negative.",
            dense.name
        ))
    }
}

/// All tensors of a folder.
pub(super) fn tensors_of(folder: &Path) -> Result<Vec<TensorInfo>> {
    let read = || open_weights(&weights_in(folder)?, |_| true);
    let opened = read().map_err(|error| error.file(folder.display()))?;
    Ok(opened.tensors().to_vec())
}

/// The tensors of a file of weights; of an index only those of files with a tensor of a `wanted` name, where there is one.
fn open_weights(weights: &Path, wanted: impl Fn(&str) -> bool) -> Result<Box<dyn TensorFile>> {
    match sharded::is_index(weights) {
        true => sharded::open(weights, wanted),
        false => open_tensors(weights, Format::of_file(weights)?),
    }
}

/// The name of the layer that a tensor belongs to.
fn layer_of(tensor: &str) -> &str {
    tensor.rsplit_once('.').map_or(tensor, |(layer, _)| layer)
}

fn weights_in(folder: &Path) -> Result<PathBuf> {
    if let Some(found) = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(found);
    }
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io(folder, error))?;
    let is_weights = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_weights).collect();
    found.sort();
    match &found[..] {
        [only] => Ok(only.clone()),
        [] => Err(Error::lacking(Missing::Head, "a directory without weights")
            .expected(format!("a folder of a network, with {}", WEIGHTS.join(", ")))
            .fix("name the file of weights")),
        _ => Err(Error::new(ErrorKind::Ambiguous, format!("a directory with {} files of weights", found.len()))
            .expected(format!("one of {}", WEIGHTS.join(", ")))
            .fix("name the file of weights")),
    }
}

/// The head of a distilled network, which averages what two layers say. Of one vector or of two tokens, its weights do not tell; its graph does.
fn distilled(first: &TensorInfo, second: &TensorInfo) -> Error {
    Error::new(ErrorKind::Ambiguous, format!("`{}` {first} and `{}` {second}", first.name, second.name))
        .tensor("head")
        .expected("one linear layer: this network averages what two layers say, of two tokens or of one vector")
        .fix(format!(
            "give the network as ONNX, whose two heads are taken as one; or name the one whose features you give: DIR#{}",
            first.name.trim_end_matches(".weight")
        ))
}

impl Config {
    fn read(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Ok(Self::default());
        }
        let malformed = |found: String| {
            Error::new(ErrorKind::Malformed, found)
                .file(path.display())
                .expected("the config.json of a network, as transformers or timm writes it")
        };
        let text = files::read(path)?;
        if text.len() > LARGEST_CONFIG {
            return Err(malformed(format!("{} bytes", text.len())));
        }
        serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()).because(error))
    }

    /// The names of timm's head; more than one where it is distilled.
    fn classifier(&self) -> Vec<&str> {
        match self.pretrained_cfg.as_ref().and_then(|timm| timm.classifier.as_ref()) {
            Some(Layers::One(name)) => vec![name],
            Some(Layers::Several(names)) => names.iter().map(String::as_str).collect(),
            None => Vec::new(),
        }
    }

    /// How many classes there are, where the file says so.
    fn count(&self) -> Option<usize> {
        let timm = || self.pretrained_cfg.as_ref().and_then(|timm| timm.num_classes);
        let named = self.id2label.as_ref().map(BTreeMap::len);
        self.num_labels.or(named).or(self.num_classes).or_else(timm).filter(|count| *count > 0)
    }

    /// The names of the classes in order, where each class has one that says more than its number.
    fn names(&self) -> Vec<String> {
        let of_label = |names: &BTreeMap<String, String>| -> Option<Vec<String>> {
            (0..names.len()).map(|class| names.get(&class.to_string()).cloned()).collect()
        };
        let named = self.id2label.as_ref().and_then(of_label).or_else(|| self.label_names.clone()).unwrap_or_default();
        let plain = |(class, name): (usize, &String)| *name == format!("LABEL_{class}");
        if named.iter().enumerate().all(plain) { Vec::new() } else { named }
    }
}
