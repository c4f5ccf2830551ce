//! Arrays through small models whose features count what they were given.
#![allow(clippy::unwrap_used, reason = "a failed test says enough")]

use std::path::{Path, PathBuf};

use dice_ood::io::{ArrayRows, ArrayValues, Arrays, Dataset, Extent};
use dice_ood::{Error, FeatureSource, for_each_block};

use crate::arrays::feed::{Feed, Group};
use crate::arrays::source::ArraySource;
use crate::model::Model;
use crate::model::element;
use crate::model::head::HeadOptions;
use crate::model::proto::DimensionProto;
use crate::run::backbone::Backbone;
use crate::run::runtime::Runtime;
use crate::testing::{Builder, int, value};

/// An input of whole numbers `[batch, length]`, where 0 is free.
type Input = (&'static str, i32, [i64; 2]);

/// A model whose features are, of each row: the sum of ids under the mask, how many the mask keeps, the sum of other inputs.
fn counting(inputs: &[Input]) -> Builder {
    let mut builder = Builder::new().ints("axis", &[1]);
    builder.graph().input = inputs
        .iter()
        .map(|(name, code, shape)| {
            let mut info = value(name, shape);
            let tensor = info.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
            tensor.elem_type = *code;
            if shape[1] == 0 {
                tensor.shape.as_mut().unwrap().dim[1] =
                    DimensionProto { dim_value: None, dim_param: Some("length".into()) };
            }
            info
        })
        .collect();
    let mut zeros = builder.floats("zero", &[1], &[0.0]);
    for (name, ..) in inputs {
        zeros = zeros.node("Cast", &[name], &[&format!("f/{name}")], &[int("to", element::FLOAT.into())]);
    }
    let mask = inputs.iter().find(|(name, ..)| name.ends_with("mask"));
    let other = inputs.iter().find(|(name, ..)| name.ends_with("types") || name.contains("type"));
    let first = format!("f/{}", inputs[0].0);
    let mask = mask.map_or(first.clone(), |(name, ..)| format!("f/{name}"));
    let other = other.map_or(first.clone(), |(name, ..)| format!("f/{name}"));
    zeros
        .node("Mul", &[&first, &mask], &["kept"], &[])
        .node("ReduceSum", &["kept", "axis"], &["a"], &[])
        .node("ReduceSum", &[&mask, "axis"], &["b"], &[])
        .node("ReduceSum", &[&other, "axis"], &["c"], &[])
        .node("Concat", &["a", "b", "c"], &["h"], &[int("axis", 1)])
        .counting("w", &[3, 2])
        .floats("bias", &[2], &[0.0; 2])
        .node("Gemm", &["h", "w", "bias"], &["y"], &[])
        .output("y", &[0, 2])
}

fn backbone(folder: &Path, inputs: &[Input]) -> Backbone {
    let path = folder.join("model.onnx");
    std::fs::write(&path, counting(inputs).encode()).unwrap();
    let model = Model::open(&path).unwrap();
    Backbone::new(&model, &model.find_head(&HeadOptions::default()).unwrap(), &Runtime::BuiltIn).unwrap()
}

/// A safetensors file of whole numbers.
fn arrays(folder: &Path, named: &[(&str, [usize; 2], &[i64])]) -> Dataset {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in named {
        let start = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let described = serde_json::json!({"dtype": "I64", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert((*name).into(), described);
    }
    write(folder, &serde_json::Value::from(header).to_string(), &data)
}

fn write(folder: &Path, header: &str, data: &[u8]) -> Dataset {
    let path: PathBuf = folder.join("arrays.safetensors");
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()).unwrap();
    Dataset::new([path]).unwrap()
}

fn features(backbone: &Backbone, data: &Dataset) -> dice_ood::Result<Vec<[f32; 3]>> {
    let mut all = Vec::new();
    let mut source = ArraySource::new(backbone, data)?;
    for_each_block(&mut source, |block| {
        all.extend(block.features.chunks(3).map(|row| [row[0], row[1], row[2]]));
        Ok(())
    })?;
    Ok(all)
}

fn refusal(backbone: &Backbone, data: &Dataset) -> Error {
    features(backbone, data).unwrap_err()
}

const IDS: (&str, [usize; 2], &[i64]) = ("input_ids", [3, 2], &[1, 2, 3, 4, 5, 6]);

#[test]
fn masks_and_types_that_files_lack_are_ones_and_zeros_of_every_type_and_batch() {
    let folder = tempfile::tempdir().unwrap();
    for (code, batch, length) in
        [(element::INT64, 0, 0), (element::INT32, 2, 2), (element::INT64, 1, 0), (element::BOOL, 0, 2)]
    {
        let inputs = [
            ("input_ids", element::INT64, [batch, length]),
            ("attention_mask", code, [batch, length]),
            ("token_type_ids", element::INT64, [batch, length]),
        ];
        let backbone = backbone(folder.path(), &inputs);
        let given = arrays(
            folder.path(),
            &[IDS, ("attention_mask", [3, 2], &[1, 0, 1, 1, 0, 1]), ("token_type_ids", [3, 2], &[0, 1, 2, 3, 0, 0])],
        );
        assert_eq!(features(&backbone, &given).unwrap(), [[1.0, 1.0, 1.0], [7.0, 2.0, 5.0], [6.0, 1.0, 0.0]]);
        let lacking = arrays(folder.path(), &[IDS]);
        assert_eq!(features(&backbone, &lacking).unwrap(), [[3.0, 2.0, 0.0], [7.0, 2.0, 0.0], [11.0, 2.0, 0.0]]);
        let notes = ArraySource::new(&backbone, &lacking).unwrap().notes().join(" ");
        assert!(notes.contains("no `attention_mask`") && notes.contains("no `token_type_ids`"), "{notes}");
        let other = arrays(folder.path(), &[IDS, ("attention_mask", [3, 2], &[1, 0, 1, 300, 0, 1])]);
        // What a mask cannot be is refused by the type, where the type cannot hold it.
        assert_eq!(features(&backbone, &other).is_err(), code == element::BOOL);
    }
}

#[test]
fn arrays_of_other_shapes_and_names_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = [("input_ids", element::INT64, [0, 2]), ("positions", element::INT64, [0, 2])];
    let backbone = backbone(folder.path(), &inputs);
    let wide = arrays(folder.path(), &[("input_ids", [2, 3], &[1; 6]), ("positions", [2, 3], &[0; 6])]);
    let text = refusal(&backbone, &wide).to_string();
    assert!(text.contains("input_ids: expected whole numbers [N, 2], found i64 [2, 3]"), "{text}");
    let text = refusal(&backbone, &arrays(folder.path(), &[IDS])).to_string();
    assert!(
        text.contains("positions: expected an array of that name") && text.contains("`input_ids` i64 [3, 2]"),
        "{text}"
    );
    let odd = arrays(folder.path(), &[IDS, ("positions", [4, 2], &[0; 8])]);
    let text = refusal(&backbone, &odd).to_string();
    assert!(text.contains("positions: expected 3 inputs, as `input_ids` has"), "{text}");
    let cut = write(folder.path(), r#"{"input_ids":{"dtype":"I64","shape":[9,2],"data_offsets":[0,144]}}"#, &[0; 16]);
    assert!(refusal(&backbone, &cut).to_string().contains("bytes of data"));
    let empty = arrays(folder.path(), &[("input_ids", [0, 2], &[]), ("positions", [0, 2], &[])]);
    assert!(features(&backbone, &empty).unwrap().is_empty());
}

#[test]
fn any_number_of_rows_at_a_time_gives_the_same_features() {
    let folder = tempfile::tempdir().unwrap();
    let backbone =
        backbone(folder.path(), &[("input_ids", element::INT64, [0, 0]), ("attention_mask", element::INT64, [0, 0])]);
    let values: Vec<i64> = (0..700).map(|value| value * 7919 % 1000).collect();
    let mask: Vec<i64> = (0..700).map(|value| i64::from(value % 3 > 0)).collect();
    let data = arrays(folder.path(), &[("input_ids", [100, 7], &values), ("attention_mask", [100, 7], &mask)]);
    let whole = features(&backbone, &data).unwrap();
    let mut source = ArraySource::new(&backbone, &data).unwrap();
    let (mut block, mut parts) = (dice_ood::Block::default(), Vec::new());
    for rows in [1, 5, 64, 1, 100] {
        source.read(&mut block, rows).unwrap();
        parts.extend(block.features.chunks(3).map(|row| [row[0], row[1], row[2]]));
    }
    assert_eq!(parts, whole);
    let sums: Vec<f32> = values
        .chunks(7)
        .zip(mask.chunks(7))
        .map(|(values, mask)| values.iter().zip(mask).map(|(v, m)| v * m).sum::<i64>() as f32)
        .collect();
    assert_eq!(whole.iter().map(|row| row[0]).collect::<Vec<_>>(), sums);
}

/// Lists of ids of these lengths: 1, 2, 3, ...
fn lists(lengths: &[usize], inputs: usize) -> Arrays {
    let values = (1..=lengths.iter().sum::<usize>() as i64).collect();
    let ids = ArrayRows { values: ArrayValues::Integers(values), extent: Extent::Lists(lengths.to_vec()) };
    let arrays = std::iter::once(Some(ids)).chain(std::iter::repeat_with(|| None)).take(inputs).collect();
    Arrays { rows: lengths.len(), first_row: 10, arrays, ..Arrays::default() }
}

/// The shape and the values of an array.
type Filled = (Vec<usize>, Vec<i64>);

/// The rows of each group, and its arrays.
fn groups(feed: &Feed, arrays: &Arrays) -> Vec<(Vec<usize>, Vec<Filled>)> {
    let integers = |values: &ArrayValues| match values {
        ArrayValues::Integers(values) => values.clone(),
        ArrayValues::Floats(_) => panic!("floats"),
    };
    let of = |group: Group| {
        let arrays = group.arrays.iter().map(|array| (array.shape.clone(), integers(&array.values)));
        (group.rows, arrays.collect())
    };
    feed.groups(arrays).unwrap().into_iter().map(of).collect()
}

#[test]
fn lists_of_one_length_run_together_and_are_padded_only_where_the_model_fixes_it() {
    let folder = tempfile::tempdir().unwrap();
    let feed = |length: i64, mask: bool| {
        let ids = ("input_ids", element::INT64, [0, length]);
        let second = (if mask { "attention_mask" } else { "token_type_ids" }, element::INT64, [0, length]);
        Feed::new(backbone(folder.path(), &[ids, second]).inputs()).unwrap()
    };
    let given = lists(&[2, 1, 2], 2);
    assert_eq!(
        groups(&feed(0, true), &given),
        [
            (vec![1], vec![(vec![1], vec![3]), (vec![1], vec![1])]),
            (vec![0, 2], vec![(vec![2], vec![1, 2, 4, 5]), (vec![2], vec![1, 1, 1, 1])]),
        ]
    );
    let padded = [(vec![3], vec![1, 2, 0, 3, 0, 0, 4, 5, 0]), (vec![3], vec![1, 1, 0, 1, 0, 0, 1, 1, 0])];
    assert_eq!(groups(&feed(3, true), &given), [(vec![0, 1, 2], padded.to_vec())]);
    let text = feed(3, false).groups(&given).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("a list of 2 at row 10") && text.contains("no attention_mask"), "{text}");
    let text = feed(1, true).groups(&given).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("a list of 2 at row 10") && text.contains("truncate"), "{text}");
    assert!(feed(0, true).groups(&lists(&[2, 0], 2)).is_err());
    // Ids and mask of one row are of one length.
    let mut apart = lists(&[2, 1], 2);
    apart.arrays[1] = Some(ArrayRows { values: ArrayValues::Integers(vec![1; 4]), extent: Extent::Lists(vec![2, 2]) });
    let text = feed(0, true).groups(&apart).map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("expected 1, as `input_ids` has (length)") && text.contains("row 11"), "{text}");
}
