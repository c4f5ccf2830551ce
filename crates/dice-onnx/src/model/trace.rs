//! The search for the head: back from the outputs, or from a node or a tensor that was named.

use std::collections::{BTreeMap, HashSet};

use dice_ood::{Error, ErrorKind, Result};

use crate::model::graph::Graph;
use crate::model::linear::Linear;
use crate::model::node::{ADDED, is_standard, label_of, named};
use crate::model::proto::NodeProto;
use crate::model::softmax;
use crate::model::sum::sum_at;
use crate::model::tail::{Effect, effect, effect_in, is_label, scaled_by_constants, selection};
use crate::text::quoted;

/// Longest way from a head to an output, and most outputs looked at.
const MAX_TAIL: usize = 256;
const MAX_OUTPUTS: usize = 64;

/// The way from a head to a tensor: the nodes between, in order.
#[derive(Debug, Clone)]
pub(crate) struct Trace<'m> {
    pub(crate) linear: Linear<'m>,
    pub(crate) tail: Vec<usize>,
    pub(crate) output: &'m str,
}

pub(crate) fn from_outputs<'m>(graph: &Graph<'m>) -> Result<Trace<'m>> {
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
    let of_detector = |name: &str| graph.producer(name).is_some_and(|(_, node)| node.name.starts_with(ADDED));
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

/// Drops heads whose output feeds another head, or that another one adds up: the last one is meant.
fn drop_inner(graph: &Graph, heads: &mut BTreeMap<usize, Trace>) {
    let mut inner = HashSet::new();
    for trace in heads.values() {
        let mut seen: HashSet<usize> = trace.linear.terms().iter().map(|term| term.linear.node).collect();
        let mut open: Vec<&str> = trace.linear.tensors().collect();
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

pub(crate) fn from_node<'m>(graph: &Graph<'m>, wanted: &str) -> Result<Trace<'m>> {
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

pub(crate) fn from_features<'m>(graph: &Graph<'m>, wanted: &str) -> Result<Trace<'m>> {
    // The head that the outputs lead to, if it reads these features.
    let by_outputs = from_outputs(graph);
    let is_read = |linear: &Linear| match linear.further[..] {
        [] => leads_to(graph, linear.features, wanted).is_some(),
        _ => linear.reads() == wanted,
    };
    if by_outputs.as_ref().is_ok_and(|trace| is_read(&trace.linear)) {
        return by_outputs;
    }
    let Some(wanted) = graph.tensor(wanted) else { return Err(no_such_tensor(graph, wanted)) };
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

pub(crate) fn no_such_tensor(graph: &Graph, wanted: &str) -> Error {
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
        if let Some(linear) = sum_at(graph, place)? {
            tail.reverse();
            check_behind_sum(graph, place, &tail)?;
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

/// Refuses a sum of layers with another operator behind it than those of classifiers: such sums are within networks too, before an activation.
fn check_behind_sum(graph: &Graph, sum: usize, tail: &[usize]) -> Result<()> {
    let is_of_classifier = |node: &NodeProto| match effect_in(graph, node) {
        Effect::Shape | Effect::Affine | Effect::Probabilities | Effect::Label => true,
        _ => node.op_type == "Sigmoid",
    };
    match tail.iter().map(|place| &graph.nodes[*place]).find(|node| !is_of_classifier(node)) {
        None => Ok(()),
        Some(node) => {
            let (sum, behind) = (&graph.nodes[sum], named(node));
            Err(Error::new(ErrorKind::Ambiguous, format!("a sum of layers, and {behind} behind it"))
                .tensor(named(sum))
                .expected(
                    "logits that are the mean of several heads, with no more than a softmax or the like behind them",
                )
                .fix(format!("if these are the logits, say so: MODEL.onnx#{}", label_of(sum))))
        }
    }
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
            match scaled_by_constants(graph, node).or_else(|| softmax::logits_of(graph, node)) {
                Some(logits) => Some(logits),
                None => return refuse("two computed operands"),
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
        "BatchNormalization" => match scaled_by_constants(graph, node) {
            Some(logits) => Some(logits),
            None => return refuse("computed statistics"),
        },
        "Gather" | "GatherND" | "GatherElements" | "Slice" => {
            match input(0).and_then(|tensor| layer_at_positions(graph, tensor)) {
                Some(_) if selection(graph, node).is_some() => input(0),
                Some(linear) => return Err(selected(graph, node, &linear)),
                None => return refuse("an operator that does not follow a head"),
            }
        }
        _ if effect(node) == Effect::Foreign => return refuse("an operator that does not follow a head"),
        _ => input(0),
    };
    match carried {
        Some(tensor) => Ok(tensor),
        None => refuse("no input"),
    }
}

/// The layer that makes `tensor`, shifts and scales left aside, where it is applied at every position of a sequence as far as shapes
/// tell.
fn layer_at_positions<'m>(graph: &Graph<'m>, tensor: &str) -> Option<Linear<'m>> {
    const NEAR: usize = 8;
    let mut tensor = tensor;
    for _ in 0..NEAR {
        let (place, node) = graph.producer(tensor)?;
        if let Ok(Some(linear)) = Linear::at(graph, place) {
            let axes = [linear.features, linear.output].into_iter().find_map(|tensor| graph.dimensions(tensor));
            return Some(linear).filter(|_| node.op_type == "MatMul" && axes.is_none_or(|axes| axes.len() > 2));
        }
        tensor = match effect(node) {
            Effect::Shape | Effect::Affine => node.input.iter().find(|name| !graph.is_constant(name))?,
            _ => return None,
        };
    }
    None
}

/// The error for a layer at every position of which `node` selects one: the logits are of one position, the features of all.
fn selected(graph: &Graph, node: &NodeProto, linear: &Linear) -> Error {
    let layer = named(&graph.nodes[linear.node]);
    Error::new(ErrorKind::Unsupported, format!("{layer} before it, applied at every position of a sequence"))
        .tensor(named(node))
        .expected("one position of each input, as in head(hidden)[:, 0], or one selected before the layer")
        .fix("export it so, which gives the same logits: head(hidden[:, 0]) in place of head(hidden)[:, 0]")
}

/// The operators between `wanted` and `tensor`, if they only reshape, round or average.
pub(crate) fn leads_to(graph: &Graph, tensor: &str, wanted: &str) -> Option<Vec<usize>> {
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
