//! A softmax that an exporter wrote out as exponentials over their sum, as JAX does.

use crate::model::graph::Graph;
use crate::model::node::is_standard;
use crate::model::proto::NodeProto;

/// Operators between a sum or a maximum and where it is divided by or taken off.
const MOST_BETWEEN: usize = 8;

/// The logits `l` where `node` is the division of `exp(l)`, or of `exp(l - max(l))`, by its sum.
pub(crate) fn logits_of<'m>(graph: &Graph<'m>, node: &'m NodeProto) -> Option<&'m str> {
    let [exponentials, sum] = &node.input[..] else { return None };
    if node.op_type != "Div" || !is_standard(node) || !reduces(graph, sum, exponentials, "ReduceSum") {
        return None;
    }
    let exponent = made_by(graph, exponentials, "Exp")?.input.first()?;
    let shifted = made_by(graph, exponent, "Sub").and_then(|node| match &node.input[..] {
        [logits, largest] if reduces(graph, largest, logits, "ReduceMax") => Some(logits),
        _ => None,
    });
    Some(shifted.unwrap_or(exponent))
}

fn made_by<'m>(graph: &Graph<'m>, tensor: &str, operator: &str) -> Option<&'m NodeProto> {
    graph.producer(tensor).map(|(_, node)| node).filter(|node| node.op_type == operator && is_standard(node))
}

/// Whether `tensor` is what `operator` makes of `of`, spread again over what it was taken of.
fn reduces(graph: &Graph, tensor: &str, of: &str, operator: &str) -> bool {
    let mut tensor = tensor;
    for _ in 0..MOST_BETWEEN {
        let Some((_, node)) = graph.producer(tensor).filter(|(_, node)| is_standard(node)) else { return false };
        let computed = node.input.iter().find(|name| !name.is_empty() && !graph.is_constant(name));
        let Some(first) = computed else { return false };
        match &*node.op_type {
            reducing if reducing == operator => return first == of,
            // JAX takes the larger of the maximum and negative infinity.
            "Max" if node.input.iter().filter(|name| !graph.is_constant(name)).count() == 1 => tensor = first,
            "Reshape" | "Expand" | "Unsqueeze" | "Squeeze" | "Identity" | "Cast" => {
                let Some(carried) = node.input.first() else { return false };
                tensor = carried;
            }
            _ => return false,
        }
    }
    false
}
