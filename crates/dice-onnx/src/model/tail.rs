//! What stands between a head and an output: what belongs to the head, and what users should know of the rest.

use dice_ood::Result;

use crate::model::graph::Graph;
use crate::model::head::{Positions, Selection};
use crate::model::linear::Linear;
use crate::model::node::{integer, is_standard, named};
use crate::model::proto::NodeProto;
use crate::model::softmax;
use crate::model::weights::Weights;

/// What an operator behind the head does to logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Not an operator that follows heads.
    Foreign,
    Shape,
    Affine,
    Rounding,
    Average,
    Select,
    Probabilities,
    Nonlinear,
    Label,
}

pub(crate) fn effect(node: &NodeProto) -> Effect {
    match &*node.op_type {
        "Identity" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" | "Transpose" | "Dropout" | "Cast" => {
            Effect::Shape
        }
        "Add" | "Sub" | "Mul" | "Div" | "BatchNormalization" | "QLinearAdd" => Effect::Affine,
        "QuantizeLinear" | "DequantizeLinear" => Effect::Rounding,
        "GlobalAveragePool" | "AveragePool" | "ReduceMean" | "QLinearGlobalAveragePool" | "QLinearAveragePool" => {
            Effect::Average
        }
        "Softmax" | "LogSoftmax" | "Hardmax" | "QLinearSoftmax" => Effect::Probabilities,
        "Sigmoid" | "QLinearSigmoid" | "HardSigmoid" | "Relu" | "Clip" | "Tanh" | "Log" | "Exp" | "GlobalMaxPool"
        | "MaxPool" | "ReduceMax" => Effect::Nonlinear,
        "ArgMax" | "TopK" => Effect::Label,
        _ => Effect::Foreign,
    }
}

/// The effect of an operator behind a head of `graph`: a division by what is computed too is the end of a softmax.
pub(crate) fn effect_in(graph: &Graph, node: &NodeProto) -> Effect {
    match effect(node) {
        Effect::Affine if softmax::logits_of(graph, node).is_some() => Effect::Probabilities,
        Effect::Foreign if selection(graph, node).is_some() => Effect::Select,
        effect => effect,
    }
}

/// The tensor that a standard operator scales or shifts by constants.
pub(crate) fn scaled_by_constants<'m>(graph: &Graph<'m>, node: &'m NodeProto) -> Option<&'m str> {
    let input = |place: usize| node.input.get(place).map(String::as_str).filter(|name| !name.is_empty());
    let constant = |place| input(place).is_some_and(|name| graph.is_constant(name));
    match (&*node.op_type, constant(0), constant(1)) {
        _ if !is_standard(node) => None,
        ("Add" | "Sub" | "Mul" | "Div", false, true) => input(0),
        ("Add" | "Sub" | "Mul", true, false) => input(1),
        ("BatchNormalization", false, _) if (1..5).all(constant) => input(0),
        _ => None,
    }
}

/// What an operator selects of sequences `[N, T, C]`, or of all their positions `[N * T, C]`: one position of each input.
pub(crate) fn selection(graph: &Graph, node: &NodeProto) -> Option<Selection> {
    let (sequences, positions) = (node.input.first()?, node.input.get(1)?);
    let computed = |flat| Selection::Computed(Positions { tensor: positions.clone(), flat });
    let is_constant = graph.is_constant(positions);
    match (&*node.op_type, integer(node, "axis", 0)) {
        ("Gather", 1) => match graph.small(positions)?.as_ints().ok()? {
            [only] => Some(Selection::Fixed(*only)),
            _ => None,
        },
        ("Gather", 0) if !is_constant && is_table(graph, sequences) => Some(computed(true)),
        ("GatherND", _) if !is_constant && integer(node, "batch_dims", 0) == 0 => Some(computed(false)),
        _ => None,
    }
}

/// Whether `tensor` is known to have two axes.
fn is_table(graph: &Graph, tensor: &str) -> bool {
    graph.producer(tensor).is_some_and(|(_, node)| node.op_type == "Flatten")
        || graph.dimensions(tensor).is_some_and(|axes| axes.len() == 2)
}

pub(crate) fn pools(node: &NodeProto) -> bool {
    effect(node) == Effect::Average || matches!(&*node.op_type, "GlobalMaxPool" | "MaxPool" | "ReduceMax")
}

pub(crate) fn is_label(node: &NodeProto) -> bool {
    effect(node) == Effect::Label
}

/// Whether rounding cuts negative values off: exporters leave a ReLU out where it does.
fn cuts(graph: &Graph, node: &NodeProto) -> bool {
    let place = match &*node.op_type {
        "QuantizeLinear" => 2,
        "QLinearAdd" => 7,
        _ => return false,
    };
    node.input.get(place).and_then(|zero| graph.small(zero)).is_some_and(|zero| zero.is_lowest())
}

/// What is known once the nodes behind the linear operator are read in order.
pub(crate) struct Tail<'m> {
    /// Operators that are part of the head.
    pub(crate) parts: Vec<usize>,
    /// The tensor of the logits.
    pub(crate) logits: &'m str,
    /// Operators since the logits.
    pub(crate) pending: Vec<usize>,
    /// Whether pooled features give the model's own logits.
    pub(crate) exact: bool,
    /// Whether all so far was affine, up to rounding.
    open: bool,
    /// Whether the tensor of the logits holds integers.
    integers: bool,
    /// Whether the head includes rounding of logits.
    rounded: bool,
}

impl<'m> Tail<'m> {
    /// Reads the nodes of `tail` and folds into `weights` the scales and shifts that no other operator parts from them; `many` where
    /// the head is applied at many positions, so that averages over them may belong to it.
    pub(crate) fn along(
        graph: &Graph<'m>,
        linear: &Linear<'m>,
        tail: &[usize],
        weights: &mut Weights,
        many: bool,
    ) -> Result<Self> {
        let mut read = Self {
            parts: linear.parts.clone(),
            logits: linear.output,
            pending: Vec::new(),
            exact: !(linear.cuts && many),
            open: !linear.cuts,
            integers: linear.integer_output,
            rounded: false,
        };
        for (at, place) in tail.iter().enumerate() {
            let node = &graph.nodes[*place];
            read.pending.push(*place);
            let Some(output) = node.output.first() else { continue };
            match effect_in(graph, node) {
                Effect::Affine if read.open => {
                    weights.fold(graph, node).map_err(|error| error.tensor(named(node)))?;
                    read.advance(graph, output);
                    read.rounded |= read.integers;
                    read.open = !cuts(graph, node);
                }
                Effect::Average | Effect::Select if read.open && many => read.advance(graph, output),
                Effect::Rounding if read.integers && read.pending.len() == 1 => {
                    read.advance(graph, output);
                    read.integers = false;
                }
                Effect::Rounding if !cuts(graph, node) => {}
                Effect::Shape | Effect::Average | Effect::Select => {}
                _ => {
                    // An operator before the pooling acts on each position: averaging and the head no longer commute.
                    let pooled_later = tail[at..].iter().any(|later| pools(&graph.nodes[*later]));
                    read.open = false;
                    read.exact &= !many || !pooled_later;
                }
            }
        }
        Ok(read)
    }

    /// All up to `output` belongs to the head.
    fn advance(&mut self, graph: &Graph<'m>, output: &'m str) {
        self.rounded |= self.pending.iter().any(|place| effect(&graph.nodes[*place]) == Effect::Rounding);
        self.parts.append(&mut self.pending);
        self.logits = output;
    }

    /// What a user should know.
    pub(crate) fn notes(&self, graph: &Graph, linear: &Linear, tail: &[usize], many: bool) -> Vec<String> {
        let mut notes = Vec::new();
        let after = |wanted: &str| self.pending.iter().any(|place| graph.nodes[*place].op_type == wanted);
        if linear.rounds {
            notes.push(
                "The model rounds features to 8 bits before it multiplies, and cuts off what lies beyond these: its own logits differ \
                 from W h + b by that."
                    .into(),
            );
        }
        if self.rounded {
            notes.push(
                "The model rounds logits to 8 bits within the head, and cuts off what lies beyond these: its own differ from \
                 W h + b by that."
                    .into(),
            );
        }
        if self.pending.iter().any(|place| effect(&graph.nodes[*place]) == Effect::Rounding) {
            notes.push("The model rounds the logits after the head to at most 256 values, and cuts off what lies beyond these: W h + b does not.".into());
        }
        if linear.cuts || tail.iter().any(|place| cuts(graph, &graph.nodes[*place])) {
            notes.push("The model's rounding cuts negative logits off, as a Relu would; W h + b keeps them.".into());
        }
        if tail.iter().any(|place| effect_in(graph, &graph.nodes[*place]) == Effect::Select) {
            notes.push("The head is applied at every position, and one is selected behind it: its features give the same logits.".into());
        } else if many && self.exact {
            notes.push(
                "The head stands before pooling; both are linear, so features averaged first give the same logits."
                    .into(),
            );
        }
        if many && !self.exact {
            notes.push(
            "The head stands before an activation and pooling: W h + b of averaged features are the average logits before that \
             activation, not what the model returns."
                .into(),
        );
        }
        if after("Relu") && !many {
            notes.push("The model cuts negative logits off (Relu) before its output; W h + b keeps them.".into());
        }
        if after("Sigmoid") || after("QLinearSigmoid") {
            notes.push(
                "Sigmoid: the classes may be independent labels, for which a score over all logits means less.".into(),
            );
        }
        notes
    }
}
