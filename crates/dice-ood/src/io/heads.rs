//! Finding the linear head among the tensors of a file.

use super::tensor::{TensorFile, TensorInfo};
use super::{Location, format_of, listed, open_tensors};
use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;

/// What heads are called, in order of preference; the last component before `.weight`.
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

/// Reads the linear head of a safetensors, npz or PyTorch file.
///
/// Without a name (`FILE#fc`, or `FILE#WEIGHT,BIAS` for names of no pattern) the head is the tensor named like one (`fc.weight`, `classifier.weight`, ...), the last
/// of a numbered classifier (`classifier.6.weight`), or the only weight matrix. `units` (D of the features), where
/// known, rules out candidates of another width. A head without bias has bias zero.
///
/// # Errors
/// Those of reading; [`ErrorKind::Missing`] and [`ErrorKind::Ambiguous`] list the candidates.
pub fn read_head(file: &Location, units: Option<usize>) -> Result<LinearHead> {
    let read = || {
        let tensors = open_tensors(&file.path, format_of(&file.path)?)?;
        read_from(&*tensors, file.name.as_deref(), units)
    };
    read().map_err(|error| error.file(file))
}

fn read_from(file: &dyn TensorFile, name: Option<&str>, units: Option<usize>) -> Result<LinearHead> {
    let tensors = file.tensors();
    let (name, bias_name) = match name.and_then(|name| name.split_once(',')) {
        Some((weight, bias)) => (Some(weight), Some(bias)),
        None => (name, None),
    };
    let weight = find(tensors, name, units)?;
    let (classes, width) = weight.matrix().ok_or_else(|| {
        Error::new(ErrorKind::Shape, weight.to_string()).tensor(&weight.name).expected("a matrix [C, D]")
    })?;
    let values = file.open(weight)?.all_f32().map_err(|error| error.tensor(&weight.name))?;
    let bias = match bias_name {
        Some(name) => Some(named(tensors, name)?),
        None => bias_of(tensors, &weight.name)?,
    };
    let bias = match bias {
        Some(bias) => file.open(bias)?.all_f32().map_err(|error| error.tensor(&bias.name))?,
        None => vec![0.0; classes],
    };
    if bias.len() != classes {
        let fix = if bias.len() == width {
            "the weight is stored as [D, C]: transpose it"
        } else {
            "weight and bias are of different layers"
        };
        return Err(Error::new(ErrorKind::Shape, format!("bias [{}]", bias.len()))
            .tensor(&weight.name)
            .expected(format!("bias [{classes}] for a weight [{classes}, {width}]"))
            .fix(fix));
    }
    LinearHead::from_rows(values, bias, width)
}

fn find<'a>(tensors: &'a [TensorInfo], name: Option<&str>, units: Option<usize>) -> Result<&'a TensorInfo> {
    if let Some(name) = name {
        let with_suffix = format!("{name}.weight");
        return tensors.iter().find(|tensor| tensor.name == name || tensor.name == with_suffix).ok_or_else(|| {
            Error::new(ErrorKind::Missing, listed(tensors))
                .tensor(name)
                .expected(format!("a tensor `{name}` or `{with_suffix}`"))
        });
    }
    // Only what is called a weight: the parts of a weight-normalised layer, say, are matrices too.
    let is_weight = |name: &str| matches!(name, "weight" | "W" | "w") || name.ends_with(".weight");
    let mut candidates: Vec<&TensorInfo> = tensors
        .iter()
        .filter(|tensor| tensor.dtype.is_float() && tensor.matrix().is_some() && is_weight(&tensor.name))
        .collect();
    if candidates.is_empty() {
        return Err(Error::new(ErrorKind::Missing, listed(tensors))
            .tensor("head")
            .expected("a weight matrix [C, D] named weight, W or LAYER.weight, such as `fc.weight`")
            .fix("name it: FILE#TENSOR (fold weight normalisation into the weight first)"));
    }
    let all = candidates.clone();
    // Width decides only among several: a single candidate of the wrong width is reported as such by the fit.
    let fitting: Vec<&TensorInfo> = candidates
        .iter()
        .copied()
        .filter(|tensor| units.is_none_or(|units| tensor.matrix().is_some_and(|(_, width)| width == units)))
        .collect();
    if !fitting.is_empty() {
        candidates = fitting;
    }
    if let [only] = candidates[..] {
        return last_of_its_stack(only, &all);
    }
    for known in HEAD_NAMES {
        let mut named =
            candidates.iter().filter(|tensor| layer(&tensor.name).is_some_and(|layer| is_called(layer, known)));
        if let (Some(only), None) = (named.next(), named.next()) {
            return Ok(only);
        }
    }
    // The last linear layer of a sequential classifier.
    let numbered = candidates
        .iter()
        .filter_map(|tensor| {
            let (stem, number) = layer(&tensor.name)?.rsplit_once('.')?;
            let number: u32 = number.parse().ok()?;
            HEAD_NAMES.iter().any(|known| is_called(stem, known)).then_some((number, *tensor))
        })
        .max_by_key(|(number, _)| *number);
    match numbered {
        Some((_, tensor)) => Ok(tensor),
        None => Err(ambiguous(&candidates)),
    }
}

/// Refuses a layer that others of the same numbered stack follow: it is not the last one.
fn last_of_its_stack<'a>(chosen: &'a TensorInfo, all: &[&TensorInfo]) -> Result<&'a TensorInfo> {
    let place = |name: &str| {
        let (stem, number) = layer(name)?.rsplit_once('.')?;
        Some((stem.to_owned(), number.parse::<u32>().ok()?))
    };
    let Some((stem, number)) = place(&chosen.name) else { return Ok(chosen) };
    let later = all.iter().find(|other| place(&other.name).is_some_and(|(s, n)| s == stem && n > number));
    match later {
        None => Ok(chosen),
        Some(later) => {
            Err(Error::new(ErrorKind::Ambiguous, format!("`{}`, which `{}` {later} follows", chosen.name, later.name))
                .tensor("head")
                .expected("the last linear layer")
                .fix(format!("give the features that enter `{}`, or name the layer: FILE#LAYER", later.name)))
        }
    }
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

/// Whether `layer` is `known` or ends in `.known`.
fn is_called(layer: &str, known: &str) -> bool {
    layer.strip_suffix(known).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The bias that the user named.
fn named<'a>(tensors: &'a [TensorInfo], name: &str) -> Result<&'a TensorInfo> {
    tensors
        .iter()
        .find(|tensor| tensor.name == name && tensor.is_vector())
        .ok_or_else(|| Error::new(ErrorKind::Missing, listed(tensors)).tensor(name).expected("a bias [C] of that name"))
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
    use super::super::tensor::DType;
    use super::*;

    fn tensors(listed: &[(&str, &[usize])]) -> Vec<TensorInfo> {
        listed
            .iter()
            .map(|(name, shape)| TensorInfo { name: (*name).into(), dtype: DType::F32, shape: shape.to_vec() })
            .collect()
    }

    fn found(listed: &[(&str, &[usize])], units: Option<usize>) -> Result<String> {
        find(&tensors(listed), None, units).map(|tensor| tensor.name.clone())
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
}
