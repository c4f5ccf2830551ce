//! The fields of ONNX's protobuf messages that are read here; all others are skipped.
//!
//! Tags are those of `onnx.proto`, IR version 3 to 13. Subgraphs of control flow are not read: such operators are opaque.

use std::mem::size_of;

use dice_ood::{Error, ErrorKind, Result};
use prost::Message;
use prost::bytes::Bytes;

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ModelProto {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    #[prost(string, tag = "3")]
    pub(crate) producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    pub(crate) metadata_props: Vec<StringStringEntryProto>,
}

impl ModelProto {
    /// Versions of the standard operator sets that it imports: one, where the model is valid.
    pub(crate) fn opsets(&self) -> impl Iterator<Item = i64> {
        self.opset_import.iter().filter(|set| matches!(&*set.domain, "" | "ai.onnx")).map(|set| set.version)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<NodeProto>,
    /// Required to write.
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) value_info: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "15")]
    pub(crate) sparse_initializer: Vec<SparseTensorProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    pub(crate) domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AttributeProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(float, tag = "2")]
    pub(crate) f: f32,
    #[prost(int64, tag = "3")]
    pub(crate) i: i64,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) s: Bytes,
    #[prost(message, optional, boxed, tag = "5")]
    pub(crate) t: Option<Box<TensorProto>>,
    #[prost(float, repeated, tag = "7")]
    pub(crate) floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(crate) ints: Vec<i64>,
    /// Which of the above it is: not needed to read, required to write.
    #[prost(int32, tag = "20")]
    pub(crate) r#type: i32,
}

/// Attributes to be written. A value of zero would not be encoded, as this crate does not tell it from none.
impl AttributeProto {
    pub(crate) fn float(name: &str, f: f32) -> Self {
        Self { name: name.into(), f, r#type: 1, ..Self::default() }
    }

    pub(crate) fn int(name: &str, i: i64) -> Self {
        Self { name: name.into(), i, r#type: 2, ..Self::default() }
    }

    pub(crate) fn tensor(name: &str, tensor: TensorProto) -> Self {
        Self { name: name.into(), t: Some(Box::new(tensor)), r#type: 4, ..Self::default() }
    }

    pub(crate) fn ints(name: &str, ints: &[i64]) -> Self {
        Self { name: name.into(), ints: ints.to_vec(), r#type: 7, ..Self::default() }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorProto {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub(crate) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(crate) int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub(crate) int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    /// A view of the file's bytes where the message is decoded from [`Bytes`].
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub(crate) raw_data: Option<Bytes>,
    #[prost(double, repeated, tag = "10")]
    pub(crate) double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    pub(crate) uint64_data: Vec<u64>,
    #[prost(message, repeated, tag = "13")]
    pub(crate) external_data: Vec<StringStringEntryProto>,
    /// 1: the data is in another file.
    #[prost(int32, tag = "14")]
    pub(crate) data_location: i32,
}

impl TensorProto {
    /// Whether its data is in another file.
    pub(crate) fn is_external(&self) -> bool {
        self.data_location == 1
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SparseTensorProto {
    #[prost(message, optional, tag = "1")]
    pub(crate) values: Option<TensorProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) r#type: Option<TypeProto>,
}

impl ValueInfoProto {
    /// A tensor's name, element type and dimensions.
    pub(crate) fn tensor(name: &str, elem_type: i32, dim: Vec<DimensionProto>) -> Self {
        let tensor = TensorTypeProto { elem_type, shape: Some(TensorShapeProto { dim }) };
        Self { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
    }
}

/// Sequences, maps and optionals have no `tensor_type`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DimensionProto {
    #[prost(int64, optional, tag = "1")]
    pub(crate) dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub(crate) dim_param: Option<String>,
}

/// A message that is decoded into a list, for [`check_growth`].
#[derive(Clone, Copy)]
enum MessageKind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Sparse,
    Value,
    Type,
    TensorType,
    Shape,
    Dimension,
    Entry,
    Text,
    /// Sequences, optionals and maps of types; functions: read by runtimes, and not here.
    Nested,
    Function,
}

impl MessageKind {
    /// The message in a field of this one.
    fn child(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) => Self::Graph,
            (Self::Model, 8 | 14) => Self::Entry,
            (Self::Graph, 1) => Self::Node,
            (Self::Graph, 5) => Self::Tensor,
            (Self::Graph, 11..=13) => Self::Value,
            (Self::Graph, 15) => Self::Sparse,
            (Self::Node, 1 | 2) => Self::Text,
            (Self::Node, 5) => Self::Attribute,
            (Self::Attribute, 5) | (Self::Sparse, 1) => Self::Tensor,
            // Bodies of control flow, and of functions.
            (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 25) => Self::Function,
            (Self::Function, 7) => Self::Node,
            (Self::Type, 4 | 5 | 9) => Self::Nested,
            (Self::Nested, 1 | 2) => Self::Type,
            (Self::Tensor, 13) => Self::Entry,
            (Self::Value, 2) => Self::Type,
            (Self::Type, 1) => Self::TensorType,
            (Self::TensorType, 2) => Self::Shape,
            (Self::Shape, 1) => Self::Dimension,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::Model | Self::Graph | Self::Type | Self::TensorType | Self::Shape | Self::Nested | Self::Function => {
                0
            }
            Self::Node => size_of::<NodeProto>(),
            Self::Attribute => size_of::<AttributeProto>(),
            Self::Tensor => size_of::<TensorProto>(),
            Self::Sparse => size_of::<SparseTensorProto>(),
            Self::Value => size_of::<ValueInfoProto>(),
            Self::Dimension => size_of::<DimensionProto>(),
            Self::Entry => size_of::<StringStringEntryProto>(),
            Self::Text => size_of::<String>(),
        }
    }
}

/// Deepest nesting of messages, the bodies of control flow included: runtimes follow it by recursion.
const MAX_NESTED: usize = 64;

/// Refuses a file of countless empty messages, of which two bytes become hundreds in memory, and one of messages in messages
/// in messages. Decoded, a model takes at most a small multiple of its file.
///
/// Returns the number of its operators, those of subgraphs and functions included.
pub(crate) fn check_growth(model: &[u8]) -> Result<usize> {
    let mut growth = Growth { left: model.len().saturating_mul(16).saturating_add(16 << 20), operators: 0 };
    growth.walk(model, MessageKind::Model, 0)?;
    Ok(growth.operators)
}

/// What a model may still grow by, and the operators so far.
struct Growth {
    left: usize,
    operators: usize,
}

impl Growth {
    fn walk(&mut self, mut bytes: &[u8], kind: MessageKind, depth: usize) -> Result<()> {
        let damaged = || Error::new(ErrorKind::Malformed, "bytes that are no protobuf message");
        if depth > MAX_NESTED {
            return Err(Error::new(ErrorKind::Malformed, format!("messages more than {MAX_NESTED} deep")));
        }
        while !bytes.is_empty() {
            let (tag, field) = field(&mut bytes).ok_or_else(damaged)?;
            let Some(child) = kind.child(tag >> 3).filter(|_| tag & 7 == 2) else { continue };
            self.operators += usize::from(matches!(child, MessageKind::Node));
            self.left = self.left.checked_sub(child.size()).ok_or_else(|| {
                Error::new(ErrorKind::Malformed, "mostly empty messages").expected("a model of this size")
            })?;
            if !matches!(child, MessageKind::Text) {
                self.walk(field, child, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// The first field of an encoded message: its tag, and its payload without the length; none for a varint's value.
pub(crate) fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let tag = varint(bytes)?;
    let length = match tag & 7 {
        0 => {
            varint(bytes)?;
            0
        }
        1 => 8,
        2 => usize::try_from(varint(bytes)?).ok()?,
        5 => 4,
        // Groups, which ONNX never had.
        _ => return None,
    };
    let (payload, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some((tag, payload))
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7F) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
