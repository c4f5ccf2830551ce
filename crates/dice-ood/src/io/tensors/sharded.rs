//! Tensors of one network in several files, with an index that says which is where.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::Deserialize;

use crate::error::{Error, ErrorKind, Missing, Result};
use crate::io::files;
use crate::io::format::Format;
use crate::io::tensors::info::TensorInfo;
use crate::io::tensors::open_tensors;
use crate::io::tensors::rows::{TensorFile, TensorRows};

/// What names of indices end with: `model.safetensors.index.json`, `pytorch_model.bin.index.json`.
const INDEX: &str = ".index.json";

/// Whether `path` is called as an index is.
pub(crate) fn is_index(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(INDEX))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files of an index that were opened.
struct Sharded {
    shards: Vec<Box<dyn TensorFile>>,
    tensors: Vec<TensorInfo>,
    /// The shard of each tensor.
    homes: Vec<usize>,
}

/// The tensors of the files that the index `path` names; only of those files that hold a tensor of a `wanted` name, where one does.
pub(crate) fn open(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Box<dyn TensorFile>> {
    let text = files::read_to_string(path)?;
    let index: Index = serde_json::from_str(&text).map_err(|error| {
        Error::new(ErrorKind::Malformed, error.to_string())
            .file(path.display())
            .expected("an index of shards: JSON with a `weight_map` from tensors to files")
            .because(error)
    })?;
    let of = |keep: &dyn Fn(&str) -> bool| -> BTreeSet<&str> {
        index.weight_map.iter().filter(|(name, _)| keep(name)).map(|(_, file)| file.as_str()).collect()
    };
    let mut names = of(&wanted);
    if names.is_empty() {
        names = of(&|_| true);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut opened = Sharded { shards: Vec::new(), tensors: Vec::new(), homes: Vec::new() };
    for name in names {
        let shard = open_shard(folder, name).map_err(|error| error.file(path.display()))?;
        // A file may hold more than its index says it does; what the index gives to another file counts there.
        let own =
            shard.tensors().iter().filter(|tensor| index.weight_map.get(&tensor.name).is_some_and(|home| home == name));
        opened.tensors.extend(own.cloned());
        opened.shards.push(shard);
        opened.homes.resize(opened.tensors.len(), opened.shards.len() - 1);
    }
    Ok(Box::new(opened))
}

fn open_shard(folder: &Path, name: &str) -> Result<Box<dyn TensorFile>> {
    let mut parts = Path::new(name).components();
    let (Some(Component::Normal(_)), None) = (parts.next(), parts.next()) else {
        return Err(Error::new(ErrorKind::Malformed, format!("a shard `{name}`"))
            .expected("names of files in the folder of the index"));
    };
    let path = folder.join(name);
    if !path.exists() {
        return Err(Error::lacking(Missing::Tensor, format!("no file `{name}`"))
            .expected("every shard that holds a layer called as heads are, in the folder of the index")
            .fix("download the shard, or give another file that holds the head"));
    }
    open_tensors(&path, Format::of_file(&path)?)
}

impl TensorFile for Sharded {
    fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    fn open_flat(&self, tensor: &TensorInfo) -> Result<TensorRows> {
        self.shards[self.homes[self.place(tensor)]].open_flat(tensor)
    }
}
