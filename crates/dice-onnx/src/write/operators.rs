//! Operators and constants under construction, each in the form that the model's operator set has.

use crate::model::element;
use crate::model::head::Made;
use crate::model::node::ADDED;
use crate::model::proto::{AttributeProto, DimensionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// Operators in order. What is asked for twice, an operator on the same inputs or an equal constant, is added once.
#[derive(Clone)]
pub(crate) struct Operators {
    graph: GraphProto,
    /// Of the names of all that is added.
    prefix: String,
    ir_version: i64,
    opset: i64,
}

impl Operators {
    pub(crate) fn new(ir_version: i64, opset: i64) -> Self {
        Self { graph: GraphProto::default(), prefix: ADDED.into(), ir_version, opset }
    }

    /// The same, with names that differ from those of a detector that a model may carry.
    pub(crate) fn of_run(ir_version: i64, opset: i64) -> Self {
        Self { prefix: format!("{ADDED}run_"), ..Self::new(ir_version, opset) }
    }

    /// The operator set that they are of.
    pub(crate) fn opset(&self) -> i64 {
        self.opset
    }

    pub(crate) fn into_graph(self) -> GraphProto {
        self.graph
    }

    /// An operator with one output, whose name is returned.
    pub(crate) fn node(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> String {
        let [output] = self.nodes(operator, inputs, attributes);
        output
    }

    fn nodes<const OUTPUTS: usize>(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attribute: Vec<AttributeProto>,
    ) -> [String; OUTPUTS] {
        let same = |node: &&NodeProto| {
            node.op_type == operator && node.input == inputs && node.attribute == attribute && is_free(node)
        };
        if let Some(node) = self.graph.node.iter().find(same) {
            return std::array::from_fn(|place| node.output[place].clone());
        }
        let number = self.graph.node.len();
        let outputs = std::array::from_fn(|place| match place {
            0 => format!("{}{}_{number}", self.prefix, operator.to_lowercase()),
            _ => format!("{}{}_{number}_{place}", self.prefix, operator.to_lowercase()),
        });
        self.push(operator, inputs, attribute, outputs.to_vec());
        outputs
    }

    /// An operator whose output has this very name.
    pub(crate) fn named(&mut self, operator: &str, inputs: &[&str], attributes: Vec<AttributeProto>, output: &str) {
        self.push(operator, inputs, attributes, vec![output.to_owned()]);
    }

    fn push(&mut self, operator: &str, inputs: &[&str], attribute: Vec<AttributeProto>, output: Vec<String>) {
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output,
            name: format!("{}{}", self.prefix, self.graph.node.len()),
            op_type: operator.to_owned(),
            attribute,
            domain: String::new(),
        });
    }

    pub(crate) fn cast(&mut self, tensor: &str, to: i32) -> String {
        self.node("Cast", &[tensor], vec![AttributeProto::int("to", to.into())])
    }

    pub(crate) fn reshape(&mut self, tensor: &str, shape: &[i64]) -> String {
        let shape = self.integers("shape", shape);
        self.node("Reshape", &[tensor, &shape], vec![])
    }

    /// The same, under this very name.
    pub(crate) fn reshape_to(&mut self, tensor: &str, shape: &[i64], output: &str) {
        let shape = self.integers("shape", shape);
        self.named("Reshape", &[tensor, &shape], vec![], output);
    }

    /// Rows `[N, D]` that are `made` so; `features` are the sequences of which positions are taken, of `units`.
    pub(crate) fn rows(&mut self, made: &Made, features: &str, units: i64) -> String {
        match made {
            Made::Selected(positions) if positions.flat => {
                let rows = self.reshape(features, &[-1, units]);
                self.node("Gather", &[&rows, &positions.tensor], vec![AttributeProto::int("axis", 0)])
            }
            Made::Selected(positions) => self.node("GatherND", &[features, &positions.tensor], vec![]),
            Made::Joined(parts) => {
                let rows: Vec<String> =
                    parts.iter().map(|(tensor, units)| self.reshape(tensor, &[-1, *units as i64])).collect();
                let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
                self.node("Concat", &rows, vec![AttributeProto::int("axis", 1)])
            }
        }
    }

    /// A reduction of one axis, which stays with length one.
    pub(crate) fn reduce(&mut self, operator: &str, tensor: &str, axis: i64) -> String {
        // The opset from which axes are an input.
        let since = if operator == "ReduceSum" { 13 } else { 18 };
        if self.opset < since {
            return self.node(operator, &[tensor], vec![AttributeProto::ints("axes", &[axis])]);
        }
        let axes = self.integers("axes", &[axis]);
        self.node(operator, &[tensor, &axes], vec![])
    }

    /// The k largest values of each row `[N, k]`, descending, and their columns; of equal values the earlier comes first.
    pub(crate) fn top(&mut self, rows: &str, k: usize) -> [String; 2] {
        if self.opset < 10 {
            return self.nodes("TopK", &[rows], vec![AttributeProto::int("k", k as i64)]);
        }
        let k = self.integers("k", &[k as i64]);
        self.nodes("TopK", &[rows, &k], vec![])
    }

    pub(crate) fn scalar(&mut self, name: &str, value: f32) -> String {
        self.floats(name, &[], &[value])
    }

    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        let shape = shape.iter().map(|extent| *extent as i64).collect();
        self.constant(name, shape, element::FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub(crate) fn integers(&mut self, name: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, vec![values.len() as i64], element::INT64, bytes)
    }

    /// An initializer; before IR version 4 each of them is also declared as an input.
    pub(crate) fn constant(&mut self, name: &str, dims: Vec<i64>, data_type: i32, bytes: Vec<u8>) -> String {
        let raw_data = Some(bytes.into());
        let same =
            |known: &&TensorProto| known.data_type == data_type && known.dims == dims && known.raw_data == raw_data;
        if let Some(known) = self.graph.initializer.iter().find(same) {
            return known.name.clone();
        }
        let name = format!("{}{name}_{}", self.prefix, self.graph.initializer.len());
        if self.ir_version < 4 {
            let dim = dims.iter().map(|extent| DimensionProto { dim_value: Some(*extent), dim_param: None }).collect();
            self.graph.input.push(ValueInfoProto::tensor(&name, data_type, dim));
        }
        self.graph.initializer.push(TensorProto {
            name: name.clone(),
            dims,
            data_type,
            raw_data,
            ..TensorProto::default()
        });
        name
    }

    /// Declares an input or an output of the model.
    pub(crate) fn input(&mut self, info: ValueInfoProto) {
        self.graph.input.push(info);
    }

    /// Declares an output of the model.
    pub(crate) fn output(&mut self, info: ValueInfoProto) {
        self.graph.output.push(info);
    }
}

/// Whether its outputs have names of ours, which others may read: not those that a caller has chosen.
fn is_free(node: &NodeProto) -> bool {
    node.output.iter().all(|name| name.starts_with(ADDED))
}
