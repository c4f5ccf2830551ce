#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

use super::*;
use crate::model::element;
use crate::model::head::{Made, Positions};
use crate::model::linear::Quantization;
use crate::testing::{Builder, float, int, ints, stored, tensor, value};

/// W `[2, 3]` and b `[2]` of what was found.
fn values(found: &FoundHead) -> (Vec<f32>, Vec<f32>) {
    (found.head.weight().iter().copied().collect(), found.head.bias().to_vec())
}

/// `[C, D]` = `[2, 3]` as it is, and as its transpose `[3, 2]`.
const ROWS: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
const COLUMNS: [f32; 6] = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];

fn network() -> Builder {
    Builder::new().features().output("y", &[0, 2])
}

fn found(builder: &Builder) -> FoundHead {
    builder.find().unwrap()
}

fn refusal(builder: &Builder) -> Error {
    builder.find().unwrap_err()
}

#[test]
fn gemm_in_every_orientation() {
    let network = || network().floats("b", &[2], &[0.5, -0.5]);
    let plain = network().floats("w", &[3, 2], &COLUMNS).node("Gemm", &["h", "w", "b"], &["y"], &[]);
    assert_eq!(values(&found(&plain)), (ROWS.to_vec(), vec![0.5, -0.5]));
    let turned = network().floats("w", &[2, 3], &ROWS);
    let attributes = [int("transB", 1), float("alpha", 2.0), float("beta", 4.0)];
    let head = found(&turned.node("Gemm", &["h", "w", "b"], &["y"], &attributes));
    assert_eq!(values(&head), (ROWS.map(|value| 2.0 * value).to_vec(), vec![2.0, -2.0]));
    assert_eq!((head.features.as_str(), head.layout, head.node.as_str()), ("h", FeatureLayout::Rows, "node_y"));
    assert_eq!((head.logits.as_str(), head.output.as_str(), head.followed_by.len()), ("y", "y", 0));
    assert!(matches!(head.nonnegative, Nonnegative::Yes(_)));

    let columns = Builder::new().features().output("y", &[0, 2]).node("Transpose", &["h"], &["t"], &[]);
    let features_turned =
        columns.clone().floats("w", &[3, 2], &COLUMNS).node("Gemm", &["t", "w"], &["y"], &[int("transA", 1)]);
    let head = found(&features_turned);
    assert_eq!((values(&head).0, head.layout), (ROWS.to_vec(), FeatureLayout::Columns));
    // The constant first: logits are columns, turned back before the output.
    let left = columns.floats("w", &[2, 3], &ROWS).floats("b", &[2, 1], &[1.0, 2.0]).node(
        "Gemm",
        &["w", "t", "b"],
        &["z"],
        &[],
    );
    let head = found(&left.node("Transpose", &["z"], &["y"], &[]));
    assert_eq!((values(&head), head.layout), ((ROWS.to_vec(), vec![1.0, 2.0]), FeatureLayout::Columns));
    let left = network().floats("w", &[3, 2], &COLUMNS);
    let head = found(&left.node("Gemm", &["w", "h"], &["y"], &[int("transA", 1), int("transB", 1)]));
    assert_eq!((values(&head).0, head.layout), (ROWS.to_vec(), FeatureLayout::Rows));
}

#[test]
fn matmul_with_and_without_add() {
    let network = || network().floats("w", &[3, 2], &COLUMNS).floats("b", &[1, 2], &[7.0, 8.0]);
    let bare = network().node("MatMul", &["h", "w"], &["y"], &[]);
    assert_eq!(values(&found(&bare)), (ROWS.to_vec(), vec![0.0, 0.0]));
    for operands in [["m", "b"], ["b", "m"]] {
        let both = network().node("MatMul", &["h", "w"], &["m"], &[]).node("Add", &operands, &["z"], &[]);
        let head = found(&both.node("Softmax", &["z"], &["y"], &[]));
        assert_eq!(values(&head), (ROWS.to_vec(), vec![7.0, 8.0]));
        assert_eq!((head.operator.as_str(), head.logits.as_str()), ("MatMul, Add", "z"));
        assert_eq!(head.followed_by, [Following { operator: "Softmax".into(), node: "node_y".into() }]);
    }
    let left = Builder::new().features().output("y", &[2, 0]).node("Transpose", &["h"], &["t"], &[]);
    let left = left.floats("w", &[2, 3], &ROWS).node("MatMul", &["w", "t"], &["y"], &[]);
    assert_eq!((values(&found(&left)).0, found(&left).layout), (ROWS.to_vec(), FeatureLayout::Columns));
    // A fused form of an optimiser.
    let fused = Builder::new().features().output("y", &[0, 2]).floats("w", &[2, 3], &ROWS);
    let fused = fused.node("com.microsoft:FusedMatMul", &["h", "w"], &["y"], &[int("transB", 1), float("alpha", 2.0)]);
    assert_eq!(values(&found(&fused)).0, ROWS.map(|value| 2.0 * value));
}

#[test]
fn scales_and_shifts_behind_the_head_are_folded_in() {
    let network = network().floats("w", &[2, 3], &ROWS).floats("t", &[], &[0.5]).floats("c", &[2], &[1.0, 3.0]);
    let network = network.node("Gemm", &["h", "w"], &["l"], &[int("transB", 1)]);
    let scaled = network.clone().node("Sub", &["c", "l"], &["s"], &[]).node("Div", &["s", "t"], &["y"], &[]);
    let head = found(&scaled);
    assert_eq!(values(&head), (ROWS.map(|value| -2.0 * value).to_vec(), vec![2.0, 6.0]));
    assert_eq!((head.logits.as_str(), head.operator.as_str()), ("y", "Gemm, Sub, Div"));
    let normalised = network
        .clone()
        .floats("zero", &[2], &[0.0, 10.0])
        .floats("var", &[2], &[4.0, 1.0])
        .node("BatchNormalization", &["l", "c", "c", "zero", "var"], &["n"], &[float("epsilon", 0.0)])
        .node("LogSoftmax", &["n"], &["y"], &[]);
    let head = found(&normalised);
    assert_eq!(values(&head), (vec![0.5, 1.0, 1.5, 12.0, 15.0, 18.0], vec![1.0, -27.0]));
    // Behind a softmax nothing is linear any more.
    let late = network.node("Softmax", &["l"], &["p"], &[]).node("Mul", &["p", "t"], &["y"], &[]);
    let head = found(&late);
    assert_eq!((values(&head).0, head.logits.as_str(), head.followed_by.len()), (ROWS.to_vec(), "l", 2));
}

#[test]
fn weights_are_found_wherever_they_live() {
    let gemm = |builder: Builder, weight: &str| builder.node("MatMul", &["h", weight], &["y"], &[]);
    let expect = |builder: Builder| assert_eq!(values(&found(&builder)).0, ROWS);
    // Listed among the inputs too, as before IR version 4.
    let mut listed = network().floats("w", &[3, 2], &COLUMNS);
    listed.graph().input.push(value("w", &[3, 2]));
    expect(gemm(listed, "w"));
    let raw: Vec<u8> = COLUMNS.iter().flat_map(|value| value.to_le_bytes()).collect();
    let constant = tensor("value", stored("", &[3, 2], element::FLOAT, raw));
    expect(gemm(network().node("Constant", &[], &["w"], &[constant]), "w"));
    let reshaped = network().floats("v", &[3, 1, 2], &COLUMNS).ints("shape", &[3, -1]);
    expect(gemm(reshaped.node("Reshape", &["v", "shape"], &["w"], &[]), "w"));
    let turned = network().floats("v", &[2, 3], &ROWS).node("Transpose", &["v"], &["t"], &[ints("perm", &[1, 0])]);
    expect(gemm(turned.node("Identity", &["t"], &["w"], &[]), "w"));
    let squeezed = network().floats("v", &[1, 3, 2], &COLUMNS).ints("axes", &[0]);
    expect(gemm(squeezed.node("Squeeze", &["v", "axes"], &["w"], &[]), "w"));
    let half: Vec<u8> = COLUMNS.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect();
    expect(gemm(network().raw("w", &[3, 2], element::FLOAT16, half.clone()), "w"));
    let cast = network().raw("v", &[3, 2], element::FLOAT16, half);
    expect(gemm(cast.node("Cast", &["v"], &["w"], &[int("to", 1)]), "w"));
    let brain: Vec<u8> = COLUMNS.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect();
    expect(gemm(network().raw("w", &[3, 2], element::BFLOAT16, brain), "w"));
    let double: Vec<u8> = COLUMNS.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
    expect(gemm(network().raw("w", &[3, 2], element::DOUBLE, double), "w"));
    let quantised = network().int8s("q", &[3, 2], &[3, 9, 5, 11, 7, 13]).floats("s", &[], &[0.5]).int8s("z", &[], &[1]);
    expect(gemm(quantised.node("DequantizeLinear", &["q", "s", "z"], &["w"], &[]), "w"));
    let by_class =
        network().int8s("q", &[3, 2], &[1, 2, 2, 1, 3, 0]).floats("s", &[2], &[1.0, -1.0]).int8s("z", &[2], &[0, 6]);
    expect(gemm(by_class.node("DequantizeLinear", &["q", "s", "z"], &["w"], &[int("axis", 1)]), "w"));
}

#[test]
fn convolutions_of_one_position() {
    let network = || {
        Builder::new().floats("w", &[2, 3, 1, 1], &ROWS).floats("b", &[2], &[1.0, 2.0]).node(
            "Relu",
            &["x"],
            &["r"],
            &[],
        )
    };
    // After the pooling.
    let after = network().output("y", &[0, 2]).node("GlobalAveragePool", &["r"], &["g"], &[]);
    let after = after.node("Conv", &["g", "w", "b"], &["c"], &[]).node("Flatten", &["c"], &["y"], &[]);
    let head = found(&after);
    assert_eq!((values(&head), head.layout), ((ROWS.to_vec(), vec![1.0, 2.0]), FeatureLayout::Rows));
    // Before it: averages commute with the head.
    let before = network().output("y", &[0, 2]).node("Conv", &["r", "w", "b"], &["c"], &[]);
    let pooled = before.clone().node("GlobalAveragePool", &["c"], &["g"], &[]).node("Flatten", &["g"], &["y"], &[]);
    let head = found(&pooled);
    assert_eq!((head.layout, head.logits.as_str()), (FeatureLayout::Channels { exact: true }, "g"));
    // With an activation between, only a softmax tells a classifier from a backbone.
    let active = before.clone().node("Relu", &["c"], &["a"], &[]).node("GlobalAveragePool", &["a"], &["g"], &[]);
    let backbone = active.clone().node("Flatten", &["g"], &["y"], &[]);
    assert_eq!(refusal(&backbone).kind(), ErrorKind::Ambiguous);
    let head = HeadOptions { head: Some("node_c".into()), features: None };
    assert_eq!(backbone.model().unwrap().find_head(&head).unwrap().layout, FeatureLayout::Channels { exact: false });
    let classifier = active.node("Softmax", &["g"], &["p"], &[]).node("Flatten", &["p"], &["y"], &[]);
    let head = found(&classifier);
    assert_eq!((head.layout, head.logits.as_str()), (FeatureLayout::Channels { exact: false }, "c"));
    assert!(head.notes.iter().any(|note| note.contains("before that activation")), "{head}");
    // An activation that hides in rounding.
    let hidden = before.clone().floats("s", &[], &[1.0]).uint8s("z", &[], &[0]).node(
        "QuantizeLinear",
        &["c", "s", "z"],
        &["q"],
        &[],
    );
    let hidden =
        hidden.node("DequantizeLinear", &["q", "s", "z"], &["d"], &[]).node("GlobalAveragePool", &["d"], &["g"], &[]);
    let head = found(&hidden.node("Softmax", &["g"], &["p"], &[]).node("Flatten", &["p"], &["y"], &[]));
    assert_eq!((head.layout, head.logits.as_str()), (FeatureLayout::Channels { exact: false }, "c"));
    // A class for each position.
    let map = Builder::new().floats("w", &[2, 3, 1, 1], &ROWS).output("y", &[0, 2, 4, 4]).node(
        "Conv",
        &["x", "w"],
        &["y"],
        &[],
    );
    assert!(refusal(&map).to_string().contains("every position"), "{}", refusal(&map));
}

#[test]
fn a_convolution_as_large_as_its_input_is_linear() {
    let network = Builder::new().counting("w", &[2, 3, 4, 4]).output("y", &[0, 2]);
    let network = network.node("Conv", &["x", "w"], &["c"], &[]).node("Flatten", &["c"], &["y"], &[]);
    assert_eq!((found(&network).units(), found(&network).layout), (48, FeatureLayout::Rows));
    let smaller = Builder::new().counting("w", &[2, 3, 3, 3]).output("y", &[0, 8]);
    let smaller = smaller.node("Conv", &["x", "w"], &["c"], &[]).node("Flatten", &["c"], &["y"], &[]);
    assert_eq!(refusal(&smaller).kind(), ErrorKind::Unsupported);
}

#[test]
fn tokens_are_averaged() {
    let mut network = Builder::new().floats("w", &[3, 2], &COLUMNS).output("y", &[0, 2]);
    network.graph().input = vec![value("x", &[0, 5, 3])];
    let network = network.node("MatMul", &["x", "w"], &["m"], &[]);
    let pooled = network.clone().node("ReduceMean", &["m"], &["y"], &[ints("axes", &[1]), int("keepdims", 0)]);
    assert_eq!(found(&pooled).layout, FeatureLayout::Positions { exact: true });
    let mut tagged = network.node("Softmax", &["m"], &["y"], &[]);
    tagged.graph().output = vec![value("y", &[0, 5, 2])];
    assert_eq!(refusal(&tagged).kind(), ErrorKind::Unsupported);
}

#[test]
fn quantised_forms() {
    // W = (q - z) * s by class: [[1, 2, 3], [4, 5, 6]].
    let weights = || {
        network()
            .uint8s("q", &[3, 2], &[12, 8, 14, 9, 16, 10])
            .uint8s("z", &[2], &[10, 4])
            .floats("s", &[2], &[0.5, 1.0])
            .floats("b", &[2], &[1.0, 2.0])
    };
    let dynamic = |products: &str| {
        weights()
            .node("DynamicQuantizeLinear", &["h"], &["hq", "hs", "hz"], &[])
            .node("MatMulInteger", &["hq", "q", "hz", "z"], &["i"], &[])
            .node("Cast", &["i"], &["f"], &[int("to", 1)])
            .node("Mul", if products == "first" { &["hs", "s"] } else { &["s", "hs"] }, &["ss"], &[])
            .node("Mul", if products == "first" { &["f", "ss"] } else { &["ss", "f"] }, &["m"], &[])
            .node("Add", &["m", "b"], &["y"], &[])
    };
    for order in ["first", "last"] {
        let head = found(&dynamic(order));
        assert_eq!(values(&head), (ROWS.to_vec(), vec![1.0, 2.0]));
        assert_eq!((head.features.as_str(), head.logits.as_str()), ("h", "y"));
        assert_eq!(head.operator, "DynamicQuantizeLinear, MatMulInteger, Cast, Mul, Add");
        for named in ["node_i", "node_m", "y"] {
            let options = HeadOptions { head: Some(named.into()), features: None };
            assert_eq!(values(&dynamic(order).model().unwrap().find_head(&options).unwrap()).0, ROWS);
        }
    }
    let in_turn = weights()
        .node("DynamicQuantizeLinear", &["h"], &["hq", "hs", "hz"], &[])
        .node("MatMulInteger", &["hq", "q", "hz", "z"], &["i"], &[])
        .node("Cast", &["i"], &["f"], &[int("to", 1)])
        .node("Mul", &["f", "hs"], &["m"], &[])
        .node("Mul", &["m", "s"], &["y"], &[]);
    assert_eq!(values(&found(&in_turn)).0, ROWS);

    let fused = weights().node("com.microsoft:DynamicQuantizeMatMul", &["h", "q", "s", "z", "b"], &["y"], &[]);
    assert_eq!(values(&found(&fused)), (ROWS.to_vec(), vec![1.0, 2.0]));

    let fixed = || {
        weights().floats("hs", &[], &[0.25]).uint8s("hz", &[], &[0]).floats("os", &[], &[2.0]).uint8s("oz", &[], &[9])
    };
    let bias: Vec<u8> = [8i32, 8].iter().flat_map(|value| value.to_le_bytes()).collect();
    let rounded =
        fixed().raw("bi", &[2], element::INT32, bias).node("QuantizeLinear", &["h", "hs", "hz"], &["hq"], &[]);
    let gemm = ["hq", "hs", "hz", "q", "s", "z", "bi"];
    let floats = rounded.clone().node("com.microsoft:QGemm", &gemm, &["y"], &[]);
    let head = found(&floats);
    assert_eq!((values(&head), head.features.as_str()), ((ROWS.to_vec(), vec![1.0, 2.0]), "h"));
    let integers = rounded.clone().node("com.microsoft:QGemm", &[&gemm[..], &["os", "oz"]].concat(), &["o"], &[]);
    let head = found(&integers.node("DequantizeLinear", &["o", "os", "oz"], &["y"], &[]));
    assert_eq!((values(&head).1, head.logits.as_str()), (vec![1.0, 2.0], "y"));
    let products = rounded.clone().node("QLinearMatMul", &["hq", "hs", "hz", "q", "s", "z", "os", "oz"], &["o"], &[]);
    let products =
        products.node("DequantizeLinear", &["o", "os", "oz"], &["d"], &[]).node("Add", &["d", "b"], &["y"], &[]);
    assert_eq!(values(&found(&products)), (ROWS.to_vec(), vec![1.0, 2.0]));
    assert_eq!(found(&products).notes.iter().filter(|note| note.contains("cuts negative")).count(), 0);
    // The bias in integers of its own: (q - 4) / 2.
    let added = rounded
        .clone()
        .uint8s("c", &[2], &[6, 8])
        .floats("cs", &[], &[0.5])
        .uint8s("cz", &[], &[4])
        .node("QLinearMatMul", &["hq", "hs", "hz", "q", "s", "z", "os", "oz"], &["o"], &[])
        .node("com.microsoft:QLinearAdd", &["o", "os", "oz", "c", "cs", "cz", "os", "oz"], &["a"], &[])
        .node("DequantizeLinear", &["a", "os", "oz"], &["y"], &[]);
    let head = found(&added);
    assert_eq!((values(&head), head.logits.as_str()), ((ROWS.to_vec(), vec![1.0, 2.0]), "y"));
    assert!(head.notes.iter().any(|note| note.contains("rounds logits to 8 bits within the head")), "{head}");
    let to_float = weights().node("DynamicQuantizeLinear", &["h"], &["hq", "hs", "hz"], &[]).node(
        "com.microsoft:MatMulIntegerToFloat",
        &["hq", "q", "hs", "s", "hz", "z", "b"],
        &["y"],
        &[],
    );
    let head = found(&to_float);
    assert_eq!((values(&head), head.features.as_str()), ((ROWS.to_vec(), vec![1.0, 2.0]), "h"));
    // An output whose integers start at zero is a ReLU.
    let cut = rounded.uint8s("lowest", &[], &[0]);
    let cut = cut.node("com.microsoft:QGemm", &[&gemm[..], &["os", "lowest"]].concat(), &["o"], &[]);
    let head = found(&cut.node("DequantizeLinear", &["o", "os", "lowest"], &["y"], &[]));
    assert!(head.notes.iter().any(|note| note.contains("cuts negative")), "{head}");
    // Features that only exist as integers.
    let stored = fixed().node("com.microsoft:QLinearGlobalAveragePool", &["x", "hs", "hz", "hs", "hz"], &["p"], &[]);
    let head = found(&stored.node("com.microsoft:QGemm", &["p", "hs", "hz", "q", "s", "z"], &["y"], &[]));
    assert_eq!(head.quantization, Some(Quantization { scale: 0.25, zero_point: 0 }));
    assert!(matches!(head.nonnegative, Nonnegative::Yes(_)));

    let fake = network()
        .floats("w", &[3, 2], &COLUMNS)
        .floats("s", &[], &[1.0])
        .int8s("z", &[], &[0])
        .int8s("bq", &[2], &[3, 4])
        .node("QuantizeLinear", &["w", "s", "z"], &["wq"], &[])
        .node("DequantizeLinear", &["wq", "s", "z"], &["wd"], &[])
        .node("QuantizeLinear", &["h", "s", "z"], &["hq"], &[])
        .node("DequantizeLinear", &["hq", "s", "z"], &["hd"], &[])
        .node("MatMul", &["hd", "wd"], &["m"], &[])
        .node("QuantizeLinear", &["m", "s", "z"], &["mq"], &[])
        .node("DequantizeLinear", &["mq", "s", "z"], &["md"], &[])
        .node("DequantizeLinear", &["bq", "s", "z"], &["bd"], &[])
        .node("Add", &["bd", "md"], &["a"], &[])
        .node("QuantizeLinear", &["a", "s", "z"], &["aq"], &[])
        .node("DequantizeLinear", &["aq", "s", "z"], &["y"], &[]);
    let head = found(&fake);
    assert_eq!((values(&head), head.features.as_str()), ((ROWS.to_vec(), vec![3.0, 4.0]), "hd"));
    assert_eq!((head.logits.as_str(), head.followed_by.len(), head.notes.len()), ("a", 2, 3));
}

#[test]
fn signs_are_followed_through_the_graph() {
    let sign = |build: &dyn Fn(Builder) -> Builder| {
        let builder = build(Builder::new().output("y", &[0, 2]).floats("w", &[3, 2], &COLUMNS));
        found(&builder.node("Flatten", &["f"], &["h"], &[]).node("MatMul", &["h", "w"], &["y"], &[])).nonnegative
    };
    let is = |sign: Nonnegative| match sign {
        Nonnegative::Yes(_) => '+',
        Nonnegative::No(_) => '-',
        Nonnegative::Unknown(_) => '?',
    };
    let one = |operator: &'static str| is(sign(&|b| b.node(operator, &["x"], &["f"], &[])));
    assert_eq!(["Relu", "Sigmoid", "Softmax", "HardSigmoid", "Exp"].map(one), ['+'; 5]);
    assert_eq!(["Tanh", "LeakyRelu", "Gelu", "HardSwish", "LayerNormalization"].map(one), ['-'; 5]);
    assert_eq!(["MaxPool", "com.example:Mystery", "Identity"].map(one), ['?'; 3]);
    let clip = |low: f32| is(sign(&|b| b.node("Clip", &["x"], &["f"], &[float("min", low)])));
    assert_eq!([clip(0.0), clip(-1.0)], ['+', '?']);
    let clip = |low: f32| is(sign(&|b| b.floats("low", &[], &[low]).node("Clip", &["x", "low"], &["f"], &[])));
    assert_eq!([clip(0.0), clip(-1.0)], ['+', '?']);
    let joined = |second: &'static str| {
        is(sign(&|b| {
            let b = b.node("Relu", &["x"], &["a"], &[]).node(second, &["x"], &["c"], &[]);
            b.node("Concat", &["a", "c"], &["j"], &[int("axis", 1)]).node("AveragePool", &["j"], &["f"], &[])
        }))
    };
    assert_eq!([joined("Relu"), joined("Tanh"), joined("Cos"), joined("Identity")], ['+', '-', '-', '?']);
    let silu = is(sign(&|b| {
        b.node("Tanh", &["x"], &["t"], &[]).node("Sigmoid", &["t"], &["s"], &[]).node("Mul", &["t", "s"], &["f"], &[])
    }));
    assert_eq!(silu, '-');
    let quantised = |zero: u8| {
        is(sign(&|b| {
            let b = b.floats("s", &[], &[0.1]).uint8s("z", &[], &[zero]).node("Tanh", &["x"], &["t"], &[]);
            b.node("QuantizeLinear", &["t", "s", "z"], &["q"], &[]).node(
                "DequantizeLinear",
                &["q", "s", "z"],
                &["f"],
                &[],
            )
        }))
    };
    assert_eq!([quantised(0), quantised(128)], ['+', '-']);
}

#[test]
fn several_outputs_are_told_apart() {
    let network = || network().floats("w", &[3, 2], &COLUMNS).node("MatMul", &["h", "w"], &["l"], &[]);
    // Labels, features and probabilities of one head.
    let one = network()
        .node("Softmax", &["l"], &["y"], &[])
        .node("ArgMax", &["l"], &["label"], &[])
        .output("label", &[0])
        .output("g", &[0, 3, 1, 1]);
    let head = found(&one);
    assert_eq!((head.output.as_str(), head.logits.as_str()), ("y", "l"));
    // An inner layer as an output beside the last.
    let inner = network().floats("v", &[2, 4], &[1.0; 8]).node("MatMul", &["l", "v"], &["k"], &[]).output("k", &[0, 4]);
    let inner = inner.node("Relu", &["l"], &["y"], &[]);
    assert_eq!(found(&inner).features, "l");
    // Two heads side by side.
    let two = network().node("Identity", &["l"], &["y"], &[]).floats("v", &[3, 4], &[1.0; 12]);
    let two = two.node("MatMul", &["h", "v"], &["k"], &[]).output("k", &[0, 4]);
    let error = refusal(&two);
    assert_eq!(error.kind(), ErrorKind::Ambiguous);
    assert!(error.to_string().contains("node_l") && error.to_string().contains("node_k"), "{error}");
    for (name, classes) in [("node_l", 2), ("l", 2), ("node_k", 4), ("k", 4)] {
        let options = HeadOptions { head: Some(name.into()), features: None };
        assert_eq!(two.model().unwrap().find_head(&options).unwrap().classes(), classes);
    }
    let options = HeadOptions { head: Some("nothing".into()), features: None };
    let error = two.model().unwrap().find_head(&options).unwrap_err();
    assert!(error.kind() == ErrorKind::Missing && error.to_string().contains("node_k"), "{error}");
}

#[test]
fn features_can_be_named() {
    let network = network().floats("w", &[3, 2], &COLUMNS).floats("b", &[2], &[1.0, 2.0]);
    let network = network.node("MatMul", &["h", "w"], &["m"], &[]).node("Add", &["m", "b"], &["y"], &[]);
    let with = |features: &str| {
        network.model().unwrap().find_head(&HeadOptions { head: None, features: Some(features.into()) })
    };
    assert_eq!((with("h").unwrap().features.as_str(), with("h").unwrap().layout), ("h", FeatureLayout::Rows));
    assert_eq!(with("g").unwrap().layout, FeatureLayout::Rows);
    let map = with("r").unwrap();
    assert_eq!((map.layout, values(&map).1), (FeatureLayout::Channels { exact: true }, vec![1.0, 2.0]));
    assert_eq!(with("x").unwrap_err().kind(), ErrorKind::Argument);
    assert_eq!(with("nothing").unwrap_err().kind(), ErrorKind::Missing);
}

#[test]
fn what_has_no_head_is_refused_with_the_reason() {
    let network = || network().floats("w", &[3, 2], &COLUMNS);
    let says = |builder: Builder, kind: ErrorKind, text: &str| {
        let error = refusal(&builder);
        assert!(error.kind() == kind && error.to_string().contains(text), "{error}");
        assert!(error.to_string().contains("test.onnx"), "{error}");
        assert!(builder.model().unwrap().describe().contains("No head"));
    };
    let binary = Builder::new().features().output("y", &[0, 1]).floats("w", &[3, 1], &[1.0; 3]);
    let binary = binary.node("MatMul", &["h", "w"], &["l"], &[]).node("Sigmoid", &["l"], &["y"], &[]);
    says(binary, ErrorKind::Unsupported, "one class");
    let classical = Builder::new().output("y", &[0]).node("ai.onnx.ml:TreeEnsembleClassifier", &["x"], &["y"], &[]);
    says(classical, ErrorKind::Unsupported, "classical model");
    let computed = network().node("Transpose", &["h"], &["t"], &[]).node("MatMul", &["h", "t"], &["y"], &[]);
    says(computed, ErrorKind::Unsupported, "both factors computed");
    says(network().node("Tanh", &["h"], &["y"], &[]), ErrorKind::Missing, "no linear layer");
    says(network().node("Concat", &["h", "h"], &["y"], &[int("axis", 1)]), ErrorKind::Unsupported, "Concat");
    let fused = network().node("com.microsoft:FusedGemm", &["h", "w"], &["y"], &[]);
    says(fused, ErrorKind::Unsupported, "optimiser merged");
    let mask = network().node("MatMul", &["h", "w"], &["m"], &[]).node("Dropout", &["m"], &["d", "y"], &[]);
    says(mask, ErrorKind::Unsupported, "first output");
    let residual = network().node("MatMul", &["h", "w"], &["m"], &[]).node("Add", &["m", "m"], &["y"], &[]);
    says(residual, ErrorKind::Unsupported, "two computed operands");
    let mut boxes = network().node("MatMul", &["h", "w"], &["y"], &[]);
    boxes.graph().output = vec![value("y", &[0, 7, 2])];
    says(boxes, ErrorKind::Unsupported, "14 values");
    let infinite = network().floats("v", &[3, 2], &[f32::NAN; 6]).node("MatMul", &["h", "v"], &["y"], &[]);
    says(infinite, ErrorKind::NotFinite, "NaN");
    let short = network().raw("v", &[3, 2], element::FLOAT, vec![0; 20]).node("MatMul", &["h", "v"], &["y"], &[]);
    says(short, ErrorKind::Malformed, "24 bytes");
    let wide = network().floats("b", &[3], &[0.0; 3]).node("Gemm", &["h", "w", "b"], &["y"], &[]);
    says(wide, ErrorKind::Shape, "each of 2 classes");
}

#[test]
fn quantised_convolutions() {
    let bias: Vec<u8> = [8i32, 8].iter().flat_map(|value| value.to_le_bytes()).collect();
    let network = |zero: u8| {
        Builder::new()
            .output("y", &[0, 2])
            .uint8s("q", &[2, 3, 1, 1], &[12, 14, 16, 8, 9, 10])
            .uint8s("z", &[2], &[10, 4])
            .floats("s", &[2], &[0.5, 1.0])
            .raw("b", &[2], element::INT32, bias.clone())
            .floats("hs", &[], &[0.25])
            .uint8s("hz", &[], &[0])
            .floats("os", &[], &[2.0])
            .uint8s("oz", &[], &[zero])
            .node("QuantizeLinear", &["x", "hs", "hz"], &["xq"], &[])
            .node("MaxPool", &["xq"], &["pq"], &[ints("kernel_shape", &[1, 1])])
            .node("QLinearConv", &["pq", "hs", "hz", "q", "s", "z", "os", "oz", "b"], &["c"], &[])
            .node("com.microsoft:QLinearGlobalAveragePool", &["c", "os", "oz", "os", "oz"], &["g"], &[])
            .node("DequantizeLinear", &["g", "os", "oz"], &["d"], &[])
            .node("Flatten", &["d"], &["f"], &[])
            .node("Softmax", &["f"], &["y"], &[])
    };
    let head = found(&network(9));
    assert_eq!(values(&head), (ROWS.to_vec(), vec![1.0, 2.0]));
    assert_eq!((head.features.as_str(), head.logits.as_str()), ("pq", "d"));
    assert_eq!(head.layout, FeatureLayout::Channels { exact: true });
    assert_eq!(head.quantization, Some(Quantization { scale: 0.25, zero_point: 0 }));
    assert!(matches!(head.nonnegative, Nonnegative::Yes(_)));
    // Integers that start at zero are a ReLU before the pooling.
    assert_eq!(found(&network(0)).layout, FeatureLayout::Channels { exact: false });
    let padded = Builder::new()
        .output("c", &[0, 2])
        .uint8s("q", &[2, 3, 3, 3], &[1; 54])
        .floats("s", &[], &[0.5])
        .uint8s("z", &[], &[0])
        .node("QuantizeLinear", &["x", "s", "z"], &["xq"], &[])
        .node("QLinearConv", &["xq", "s", "z", "q", "s", "z", "s", "z"], &["c"], &[ints("pads", &[1, 1, 1, 1])]);
    assert!(padded.find().unwrap_err().to_string().contains("padding"));
}

#[test]
fn a_position_selected_behind_the_layer_is_told_apart() {
    let sequence = || {
        let mut builder = Builder::new();
        builder.graph().input = vec![value("x", &[0, 0, 3])];
        builder.floats("w", &[3, 2], &COLUMNS).floats("b", &[2], &[0.0; 2]).ints("first", &[0])
    };
    // The usual order: one position, then the layer.
    let before =
        sequence().node("Gather", &["x", "first"], &["c"], &[int("axis", 1)]).node("Flatten", &["c"], &["h"], &[]);
    let head = found(&before.node("Gemm", &["h", "w", "b"], &["y"], &[]).output("y", &[0, 2]));
    assert_eq!((head.features.as_str(), head.layout), ("h", FeatureLayout::Rows));
    let behind = sequence().node("MatMul", &["x", "w"], &["m"], &[]).node("Add", &["m", "b"], &["l"], &[]);
    let selected = behind.clone().node("Gather", &["l", "first"], &["y"], &[int("axis", 1)]).output("y", &[0, 2]);
    let selected = found(&selected);
    assert_eq!((&*selected.features, selected.layout), ("x", FeatureLayout::Selected { position: 0 }));
    assert_eq!((&*selected.operator, &*selected.logits), ("MatMul, Add, Gather", "y"));
    assert!(selected.notes[0].contains("one is selected behind it"), "{:?}", selected.notes);
    // Positions that are computed: of each input, or counted through all of them.
    let mut computed = behind.clone().output("y", &[0, 2]);
    computed.graph().input.push(value("p", &[0]));
    let flat = computed.clone().node("Flatten", &["l"], &["f"], &[int("axis", 2)]);
    let flat = found(&flat.node("Gather", &["f", "p"], &["y"], &[]));
    let each = found(&computed.clone().node("GatherND", &["l", "p"], &["y"], &[]));
    for (head, flat) in [(flat, true), (each, false)] {
        assert_eq!((&*head.features, head.layout), ("x", FeatureLayout::SelectedByInput));
        assert_eq!(head.made, Some(Made::Selected(Positions { tensor: "p".into(), flat })));
    }
    // Inputs that are picked are no positions.
    assert_eq!(refusal(&computed.node("Gather", &["l", "p"], &["y"], &[])).kind(), ErrorKind::Unsupported);
    let error = refusal(&behind.node("GatherND", &["l", "first"], &["y"], &[]).output("y", &[0, 2]));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    for part in ["every position of a sequence", "head(hidden[:, 0])", "node_m"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // Logits of two axes have no positions.
    let picked = network().floats("w", &[3, 2], &COLUMNS).ints("first", &[0]).node("MatMul", &["h", "w"], &["l"], &[]);
    let mut picked = picked.node("Gather", &["l", "first"], &["y"], &[int("axis", 1)]);
    picked.graph().value_info.push(value("l", &[0, 2]));
    assert!(!refusal(&picked).to_string().contains("sequence"));
    // Any number of selections, one after the other.
    let mut many = sequence().output("y", &[0, 2]);
    for place in 0..20_000 {
        let (from, to) = (if place == 0 { "x".into() } else { format!("g{place}") }, format!("g{}", place + 1));
        many = many.node("Gather", &[&from, "first"], &[&to], &[int("axis", 1)]);
    }
    assert_eq!(refusal(&many.node("Identity", &["g20000"], &["y"], &[])).kind(), ErrorKind::Unsupported);
}

/// As torch's older exporter writes `F.linear(h, F.normalize(w))`.
#[test]
fn weights_that_the_graph_normalises_are_folded() {
    let normalised = |base: Builder| {
        base.floats("v", &[2, 3], &[3.0, 0.0, 4.0, 0.0, 0.0, 0.0])
            .floats("least", &[], &[1e-12])
            .node("ReduceL2", &["v"], &["n"], &[ints("axes", &[1]), int("keepdims", 1)])
            .node("Clip", &["n", "least", ""], &["c"], &[])
            .node("Shape", &["v"], &["s"], &[])
            .node("Expand", &["c", "s"], &["e"], &[])
            .node("Div", &["v", "e"], &["d"], &[])
            .node("Transpose", &["d"], &["t"], &[ints("perm", &[1, 0])])
            .node("MatMul", &["h", "t"], &["y"], &[])
            .output("y", &[0, 2])
    };
    let head = found(&normalised(Builder::new().features()));
    assert_eq!(values(&head), (vec![0.6, 0.0, 0.8, 0.0, 0.0, 0.0], vec![0.0; 2]));
}

#[test]
fn a_softmax_that_is_written_out_is_one() {
    let logits = || {
        network()
            .floats("w", &[3, 2], &COLUMNS)
            .floats("b", &[2], &[7.0, 8.0])
            .floats("low", &[], &[-9.0])
            .ints("axis", &[1])
    };
    let logits = || logits().node("MatMul", &["h", "w"], &["m"], &[]).node("Add", &["m", "b"], &["l"], &[]);
    let largest = |of: &str| {
        let network = logits().node("ReduceMax", &[of], &["top"], &[ints("axes", &[1])]);
        network.node("Max", &["low", "top"], &["z"], &[]).node("Identity", &["z"], &["a"], &[]).node(
            "Sub",
            &["l", "a"],
            &["d"],
            &[],
        )
    };
    let divided = |network: Builder, of: &str, by: &str| {
        network.node("Exp", &[of], &["e"], &[]).node("ReduceSum", &[by, "axis"], &["s"], &[]).node(
            "Div",
            &["e", "s"],
            &["y"],
            &[],
        )
    };
    for network in [divided(logits(), "l", "e"), divided(largest("l"), "d", "e")] {
        let head = found(&network);
        assert_eq!((values(&head), head.logits.as_str()), ((ROWS.to_vec(), vec![7.0, 8.0]), "l"));
        assert_eq!(head.followed_by, [Following { operator: "Div".into(), node: "node_y".into() }]);
    }
    // The sum of something else, and the maximum of something else.
    assert!(refusal(&divided(logits(), "l", "l")).to_string().contains("two computed operands"));
    let other = divided(largest("m"), "d", "e");
    assert!(refusal(&other).to_string().contains("two computed operands"), "{}", refusal(&other));
}
