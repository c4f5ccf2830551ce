//! Cubic Resize as products with matrices of weights, which the graph computes from the sizes it meets.

use super::Steps;
use crate::model::element;
use crate::model::node::{attribute, float, integer};
use crate::model::proto::{AttributeProto, NodeProto, TensorProto};

/// Resizes the last two of four axes; `None` for what ONNX says of other axes, of antialiasing and of what lies outside.
pub(super) fn resize(steps: &mut Steps<'_>) -> Option<()> {
    let (x, mode) = (steps.given(0)?, Coordinates::of(steps.node)?);
    let others = ["antialias", "exclude_outside"].iter().any(|name| integer(steps.node, name, 0) != 0);
    let stretches = attribute(steps.node, "keep_aspect_ratio_policy").is_none_or(|policy| &*policy.s == b"stretch");
    if others || !stretches || attribute(steps.node, "axes").is_some() || steps.opset < 11 {
        return None;
    }
    let (scales, sizes) = (steps.given(2), steps.given(3));
    let shape = steps.of("Shape", &[&x]);
    let mut weights = |axis: i64| {
        let length = steps.part(&shape, axis, axis + 1);
        let given = sizes.as_ref().or(scales.as_ref()).map(|given| steps.part(given, axis, axis + 1))?;
        Some(of_axis(steps, &length, &given, sizes.is_some(), mode))
    };
    let (rows, columns) = (weights(2)?, weights(3)?);
    let columns = steps.add("Transpose", &[&columns], vec![AttributeProto::ints("perm", &[1, 0])]);
    let wide = steps.of("MatMul", &[&x, &columns]);
    steps.of("MatMul", &[&rows, &wide]);
    Some(())
}

/// Where a place of the output lies in the input.
#[derive(Clone, Copy, PartialEq)]
enum Coordinates {
    HalfPixel,
    /// Of one place alone, its first.
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
}

impl Coordinates {
    fn of(node: &NodeProto) -> Option<Self> {
        let Some(mode) = attribute(node, "coordinate_transformation_mode") else { return Some(Self::HalfPixel) };
        match &*mode.s {
            b"half_pixel" => Some(Self::HalfPixel),
            b"pytorch_half_pixel" => Some(Self::PytorchHalfPixel),
            b"align_corners" => Some(Self::AlignCorners),
            b"asymmetric" => Some(Self::Asymmetric),
            _ => None,
        }
    }
}

/// Weights `[output, input]` of an axis of `length`, to a size or by a scale, `given`.
fn of_axis(steps: &mut Steps<'_>, length: &str, given: &str, is_size: bool, mode: Coordinates) -> String {
    let before = steps.cast(length, element::FLOAT);
    let (after, scale) = if is_size {
        let after = steps.cast(given, element::FLOAT);
        let scale = steps.of("Div", &[&after, &before]);
        (after, scale)
    } else {
        let after = steps.of("Mul", &[&before, given]);
        (steps.of("Floor", &[&after]), given.to_owned())
    };
    let [zero, one, half] = [0.0, 1.0, 0.5].map(|value| steps.scalar(value));
    let end = steps.reshape(&after, &[]);
    let places = steps.of("Range", &[&zero, &end, &one]);
    let [last_before, last_after] = [&before, &after].map(|length| steps.of("Sub", &[length, &one]));
    let places = match mode {
        Coordinates::Asymmetric => steps.of("Div", &[&places, &scale]),
        Coordinates::AlignCorners => {
            let intervals = steps.of("Max", &[&last_after, &one]);
            let step = steps.of("Div", &[&last_before, &intervals]);
            steps.of("Mul", &[&places, &step])
        }
        Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => {
            let centres = steps.of("Add", &[&places, &half]);
            let centres = steps.of("Div", &[&centres, &scale]);
            steps.of("Sub", &[&centres, &half])
        }
    };
    let places = if mode == Coordinates::PytorchHalfPixel {
        let is_more = steps.of("Min", &[&last_after, &one]);
        steps.of("Mul", &[&places, &is_more])
    } else {
        places
    };
    taps(steps, &places, length, &last_before)
}

/// The four values around each place, weighted by the cubic convolution kernel; those outside are the ones at the edge.
fn taps(steps: &mut Steps<'_>, places: &str, length: &str, last: &str) -> String {
    let a = float(steps.node, "cubic_coeff_a", -0.75);
    let zero = steps.scalar(0.0);
    let levels =
        TensorProto { dims: vec![2], data_type: element::FLOAT, float_data: vec![0.0, 1.0], ..TensorProto::default() };
    let (levels, depth) = (steps.constant(levels), steps.reshape(length, &[]));
    let floor = steps.of("Floor", &[places]);
    let fraction = steps.of("Sub", &[places, &floor]);
    let weighted = [-1.0f32, 0.0, 1.0, 2.0].map(|tap| {
        // Coefficients of the powers of the distance, the third first: within 1, and within 2.
        let near = [a + 2.0, -(a + 3.0), 0.0, 1.0];
        let kernel = if (0.0..=1.0).contains(&tap) { near } else { [a, -5.0 * a, 8.0 * a, -4.0 * a] };
        let tap = steps.scalar(tap);
        let away = steps.of("Sub", &[&fraction, &tap]);
        let away = steps.of("Abs", &[&away]);
        let mut weight = steps.scalar(kernel[0]);
        for coefficient in &kernel[1..] {
            let coefficient = steps.scalar(*coefficient);
            weight = steps.of("Mul", &[&weight, &away]);
            weight = steps.of("Add", &[&weight, &coefficient]);
        }
        let weight = steps.add("Unsqueeze", &[&weight], vec![AttributeProto::ints("axes", &[1])]);
        let place = steps.of("Add", &[&floor, &tap]);
        let place = steps.of("Max", &[&place, &zero]);
        let place = steps.of("Min", &[&place, last]);
        let place = steps.cast(&place, element::INT64);
        let hot = steps.of("OneHot", &[&place, &depth, &levels]);
        steps.of("Mul", &[&hot, &weight])
    });
    steps.of("Sum", &weighted.each_ref().map(String::as_str))
}
