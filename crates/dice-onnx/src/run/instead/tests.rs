#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use dice_ood::io::guard;
use prost::Message;
use rten::{ModelOptions, Value, ValueOrView};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::model::proto::{GraphProto, ModelProto};
use crate::testing::{Builder, float, int, ints, value};

/// What rten makes of the rewritten `model`: its first output.
fn run(model: &[u8], inputs: Vec<(&str, Value)>) -> std::result::Result<Value, String> {
    let proto = ModelProto::decode(model).unwrap();
    let rewritten = with_known_operators(&proto, model).unwrap().unwrap_or_else(|| model.to_vec());
    let loaded = guard(|| ModelOptions::with_all_ops().load(rewritten.clone()))?;
    let node = |name: &str| loaded.find_node(name).ok_or(format!("no {name}"));
    let given = inputs.into_iter().map(|(name, value)| Ok((node(name)?, ValueOrView::from(value))));
    let given = given.collect::<std::result::Result<Vec<_>, String>>()?;
    let output = node(&proto.graph.unwrap().output[0].name)?;
    guard(|| loaded.run(given, &[output], None)).map(|mut made| made.remove(0))
}

/// `operator` in `opset` on values `x` of `shape`.
fn made(operator: &str, opset: i64, attributes: &[AttributeProto], shape: &[usize], x: &[f32]) -> Vec<f32> {
    let mut builder = Builder::new().node(operator, &["x"], &["y"], attributes).output("y", &[]);
    builder.0.opset_import[0].version = opset;
    builder.graph().input = vec![value("x", &shape.iter().map(|extent| *extent as i64).collect::<Vec<_>>())];
    let tensor: Tensor<f32> = Tensor::from_data(shape, x.to_vec());
    match run(&builder.encode(), vec![("x", tensor.into())]).unwrap() {
        Value::FloatTensor(tensor) => tensor.to_vec(),
        _ => panic!("no floats"),
    }
}

fn assert_near(name: &str, found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    for (place, (found, expected)) in found.iter().zip(expected).enumerate() {
        // Some roundings, of values of this size and of sums of that of the largest.
        let bound = 8.0 * f64::from(f32::EPSILON) * (expected.abs() + 0.1 * largest);
        assert!((f64::from(*found) - expected).abs() <= bound, "{name}, {place}: {found} and {expected}");
    }
}

const WIDE: [f32; 14] = [-100.0, -88.0, -21.0, -3.0, -1.0, -0.5, -0.4, 0.0, 0.3, 0.6, 1.0, 19.9, 21.0, 95.0];

#[test]
fn activations_are_their_formulas() {
    let elu = |x: f64, alpha: f64| if x > 0.0 { x } else { alpha * x.exp_m1() };
    let soft = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let shrunk = |x: f64, bias: f64, bound: f64| match x {
        x if x < -bound => x + bias,
        x if x > bound => x - bias,
        _ => 0.0,
    };
    type Formula = Box<dyn Fn(f64) -> f64>;
    let cases: Vec<(&str, i64, Vec<AttributeProto>, Formula)> = vec![
        ("Selu", 22, vec![], Box::new(move |x| 1.050_701 * elu(x, 1.673_263_2))),
        ("Selu", 1, vec![], Box::new(move |x| 1.0507 * elu(x, 1.6732))),
        ("Selu", 6, vec![float("alpha", 2.0), float("gamma", 3.0)], Box::new(move |x| 3.0 * elu(x, 2.0))),
        ("Celu", 12, vec![], Box::new(move |x| elu(x, 1.0))),
        ("Celu", 12, vec![float("alpha", 2.0)], Box::new(|x: f64| if x > 0.0 { x } else { 2.0 * (x / 2.0).exp_m1() })),
        ("ThresholdedRelu", 10, vec![], Box::new(|x| if x > 1.0 { x } else { 0.0 })),
        ("ThresholdedRelu", 22, vec![float("alpha", 0.0)], Box::new(|x| x.max(0.0))),
        ("Shrink", 9, vec![], Box::new(move |x| shrunk(x, 0.0, 0.5))),
        ("Shrink", 9, vec![float("lambd", 2.0), float("bias", 1.5)], Box::new(move |x| shrunk(x, 1.5, 2.0))),
        ("Softplus", 1, vec![], Box::new(soft)),
        ("Sign", 13, vec![], Box::new(|x| if x == 0.0 { 0.0 } else { x.signum() })),
        ("Mish", 18, vec![], Box::new(move |x| x * soft(x).tanh())),
    ];
    for (operator, opset, attributes, formula) in cases {
        let found = made(operator, opset, &attributes, &[14], &WIDE);
        // One after the other: the largest of all would set the bound.
        for (x, found) in WIDE.iter().zip(found) {
            let expected = formula(f64::from(*x));
            let bound = 4e-7 * expected.abs().max(1.0);
            assert!((f64::from(found) - expected).abs() <= bound, "{operator} {opset}: {found} and {expected} of {x}");
        }
    }
}

/// Values between -2 and 2.
fn waves(count: usize) -> Vec<f32> {
    (0..count).map(|i| 2.0 * (1.7 * i as f32 + 0.3).sin()).collect()
}

#[test]
fn softmax_of_old_operator_sets_takes_the_axes_from_its_own_as_one() {
    let (shape, x) = ([2, 3, 4], waves(24));
    for (opset, axis, width) in [(11, None, 12), (12, Some(0), 24), (9, Some(2), 4), (13, None, 4), (11, Some(-1), 4)] {
        let attributes: Vec<_> = axis.map(|axis| int("axis", axis)).into_iter().collect();
        let sums = x.chunks(width).map(|row| row.iter().map(|x| f64::from(*x).exp()).sum::<f64>());
        let sums: Vec<f64> = sums.collect();
        let formula = |place: usize| f64::from(x[place]).exp() / sums[place / width];
        let expected: Vec<f64> = (0..24).map(formula).collect();
        assert_near("Softmax", &made("Softmax", opset, &attributes, &shape, &x), &expected);
        let logs: Vec<f64> = expected.iter().map(|value| value.ln()).collect();
        assert_near("LogSoftmax", &made("LogSoftmax", opset, &attributes, &shape, &x), &logs);
        let first = |row: &[f32]| row.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        let hard = x.chunks(width).flat_map(|row| (0..width).map(move |i| f64::from(u8::from(i == first(row)))));
        assert_near("Hardmax", &made("Hardmax", opset, &attributes, &shape, &x), &hard.collect::<Vec<_>>());
    }
}

#[test]
fn pools_and_normalisations_are_their_formulas() {
    // [2, 4, 2, 3]
    let (shape, x) = ([2, 4, 2, 3], waves(48));
    let at = |n: usize, c: usize, i: usize| f64::from(x[(n * 4 + c) * 6 + i]);
    let places = || (0..2).flat_map(|n| (0..4).flat_map(move |c| (0..6).map(move |i| (n, c, i))));
    for size in [1usize, 2, 3, 5] {
        let attributes =
            [int("size", size as i64), AttributeProto::float("alpha", 0.5), AttributeProto::float("bias", 2.0)];
        let sum = |n, c: usize, i| {
            let window = c.saturating_sub((size - 1) / 2)..(c + size / 2 + 1).min(4);
            window.map(|c| at(n, c, i).powi(2)).sum::<f64>()
        };
        let formula = |(n, c, i)| at(n, c, i) / (2.0 + 0.5 / size as f64 * sum(n, c, i)).powf(0.75);
        assert_near("LRN", &made("LRN", 13, &attributes, &shape, &x), &places().map(formula).collect::<Vec<_>>());
    }
    for p in [1, 2, 3] {
        let norm = |of: &[f32]| of.iter().map(|x| f64::from(*x).abs().powi(p)).sum::<f64>().powf(1.0 / f64::from(p));
        let expected: Vec<f64> = x.chunks(6).map(norm).collect();
        let p = int("p", p.into());
        assert_near("GlobalLpPool", &made("GlobalLpPool", 2, std::slice::from_ref(&p), &shape, &x), &expected);
        let attributes = [p, ints("kernel_shape", &[2, 3])];
        assert_near("LpPool", &made("LpPool", 18, &attributes, &shape, &x), &expected);
    }
    for (axes, attributes) in [(vec![0, 2, 3], vec![]), (vec![2, 3], vec![ints("axes", &[2, 3])])] {
        let rows = if axes.contains(&0) { vec![0, 1] } else { vec![] };
        let formula = |(n, c, i)| {
            let rows = if rows.is_empty() { vec![n] } else { rows.clone() };
            let all: Vec<f64> = rows.iter().flat_map(|n| (0..6).map(|i| at(*n, c, i))).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            let deviation = (all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
            (at(n, c, i) - mean) / (deviation + 1e-9)
        };
        let expected: Vec<f64> = places().map(formula).collect();
        let name = "MeanVarianceNormalization";
        assert_near(name, &made(name, 13, &attributes, &shape, &x), &expected);
    }
    let blocks = made("SpaceToDepth", 13, &[int("blocksize", 2)], &[1, 2, 2, 4], &waves(16));
    let x = waves(16);
    // Place within the block, channel, then the two blocks.
    let expected = (0..16).map(|i| {
        let (place, channel, block) = (i / 4, i / 2 % 2, i % 2);
        f64::from(x[channel * 8 + place / 2 * 4 + block * 2 + place % 2])
    });
    assert_near("SpaceToDepth", &blocks, &expected.collect::<Vec<_>>());
}

#[test]
fn groups_are_scaled_by_group_and_from_opset_21_by_channel() {
    let x = waves(48);
    for (opset, count) in [(18, 2usize), (21, 4)] {
        let scale: Vec<f32> = (0..count).map(|i| i as f32 + 0.5).collect();
        let mut builder = Builder::new()
            .floats("scale", &[count as i64], &scale)
            .floats("bias", &[count as i64], &scale)
            .node("GroupNormalization", &["x", "scale", "bias"], &["y"], &[int("num_groups", 2)])
            .output("y", &[]);
        builder.0.opset_import[0].version = opset;
        builder.graph().input = vec![value("x", &[2, 4, 2, 3])];
        let tensor: Tensor<f32> = Tensor::from_data(&[2, 4, 2, 3], x.clone());
        let Value::FloatTensor(found) = run(&builder.encode(), vec![("x", tensor.into())]).unwrap() else { panic!() };
        let expected = x.chunks(12).enumerate().flat_map(|(group, values)| {
            let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / 12.0;
            let variance = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / 12.0;
            let scale = &scale;
            values.iter().enumerate().map(move |(i, x)| {
                let place = if count == 2 { group % 2 } else { group % 2 * 2 + i / 6 };
                (f64::from(*x) - mean) / (variance + 1e-5).sqrt() * f64::from(scale[place]) + f64::from(scale[place])
            })
        });
        assert_near("GroupNormalization", &found.to_vec(), &expected.collect::<Vec<_>>());
    }
}

#[test]
fn normalisation_in_training_mode_takes_the_mean_and_variance_of_its_input() {
    // [3, 2, 4]: as PyTorch standardises the weights of a convolution.
    let x = waves(24);
    let inputs = ["x", "scale", "bias", "mean", "variance"];
    let mut builder = inputs[1..].iter().fold(Builder::new(), |builder, name| builder.floats(name, &[2], &[0.5, 2.0]));
    builder = builder
        .node("BatchNormalization", &inputs, &["y", "m", "v"], &[int("training_mode", 1), float("momentum", 0.9)])
        .output("y", &[]);
    builder.graph().input = vec![value("x", &[3, 2, 4])];
    let tensor: Tensor<f32> = Tensor::from_data(&[3, 2, 4], x.clone());
    let Value::FloatTensor(found) = run(&builder.encode(), vec![("x", tensor.into())]).unwrap() else { panic!() };
    let formula = |place: usize| {
        let channel = place / 4 % 2;
        let all: Vec<f64> = (0..24).filter(|i| i / 4 % 2 == channel).map(|i| f64::from(x[i])).collect();
        let mean = all.iter().sum::<f64>() / 12.0;
        let variance = all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 12.0;
        let scale = [0.5, 2.0][channel];
        (f64::from(x[place]) - mean) / (variance + 1e-5).sqrt() * scale + scale
    };
    assert_near("BatchNormalization", &found.to_vec(), &(0..24).map(formula).collect::<Vec<_>>());
}

#[test]
fn of_equal_values_the_first_is_found() {
    let x: Tensor<f32> = Tensor::from_data(&[2, 3], vec![1.0, 2.0, 2.0, 0.0, 3.0, 0.0]);
    for (operator, axis, expected) in
        [("ArgMax", 1, vec![1, 1]), ("ArgMin", 1, vec![0, 0]), ("ArgMax", 0, vec![0, 1, 0])]
    {
        let attributes = [int("axis", axis), int("keepdims", 0)];
        let builder = Builder::new().node(operator, &["x"], &["y"], &attributes).output("y", &[]);
        let mut builder = builder;
        builder.graph().input = vec![value("x", &[2, 3])];
        let Value::Int32Tensor(found) = run(&builder.encode(), vec![("x", x.clone().into())]).unwrap() else {
            panic!()
        };
        assert_eq!(found.to_vec(), expected, "{operator} of axis {axis}");
    }
}

/// As position embeddings are: to their own size they stay what they are.
#[test]
fn cubic_interpolation_is_that_of_onnx() {
    let x = waves(12);
    let resized = |sizes: [i64; 4], mode: &'static str| -> Vec<f32> {
        let word = |name: &str, word: &'static str| AttributeProto {
            name: name.into(),
            s: word.into(),
            r#type: 3,
            ..AttributeProto::default()
        };
        let attributes = [word("mode", "cubic"), word("coordinate_transformation_mode", mode)];
        let mut builder =
            Builder::new().ints("sizes", &sizes).node("Resize", &["x", "", "", "sizes"], &["y"], &attributes);
        builder.graph().input = vec![value("x", &[1, 1, 3, 4])];
        let tensor: Tensor<f32> = Tensor::from_data(&[1, 1, 3, 4], x.clone());
        match run(&builder.output("y", &[]).encode(), vec![("x", tensor.into())]).unwrap() {
            Value::FloatTensor(tensor) => tensor.to_vec(),
            _ => panic!("no floats"),
        }
    };
    let kernel = |d: f64| match d.abs() {
        d if d <= 1.0 => (1.25 * d - 2.25) * d * d + 1.0,
        d if d < 2.0 => ((-0.75 * d + 3.75) * d - 6.0) * d + 3.0,
        _ => 0.0,
    };
    for (mode, rows, columns) in
        [("half_pixel", 5, 2), ("pytorch_half_pixel", 1, 9), ("align_corners", 7, 4), ("asymmetric", 2, 6)]
    {
        let place = |at: usize, before: usize, after: usize| match mode {
            "align_corners" => at as f64 * (before - 1) as f64 / (after - 1) as f64,
            "asymmetric" => at as f64 * before as f64 / after as f64,
            "pytorch_half_pixel" if after == 1 => 0.0,
            _ => (at as f64 + 0.5) * before as f64 / after as f64 - 0.5,
        };
        let taps = |at: f64, length: usize| {
            let first = at.floor();
            (-1..=2).map(move |tap| {
                let place = first + f64::from(tap);
                (place.clamp(0.0, (length - 1) as f64) as usize, kernel(at - place))
            })
        };
        let expected = (0..rows * columns).map(|i| {
            let (row, column) = (place(i / columns, 3, rows), place(i % columns, 4, columns));
            let across =
                |row: usize| taps(column, 4).map(|(at, weight)| f64::from(x[row * 4 + at]) * weight).sum::<f64>();
            taps(row, 3).map(|(at, weight)| across(at) * weight).sum::<f64>()
        });
        for (found, expected) in resized([1, 1, rows as i64, columns as i64], mode).iter().zip(expected) {
            // A place is off by some roundings, and values change by up to 4 from one to the next.
            assert!((f64::from(*found) - expected).abs() < 4e-6, "{mode}: {found} and {expected}");
        }
    }
    assert_eq!(resized([1, 1, 3, 4], "half_pixel"), x);
}

/// What rten would compute otherwise than it says is refused.
#[test]
fn antialiasing_and_lower_padding_in_strides_are_refused() {
    let word = |name: &str, word: &'static str| AttributeProto {
        name: name.into(),
        s: word.into(),
        r#type: 3,
        ..AttributeProto::default()
    };
    let x = || vec![("x", Value::from(Tensor::<f32>::zeros(&[1, 1, 4, 4])))];
    let of_one_channel = |mut builder: Builder| {
        builder.graph().input = vec![value("x", &[1, 1, 4, 4])];
        builder.output("y", &[]).encode()
    };
    let scaled = |antialias| {
        let builder = Builder::new().floats("scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
        of_one_channel(builder.node(
            "Resize",
            &["x", "", "scales"],
            &["y"],
            &[word("mode", "cubic"), int("antialias", antialias)],
        ))
    };
    let pooled = |stride| {
        let attributes =
            [word("auto_pad", "SAME_LOWER"), ints("kernel_shape", &[2, 2]), ints("strides", &[stride, stride])];
        of_one_channel(Builder::new().node("MaxPool", &["x"], &["y"], &attributes))
    };
    for (allowed, refused, name) in [(scaled(0), scaled(1), "antialias"), (pooled(1), pooled(2), "auto_pad")] {
        run(&allowed, x()).unwrap();
        let error = run(&refused, x()).map(drop).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
}

/// An operator in a branch of If is replaced like one of the graph.
#[test]
fn operators_of_subgraphs_are_replaced() {
    let branch = |name: &str, operator: &str| {
        let mut body = Builder::new().node(operator, &["x"], &["z"], &[]).output("z", &[]);
        body.graph().input.clear();
        body.graph().name = name.into();
        let attribute = AttributeProto { name: name.into(), r#type: 5, ..AttributeProto::default() };
        let graph = body.graph().encode_to_vec();
        [attribute.encode_to_vec(), field(6, &graph)].concat()
    };
    let node = NodeProto {
        input: vec!["condition".into()],
        output: vec!["y".into()],
        op_type: "If".into(),
        ..NodeProto::default()
    };
    let branches = [branch("then_branch", "Selu"), branch("else_branch", "Relu")].map(|branch| field(5, &branch));
    let node = [node.encode_to_vec(), branches.concat()].concat();
    let mut condition = value("condition", &[]);
    condition.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = element::BOOL;
    let graph = GraphProto {
        name: "test".into(),
        input: vec![value("x", &[2]), condition],
        output: vec![value("y", &[2])],
        ..GraphProto::default()
    };
    let mut graph = graph.encode_to_vec();
    graph.extend(field(1, &node));
    let model = Builder::new().0;
    let model = [ModelProto { graph: None, ..model }.encode_to_vec(), field(7, &graph)].concat();
    for (condition, expected) in [(1, 1.050_701 * 1.673_263_2 * (-1.0f32).exp_m1()), (0, 0.0)] {
        let x: Tensor<f32> = Tensor::from_data(&[2], vec![-1.0, 0.0]);
        let condition: Tensor<i32> = Tensor::from_data(&[], vec![condition]);
        let found = run(&model, vec![("x", x.into()), ("condition", condition.into())]).unwrap();
        let Value::FloatTensor(found) = found else { panic!() };
        assert_near("If", &found.to_vec(), &[f64::from(expected), 0.0]);
    }
}

fn field(number: u64, payload: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    prost::encoding::encode_varint(number << 3 | 2, &mut field);
    prost::encoding::encode_varint(payload.len() as u64, &mut field);
    field.extend_from_slice(payload);
    field
}

fn whole<T: TryFrom<i64>>(shape: &[usize], values: &[Json]) -> Option<Tensor<T>> {
    let values = values.iter().map(|value| T::try_from(value.as_i64().or(value.as_bool().map(i64::from))?).ok());
    Some(Tensor::from_data(shape, values.collect::<Option<Vec<T>>>()?))
}

fn tensor(given: &Json) -> Option<Value> {
    let shape: Vec<usize> = given["shape"].as_array()?.iter().map(|extent| extent.as_u64().unwrap() as usize).collect();
    let values = given["values"].as_array()?;
    Some(match given["type"].as_str()? {
        "float32" | "float64" | "float16" => {
            let values = values.iter().map(|value| Some(value.as_f64()? as f32)).collect::<Option<Vec<_>>>()?;
            Tensor::from_data(&shape[..], values).into()
        }
        "int32" | "int64" | "bool" => whole::<i32>(&shape, values)?.into(),
        "int8" => whole::<i8>(&shape, values)?.into(),
        "uint8" => whole::<u8>(&shape, values)?.into(),
        _ => return None,
    })
}

fn numbers(value: &Value) -> Option<(Vec<usize>, Vec<f64>)> {
    Some(match value {
        Value::FloatTensor(tensor) => (tensor.shape().to_vec(), tensor.iter().map(|value| f64::from(*value)).collect()),
        Value::Int32Tensor(tensor) => (tensor.shape().to_vec(), tensor.iter().map(|value| f64::from(*value)).collect()),
        Value::Int8Tensor(tensor) => (tensor.shape().to_vec(), tensor.iter().map(|value| f64::from(*value)).collect()),
        Value::UInt8Tensor(tensor) => (tensor.shape().to_vec(), tensor.iter().map(|value| f64::from(*value)).collect()),
        _ => return None,
    })
}

/// How the runtime does on a case of ONNX.
#[derive(PartialEq)]
enum Outcome {
    Right,
    /// With these words, or without a tensor of its type.
    Refused(String),
    Wrong(String),
}

fn outcome(case: &Json, folder: &Path) -> Outcome {
    let bytes = std::fs::read(folder.join(case["model"].as_str().unwrap())).unwrap();
    let inputs = case["inputs"].as_array().unwrap().iter();
    let inputs = inputs.map(|one| Some((one["name"].as_str().unwrap(), tensor(one)?))).collect::<Option<Vec<_>>>();
    let expected = tensor(&case["outputs"][0]).and_then(|value| numbers(&value));
    let (Some(inputs), Some((shape, expected))) = (inputs, expected) else { return Outcome::Refused("type".into()) };
    let found = match run(&bytes, inputs) {
        Ok(found) => found,
        Err(error) => return Outcome::Refused(error),
    };
    let Some((found_shape, found)) = numbers(&found) else { return Outcome::Wrong("no tensor".into()) };
    if found_shape != shape {
        return Outcome::Wrong(format!("shape {found_shape:?}, expected {shape:?}"));
    }
    // Some are stored in four digits, others computed in half precision.
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-3 * b.abs() + 1e-5;
    match found.iter().zip(&expected).position(|pair| !near(pair)) {
        None => Outcome::Right,
        Some(off) => Outcome::Wrong(format!("value {off}: {}, expected {}", found[off], expected[off])),
    }
}

/// ONNX's own cases of these operators, where `DICE_PYTHON` names a Python that has the package onnx: each is right or refused, and some
/// of each operator are right.
#[test]
fn operators_pass_the_cases_of_onnx() {
    // By the formula, where ONNX Runtime too takes whole lengths.
    const ELSEWHERE: [&str; 2] =
        ["test_resize_downsample_scales_linear_align_corners", "test_resize_downsample_scales_cubic_align_corners"];
    let Some(python) = std::env::var_os("DICE_PYTHON") else {
        println!("without ONNX's cases of operators: DICE_PYTHON names no Python");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operators.py");
    let names = RULES.iter().map(|(name, _)| *name);
    let written = Command::new(python).arg(script).arg(folder.path()).args(names.clone()).output().unwrap();
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let cases: Vec<Json> = serde_json::from_slice(&std::fs::read(folder.path().join("cases.json")).unwrap()).unwrap();
    let cases = cases.iter().filter(|case| !ELSEWHERE.contains(&case["name"].as_str().unwrap()));
    let outcomes: Vec<(&Json, Outcome)> = cases.map(|case| (case, outcome(case, folder.path()))).collect();
    for (case, outcome) in &outcomes {
        match outcome {
            Outcome::Right => {}
            Outcome::Refused(why) => println!("refused: {} {}: {why}", case["name"], case["operators"]),
            Outcome::Wrong(why) => println!("wrong: {} {}: {why}", case["name"], case["operators"]),
        }
    }
    let holds = |case: &Json, name: &str| case["operators"].as_array().unwrap().iter().any(|one| one == name);
    let of = |name: &str| outcomes.iter().filter(|(case, _)| holds(case, name)).collect::<Vec<_>>();
    let wrong = outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Wrong(_))).count();
    // ONNX has no case of GlobalLpPool.
    let never = |name: &&str| !of(name).is_empty() && of(name).iter().all(|(_, outcome)| *outcome != Outcome::Right);
    let never: Vec<&str> = names.filter(never).collect();
    println!("{} cases, {wrong} wrong; never right: {never:?}", outcomes.len());
    assert!(outcomes.len() > 200 && wrong == 0 && never.is_empty());
}
