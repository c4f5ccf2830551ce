//! Whether a network is quantised: what makes its features, looked through for operators that round to a few bits.

use std::collections::HashSet;
use std::fmt;

use crate::model::graph::Graph;
use crate::model::proto::NodeProto;

/// How a network that rounds on the way to its features scales what it rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// By scales that the model holds.
    Static,
    /// By scales that each run takes from its own values, those of all inputs that it is given.
    Dynamic,
}

impl Rounding {
    /// That of a network whose parts round so.
    pub(crate) fn both(self, other: Self) -> Self {
        if self == Self::Dynamic { self } else { other }
    }
}

/// What a user should know.
impl fmt::Display for Rounding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "The network is quantised. Runtimes, and the optimisation levels of one, round it in different places, in deep networks by a \
             fifth of the largest feature: fit, score and serve it with one runtime at one level",
        )?;
        f.write_str(match self {
            Self::Static => ".",
            Self::Dynamic => {
                ". Its scales are those of all inputs of a run, which change each other's features: here each runs alone, where the \
                 model does not fix their number; serve it so."
            }
        })
    }
}

/// The rounding in what makes `tensor`, where there is any. Weights that are stored in a few bits alone are none: they are the same in
/// every runtime.
pub(crate) fn rounding(graph: &Graph, tensor: &str) -> Option<Rounding> {
    let (mut seen, mut open, mut found) = (HashSet::new(), vec![tensor], None);
    while let Some(tensor) = open.pop() {
        let Some((place, node)) = graph.producer(tensor) else { continue };
        if !seen.insert(place) {
            continue;
        }
        match of_node(graph, node) {
            Some(Rounding::Dynamic) => return Some(Rounding::Dynamic),
            rounding => found = found.or(rounding),
        }
        open.extend(node.input.iter().map(String::as_str));
    }
    found
}

fn of_node(graph: &Graph, node: &NodeProto) -> Option<Rounding> {
    let computed = |place: usize| {
        let input = node.input.get(place).map(String::as_str).filter(|name| !name.is_empty());
        input.is_some_and(|name| !graph.is_constant(name))
    };
    match &*node.op_type {
        operator if operator.starts_with("DynamicQuantize") => Some(Rounding::Dynamic),
        "QuantizeLinear" if computed(1) => Some(Rounding::Dynamic),
        "QuantizeLinear" => computed(0).then_some(Rounding::Static),
        "ConvInteger" | "MatMulInteger" | "MatMulIntegerToFloat" | "QGemm" | "QAttention" => Some(Rounding::Static),
        operator => operator.starts_with("QLinear").then_some(Rounding::Static),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing::Builder;

    fn of(builder: &Builder) -> Option<Rounding> {
        let found = builder.clone().counting("head", &[3, 2]).node("MatMul", &["h", "head"], &["y"], &[]);
        let found = found.output("y", &[0, 2]).find().unwrap();
        assert_eq!(found.notes.iter().any(|note| note.contains("is quantised")), found.rounding.is_some());
        found.rounding
    }

    #[test]
    fn what_rounds_before_the_features_is_found_and_what_rounds_weights_is_not() {
        let scales = || Builder::new().floats("s", &[], &[0.5]).uint8s("z", &[], &[0]);
        assert_eq!(of(&Builder::new().features()), None);
        let pair = |from: &str, to: &str, scale: &str| {
            scales()
                .node("Abs", &["x"], &["computed"], &[])
                .node("QuantizeLinear", &[from, scale, "z"], &["q"], &[])
                .node("DequantizeLinear", &["q", scale, "z"], &[to], &[])
        };
        let pooled = |builder: Builder, from: &str| {
            builder.node("GlobalAveragePool", &[from], &["g"], &[]).node("Flatten", &["g"], &["h"], &[])
        };
        assert_eq!(of(&pooled(pair("x", "d", "s"), "d")), Some(Rounding::Static));
        assert_eq!(of(&pooled(pair("x", "d", "computed"), "d")), Some(Rounding::Dynamic));
        // Beside the way to the features, and on constants.
        assert_eq!(of(&pooled(pair("x", "d", "s"), "x")), None);
        let weights = pair("w", "d", "s").counting("w", &[1, 3, 1, 1]).node("Mul", &["x", "d"], &["m"], &[]);
        assert_eq!(of(&pooled(weights, "m")), None);
        let dynamic = Builder::new().node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], &[]);
        assert_eq!(
            of(&pooled(dynamic.node("DequantizeLinear", &["q", "s", "z"], &["d"], &[]), "d")),
            Some(Rounding::Dynamic)
        );
    }
}
