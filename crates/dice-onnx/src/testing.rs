//! Tiny models, encoded by the messages that read them.
#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

use std::path::Path;

use dice_ood::Result;
use prost::Message;

use crate::model::Model;
use crate::model::element;
use crate::model::head::{FoundHead, HeadOptions};
use crate::model::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, ValueInfoProto,
};

/// A model under construction: input `x`, and whatever is added.
#[derive(Clone)]
pub(crate) struct Builder(pub(crate) ModelProto);

impl Builder {
    pub(crate) fn new() -> Self {
        let graph = GraphProto { input: vec![value("x", &[0, 3, 4, 4])], ..GraphProto::default() };
        Self(ModelProto {
            ir_version: 8,
            producer_name: "test".into(),
            graph: Some(graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
            ..ModelProto::default()
        })
    }

    pub(crate) fn graph(&mut self) -> &mut GraphProto {
        self.0.graph.as_mut().unwrap()
    }

    /// An operator named as its first output.
    pub(crate) fn node(
        mut self,
        operator: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: &[AttributeProto],
    ) -> Self {
        let (domain, operator) = operator.rsplit_once(':').unwrap_or(("", operator));
        let strings = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        self.graph().node.push(NodeProto {
            input: strings(inputs),
            output: strings(outputs),
            name: format!("node_{}", outputs[0]),
            op_type: operator.into(),
            attribute: attributes.to_vec(),
            domain: domain.into(),
        });
        self
    }

    pub(crate) fn floats(self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.raw(name, dims, element::FLOAT, raw)
    }

    pub(crate) fn int8s(self, name: &str, dims: &[i64], values: &[i8]) -> Self {
        self.raw(name, dims, element::INT8, values.iter().map(|value| *value as u8).collect())
    }

    pub(crate) fn uint8s(self, name: &str, dims: &[i64], values: &[u8]) -> Self {
        self.raw(name, dims, element::UINT8, values.to_vec())
    }

    pub(crate) fn raw(mut self, name: &str, dims: &[i64], code: i32, raw: Vec<u8>) -> Self {
        self.graph().initializer.push(stored(name, dims, code, raw));
        self
    }

    pub(crate) fn ints(mut self, name: &str, values: &[i64]) -> Self {
        let tensor = TensorProto {
            int64_data: values.to_vec(),
            raw_data: None,
            ..stored(name, &[values.len() as i64], element::INT64, Vec::new())
        };
        self.graph().initializer.push(tensor);
        self
    }

    /// A weight matrix of small distinct numbers: value `i` is `i + 1`.
    pub(crate) fn counting(self, name: &str, dims: &[i64]) -> Self {
        let count: i64 = dims.iter().product();
        let values: Vec<f32> = (1..=count).map(|value| value as f32).collect();
        self.floats(name, dims, &values)
    }

    /// Features `h` `[N, D]` that are never negative.
    pub(crate) fn features(self) -> Self {
        self.node("Relu", &["x"], &["r"], &[]).node("GlobalAveragePool", &["r"], &["g"], &[]).node(
            "Flatten",
            &["g"],
            &["h"],
            &[],
        )
    }

    pub(crate) fn output(mut self, name: &str, dims: &[i64]) -> Self {
        self.graph().output.push(value(name, dims));
        self
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        self.0.encode_to_vec()
    }

    pub(crate) fn model(&self) -> Result<Model> {
        Model::from_bytes(self.encode(), Path::new("test.onnx"))
    }

    pub(crate) fn find(&self) -> Result<FoundHead> {
        self.model()?.find_head(&HeadOptions::default())
    }
}

pub(crate) fn stored(name: &str, dims: &[i64], code: i32, raw: Vec<u8>) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: code,
        name: name.into(),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    }
}

/// A tensor in another file.
pub(crate) fn external(name: &str, dims: &[i64], location: &str, offset: u64) -> TensorProto {
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    TensorProto {
        dims: dims.to_vec(),
        data_type: element::FLOAT,
        name: name.into(),
        data_location: 1,
        external_data: vec![entry("location", location.into()), entry("offset", offset.to_string())],
        ..TensorProto::default()
    }
}

/// A float tensor's name and dimensions; 0 for a free one.
pub(crate) fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|extent| match extent {
            0 => DimensionProto { dim_value: None, dim_param: Some("batch".into()) },
            extent => DimensionProto { dim_value: Some(*extent), dim_param: None },
        })
        .collect();
    ValueInfoProto::tensor(name, element::FLOAT, dim)
}

pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto::int(name, i)
}

pub(crate) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto::float(name, f)
}

pub(crate) fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto::ints(name, ints)
}

pub(crate) fn tensor(name: &str, tensor: TensorProto) -> AttributeProto {
    AttributeProto::tensor(name, tensor)
}
