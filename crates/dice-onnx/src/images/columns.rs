//! Images in a column of a Parquet table.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryViewArray, RecordBatch, StringViewArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, Fields};

use dice_ood::io::{ParquetBatches, ParquetFile, Reading, files};
use dice_ood::{Error, ErrorKind, Result};

use crate::images::entry::{Encoded, Entry, is_label};
use crate::images::places::none;
use crate::text::quoted;

/// Images decoded from pages at a time.
const BATCH_ROWS: usize = 32;
/// Paths read at a time.
const BATCH_PATHS: usize = 1024;

/// The most bytes of a path that names an image.
const LONGEST_PATH: usize = 1 << 12;

/// Columns of images, by name, the first that is there.
const IMAGES: [&str; 2] = ["image", "img"];
/// Columns of labels, likewise.
const LABELS: [&str; 3] = ["label", "labels", "fine_label"];

/// A table with a column of encoded images.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) path: PathBuf,
    pub(super) rows: u64,
    /// Names of classes, where Hugging Face's description of the columns has them.
    pub(super) classes: Vec<String>,
    file: ParquetFile,
    image: usize,
    labels: Option<usize>,
    /// Whether each image has a path that no other has.
    named: bool,
}

impl Table {
    /// Opens a table; `names` are hashes of the paths that images of the set have so far.
    pub(super) fn open(path: PathBuf, column: Option<&str>, names: &mut HashSet<u64>) -> Result<Self> {
        let located = |error: Error| error.file(path.display());
        let file = files::open(&path)?;
        let file = ParquetFile::new(file).map_err(located)?;
        let fields = file.schema().fields().clone();
        let image = image_column(&fields, column).map_err(located)?;
        let labels = LABELS
            .iter()
            .find_map(|name| fields.iter().position(|field| field.name() == name && field.data_type().is_integer()));
        let rows = file.rows() as u64;
        if rows == 0 {
            return Err(none(path.display()));
        }
        let classes = labels.map(|labels| class_names(&file, fields[labels].name())).unwrap_or_default();
        let mut table = Self { path, rows, classes, file, image, labels, named: false };
        table.named = table.has_own_names(names).map_err(|error| error.file(table.path.display()))?;
        if !is_label(table.first_label().map_err(|error| error.file(table.path.display()))?) {
            (table.labels, table.classes) = (None, Vec::new());
        }
        Ok(table)
    }

    fn first_label(&self) -> Result<Option<i64>> {
        if self.labels.is_none() {
            return Ok(None);
        }
        let batch = self.reader(|_| false, true, 1)?.next()?;
        Ok(batch.and_then(|batch| whole_numbers(batch.columns().first()?).first().copied().flatten()))
    }

    pub(super) fn labelled(&self) -> bool {
        self.labels.is_some()
    }

    pub(super) fn entries(&self) -> Result<TableEntries<'_>> {
        let part = |name: &str| name == "bytes" || (self.named && name == "path");
        let reader = self.reader(part, true, BATCH_ROWS).map_err(|error| error.file(self.path.display()))?;
        Ok(TableEntries { table: self, reader, batch: None, place: 0, next: 0, over: false })
    }

    /// A reader of those parts of the images for which `wanted` holds, and of the labels if they are wanted too.
    fn reader(&self, wanted: impl Fn(&str) -> bool, labels: bool, most: usize) -> Result<ParquetBatches> {
        let leaves = self.file.leaves(|column, path| {
            if column == self.image {
                return wanted(path.first().map_or("bytes", String::as_str));
            }
            labels && Some(column) == self.labels
        });
        let batch = self.file.sizes(&leaves)?.rows_of_views(most);
        self.file.read(&Reading { leaves, rows: 0..self.file.rows(), batch, widest: 0 })
    }

    /// Whether all images have paths and these are new; adds them to `names`.
    fn has_own_names(&self, names: &mut HashSet<u64>) -> Result<bool> {
        let fields = self.file.schema().fields();
        let DataType::Struct(parts) = fields[self.image].data_type() else { return Ok(false) };
        if !parts.iter().any(|part| part.name() == "path" && part.data_type() == &DataType::Utf8View) {
            return Ok(false);
        }
        let mut reader = self.reader(|name| name == "path", false, BATCH_PATHS)?;
        let mut own = HashSet::new();
        while let Some(batch) = reader.next()? {
            let Some(paths) = batch.column(0).as_struct_opt().and_then(|parts| parts.column(0).as_string_view_opt())
            else {
                return Ok(false);
            };
            for path in paths {
                let mut hasher = DefaultHasher::new();
                path.hash(&mut hasher);
                let hash = hasher.finish();
                if path.is_none_or(|path| path.is_empty() || path.len() > LONGEST_PATH)
                    || names.contains(&hash)
                    || !own.insert(hash)
                {
                    return Ok(false);
                }
            }
        }
        names.extend(own);
        Ok(true)
    }
}

/// The column that is named, or that has a usual name, or that alone holds bytes.
fn image_column(fields: &Fields, named: Option<&str>) -> Result<usize> {
    let holds_bytes = |kind: &DataType| match kind {
        DataType::BinaryView => true,
        DataType::Struct(parts) => {
            parts.iter().any(|part| part.name() == "bytes" && part.data_type() == &DataType::BinaryView)
        }
        _ => false,
    };
    let usable: Vec<usize> = (0..fields.len()).filter(|column| holds_bytes(fields[*column].data_type())).collect();
    let list = || fields.iter().take(20).map(|field| quoted(field.name())).collect::<Vec<_>>().join(", ");
    let by_name = |name: &str| usable.iter().copied().find(|column| fields[*column].name() == name);
    if let Some(name) = named {
        return by_name(name).ok_or_else(|| {
            Error::new(ErrorKind::Missing, format!("columns {}", list()))
                .tensor(quoted(name))
                .expected("a column of encoded images: binary, or structures of `bytes` and `path`")
        });
    }
    let structures = || usable.iter().copied().filter(|column| fields[*column].data_type().is_nested());
    match (IMAGES.iter().find_map(|name| by_name(name)), &usable[..]) {
        (Some(column), _) | (None, &[column]) => Ok(column),
        (None, []) => Err(Error::new(ErrorKind::Missing, format!("columns {}", list()))
            .expected("a column of encoded images: binary, or structures of `bytes` and `path`")),
        (None, _) => match structures().collect::<Vec<_>>()[..] {
            [only] => Ok(only),
            _ => Err(Error::new(ErrorKind::Ambiguous, format!("columns {}", list()))
                .expected("one column of encoded images, or `image` or `img`")
                .fix("name it: FILE.parquet#COLUMN")),
        },
    }
}

/// What Hugging Face's description of the columns says of the classes of `column`.
fn class_names(file: &ParquetFile, column: &str) -> Vec<String> {
    let names = || {
        let value: serde_json::Value = serde_json::from_str(file.note("huggingface")?).ok()?;
        let names = value.get("info")?.get("features")?.get(column)?.get("names")?.clone();
        serde_json::from_value(names).ok()
    };
    names().unwrap_or_default()
}

/// The rows of a table.
pub(super) struct TableEntries<'a> {
    table: &'a Table,
    reader: ParquetBatches,
    batch: Option<Columns>,
    place: usize,
    next: u64,
    over: bool,
}

/// A batch, in the types it is used in.
struct Columns {
    bytes: BinaryViewArray,
    paths: Option<StringViewArray>,
    labels: Option<Vec<Option<i64>>>,
    /// Images that are null as a whole.
    nulls: Option<NullBuffer>,
    rows: usize,
}

impl TableEntries<'_> {
    fn row(&mut self) -> Result<Option<Entry>> {
        while self.batch.as_ref().is_none_or(|batch| self.place == batch.rows) {
            // The views of a batch keep its pages in memory.
            self.batch = None;
            let Some(batch) = self.reader.next()? else {
                return if self.next == self.table.rows { Ok(None) } else { Err(broken("the end of the data")) };
            };
            (self.batch, self.place) = (Some(Columns::of(&batch)?), 0);
        }
        let Some(batch) = &self.batch else { return Ok(None) };
        let (place, row) = (self.place, self.next);
        self.place += 1;
        self.next += 1;
        let path = batch.paths.as_ref().filter(|paths| paths.is_valid(place)).map(|paths| paths.value(place));
        let id = match path {
            Some(path) => path.to_owned(),
            None => format!("{}:{row}", self.table.path.display()),
        };
        let label = batch.labels.as_ref().and_then(|labels| labels[place]);
        // A null becomes an image of no bytes, which cannot be decoded.
        let there = batch.bytes.is_valid(place) && batch.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(place));
        let bytes = if there { batch.bytes.value(place).to_vec() } else { Vec::new() };
        Ok(Some(Entry { id, label, image: Encoded::Bytes(bytes) }))
    }
}

impl Iterator for TableEntries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let row = self.row().map_err(|error| error.file(self.table.path.display())).transpose();
        self.over = !matches!(row, Some(Ok(_)));
        row
    }
}

impl Columns {
    fn of(batch: &RecordBatch) -> Result<Self> {
        let (mut bytes, mut paths, mut labels, mut whole) = (None, None, None, None);
        for column in batch.columns() {
            match column.data_type() {
                DataType::BinaryView => bytes = column.as_binary_view_opt().cloned(),
                DataType::Struct(_) => {
                    let parts = column.as_struct();
                    whole = parts.nulls().cloned();
                    for part in parts.columns() {
                        match part.data_type() {
                            DataType::Utf8View => paths = part.as_string_view_opt().cloned(),
                            _ => bytes = part.as_binary_view_opt().cloned(),
                        }
                    }
                }
                _ => labels = Some(whole_numbers(column)),
            }
        }
        let bytes = bytes.ok_or_else(|| broken("a column of another type"))?;
        Ok(Self { bytes, paths, labels, nulls: whole, rows: batch.num_rows() })
    }
}

fn whole_numbers(column: &ArrayRef) -> Vec<Option<i64>> {
    fn all<T: ArrowPrimitiveType>(column: &ArrayRef, convert: impl Fn(T::Native) -> Option<i64>) -> Vec<Option<i64>> {
        column.as_primitive::<T>().iter().map(|value| convert(value?)).collect()
    }
    match column.data_type() {
        DataType::Int8 => all::<Int8Type>(column, |value| Some(value.into())),
        DataType::Int16 => all::<Int16Type>(column, |value| Some(value.into())),
        DataType::Int32 => all::<Int32Type>(column, |value| Some(value.into())),
        DataType::Int64 => all::<Int64Type>(column, Some),
        DataType::UInt8 => all::<UInt8Type>(column, |value| Some(value.into())),
        DataType::UInt16 => all::<UInt16Type>(column, |value| Some(value.into())),
        DataType::UInt32 => all::<UInt32Type>(column, |value| Some(value.into())),
        DataType::UInt64 => all::<UInt64Type>(column, |value| value.try_into().ok()),
        _ => vec![None; column.len()],
    }
}

fn broken(found: &str) -> Error {
    Error::new(ErrorKind::Malformed, found)
        .expected("a complete Parquet file")
        .fix("the table is truncated or corrupt: fetch or write it again")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::images::decode::Orientation;
    use crate::images::set::ImageSet;
    use arrow_array::{BinaryArray, Int32Array, StringArray, StructArray};
    use arrow_schema::Field;
    use parquet::arrow::ArrowWriter;

    fn bytes_of(images: &[Option<&[u8]>]) -> ArrayRef {
        Arc::new(BinaryArray::from_iter(images.iter().copied()))
    }

    fn structures(images: &[Option<&[u8]>], paths: &[Option<&str>]) -> ArrayRef {
        let paths: ArrayRef = Arc::new(StringArray::from(paths.to_vec()));
        Arc::new(StructArray::from(vec![
            (Arc::new(Field::new("bytes", DataType::Binary, true)), bytes_of(images)),
            (Arc::new(Field::new("path", DataType::Utf8, true)), paths),
        ]))
    }

    fn numbers(values: &[Option<i32>]) -> ArrayRef {
        Arc::new(Int32Array::from(values.to_vec()))
    }

    fn write(path: &Path, columns: Vec<(&str, ArrayRef)>) {
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
                .unwrap();
        let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn find(path: &Path, column: &str) -> Result<ImageSet> {
        ImageSet::find(&[format!("{}{column}", path.display())])
    }

    fn all(set: &ImageSet) -> Vec<(String, Option<i64>, Vec<u8>)> {
        let entries = set.entries().map(Result::unwrap);
        entries
            .map(|entry| match entry.image {
                Encoded::Bytes(bytes) => (entry.id, entry.label, bytes),
                Encoded::File(_) => panic!("bytes"),
            })
            .collect()
    }

    #[test]
    fn structures_give_ids_and_plain_columns_row_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let images = [Some(&b"A"[..]), Some(b"B"), Some(b"C")];
        let labels = numbers(&[Some(5), Some(0), Some(7)]);
        write(
            &path,
            vec![("img", structures(&images, &[Some("a.png"), Some("b.png"), Some("c.png")])), ("fine_label", labels)],
        );
        let set = find(&path, "").unwrap();
        assert_eq!((set.len_hint(), set.labelled(), set.classes().len()), (Some(3), true, 0));
        let entries = all(&set);
        assert_eq!(entries[2], ("c.png".to_owned(), Some(7), b"C".to_vec()));
        write(&path, vec![("image", bytes_of(&images)), ("x", numbers(&[Some(1), None, Some(2)]))]);
        let entries = all(&find(&path, "#image").unwrap());
        assert_eq!(entries[1], (format!("{}:1", path.display()), None, b"B".to_vec()));
    }

    #[test]
    fn paths_that_do_not_tell_images_apart_are_no_ids() {
        let folder = tempfile::tempdir().unwrap();
        let images = [Some(&b"A"[..]), Some(b"B")];
        for (name, paths) in [("0", [Some("a"), Some("a")]), ("1", [Some("a"), None]), ("2", [Some("a"), Some("")])] {
            let path = folder.path().join(format!("{name}.parquet"));
            write(&path, vec![("image", structures(&images, &paths))]);
            assert_eq!(all(&find(&path, "").unwrap())[0].0, format!("{}:0", path.display()));
        }
        for name in ["3", "4"] {
            let path = folder.path().join(format!("{name}.parquet"));
            write(&path, vec![("image", structures(&images, &[Some("a"), Some("b")]))]);
        }
        // The first of two tables that use the same paths has them.
        let pattern = format!("{}/[34].parquet", folder.path().display());
        let entries = all(&ImageSet::find(&[pattern]).unwrap());
        assert_eq!((entries[0].0.as_str(), entries[3].0.ends_with("4.parquet:1")), ("a", true));
    }

    #[test]
    fn an_image_that_is_null_is_a_broken_image() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        write(&path, vec![("image", bytes_of(&[Some(b"A"), None]))]);
        let set = find(&path, "").unwrap();
        let second = set.entries().nth(1).unwrap().unwrap();
        let error = second.decode(Orientation::Stored).unwrap_err();
        assert!(error.to_string().contains("t.parquet:1") && error.kind() == ErrorKind::Missing, "{error}");
    }

    #[test]
    fn the_column_is_named_or_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let images = || bytes_of(&[Some(b"A")]);
        let label = || numbers(&[Some(1)]);
        write(&path, vec![("jpg", images()), ("label", label())]);
        assert!(find(&path, "").unwrap().labelled());
        assert_eq!(find(&path, "#png").unwrap_err().kind(), ErrorKind::Missing);
        assert_eq!(find(&path, "#label").unwrap_err().kind(), ErrorKind::Missing);
        write(&path, vec![("left", images()), ("right", images())]);
        let error = find(&path, "").unwrap_err();
        assert!(error.kind() == ErrorKind::Ambiguous && error.to_string().contains("`left`, `right`"), "{error}");
        assert!(find(&path, "#right").is_ok());
        write(&path, vec![("hash", images()), ("photo", structures(&[Some(b"A")], &[Some("a")]))]);
        assert_eq!(all(&find(&path, "").unwrap())[0].0, "a");
        write(&path, vec![("label", label())]);
        assert_eq!(find(&path, "").unwrap_err().kind(), ErrorKind::Missing);
        write(&path, vec![("image", bytes_of(&[]))]);
        assert_eq!(find(&path, "").unwrap_err().kind(), ErrorKind::Empty);
    }

    #[test]
    fn a_test_set_of_class_minus_one_has_no_labels() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let images = || bytes_of(&[Some(b"A"), Some(b"B")]);
        write(&path, vec![("image", images()), ("label", numbers(&[Some(-1), Some(-1)]))]);
        assert!(!find(&path, "").unwrap().labelled());
        write(&path, vec![("image", images()), ("label", numbers(&[Some(3), Some(-1)]))]);
        let error = find(&path, "").unwrap().entries().find_map(Result::err).unwrap();
        assert!(error.to_string().contains("no label"), "{error}");
    }

    #[test]
    fn a_label_that_is_missing_is_an_error_that_names_its_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        write(&path, vec![("image", bytes_of(&[Some(b"A"), Some(b"B")])), ("label", numbers(&[Some(1), None]))]);
        let set = find(&path, "").unwrap();
        let error = set.entries().find_map(Result::err).unwrap();
        assert!(error.to_string().contains("t.parquet:1") && error.to_string().contains("no label"), "{error}");
    }

    /// Some hundred images, in several batches.
    fn large(path: &Path) {
        let images: Vec<Vec<u8>> = (0..200_usize).map(|index| vec![index as u8; 100 + 7 * index]).collect();
        let images: Vec<Option<&[u8]>> = images.iter().map(|image| Some(&image[..])).collect();
        let names: Vec<String> = (0..200).map(|index| format!("{index}.png")).collect();
        let names: Vec<Option<&str>> = names.iter().map(|name| Some(name.as_str())).collect();
        let labels: Vec<Option<i32>> = (0..200).map(Some).collect();
        write(path, vec![("image", structures(&images, &names)), ("label", numbers(&labels))]);
    }

    #[test]
    fn batches_follow_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        large(&path);
        let entries = all(&find(&path, "").unwrap());
        assert_eq!(entries.len(), 200);
        for (index, (id, label, bytes)) in entries.iter().enumerate() {
            assert_eq!((id, *label, bytes.len()), (&format!("{index}.png"), Some(index as i64), 100 + 7 * index));
        }
    }

    #[test]
    fn damage_is_an_error_that_names_the_table() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        large(&path);
        let whole = std::fs::read(&path).unwrap();
        let outcome = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let set = find(&path, "")?;
            let entries: Result<Vec<Entry>> = set.entries().collect();
            entries.map(|entries| entries.len())
        };
        for length in (0..whole.len()).step_by(whole.len() / 50).chain([whole.len() - 1]) {
            let error = outcome(&whole[..length]).unwrap_err();
            assert!(error.to_string().contains("t.parquet"), "{length} bytes: {error}");
        }
        // Compressed, as Python writes it.
        let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/table.parquet");
        let packed = std::fs::read(packed).unwrap();
        assert_eq!(outcome(&packed).unwrap(), 3);
        for place in 0..packed.len() {
            let mut bytes = packed.clone();
            bytes[place] ^= 0x41;
            if let Err(error) = outcome(&bytes) {
                // A flipped level can make a label null.
                let told = ["t.parquet", "no label"].iter().any(|told| error.to_string().contains(told));
                assert!(told, "{place}: {error}");
            }
        }
        for step in 0..400 {
            // The description of the columns is at the end.
            let place = if step % 2 == 0 { step * whole.len() / 400 } else { whole.len() - 1 - 3 * step };
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (step % 8);
            if let Err(error) = outcome(&bytes) {
                assert!(error.to_string().contains("t.parquet"), "{place}: {error}");
            }
        }
    }
}
