#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

use std::path::Path;

use dice_ood::ErrorKind;

use crate::model::Model;
use crate::model::head::{FeatureLayout, FoundHead, HeadOptions, Made};
use crate::model::proto::AttributeProto;
use crate::model::sign::Nonnegative;
use crate::testing::{Builder, float, int, ints, value};

/// Features `h` `[N, 3]` and `k` `[N, 4]`, weights `w` `[2, 3]` and `v` `[2, 4]` that count from 1, biases `b` and `c`.
fn vectors() -> Builder {
    Builder::new()
        .features()
        .node("ReduceMean", &["r"], &["k"], &[ints("axes", &[1, 2]), int("keepdims", 0)])
        .counting("w", &[2, 3])
        .counting("v", &[2, 4])
        .floats("b", &[2], &[1.0, 2.0])
        .floats("c", &[2], &[3.0, 5.0])
        .floats("two", &[], &[2.0])
        .floats("half", &[], &[0.5])
        .output("y", &[0, 2])
}

fn gemm(builder: Builder, inputs: &[&str], to: &str) -> Builder {
    builder.node("Gemm", inputs, &[to], &[int("transB", 1)])
}

/// Heads `l` of `h` and `m` of `k`.
fn two() -> Builder {
    gemm(gemm(vectors(), &["h", "w", "b"], "l"), &["k", "v", "c"], "m")
}

/// Heads `l` and `m` of `h`.
fn two_of_one() -> Builder {
    let builder = gemm(vectors().counting("u", &[2, 3]), &["h", "w", "b"], "l");
    gemm(builder, &["h", "u", "c"], "m")
}

fn values(found: &FoundHead) -> (Vec<f32>, Vec<f32>) {
    (found.head.weight().iter().copied().collect(), found.head.bias().to_vec())
}

fn named(builder: &Builder, head: Option<&str>, features: Option<&str>) -> dice_ood::Result<FoundHead> {
    let [head, features] = [head, features].map(|name| name.map(str::to_owned));
    builder.model()?.find_head(&HeadOptions { head, features })
}

const JOINED: [f32; 14] = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0, 4.0, 5.0, 6.0, 5.0, 6.0, 7.0, 8.0];

#[test]
fn a_mean_of_heads_is_one_head_of_what_they_read() {
    let stack = |axis: i64, reduction: &str, attributes: &[AttributeProto]| {
        let builder = two().ints("axis", &[axis]).node("Unsqueeze", &["l", "axis"], &["l1"], &[]);
        let builder = builder.node("Unsqueeze", &["m", "axis"], &["m1"], &[]);
        builder.node("Concat", &["l1", "m1"], &["s"], &[int("axis", axis)]).node(reduction, &["s"], &["y"], attributes)
    };
    let mean = |axis| [ints("axes", &[axis]), int("keepdims", 0)];
    let added = || two().node("Add", &["m", "l"], &["a"], &[]);
    for (builder, node, logits) in [
        (added().node("Div", &["a", "two"], &["y"], &[]), "node_a", "y"),
        (added().node("Mul", &["half", "a"], &["z"], &[]).node("Softmax", &["z"], &["y"], &[]), "node_a", "z"),
        (two().node("Sum", &["l", "m"], &["a"], &[]).node("Div", &["a", "two"], &["y"], &[]), "node_a", "y"),
        (two().node("Mean", &["l", "m"], &["y"], &[]), "node_y", "y"),
        (stack(0, "ReduceMean", &mean(0)), "node_y", "y"),
        (stack(-1, "ReduceMean", &mean(-1)), "node_y", "y"),
    ] {
        let found = builder.find().unwrap();
        assert_eq!(values(&found), (JOINED.map(|value| value / 2.0).to_vec(), vec![2.0, 3.5]));
        assert_eq!((&*found.features, found.layout, &*found.node), ("h, k", FeatureLayout::Joined, node));
        assert_eq!(found.made, Some(Made::Joined(vec![("h".into(), 3), ("k".into(), 4)])));
        assert_eq!(found.logits, logits);
        assert!(matches!(found.nonnegative, Nonnegative::Yes(_)), "{found}");
        let told = found.to_string();
        for part in ["the mean of two heads: features are what both read", "[N, 3 + 4]", "`h`, `k`"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        // What a detector records of its network finds the same again.
        assert_eq!(named(&builder, Some(node), Some("h, k")).unwrap(), found);
        assert_eq!(named(&builder, None, Some("h, k")).unwrap(), found);
    }
    // The axis counted from either end, where the rank is known.
    let mut mixed = stack(2, "ReduceMean", &mean(-1));
    assert_eq!(mixed.find().unwrap_err().kind(), ErrorKind::Unsupported);
    mixed.graph().value_info.push(value("s", &[0, 2, 2]));
    assert_eq!(mixed.find().unwrap().layout, FeatureLayout::Joined);
}

#[test]
fn shares_and_shifts_of_each_head_count() {
    let builder = two().node("Mul", &["l", "two"], &["l2"], &[]).node("Add", &["m", "b"], &["m2"], &[]);
    let weighted = builder.clone().node("Add", &["l2", "m2"], &["y"], &[]).find().unwrap();
    let expected = [2.0, 4.0, 6.0, 1.0, 2.0, 3.0, 4.0, 8.0, 10.0, 12.0, 5.0, 6.0, 7.0, 8.0];
    assert_eq!(values(&weighted), (expected.to_vec(), vec![6.0, 11.0]));
    assert!(weighted.notes[0].contains("the weighted sum of two heads"), "{weighted}");
    // Three, one of them of the same vector as another.
    let builder = gemm(two_of_one(), &["k", "v"], "n").node("Add", &["l", "m"], &["a"], &[]);
    let three = builder.clone().node("Add", &["a", "n"], &["y"], &[]).find().unwrap();
    let expected = [2.0, 4.0, 6.0, 1.0, 2.0, 3.0, 4.0, 8.0, 10.0, 12.0, 5.0, 6.0, 7.0, 8.0];
    assert_eq!((values(&three), &*three.features), ((expected.to_vec(), vec![4.0, 7.0]), "h, k"));
    assert!(three.notes[0].contains("of 3 heads: features are what each of them reads"), "{three}");
    // A shift between two sums would count once, not for each head.
    let shifted = builder.node("Add", &["a", "b"], &["a2"], &[]).node("Add", &["a2", "n"], &["y"], &[]);
    assert_eq!(shifted.find().unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn heads_of_one_vector_are_one_head_of_it() {
    let builder = two_of_one().node("Add", &["l", "m"], &["a"], &[]).node("Div", &["a", "two"], &["y"], &[]);
    let found = builder.find().unwrap();
    assert_eq!(values(&found), ((1..=6).map(|value| value as f32).collect(), vec![2.0, 3.5]));
    assert_eq!((&*found.features, found.layout), ("h", FeatureLayout::Rows));
    assert!(found.notes[0].contains("two heads of the same features"), "{found}");
    // A map that is averaged to that vector.
    assert_eq!(named(&builder, Some("node_a"), Some("r")).unwrap().layout, FeatureLayout::Channels { exact: true });
    // Each behind a normalisation of its own, (x - 1) * s.
    let normalised = vectors()
        .counting("u", &[2, 3])
        .floats("one", &[3], &[1.0; 3])
        .floats("zero", &[3], &[0.0; 3])
        .floats("s", &[3], &[1.0, 2.0, 3.0])
        .node("BatchNormalization", &["h", "one", "zero", "one", "one"], &["h1"], &[float("epsilon", 0.0)])
        .node("BatchNormalization", &["h", "s", "zero", "one", "one"], &["h2"], &[float("epsilon", 0.0)]);
    let both = gemm(gemm(normalised.clone(), &["h1", "w", "b"], "l"), &["h2", "u", "c"], "m");
    let found = both.node("Add", &["l", "m"], &["y"], &[]).find().unwrap();
    assert_eq!((&*found.features, found.layout), ("h", FeatureLayout::Rows));
    assert_eq!(values(&found), (vec![2.0, 6.0, 12.0, 8.0, 15.0, 24.0], vec![4.0 - 20.0, 7.0 - 47.0]));
    // One normalisation for both is before the features, as for a single head.
    let shared = gemm(gemm(normalised, &["h1", "w", "b"], "l"), &["h1", "u", "c"], "m");
    assert_eq!(shared.node("Add", &["l", "m"], &["y"], &[]).find().unwrap().features, "h1");
}

#[test]
fn a_head_that_is_added_up_can_be_named_alone() {
    let builder = two().node("Add", &["l", "m"], &["a"], &[]).node("Div", &["a", "two"], &["y"], &[]);
    let alone = named(&builder, Some("node_m"), None).unwrap();
    assert_eq!((&*alone.features, alone.units()), ("k", 4));
    assert_eq!(named(&builder, None, Some("h")).unwrap().node, "node_l");
    assert_eq!(named(&builder, Some("node_a"), Some("h")).unwrap_err().kind(), ErrorKind::Argument);
    // As models return them that are trained beside a teacher.
    let returned = builder.output("l", &[0, 2]).output("m", &[0, 2]).find().unwrap();
    assert_eq!((&*returned.node, &*returned.features), ("node_a", "h, k"));
}

#[test]
fn what_is_no_sum_of_heads_is_refused() {
    let refused = |builder: &Builder, kind: ErrorKind, part: &str| {
        let error = builder.find().unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(part), "{error}");
    };
    let add = |builder: Builder| builder.node("Add", &["l", "m"], &["y"], &[]);
    let computed = "two computed operands";
    // A residual: the next block reads what is added.
    let residual = gemm(two().node("Relu", &["l"], &["n"], &[]).counting("u", &[2, 2]), &["n", "u"], "o");
    refused(&residual.node("Add", &["l", "o"], &["y"], &[]), ErrorKind::Unsupported, computed);
    // A share that the network computes, probabilities, a maximum, one head twice.
    let gated =
        two().node("ReduceMean", &["h"], &["gate"], &[ints("axes", &[1])]).node("Mul", &["l", "gate"], &["n"], &[]);
    refused(&gated.node("Add", &["n", "m"], &["y"], &[]), ErrorKind::Unsupported, computed);
    let soft = two().node("Softmax", &["l"], &["p"], &[]).node("Softmax", &["m"], &["q"], &[]);
    refused(&soft.node("Add", &["p", "q"], &["y"], &[]), ErrorKind::Unsupported, computed);
    refused(&two().node("Max", &["l", "m"], &["y"], &[]), ErrorKind::Unsupported, "does not follow");
    refused(&two().node("Add", &["l", "l"], &["y"], &[]), ErrorKind::Unsupported, computed);
    refused(&two().node("Add", &["l", "r"], &["y"], &[]), ErrorKind::Unsupported, computed);
    // Logits that stand beside each other along their own axis.
    let beside = two().node("Concat", &["l", "m"], &["s"], &[int("axis", 1)]);
    let beside = beside.node("ReduceMean", &["s"], &["y"], &[ints("axes", &[1])]);
    refused(&beside, ErrorKind::Unsupported, "does not follow");
    // An activation behind the sum, as within a network; who names it may have it.
    for operator in ["Tanh", "Relu"] {
        let active = two().node("Add", &["l", "m"], &["a"], &[]).node(operator, &["a"], &["y"], &[]);
        refused(&active, ErrorKind::Ambiguous, "MODEL.onnx#node_a");
        assert_eq!(named(&active, Some("node_a"), None).unwrap().layout, FeatureLayout::Joined);
    }
    // Another number of classes.
    let wide = gemm(gemm(vectors().counting("u", &[3, 4]), &["h", "w"], "l"), &["k", "u"], "m");
    refused(&add(wide), ErrorKind::Unsupported, "[2, 3] and [3, 4]");
    // Every position of a sequence, and a map.
    let mut sequences = vectors().counting("t", &[3, 2]).counting("u", &[3, 2]);
    sequences.graph().input.push(value("z", &[0, 5, 3]));
    let sequences = sequences.node("MatMul", &["z", "t"], &["l"], &[]).node("MatMul", &["z", "u"], &["m"], &[]);
    refused(&add(sequences), ErrorKind::Unsupported, "one vector of each input");
    let maps = vectors().counting("t", &[2, 3, 1, 1]).counting("u", &[2, 3, 1, 1]);
    let maps = maps.node("Conv", &["r", "t"], &["l"], &[]).node("Conv", &["r", "u"], &["m"], &[]);
    refused(&add(maps), ErrorKind::Unsupported, "one vector of each input");
    // Rounding between head and sum.
    let rounded =
        two().floats("s", &[], &[0.5]).int8s("zp", &[], &[0]).node("QuantizeLinear", &["l", "s", "zp"], &["q"], &[]);
    let rounded = rounded.node("DequantizeLinear", &["q", "s", "zp"], &["d"], &[]);
    refused(&rounded.node("Add", &["d", "m"], &["y"], &[]), ErrorKind::Unsupported, computed);
}

#[test]
fn vectors_of_maps_are_read_as_such() {
    let pooled = vectors().counting("t", &[2, 3, 1, 1]).counting("u", &[2, 3, 1, 1]);
    let pooled = pooled.node("Conv", &["g", "t"], &["l"], &[]).node("Conv", &["g", "u"], &["m"], &[]);
    let found = pooled.clone().node("Add", &["l", "m"], &["a"], &[]).node("Flatten", &["a"], &["y"], &[]);
    let found = found.find().unwrap();
    assert_eq!((&*found.features, found.layout), ("g", FeatureLayout::Rows));
    // One of them flattened: their sum would be of all pairs of axes.
    let flat = pooled.node("Flatten", &["m"], &["n"], &[]).node("Add", &["l", "n"], &["y"], &[]);
    assert_eq!(flat.find().unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn no_flipped_bit_panics() {
    let stacked = two().ints("axis", &[0]).node("Unsqueeze", &["l", "axis"], &["l1"], &[]);
    let stacked = stacked.node("Unsqueeze", &["m", "axis"], &["m1"], &[]);
    let stacked = stacked.node("Concat", &["l1", "m1"], &["s"], &[int("axis", 0)]);
    let bytes = stacked.node("ReduceMean", &["s"], &["y"], &[ints("axes", &[0]), int("keepdims", 0)]).encode();
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[place] ^= 1 << bit;
            let model = Model::from_bytes(bytes, Path::new("test.onnx"));
            let _ = model.map(|model| model.find_head(&HeadOptions::default()).map(|found| found.to_string()));
        }
    }
}

#[test]
fn sums_of_sums_come_to_an_end() {
    // Each the double of the one before: 2^2000 addends.
    let mut doubled = two().node("Add", &["l", "m"], &["a0"], &[]);
    for place in 0..2000 {
        let from = format!("a{place}");
        doubled = doubled.node("Add", &[&from, &from], &[&format!("a{}", place + 1)], &[]);
    }
    let doubled = doubled.node("Identity", &["a2000"], &["y"], &[]);
    assert_eq!(doubled.find().unwrap_err().kind(), ErrorKind::Unsupported);
    // A head more for each of many sums.
    let mut many = two().node("Add", &["l", "m"], &["a0"], &[]);
    for place in 0..2000 {
        let (from, head, to) = (format!("a{place}"), format!("n{place}"), format!("a{}", place + 1));
        many = gemm(many, &["h", "w"], &head).node("Add", &[&from, &head], &[&to], &[]);
    }
    let many = many.node("Identity", &["a2000"], &["y"], &[]);
    assert_eq!(many.find().unwrap_err().kind(), ErrorKind::Unsupported);
}
