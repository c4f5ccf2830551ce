//! Finding the head: back from the output to the last linear operator with constant weights.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use dice_ood::{Error, ErrorKind, LinearHead, Result};

use crate::model::graph::{Graph, attribute, dimensions_of, is_standard};
use crate::model::linear::{Axis, Linear, Quantization};
use crate::model::proto::NodeProto;
use crate::model::sign::{Nonnegative, nonnegative};
use crate::model::tail::{Effect, Tail, effect, is_label, pools};
use crate::write::export;
use crate::{named, quoted};

/// Longest way from a head to an output, and most outputs looked at.
const MAX_TAIL: usize = 256;
const MAX_OUTPUTS: usize = 64;

/// What overrides the search for a head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadOptions {
    /// The head's operator, by its name or the name of its output.
    pub head: Option<String>,
    /// The tensor to take as features: one that the head reads, or that becomes it by reshaping or pooling alone.
    pub features: Option<String>,
}

/// How the features tensor becomes `[N, D]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// `[N, D]` once all axes but the first are flattened, as `[N, D, 1, 1]` or `[N, D]` itself.
    Rows,
    /// `[D, N]`: to be transposed.
    Columns,
    /// `[N, D, ...]`: to be averaged over all positions behind the second axis.
    ///
    /// `exact` where the head of the averaged features is the model's own averaged logits: nothing but averages stands between.
    Channels {
        /// Whether averaging and the head commute in this model.
        exact: bool,
    },
    /// `[N, ..., D]`: to be averaged over all positions before the last axis; `exact` as above.
    Positions {
        /// Whether averaging and the head commute in this model.
        exact: bool,
    },
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rows => "[N, D], after flattening axes of one",
            Self::Columns => "[D, N], to be transposed",
            Self::Channels { .. } => "a map [N, D, H, W], to be averaged over its positions",
            Self::Positions { .. } => "a sequence [N, ..., D], to be averaged over its positions",
        })
    }
}

/// An operator between the logits and an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Following {
    /// Its type, such as `Softmax`.
    pub operator: String,
    /// Its name, or that of its output where it has none.
    pub node: String,
}

/// The head of a model, what feeds it and what follows it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FoundHead {
    /// Weight `[C, D]` and bias `[C]`, dequantised, with scales and shifts that directly follow folded in.
    pub head: LinearHead,
    /// The operator that multiplies, by its name or that of its output.
    pub node: String,
    /// All operators the head is made of, such as `MatMul, Add`.
    pub operator: String,
    /// The tensor that feeds it.
    pub features: String,
    /// How that tensor becomes `[N, D]`.
    pub layout: Layout,
    /// How that tensor stores features, where it is one of integers.
    pub quantization: Option<Quantization>,
    /// The tensor that holds `W h + b`, up to the rounding that the notes name.
    pub logits: String,
    /// What stands between the logits and the output, in order.
    pub followed_by: Vec<Following>,
    /// The output the search started from.
    pub output: String,
    /// Whether features can be negative.
    pub nonnegative: Nonnegative,
    /// What a user should know: rounding, what pooling means, doubts.
    pub notes: Vec<String>,
}

impl FoundHead {
    /// The number of classes, C.
    pub fn classes(&self) -> usize {
        self.head.classes()
    }

    /// The number of features, D.
    pub fn units(&self) -> usize {
        self.head.units()
    }
}

impl fmt::Display for FoundHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Head      {} at {}: {} classes, {} features",
            self.operator,
            quoted(&self.node),
            self.classes(),
            self.units()
        )?;
        writeln!(f, "Features  {}, {}", quoted(&self.features), self.layout)?;
        if let Some(stored) = self.quantization {
            writeln!(f, "          stored as integers: (value - {}) * {}", stored.zero_point, stored.scale)?;
        }
        writeln!(f, "          {}", self.nonnegative)?;
        writeln!(
            f,
            "          {}",
            match self.nonnegative {
                Nonnegative::Yes(_) => "As DICE expects: its contributions weigh each unit by its mean activation.",
                _ =>
                    "DICE weighs each unit by its mean activation, which says little where signs cancel: compare with `energy`.",
            }
        )?;
        write!(f, "Logits    {}", quoted(&self.logits))?;
        match self.followed_by.as_slice() {
            [] => writeln!(f, ", which is what the model returns")?,
            following => {
                let operators: Vec<&str> = following.iter().map(|following| &*following.operator).collect();
                writeln!(f, ", then {} to output {}", operators.join(", "), quoted(&self.output))?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "Note      {note}"))
    }
}

/// The way from a head to a tensor: the nodes between, in order.
#[derive(Debug, Clone)]
struct Trace<'m> {
    linear: Linear<'m>,
    tail: Vec<usize>,
    output: &'m str,
}

/// Finds the head; see [`crate::Model::find_head`].
pub(crate) fn find<'m>(graph: &Graph<'m>, options: &HeadOptions) -> Result<FoundHead> {
    let trace = match (&options.head, &options.features) {
        (Some(head), _) => from_node(graph, head)?,
        (None, Some(features)) => from_features(graph, features)?,
        (None, None) => from_outputs(graph)?,
    };
    read(graph, &trace, options)
}

fn from_outputs<'m>(graph: &Graph<'m>) -> Result<Trace<'m>> {
    if let Some(node) = graph.nodes.iter().find(|node| node.domain == "ai.onnx.ml" && is_estimator(&node.op_type)) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "a classical model (ai.onnx.ml), which has no penultimate features",
        )
        .tensor(named(node))
        .expected("a neural network that ends in a linear layer")
        .fix("such a model offers no features to watch: export a network, or give features and a head as arrays"));
    }
    // A detector that was put inside reads the model's features; its own head is not the model's.
    let of_detector = |name: &str| graph.producer(name).is_some_and(|(_, node)| node.name.starts_with(export::PREFIX));
    let outputs = graph.outputs.iter().map(|output| &*output.name).filter(|name| !of_detector(name));
    let traces: Vec<(&str, Result<Trace>)> = outputs.take(MAX_OUTPUTS).map(|name| (name, trace(graph, name))).collect();
    let mut heads: BTreeMap<usize, Trace> = BTreeMap::new();
    for found in traces.iter().filter_map(|(_, trace)| trace.as_ref().ok()) {
        let labels = |trace: &Trace| trace.tail.iter().filter(|place| is_label(&graph.nodes[**place])).count();
        let rank = |trace: &Trace| (labels(trace), trace.tail.len());
        if heads.get(&found.linear.node).is_none_or(|known| rank(found) < rank(known)) {
            heads.insert(found.linear.node, found.clone());
        }
    }
    if heads.len() > 1 && heads.len() <= 8 {
        drop_inner(graph, &mut heads);
    }
    if heads.len() > 1 {
        let listed: Vec<String> = heads
            .values()
            .take(8)
            .map(|trace| format!("{} (output {})", named(&graph.nodes[trace.linear.node]), quoted(trace.output)))
            .collect();
        return Err(Error::new(ErrorKind::Ambiguous, listed.join(", "))
            .tensor("head")
            .expected("one linear layer that the outputs come from")
            .fix("name the one to use: MODEL.onnx#NODE"));
    }
    if let Some((_, trace)) = heads.pop_first() {
        return Ok(trace);
    }
    let mut reasons = traces.into_iter().filter_map(|(name, trace)| Some((name, trace.err()?)));
    match (reasons.next(), reasons.next()) {
        (None, _) => {
            Err(Error::new(ErrorKind::Missing, "a model without outputs").tensor("head").expected("an output"))
        }
        (Some((_, only)), None) => Err(only),
        (Some(first), Some(second)) => {
            let rest = reasons.count();
            let mut text = [first, second].map(|(name, error)| format!("output {}: {error}", quoted(name))).join("; ");
            if rest > 0 {
                text += &format!("; and {rest} more");
            }
            Err(Error::new(ErrorKind::Missing, text)
                .tensor("head")
                .expected("an output that comes from a linear layer with constant weights")
                .fix("name a layer: MODEL.onnx#NODE"))
        }
    }
}

fn is_estimator(operator: &str) -> bool {
    operator.ends_with("Classifier") || operator.ends_with("Regressor") || operator.starts_with("TreeEnsemble")
}

/// Drops heads whose output feeds another head: the last one is meant.
fn drop_inner(graph: &Graph, heads: &mut BTreeMap<usize, Trace>) {
    let mut inner = HashSet::new();
    for trace in heads.values() {
        let mut seen = HashSet::new();
        let mut open = vec![trace.linear.features];
        while let Some(tensor) = open.pop() {
            let Some((place, node)) = graph.producer(tensor) else { continue };
            if seen.insert(place) {
                open.extend(node.input.iter().map(String::as_str));
            }
        }
        inner.extend(seen);
    }
    heads.retain(|place, _| !inner.contains(place));
}

fn from_node<'m>(graph: &Graph<'m>, wanted: &str) -> Result<Trace<'m>> {
    let is_wanted = |node: &&NodeProto| node.name == wanted || node.output.iter().any(|output| output == wanted);
    let mut found = graph.nodes.iter().filter(is_wanted);
    let node = match (found.next(), found.next()) {
        (Some(only), None) => only,
        (Some(_), Some(_)) => {
            return Err(Error::new(ErrorKind::Ambiguous, "several operators of this name")
                .tensor(quoted(wanted))
                .expected("one")
                .fix("name the operator's output instead"));
        }
        (None, _) => {
            return Err(Error::new(ErrorKind::Missing, listed_layers(graph))
                .tensor(quoted(wanted))
                .expected("an operator of this name, or with an output of this name"));
        }
    };
    let mut start = node.output.first().map(String::as_str).unwrap_or_default();
    // The scales of an integer product come after it.
    if node.op_type == "MatMulInteger" {
        for _ in 0..3 {
            match only_consumer(graph, start) {
                Some((_, next)) if matches!(&*next.op_type, "Cast" | "Identity" | "Reshape" | "Mul") => {
                    start = next.output.first().map(String::as_str).unwrap_or_default();
                    if next.op_type == "Mul" {
                        break;
                    }
                }
                _ => break,
            }
        }
    }
    let mut trace = trace(graph, start)?;
    extend(graph, &mut trace);
    Ok(trace)
}

/// Follows the only reader of the trace's end as far as the way is one that follows heads.
fn extend<'m>(graph: &Graph<'m>, trace: &mut Trace<'m>) {
    while trace.tail.len() < MAX_TAIL && !graph.is_output(trace.output) {
        let Some((place, node)) = only_consumer(graph, trace.output) else { break };
        if step(graph, node).ok() != Some(trace.output) {
            break;
        }
        let Some(output) = node.output.first() else { break };
        trace.tail.push(place);
        trace.output = output;
    }
}

fn only_consumer<'m>(graph: &Graph<'m>, tensor: &str) -> Option<(usize, &'m NodeProto)> {
    match graph.consumers(tensor) {
        [only] => Some((*only, &graph.nodes[*only])),
        _ => None,
    }
}

fn from_features<'m>(graph: &Graph<'m>, wanted: &str) -> Result<Trace<'m>> {
    let Some(wanted) = graph.tensor(wanted) else { return Err(no_such_tensor(graph, wanted)) };
    // Whatever the outputs lead to, if it reads these features.
    let by_outputs = from_outputs(graph);
    if let Ok(trace) = &by_outputs
        && leads_to(graph, trace.linear.features, wanted).is_some()
    {
        return by_outputs;
    }
    let mut readers = (0..graph.nodes.len()).filter_map(|place| {
        let linear = Linear::at(graph, place).ok()??;
        (linear.features == wanted).then_some(linear)
    });
    match (readers.next(), readers.next()) {
        (Some(linear), None) => {
            let output = linear.output;
            let mut trace = Trace { linear, tail: Vec::new(), output };
            extend(graph, &mut trace);
            Ok(trace)
        }
        (Some(_), Some(_)) => Err(Error::new(ErrorKind::Ambiguous, "several linear layers that read it")
            .tensor(quoted(wanted))
            .expected("one")
            .fix("name the layer too: MODEL.onnx#NODE")),
        (None, _) => Err(Error::new(ErrorKind::Argument, "a tensor that no linear layer reads")
            .tensor(quoted(wanted))
            .expected("the input of a linear layer with constant weights")
            .fix(listed_layers(graph))),
    }
}

fn no_such_tensor(graph: &Graph, wanted: &str) -> Error {
    Error::new(ErrorKind::Missing, listed_layers(graph)).tensor(quoted(wanted)).expected("a tensor of this name")
}

/// The last linear layers of the graph, for messages.
fn listed_layers(graph: &Graph) -> String {
    let layers: Vec<String> = graph
        .order
        .iter()
        .rev()
        .filter_map(|place| {
            let linear = Linear::at(graph, *place).ok()??;
            Some(format!("{} (features {})", named(&graph.nodes[*place]), quoted(linear.features)))
        })
        .take(5)
        .collect();
    if layers.is_empty() { "no linear layer".into() } else { format!("the linear layers {}", layers.join(", ")) }
}

/// Walks back from a tensor to the linear operator it comes from.
fn trace<'m>(graph: &Graph<'m>, from: &str) -> Result<Trace<'m>> {
    let Some(output) = graph.tensor(from) else { return Err(no_such_tensor(graph, from)) };
    let mut tail = Vec::new();
    let mut tensor = output;
    while tail.len() <= MAX_TAIL {
        let Some((place, node)) = graph.producer(tensor) else {
            return Err(Error::new(ErrorKind::Missing, "no linear layer between it and the model's input")
                .tensor(quoted(output))
                .expected("a tensor that comes from a linear layer with constant weights")
                .fix("name a layer: MODEL.onnx#NODE"));
        };
        if let Some(linear) = Linear::at(graph, place)? {
            tail.reverse();
            return Ok(Trace { linear, tail, output });
        }
        if node.output.first().is_some_and(|first| first != tensor) && !is_label(node) {
            return Err(Error::new(ErrorKind::Unsupported, format!("its output {}", quoted(tensor)))
                .tensor(named(node))
                .expected("the first output of the operators behind a head"));
        }
        tensor = step(graph, node)?;
        tail.push(place);
    }
    Err(Error::new(ErrorKind::Unsupported, format!("more than {MAX_TAIL} operators"))
        .tensor(quoted(output))
        .expected("a linear layer near the output")
        .fix("name it: MODEL.onnx#NODE"))
}

/// The input of an operator that carries the logits, for operators that may follow a head.
fn step<'m>(graph: &Graph<'m>, node: &'m NodeProto) -> Result<&'m str> {
    let input = |place: usize| node.input.get(place).map(String::as_str).filter(|name| !name.is_empty());
    let refuse = |found: &str| {
        Err(Error::new(ErrorKind::Unsupported, found.to_owned())
            .tensor(named(node))
            .expected("a linear layer, with no more than softmax, pooling and the like behind it")
            .fix(if node.op_type.starts_with("Fused") {
                "an optimiser merged a layer with its activation: give the model as it was before"
            } else {
                "if there is a linear layer before it, name it: MODEL.onnx#NODE"
            }))
    };
    let carried = match &*node.op_type {
        "Add" | "Sub" | "Mul" | "Div" if is_standard(node) => {
            let constant = |place| input(place).is_some_and(|name| graph.is_constant(name));
            match (constant(0), constant(1)) {
                (false, true) => input(0),
                (true, false) if node.op_type != "Div" => input(1),
                _ => return refuse("two computed operands"),
            }
        }
        "QLinearAdd" => {
            let constant = |places: [usize; 3]| {
                places.into_iter().all(|place| input(place).is_some_and(|name| graph.is_constant(name)))
            };
            match (constant([0, 1, 2]), constant([3, 4, 5])) {
                (false, true) => input(0),
                (true, false) => input(3),
                _ => return refuse("two computed operands"),
            }
        }
        "BatchNormalization" => {
            if !(1..5).all(|place| input(place).is_some_and(|name| graph.is_constant(name))) {
                return refuse("computed statistics");
            }
            input(0)
        }
        _ if effect(node) == Effect::None => return refuse("an operator that does not follow a head"),
        _ => input(0),
    };
    match carried {
        Some(tensor) => Ok(tensor),
        None => refuse("no input"),
    }
}

/// Reads the weights and says what surrounds them.
fn read(graph: &Graph, trace: &Trace, options: &HeadOptions) -> Result<FoundHead> {
    let linear = &trace.linear;
    let node = &graph.nodes[linear.node];
    let fail = |error: Error| error.tensor(named(node));
    let mut weights = linear.weights(graph).map_err(fail)?;
    let classes = weights.bias.len();
    let is_pooled = trace.tail.iter().any(|place| pools(&graph.nodes[*place]));
    let many = positions(graph, linear, is_pooled).map_err(fail)?;

    let tail = Tail::along(graph, linear, &trace.tail, &mut weights, many)?;
    check_classes(graph, trace, classes).map_err(fail)?;
    if many && !tail.exact && *options == HeadOptions::default() {
        check_softmax(graph, trace).map_err(fail)?;
    }
    let mut notes = tail.notes(graph, linear, &trace.tail, many);
    let layout = match (linear.axis, many) {
        (Axis::First, _) => Layout::Columns,
        (Axis::Channel, true) => Layout::Channels { exact: tail.exact },
        (Axis::Last, true) => Layout::Positions { exact: tail.exact },
        _ => Layout::Rows,
    };
    let (features, layout) = match &options.features {
        None => (linear.features, layout),
        Some(wanted) => override_features(graph, linear, layout, wanted, &mut notes)?,
    };
    let units = weights.units;
    let head = LinearHead::from_rows(weights.weight, weights.bias, units)
        .map_err(|error| error.tensor(named(node)).fix("the weights of the model are damaged"))?;
    Ok(FoundHead {
        head,
        node: label_of(node).to_owned(),
        operator: operators(graph, &tail.parts),
        features: features.to_owned(),
        layout,
        quantization: linear.quantization.filter(|_| features == linear.features),
        logits: tail.logits.to_owned(),
        followed_by: tail.pending.iter().map(|place| following(&graph.nodes[*place])).collect(),
        output: trace.output.to_owned(),
        nonnegative: sign_of(graph, linear, features),
        notes,
    })
}

/// Whether the head is applied at many positions of its features.
fn positions(graph: &Graph, linear: &Linear, is_pooled: bool) -> Result<bool> {
    let extents = declared(graph, linear.features);
    let inner = extents.as_deref().and_then(|extents| match linear.axis {
        Axis::Channel => extents.get(2..),
        Axis::Last if graph.nodes[linear.node].op_type != "Gemm" => extents.get(1..extents.len().saturating_sub(1)),
        _ => Some(&[]),
    });
    let many = match inner {
        Some(inner) if inner.iter().all(|extent| *extent == Some(1)) => false,
        Some(inner) if inner.iter().any(|extent| extent.is_some_and(|extent| extent > 1)) => true,
        _ => is_pooled,
    };
    if many && !is_pooled {
        return Err(Error::new(ErrorKind::Unsupported, "a class for every position (segmentation or tagging)")
            .expected("one prediction for each input")
            .fix("models that predict maps or sequences are not supported"));
    }
    Ok(many)
}

/// The dimensions of a tensor, looked up behind operators that keep them.
fn declared(graph: &Graph, tensor: &str) -> Option<Vec<Option<usize>>> {
    let mut tensor = tensor;
    for _ in 0..16 {
        if let Some(dimensions) = graph.dimensions(tensor) {
            return Some(dimensions);
        }
        let (_, node) = graph.producer(tensor)?;
        match &*node.op_type {
            "GlobalAveragePool" | "GlobalMaxPool" | "QLinearGlobalAveragePool" => {
                return Some(vec![None, None, Some(1), Some(1)]);
            }
            "Flatten" => return Some(vec![None, None]),
            "Identity" | "Dropout" | "QuantizeLinear" | "DequantizeLinear" | "Cast" | "Relu" | "Clip"
            | "BatchNormalization" => tensor = node.input.first()?,
            _ => return None,
        }
    }
    None
}

/// Refuses a head of one class, and one whose classes are not what the output holds.
fn check_classes(graph: &Graph, trace: &Trace, classes: usize) -> Result<()> {
    if classes == 1 {
        return Err(Error::new(ErrorKind::Unsupported, "one class, a single logit")
            .expected("at least two classes: the score is taken over their logits")
            .fix(
                "a binary model with one output has no logits to compare: train or export it with one output a class",
            ));
    }
    let output = graph.outputs.iter().find(|output| output.name == trace.output);
    let extents = output.and_then(dimensions_of);
    let labels = trace.tail.iter().any(|place| is_label(&graph.nodes[*place]));
    let Some([_, rest @ ..]) = extents.as_deref().filter(|extents| extents.len() > 1 && !labels) else { return Ok(()) };
    let size = rest.iter().try_fold(1usize, |size, extent| size.checked_mul((*extent)?));
    match size {
        Some(size) if size != classes && trace.linear.axis != Axis::First => {
            let found = format!("{classes} classes for {size} values of output {}", quoted(trace.output));
            Err(Error::new(ErrorKind::Unsupported, found)
                .expected("one logit for each class of each input")
                .fix("models that predict boxes, maps or sequences are not supported"))
        }
        _ => Ok(()),
    }
}

/// Refuses an activation between layer and pooling unless a softmax says that these are classes.
fn check_softmax(graph: &Graph, trace: &Trace) -> Result<()> {
    if trace.tail.iter().any(|place| effect(&graph.nodes[*place]) == Effect::Probabilities) {
        return Ok(());
    }
    let found = "a 1x1 layer, an activation and pooling, as at the end of a backbone without a head";
    Err(Error::new(ErrorKind::Ambiguous, found)
        .expected("a softmax after it, or a linear layer after the pooling")
        .fix(format!("if it is the classifier, say so: MODEL.onnx#{}", label_of(&graph.nodes[trace.linear.node]))))
}

/// Reads another tensor of the way to the head, where only reshaping and pooling lie between.
fn override_features<'m>(
    graph: &Graph<'m>,
    linear: &Linear<'m>,
    layout: Layout,
    wanted: &str,
    notes: &mut Vec<String>,
) -> Result<(&'m str, Layout)> {
    let Some(wanted) = graph.tensor(wanted) else { return Err(no_such_tensor(graph, wanted)) };
    let between = leads_to(graph, linear.features, wanted).ok_or_else(|| {
        Error::new(ErrorKind::Argument, format!("the head reads {}", quoted(linear.features)))
            .tensor(quoted(wanted))
            .expected("the tensor that feeds the head, or one that becomes it by reshaping and pooling alone")
            .fix("leave the features out, or name the layer that reads them: MODEL.onnx#NODE")
    })?;
    if between.is_empty() {
        return Ok((wanted, layout));
    }
    notes.push(format!("Features are read before {}, as asked.", operators(graph, &between)));
    let pools = between.iter().any(|place| effect(&graph.nodes[*place]) == Effect::Average);
    // An average over tokens leaves the last axis, one over a map the second.
    let keeps_last = between.iter().any(|place| {
        let node = &graph.nodes[*place];
        node.op_type == "ReduceMean" && reduces_second(graph, node)
    });
    match (pools, layout) {
        (false, layout) => Ok((wanted, layout)),
        (true, Layout::Rows) if keeps_last => Ok((wanted, Layout::Positions { exact: true })),
        (true, Layout::Rows) => Ok((wanted, Layout::Channels { exact: true })),
        (true, _) => {
            Err(Error::new(ErrorKind::Unsupported, "pooling before and after the head").tensor(quoted(wanted)))
        }
    }
}

fn reduces_second(graph: &Graph, node: &NodeProto) -> bool {
    let axes = match node.input.get(1) {
        Some(axes) => graph.small(axes).and_then(|axes| axes.as_ints().map(<[i64]>::to_vec).ok()),
        None => attribute(node, "axes").map(|axes| axes.ints.clone()),
    };
    axes.is_some_and(|axes| axes.contains(&1))
}

/// The operators between `wanted` and `tensor`, if they only reshape, round or average.
fn leads_to(graph: &Graph, tensor: &str, wanted: &str) -> Option<Vec<usize>> {
    let mut between = Vec::new();
    let mut tensor = tensor;
    while between.len() <= MAX_TAIL {
        if tensor == wanted {
            between.reverse();
            return Some(between);
        }
        let (place, node) = graph.producer(tensor)?;
        match effect(node) {
            Effect::Shape | Effect::Rounding | Effect::Average if node.op_type != "Transpose" => {
                between.push(place);
                tensor = node.input.first()?;
            }
            _ => return None,
        }
    }
    None
}

fn sign_of(graph: &Graph, linear: &Linear, features: &str) -> Nonnegative {
    match linear.quantization {
        Some(_) if features == linear.features && linear.unsigned => {
            Nonnegative::Yes("their quantisation has nothing below zero".into())
        }
        Some(_) if features == linear.features => {
            Nonnegative::Unknown("their quantisation has values below zero".into())
        }
        _ => nonnegative(graph, features),
    }
}

fn following(node: &NodeProto) -> Following {
    Following { operator: node.op_type.clone(), node: label_of(node).to_owned() }
}

fn operators(graph: &Graph, places: &[usize]) -> String {
    let names: Vec<&str> = places.iter().map(|place| &*graph.nodes[*place].op_type).collect();
    names.join(", ")
}

/// A node's name, or that of its output where it has none.
fn label_of(node: &NodeProto) -> &str {
    match (&*node.name, node.output.first()) {
        ("", Some(output)) => output,
        (name, _) => name,
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
