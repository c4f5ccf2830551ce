//! Adding to a model without rewriting it: every byte of the original stays, in its order.

use dice_ood::{Error, ErrorKind, Result};
use prost::Message;

use crate::model::proto::{GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, field};

/// Field numbers of `ModelProto.graph`, `GraphProto.node`, `GraphProto.initializer` and `GraphProto.output`.
const GRAPH: u64 = 7;
const NODE: u64 = 1;
const INITIALIZER: u64 = 5;
const OUTPUT: u64 = 12;

/// The encoded `model` with operators, tensors and outputs of `addition`'s graph behind its own, and `addition`'s metadata
/// behind its own.
///
/// Messages are appended field by field, which is what protobuf means by merging: what this crate does not know (functions,
/// subgraphs, training information, later fields) survives untouched. Readers that merge nothing see one graph.
///
/// # Errors
/// [`ErrorKind::Malformed`] where `model` is no protobuf message, or has no graph.
pub(crate) fn splice(model: &[u8], addition: ModelProto) -> Result<Vec<u8>> {
    let mut parts = Parts::of(model)?;
    let ModelProto { graph: added, metadata_props, .. } = addition;
    added.unwrap_or_else(GraphProto::default).encode_raw(&mut parts.graph);
    let mut spliced = parts.joined();
    ModelProto { metadata_props, ..ModelProto::default() }.encode_raw(&mut spliced);
    Ok(spliced)
}

/// The encoded `model` with the tensor `output` as its only output, of whatever type and shape it has: a runtime that drops
/// dead code then neither computes nor keeps what follows it.
///
/// # Errors
/// As [`splice`].
pub(crate) fn only_output(model: &[u8], output: &str) -> Result<Vec<u8>> {
    let mut parts = Parts::of(model)?;
    let whole = std::mem::take(&mut parts.graph);
    parts.graph.reserve_exact(whole.len());
    let mut rest = &whole[..];
    while !rest.is_empty() {
        let start = rest;
        let (tag, _) = field(&mut rest).ok_or_else(damaged)?;
        if tag >> 3 != OUTPUT {
            parts.graph.extend_from_slice(&start[..start.len() - rest.len()]);
        }
    }
    let output = ValueInfoProto { name: output.to_owned(), r#type: None };
    GraphProto { output: vec![output], ..GraphProto::default() }.encode_raw(&mut parts.graph);
    Ok(parts.joined())
}

/// The encoded `model` with operators replaced, those of subgraphs too: each by what `replacement` makes of it, where that is anything.
/// `None` where it is so of none.
///
/// # Errors
/// As [`splice`].
pub(crate) fn replace_operators(
    model: &[u8],
    replacement: impl Fn(&NodeProto) -> Option<Vec<NodeProto>>,
) -> Result<Option<Vec<u8>>> {
    Holder::Model.rewritten(model, &replacement)
}

/// Messages on the way to operators. How deep they lie in each other is bounded when a model is opened.
#[derive(Clone, Copy)]
enum Holder {
    Model,
    Graph,
    Node,
    Attribute,
}

impl Holder {
    /// The message in a field that may hold operators. Those of functions are left alone.
    fn child(self, field: u64) -> Option<Self> {
        match (self, field) {
            (Self::Model, GRAPH) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Graph, NODE) => Some(Self::Node),
            (Self::Node, 5) => Some(Self::Attribute),
            _ => None,
        }
    }

    /// `bytes`, a message of this kind, with operators replaced.
    fn rewritten(
        self,
        bytes: &[u8],
        replacement: &dyn Fn(&NodeProto) -> Option<Vec<NodeProto>>,
    ) -> Result<Option<Vec<u8>>> {
        let mut written: Option<Vec<u8>> = None;
        let mut rest = bytes;
        while !rest.is_empty() {
            let start = bytes.len() - rest.len();
            let (tag, payload) = field(&mut rest).ok_or_else(damaged)?;
            let whole = &bytes[start..bytes.len() - rest.len()];
            let instead = match self.child(tag >> 3).filter(|_| tag & 7 == 2) {
                Some(child) => child.instead(tag, payload, replacement)?,
                None => None,
            };
            if instead.is_some() && written.is_none() {
                written = Some(bytes[..start].to_vec());
            }
            if let Some(written) = &mut written {
                written.extend_from_slice(instead.as_deref().unwrap_or(whole));
            }
        }
        Ok(written)
    }

    /// The fields that replace the one of `tag` that holds `payload`, a message of this kind.
    fn instead(
        self,
        tag: u64,
        payload: &[u8],
        replacement: &dyn Fn(&NodeProto) -> Option<Vec<NodeProto>>,
    ) -> Result<Option<Vec<u8>>> {
        if let Self::Node = self {
            let node = NodeProto::decode(payload).map_err(|_| damaged())?;
            if let Some(node) = replacement(&node) {
                return Ok(Some(GraphProto { node, ..GraphProto::default() }.encode_to_vec()));
            }
        }
        let field = |inner: Vec<u8>| {
            let mut field = Vec::with_capacity(inner.len() + 11);
            prost::encoding::encode_varint(tag, &mut field);
            prost::encoding::encode_varint(inner.len() as u64, &mut field);
            field.extend(inner);
            field
        };
        Ok(self.rewritten(payload, replacement)?.map(field))
    }
}

/// The encoded `model` with initializers of its graph replaced: each by what `replacement` makes of it, where that is anything.
///
/// # Errors
/// As [`splice`], and those of `replacement`.
pub(crate) fn replace_initializers(
    model: &[u8],
    mut replacement: impl FnMut(TensorProto) -> Result<Option<TensorProto>>,
) -> Result<Vec<u8>> {
    let mut parts = Parts::of(model)?;
    let whole = std::mem::take(&mut parts.graph);
    let mut rest = &whole[..];
    while !rest.is_empty() {
        let start = rest;
        let (tag, payload) = field(&mut rest).ok_or_else(damaged)?;
        let tensor = (tag >> 3 == INITIALIZER).then(|| TensorProto::decode(payload)).transpose();
        let instead = tensor.map_err(|_| damaged())?.map(&mut replacement).transpose()?.flatten();
        match instead {
            Some(tensor) => {
                GraphProto { initializer: vec![tensor], ..GraphProto::default() }.encode_raw(&mut parts.graph);
            }
            None => parts.graph.extend_from_slice(&start[..start.len() - rest.len()]),
        }
    }
    Ok(parts.joined())
}

/// The bytes of a model: its graph's fields, and the model's own before and behind them.
struct Parts {
    before: Vec<u8>,
    graph: Vec<u8>,
    after: Vec<u8>,
}

impl Parts {
    fn of(model: &[u8]) -> Result<Self> {
        let mut parts = Self { before: Vec::new(), graph: Vec::new(), after: Vec::new() };
        let mut rest = model;
        while !rest.is_empty() {
            let start = rest;
            let (tag, payload) = field(&mut rest).ok_or_else(damaged)?;
            let whole = &start[..start.len() - rest.len()];
            match (tag >> 3, parts.graph.is_empty()) {
                (GRAPH, _) => parts.graph.extend_from_slice(payload),
                (_, true) => parts.before.extend_from_slice(whole),
                (_, false) => parts.after.extend_from_slice(whole),
            }
        }
        if parts.graph.is_empty() {
            return Err(Error::new(ErrorKind::Malformed, "no graph"));
        }
        Ok(parts)
    }

    fn joined(mut self) -> Vec<u8> {
        let mut model = self.before;
        prost::encoding::encode_varint(GRAPH << 3 | 2, &mut model);
        prost::encoding::encode_varint(self.graph.len() as u64, &mut model);
        model.append(&mut self.graph);
        model.append(&mut self.after);
        model
    }
}

fn damaged() -> Error {
    Error::new(ErrorKind::Malformed, "bytes that are no protobuf message")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::model::proto::StringStringEntryProto;
    use crate::testing::{Builder, value};

    #[test]
    fn what_is_added_follows_what_was_there_and_the_rest_survives() {
        let entry = |key: &str| StringStringEntryProto { key: key.into(), value: "v".into() };
        let mut original = Builder::new().node("Relu", &["x"], &["y"], &[]).output("y", &[0]);
        original.0.metadata_props.push(entry("theirs"));
        let mut added = Builder::new().node("Neg", &["y"], &["z"], &[]).output("z", &[0]);
        added.graph().input.clear();
        added.0.metadata_props.push(entry("ours"));
        // A field that this crate does not know, before and behind the graph, and a graph in two parts.
        let unknown = [0xFA, 0x01, 0x02, b'h', b'i'];
        let part = ModelProto {
            graph: Some(GraphProto { output: vec![value("w", &[1])], ..GraphProto::default() }),
            ..ModelProto::default()
        };
        let bytes = [&unknown[..], &original.encode(), &part.encode_to_vec(), &unknown].concat();
        let spliced = splice(&bytes, added.0).unwrap();
        assert_eq!(spliced.windows(unknown.len()).filter(|window| *window == unknown).count(), 2);
        let model = ModelProto::decode(&spliced[..]).unwrap();
        let graph = model.graph.unwrap();
        assert_eq!(graph.node.iter().map(|node| &*node.op_type).collect::<Vec<_>>(), ["Relu", "Neg"]);
        assert_eq!(graph.output.iter().map(|output| &*output.name).collect::<Vec<_>>(), ["y", "w", "z"]);
        assert_eq!(graph.input.len(), 1);
        assert_eq!(model.metadata_props.iter().map(|one| &*one.key).collect::<Vec<_>>(), ["theirs", "ours"]);
        assert_eq!((model.ir_version, model.opset_import.len()), (8, 1));
        for end in 0..bytes.len() {
            let _ = splice(&bytes[..end], ModelProto::default());
            let _ = only_output(&bytes[..end], "y");
            let _ = replace_operators(&bytes[..end], |node| Some(vec![node.clone(), node.clone()]));
        }
        assert!(splice(b"", ModelProto::default()).is_err());

        let cut = only_output(&bytes, "x").unwrap();
        assert_eq!(cut.windows(unknown.len()).filter(|window| *window == unknown).count(), 2);
        let model = ModelProto::decode(&cut[..]).unwrap();
        let graph = model.graph.unwrap();
        assert_eq!(graph.output, [ValueInfoProto { name: "x".into(), r#type: None }]);
        assert_eq!((graph.node.len(), graph.input.len(), model.metadata_props.len()), (1, 1, 1));

        let kinds = |replaced: Vec<u8>| -> Vec<String> {
            let graph = ModelProto::decode(&replaced[..]).unwrap().graph.unwrap();
            graph.node.into_iter().map(|node| node.op_type).collect()
        };
        let doubled = replace_operators(&spliced, |node| (node.op_type == "Neg").then(|| vec![node.clone(); 2]));
        assert_eq!(kinds(doubled.unwrap().unwrap()), ["Relu", "Neg", "Neg"]);
        assert_eq!(replace_operators(&spliced, |_| None).unwrap(), None);
    }
}
