#![allow(clippy::unwrap_used, reason = "tests")]
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use ndarray::Array2;
use prost::Message;
use rten_tensor::prelude::AsView;

use super::*;
use crate::model::proto::{DimensionProto, ModelProto, OperatorSetIdProto, ValueInfoProto};

const UNITS: usize = 5;
const ROWS: usize = 9;

/// Values from -2 to 2 in steps of an eighth: some are equal.
fn features() -> Vec<f32> {
    (0..ROWS * UNITS).map(|i| ((i * 37 + i / 7) % 33) as f32 / 8.0 - 2.0).collect()
}

type Case = (&'static str, fn(&mut Graph, Wire) -> Wire);

fn binary(graph: &mut Graph, op: Binary, x: Wire) -> Wire {
    let other = graph.row([0.5, -1.0, 1.5, 2.0, -0.25]);
    graph.binary(op, x, other)
}

fn with_sum(graph: &mut Graph, op: Binary, x: Wire) -> Wire {
    let sum = graph.sum(x);
    graph.binary(op, x, sum)
}

fn clipped(graph: &mut Graph, op: Binary, x: Wire, bound: f64) -> Wire {
    let bound = graph.scalar(bound);
    graph.binary(op, bound, x)
}

fn count(graph: &mut Graph, x: Wire, values: usize) -> Wire {
    let sum = graph.sum(x);
    let values = (0..values).map(|i| (i as f64 / values as f64 - 0.5) * 9.0).collect();
    graph.push(Op::CountAtMost(sum, values))
}

fn logits(graph: &mut Graph, x: Wire, kept: Option<fn(usize, usize) -> bool>) -> Wire {
    let weight = (0..3 * UNITS).map(|i| ((i * 5) % 11) as f32 / 4.0 - 1.0).collect();
    let head = LinearHead::from_rows(weight, vec![0.5, 0.0, -0.5], UNITS).unwrap();
    let mask = kept.map(|kept| Arc::new(Mask::new(Array2::from_shape_fn((3, UNITS), |(c, d)| kept(c, d)))));
    graph.push(Op::Logits(x, Arc::new(head), mask))
}

fn table() -> Matrix {
    Matrix { shape: [UNITS, 2], values: (0..2 * UNITS).map(|i| i as f32 - 3.5).collect() }
}

const CASES: &[Case] = &[
    ("add", |g, x| binary(g, Binary::Add, x)),
    ("sub", |g, x| binary(g, Binary::Sub, x)),
    ("mul", |g, x| binary(g, Binary::Mul, x)),
    ("div", |g, x| binary(g, Binary::Div, x)),
    ("min", |g, x| binary(g, Binary::Min, x)),
    ("max", |g, x| with_sum(g, Binary::Max, x)),
    ("greater", |g, x| with_sum(g, Binary::Greater, x)),
    ("pow", |g, x| {
        let base = g.unary(Unary::Exp, x);
        binary(g, Binary::Pow, base)
    }),
    ("min-number", |g, x| clipped(g, Binary::Min, x, 0.25)),
    ("max-number", |g, x| clipped(g, Binary::Max, x, -0.25)),
    ("min-zero", |g, x| clipped(g, Binary::Min, x, 0.0)),
    ("max-zero", |g, x| clipped(g, Binary::Max, x, 0.0)),
    ("exp", |g, x| g.unary(Unary::Exp, x)),
    ("count-at-least", |g, x| g.push(Op::CountAtLeast(x, [-2.0, -0.5, 0.0, 0.125, 2.0, 3.0].into()))),
    ("reshape", |g, x| {
        let rows = g.push(Op::Reshape(x, 1));
        let doubled = g.scale(rows, 2.0);
        g.push(Op::Reshape(doubled, UNITS))
    }),
    ("times-above", |g, x| {
        let cuts = binary(g, Binary::Mul, x);
        let values = (0..4 * UNITS).map(|i| ((i * 7) % 13) as f32 / 4.0 - 1.5).collect();
        g.push(Op::TimesAbove(x, cuts, Matrix { shape: [4, UNITS], values }))
    }),
    ("sqrt", |g, x| {
        let squares = g.mul(x, x);
        g.unary(Unary::Sqrt, squares)
    }),
    ("log", |g, x| {
        let positive = g.unary(Unary::Exp, x);
        let sum = g.sum(positive);
        g.unary(Unary::Log, sum)
    }),
    ("abs", |g, x| g.unary(Unary::Abs, x)),
    ("acos", |g, x| {
        let halves = g.scale(x, 0.4);
        g.unary(Unary::Acos, halves)
    }),
    ("sum", |g, x| g.sum(x)),
    ("largest", |g, x| g.reduce(Reduce::Max, x)),
    ("arg-max", |g, x| g.reduce(Reduce::ArgMax, x)),
    ("log-sum-exp", |g, x| {
        let far = g.scale(x, 200.0);
        g.reduce(Reduce::LogSumExp, far)
    }),
    ("first", |g, x| g.reduce(Reduce::KthLargest(1), x)),
    ("third", |g, x| g.reduce(Reduce::KthLargest(3), x)),
    ("last", |g, x| g.reduce(Reduce::KthLargest(UNITS), x)),
    ("times", |g, x| g.times(x, [2, UNITS], (0..2 * UNITS).map(|i| i as f32 / 4.0 - 1.0).collect::<Vec<f32>>())),
    ("softmax", |g, x| g.push(Op::Softmax(x))),
    ("pick", |g, x| {
        let index = g.reduce(Reduce::ArgMax, x);
        g.push(Op::Pick(index, table()))
    }),
    ("pick-side-by-side", |g, x| {
        let ranks = g.push(Op::Ranks(x));
        g.push(Op::Pick(ranks, table()))
    }),
    ("ascending", |g, x| g.push(Op::Ascending(x))),
    ("ranks", |g, x| g.push(Op::Ranks(x))),
    ("count", |g, x| count(g, x, 40)),
    ("count-in-blocks", |g, x| count(g, x, 2000)),
    ("logits", |g, x| logits(g, x, None)),
    ("logits-kept", |g, x| logits(g, x, Some(|class, unit| (class + unit) % 2 == 0))),
    ("logits-unused", |g, x| logits(g, x, Some(|_, unit| unit == 1 || unit == 3))),
];

fn info(name: &str, columns: Option<i64>) -> ValueInfoProto {
    let extent = |dim_value: Option<i64>| DimensionProto { dim_value, dim_param: None };
    ValueInfoProto::tensor(name, element::FLOAT, vec![extent(None), extent(columns)])
}

/// A model from `features` to `wanted`, as output `y`.
fn model(graph: &Graph, wanted: Wire, ir_version: i64, opset: i64) -> Vec<u8> {
    let mut operators = Operators::new(ir_version, opset);
    operators.input(info("features", Some(UNITS as i64)));
    let names = lower(graph, &[wanted], &mut operators, ("features", UNITS), None);
    operators.named("Identity", &[&names[wanted.index()]], vec![], "y");
    operators.output(info("y", None));
    let mut graph = operators.into_graph();
    for added in &graph.initializer {
        assert!(graph.node.iter().any(|node| node.input.contains(&added.name)), "nothing reads {}", added.name);
    }
    graph.name = "test".into();
    let opset_import = vec![OperatorSetIdProto { domain: String::new(), version: opset }];
    ModelProto { ir_version, graph: Some(graph), opset_import, ..ModelProto::default() }.encode_to_vec()
}

fn run(model: Vec<u8>) -> Vec<f32> {
    let model = rten::ModelOptions::with_all_ops().load(model).unwrap();
    let features = rten_tensor::Tensor::from_data(&[ROWS, UNITS][..], features());
    let (input, output) = (model.node_id("features").unwrap(), model.node_id("y").unwrap());
    match model.run(vec![(input, features.view().into())], &[output], None).unwrap().pop().unwrap() {
        rten::Value::FloatTensor(values) => values.to_vec(),
        _ => panic!("an output of another type"),
    }
}

fn compare(what: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        // Few roundings of one sum of at most ten terms: 16 half units in the last place.
        let bound = 16.0 * 0.5 * f64::from(f32::EPSILON) * expected.abs().max(1.0);
        assert!((f64::from(*found) - expected).abs() <= bound, "{what}: {found} for {expected}");
    }
}

#[test]
fn every_operator_in_every_operator_set() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    for (name, make) in CASES {
        let mut graph = Graph::default();
        let features_of = graph.features();
        let wanted = make(&mut graph, features_of);
        let expected = graph.evaluate(&features(), ROWS, wanted);
        for (ir_version, opset) in
            [(3, 7), (3, 8), (4, 9), (5, 10), (6, 11), (7, 12), (7, 13), (8, 17), (8, 18), (10, 22)]
        {
            let model = model(&graph, wanted, ir_version, opset);
            let what = format!("{name} at opset {opset}");
            std::fs::write(folder.path().join(format!("{what}.onnx")), &model).unwrap();
            compare(&what, &run(model), &expected);
            all.push((what, expected.clone()));
        }
    }
    // What an operator set really has, only a runtime of several knows.
    let Some(python) = std::env::var_os("DICE_PYTHON") else { return };
    let bytes: Vec<u8> = features().iter().flat_map(|value| value.to_le_bytes()).collect();
    std::fs::write(folder.path().join("features.f32"), bytes).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/features.py");
    let output = Command::new(python).arg(script).arg(folder.path()).arg(UNITS.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (what, expected) in all {
        for batch in [1, 7, 64] {
            let path = folder.path().join(format!("{what}.onnx.y.{batch}"));
            compare(&what, &floats(&path), &expected);
        }
    }
}

fn floats(path: &Path) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    bytes.chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn what_is_shared_is_added_once_and_what_nobody_wants_not_at_all() {
    let mut graph = Graph::default();
    let x = graph.features();
    let unwanted = graph.unary(Unary::Acos, x);
    let (one, other) = (logits(&mut graph, x, None), logits(&mut graph, x, None));
    let (max, energy) = (graph.reduce(Reduce::Max, one), graph.reduce(Reduce::LogSumExp, other));
    let both = graph.add(max, energy);
    let mut operators = Operators::new(8, 17);
    let names = lower(&graph, &[both], &mut operators, ("features", UNITS), None);
    assert_eq!(names[unwanted.index()], "");
    let count = |operators: &Operators, operator: &str| {
        operators.clone().into_graph().node.iter().filter(|node| node.op_type == operator).count()
    };
    for (operator, expected) in [("Gemm", 1), ("ReduceMax", 1), ("Acos", 0)] {
        assert_eq!(count(&operators, operator), expected, "{operator}");
    }
}

#[test]
fn numbers_are_reached_in_f32_where_they_are_in_f64() {
    for value in [0.1, 1.0, -0.3, 1.0 + 1e-9, 1.0 - 1e-9, 0.0, 1e-50, -1e-50, 3.5e38] {
        let reached = |x: f32| x > just_below(value);
        assert!(reached(value as f32), "{value}");
        let below = (value as f32).next_down().next_down();
        assert!(!reached(below) || value > f64::from(f32::MAX), "{value}");
    }
}
