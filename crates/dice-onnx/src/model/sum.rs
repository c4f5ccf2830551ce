//! Sums of linear layers: logits that are the mean of what several heads say, as those of networks distilled from a teacher. Such a sum is
//! one layer that reads all that they read:
//!
//! ```text
//! (W x + b + V y + c) / 2 = [W / 2, V / 2] [x; y] + (b + c) / 2
//! ```
//!
//! Layers of one vector, each behind a normalisation of its own too, are one layer of that vector. Recognised is what is linear for sure:
//! constant weights and shares, one vector of each input for each layer, and no other reader of what a layer says. The last parts heads from
//! the residual sums of a network, whose addends are read again by the next block.

use dice_ood::{Error, ErrorKind, Result};

use crate::model::graph::Graph;
use crate::model::linear::{Axis, Linear, Term};
use crate::model::node::{attribute, integer, is_standard, named};
use crate::model::proto::NodeProto;
use crate::model::tail::scaled_by_constants;

/// Most layers of a sum, and most operators between one and the sum.
const MAX_TERMS: usize = 16;
const MAX_BETWEEN: usize = 16;

/// What an operator adds up, and by what it multiplies each.
struct Addends<'m> {
    tensors: Vec<&'m str>,
    share: f32,
    /// The operators that put these in one tensor first, where any do.
    stacked_by: Vec<usize>,
}

/// The layer that the operator at `place` makes by adding up several: `None` where it adds up nothing, or something else.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a sum of layers of which one does not read one vector of each input.
pub(crate) fn sum_at<'m>(graph: &Graph<'m>, place: usize) -> Result<Option<Linear<'m>>> {
    let Some((mut terms, adding)) = terms(graph, place) else { return Ok(None) };
    let flattens = |place: &usize| graph.nodes[*place].op_type == "Flatten";
    let is_flat = |term: &Term| term.linear.axis == Axis::Last || term.between.iter().any(flattens);
    // Rows of classes and maps of classes would be added up in all pairs.
    let mixed = terms.iter().any(is_flat) && !terms.iter().all(is_flat);
    if let Some(other) = terms.iter().find(|term| mixed || !reads_vectors(graph, &term.linear)) {
        return Err(Error::new(ErrorKind::Unsupported, named(&graph.nodes[other.linear.node]))
            .tensor(named(&graph.nodes[place]))
            .expected("a sum of layers without rounding, each of one vector of each input")
            .fix("name one of the layers: MODEL.onnx#NODE"));
    }
    let tensors = tensors(graph, &mut terms);
    Linear::sum(graph, place, (terms, adding), &tensors).map(Some)
}

/// The layers that the operator at `place` adds up, and the operators that add, it last.
fn terms<'m>(graph: &Graph<'m>, place: usize) -> Option<(Vec<Term<'m>>, Vec<usize>)> {
    let (mut terms, mut adding): (Vec<Term>, Vec<usize>) = (Vec::new(), Vec::new());
    let mut open = vec![(place, 1.0)];
    while let Some((place, outer)) = open.pop() {
        let Addends { tensors, share, stacked_by } = addends(graph, &graph.nodes[place])?;
        adding.splice(0..0, stacked_by.into_iter().chain([place]));
        for tensor in tensors {
            let (between, maker) = made_by_layer_or_sum(graph, tensor)?;
            match Linear::at(graph, maker).ok()? {
                Some(linear) => {
                    terms.push(Term { linear, between, share: outer * share, normalization: None, reads: 0 });
                }
                // A shift behind a sum would count for each of its addends.
                None if between.is_empty() => open.push((maker, outer * share)),
                None => return None,
            }
        }
        if terms.len() + open.len() > MAX_TERMS {
            return None;
        }
    }
    terms.sort_by_key(|term| term.linear.node);
    Some((terms, adding))
}

/// Back from `tensor` over scales and shifts to a layer or a sum: the operators between, in order, and its place. What lies between has no
/// other reader.
fn made_by_layer_or_sum(graph: &Graph<'_>, tensor: &str) -> Option<(Vec<usize>, usize)> {
    let mut between = Vec::new();
    let mut tensor = tensor;
    while between.len() <= MAX_BETWEEN && graph.consumers(tensor).len() == 1 {
        let (place, node) =
            graph.producer(tensor).filter(|(_, node)| node.output.first().is_some_and(|it| it == tensor))?;
        if Linear::at(graph, place).ok()?.is_some() || addends(graph, node).is_some() {
            between.reverse();
            return Some((between, place));
        }
        tensor = match &*node.op_type {
            "Identity" | "Dropout" => node.input.first()?,
            "Flatten" if integer(node, "axis", 1) == 1 => node.input.first()?,
            _ => scaled_by_constants(graph, node)?,
        };
        between.push(place);
    }
    None
}

fn addends<'m>(graph: &Graph<'m>, node: &'m NodeProto) -> Option<Addends<'m>> {
    let several = |share: f32| {
        let computed = node.input.iter().all(|name| !name.is_empty() && !graph.is_constant(name));
        let tensors = node.input.iter().map(String::as_str).collect();
        (computed && node.input.len() > 1).then_some(Addends { tensors, share, stacked_by: Vec::new() })
    };
    match &*node.op_type {
        _ if !is_standard(node) => None,
        "Add" | "Sum" => several(1.0),
        "Mean" => several(1.0 / node.input.len() as f32),
        "ReduceSum" => stacked(graph, node),
        "ReduceMean" => {
            let stacked = stacked(graph, node)?;
            Some(Addends { share: 1.0 / stacked.tensors.len() as f32, ..stacked })
        }
        _ => None,
    }
}

/// The tensors that were stacked along a new axis, which `reduction` takes away: each unsqueezed, then all concatenated.
fn stacked<'m>(graph: &Graph<'m>, reduction: &'m NodeProto) -> Option<Addends<'m>> {
    let stack = reduction.input.first()?;
    let (concat, node) = graph.producer(stack).filter(|(_, node)| node.op_type == "Concat" && is_standard(node))?;
    let rank = graph.dimensions(stack).map(|extents| extents.len() as i64);
    let from_start = |axis: i64| if axis < 0 { rank.map_or(axis, |rank| axis + rank) } else { axis };
    let axis = from_start(attribute(node, "axis")?.i);
    let is_it = |node: &NodeProto| matches!(graph.axes(node)?[..], [only] if from_start(only) == axis).then_some(());
    is_it(reduction)?;
    let (mut tensors, mut stacked_by) = (Vec::new(), Vec::new());
    for name in &node.input {
        let (place, node) =
            graph.producer(name).filter(|(_, node)| node.op_type == "Unsqueeze" && is_standard(node))?;
        is_it(node)?;
        tensors.push(node.input.first()?.as_str());
        stacked_by.push(place);
        if graph.consumers(name).len() != 1 {
            return None;
        }
    }
    stacked_by.push(concat);
    (graph.consumers(stack).len() == 1).then_some(Addends { tensors, share: 1.0, stacked_by })
}

/// Whether `linear` reads one vector of each input, as far as shapes tell, and says of it what its weights make of it.
fn reads_vectors(graph: &Graph, linear: &Linear) -> bool {
    let rounds = linear.rounds || linear.cuts || linear.integer_output || linear.quantization.is_some();
    let extents = || graph.dimensions_behind(linear.features);
    let vectors = match linear.axis {
        Axis::Last if graph.nodes[linear.node].op_type == "Gemm" => true,
        Axis::Last => extents().is_none_or(|extents| extents.len() == 2),
        Axis::Channel => extents().is_some_and(|extents| extents.iter().skip(2).all(|extent| *extent == Some(1))),
        Axis::All => true,
        Axis::First => false,
    };
    vectors && !rounds
}

/// The tensors that `terms` read, each once. Layers that read one vector behind normalisations of their own read that vector then.
fn tensors<'m>(graph: &Graph<'m>, terms: &mut [Term<'m>]) -> Vec<&'m str> {
    let read: Vec<&str> = terms.iter().map(|term| term.linear.features).collect();
    let normalizations: Vec<_> = terms.iter().map(|term| normalization(graph, &term.linear)).collect();
    for (term, own) in terms.iter_mut().zip(&normalizations) {
        let Some((place, vector)) = *own else { continue };
        let is_shared = read.iter().zip(&normalizations).any(|(other, normalization)| {
            let comes_from = normalization.map_or(*other, |(_, vector)| vector);
            *other != term.linear.features && (*other == vector || comes_from == vector)
        });
        if is_shared {
            (term.normalization, term.linear.features) = (Some(place), vector);
        }
    }
    let mut tensors = Vec::new();
    for term in terms {
        let known = tensors.iter().position(|tensor| *tensor == term.linear.features);
        term.reads = known.unwrap_or_else(|| {
            tensors.push(term.linear.features);
            tensors.len() - 1
        });
    }
    tensors
}

/// The operator that scales and shifts each unit of what `linear` reads, and what it is given.
fn normalization<'m>(graph: &Graph<'m>, linear: &Linear<'m>) -> Option<(usize, &'m str)> {
    let (place, node) = graph.producer(linear.features)?;
    let is_by_unit = matches!(&*graph.nodes[linear.node].op_type, "Gemm" | "Conv") && linear.axis != Axis::All;
    let is_fixed = is_by_unit && node.op_type == "BatchNormalization" && integer(node, "training_mode", 0) == 0;
    let vector = scaled_by_constants(graph, node).filter(|_| is_fixed)?;
    Some((place, vector))
}

/// What a user should know of a sum of whose tensors each has these `widths`; `behind` are the operators after it that belong to the head.
pub(crate) fn note(graph: &Graph, sum: &Linear, behind: &[usize], widths: &[usize]) -> Option<String> {
    let terms = sum.terms();
    let heads = match terms.len() {
        0 => return None,
        2 => "two heads".to_owned(),
        count => format!("{count} heads"),
    };
    let share = |term: &Term| {
        let scales = term.between.iter().chain(behind).map(|place| scale(graph, &graph.nodes[*place]));
        scales.product::<Option<f32>>().map(|scale| scale * term.share)
    };
    let is_even = |term: &Term| share(term).is_some_and(|share| (share * terms.len() as f32 - 1.0).abs() < 1e-6);
    let what = if terms.iter().all(is_even) { "mean" } else { "weighted sum" };
    Some(match widths {
        [_] => format!(
            "The logits are the {what} of {heads} of the same features, which is one head: the {what} of their weights."
        ),
        _ => {
            let widths: Vec<String> = widths.iter().map(ToString::to_string).collect();
            let widths = widths.join(" + ");
            let read = if terms.len() == 2 { "both read" } else { "each of them reads" };
            format!(
                "The logits are the {what} of {heads}: features are what {read}, one behind the other, [N, {widths}]."
            )
        }
    })
}

/// By what an operator of constants multiplies all logits; `None` where it is another number for each class.
fn scale(graph: &Graph, node: &NodeProto) -> Option<f32> {
    let constant = || {
        let constant = node.input.iter().find_map(|name| graph.small(name))?.into_f32();
        if let [value] = constant[..] { Some(value) } else { None }
    };
    match &*node.op_type {
        "Mul" => constant(),
        "Div" => constant().map(|value| 1.0 / value),
        "BatchNormalization" => None,
        "Sub" if graph.is_constant(node.input.first()?) => Some(-1.0),
        _ => Some(1.0),
    }
}

#[cfg(test)]
mod tests;
