//! Tables of every kind by one rule: what their columns are for, whatever their order, names and types.
#![cfg(feature = "columns")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Float32Array, Int32Array, Int64Array, RecordBatch, StringArray, UInt64Array,
};
use dice_ood::io::{Columns, Dataset, Location, read_labels};
use dice_ood::{Block, ErrorKind, Ids, Layout, Note, Result};

const ROWS: usize = 9;
const UNITS: [&str; 4] = ["f0", "f1", "f2", "f3"];

#[derive(Clone)]
enum Data {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
    Short(Vec<i32>),
    Unsigned(Vec<u64>),
    Text(Vec<String>),
    /// Text under a number each; plain text where a format has no such thing.
    Category(Vec<String>),
}

type Table = Vec<(String, Data)>;

fn unit(number: usize) -> Data {
    Data::Floats((0..ROWS).map(|row| row as f32 * 1.5 + number as f32 / 8.0 + 0.01).collect())
}

fn column(name: &str, data: Data) -> (String, Data) {
    (name.to_owned(), data)
}

fn units(order: &[usize]) -> Table {
    order.iter().map(|number| column(UNITS[*number], unit(*number))).collect()
}

fn values() -> Vec<f32> {
    (0..ROWS * UNITS.len()).map(|place| (place / 4) as f32 * 1.5 + (place % 4) as f32 / 8.0 + 0.01).collect()
}

fn with(extra: (String, Data)) -> Table {
    let mut table = units(&[0, 1, 2, 3]);
    table.insert(1, extra);
    table
}

fn counted() -> Vec<i64> {
    (0..ROWS as i64).map(|row| row * 7 - 2).collect()
}

fn words() -> Vec<String> {
    (0..ROWS).map(|row| format!(" in {row}")).collect()
}

fn separated(table: &Table, separator: &str) -> Vec<u8> {
    let field = |data: &Data, row: usize| match data {
        Data::Floats(all) => all[row].to_string(),
        Data::Integers(all) => all[row].to_string(),
        Data::Short(all) => all[row].to_string(),
        Data::Unsigned(all) => all[row].to_string(),
        Data::Text(all) | Data::Category(all) => all[row].clone(),
    };
    let mut lines = vec![table.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(separator)];
    for row in 0..ROWS {
        lines.push(table.iter().map(|(_, data)| field(data, row)).collect::<Vec<_>>().join(separator));
    }
    (lines.join("\n") + "\n").into_bytes()
}

fn batch(table: &Table) -> RecordBatch {
    let array = |data: &Data| -> ArrayRef {
        match data.clone() {
            Data::Floats(all) => Arc::new(Float32Array::from(all)),
            Data::Integers(all) => Arc::new(Int64Array::from(all)),
            Data::Short(all) => Arc::new(Int32Array::from(all)),
            Data::Unsigned(all) => Arc::new(UInt64Array::from(all)),
            Data::Text(all) => Arc::new(StringArray::from(all)),
            Data::Category(all) => Arc::new(all.iter().map(String::as_str).collect::<DictionaryArray<Int32Type>>()),
        }
    };
    RecordBatch::try_from_iter(table.iter().map(|(name, data)| (name, array(data)))).unwrap()
}

fn parquet(table: &Table) -> Vec<u8> {
    let batch = batch(table);
    let mut writer = parquet::arrow::arrow_writer::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn arrow_file(table: &Table) -> Vec<u8> {
    let batch = batch(table);
    let mut writer = arrow_ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn arrow_stream(table: &Table) -> Vec<u8> {
    let batch = batch(table);
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// What a kind of table is called, and how one is written.
type Kind = (&'static str, fn(&Table) -> Vec<u8>);

const KINDS: [Kind; 5] = [
    ("csv", |table| separated(table, ",")),
    ("tsv", |table| separated(table, "\t")),
    ("parquet", parquet),
    ("arrow", arrow_file),
    ("arrows", arrow_stream),
];

/// Everything that is read of a data set.
#[derive(Debug, PartialEq)]
struct Read {
    features: Vec<f32>,
    labels: Option<Vec<i64>>,
    ids: Option<Ids>,
    layout: Layout,
}

fn read(data: &Dataset) -> Result<Read> {
    let mut source = data.open()?;
    let (mut read, mut block) =
        (Read { features: Vec::new(), labels: None, ids: None, layout: source.layout() }, Block::default());
    loop {
        source.read(&mut block, 4)?;
        if block.rows() == 0 {
            return Ok(read);
        }
        read.features.extend(&block.features);
        if let Some(labels) = &block.labels {
            read.labels.get_or_insert_default().extend(labels);
        }
        read.ids = match (read.ids.take(), block.ids.clone()) {
            (Some(Ids::Text(all)), Some(Ids::Text(more))) => Some(Ids::Text([all, more].concat())),
            (Some(Ids::Integer(all)), Some(Ids::Integer(more))) => Some(Ids::Integer([all, more].concat())),
            (Some(Ids::Unsigned(all)), Some(Ids::Unsigned(more))) => Some(Ids::Unsigned([all, more].concat())),
            (_, more) => more,
        };
    }
}

/// Runs `check` on `table` as each kind of table.
fn each(table: &Table, check: impl Fn(&str, Dataset)) {
    let folder = tempfile::tempdir().unwrap();
    for (kind, write) in KINDS {
        let path = folder.path().join(format!("x.{kind}"));
        std::fs::write(&path, write(table)).unwrap();
        check(kind, dataset(&[&path]));
    }
}

fn dataset(paths: &[&Path]) -> Dataset {
    Dataset::new(paths.iter().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>()).unwrap()
}

fn names() -> Vec<String> {
    UNITS.map(str::to_owned).to_vec()
}

#[test]
fn columns_are_known_by_name_and_not_by_place() {
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        each(&units(&order), |kind, data| {
            let found = read(&data.clone().with_units(4, &names())).unwrap();
            assert_eq!(found.features, values(), "{kind} {order:?}");
            assert_eq!(found.layout.units, names());
            // At a fit the names are taken down as they come.
            assert_eq!(read(&data).unwrap().layout.units, order.map(|number| UNITS[number]), "{kind}");
        });
    }
}

#[test]
fn other_columns_than_those_of_the_fit_are_refused_by_name() {
    let missing = units(&[0, 2, 3]);
    let mut renamed = units(&[0, 1, 2, 3]);
    renamed[1].0 = "height".into();
    let cases = [(missing, vec!["without `f1`"]), (renamed, vec!["without `f1`", "the new `height`"])];
    for (table, parts) in cases.into_iter().chain([(with(column("height", unit(9))), vec!["the new `height`"])]) {
        each(&table, |kind, data| {
            let error = read(&data.with_units(4, &names())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Columns, "{kind}: {error}");
            parts.iter().for_each(|part| assert!(error.to_string().contains(part), "{kind}: {part} in {error}"));
        });
    }
    // What is not wanted can be dropped, by name or by pattern.
    for drop in ["height", "h*"] {
        each(&with(column("height", unit(9))), |kind, data| {
            let columns = Columns { drop: vec![drop.into()], ..Columns::default() };
            assert_eq!(
                read(&data.with_units(4, &names()).with_columns(&columns)).unwrap().features,
                values(),
                "{kind}"
            );
        });
    }
}

#[test]
fn a_column_of_ids_is_no_feature_and_keeps_its_type() {
    const NAMES: [&str; 14] = [
        "id",
        "user_id",
        "image_id",
        "uuid",
        "key",
        "sample_id",
        "index",
        "userId",
        "Image-Path",
        "order_key",
        "__index_level_0__",
        "Unnamed: 0",
        "filename",
        "",
    ];
    let unsigned: Vec<u64> = (0..ROWS as u64).map(|row| u64::MAX - row).collect();
    let types = [
        (Data::Integers(counted()), Ids::Integer(counted())),
        (Data::Short((0..ROWS as i32).collect()), Ids::Integer((0..ROWS as i64).collect())),
        (Data::Unsigned(unsigned.clone()), Ids::Unsigned(unsigned)),
        (Data::Text(words()), Ids::Text(words())),
        (Data::Category(words()), Ids::Text(words())),
        (Data::Text(vec!["007".into(); ROWS]), Ids::Text(vec!["007".into(); ROWS])),
    ];
    for name in NAMES {
        for (data, ids) in &types {
            each(&with(column(name, data.clone())), |kind, data| {
                let found = read(&data).unwrap();
                assert_eq!(found.features, values(), "{kind}: {name}");
                assert_eq!(found.ids.as_ref(), Some(ids), "{kind}: {name}");
                assert_eq!((found.layout.ids.as_deref(), &found.layout.notes[..]), (Some(name), &[][..]), "{kind}");
                assert_eq!(read(&data.without_ids()).unwrap().ids, None, "{kind}");
            });
        }
    }
}

#[test]
fn ids_can_be_named_and_their_absence_is_told() {
    each(&units(&[0, 1, 2, 3]), |kind, data| {
        let found = read(&data).unwrap();
        assert_eq!((found.ids, &found.layout.notes[..]), (None, &[Note::NoIds][..]), "{kind}");
        assert_eq!(read(&data.without_ids()).unwrap().layout.notes, [], "{kind}");
    });
    each(&with(column("member", Data::Integers(counted()))), |kind, data| {
        let columns = Columns { id: Some("member".into()), ..Columns::default() };
        let found = read(&data.clone().with_columns(&columns)).unwrap();
        assert_eq!((found.features, found.ids), (values(), Some(Ids::Integer(counted()))), "{kind}");
        let absent = Columns { id: Some("membre".into()), ..Columns::default() };
        assert_eq!(read(&data.with_columns(&absent)).unwrap_err().kind(), ErrorKind::Missing, "{kind}");
    });
    // Of two, the better known one is the id, and the other one is no feature either.
    let mut two = with(column("session_id", Data::Integers(counted())));
    two.push(column("id", Data::Text(words())));
    each(&two, |kind, data| {
        let found = read(&data).unwrap();
        assert_eq!((found.features, found.ids), (values(), Some(Ids::Text(words()))), "{kind}");
        assert_eq!(found.layout.notes, [Note::LeftOut(vec!["session_id".into()])], "{kind}");
    });
}

#[test]
fn one_column_too_many_is_told_by_name() {
    let numbered = Data::Integers((1..=ROWS as i64).collect());
    let floats = Data::Floats((0..ROWS).map(|row| row as f32).collect());
    for (data, name) in [(numbered, "row_number"), (Data::Integers(counted()), "batch"), (floats, "position")] {
        each(&with(column(name, data)), |kind, data| {
            let error = read(&data.with_units(4, &[])).unwrap_err();
            let message = error.to_string();
            assert!(error.kind() == ErrorKind::Columns && message.contains(&format!("`{name}`")), "{kind}: {message}");
        });
    }
}

#[test]
fn files_of_one_data_set_may_order_their_columns_as_they_like() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("a"), folder.path().join("b"));
    for (one, write_one) in KINDS {
        for (other, write_other) in KINDS {
            std::fs::write(&first, write_one(&units(&[0, 1, 2, 3]))).unwrap();
            std::fs::write(&second, write_other(&units(&[2, 0, 3, 1]))).unwrap();
            let found = read(&dataset(&[&first, &second])).unwrap();
            assert_eq!(found.features, [values(), values()].concat(), "{one} then {other}");
            std::fs::write(&second, write_other(&with(column("id", Data::Integers(counted()))))).unwrap();
            let error = read(&dataset(&[&first, &second])).unwrap_err();
            assert!(error.to_string().contains("no ids, as in"), "{one} then {other}: {error}");
            std::fs::write(&first, write_one(&with(column("id", Data::Text(words()))))).unwrap();
            let error = read(&dataset(&[&first, &second])).unwrap_err();
            assert!(error.to_string().contains("expected text"), "{one} then {other}: {error}");
        }
    }
}

#[test]
fn features_and_labels_can_be_named() {
    let labels = |row: usize| row as i64 % 3;
    let mut table = with(column("fold", Data::Integers(counted())));
    table.push(column("species", Data::Floats((0..ROWS).map(|row| labels(row) as f32).collect())));
    let columns = Columns { features: vec!["f?".into()], label: Some("species".into()), ..Columns::default() };
    each(&table, |kind, data| {
        let found = read(&data.clone().with_columns(&columns)).unwrap();
        assert_eq!(found.features, values(), "{kind}");
        assert_eq!(found.labels, Some((0..ROWS).map(labels).collect()), "{kind}");
        let in_order = ["f2", "f0"].map(str::to_owned).to_vec();
        let two = read(&data.clone().with_columns(&Columns { features: in_order.clone(), ..columns.clone() })).unwrap();
        assert_eq!(two.layout.units, in_order, "{kind}");
        let none = Columns { features: vec!["g*".into()], ..Columns::default() };
        assert_eq!(read(&data.with_columns(&none)).unwrap_err().kind(), ErrorKind::Missing, "{kind}");
    });
}

#[test]
fn labels_of_text_are_refused_where_labels_are_read() {
    for data in [Data::Text(words()), Data::Category(words())] {
        each(&with(column("label", data)), |kind, data| {
            let error = read(&data).unwrap_err();
            assert!(error.to_string().contains("class indices"), "{kind}: {error}");
            assert_eq!(read(&data.clone().without_labels()).unwrap().features, values(), "{kind}");
            let location = Location { path: data.files()[0].path.clone(), name: None };
            let error = read_labels(&location).unwrap_err();
            assert!(error.to_string().contains("the index of each class"), "{kind}: {error}");
        });
    }
}

#[test]
fn names_known_on_one_side_only_are_told() {
    each(&units(&[0, 1, 2, 3]), |kind, data| {
        let found = read(&data.with_units(4, &[]).without_ids()).unwrap();
        assert_eq!(found.layout.notes, [Note::TakenByPlace], "{kind}");
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bare.csv");
    std::fs::write(&path, "1.5,2,3,4\n").unwrap();
    let found = read(&dataset(&[&path]).with_units(4, &names()).without_ids()).unwrap();
    assert_eq!(found.layout.notes, [Note::TakenByPlace]);
}

#[test]
fn a_quote_that_is_not_closed_swallows_no_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.csv");
    let mut lines = vec!["f0,f1,id".to_owned()];
    lines.extend((0..60).map(|row| format!("{row}.5,1,in {row}")));
    let read_text = |lines: &[String]| {
        std::fs::write(&path, lines.join("\n")).unwrap();
        read(&dataset(&[&path])).map(|found| found.features.len() / 2)
    };
    assert_eq!(read_text(&lines).unwrap(), 60);
    for (place, field) in [(10, "\"in 9"), (60, "\"in 59"), (20, "\"two\nlines\"")] {
        let mut odd = lines.clone();
        odd[place] = format!("3.5,1,{field}");
        let error = read_text(&odd).unwrap_err();
        let expected = format!("line {} that is not closed", place + 1);
        assert!(error.kind() == ErrorKind::Malformed && error.to_string().contains(&expected), "{error}");
    }
    for fine in ["5\" pipe", "\"a, b\"", "\"say \"\"x\"\"\"", "\"\""] {
        let mut quoted = lines.clone();
        quoted[30] = format!("3.5,1,{fine}");
        assert_eq!(read_text(&quoted).unwrap(), 60, "{fine}");
    }
}
