//! Linear operators with constant weights, in every form that exporters and quantisers write them.

use dice_ood::{Error, ErrorKind, Result};

use crate::model::graph::Graph;
use crate::model::node::{attribute, float, integer, is_standard, named};
use crate::model::proto::NodeProto;
use crate::model::tensor::{Constant, count_of};
use crate::model::weights::{Weights, per_class};
use crate::text::quoted;

/// Stored values stand for `(value - zero_point) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    /// The step between neighbouring values.
    pub scale: f32,
    /// The stored value that stands for zero.
    pub zero_point: i64,
}

/// Which axis of the features tensor holds the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Axis {
    /// `[N, ..., D]`.
    Last,
    /// `[D, N]`.
    First,
    /// `[N, D, H, W]`, the weight applied at each position.
    Channel,
    /// `[N, D0, D1, ...]`, flattened: a convolution as large as its input.
    All,
}

/// A linear operator, its values unread.
#[derive(Debug, Clone)]
pub(crate) struct Linear<'m> {
    /// The operator that multiplies.
    pub(crate) node: usize,
    /// All operators it is made of, in their order.
    pub(crate) parts: Vec<usize>,
    pub(crate) features: &'m str,
    pub(crate) output: &'m str,
    pub(crate) axis: Axis,
    /// How the features tensor stores features, where it is one of integers.
    pub(crate) quantization: Option<Quantization>,
    /// Whether no stored feature stands for less than zero.
    pub(crate) unsigned: bool,
    /// Whether the operator rounds the features before it multiplies.
    pub(crate) rounds: bool,
    /// Whether its output is one of integers, to be dequantised.
    pub(crate) integer_output: bool,
    /// Whether those integers have none for negative logits.
    pub(crate) cuts: bool,
    /// Further tensors that it reads, as a sum of layers may: their vectors follow those of the first.
    pub(crate) further: Vec<&'m str>,
    weight: Weight<'m>,
    classes_first: bool,
    factor: f32,
    weight_scale: Option<&'m str>,
    weight_zero: Option<&'m str>,
    bias: Option<Bias<'m>>,
}

#[derive(Debug, Clone)]
enum Weight<'m> {
    /// That of the operator.
    Stored(&'m str),
    /// Those of the layers that it adds.
    Sum(Vec<Term<'m>>),
}

/// A layer that a sum adds.
#[derive(Debug, Clone)]
pub(crate) struct Term<'m> {
    pub(crate) linear: Linear<'m>,
    /// The operators between it and the sum, in order: scales and shifts.
    pub(crate) between: Vec<usize>,
    /// By what the sum multiplies it.
    pub(crate) share: f32,
    /// The normalisation of its vectors that is taken for a part of it: it then reads what is normalised.
    pub(crate) normalization: Option<usize>,
    /// Which of the sum's tensors it reads.
    pub(crate) reads: usize,
}

impl Term<'_> {
    /// All operators it is made of, in their order.
    fn operators(&self) -> impl Iterator<Item = usize> {
        self.normalization.iter().chain(&self.linear.parts).chain(&self.between).copied()
    }
}

#[derive(Debug, Clone, Copy)]
struct Bias<'m> {
    tensor: &'m str,
    factor: f32,
    /// Whether it is stored in steps of the products of the scales.
    scaled: bool,
}

impl<'m> Linear<'m> {
    /// The linear operator at `place`: `None` where it is none, an error where its weights cannot be a head's.
    pub(crate) fn at(graph: &Graph<'m>, place: usize) -> Result<Option<Self>> {
        let node = &graph.nodes[place];
        let found = match &*node.op_type {
            "Gemm" | "MatMul" if is_standard(node) => product(graph, place, node),
            "FusedMatMul" => product(graph, place, node),
            "Conv" if is_standard(node) => convolution(graph, place, node),
            "MatMulInteger" if is_standard(node) => static_integer(graph, place, node),
            "Mul" if is_standard(node) => return scaled_integer(graph, place, node),
            "QGemm" => quantized(graph, place, node, Some(6), [7, 8]),
            "QLinearMatMul" => quantized(graph, place, node, None, [6, 7]),
            "QLinearConv" => quantized(graph, place, node, Some(8), [6, 7]),
            "DynamicQuantizeMatMul" => dynamic(graph, place, node),
            "MatMulIntegerToFloat" => integer_to_float(graph, place, node),
            _ => return Ok(None),
        };
        found.map(Some).map_err(|error| error.tensor(named(node)))
    }

    fn new(graph: &Graph<'m>, place: usize, features: &'m str, weight: &'m str) -> Result<Self> {
        let output = graph.nodes[place].output.first().ok_or_else(lacks)?;
        Ok(Self {
            node: place,
            parts: vec![place],
            features,
            output,
            axis: Axis::Last,
            quantization: None,
            unsigned: false,
            rounds: false,
            integer_output: false,
            cuts: false,
            further: Vec::new(),
            weight: Weight::Stored(weight),
            classes_first: false,
            factor: 1.0,
            weight_scale: None,
            weight_zero: None,
            bias: None,
        })
    }

    /// The layer that `terms` are together, which the operators `adding` add up, that at `place` last. It reads the vectors of `tensors`.
    pub(crate) fn sum(
        graph: &Graph<'m>,
        place: usize,
        (terms, adding): (Vec<Term<'m>>, Vec<usize>),
        tensors: &[&'m str],
    ) -> Result<Self> {
        let (features, further) = tensors.split_first().ok_or_else(lacks)?;
        let parts = terms.iter().flat_map(Term::operators).chain(adding).collect();
        let weight = Weight::Sum(terms);
        let further = further.to_vec();
        Ok(Self { axis: Axis::All, parts, further, weight, ..Self::new(graph, place, features, "")? })
    }

    /// The layers that it adds, where it is a sum.
    pub(crate) fn terms(&self) -> &[Term<'m>] {
        match &self.weight {
            Weight::Stored(_) => &[],
            Weight::Sum(terms) => terms,
        }
    }

    /// All tensors that it reads.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = &'m str> {
        std::iter::once(self.features).chain(self.further.iter().copied())
    }

    /// The names of these, as one.
    pub(crate) fn reads(&self) -> String {
        self.tensors().collect::<Vec<_>>().join(", ")
    }

    /// Reads the weights, `[C, D]`.
    pub(crate) fn weights(&self, graph: &Graph) -> Result<Weights> {
        let tensor = match &self.weight {
            Weight::Stored(tensor) => *tensor,
            Weight::Sum(terms) => return summed(graph, terms),
        };
        let stored = graph.fold(tensor)?;
        let wrong = |shape: &[usize]| {
            Error::new(ErrorKind::Unsupported, format!("{shape:?}")).tensor(quoted(tensor)).expected("a matrix")
        };
        let (rows, columns) = match self.axis {
            Axis::Channel | Axis::All => match stored.shape[..] {
                [classes, ref rest @ ..] => (classes, count_of(rest)?),
                [] => return Err(wrong(&stored.shape)),
            },
            Axis::First | Axis::Last => {
                let leading = stored.shape.len().saturating_sub(2);
                match (&stored.shape[leading..], stored.shape[..leading].iter().all(|one| *one == 1)) {
                    ([units], _) if !self.classes_first => (*units, 1),
                    ([units], _) => (1, *units),
                    ([rows, columns], true) => (*rows, *columns),
                    _ => return Err(wrong(&stored.shape)),
                }
            }
        };
        let stored = Constant { shape: vec![rows, columns], ..stored };
        let stored = if self.classes_first { stored } else { stored.transpose(&[])? };
        let (classes, units) = (stored.shape[0], stored.shape[1]);
        let mut weight = stored.into_f32();
        let zero = self.weight_zero.map(|zero| per_class(graph, zero, classes)).transpose()?;
        let scale = self.weight_scale.map(|scale| per_class(graph, scale, classes)).transpose()?;
        let step = |class: usize| scale.as_ref().map_or(1.0, |scale| scale[class]) * self.factor;
        let mut bias = vec![0.0; classes];
        if let Some(stored) = self.bias {
            let values = per_class(graph, stored.tensor, classes)?;
            for (class, value) in values.into_iter().enumerate() {
                bias[class] = value * stored.factor * if stored.scaled { step(class) } else { 1.0 };
            }
        }
        if units > 0 {
            for (class, row) in weight.chunks_exact_mut(units).enumerate() {
                let (zero, step) = (zero.as_ref().map_or(0.0, |zero| zero[class]), step(class));
                row.iter_mut().for_each(|value| *value = (*value - zero) * step);
            }
        }
        Ok(Weights { weight, bias, units, widths: vec![units] })
    }
}

/// The weights of a sum: those of layers that read one tensor added up, and those of each tensor behind those of the one before.
fn summed(graph: &Graph, terms: &[Term<'_>]) -> Result<Weights> {
    let mut blocks: Vec<Weights> = Vec::new();
    for term in terms {
        let fail = |error: Error| error.tensor(named(&graph.nodes[term.linear.node]));
        let mut own = term.linear.weights(graph).map_err(fail)?;
        for place in &term.between {
            own.fold(graph, &graph.nodes[*place]).map_err(fail)?;
        }
        if let Some(place) = term.normalization {
            own.fold_before(graph, &graph.nodes[place]).map_err(fail)?;
        }
        own.scale(term.share);
        match blocks.get_mut(term.reads) {
            Some(block) => block.add(&own).map_err(fail)?,
            None => blocks.push(own),
        }
    }
    Weights::joined(&blocks)
}

fn lacks() -> Error {
    Error::new(ErrorKind::Malformed, "too few inputs or outputs").fix("the model is invalid: export it again")
}

fn input(node: &NodeProto, place: usize) -> Option<&str> {
    node.input.get(place).map(String::as_str).filter(|name| !name.is_empty())
}

fn required(node: &NodeProto, place: usize) -> Result<&str> {
    input(node, place).ok_or_else(lacks)
}

fn computed(what: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{what} computed by the model"))
        .expected("constant weights")
        .fix("DICE drops weights of a fixed head; name another layer: MODEL.onnx#NODE")
}

/// Refuses parameters that are computed.
fn constants(graph: &Graph, node: &NodeProto, places: &[usize], what: &str) -> Result<()> {
    match places.iter().filter_map(|place| input(node, *place)).all(|name| graph.is_constant(name)) {
        true => Ok(()),
        false => Err(computed(what)),
    }
}

/// Gemm, MatMul and the fused MatMul with transposition: constant on either side.
fn product<'m>(graph: &Graph<'m>, place: usize, node: &'m NodeProto) -> Result<Linear<'m>> {
    let (left, right) = (required(node, 0)?, required(node, 1)?);
    let transposed = |name| integer(node, name, 0) != 0;
    let (left_turned, right_turned) = (transposed("transA"), transposed("transB"));
    let bias = if node.op_type == "Gemm" { input(node, 2) } else { None };
    let mut linear = match (graph.is_constant(left), graph.is_constant(right)) {
        (false, true) => Linear {
            axis: if left_turned { Axis::First } else { Axis::Last },
            classes_first: right_turned,
            ..Linear::new(graph, place, left, right)?
        },
        (true, false) => Linear {
            axis: if right_turned { Axis::Last } else { Axis::First },
            classes_first: !left_turned,
            ..Linear::new(graph, place, right, left)?
        },
        (false, false) => return Err(computed("both factors")),
        (true, true) => {
            return Err(
                Error::new(ErrorKind::Unsupported, "two constant factors").expected("one factor from the input")
            );
        }
    };
    linear.factor = float(node, "alpha", 1.0);
    if let Some(bias) = bias {
        constants(graph, node, &[2], "a bias")?;
        linear.bias = Some(Bias { tensor: bias, factor: float(node, "beta", 1.0), scaled: false });
    }
    Ok(linear)
}

/// A convolution whose kernel is one position, or as large as its input.
fn convolution<'m>(graph: &Graph<'m>, place: usize, node: &'m NodeProto) -> Result<Linear<'m>> {
    let (features, weight) = (required(node, 0)?, required(node, 1)?);
    constants(graph, node, &[1], "weights")?;
    constants(graph, node, &[2], "a bias")?;
    let axis = convolved(graph, node, features, weight)?;
    let bias = input(node, 2).map(|tensor| Bias { tensor, factor: 1.0, scaled: false });
    Ok(Linear { axis, classes_first: true, bias, ..Linear::new(graph, place, features, weight)? })
}

/// Where the units of a convolution are that is a linear layer; refused where it is none.
fn convolved(graph: &Graph, node: &NodeProto, features: &str, weight: &str) -> Result<Axis> {
    let shape = graph.constant_shape(weight)?;
    let kernel = shape.get(2..).unwrap_or_default();
    let not_linear = |found: String| -> Result<Axis> {
        Err(Error::new(ErrorKind::Unsupported, found)
            .expected("a linear layer as the last operator with weights")
            .fix("DICE needs a classifier that ends in a linear layer (Gemm, MatMul or a 1x1 convolution); name one: MODEL.onnx#NODE"))
    };
    let ints = |name| attribute(node, name).map_or(&[][..], |attribute| &attribute.ints);
    if ints("pads").iter().any(|pad| *pad != 0) {
        return not_linear(format!("a convolution {kernel:?} with padding"));
    }
    if integer(node, "group", 1) != 1 {
        return not_linear("a grouped convolution".into());
    }
    let covers = || {
        let extent = graph.dimensions(features)?;
        Some(extent.get(2..)?.iter().zip(kernel).all(|(extent, kernel)| *extent == Some(*kernel)))
    };
    if kernel.iter().all(|extent| *extent == 1) {
        Ok(Axis::Channel)
    } else if ints("dilations").iter().all(|step| *step == 1) && covers() == Some(true) {
        Ok(Axis::All)
    } else {
        not_linear(format!("a convolution {kernel:?}"))
    }
}

/// QGemm, QLinearMatMul and QLinearConv: integers in, integers (or floats) out, scales beside them; `bias` and `result` (its scale
/// and zero point) are places of inputs.
fn quantized<'m>(
    graph: &Graph<'m>,
    place: usize,
    node: &'m NodeProto,
    bias: Option<usize>,
    result: [usize; 2],
) -> Result<Linear<'m>> {
    let (features, weight) = (required(node, 0)?, required(node, 3)?);
    if integer(node, "transA", 0) != 0 {
        return Err(Error::new(ErrorKind::Unsupported, "transposed features").expected("transA = 0"));
    }
    constants(graph, node, &[3, 4, 5], "weights")?;
    constants(graph, node, &[1, 2], "a scale of the features")?;
    let one = |tensor: &str| -> Result<Constant> {
        let constant = graph.fold(tensor)?;
        if constant.values.len() == 1 {
            return Ok(constant);
        }
        Err(Error::new(ErrorKind::Unsupported, format!("{:?}", constant.shape))
            .tensor(quoted(tensor))
            .expected("one value"))
    };
    let scale = one(required(node, 1)?)?.into_f32()[0];
    let zero = input(node, 2).map(one).transpose()?;
    let unsigned = zero.as_ref().is_some_and(Constant::is_lowest);
    let zero_point = zero.map_or(Ok(0), |zero| zero.as_ints().map(|zero| zero[0]))?;
    constants(graph, node, bias.as_slice(), "a bias")?;
    // The products of integers are in steps of both scales, and so is the bias: once the features are floats again, it
    // alone needs the features' scale.
    let bias = bias.and_then(|place| input(node, place)).map(|tensor| Bias { tensor, factor: scale, scaled: true });
    let (axis, classes_first) = match &*node.op_type {
        "QLinearConv" => (convolved(graph, node, features, weight)?, true),
        _ => (Axis::Last, integer(node, "transB", 0) != 0),
    };
    let linear = Linear {
        axis,
        classes_first,
        weight_scale: Some(required(node, 4)?),
        weight_zero: input(node, 5),
        factor: float(node, "alpha", 1.0),
        bias,
        cuts: input(node, result[1]).and_then(|zero| graph.small(zero)).is_some_and(|zero| zero.is_lowest()),
        // QGemm gives floats where no scale of the output is named.
        integer_output: input(node, result[0]).is_some(),
        ..Linear::new(graph, place, features, weight)?
    };
    Ok(match graph.producer(features) {
        Some((maker, node)) if node.op_type == "QuantizeLinear" => {
            Linear { features: required(node, 0)?, parts: vec![maker, place], rounds: true, ..linear }
        }
        _ => Linear { quantization: Some(Quantization { scale, zero_point }), unsigned, ..linear },
    })
}

/// DynamicQuantizeMatMul: float features, integer weights.
fn dynamic<'m>(graph: &Graph<'m>, place: usize, node: &'m NodeProto) -> Result<Linear<'m>> {
    constants(graph, node, &[1, 2, 3, 4], "weights")?;
    let bias = input(node, 4).map(|tensor| Bias { tensor, factor: 1.0, scaled: false });
    Ok(Linear {
        weight_scale: Some(required(node, 2)?),
        weight_zero: input(node, 3),
        bias,
        rounds: true,
        ..Linear::new(graph, place, required(node, 0)?, required(node, 1)?)?
    })
}

/// MatMulIntegerToFloat: features that an operator before it rounded, scales beside them.
fn integer_to_float<'m>(graph: &Graph<'m>, place: usize, node: &'m NodeProto) -> Result<Linear<'m>> {
    constants(graph, node, &[1, 3, 5, 6], "weights")?;
    let rounding = |maker: &NodeProto| matches!(&*maker.op_type, "DynamicQuantizeLinear" | "QuantizeLinear");
    let maker = graph.producer(required(node, 0)?).filter(|(_, maker)| rounding(maker));
    let (quantizer, maker) = maker.ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "integers from elsewhere")
            .expected("DynamicQuantizeLinear or QuantizeLinear before it")
    })?;
    Ok(Linear {
        weight_scale: Some(required(node, 3)?),
        weight_zero: input(node, 5),
        bias: input(node, 6).map(|tensor| Bias { tensor, factor: 1.0, scaled: false }),
        parts: vec![quantizer, place],
        rounds: true,
        ..Linear::new(graph, place, required(maker, 0)?, required(node, 1)?)?
    })
}

/// MatMulInteger of features that a QuantizeLinear rounded: their scale is a constant.
fn static_integer<'m>(graph: &Graph<'m>, place: usize, node: &'m NodeProto) -> Result<Linear<'m>> {
    constants(graph, node, &[1, 3], "weights")?;
    let maker = graph.producer(required(node, 0)?).filter(|(_, maker)| maker.op_type == "QuantizeLinear");
    let (quantizer, maker) = maker.ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "integers of unknown scale")
            .expected("DynamicQuantizeLinear or QuantizeLinear before it, and a Mul by the scales after it")
    })?;
    constants(graph, maker, &[1], "a scale of the features")?;
    let scale = graph.fold(required(maker, 1)?)?;
    let &[scale] = scale.into_f32().as_slice() else {
        return Err(Error::new(ErrorKind::Unsupported, "a scale for each unit").expected("one scale of the features"));
    };
    Ok(Linear {
        weight_zero: input(node, 3),
        factor: 1.0 / scale,
        parts: vec![quantizer, place],
        rounds: true,
        ..Linear::new(graph, place, required(maker, 0)?, required(node, 1)?)?
    })
}

/// `Mul(Cast(MatMulInteger(DynamicQuantizeLinear(features))), scales)`, where the scales are those of the features, times
/// those of the weight unless a later Mul brings them.
fn scaled_integer<'m>(graph: &Graph<'m>, place: usize, node: &'m NodeProto) -> Result<Option<Linear<'m>>> {
    let (Some(left), Some(right)) = (input(node, 0), input(node, 1)) else { return Ok(None) };
    if graph.is_constant(left) || graph.is_constant(right) {
        return Ok(None);
    }
    for (products, scales) in [(left, right), (right, left)] {
        let Some((between, multiply)) = integer_product(graph, products) else { continue };
        let multiplier = &graph.nodes[multiply];
        let Some((quantizer, maker)) = input(multiplier, 0).and_then(|name| graph.producer(name)) else { continue };
        let own_scale = maker.output.get(1).map(String::as_str);
        let weight_scale = match graph.producer(scales) {
            _ if own_scale == Some(scales) => None,
            Some((_, scaling)) if scaling.op_type == "Mul" => match (input(scaling, 0), input(scaling, 1)) {
                (own, Some(other)) if own == own_scale && graph.is_constant(other) => Some(other),
                (Some(other), own) if own == own_scale && graph.is_constant(other) => Some(other),
                _ => continue,
            },
            _ => continue,
        };
        if maker.op_type != "DynamicQuantizeLinear" {
            continue;
        }
        let found = || {
            constants(graph, multiplier, &[1, 3], "weights")?;
            let output = node.output.first().ok_or_else(lacks)?;
            let mut parts = vec![quantizer, multiply];
            parts.extend(&between);
            parts.push(place);
            Ok(Linear {
                output,
                parts,
                weight_scale,
                weight_zero: input(multiplier, 3),
                rounds: true,
                ..Linear::new(graph, multiply, required(maker, 0)?, required(multiplier, 1)?)?
            })
        };
        return found().map(Some).map_err(|error: Error| error.tensor(named(multiplier)));
    }
    Ok(None)
}

/// The MatMulInteger behind at most a few casts and reshapes, and those in their order.
fn integer_product(graph: &Graph, tensor: &str) -> Option<(Vec<usize>, usize)> {
    let mut between = Vec::new();
    let mut tensor = tensor.to_owned();
    for _ in 0..4 {
        let (place, node) = graph.producer(&tensor)?;
        match &*node.op_type {
            "MatMulInteger" => return Some((between, place)),
            "Cast" | "Identity" | "Reshape" => {
                between.insert(0, place);
                node.input.first()?.clone_into(&mut tensor);
            }
            _ => return None,
        }
    }
    None
}
