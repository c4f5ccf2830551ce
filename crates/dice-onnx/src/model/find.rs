//! Finding the head: its weights, what feeds it and what follows it.

use dice_ood::{Error, ErrorKind, LinearHead, Result};

use crate::model::Model;
use crate::model::graph::{Graph, dimensions_of};
use crate::model::head::{FeatureLayout, Following, FoundHead, HeadOptions, Made, Selection};
use crate::model::linear::{Axis, Linear};
use crate::model::node::{label_of, named};
use crate::model::proto::NodeProto;
use crate::model::rounding::{Rounding, rounding};
use crate::model::sign::{Nonnegative, nonnegative};
use crate::model::sum;
use crate::model::tail::{Effect, Tail, effect, effect_in, is_label, pools, selection};
use crate::model::trace::{Trace, from_features, from_node, from_outputs, leads_to, no_such_tensor};
use crate::text::quoted;

impl Model {
    /// Finds the head: back from the output to the last linear operator with constant weights, or to a sum of several.
    ///
    /// Looked through on the way: softmax (written out too), sigmoid and ReLU of logits, reshaping, casts, pooling after a 1x1 convolution, pairs of
    /// QuantizeLinear and DequantizeLinear, ArgMax and TopK. Weights may be initializers (also those listed as inputs), Constant
    /// nodes, in other files, and behind reshaping, transposition, casts or dequantisation.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where there is no such head (classical models, one class, computed weights, predictions at every
    /// position), [`ErrorKind::Ambiguous`] with the candidates where there are several, [`ErrorKind::Missing`] for names in
    /// `options` or external data that do not exist, [`ErrorKind::Malformed`], [`ErrorKind::Shape`] and
    /// [`ErrorKind::NotFinite`] for weights that are damaged.
    pub fn find_head(&self, options: &HeadOptions) -> Result<FoundHead> {
        let found = || find(&self.graph()?, options);
        found().map_err(|error| error.file(self.path().display()))
    }
}

/// Finds the head; see [`crate::Model::find_head`].
fn find<'m>(graph: &Graph<'m>, options: &HeadOptions) -> Result<FoundHead> {
    let trace = match (&options.head, &options.features) {
        (Some(head), _) => from_node(graph, head)?,
        (None, Some(features)) => from_features(graph, features)?,
        (None, None) => from_outputs(graph)?,
    };
    read(graph, &trace, options)
}

/// Reads the weights and says what surrounds them.
fn read(graph: &Graph, trace: &Trace, options: &HeadOptions) -> Result<FoundHead> {
    let linear = &trace.linear;
    let node = &graph.nodes[linear.node];
    let fail = |error: Error| error.tensor(named(node));
    let mut weights = linear.weights(graph).map_err(fail)?;
    let classes = weights.bias.len();
    let is_pooled = trace.tail.iter().any(|place| pools(&graph.nodes[*place]));
    let selection = trace.tail.iter().find_map(|place| selection(graph, &graph.nodes[*place]));
    let many = has_positions(graph, linear, is_pooled || selection.is_some()).map_err(fail)?;

    let tail = Tail::along(graph, linear, &trace.tail, &mut weights, many)?;
    check_classes(graph, trace, classes).map_err(fail)?;
    if many && !tail.exact && *options == HeadOptions::default() {
        check_softmax(graph, trace).map_err(fail)?;
    }
    let mut notes = tail.notes(graph, linear, &trace.tail, many);
    let layout = match (linear.axis, many, &selection) {
        (Axis::First, ..) => FeatureLayout::Columns,
        (Axis::Last, true, Some(Selection::Fixed(position))) => FeatureLayout::Selected { position: *position },
        (Axis::Last, true, Some(Selection::Computed(_))) => FeatureLayout::SelectedByInput,
        (Axis::Channel, true, _) => FeatureLayout::Channels { exact: tail.exact },
        (Axis::Last, true, None) => FeatureLayout::Positions { exact: tail.exact },
        _ if !linear.further.is_empty() => FeatureLayout::Joined,
        _ => FeatureLayout::Rows,
    };
    notes.extend(sum::note(graph, linear, &tail.parts[linear.parts.len()..], &weights.widths));
    let joined = linear.reads();
    let (features, layout) = match &options.features {
        Some(wanted) if *wanted != joined => override_features(graph, linear, layout, wanted, &mut notes)?,
        _ => (&*joined, layout),
    };
    let tensors: Vec<&str> = if layout == FeatureLayout::Joined { linear.tensors().collect() } else { vec![features] };
    let made = match (layout, selection) {
        (FeatureLayout::SelectedByInput, Some(Selection::Computed(positions))) => Some(Made::Selected(positions)),
        (FeatureLayout::Joined, _) => {
            let widths = weights.widths.iter().copied();
            Some(Made::Joined(tensors.iter().map(ToString::to_string).zip(widths).collect()))
        }
        _ => None,
    };
    let rounding = tensors.iter().filter_map(|tensor| rounding(graph, tensor)).reduce(Rounding::both);
    notes.extend(rounding.map(|rounding| rounding.to_string()));
    let units = weights.units;
    let head = LinearHead::from_rows(weights.weight, weights.bias, units)
        .map_err(|error| error.tensor(named(node)).fix("the weights of the model are damaged"))?;
    Ok(FoundHead {
        head,
        node: label_of(node).to_owned(),
        operator: operators(graph, &tail.parts),
        features: features.to_owned(),
        layout,
        made,
        quantization: linear.quantization.filter(|_| features == linear.features),
        rounding,
        logits: tail.logits.to_owned(),
        followed_by: tail.pending.iter().map(|place| following(&graph.nodes[*place])).collect(),
        output: trace.output.to_owned(),
        nonnegative: Nonnegative::of_all(tensors.iter().map(|tensor| sign_of(graph, linear, tensor))),
        notes,
    })
}

/// Whether the head is applied at many positions of its features, which are pooled, or one selected, behind it where `is_pooled`.
fn has_positions(graph: &Graph, linear: &Linear, is_pooled: bool) -> Result<bool> {
    let extents = graph.dimensions_behind(linear.features);
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
    if trace.tail.iter().any(|place| effect_in(graph, &graph.nodes[*place]) == Effect::Probabilities) {
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
    layout: FeatureLayout,
    wanted: &str,
    notes: &mut Vec<String>,
) -> Result<(&'m str, FeatureLayout)> {
    let Some(wanted) = graph.tensor(wanted) else { return Err(no_such_tensor(graph, wanted)) };
    let leads = leads_to(graph, linear.features, wanted).filter(|_| linear.further.is_empty());
    let between = leads.ok_or_else(|| {
        Error::new(ErrorKind::Argument, format!("the head reads {}", quoted(&linear.reads())))
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
        node.op_type == "ReduceMean" && graph.axes(node).is_some_and(|axes| axes.contains(&1))
    });
    match (pools, layout) {
        (false, layout) => Ok((wanted, layout)),
        (true, FeatureLayout::Rows) if keeps_last => Ok((wanted, FeatureLayout::Positions { exact: true })),
        (true, FeatureLayout::Rows) => Ok((wanted, FeatureLayout::Channels { exact: true })),
        (true, _) => {
            Err(Error::new(ErrorKind::Unsupported, "pooling before and after the head").tensor(quoted(wanted)))
        }
    }
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

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
