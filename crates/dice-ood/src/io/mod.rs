//! Files of features, labels, heads, statistics and scores.
//!
//! Two families. *Tensor files* (npy, npz, safetensors, PyTorch) hold named arrays; *tables* (CSV, Parquet, Arrow IPC)
//! hold columns. Both end as a [`FeatureSource`], read block by block. Headers are claims: nothing is allocated
//! because a header says so, only because the bytes are there.
//!
//! A file may be written `path#name` to choose one of its tensors or columns.

mod budget;
#[cfg(feature = "columns")]
mod columns;
mod csv;
pub mod files;
mod format;
mod guard;
mod heads;
mod npy;
mod npz;
mod output;
#[cfg(feature = "columns")]
mod parquet;
mod safetensors;
mod state;
mod table;
mod tensor;
#[cfg(feature = "torch")]
mod torch;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array1;

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, Ids, Layout, Note};
use crate::statistics::Statistics;

#[cfg(feature = "columns")]
pub use self::parquet::{PageSizes, ParquetBatches, ParquetFile, Reading};
pub use budget::{Budget, MOST_UNITS, Share};
pub use files::AtomicFile;
use files::{Temporary, check_input, open};
pub use format::Format;
pub use guard::guard;
pub use heads::{Chosen, FoundHead, find_head, read_head};
pub use output::{FeaturesWriter, ScoreRow, ScoreWriter};
pub(crate) use safetensors::Header as SafetensorsHeader;
pub(crate) use state::write_state;
pub use table::Columns;
use table::Request;
pub use tensor::{DType, TensorInfo, f32_of_f16};
use tensor::{Rows, TensorFile};

/// Names under which features are found without being told, in order of preference.
pub const FEATURE_NAMES: [&str; 7] = ["features", "feature", "penultimate", "embeddings", "embedding", "feats", "h"];
/// Names under which labels are found.
pub const LABEL_NAMES: [&str; 6] = ["labels", "label", "targets", "target", "y", "class"];
/// Names under which ids of inputs are found, in order of preference; so is what ends in `_id`, `_uuid`, `_key`, `_path` or
/// `_name`, and last the index of a table: `index`, `idx`, `row`, or the nameless first column that pandas writes.
pub const ID_NAMES: [&str; 16] = [
    "id",
    "ids",
    "uuid",
    "guid",
    "uid",
    "path",
    "filepath",
    "file",
    "filename",
    "name",
    "image_id",
    "sample_id",
    "user_id",
    "key",
    "image",
    "sample",
];
/// What tables call the numbers of their rows: ids where there are no others.
const INDEX_NAMES: [&str; 8] = ["index", "idx", "row", "rowid", "", "unnamed: 0", "__index_level_0__", "level_0"];
/// Where tensor files keep the names of inputs: UTF-8, one a line.
const IDS: &str = "ids";
/// Names under which scores are found.
pub const SCORE_NAMES: [&str; 4] = ["score", "scores", "ood_score", "confidence"];

/// A file, and which of its tensors or columns is meant: `path` or `path#name`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// The tensor or column, where one was named.
    pub name: Option<String>,
}

impl Location {
    /// Parses `path` or `path#name`; a `#` that belongs to an existing file's name stays in the path.
    pub fn parse(text: &str) -> Self {
        match text.rsplit_once('#') {
            Some((path, name)) if !path.is_empty() && !name.is_empty() && !Path::new(text).exists() => {
                Self { path: path.into(), name: Some(name.into()) }
            }
            _ => Self { path: text.into(), name: None },
        }
    }

    fn is_stdin(&self) -> bool {
        self.path == Path::new("-")
    }

    /// Whether this can be read only once, from front to end: standard input, a pipe, a device.
    fn is_stream(&self) -> bool {
        self.is_stdin() || std::fs::metadata(&self.path).is_ok_and(|file| !file.is_file() && !file.is_dir())
    }

    fn open_stream(&self) -> Result<Box<dyn Read + Send>> {
        check_input(&self.path)?;
        Ok(if self.is_stdin() { Box::new(io::stdin()) } else { Box::new(open(&self.path)?) })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_stdin() { f.write_str("standard input") } else { self.path.display().fmt(f) }
    }
}

/// The files that make one data set: paths, globs and directories, expanded; each with an optional `#name`.
///
/// A directory stands for all files in it that have a known extension, sorted by name.
///
/// # Errors
/// [`ErrorKind::Missing`] where a glob or directory holds nothing to read.
pub fn expand(inputs: &[String]) -> Result<Vec<Location>> {
    let mut files = Vec::new();
    for input in inputs {
        let location = Location::parse(input);
        let before = files.len();
        let pattern = location.path.to_string_lossy().into_owned();
        if location.path.is_dir() {
            let entries = std::fs::read_dir(&location.path).map_err(|error| Error::io(&location.path, error))?;
            for entry in entries {
                let path = entry.map_err(|error| Error::io(&location.path, error))?.path();
                if path.is_file() && Format::of_extension(&path).is_some() {
                    files.push(Location { path, name: location.name.clone() });
                }
            }
            files[before..].sort_by(|a, b| a.path.cmp(&b.path));
        } else if pattern.contains(['*', '?', '[']) && !location.path.exists() {
            let paths = glob::glob(&pattern).map_err(|error| {
                Error::new(ErrorKind::Argument, error.to_string()).file(&pattern).expected("a file or a glob pattern")
            })?;
            for path in paths {
                let path = path.map_err(|error| Error::io(input, error.into()))?;
                if path.is_file() {
                    files.push(Location { path, name: location.name.clone() });
                }
            }
        } else {
            files.push(location);
            continue;
        }
        if files.len() == before {
            return Err(Error::new(ErrorKind::Missing, "no such file")
                .file(input)
                .expected("files ending in .npy, .npz, .safetensors, .csv, .parquet or .arrow"));
        }
    }
    Ok(files)
}

/// Where features are read from, and what goes with them. Can be opened again and again, but for standard input and
/// pipes: see [`Dataset::rereadable`].
#[derive(Debug, Clone)]
pub struct Dataset {
    files: Vec<Location>,
    /// What the files are called in messages: a copy of standard input keeps its name.
    shown: Vec<Arc<str>>,
    labels: Option<(String, Arc<Vec<i64>>)>,
    /// Whether labels beside the features are read.
    wants_labels: bool,
    /// Whether names of the inputs are read.
    wants_ids: bool,
    columns: Arc<Columns>,
    /// Names of the units, in order; empty where they are not known.
    units: Arc<[String]>,
    /// Number of units, where it is known.
    width: Option<usize>,
    /// Streams, copied to temporary files where they have to be read more than once.
    spooled: Vec<Arc<Temporary>>,
}

impl Dataset {
    /// The data set of `inputs`: paths, globs, directories, `-`; each with an optional `#name`.
    ///
    /// # Errors
    /// As [`expand`].
    pub fn new(inputs: &[String]) -> Result<Self> {
        let files = expand(inputs)?;
        if files.is_empty() {
            return Err(Error::new(ErrorKind::Missing, "no feature files"));
        }
        if files.iter().filter(|file| file.is_stdin()).count() > 1 {
            return Err(Error::new(ErrorKind::Argument, "`-` twice").expected("standard input once"));
        }
        files.iter().try_for_each(|file| check_input(&file.path))?;
        let shown = files.iter().map(|file| file.to_string().into()).collect();
        Ok(Self {
            files,
            shown,
            labels: None,
            wants_labels: true,
            wants_ids: true,
            columns: Arc::default(),
            units: Arc::default(),
            width: None,
            spooled: Vec::new(),
        })
    }

    /// Takes the labels `[N]` from a file of their own.
    ///
    /// # Errors
    /// Those of reading, and [`ErrorKind::Malformed`] for labels that are not whole numbers.
    pub fn with_labels(mut self, file: &str) -> Result<Self> {
        self.labels = Some((file.to_owned(), Arc::new(read_labels(&Location::parse(file))?)));
        Ok(self)
    }

    /// Leaves labels beside the features unread: whatever they are, they do not matter.
    pub fn without_labels(mut self) -> Self {
        self.wants_labels = false;
        self
    }

    /// Leaves the names of the inputs unread, whatever they are.
    pub fn without_ids(mut self) -> Self {
        self.wants_ids = false;
        self
    }

    /// Reads the names of the inputs, as is the rule.
    pub fn with_ids(mut self) -> Self {
        self.wants_ids = true;
        self
    }

    /// Takes columns of tables for what `columns` says.
    pub fn with_columns(mut self, columns: &Columns) -> Self {
        self.columns = Arc::new(columns.clone());
        self
    }

    /// Expects features of `width` units. Where `names` has the columns that a fit took them from (see [`Layout::units`]),
    /// tables are put into that order, and one of other columns is refused; without names, columns are taken in the order
    /// of the table.
    pub fn with_units(mut self, width: usize, names: &[String]) -> Self {
        self.width = Some(width);
        self.units = names.into();
        self
    }

    /// Copies standard input and pipes to temporary files, so that the data can be read more than once.
    ///
    /// # Errors
    /// Those of reading and of writing the copy.
    pub fn rereadable(mut self) -> Result<Self> {
        for stream in self.files.iter_mut().filter(|file| file.is_stream()) {
            let (_, spooled) = spool(&mut stream.open_stream()?)?;
            stream.path = spooled.path().to_path_buf();
            self.spooled.push(Arc::new(spooled));
        }
        Ok(self)
    }

    /// Calls the data `name` in messages, as for a temporary copy of it.
    pub fn called(mut self, name: &str) -> Self {
        self.shown = vec![name.into(); self.files.len()];
        self
    }

    /// What the files are called in messages.
    pub fn names(&self) -> &[Arc<str>] {
        &self.shown
    }

    /// The files, expanded.
    pub fn files(&self) -> &[Location] {
        &self.files
    }

    /// Opens the data set at its first row.
    ///
    /// # Errors
    /// Those of the first file: missing, malformed, without features, ambiguous.
    pub fn open(&self) -> Result<Box<dyn FeatureSource>> {
        let mut source = Chain {
            data: self.clone(),
            layout: Layout::default(),
            units: 0,
            current: None,
            next: 0,
            row: 0,
            ids: None,
        };
        source.advance()?;
        Ok(Box::new(source))
    }
}

/// Files one after the other, with labels from a separate file where given.
struct Chain {
    data: Dataset,
    /// That of the first file, which the others follow.
    layout: Layout,
    units: usize,
    current: Option<Current>,
    next: usize,
    /// Rows read so far over all files.
    row: usize,
    /// What the ids of the first file are.
    ids: Option<&'static str>,
}

/// The file that is being read.
struct Current {
    source: Box<dyn FeatureSource>,
    shown: Arc<str>,
    /// Rows that the file says it has.
    claimed: Option<u64>,
    read: u64,
}

impl Chain {
    /// Opens the next file, if there is one.
    fn advance(&mut self) -> Result<()> {
        self.current = None;
        let Some((file, shown)) = self.data.files.get(self.next).zip(self.data.shown.get(self.next)) else {
            return Ok(());
        };
        let first = self.next == 0;
        let request = Request {
            columns: &self.data.columns,
            name: file.name.as_deref(),
            units: if first { &self.data.units } else { &self.layout.units },
            width: if first { self.data.width } else { Some(self.units) },
            labels: self.data.wants_labels,
            ids: self.data.wants_ids,
        };
        let source = open_features(file, &request).map_err(|error| error.renamed(shown))?;
        budget::check_units(source.units()).map_err(|error| error.file(shown))?;
        let layout = source.layout();
        if let Some(width) = request.width.filter(|width| *width != source.units()) {
            return Err(wrong_width(source.units(), width, &layout).file(shown));
        }
        if !first && layout.units.is_empty() != self.layout.units.is_empty() {
            return Err(Error::new(ErrorKind::Columns, "features whose order nothing tells")
                .file(shown)
                .tensor("features")
                .expected("columns with names in all files, or in none"));
        }
        if !first && self.data.wants_ids && layout.ids.is_some() != self.layout.ids.is_some() {
            return Err(Error::new(ErrorKind::Missing, named_or_not(&layout))
                .file(shown)
                .tensor("ids")
                .expected(format!("{}, as in {}", named_or_not(&self.layout), self.data.shown[0])));
        }
        self.units = source.units();
        if first {
            self.layout = layout;
        }
        self.current = Some(Current { claimed: source.rows(), source, shown: Arc::clone(shown), read: 0 });
        self.next += 1;
        Ok(())
    }

    /// Takes note of the labels and ids of the rows just read.
    fn account(&mut self, block: &mut Block) -> Result<()> {
        let end = self.row + block.rows();
        if let Some((_, labels)) = &self.data.labels {
            let Some(labels) = labels.get(self.row..end) else {
                return Err(self.label_count(format!("at least {end}")));
            };
            block.labels = Some(labels.to_vec());
        }
        if let Some(ids) = &block.ids {
            let first = *self.ids.get_or_insert(ids.kind());
            if first != ids.kind() {
                return Err(Error::new(ErrorKind::Malformed, ids.kind())
                    .file(&block.origin)
                    .tensor("ids")
                    .expected(format!("{first}, as in {}", self.data.shown[0]))
                    .fix("score the files one by one, or give their ids one type"));
            }
        }
        self.row = end;
        Ok(())
    }

    fn label_count(&self, found: String) -> Error {
        let (file, labels) = self.data.labels.as_ref().map_or(("", 0), |(file, labels)| (file, labels.len()));
        Error::new(ErrorKind::Shape, format!("{labels} labels"))
            .file(file)
            .tensor("labels")
            .expected(format!("one for each row of features, {found}"))
    }
}

impl Current {
    /// What is read of a file is what the file says it holds.
    fn check_end(&self) -> Result<()> {
        match self.claimed {
            Some(claimed) if claimed != self.read => {
                Err(Error::new(ErrorKind::Malformed, format!("{} rows", self.read))
                    .file(&self.shown)
                    .expected(format!("{claimed} rows, as the file says"))
                    .fix("the file is truncated or corrupt: write it again"))
            }
            _ => Ok(()),
        }
    }
}

fn named_or_not(layout: &Layout) -> String {
    layout.ids.as_ref().map_or("no ids".into(), |ids| format!("ids (`{ids}`)"))
}

fn wrong_width(found: usize, expected: usize, layout: &Layout) -> Error {
    layout.one_too_many(found, expected).unwrap_or_else(|| {
        Error::new(ErrorKind::Shape, format!("[N, {found}]"))
            .tensor("features")
            .expected(format!("[N, {expected}]"))
            .fix("are these the inputs of that very layer?")
    })
}

impl FeatureSource for Chain {
    fn units(&self) -> usize {
        self.units
    }

    fn rows(&self) -> Option<u64> {
        match (&self.current, self.data.files.len()) {
            (Some(current), 1) => current.source.rows(),
            _ => None,
        }
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        while let Some(current) = &mut self.current {
            current.source.read(block, max_rows).map_err(|error| error.renamed(&*current.shown))?;
            if block.rows() == 0 {
                current.check_end()?;
                self.advance()?;
                continue;
            }
            current.read += block.rows() as u64;
            block.origin = Arc::clone(&current.shown);
            return self.account(block);
        }
        if self.data.labels.as_ref().is_some_and(|(_, labels)| labels.len() != self.row) {
            return Err(self.label_count(self.row.to_string()));
        }
        block.restart(self.units, 0);
        Ok(())
    }
}

fn open_features(file: &Location, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
    if file.is_stream() {
        return open_stream(file, request);
    }
    match Format::of_file(&file.path)? {
        Format::Csv => csv::open(&file.path, request),
        #[cfg(feature = "columns")]
        format @ (Format::Parquet | Format::ArrowIpc) => columns::open(&file.path, format, request),
        format => TensorSource::open(open_tensors(&file.path, format)?, request),
    }
}

/// npy and CSV are read as they come; other formats need their end first and are copied to a temporary file.
fn open_stream(file: &Location, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
    let mut input = file.open_stream()?;
    let start = peek(&mut input, format::START)?;
    let format = Format::of_stream(&start)?;
    let mut input: Box<dyn Read + Send> = Box::new(Cursor::new(start).chain(input));
    match format {
        Some(Format::Csv) => csv::from_reader(input, request),
        Some(_) => {
            let input = BufReader::with_capacity(tensor::BUFFER, input);
            let (rows, note) = npy::stream(input)?.of_features(request.width)?;
            let layout = Layout { notes: note.into_iter().collect(), ..Layout::default() };
            Ok(Box::new(TensorSource { rows, layout, labels: None, ids: None, next: 0 }))
        }
        None => {
            let (_, spooled) = spool(&mut input)?;
            let location = Location { path: spooled.path().to_path_buf(), name: file.name.clone() };
            let source = open_features(&location, request).map_err(|error| error.renamed(file))?;
            Ok(Box::new(Spooled { source, _file: spooled }))
        }
    }
}

/// The first bytes of a stream, at most `count`; a pipe may hand them out one by one.
fn peek(input: &mut dyn Read, count: u64) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    input.take(count).read_to_end(&mut start).map_err(|error| Error::new(ErrorKind::Io, error.to_string()))?;
    Ok(start)
}

/// Keeps the temporary copy alive while it is read.
struct Spooled {
    source: Box<dyn FeatureSource>,
    _file: Temporary,
}

impl FeatureSource for Spooled {
    fn units(&self) -> usize {
        self.source.units()
    }
    fn rows(&self) -> Option<u64> {
        self.source.rows()
    }
    fn layout(&self) -> Layout {
        self.source.layout()
    }
    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        self.source.read(block, max_rows)
    }
}

fn spool(input: &mut dyn Read) -> Result<(File, Temporary)> {
    let copying = |error: io::Error| {
        tensor::corrupt(&error)
            .unwrap_or_else(|| Error::new(ErrorKind::Io, format!("a temporary copy of it cannot be made: {error}")))
    };
    let (mut file, copy) = Temporary::file().map_err(copying)?;
    io::copy(input, &mut file).map_err(copying)?;
    file.rewind().map_err(copying)?;
    Ok((file, copy))
}

fn open_tensors(path: &Path, format: Format) -> Result<Box<dyn TensorFile>> {
    let opened = match format {
        Format::Npy => npy::open(path),
        Format::Npz => npz::open(path),
        Format::Safetensors => safetensors::open(path),
        #[cfg(feature = "torch")]
        Format::Torch => torch::open(path),
        other => Err(not_here(other)),
    };
    opened.map_err(|error| error.file(path.display()))
}

fn not_here(format: Format) -> Error {
    let feature = match format {
        Format::Parquet | Format::ArrowIpc if cfg!(not(feature = "columns")) => Some("columns"),
        Format::Torch if cfg!(not(feature = "torch")) => Some("torch"),
        _ => None,
    };
    let error = Error::new(ErrorKind::Unsupported, format!("a {format} file"));
    match feature {
        Some(feature) => error.fix(format!("build dice-ood with the feature `{feature}`")),
        None => error.expected("a file of named tensors: npy, npz, safetensors or a PyTorch checkpoint"),
    }
}

/// Features of a tensor file, with the labels and the names of the inputs beside them where there are any.
struct TensorSource {
    rows: Rows,
    layout: Layout,
    labels: Option<Vec<i64>>,
    ids: Option<TensorIds>,
    next: usize,
}

/// Names of inputs in a tensor: text, one a line, or numbers.
enum TensorIds {
    Lines(Lines),
    Numbers(Ids),
}

impl TensorIds {
    /// The names of `count` rows from `first` on, which are read in order; fewer where they are long.
    fn read(&mut self, first: usize, count: usize) -> Result<Ids> {
        let rows = first..first + count;
        match self {
            Self::Lines(lines) => lines.read(count).map(Ids::Text),
            Self::Numbers(Ids::Integer(all)) => Ok(Ids::Integer(all[rows].to_vec())),
            Self::Numbers(Ids::Unsigned(all)) => Ok(Ids::Unsigned(all[rows].to_vec())),
            Self::Numbers(Ids::Text(all)) => Ok(Ids::Text(all[rows].to_vec())),
        }
    }
}

/// Names of inputs, one a line.
struct Lines(BufReader<Box<dyn Read + Send>>);

impl Lines {
    /// The next `count` lines, or fewer where they are long.
    fn read(&mut self, count: usize) -> Result<Vec<String>> {
        const LONGEST: u64 = budget::LONGEST_ID as u64 + 1;
        let wrong = |found: &str| {
            Error::new(ErrorKind::Malformed, found).tensor(IDS).expected("a name of each row, one a line, in UTF-8")
        };
        let (mut lines, mut held) = (Vec::new(), 0);
        while lines.len() < count && held < budget::BLOCK_IDS {
            let mut line = String::new();
            self.0.by_ref().take(LONGEST).read_line(&mut line).map_err(|error| wrong(&error.to_string()))?;
            match line.strip_suffix('\n') {
                Some(name) => {
                    held += name.len();
                    lines.push(name.to_owned());
                }
                None => {
                    return Err(wrong(if line.is_empty() { "fewer lines than rows" } else { "a line without end" }));
                }
            }
        }
        Ok(lines)
    }
}

impl TensorSource {
    fn open(file: Box<dyn TensorFile>, request: &Request<'_>) -> Result<Box<dyn FeatureSource>> {
        let tensors = file.tensors();
        let features = choose(tensors, request.name, &FEATURE_NAMES, "features", |tensor| {
            tensor.dtype.is_float() && tensor.matrix().is_some() && !tensor.name.ends_with("weight")
        })?;
        let (rows, note) = file
            .open(features)
            .and_then(|rows| rows.of_features(request.width))
            .map_err(|error| error.tensor(&features.name))?;
        let mut layout = Layout { notes: note.into_iter().collect(), ..Layout::default() };
        // Labels found beside the features are used; another number of them than rows is refused.
        let labels = tensors
            .iter()
            .filter(|tensor| request.labels && tensor.dtype.is_integer() && tensor.shape.len() == 1)
            .find(|tensor| LABEL_NAMES.iter().any(|name| tensor.name == *name));
        let labels = match labels {
            None => None,
            Some(tensor) => {
                one_a_row(tensor, &rows, features)?;
                Some(file.open(tensor)?.all_i64().map_err(|error| error.tensor(&tensor.name))?)
            }
        };
        let ids = match ids_among(tensors).filter(|_| request.ids) {
            Some(tensor) if tensor.dtype == DType::Other => {
                layout.notes.push(Note::UnreadIds(tensor.name.clone()));
                None
            }
            Some(tensor) => {
                layout.ids = Some(tensor.name.clone());
                read_ids(&*file, tensor, &rows, features)?
            }
            None => None,
        };
        Ok(Box::new(Self { rows, layout, labels, ids, next: 0 }))
    }
}

/// The tensor that names the inputs: text as `ids`, or whole numbers under a name of ids.
fn ids_among(tensors: &[TensorInfo]) -> Option<&TensorInfo> {
    let fits = |tensor: &&TensorInfo| match tensor.dtype {
        DType::U8 => tensor.name == IDS && tensor.is_vector(),
        DType::Other => tensor.shape.len() == 1,
        dtype => dtype.is_integer() && tensor.shape.len() == 1,
    };
    let named = |name: &&str| tensors.iter().filter(fits).find(|tensor| tensor.name.eq_ignore_ascii_case(name));
    [IDS].iter().chain(&ID_NAMES).find_map(named)
}

fn read_ids(file: &dyn TensorFile, tensor: &TensorInfo, rows: &Rows, of: &TensorInfo) -> Result<Option<TensorIds>> {
    let mut opened = file.open(tensor)?;
    if tensor.dtype == DType::U8 {
        return Ok(opened.into_bytes().map(|bytes| TensorIds::Lines(Lines(BufReader::new(bytes)))));
    }
    one_a_row(tensor, rows, of)?;
    let ids = match tensor.dtype {
        DType::U64 => opened.all_u64().map(Ids::Unsigned),
        _ => opened.all_i64().map(Ids::Integer),
    };
    ids.map(|ids| Some(TensorIds::Numbers(ids))).map_err(|error| error.tensor(&tensor.name))
}

/// Refuses a tensor beside the features that has not one value a row.
fn one_a_row(tensor: &TensorInfo, rows: &Rows, features: &TensorInfo) -> Result<()> {
    if tensor.shape[0] == rows.rows() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Shape, tensor.to_string()).tensor(&tensor.name).expected(format!(
        "[{}], one for each row of `{}`",
        rows.rows(),
        features.name
    )))
}

impl FeatureSource for TensorSource {
    fn units(&self) -> usize {
        self.rows.units()
    }

    fn rows(&self) -> Option<u64> {
        Some(self.rows.rows() as u64)
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        block.restart(self.rows.units(), self.next as u64);
        let wanted = max_rows.min(self.rows.rows() - self.next);
        block.ids = self.ids.as_mut().map(|ids| ids.read(self.next, wanted)).transpose()?;
        let wanted = block.ids.as_ref().map_or(wanted, Ids::len);
        let read = self.rows.read(wanted, &mut block.features)?;
        block.labels = self.labels.as_ref().map(|labels| labels[self.next..self.next + read].to_vec());
        self.next += read;
        Ok(())
    }
}

/// The tensor that `name` names, or else the first of `defaults` that fits, or else the only one that fits.
fn choose<'a>(
    tensors: &'a [TensorInfo],
    name: Option<&str>,
    defaults: &[&str],
    what: &str,
    fits: impl Fn(&TensorInfo) -> bool,
) -> Result<&'a TensorInfo> {
    if let Some(name) = name {
        return tensors.iter().find(|tensor| tensor.name == name).ok_or_else(|| {
            Error::new(ErrorKind::Missing, listed(tensors)).tensor(name).expected("a tensor of that name")
        });
    }
    // An npy file has nothing to choose from; its own error says what is wrong with it.
    if let [only] = tensors
        && only.name.is_empty()
    {
        return Ok(only);
    }
    if let Some(tensor) = defaults.iter().find_map(|name| tensors.iter().find(|tensor| tensor.name == *name)) {
        return Ok(tensor);
    }
    let fitting: Vec<&TensorInfo> = tensors.iter().filter(|tensor| fits(tensor)).collect();
    match fitting[..] {
        [only] => Ok(only),
        [] => Err(Error::new(ErrorKind::Missing, listed(tensors))
            .tensor(what)
            .expected(format!("a tensor named {}", defaults.join(", ")))
            .fix("name one: FILE#TENSOR")),
        _ => Err(Error::new(ErrorKind::Ambiguous, listed(tensors))
            .tensor(what)
            .expected(format!("one tensor that can be {what}"))
            .fix("name one: FILE#TENSOR")),
    }
}

/// Tensors with their shapes, for messages; the first ten.
fn listed(tensors: &[TensorInfo]) -> String {
    if tensors.is_empty() {
        return "no tensors".into();
    }
    let shown: Vec<String> = tensors
        .iter()
        .take(10)
        .map(|tensor| if tensor.name.is_empty() { tensor.to_string() } else { format!("`{}` {tensor}", tensor.name) })
        .collect();
    let more = tensors.len().saturating_sub(10);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

/// The notes (`__metadata__`) of a safetensors file, such as those of [`FeaturesWriter`]; none for a file of another format.
///
/// # Errors
/// Those of opening the file.
pub fn read_metadata(file: &Location) -> Result<BTreeMap<String, String>> {
    if file.is_stream() || Format::of_file(&file.path)? != Format::Safetensors {
        return Ok(BTreeMap::new());
    }
    Ok(SafetensorsHeader::read(&file.path)?.metadata().clone().into_iter().collect())
}

/// The tensors of a tensor file, for `dice inspect`; none for a table.
///
/// # Errors
/// Those of opening the file.
pub fn list(path: &Path) -> Result<(Format, Vec<TensorInfo>)> {
    let format = Format::of_file(path)?;
    let tensors = match format {
        Format::Csv => Vec::new(),
        #[cfg(feature = "columns")]
        Format::Parquet | Format::ArrowIpc => Vec::new(),
        format => open_tensors(path, format)?.tensors().to_vec(),
    };
    Ok((format, tensors))
}

/// Reads a vector `[N]` of numbers: scores, or a statistic. `defaults` name it where the location does not.
///
/// # Errors
/// Those of reading; [`ErrorKind::Shape`] for what is not a vector.
pub fn read_vector(file: &Location, defaults: &[&str]) -> Result<Vec<f64>> {
    let read = || -> Result<Vec<f64>> {
        match Format::of_file(&file.path)? {
            Format::Csv => csv::read_column(&file.path, file.name.as_deref(), defaults),
            #[cfg(feature = "columns")]
            format @ (Format::Parquet | Format::ArrowIpc) => {
                columns::read_column(&file.path, format, file.name.as_deref(), defaults)
            }
            format => {
                let opened = open_tensors(&file.path, format)?;
                let tensor = choose(opened.tensors(), file.name.as_deref(), defaults, "vector", |tensor| {
                    tensor.dtype.is_float() && tensor.is_vector()
                })?;
                if !tensor.is_vector() {
                    return Err(Error::new(ErrorKind::Shape, tensor.to_string())
                        .tensor(&tensor.name)
                        .expected("a vector [N]"));
                }
                opened.open(tensor)?.all_f64().map_err(|error| error.tensor(&tensor.name))
            }
        }
    };
    read().map_err(|error| error.file(file))
}

/// Reads class labels `[N]`.
///
/// # Errors
/// Those of reading; [`ErrorKind::Malformed`] for labels that are not whole numbers.
pub fn read_labels(file: &Location) -> Result<Vec<i64>> {
    let values = read_vector(file, &LABEL_NAMES)?;
    values
        .into_iter()
        .enumerate()
        .map(|(row, value)| whole(value).ok_or_else(|| not_a_label(&value.to_string(), row).file(file)))
        .collect()
}

fn whole(value: f64) -> Option<i64> {
    (value.fract() == 0.0 && value.abs() < 9e15).then_some(value as i64)
}

fn not_a_label(found: &str, row: usize) -> Error {
    Error::new(ErrorKind::Malformed, format!("`{found}` at row {row}"))
        .tensor("labels")
        .expected("class indices: whole numbers from 0")
}

/// Reads statistics: those that [`Statistics::save`] wrote or a detector carries, or a published mean activation as npy,
/// npz or safetensors.
///
/// # Errors
/// Those of reading; [`ErrorKind::Missing`] where the file holds no statistics.
pub fn read_statistics(file: &Location) -> Result<Statistics> {
    if Format::of_file(&file.path)? == Format::Safetensors && file.name.is_none() {
        let loaded = SafetensorsHeader::read(&file.path)?;
        if loaded.has(crate::artifact::STATISTICS_SUM) {
            return crate::artifact::read_statistics(&file.path);
        }
    }
    const NAMES: [&str; 5] = ["mean_activation_f64", "mean_activation", "mean", "feat_stat", "info"];
    let mean = read_vector(file, &NAMES)?;
    Statistics::from_mean_activation(Array1::from(mean)).map_err(|error| error.file(file))
}
