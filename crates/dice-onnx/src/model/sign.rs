//! Whether a tensor can be negative, from the operators that make it.

use std::collections::HashMap;
use std::fmt;

use crate::model::element;
use crate::model::graph::{Graph, Source};
use crate::model::node::{attribute, is_standard, named};
use crate::model::proto::NodeProto;
use crate::model::tensor::Values;

/// Whether features can be negative, with the reason.
///
/// DICE rests on the mean activation of features that are sparse and not negative, as behind a ReLU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nonnegative {
    /// Never below zero.
    Yes(String),
    /// An operator on the way makes values of either sign.
    No(String),
    /// The operators do not tell.
    Unknown(String),
}

impl Nonnegative {
    /// That of several tensors together: of the first that can be negative, else of the first of which the operators do not tell.
    pub(crate) fn of_all(all: impl IntoIterator<Item = Self>) -> Self {
        let rank = |one: &Self| match one {
            Self::No(_) => 0,
            Self::Unknown(_) => 1,
            Self::Yes(_) => 2,
        };
        all.into_iter().min_by_key(rank).unwrap_or_else(|| Self::Unknown("no tensor".into()))
    }
}

impl fmt::Display for Nonnegative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes(reason) => write!(f, "never negative: {reason}"),
            Self::No(reason) => write!(f, "can be negative: {reason}"),
            Self::Unknown(reason) => write!(f, "perhaps negative: {reason}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Positive,
    Mixed,
    Unknown,
}

/// A sign and the node that decided it; `None` for inputs and constants.
type Known = (Sign, Option<usize>);

/// Follows signs from the inputs to `tensor`: one pass over the graph in its order, so that no depth matters.
pub(crate) fn nonnegative(graph: &Graph, tensor: &str) -> Nonnegative {
    let mut signs: HashMap<&str, Known> = HashMap::new();
    for place in &graph.order {
        let node = &graph.nodes[*place];
        let (sign, origin) = sign_of(graph, *place, node, &signs);
        for output in &node.output {
            signs.insert(output, (sign, origin));
        }
    }
    let (sign, origin) = look_up(graph, tensor, &signs);
    let maker = origin.map_or_else(|| "the model's input".to_owned(), |place| named(&graph.nodes[place]));
    match sign {
        Sign::Positive => Nonnegative::Yes(format!("made so by {maker}, and kept by all that follows")),
        Sign::Mixed => Nonnegative::No(format!("{maker} makes values of either sign")),
        Sign::Unknown => Nonnegative::Unknown(format!("{maker} does not tell the sign")),
    }
}

/// Operators whose values are never negative, whatever they read.
const POSITIVE: &str =
    "Relu Sigmoid HardSigmoid Softmax Exp Abs Sqrt Softplus ReduceL1 ReduceL2 ReduceSumSquare ThresholdedRelu";

/// Operators whose values have the sign of their first input's.
const SAME: &str = "Identity Dropout Flatten Reshape Squeeze Unsqueeze Transpose Cast MaxPool AveragePool GlobalAveragePool \
     GlobalMaxPool LpPool ReduceMean ReduceMax ReduceMin ReduceSum Slice Gather Split Expand Tile DepthToSpace Clip \
     SpaceToDepth QuantizeLinear DequantizeLinear DynamicQuantizeLinear Ceil Floor Round TopK";

/// Operators that make values of either sign.
const MIXED: &str = "Conv Gemm MatMul BatchNormalization LayerNormalization InstanceNormalization GroupNormalization \
     RMSNormalization LpNormalization MeanVarianceNormalization LeakyRelu PRelu Elu Selu Celu Gelu Mish HardSwish Swish Tanh \
     Sin Cos Erf Log LogSoftmax Sub Neg ConvTranspose SkipLayerNormalization FastGelu FusedMatMul QuickGelu";

fn lists(operators: &str, operator: &str) -> bool {
    operators.split(' ').any(|listed| listed == operator)
}

fn look_up(graph: &Graph, tensor: &str, signs: &HashMap<&str, Known>) -> Known {
    if let Some(known) = signs.get(tensor).filter(|(sign, _)| *sign != Sign::Unknown) {
        return *known;
    }
    if graph.is_constant(tensor) {
        return match graph.small(tensor).map(|constant| constant.values) {
            Some(Values::Float(values)) if values.iter().all(|value| *value >= 0.0) => (Sign::Positive, None),
            Some(Values::Int(values)) if values.iter().all(|value| *value >= 0) => (Sign::Positive, None),
            Some(_) => (Sign::Mixed, None),
            None => (Sign::Unknown, None),
        };
    }
    let unsigned = graph.info(tensor).and_then(|info| info.r#type.as_ref()?.tensor_type.as_ref());
    let unsigned =
        unsigned.is_some_and(|tensor| matches!(tensor.elem_type, element::UINT8 | element::UINT16 | element::BOOL));
    if unsigned && matches!(graph.source(tensor), Some(Source::Input)) {
        return (Sign::Positive, None);
    }
    signs.get(tensor).copied().unwrap_or((Sign::Unknown, None))
}

fn sign_of(graph: &Graph, place: usize, node: &NodeProto, signs: &HashMap<&str, Known>) -> Known {
    let input = |at: usize| match node.input.get(at).filter(|name| !name.is_empty()) {
        Some(name) => look_up(graph, name, signs),
        None => (Sign::Unknown, Some(place)),
    };
    let own = |sign| (sign, Some(place));
    let operator = &*node.op_type;
    match operator {
        "Clip" if lower_bound(graph, node).is_some_and(|bound| bound >= 0.0) => own(Sign::Positive),
        "DequantizeLinear" if starts_at_zero(graph, node) => own(Sign::Positive),
        "Pad" => match node.input.get(2).filter(|name| !name.is_empty()) {
            Some(_) => both(input(0), input(2), place),
            None => input(0),
        },
        // x * sigmoid(x), and every product or sum with a part that can be negative.
        "Add" | "Mul" | "Concat" | "Sum" | "Mean" | "Min" | "Div" => {
            let first = input(0);
            (1..node.input.len()).fold(first, |all, at| both(all, input(at), place))
        }
        "Max" => (0..node.input.len()).map(input).find(|(sign, _)| *sign == Sign::Positive).unwrap_or(own(Sign::Mixed)),
        _ if lists(POSITIVE, operator) => own(Sign::Positive),
        _ if lists(SAME, operator) => input(0),
        _ if lists(MIXED, operator) => own(Sign::Mixed),
        _ => own(Sign::Unknown),
    }
}

/// The sign of a combination that is positive where both parts are.
fn both(left: Known, right: Known, place: usize) -> Known {
    match (left.0, right.0) {
        (Sign::Positive, Sign::Positive) => {
            if left.1.is_some() {
                left
            } else {
                right
            }
        }
        (Sign::Mixed, _) if left.1.is_some() => left,
        (_, Sign::Mixed) if right.1.is_some() => right,
        (Sign::Mixed, _) | (_, Sign::Mixed) => (Sign::Mixed, Some(place)),
        (Sign::Unknown, _) => left,
        (_, Sign::Unknown) => right,
    }
}

/// The minimum of a Clip: an attribute before opset 11, an input since.
fn lower_bound(graph: &Graph, node: &NodeProto) -> Option<f32> {
    match node.input.get(1).filter(|name| !name.is_empty()) {
        Some(name) => graph.small(name)?.into_f32().first().copied(),
        None => attribute(node, "min").filter(|_| is_standard(node)).map(|bound| bound.f),
    }
}

/// Whether the zero point is the lowest value of its type: then no value stands for less than zero.
fn starts_at_zero(graph: &Graph, node: &NodeProto) -> bool {
    match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(name) => graph.small(name).is_some_and(|zero| zero.is_lowest()),
        // Without a zero point it is zero, and the type uint8 unless said otherwise.
        None => node.input.first().and_then(|name| graph.producer(name)).is_some_and(|(_, maker)| {
            maker.op_type == "QuantizeLinear" && maker.input.len() < 3 && attribute(maker, "output_dtype").is_none()
        }),
    }
}
