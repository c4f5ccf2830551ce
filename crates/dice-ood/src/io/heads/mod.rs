//! Finding the linear head among the tensors of a file, or in the folder of a network.

mod pretrained;

use std::fmt;
use std::path::Path;

use crate::error::{Error, ErrorKind, Missing, Result};
use crate::head::LinearHead;
use crate::io::format::Format;
use crate::io::location::Location;
use crate::io::tensors::choose::listed;
use crate::io::tensors::info::TensorInfo;
use crate::io::tensors::rows::TensorFile;
use crate::io::tensors::{open_tensors, sharded};
use pretrained::Pretrained;

/// What heads are called; the last components before `.weight`.
const HEAD_NAMES: [&str; 11] = [
    "fc",
    "classifier",
    "head",
    "linear",
    "last_linear",
    "logits",
    "output",
    "out",
    "heads.head",
    "head.fc",
    "classifier.fc",
];

/// A linear head, and which tensors of the file it was read from.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundHead {
    /// The head.
    pub head: LinearHead,
    /// The tensor taken as the weight `[C, D]`.
    pub weight: TensorInfo,
    /// The tensor taken as the bias `[C]`; none where the layer has none, which counts as zero.
    pub bias: Option<TensorInfo>,
    /// Why that weight was taken.
    pub chosen: Chosen,
    /// Names of the classes `[C]`, where the folder of a network has them; else empty.
    pub classes: Vec<String>,
    /// What to know of the features that enter it.
    pub note: Option<String>,
}

/// Why a weight was taken as the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// It was asked for by name.
    Asked,
    /// It is the only weight matrix of the file.
    Only,
    /// Of several weight matrices it is the only one as wide as the features.
    ByWidth,
    /// Of several weight matrices that can be, it is the one called as heads are.
    ByName,
    /// It is the last of a numbered classifier.
    LastOfStack,
    /// The `config.json` of its folder says so.
    ByConfig,
}

impl fmt::Display for FoundHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}", self.weight.name, self.weight)?;
        match &self.bias {
            Some(bias) => write!(f, " with `{}`", bias.name)?,
            None => f.write_str(" without a bias")?,
        }
        f.write_str(match self.chosen {
            Chosen::Asked => "",
            Chosen::Only => ", the only weight matrix",
            Chosen::ByWidth => ", the only weight matrix of that width",
            Chosen::ByName => ", chosen by its name",
            Chosen::LastOfStack => ", the last of its numbered layers",
            Chosen::ByConfig => ", as its folder says",
        })
    }
}

/// Finds the linear head of a safetensors, npz or PyTorch file, or of a folder, and says which tensors it is.
///
/// A folder is one that transformers or timm saved: `config.json` beside `model.safetensors`, `pytorch_model.bin`, or the index of
/// their shards, of which only those are opened that the head can be in. In it the head is what timm's `classifier` names, or
/// the layer of a classifier's usual name with as many classes as `num_labels` or `id2label` has; two heads of one distilled
/// network, and several layers that could be it, are refused with their names.
///
/// Without a name (`FILE#fc`, or `FILE#WEIGHT,BIAS` for names of no pattern) the head is the tensor named like one
/// (`fc.weight`, `classifier.weight`, ...), the last of a numbered classifier (`classifier.6.weight`), or the only weight
/// matrix. `units` (D of the features), where known, rules out candidates of another width. A matrix that the file
/// itself shows to be no last layer is refused. A head without bias has bias zero.
///
/// # Errors
/// Those of reading; [`ErrorKind::Missing`] and [`ErrorKind::Ambiguous`] list the candidates.
pub fn find_head(file: impl Into<Location>, units: Option<usize>) -> Result<FoundHead> {
    let file = file.into();
    let name = file.name.as_deref();
    let read = || {
        if file.path.is_dir() || sharded::is_index(&file.path) {
            let folder = Pretrained::open(&file.path)?;
            let tensors = folder.tensors(name)?;
            return read_from(&*tensors, name, units, Some(&folder));
        }
        let tensors = open_tensors(&file.path, Format::of_file(&file.path)?)?;
        read_from(&*tensors, name, units, None)
    };
    read().map_err(|error| error.file(&file))
}

/// The head that [`find_head`] finds.
///
/// # Errors
/// As [`find_head`].
pub fn read_head(file: impl Into<Location>, units: Option<usize>) -> Result<LinearHead> {
    find_head(file, units).map(|found| found.head)
}

/// The format of a file or of the folder of a network, and the tensors in it; a table has none.
///
/// # Errors
/// Those of opening the file.
pub fn list(path: impl AsRef<Path>) -> Result<(Format, Vec<TensorInfo>)> {
    let path = path.as_ref();
    if sharded::is_index(path) {
        return Ok((Format::Index, sharded::open(path, |_| true)?.tensors().to_vec()));
    }
    if path.is_dir() {
        return Ok((Format::Folder, pretrained::tensors_of(path)?));
    }
    let format = Format::of_file(path)?;
    let tensors = match format {
        Format::Csv => Vec::new(),
        #[cfg(feature = "columns")]
        Format::Parquet | Format::ArrowIpc => Vec::new(),
        format => open_tensors(path, format)?.tensors().to_vec(),
    };
    Ok((format, tensors))
}

fn read_from(
    file: &dyn TensorFile,
    name: Option<&str>,
    units: Option<usize>,
    folder: Option<&Pretrained>,
) -> Result<FoundHead> {
    let tensors = file.tensors();
    let (name, bias_name) = match name.and_then(|name| name.split_once(',')) {
        Some((weight, bias)) => (Some(weight), Some(bias)),
        None => (name, None),
    };
    let by_folder = match (name, folder) {
        (None, Some(folder)) => folder.find(tensors, units)?,
        _ => None,
    };
    let (weight, chosen) = by_folder.map_or_else(|| find(tensors, name, units), Ok)?;
    let (classes, width) = weight.matrix().ok_or_else(|| {
        Error::new(ErrorKind::Shape, weight.to_string()).tensor(&weight.name).expected("a matrix [C, D]")
    })?;
    let values = file.open(weight)?.all_f32().map_err(|error| error.tensor(&weight.name))?;
    let bias = match bias_name {
        Some(name) => Some(named(tensors, name)?),
        None => bias_of(tensors, &weight.name)?,
    };
    let offsets = match bias {
        Some(bias) => file.open(bias)?.all_f32().map_err(|error| error.tensor(&bias.name))?,
        None => vec![0.0; classes],
    };
    if offsets.len() != classes {
        let fix = if offsets.len() == width {
            "the weight is stored as [D, C]: transpose it"
        } else {
            "weight and bias are of different layers"
        };
        return Err(Error::new(ErrorKind::Shape, format!("bias [{}]", offsets.len()))
            .tensor(&weight.name)
            .expected(format!("bias [{classes}] for a weight [{classes}, {width}]"))
            .fix(fix));
    }
    let head = LinearHead::from_rows(values, offsets, width)?;
    let names = folder.map(|folder| folder.classes.clone()).filter(|names| names.len() == classes);
    Ok(FoundHead {
        head,
        weight: weight.clone(),
        bias: bias.cloned(),
        chosen,
        classes: names.unwrap_or_default(),
        note: folder.and_then(|folder| folder.note(&weight.name, tensors)),
    })
}

fn find<'a>(tensors: &'a [TensorInfo], name: Option<&str>, units: Option<usize>) -> Result<(&'a TensorInfo, Chosen)> {
    if let Some(name) = name {
        return asked_for(tensors, name).map(|tensor| (tensor, Chosen::Asked));
    }
    // Only what is called a weight: the parts of a weight-normalised layer, say, are matrices too.
    let is_weight = |name: &str| matches!(name, "weight" | "W" | "w") || name.ends_with(".weight");
    let all: Vec<&TensorInfo> = tensors
        .iter()
        .filter(|tensor| tensor.dtype.is_float() && tensor.matrix().is_some() && is_weight(&tensor.name))
        .collect();
    if all.is_empty() {
        return Err(Error::lacking(Missing::Head, listed(tensors))
            .tensor("head")
            .expected("a weight matrix [C, D] named weight, W or LAYER.weight, such as `fc.weight`")
            .fix("name it: FILE#TENSOR (fold weight normalisation into the weight first)"));
    }
    // Width decides only among several: a single candidate of the wrong width is reported as such by the fit.
    let fits = |tensor: &&&TensorInfo| units.is_none_or(|units| extents(tensor).1 == units);
    let mut candidates: Vec<&TensorInfo> = all.iter().filter(fits).copied().collect();
    if candidates.is_empty() {
        candidates.clone_from(&all);
    }
    let (tensor, chosen) = match candidates[..] {
        [only] if all.len() == 1 => (only, Chosen::Only),
        [only] => (only, Chosen::ByWidth),
        _ => called_a_head(&candidates)
            .map(|tensor| (tensor, Chosen::ByName))
            .or_else(|| last_of_a_classifier(&candidates).map(|tensor| (tensor, Chosen::LastOfStack)))
            .ok_or_else(|| ambiguous(&candidates))?,
    };
    refuse_an_inner_layer(tensor, &all)?;
    Ok((tensor, chosen))
}

fn asked_for<'a>(tensors: &'a [TensorInfo], name: &str) -> Result<&'a TensorInfo> {
    let with_suffix = format!("{name}.weight");
    tensors.iter().find(|tensor| tensor.name == name || tensor.name == with_suffix).ok_or_else(|| {
        Error::lacking(Missing::Head, listed(tensors))
            .tensor(name)
            .expected(format!("a tensor `{name}` or `{with_suffix}`"))
    })
}

/// The shape [C, D] of a candidate.
fn extents(tensor: &TensorInfo) -> (usize, usize) {
    tensor.matrix().unwrap_or_default()
}

/// The candidate that is called as heads are, by fewer layers around it than any other so called.
fn called_a_head<'a>(candidates: &[&'a TensorInfo]) -> Option<&'a TensorInfo> {
    let named = candidates.iter().filter_map(|tensor| Some((head_depth(layer(&tensor.name)?)?, *tensor)));
    let named: Vec<(usize, &TensorInfo)> = named.collect();
    let least = named.iter().map(|(depth, _)| *depth).min()?;
    let mut shallowest = named.iter().filter(|(depth, _)| *depth == least);
    let (Some((_, only)), None) = (shallowest.next(), shallowest.next()) else { return None };
    // A second copy of the same layer, as checkpoints keep averaged weights: the file does not say which of the two is meant.
    let copied = |other: &TensorInfo| {
        let ends = |long: &str, short: &str| long.strip_suffix(short).is_some_and(|before| before.ends_with('.'));
        other.name != only.name && other.shape == only.shape && ends(&other.name, bare(&only.name))
    };
    (!candidates.iter().any(|other| copied(other))).then_some(*only)
}

/// The last linear layer of the one numbered classifier among the candidates.
fn last_of_a_classifier<'a>(candidates: &[&'a TensorInfo]) -> Option<&'a TensorInfo> {
    let numbered = candidates.iter().filter_map(|tensor| {
        let (stem, number) = place_in_stack(&tensor.name)?;
        head_depth(stem).map(|_| (stem, number, *tensor))
    });
    let numbered: Vec<(&str, u32, &TensorInfo)> = numbered.collect();
    let (stem, _, last) = numbered.iter().max_by_key(|(_, number, _)| *number)?;
    numbered.iter().all(|(other, _, _)| other == stem).then_some(*last)
}

/// Refuses a layer that the file shows not to be the last one.
fn refuse_an_inner_layer(chosen: &TensorInfo, all: &[&TensorInfo]) -> Result<()> {
    let refused = |found: String, after: &TensorInfo| {
        Err(Error::new(ErrorKind::Ambiguous, found)
            .tensor("head")
            .expected("the last linear layer")
            .fix(format!("give the features that enter `{}`, or name the layer: FILE#LAYER", after.name)))
    };
    let others = || all.iter().filter(|other| other.name != chosen.name);
    if let Some((stem, number)) = place_in_stack(&chosen.name) {
        let later = |other: &&&TensorInfo| place_in_stack(&other.name).is_some_and(|(s, n)| s == stem && n > number);
        if let Some(later) = others().find(later) {
            return refused(format!("`{}`, which `{}` {later} follows", chosen.name, later.name), later);
        }
    }
    let depth = |name: &str| layer(name).and_then(head_depth);
    if depth(&chosen.name).is_some() || layer(&chosen.name).is_none() {
        return Ok(());
    }
    let around = bare(&chosen.name).split('.').count();
    if let Some(rival) = others().find(|other| depth(&other.name).is_some_and(|depth| depth + 2 <= around)) {
        return refused(
            format!("`{}` {chosen}, where `{}` {rival} is called as heads are", chosen.name, rival.name),
            rival,
        );
    }
    if let Some(fed) = others().find(|other| extents(other).1 == extents(chosen).0) {
        return refused(format!("`{}` {chosen}, whose outputs `{}` {fed} can take in", chosen.name, fed.name), fed);
    }
    Ok(())
}

/// `classifier.6` is number 6 of `classifier`, `fc2` number 2 of `fc`.
fn place_in_stack(name: &str) -> Option<(&str, u32)> {
    let layer = layer(name)?;
    let stem = layer.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = layer[stem.len()..].parse().ok()?;
    Some((stem.strip_suffix('.').unwrap_or(stem), number))
}

fn ambiguous(candidates: &[&TensorInfo]) -> Error {
    let candidates: Vec<TensorInfo> = candidates.iter().map(|tensor| (*tensor).clone()).collect();
    Error::new(ErrorKind::Ambiguous, listed(&candidates))
        .tensor("head")
        .expected("one weight matrix that is the last linear layer")
        .fix("name it: FILE#LAYER, for instance FILE#classifier.6")
}

/// `fc` of `module.fc.weight` is `module.fc`; `W` and `weight` have no layer.
fn layer(name: &str) -> Option<&str> {
    name.strip_suffix(".weight")
}

/// How many layers lie around `layer`, where it is called as heads are: 0 for `fc` and `module.head.fc`, 1 for `aux.fc`.
fn head_depth(layer: &str) -> Option<usize> {
    let layer = bare(layer);
    let around = HEAD_NAMES.iter().filter_map(|known| layer.strip_suffix(known));
    around.filter(|before| before.is_empty() || before.ends_with('.')).map(|before| before.matches('.').count()).min()
}

/// The name without what training frameworks put before all names of a network.
fn bare(mut name: &str) -> &str {
    const WRAPPERS: [&str; 6] = ["state_dict.", "model_state_dict.", "module.", "model.", "net.", "network."];
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| name.strip_prefix(wrapper)) {
        name = rest;
    }
    name
}

/// The bias that the user named.
fn named<'a>(tensors: &'a [TensorInfo], name: &str) -> Result<&'a TensorInfo> {
    tensors
        .iter()
        .find(|tensor| tensor.name == name && tensor.is_vector())
        .ok_or_else(|| Error::lacking(Missing::Head, listed(tensors)).tensor(name).expected("a bias [C] of that name"))
}

/// The bias that belongs to a weight by name; `None` where there is none.
fn bias_of<'a>(tensors: &'a [TensorInfo], weight: &str) -> Result<Option<&'a TensorInfo>> {
    let name = match (weight, weight.strip_suffix("weight")) {
        ("W" | "w", _) => "b".to_owned(),
        (_, Some(stem)) => format!("{stem}bias"),
        (_, None) => return Ok(None),
    };
    match tensors.iter().find(|tensor| tensor.name == name) {
        Some(bias) if !bias.is_vector() => {
            Err(Error::new(ErrorKind::Shape, bias.to_string()).tensor(name).expected("a bias [C]"))
        }
        found => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::tensors::info::DType;

    fn tensors(listed: &[(&str, &[usize])]) -> Vec<TensorInfo> {
        listed
            .iter()
            .map(|(name, shape)| TensorInfo { name: (*name).into(), dtype: DType::F32, shape: shape.to_vec() })
            .collect()
    }

    fn found(listed: &[(&str, &[usize])], units: Option<usize>) -> Result<String> {
        find(&tensors(listed), None, units).map(|(tensor, _)| tensor.name.clone())
    }

    #[test]
    fn heads_are_found_by_name_width_or_uniqueness() {
        let resnet: &[(&str, &[usize])] =
            &[("conv1.weight", &[64, 3, 7, 7]), ("bn1.weight", &[64]), ("state_dict.module.fc.weight", &[10, 64])];
        assert_eq!(found(resnet, None).unwrap(), "state_dict.module.fc.weight");
        let vgg: &[(&str, &[usize])] = &[
            ("classifier.0.weight", &[4096, 25088]),
            ("classifier.3.weight", &[4096, 4096]),
            ("classifier.6.weight", &[1000, 4096]),
        ];
        assert_eq!(found(vgg, None).unwrap(), "classifier.6.weight");
        let vit: &[(&str, &[usize])] = &[
            ("blocks.0.mlp.fc.weight", &[3072, 768]),
            ("blocks.1.mlp.fc.weight", &[3072, 768]),
            ("x.weight", &[5, 9]),
        ];
        assert_eq!(found(vit, None).unwrap_err().kind(), ErrorKind::Ambiguous);
        assert_eq!(found(vit, Some(9)).unwrap(), "x.weight");
        let convolution: &[(&str, &[usize])] = &[("c.weight", &[64, 3, 3, 3]), ("classifier.weight", &[10, 64, 1, 1])];
        assert_eq!(found(convolution, None).unwrap(), "classifier.weight");
        assert_eq!(found(&[("bn.weight", &[64])], None).unwrap_err().kind(), ErrorKind::Missing);
        let named = tensors(&[("fc.bias", &[10]), ("x.bias", &[4, 4])]);
        assert_eq!(bias_of(&named, "fc.weight").unwrap().unwrap().name, "fc.bias");
        assert_eq!(bias_of(&named, "head.weight").unwrap(), None);
        assert!(bias_of(&named, "x.weight").is_err());
        let stack: &[(&str, &[usize])] = &[("fc.0.weight", &[16, 8]), ("fc.2.weight", &[4, 16])];
        assert_eq!(found(stack, Some(8)).unwrap_err().kind(), ErrorKind::Ambiguous);
        let normalised: &[(&str, &[usize])] =
            &[("fc.parametrizations.weight.original0", &[4, 1]), ("fc.parametrizations.weight.original1", &[4, 8])];
        assert_eq!(found(normalised, Some(8)).unwrap_err().kind(), ErrorKind::Missing);
    }

    /// Every file here has a matrix as wide as the features that is not the head.
    #[test]
    fn a_matching_layer_that_is_not_the_head_is_not_taken() {
        type Listed<'a> = &'a [(&'a str, &'a [usize])];
        let refused: [(&str, Listed<'_>); 7] = [
            ("two called as heads are", &[("fc.weight", &[64, 64]), ("classifier.weight", &[10, 64])]),
            ("averaged weights beside them", &[("state_dict.fc.weight", &[10, 64]), ("ema.fc.weight", &[10, 64])]),
            ("student and teacher", &[("student.fc.weight", &[10, 64]), ("teacher.fc.weight", &[10, 64])]),
            ("numbers without a dot", &[("fc1.weight", &[32, 64]), ("fc2.weight", &[10, 32])]),
            ("a head of another width", &[("hidden.weight", &[32, 64]), ("classifier.weight", &[10, 48])]),
            ("one layer feeds the other", &[("a.weight", &[32, 64]), ("b.weight", &[10, 32])]),
            ("two stacks", &[("a.fc.0.weight", &[9, 64]), ("b.fc.2.weight", &[9, 64])]),
        ];
        for (what, listed) in refused {
            let error = found(listed, Some(64)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Ambiguous, "{what}: {error}");
        }
        let taken: [(&str, Listed<'_>); 4] = [
            ("fc.weight", &[("aux.fc.weight", &[10, 64]), ("fc.weight", &[5, 64])]),
            ("model.head.fc.weight", &[("blocks.0.mlp.fc.weight", &[256, 64]), ("model.head.fc.weight", &[10, 64])]),
            ("fc.weight", &[("fc.weight", &[10, 64]), ("proj.weight", &[64, 64]), ("b.weight", &[7, 10])]),
            ("fc2.weight", &[("fc1.weight", &[64, 128]), ("fc2.weight", &[10, 64])]),
        ];
        for (name, listed) in taken {
            assert_eq!(found(listed, Some(64)).unwrap(), name);
        }
    }
}
