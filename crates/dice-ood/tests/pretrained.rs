//! Heads in folders as transformers and timm save networks.
#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use dice_ood::ErrorKind;
use dice_ood::io::{Chosen, Location, find_head, list};
use tempfile::TempDir;

type Tensors<'a> = &'a [(&'a str, &'a [usize])];

/// A safetensors file of f32 tensors whose values count up from 0.
fn safetensors(tensors: Tensors<'_>) -> Vec<u8> {
    let (mut header, mut data) = (String::from("{"), Vec::new());
    for (place, (name, shape)) in tensors.iter().enumerate() {
        let start = data.len();
        let count: usize = shape.iter().product();
        data.extend((0..count).flat_map(|value| (value as f32).to_le_bytes()));
        let comma = if place > 0 { "," } else { "" };
        let _ = write!(
            header,
            r#"{comma}"{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{start},{}]}}"#,
            data.len()
        );
    }
    header.push('}');
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn folder(config: &str, tensors: Tensors<'_>) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("model.safetensors"), safetensors(tensors)).unwrap();
    if !config.is_empty() {
        fs::write(folder.path().join("config.json"), config).unwrap();
    }
    folder
}

/// The name of the head's weight in such a folder, or the error.
fn head(config: &str, tensors: Tensors<'_>) -> Result<String, dice_ood::Error> {
    find_head(folder(config, tensors).path(), None).map(|found| found.weight.name)
}

const VIT: Tensors<'_> = &[
    ("vit.encoder.layer.0.output.dense.weight", &[8, 16]),
    ("vit.layernorm.weight", &[8]),
    ("classifier.weight", &[3, 8]),
    ("classifier.bias", &[3]),
];

#[test]
fn heads_by_what_the_folder_says() {
    let taken: [(&str, &str, Tensors<'_>); 8] = [
        ("classifier.weight", r#"{"num_labels":3}"#, VIT),
        ("classifier.weight", "", VIT),
        (
            "classifier.1.weight",
            r#"{"num_labels":3}"#,
            &[("resnet.x.weight", &[8, 8]), ("classifier.1.weight", &[3, 8])],
        ),
        (
            "classifier.out_proj.weight",
            r#"{"model_type":"roberta","num_labels":2}"#,
            &[("classifier.dense.weight", &[8, 8]), ("classifier.out_proj.weight", &[2, 8])],
        ),
        ("score.weight", r#"{"num_labels":2}"#, &[("model.embed.weight", &[50, 8]), ("score.weight", &[2, 8])]),
        // A language model's own head is not the classifier's.
        ("score.weight", r#"{"num_labels":2}"#, &[("lm_head.weight", &[50, 8]), ("score.weight", &[2, 8])]),
        (
            "head.fc.weight",
            r#"{"num_classes":5,"pretrained_cfg":{"classifier":"head.fc"}}"#,
            &[("head.fc.weight", &[5, 8]), ("classifier.weight", &[5, 8])],
        ),
        // Two of usual names: the number of classes decides.
        (
            "head.weight",
            r#"{"id2label":{"0":"a","1":"b","2":"c"}}"#,
            &[("fc.weight", &[7, 8]), ("head.weight", &[3, 8])],
        ),
    ];
    for (name, config, tensors) in taken {
        assert_eq!(head(config, tensors).unwrap(), name);
    }
}

#[test]
fn what_the_folder_leaves_open_is_refused_by_name() {
    let refused: [(ErrorKind, &str, &str, Tensors<'_>); 7] = [
        (ErrorKind::Ambiguous, "fc.weight", r#"{"num_labels":3}"#, &[("fc.weight", &[3, 8]), ("head.weight", &[3, 8])]),
        (
            ErrorKind::Ambiguous,
            "two tokens",
            r#"{"pretrained_cfg":{"classifier":["head","head_dist"]}}"#,
            &[("head.weight", &[3, 8]), ("head_dist.weight", &[3, 8])],
        ),
        (
            ErrorKind::Ambiguous,
            "distillation_classifier",
            r#"{"num_labels":3}"#,
            &[("cls_classifier.weight", &[3, 8]), ("distillation_classifier.weight", &[3, 8])],
        ),
        (ErrorKind::Missing, "head.fc", r#"{"pretrained_cfg":{"classifier":"head.fc"}}"#, VIT),
        (ErrorKind::Shape, "[5, D]", r#"{"num_labels":5}"#, VIT),
        (ErrorKind::Malformed, "config.json", "{", VIT),
        (ErrorKind::Malformed, "config.json", r#"{"num_labels":"three"}"#, VIT),
    ];
    for (kind, said, config, tensors) in refused {
        let error = head(config, tensors).unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(said), "{config}: {error}");
    }
    let empty = TempDir::new().unwrap();
    assert_eq!(find_head(empty.path(), None).unwrap_err().kind(), ErrorKind::Missing);
    for name in ["a", "b"] {
        fs::write(empty.path().join(name).with_extension("safetensors"), safetensors(VIT)).unwrap();
    }
    assert_eq!(find_head(empty.path(), None).unwrap_err().kind(), ErrorKind::Ambiguous);
}

#[test]
fn a_layer_asked_for_is_taken_whatever_the_folder_says() {
    let folder = folder(
        r#"{"pretrained_cfg":{"classifier":["head","head_dist"]}}"#,
        &[("head.weight", &[3, 8]), ("head.bias", &[3]), ("head_dist.weight", &[3, 8])],
    );
    let location = Location { path: folder.path().into(), name: Some("head".into()) };
    let found = find_head(&location, None).unwrap();
    assert_eq!((found.weight.name.as_str(), found.chosen), ("head.weight", Chosen::Asked));
    assert_eq!(found.bias.unwrap().name, "head.bias");
}

#[test]
fn names_of_classes_and_what_features_are() {
    let bert: Tensors<'_> =
        &[("bert.pooler.dense.weight", &[8, 8]), ("classifier.weight", &[2, 8]), ("classifier.bias", &[2])];
    let of = |config: &str, tensors| find_head(folder(config, tensors).path(), None).unwrap();
    let found = of(r#"{"model_type":"bert","id2label":{"1":"spam","0":"ham"}}"#, bert);
    assert_eq!(found.classes, ["ham", "spam"]);
    assert!(found.note.unwrap().contains("within -1 and 1"));
    // Electra's dense layer is followed by GELU, a vision transformer has none.
    assert_eq!(of(r#"{"model_type":"electra","num_labels":2}"#, bert).note, None);
    assert_eq!(of(r#"{"model_type":"vit","num_labels":3}"#, VIT).note, None);
    assert_eq!(of(r#"{"label_names":["a","b","c"],"num_classes":3}"#, VIT).classes, ["a", "b", "c"]);
    // Numbers are no names, and names of other classes name none.
    assert!(of(r#"{"id2label":{"0":"LABEL_0","1":"LABEL_1","2":"LABEL_2"}}"#, VIT).classes.is_empty());
    assert!(of(r#"{"num_labels":3,"id2label":{"0":"a","7":"b","1":"c"}}"#, VIT).classes.is_empty());
}

/// Only the shard with the head is there, and its values are those of the file.
#[test]
fn of_shards_only_that_of_the_head_is_read() {
    let folder = TempDir::new().unwrap();
    let index = r#"{"metadata":{},"weight_map":{"encoder.weight":"model-1.safetensors","classifier.weight":"model-2.safetensors",
        "classifier.bias":"model-2.safetensors"}}"#;
    let path = folder.path().join("model.safetensors.index.json");
    fs::write(&path, index).unwrap();
    fs::write(folder.path().join("config.json"), r#"{"num_labels":3}"#).unwrap();
    fs::write(
        folder.path().join("model-2.safetensors"),
        safetensors(&[("classifier.weight", &[3, 8]), ("classifier.bias", &[3]), ("encoder.weight", &[1, 1])]),
    )
    .unwrap();
    for given in [folder.path(), &path] {
        let found = find_head(given, None).unwrap();
        assert_eq!(found.chosen, Chosen::ByConfig);
        assert_eq!(found.head.weight().row(1)[0], 8.0);
        assert_eq!(found.head.bias().to_vec(), [0.0, 1.0, 2.0]);
    }
    let missing = list(folder.path()).unwrap_err().to_string();
    assert!(missing.contains("model-1.safetensors"), "{missing}");
    for outside in ["../model-2.safetensors", "/etc/passwd", "", "a/b.safetensors"] {
        fs::write(&path, format!(r#"{{"weight_map":{{"classifier.weight":"{outside}"}}}}"#)).unwrap();
        assert_eq!(find_head(folder.path(), None).unwrap_err().kind(), ErrorKind::Malformed, "{outside}");
    }
    fs::write(&path, "[]").unwrap();
    assert_eq!(find_head(folder.path(), None).unwrap_err().kind(), ErrorKind::Malformed);
}

/// `tests/golden/pt2.py` made the file.
#[test]
fn the_weights_of_an_exported_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/head.pt2");
    let found = find_head(&path, Some(8)).unwrap();
    assert_eq!((found.weight.name.as_str(), found.head.classes()), ("fc.weight", 5));
    assert_eq!(found.head.weight().iter().copied().collect::<Vec<_>>(), (0..40).map(|i| i as f32).collect::<Vec<_>>());
    assert_eq!(found.head.bias().to_vec(), [0.5, 1.5, 2.5, 3.5, 4.5]);
    let (_, tensors) = list(&path).unwrap();
    assert_eq!(tensors.len(), 4);
    // Stored transposed.
    let turned = find_head(Location { path: path.clone(), name: Some("turned".into()) }, None).unwrap_err();
    assert!(turned.kind() == ErrorKind::Unsupported && turned.to_string().contains("contiguous"), "{turned}");

    let bytes = fs::read(&path).unwrap();
    let folder = TempDir::new().unwrap();
    let broken = folder.path().join("broken.pt2");
    for place in 0..bytes.len() {
        fs::write(&broken, &bytes[..place]).unwrap();
        assert!(find_head(&broken, Some(8)).is_err(), "cut at {place}");
        let mut flipped = bytes.clone();
        flipped[place] ^= 0x10;
        fs::write(&broken, flipped).unwrap();
        let _ = find_head(&broken, Some(8));
    }
}
