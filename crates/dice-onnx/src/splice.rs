//! Adding to a model without rewriting it: every byte of the original stays, in its order.

use dice_ood::{Error, ErrorKind, Result};
use prost::Message;

use crate::proto::{GraphProto, ModelProto, field};

/// Field number of `ModelProto.graph`.
const GRAPH: u64 = 7;

/// The encoded `model` with operators, tensors and outputs of `addition`'s graph behind its own, and `addition`'s metadata
/// behind its own.
///
/// Messages are appended field by field, which is what protobuf means by merging: what this crate does not know (functions,
/// subgraphs, training information, later fields) survives untouched. Readers that merge nothing see one graph.
///
/// # Errors
/// [`ErrorKind::Malformed`] where `model` is no protobuf message, or has no graph.
pub(crate) fn splice(model: &[u8], addition: ModelProto) -> Result<Vec<u8>> {
    let (mut before, mut graph, mut after) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = model;
    while !rest.is_empty() {
        let start = rest;
        let (tag, payload) =
            field(&mut rest).ok_or_else(|| Error::new(ErrorKind::Malformed, "bytes that are no protobuf message"))?;
        let whole = &start[..start.len() - rest.len()];
        match (tag >> 3, graph.is_empty()) {
            (GRAPH, _) => graph.extend_from_slice(payload),
            (_, true) => before.extend_from_slice(whole),
            (_, false) => after.extend_from_slice(whole),
        }
    }
    if graph.is_empty() {
        return Err(Error::new(ErrorKind::Malformed, "no graph"));
    }
    let ModelProto { graph: added, metadata_props, .. } = addition;
    added.unwrap_or_else(GraphProto::default).encode_raw(&mut graph);
    let mut spliced = before;
    prost::encoding::encode_varint(GRAPH << 3 | 2, &mut spliced);
    prost::encoding::encode_varint(graph.len() as u64, &mut spliced);
    spliced.append(&mut graph);
    spliced.append(&mut after);
    ModelProto { metadata_props, ..ModelProto::default() }.encode_raw(&mut spliced);
    Ok(spliced)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::proto::StringStringEntryProto;
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
        }
        assert!(splice(b"", ModelProto::default()).is_err());
    }
}
