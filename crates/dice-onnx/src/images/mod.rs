//! Where images come from: files, tar shards, columns of Parquet.

#[cfg(feature = "columns")]
mod columns;
mod decode;
pub(crate) mod preprocess;
mod resample;
mod shards;
pub(crate) mod source;

use std::collections::BTreeSet;
#[cfg(feature = "columns")]
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use dice_ood::io::files;
use dice_ood::{Error, ErrorKind, Result};
use image::DynamicImage;

pub(crate) use decode::Decoded;
pub use decode::{decode, decode_bytes};

/// Extensions of the formats we decode.
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "jpe"];

/// Images in a fixed order, in files of their own, in tar shards and in columns of Parquet files.
///
/// Shards and tables are read as they are used, from start to end: of them at most a few images are in memory.
#[derive(Debug, Clone)]
pub struct ImageSet {
    parts: Vec<Part>,
    classes: Vec<String>,
    labelled: bool,
}

#[derive(Debug, Clone)]
enum Part {
    Files {
        paths: Vec<PathBuf>,
        /// For each path the index of its class folder.
        labels: Option<Vec<i64>>,
    },
    Shard {
        path: PathBuf,
        labelled: bool,
    },
    #[cfg(feature = "columns")]
    Table(columns::Table),
}

/// One image of a set, not yet decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path; `shard.tar/key.jpg`; the path that a Parquet table gives it, or `table.parquet:row`.
    pub id: String,
    /// The index of its class, where the set has labels.
    pub label: Option<i64>,
    /// Where its bytes are.
    pub image: Encoded,
}

/// An image as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Encoded {
    /// In a file of its own.
    File(PathBuf),
    /// The bytes of such a file.
    Bytes(Vec<u8>),
}

impl Entry {
    /// The pixels: see [`decode`].
    ///
    /// # Errors
    /// As [`decode`]; [`ErrorKind::Missing`] where a table holds no bytes.
    pub fn decode(&self) -> Result<DynamicImage> {
        self.decode_with(|_| 0).map(|decoded| decoded.image)
    }

    /// The pixels, with room for what is made of an image of a height and width: `besides` says how many bytes.
    pub(crate) fn decode_with(&self, besides: impl Fn([usize; 2]) -> u64) -> Result<Decoded> {
        match &self.image {
            Encoded::File(path) => decode::decode_file(path, besides),
            Encoded::Bytes(bytes) if bytes.is_empty() => Err(Error::new(ErrorKind::Missing, "no bytes")
                .file(&self.id)
                .expected("an image")
                .fix("write the table with its images in it, not beside it")),
            Encoded::Bytes(bytes) => decode::decode_held(bytes, &self.id, besides),
        }
    }

    /// Bytes that it holds in memory.
    pub(crate) fn held(&self) -> usize {
        match &self.image {
            Encoded::File(_) => 0,
            Encoded::Bytes(bytes) => bytes.len(),
        }
    }
}

impl ImageSet {
    /// Finds images. Each input is one of
    ///
    /// - a folder, with all images below it, or where there are none its shards and tables;
    /// - a glob pattern, or a single file;
    /// - a `.txt` list of files, one a line, relative to the list;
    /// - a tar shard (`.tar`, `.tar.gz`, `.tgz`) as WebDataset makes them: files that share a name up to its first dot
    ///   are one sample, its label is in `.cls` or under `label` or `cls` in `.json`;
    /// - a table (`.parquet`) with a column of encoded images, `image` or `img` or the only one, or else
    ///   `FILE.parquet#COLUMN`: binary, or as Hugging Face writes them structures of `bytes` and `path`. Its labels are
    ///   the column `label`, `labels` or `fine_label`. Needs the feature `columns`.
    ///
    /// Where a single folder is given and all of its images are in subfolders, the names of these are classes. A set
    /// is [labelled](ImageSet::labelled) where all of its parts are; of a shard or a table, its first image tells. A label
    /// below zero is none.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; [`ErrorKind::Missing`] for a path that is not there; [`ErrorKind::Empty`] where there is no image;
    /// [`ErrorKind::Malformed`] for a broken shard or table; [`ErrorKind::Missing`] or [`ErrorKind::Ambiguous`] where a table
    /// has no column of images, or several.
    pub fn find(inputs: &[String]) -> Result<Self> {
        let mut places = Vec::new();
        for input in inputs {
            let before = places.len();
            find_places(input, &mut places)?;
            if places.len() == before {
                return Err(none(input));
            }
        }
        places.iter().try_for_each(|place| files::check_input(&place.path))?;
        let mut classes = Vec::new();
        let mut parts: Vec<Part> = Vec::new();
        #[cfg(feature = "columns")]
        let mut names = HashSet::new();
        for Place { path, column } in places {
            match (Kind::of(&path), &mut parts[..]) {
                (Kind::Shard, _) => {
                    let first = shards::first(&path)?.ok_or_else(|| none(path.display()))?;
                    let labelled = is_label(first.label);
                    parts.push(Part::Shard { path, labelled });
                }
                #[cfg(feature = "columns")]
                (Kind::Table, _) => {
                    let table = columns::Table::open(path, column.as_deref(), &mut names)?;
                    parts.push(Part::Table(table));
                }
                #[cfg(not(feature = "columns"))]
                (Kind::Table, _) => {
                    let _ = column;
                    return Err(Error::new(ErrorKind::Unsupported, "a Parquet table")
                        .file(path.display())
                        .fix("build dice-onnx with the feature `columns`"));
                }
                (Kind::Image, [.., Part::Files { paths, .. }]) => paths.push(path),
                (Kind::Image, _) => parts.push(Part::Files { paths: vec![path], labels: None }),
            }
        }
        if let ([root], [Part::Files { paths, labels }]) = (inputs, &mut parts[..]) {
            (classes, *labels) = classes_of(root, paths);
        }
        #[cfg(feature = "columns")]
        if let [Part::Table(first), rest @ ..] = &parts[..]
            && rest.iter().all(|part| matches!(part, Part::Table(table) if table.classes == first.classes))
        {
            classes.clone_from(&first.classes);
        }
        let labelled = parts.iter().all(Part::labelled);
        Ok(Self { parts, classes, labelled })
    }

    /// The set without its labels, for images that some shard or table has none for.
    pub fn unlabelled(self) -> Self {
        Self { labelled: false, classes: Vec::new(), ..self }
    }

    /// Names of the classes that labels are indices of: class folders, sorted, or what Hugging Face wrote into a table;
    /// empty where nothing says them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Whether each image has a label.
    pub fn labelled(&self) -> bool {
        self.labelled
    }

    /// How many images there are, where that is known without reading them: not in shards.
    pub fn len_hint(&self) -> Option<u64> {
        self.parts.iter().map(Part::len_hint).sum()
    }

    /// Every file that is read: images, shards and tables.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().flat_map(Part::files).map(PathBuf::as_path)
    }

    /// The images, in order. After an error there is no more.
    ///
    /// The items' errors: [`ErrorKind::Io`]; [`ErrorKind::Malformed`] for a shard or a table that is truncated or broken;
    /// [`ErrorKind::Missing`] where one of a labelled set has no label.
    pub fn entries(&self) -> Entries<'_> {
        Entries {
            parts: self.parts.iter(),
            current: Box::new(std::iter::empty()),
            labelled: self.labelled,
            over: false,
        }
    }
}

impl Part {
    fn labelled(&self) -> bool {
        match self {
            Self::Files { labels, .. } => labels.is_some(),
            Self::Shard { labelled, .. } => *labelled,
            #[cfg(feature = "columns")]
            Self::Table(table) => table.labelled(),
        }
    }

    fn len_hint(&self) -> Option<u64> {
        match self {
            Self::Files { paths, .. } => Some(paths.len() as u64),
            Self::Shard { .. } => None,
            #[cfg(feature = "columns")]
            Self::Table(table) => Some(table.rows),
        }
    }

    fn files(&self) -> &[PathBuf] {
        match self {
            Self::Files { paths, .. } => paths,
            Self::Shard { path, .. } => std::slice::from_ref(path),
            #[cfg(feature = "columns")]
            Self::Table(table) => std::slice::from_ref(&table.path),
        }
    }

    fn entries(&self) -> Stream<'_> {
        match self {
            Self::Files { paths, labels } => Box::new(paths.iter().enumerate().map(move |(index, path)| {
                let label = labels.as_ref().map(|labels| labels[index]);
                Ok(Entry { id: path.display().to_string(), label, image: Encoded::File(path.clone()) })
            })),
            Self::Shard { path, .. } => opened(shards::Samples::open(path)),
            #[cfg(feature = "columns")]
            Self::Table(table) => opened(table.entries()),
        }
    }
}

type Stream<'a> = Box<dyn Iterator<Item = Result<Entry>> + Send + 'a>;

fn opened<'a>(stream: Result<impl Iterator<Item = Result<Entry>> + Send + 'a>) -> Stream<'a> {
    match stream {
        Ok(stream) => Box::new(stream),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }
}

/// What [`ImageSet::entries`] returns.
pub struct Entries<'a> {
    parts: std::slice::Iter<'a, Part>,
    current: Stream<'a>,
    labelled: bool,
    over: bool,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            match self.current.next() {
                Some(Ok(mut entry)) if !self.labelled || is_label(entry.label) => {
                    entry.label = entry.label.filter(|_| self.labelled);
                    return Some(Ok(entry));
                }
                Some(Ok(entry)) => {
                    self.over = true;
                    return Some(Err(Error::new(ErrorKind::Missing, "no label")
                        .file(entry.id)
                        .expected("a label for each image, as for the first")
                        .fix("label all images, or take such a shard or table on its own")));
                }
                Some(Err(error)) => {
                    self.over = true;
                    return Some(Err(error));
                }
                None => match self.parts.next() {
                    Some(part) => self.current = part.entries(),
                    None => self.over = true,
                },
            }
        }
        None
    }
}

/// Test sets are often said to be of class -1.
fn is_label(label: Option<i64>) -> bool {
    label.is_some_and(|label| label >= 0)
}

/// A file that holds images.
struct Place {
    path: PathBuf,
    column: Option<String>,
}

enum Kind {
    Image,
    Shard,
    Table,
}

impl Kind {
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".tar", ".tar.gz", ".tgz"]) {
            Self::Shard
        } else if ends(&[".parquet", ".pq"]) {
            Self::Table
        } else {
            Self::Image
        }
    }
}

fn none(input: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Empty, "no image")
        .file(input)
        .expected(format!("images ({}), tar shards or Parquet tables of them", EXTENSIONS.join(", ")))
        .fix("name a folder of images, a pattern such as 'photos/*.jpg', or a .txt list of paths")
}

fn find_places(input: &str, places: &mut Vec<Place>) -> Result<()> {
    let whole = |path: PathBuf| Place { path, column: None };
    let path = Path::new(input);
    if path.is_dir() {
        let mut files = Vec::new();
        walk(path, &mut files)?;
        let images = files.iter().any(|path| is_image(path));
        files.retain(|path| if images { is_image(path) } else { !matches!(Kind::of(path), Kind::Image) });
        files.sort();
        places.extend(files.into_iter().map(whole));
    } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt")) {
        let text = files::read_to_string(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        places.extend(lines.map(|line| whole(base.join(line))));
    } else if path.exists() {
        places.push(whole(path.to_path_buf()));
    } else {
        let (pattern, column) = match input.rsplit_once('#') {
            Some((table, column)) if matches!(Kind::of(Path::new(table)), Kind::Table) => (table, Some(column)),
            _ => (input, None),
        };
        if !pattern.contains(['*', '?', '[']) && !Path::new(pattern).exists() {
            return Err(Error::new(ErrorKind::Missing, "no such file or folder").file(input));
        }
        let unmatched = |error: glob::PatternError| {
            Error::new(ErrorKind::Argument, error.to_string()).file(input).expected("a folder, a file or a pattern")
        };
        let found = glob::glob(pattern).map_err(unmatched)?.filter_map(std::result::Result::ok);
        let mut found: Vec<PathBuf> = found.filter(|path| holds_images(path)).collect();
        found.sort();
        places.extend(found.into_iter().map(|path| Place { path, column: column.map(str::to_owned) }));
    }
    Ok(())
}

/// Subfolders as classes, where every image is below one of them.
fn classes_of(root: &str, paths: &[PathBuf]) -> (Vec<String>, Option<Vec<i64>>) {
    let class = |path: &PathBuf| {
        let below = path.strip_prefix(root).ok()?;
        let mut parts = below.components();
        let first = parts.next()?.as_os_str().to_string_lossy().into_owned();
        parts.next().map(|_| first)
    };
    let Some(of_each) = paths.iter().map(class).collect::<Option<Vec<String>>>() else { return (Vec::new(), None) };
    let classes: Vec<String> = of_each.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let labels = of_each.iter().map(|name| classes.binary_search(name).unwrap_or(0) as i64).collect();
    (classes, Some(labels))
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    named_as_image(extension) && path.is_file()
}

fn named_as_image(extension: &str) -> bool {
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}

fn holds_images(path: &Path) -> bool {
    is_image(path) || (!matches!(Kind::of(path), Kind::Image) && path.is_file())
}

/// All files below `folder` that hold images; links to folders are not followed, so that there is an end.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| Error::io(&folder, error))? {
            let entry = entry.map_err(|error| Error::io(&folder, error))?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let kind = entry.file_type().map_err(|error| Error::io(entry.path(), error))?;
            if kind.is_dir() && !hidden {
                pending.push(entry.path());
            } else if !hidden && holds_images(&entry.path()) {
                files.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use image::{GrayImage, Luma};

    fn folder_of(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            GrayImage::from_pixel(2, 2, Luma([7])).save(path).unwrap();
        }
        folder
    }

    fn all(set: &ImageSet) -> Vec<(String, Option<i64>)> {
        set.entries().map(Result::unwrap).map(|entry| (entry.id, entry.label)).collect()
    }

    #[test]
    fn class_folders_are_labels_and_other_files_are_passed_over() {
        let folder = folder_of(&["dog/b.png", "dog/a.png", "cat/deep/c.png"]);
        std::fs::write(folder.path().join("cat/notes.md"), "no image").unwrap();
        std::fs::write(folder.path().join("cat/more.tar"), "no image").unwrap();
        let set = ImageSet::find(&[folder.path().display().to_string()]).unwrap();
        assert_eq!(set.classes(), ["cat", "dog"]);
        assert_eq!((set.len_hint(), set.files().count()), (Some(3), 3));
        let entries = all(&set);
        assert_eq!(entries.iter().map(|entry| entry.1).collect::<Vec<_>>(), [Some(0), Some(1), Some(1)]);
        assert!(entries[1].0.ends_with("dog/a.png"));
        let without = set.unlabelled();
        assert!(!without.labelled() && all(&without).iter().all(|entry| entry.1.is_none()));
    }

    #[test]
    fn flat_folders_patterns_and_lists_have_no_labels() {
        let folder = folder_of(&["b.png", "a.png"]);
        let base = folder.path().display().to_string();
        std::fs::write(folder.path().join("list.txt"), "b.png\n\na.png\n").unwrap();
        for (input, first) in
            [(base.clone(), "a.png"), (format!("{base}/*.png"), "a.png"), (format!("{base}/list.txt"), "b.png")]
        {
            let set = ImageSet::find(&[input]).unwrap();
            let entries = all(&set);
            assert_eq!((entries.len(), entries[0].1, set.labelled()), (2, None, false));
            assert!(entries[0].0.ends_with(first));
        }
        assert!(ImageSet::find(&[format!("{base}/*.gif")]).unwrap_err().to_string().contains("no image"));
    }
}
