//! Operators that the built-in runtime (rten 0.27) lacks or computes otherwise than ONNX says, as others that it has.
//!
//! Attributes that an older operator set has in place of inputs are given as such: rten takes either form in models of any operator set.

mod cubic;

use dice_ood::Result;

use crate::model::element;
use crate::model::node::{attribute, float, integer, is_standard};
use crate::model::proto::{AttributeProto, ModelProto, NodeProto, TensorProto};
use crate::write::splice::replace_operators;

/// Adds operators, the last of which makes the output; `None` where a form is not covered, which the runtime then refuses itself.
type Rule = fn(&mut Steps<'_>) -> Option<()>;

const RULES: [(&str, Rule); 27] = [
    ("ArgMax", |steps| place_of_first(steps, 1)),
    ("ArgMin", |steps| place_of_first(steps, 0)),
    ("AveragePool", window),
    ("BatchNormalization", training_normalization),
    ("Celu", celu),
    ("Conv", window),
    // rten computes products of integers wrongly where zero points are not zero: of a quantised MobileNetV2 no prediction survives.
    ("ConvInteger", |steps| whole_products(steps, "Conv")),
    ("GlobalLpPool", global_lp_pool),
    ("GroupNormalization", group_normalization),
    ("Hardmax", hardmax),
    ("LRN", local_response),
    ("LogSoftmax", |steps| by_rows(steps, "LogSoftmax")),
    ("LpPool", lp_pool),
    ("MatMulInteger", |steps| whole_products(steps, "MatMul")),
    ("MaxPool", window),
    ("MeanVarianceNormalization", mean_variance),
    ("Mish", mish),
    ("QLinearConv", |steps| quantized_products(steps, "Conv")),
    ("QLinearMatMul", |steps| quantized_products(steps, "MatMul")),
    ("Resize", resize),
    ("Selu", selu),
    ("Shrink", shrink),
    ("Sign", sign),
    ("Softmax", |steps| by_rows(steps, "Softmax")),
    ("Softplus", |steps| softplus(steps).map(drop)),
    ("SpaceToDepth", space_to_depth),
    ("ThresholdedRelu", thresholded_relu),
];

/// The encoded `model` with these operators replaced, in subgraphs too; `None` where there is nothing to replace.
///
/// `bytes` are those of the model, whole.
///
/// # Errors
/// [`dice_ood::ErrorKind::Malformed`] where they are no protobuf message.
pub(super) fn with_known_operators(model: &ModelProto, bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let opset = model.opsets().max().unwrap_or(1);
    replace_operators(bytes, |node| replacement(node, opset))
}

fn replacement(node: &NodeProto, opset: i64) -> Option<Vec<NodeProto>> {
    let (_, rule) = RULES.iter().find(|(name, _)| *name == node.op_type).filter(|_| is_standard(node))?;
    let output = node.output.first()?;
    let mut steps = Steps { node, output, opset, nodes: Vec::new() };
    rule(&mut steps)?;
    steps.nodes.last_mut()?.output = vec![output.clone()];
    Some(steps.nodes)
}

/// Operators that replace one.
struct Steps<'n> {
    node: &'n NodeProto,
    output: &'n str,
    opset: i64,
    nodes: Vec<NodeProto>,
}

impl Steps<'_> {
    fn given(&self, place: usize) -> Option<String> {
        self.node.input.get(place).filter(|name| !name.is_empty()).cloned()
    }

    /// Adds an operator, and returns the name of its output.
    fn add(&mut self, operator: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let name = format!("{}/instead/{}", self.output, self.nodes.len());
        let input = inputs.iter().map(ToString::to_string).collect();
        let op_type = operator.to_owned();
        self.nodes.push(NodeProto { input, output: vec![name.clone()], op_type, attribute, ..NodeProto::default() });
        name
    }

    fn of(&mut self, operator: &str, inputs: &[&str]) -> String {
        self.add(operator, inputs, Vec::new())
    }

    fn constant(&mut self, tensor: TensorProto) -> String {
        self.add("Constant", &[], vec![AttributeProto::tensor("value", tensor)])
    }

    fn scalar(&mut self, value: f32) -> String {
        self.constant(TensorProto { data_type: element::FLOAT, float_data: vec![value], ..TensorProto::default() })
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let (dims, int64_data) = (vec![values.len() as i64], values.to_vec());
        self.constant(TensorProto { dims, data_type: element::INT64, int64_data, ..TensorProto::default() })
    }

    fn reshape(&mut self, tensor: &str, shape: &[i64]) -> String {
        let shape = self.integers(shape);
        self.of("Reshape", &[tensor, &shape])
    }

    fn reshape_like(&mut self, tensor: &str, other: &str) -> String {
        let shape = self.of("Shape", &[other]);
        self.of("Reshape", &[tensor, &shape])
    }

    /// A convolution with the windows of the node, or a product of matrices.
    fn product(&mut self, operator: &str, x: &str, w: &str) -> Option<String> {
        let attributes = if operator == "Conv" { attributes_of_window(self.node)? } else { Vec::new() };
        Some(self.add(operator, &[x, w], attributes))
    }

    /// The node with a word for an attribute that rten does not know, and says so.
    fn refuse(&mut self, attribute: &str, word: &'static str) {
        let word = AttributeProto { s: word.into(), name: attribute.into(), r#type: 3, ..AttributeProto::default() };
        let others = self.node.attribute.iter().filter(|one| one.name != attribute).cloned();
        let attributes = others.chain([word]).collect();
        let inputs: Vec<_> = self.node.input.iter().map(String::as_str).collect();
        self.add(&self.node.op_type, &inputs, attributes);
    }

    /// A reduction of axes, which stay with length one.
    fn reduce(&mut self, operator: &str, tensor: &str, axes: &[i64]) -> String {
        self.add(operator, &[tensor], vec![AttributeProto::ints("axes", axes)])
    }

    /// Elements `start` to `end` of a vector.
    fn part(&mut self, vector: &str, start: i64, end: i64) -> String {
        let (start, end) = (self.integers(&[start]), self.integers(&[end]));
        self.of("Slice", &[vector, &start, &end])
    }

    /// The place of the first largest value along an axis, which stays with length one; of the smallest where `largest` is 0.
    fn first(&mut self, x: &str, axis: i64, largest: i64) -> String {
        let one = self.integers(&[1]);
        let attributes = vec![AttributeProto::int("axis", axis), AttributeProto::int("largest", largest)];
        self.add("TopK", &[x, &one], attributes);
        let [places, values] = ["places", "values"].map(|what| format!("{}/instead/{what}", self.output));
        if let Some(node) = self.nodes.last_mut() {
            node.output = vec![values, places.clone()];
        }
        places
    }

    fn joined(&mut self, vectors: &[&str]) -> String {
        self.add("Concat", vectors, vec![AttributeProto::int("axis", 0)])
    }

    fn cast(&mut self, tensor: &str, to: i32) -> String {
        self.add("Cast", &[tensor], vec![AttributeProto::int("to", to.into())])
    }

    /// `(x - mean) / deviation`, over `axes`.
    fn standardised(&mut self, x: &str, axes: &[i64], deviation: impl FnOnce(&mut Self, &str) -> String) -> String {
        let mean = self.reduce("ReduceMean", x, axes);
        let centred = self.of("Sub", &[x, &mean]);
        let squares = self.of("Mul", &[&centred, &centred]);
        let variance = self.reduce("ReduceMean", &squares, axes);
        let deviation = deviation(self, &variance);
        self.of("Div", &[&centred, &deviation])
    }

    /// `sqrt(variance + epsilon)`.
    fn deviation(&mut self, variance: &str, epsilon: f32) -> String {
        let epsilon = self.scalar(epsilon);
        let variance = self.of("Add", &[variance, &epsilon]);
        self.of("Sqrt", &[&variance])
    }

    /// `rows` `[N, C, M]` times `scale` and plus `bias`, `[C]`, in the shape of `x`.
    fn scaled(&mut self, rows: &str, scale: &str, bias: &str, x: &str) {
        let [scale, bias] = [scale, bias].map(|values| self.reshape(values, &[1, -1, 1]));
        let scaled = self.of("Mul", &[rows, &scale]);
        let shifted = self.of("Add", &[&scaled, &bias]);
        self.reshape_like(&shifted, x);
    }
}

/// `x` above zero, else `alpha * (exp(x) - 1)`, times `gamma`.
fn selu(steps: &mut Steps<'_>) -> Option<()> {
    let x = steps.given(0)?;
    let (alpha, gamma) = if steps.opset < 6 { (1.6732, 1.0507) } else { (1.673_263_2, 1.050_701) };
    let alpha = AttributeProto::float("alpha", float(steps.node, "alpha", alpha));
    let gamma = steps.scalar(float(steps.node, "gamma", gamma));
    let elu = steps.add("Elu", &[&x], vec![alpha]);
    steps.of("Mul", &[&gamma, &elu]);
    Some(())
}

/// `x` above zero, else `alpha * (exp(x / alpha) - 1)`.
fn celu(steps: &mut Steps<'_>) -> Option<()> {
    let x = steps.given(0)?;
    let alpha = float(steps.node, "alpha", 1.0);
    let scale = steps.scalar(alpha);
    let scaled = steps.of("Div", &[&x, &scale]);
    let zero = steps.scalar(0.0);
    let negative = steps.of("Min", &[&scaled, &zero]);
    let elu = steps.add("Elu", &[&negative], vec![AttributeProto::float("alpha", 1.0)]);
    let negative = steps.of("Mul", &[&scale, &elu]);
    let positive = steps.of("Relu", &[&x]);
    steps.of("Add", &[&positive, &negative]);
    Some(())
}

/// `x` above `alpha`, else 0.
fn thresholded_relu(steps: &mut Steps<'_>) -> Option<()> {
    let x = steps.given(0)?;
    let (alpha, zero) = (steps.scalar(float(steps.node, "alpha", 1.0)), steps.scalar(0.0));
    let above = steps.of("Greater", &[&x, &alpha]);
    steps.of("Where", &[&above, &x, &zero]);
    Some(())
}

/// `x - bias` above `lambd`, `x + bias` below `-lambd`, else 0.
fn shrink(steps: &mut Steps<'_>) -> Option<()> {
    let x = steps.given(0)?;
    let bound = float(steps.node, "lambd", 0.5);
    let bias = steps.scalar(float(steps.node, "bias", 0.0));
    let (least, most, zero) = (steps.scalar(-bound), steps.scalar(bound), steps.scalar(0.0));
    let (below, above) = (steps.of("Less", &[&x, &least]), steps.of("Greater", &[&x, &most]));
    let (raised, lowered) = (steps.of("Add", &[&x, &bias]), steps.of("Sub", &[&x, &bias]));
    let otherwise = steps.of("Where", &[&above, &lowered, &zero]);
    steps.of("Where", &[&below, &raised, &otherwise]);
    Some(())
}

/// `log(1 + exp(x))`, whose exponential in rten overflows from 89 on; from 20 on it is `x` to f32's precision.
fn softplus(steps: &mut Steps<'_>) -> Option<String> {
    let x = steps.given(0)?;
    let bound = steps.scalar(20.0);
    let low = steps.of("Min", &[&x, &bound]);
    let low = steps.of("Softplus", &[&low]);
    let excess = steps.of("Sub", &[&x, &bound]);
    let excess = steps.of("Relu", &[&excess]);
    Some(steps.of("Add", &[&low, &excess]))
}

/// `x * tanh(softplus(x))`.
fn mish(steps: &mut Steps<'_>) -> Option<()> {
    let x = steps.given(0)?;
    let softplus = softplus(steps)?;
    let gate = steps.of("Tanh", &[&softplus]);
    steps.of("Mul", &[&x, &gate]);
    Some(())
}

/// Before opset 13 the axes from `axis` on, 1 where it is not given, are taken as one. rten does as from 13 on: that axis alone, or the last.
fn by_rows(steps: &mut Steps<'_>, operator: &str) -> Option<()> {
    let axis = integer(steps.node, "axis", 1);
    if steps.opset >= 13 || axis == -1 {
        return None;
    }
    let x = steps.given(0)?;
    let rows = steps.add("Flatten", &[&x], vec![AttributeProto::int("axis", axis)]);
    let made = steps.add(operator, &[&rows], vec![AttributeProto::int("axis", -1)]);
    steps.reshape_like(&made, &x);
    Some(())
}

/// Of equal values rten takes the last, where ONNX takes the first unless told otherwise.
fn place_of_first(steps: &mut Steps<'_>, largest: i64) -> Option<()> {
    let x = steps.given(0)?;
    let axis = integer(steps.node, "axis", 0);
    if integer(steps.node, "select_last_index", 0) != 0 {
        let others = steps.node.attribute.iter().filter(|one| one.name != "select_last_index").cloned().collect();
        steps.add(&steps.node.op_type, &[&x], others);
        return Some(());
    }
    let places = steps.first(&x, axis, largest);
    if integer(steps.node, "keepdims", 1) == 0 {
        steps.add("Squeeze", &[&places], vec![AttributeProto::ints("axes", &[axis])]);
    } else {
        steps.of("Identity", &[&places]);
    }
    Some(())
}

/// That of zero is zero, and one in rten.
fn sign(steps: &mut Steps<'_>) -> Option<()> {
    let x = steps.given(0)?;
    let zero = steps.scalar(0.0);
    let zero = steps.of("CastLike", &[&zero, &x]);
    let [below, above] = ["Less", "Greater"].map(|operator| steps.of(operator, &[&x, &zero]));
    let [below, above] = [below, above].map(|one| steps.of("CastLike", &[&one, &x]));
    steps.of("Sub", &[&above, &below]);
    Some(())
}

/// 1 where a row has its first maximum, else 0. Rows are those of `by_rows` before opset 13.
fn hardmax(steps: &mut Steps<'_>) -> Option<()> {
    let x = steps.given(0)?;
    let flat = steps.opset < 13;
    let axis = integer(steps.node, "axis", if flat { 1 } else { -1 });
    let rows = if flat { steps.add("Flatten", &[&x], vec![AttributeProto::int("axis", axis)]) } else { x.clone() };
    let axis = if flat { -1 } else { axis };
    let place = steps.first(&rows, axis, 1);
    let place = steps.add("Squeeze", &[&place], vec![AttributeProto::ints("axes", &[axis])]);
    let shape = steps.of("Shape", &[&rows]);
    let axis_scalar = TensorProto { data_type: element::INT64, int64_data: vec![axis], ..TensorProto::default() };
    let axis_scalar = steps.constant(axis_scalar);
    let depth = steps.of("Gather", &[&shape, &axis_scalar]);
    let levels =
        TensorProto { dims: vec![2], data_type: element::FLOAT, float_data: vec![0.0, 1.0], ..TensorProto::default() };
    let levels = steps.constant(levels);
    let made = steps.add("OneHot", &[&place, &depth, &levels], vec![AttributeProto::int("axis", axis)]);
    if flat {
        steps.reshape_like(&made, &x);
    }
    Some(())
}

/// `(x - mean) / (deviation + 1e-9)` over `axes`.
fn mean_variance(steps: &mut Steps<'_>) -> Option<()> {
    let x = steps.given(0)?;
    let axes = attribute(steps.node, "axes").map_or_else(|| vec![0, 2, 3], |axes| axes.ints.clone());
    steps.standardised(&x, &axes, |steps, variance| {
        let (deviation, least) = (steps.of("Sqrt", &[variance]), steps.scalar(1e-9));
        steps.of("Add", &[&deviation, &least])
    });
    Some(())
}

/// In training mode, by the mean and variance of what it is given: so PyTorch writes convolutions whose weights are standardised. What
/// training would keep of these, further outputs, has no name afterwards.
fn training_normalization(steps: &mut Steps<'_>) -> Option<()> {
    let (x, scale, bias) = (steps.given(0)?, steps.given(1)?, steps.given(2)?);
    let epsilon = float(steps.node, "epsilon", 1e-5);
    if integer(steps.node, "training_mode", 0) == 0 {
        return None;
    }
    let rows = steps.reshape(&x, &[0, 0, -1]);
    let made = steps.standardised(&rows, &[0, 2], |steps, variance| steps.deviation(variance, epsilon));
    steps.scaled(&made, &scale, &bias, &x);
    Some(())
}

/// Channels standardised in groups, then scaled and shifted: a group each up to opset 20, a channel each from 21 on.
fn group_normalization(steps: &mut Steps<'_>) -> Option<()> {
    let (x, scale, bias) = (steps.given(0)?, steps.given(1)?, steps.given(2)?);
    let groups = integer(steps.node, "num_groups", 0);
    let epsilon = float(steps.node, "epsilon", 1e-5);
    let grouped = steps.reshape(&x, &[0, groups, -1]);
    let mut made = steps.standardised(&grouped, &[2], |steps, variance| steps.deviation(variance, epsilon));
    if steps.opset >= 21 {
        let (channels, [same, rest]) = (steps.of("Shape", &[&scale]), [[0], [-1]].map(|one| steps.integers(&one)));
        let shape = steps.joined(&[&same, &channels, &rest]);
        made = steps.of("Reshape", &[&made, &shape]);
    }
    steps.scaled(&made, &scale, &bias, &x);
    Some(())
}

/// `x / (bias + alpha / size * sum of squares over size channels around its own) ^ beta`. A mean over a window of channels and zeros is that
/// sum by `size`.
fn local_response(steps: &mut Steps<'_>) -> Option<()> {
    let x = steps.given(0)?;
    let size = integer(steps.node, "size", 0);
    let [alpha, beta, bias] = [("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)]
        .map(|(name, default)| float(steps.node, name, default))
        .map(|value| steps.scalar(value));
    let squares = steps.of("Mul", &[&x, &x]);
    let squares = steps.reshape(&squares, &[0, 0, -1]);
    let squares = steps.add("Unsqueeze", &[&squares], vec![AttributeProto::ints("axes", &[1])]);
    let window = vec![
        AttributeProto::ints("kernel_shape", &[size, 1]),
        AttributeProto::ints("strides", &[1, 1]),
        AttributeProto::ints("pads", &[(size - 1) / 2, 0, size / 2, 0]),
        AttributeProto::int("count_include_pad", 1),
    ];
    let means = steps.add("AveragePool", &[&squares], window);
    let means = steps.reshape_like(&means, &x);
    let scaled = steps.of("Mul", &[&alpha, &means]);
    let shifted = steps.of("Add", &[&bias, &scaled]);
    let divisor = steps.of("Pow", &[&shifted, &beta]);
    steps.of("Div", &[&x, &divisor]);
    Some(())
}

/// The exponent of a norm; none below 1, or written as a float, as opset 1 has it.
fn exponent(node: &NodeProto) -> Option<i64> {
    Some(integer(node, "p", 2)).filter(|p| *p >= 1)
}

/// `|x| ^ p`.
fn powered(steps: &mut Steps<'_>, x: &str, p: i64) -> String {
    let size = steps.of("Abs", &[x]);
    let p = steps.scalar(p as f32);
    steps.of("Pow", &[&size, &p])
}

/// `x ^ (1 / p)`.
fn root(steps: &mut Steps<'_>, x: &str, p: i64) -> String {
    let p = steps.scalar((1.0 / p as f64) as f32);
    steps.of("Pow", &[x, &p])
}

fn global_lp_pool(steps: &mut Steps<'_>) -> Option<()> {
    let (x, p) = (steps.given(0)?, exponent(steps.node)?);
    let rows = steps.reshape(&x, &[0, 0, -1]);
    let powers = powered(steps, &rows, p);
    let sums = steps.reduce("ReduceSum", &powers, &[2]);
    let norms = root(steps, &sums, p);
    let shape = steps.of("Shape", &[&x]);
    let (first, rest) = (steps.part(&shape, 0, 2), steps.part(&shape, 2, i64::from(i32::MAX)));
    let ones = steps.of("Div", &[&rest, &rest]);
    let shape = steps.joined(&[&first, &ones]);
    steps.of("Reshape", &[&norms, &shape]);
    Some(())
}

/// The mean of powers over a window, padding counted, times its size is their sum.
fn lp_pool(steps: &mut Steps<'_>) -> Option<()> {
    let (x, p) = (steps.given(0)?, exponent(steps.node)?);
    let is_dilated =
        attribute(steps.node, "dilations").is_some_and(|dilations| dilations.ints.iter().any(|by| *by != 1));
    if is_dilated || integer(steps.node, "ceil_mode", 0) != 0 {
        return None;
    }
    let size: i64 = attribute(steps.node, "kernel_shape")?.ints.iter().product();
    let mut window = attributes_of_window(steps.node)?;
    window.retain(|one| matches!(&*one.name, "kernel_shape" | "strides" | "pads" | "auto_pad"));
    window.push(AttributeProto::int("count_include_pad", 1));
    let powers = powered(steps, &x, p);
    let means = steps.add("AveragePool", &[&powers], window);
    let size = steps.scalar(size as f32);
    let sums = steps.of("Mul", &[&means, &size]);
    root(steps, &sums, p);
    Some(())
}

/// Windows whose strides are not given, which rten wants for pools, or that are padded more before than behind.
fn window(steps: &mut Steps<'_>) -> Option<()> {
    let node = steps.node;
    attribute(node, "kernel_shape")?;
    if attribute(node, "strides").is_some() && !is_lower(node) {
        return None;
    }
    match attributes_of_window(node) {
        Some(attributes) => {
            let inputs: Vec<_> = node.input.iter().map(String::as_str).collect();
            steps.add(&node.op_type, &inputs, attributes);
        }
        None => steps.refuse("auto_pad", "SAME_LOWER, in strides"),
    }
    Some(())
}

fn is_lower(node: &NodeProto) -> bool {
    attribute(node, "auto_pad").is_some_and(|pad| &*pad.s == b"SAME_LOWER")
}

/// All attributes of a node with windows, its strides and dilations written out, two axes where it does not say, and the padding of
/// SAME_LOWER, which is SAME_UPPER to rten. Where such windows move by more than one the padding depends on the size of the input: `None`.
fn attributes_of_window(node: &NodeProto) -> Option<Vec<AttributeProto>> {
    let kernel = attribute(node, "kernel_shape").map(|kernel| &kernel.ints);
    let given = |name: &str| {
        let ones = || vec![1; kernel.map_or(2, Vec::len)];
        attribute(node, name).map_or_else(ones, |attribute| attribute.ints.clone())
    };
    let (strides, dilations) = (given("strides"), given("dilations"));
    let mut attributes = node.attribute.clone();
    attributes.retain(|one| one.name != "strides");
    attributes.push(AttributeProto::ints("strides", &strides));
    if attribute(node, "dilations").is_none() && node.op_type.contains("Conv") {
        attributes.push(AttributeProto::ints("dilations", &dilations));
    }
    if attribute(node, "pads").is_none() && attribute(node, "auto_pad").is_none() {
        attributes.push(AttributeProto::ints("pads", &vec![0; 2 * strides.len()]));
    }
    if is_lower(node) {
        if strides.iter().any(|stride| *stride != 1) {
            return None;
        }
        let total = || kernel.into_iter().flatten().zip(&dilations).map(|(width, by)| (width - 1) * by);
        let pads: Vec<i64> = total().map(|pad| pad - pad / 2).chain(total().map(|pad| pad / 2)).collect();
        attributes.retain(|one| !matches!(&*one.name, "auto_pad" | "pads"));
        attributes.push(AttributeProto::ints("pads", &pads));
    }
    Some(attributes)
}

/// `[N, C, H, W]` to `[N, C * b * b, H / b, W / b]`: the place within a block first, or by `mode` the channel.
fn space_to_depth(steps: &mut Steps<'_>) -> Option<()> {
    let x = steps.given(0)?;
    let side = steps.integers(&[integer(steps.node, "blocksize", 0)]);
    let shape = steps.of("Shape", &[&x]);
    let (outer, extents) = (steps.part(&shape, 0, 2), steps.part(&shape, 2, 4));
    let blocks = steps.of("Div", &[&extents, &side]);
    let (rows, columns) = (steps.part(&blocks, 0, 1), steps.part(&blocks, 1, 2));
    let split = steps.joined(&[&outer, &rows, &side, &columns, &side]);
    let split = steps.of("Reshape", &[&x, &split]);
    let by_channel = attribute(steps.node, "mode").is_some_and(|mode| &*mode.s == b"CRD");
    let order = if by_channel { [0, 1, 3, 5, 2, 4] } else { [0, 3, 5, 1, 2, 4] };
    let turned = steps.add("Transpose", &[&split], vec![AttributeProto::ints("perm", &order)]);
    let (count, rest) = (steps.part(&shape, 0, 1), steps.integers(&[-1]));
    let shape = steps.joined(&[&count, &rest, &blocks]);
    steps.of("Reshape", &[&turned, &shape]);
    Some(())
}

/// The cubic as products, or refused: rten computes it as the linear. Resize of opset 10, which takes `x` and scales, is Upsample under
/// another name; rten reads that of later ones.
fn resize(steps: &mut Steps<'_>) -> Option<()> {
    let node = steps.node;
    if attribute(node, "mode").is_some_and(|mode| &*mode.s == b"cubic") {
        if cubic::resize(steps).is_none() {
            steps.nodes.clear();
            steps.refuse("mode", "cubic of this kind");
        }
    } else if steps.opset == 10 {
        steps.add("Upsample", &[&steps.given(0)?, &steps.given(1)?], node.attribute.clone());
    } else {
        return None;
    }
    Some(())
}

/// The integers of an input less its zero point, in f32, which holds whole numbers to 2^24. `shape` is that of the zero point beside it.
fn centred(steps: &mut Steps<'_>, value: &str, zero: Option<String>, shape: &[i64]) -> String {
    let value = steps.cast(value, element::FLOAT);
    let Some(zero) = zero else { return value };
    let zero = steps.cast(&zero, element::FLOAT);
    let zero = steps.reshape(&zero, shape);
    steps.of("Sub", &[&value, &zero])
}

/// Shapes of zero points and scales: those of a filter, or of a row, lie along the first axis; those of a column along the last.
fn beside(operator: &str) -> [&'static [i64]; 2] {
    if operator == "Conv" { [&[-1], &[-1, 1, 1, 1]] } else { [&[-1, 1], &[-1]] }
}

/// Products of integers as those of the same whole numbers in f32: sums are exact to 2^24, and to 2^-24 of their size beyond.
fn whole_products(steps: &mut Steps<'_>, operator: &str) -> Option<()> {
    let [first, second] = beside(operator);
    let (x, w) = (steps.given(0)?, steps.given(1)?);
    let x = centred(steps, &x, steps.given(2), first);
    let w = centred(steps, &w, steps.given(3), second);
    let product = steps.product(operator, &x, &w)?;
    steps.cast(&product, element::INT32);
    Some(())
}

/// The same where inputs and output have scales too: `x`, its scale and zero point, `w` and its, scale and zero point of the output, a bias.
fn quantized_products(steps: &mut Steps<'_>, operator: &str) -> Option<()> {
    let [first, second] = beside(operator);
    let (x, w) = (steps.given(0)?, steps.given(3)?);
    let x = centred(steps, &x, steps.given(2), first);
    let w = centred(steps, &w, steps.given(5), second);
    let mut product = steps.product(operator, &x, &w)?;
    // A channel of the output of Conv each.
    let of_channels: &[i64] = if operator == "Conv" { &[-1, 1, 1] } else { second };
    if let Some(bias) = steps.given(8) {
        let bias = steps.cast(&bias, element::FLOAT);
        let bias = steps.reshape(&bias, of_channels);
        product = steps.of("Add", &[&product, &bias]);
    }
    let (x_scale, w_scale) = (steps.given(1)?, steps.given(4)?);
    let (x_scale, w_scale) = (steps.reshape(&x_scale, first), steps.reshape(&w_scale, of_channels));
    let product = steps.of("Mul", &[&product, &x_scale]);
    let product = steps.of("Mul", &[&product, &w_scale]);
    let (scale, zero) = (steps.given(6)?, steps.given(7)?);
    let (scale, zero) = (steps.reshape(&scale, &[]), steps.reshape(&zero, &[]));
    steps.of("QuantizeLinear", &[&product, &scale, &zero]);
    Some(())
}

#[cfg(test)]
mod tests;
