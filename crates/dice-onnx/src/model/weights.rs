//! Weights of a head, and what scales, shifts and normalisations around it make of them.

use dice_ood::{Error, ErrorKind, Result};

use crate::model::graph::Graph;
use crate::model::node::float;
use crate::model::proto::NodeProto;
use crate::text::quoted;

/// `weight` `[C, D]` row-major and `bias` `[C]`.
pub(crate) struct Weights {
    pub(crate) weight: Vec<f32>,
    pub(crate) bias: Vec<f32>,
    pub(crate) units: usize,
    /// The units of each tensor that the layer reads.
    pub(crate) widths: Vec<usize>,
}

impl Weights {
    /// Those of the layer with `node` behind it, a scale or shift by constants, or an operator that changes shapes alone.
    pub(crate) fn fold(&mut self, graph: &Graph, node: &NodeProto) -> Result<()> {
        let Some((scale, shift)) = affine(graph, node, self.bias.len())? else { return Ok(()) };
        for (row, scale) in self.weight.chunks_exact_mut(self.units.max(1)).zip(&scale) {
            row.iter_mut().for_each(|value| *value *= scale);
        }
        for (value, (scale, shift)) in self.bias.iter_mut().zip(scale.iter().zip(&shift)) {
            *value = *value * scale + shift;
        }
        Ok(())
    }

    /// Those of the layer with `node` before it, which scales and shifts each unit.
    pub(crate) fn fold_before(&mut self, graph: &Graph, node: &NodeProto) -> Result<()> {
        let Some((scale, shift)) = affine(graph, node, self.units)? else { return Ok(()) };
        for (row, bias) in self.weight.chunks_exact_mut(self.units.max(1)).zip(&mut self.bias) {
            let shifts = row.iter().zip(&shift).map(|(weight, shift)| f64::from(*weight) * f64::from(*shift));
            *bias = (f64::from(*bias) + shifts.sum::<f64>()) as f32;
            row.iter_mut().zip(&scale).for_each(|(weight, scale)| *weight *= scale);
        }
        Ok(())
    }

    /// Those of the layer times `factor`.
    pub(crate) fn scale(&mut self, factor: f32) {
        self.weight.iter_mut().chain(&mut self.bias).for_each(|value| *value *= factor);
    }

    /// Those of the sum with `other`, of the same vectors.
    pub(crate) fn add(&mut self, other: &Self) -> Result<()> {
        let shape = |weights: &Self| [weights.bias.len(), weights.units];
        if shape(self) != shape(other) {
            return Err(unlike(shape(self), shape(other)));
        }
        let values = self.weight.iter_mut().chain(&mut self.bias);
        values.zip(other.weight.iter().chain(&other.bias)).for_each(|(value, other)| *value += other);
        Ok(())
    }

    /// Those of the sum of `parts`, the vectors of each behind those of the one before.
    pub(crate) fn joined(parts: &[Self]) -> Result<Self> {
        let classes = parts.first().map_or(0, |part| part.bias.len());
        if let Some(other) = parts.iter().find(|part| part.bias.len() != classes) {
            return Err(unlike([classes, parts[0].units], [other.bias.len(), other.units]));
        }
        let widths: Vec<usize> = parts.iter().map(|part| part.units).collect();
        let row = |part: &'_ Self, class: usize| part.weight[class * part.units..][..part.units].to_vec();
        let weight = (0..classes).flat_map(|class| parts.iter().flat_map(move |part| row(part, class))).collect();
        let bias = (0..classes).map(|class| parts.iter().map(|part| part.bias[class]).sum()).collect();
        Ok(Self { weight, bias, units: widths.iter().sum(), widths })
    }
}

fn unlike(one: [usize; 2], other: [usize; 2]) -> Error {
    Error::new(ErrorKind::Unsupported, format!("a sum of layers {one:?} and {other:?}"))
        .expected("as many classes of each layer, and of one vector as many units")
}

/// A constant as one value for each class, from one for all or one each.
pub(crate) fn per_class(graph: &Graph, tensor: &str, classes: usize) -> Result<Vec<f32>> {
    let constant = graph.fold(tensor)?;
    let wide = constant.shape.iter().filter(|extent| **extent != 1).count();
    let shape = constant.shape.clone();
    let values = constant.into_f32();
    match values[..] {
        [value] => Ok(vec![value; classes]),
        _ if wide == 1 && values.len() == classes => Ok(values),
        _ => Err(Error::new(ErrorKind::Shape, format!("{shape:?}"))
            .tensor(quoted(tensor))
            .expected(format!("one value, or one for each of {classes} classes"))),
    }
}

/// Scale and shift for each class of an operator with constant parameters; `None` for one that neither scales nor shifts.
fn affine(graph: &Graph, node: &NodeProto, classes: usize) -> Result<Option<(Vec<f32>, Vec<f32>)>> {
    let parameter = |place: usize| per_class(graph, &node.input[place], classes);
    let (zeros, ones) = (|| vec![0.0; classes], || vec![1.0; classes]);
    let other = || {
        let is_first = graph.is_constant(&node.input[0]);
        Ok((is_first, parameter(usize::from(!is_first))?))
    };
    Ok(Some(match &*node.op_type {
        "BatchNormalization" => {
            let (gamma, beta, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
            let epsilon = f64::from(float(node, "epsilon", 1e-5));
            let scale: Vec<f64> = gamma
                .iter()
                .zip(&variance)
                .map(|(gamma, variance)| f64::from(*gamma) / (f64::from(*variance) + epsilon).sqrt())
                .collect();
            let shift =
                (0..classes).map(|class| (f64::from(beta[class]) - f64::from(mean[class]) * scale[class]) as f32);
            (scale.iter().map(|scale| *scale as f32).collect(), shift.collect())
        }
        "QLinearAdd" => {
            let place = if graph.is_constant(&node.input[0]) { 0 } else { 3 };
            let (stored, scale, zero) = (parameter(place)?, parameter(place + 1)?, parameter(place + 2)?);
            let shift = (0..classes).map(|class| (stored[class] - zero[class]) * scale[class]);
            (ones(), shift.collect())
        }
        "Add" => (ones(), other()?.1),
        "Sub" => match other()? {
            (true, values) => (vec![-1.0; classes], values),
            (false, values) => (ones(), values.iter().map(|value| -value).collect()),
        },
        "Mul" => (other()?.1, zeros()),
        "Div" => (other()?.1.iter().map(|value| 1.0 / value).collect(), zeros()),
        _ => return Ok(None),
    }))
}
