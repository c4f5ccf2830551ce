//! Where images come from: files, tar shards, columns of Parquet.

use std::collections::BTreeSet;
#[cfg(feature = "columns")]
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use dice_ood::io::files;
use dice_ood::{Error, ErrorKind, Result};

#[cfg(feature = "columns")]
use crate::images::columns;
use crate::images::entry::{Encoded, Entry, is_label};
use crate::images::places::{FileKind, Place, find_places, none};
use crate::images::shards;

/// Images in a fixed order, in files of their own, in tar shards and in columns of Parquet files.
///
/// Shards and tables are read as they are used, from start to end: of them at most a few images are in memory.
#[derive(Debug, Clone)]
pub struct ImageSet {
    parts: Vec<Part>,
    classes: Vec<String>,
    labelled: bool,
    /// How many images are read, where not all.
    most: Option<usize>,
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
    /// [`ErrorKind::Io`]; [`ErrorKind::Missing`] for a path that does not exist; [`ErrorKind::Empty`] for an input without images;
    /// [`ErrorKind::Malformed`] for a broken shard or table; [`ErrorKind::Missing`] or [`ErrorKind::Ambiguous`] where a table
    /// has no column of images, or several.
    pub fn find(inputs: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self> {
        let inputs: Vec<String> = inputs.into_iter().map(|input| input.as_ref().to_owned()).collect();
        let mut places = Vec::new();
        for input in &inputs {
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
            match (FileKind::of(&path), &mut parts[..]) {
                (FileKind::Shard, _) => {
                    let first = shards::first(&path)?.ok_or_else(|| none(path.display()))?;
                    let labelled = is_label(first.label);
                    parts.push(Part::Shard { path, labelled });
                }
                #[cfg(feature = "columns")]
                (FileKind::Table, _) => {
                    let table = columns::Table::open(path, column.as_deref(), &mut names)?;
                    parts.push(Part::Table(table));
                }
                #[cfg(not(feature = "columns"))]
                (FileKind::Table, _) => {
                    let _ = column;
                    return Err(Error::new(ErrorKind::Unsupported, "a Parquet table")
                        .file(path.display())
                        .fix("build dice-onnx with the feature `columns`"));
                }
                (FileKind::Image, [.., Part::Files { paths, .. }]) => paths.push(path),
                (FileKind::Image, _) => parts.push(Part::Files { paths: vec![path], labels: None }),
            }
        }
        if let ([root], [Part::Files { paths, labels }]) = (&inputs[..], &mut parts[..]) {
            (classes, *labels) = classes_of(root, paths);
        }
        #[cfg(feature = "columns")]
        if let [Part::Table(first), rest @ ..] = &parts[..]
            && rest.iter().all(|part| matches!(part, Part::Table(table) if table.classes == first.classes))
        {
            classes.clone_from(&first.classes);
        }
        let labelled = parts.iter().all(Part::labelled);
        Ok(Self { parts, classes, labelled, most: None })
    }

    /// The set without its labels, for images that some shard or table has none for.
    pub fn unlabelled(self) -> Self {
        Self { labelled: false, classes: Vec::new(), ..self }
    }

    /// At most `most` of the images, evenly spaced over those that are files of their own; of a set with shards or tables, which
    /// are read in order, the first ones.
    #[must_use]
    pub fn thinned(mut self, most: usize) -> Self {
        if let [Part::Files { paths, labels }] = &mut self.parts[..] {
            let (count, kept) = (paths.len(), paths.len().min(most));
            let places: Vec<usize> = (0..kept).map(|place| place * count / kept).collect();
            *paths = places.iter().map(|place| std::mem::take(&mut paths[*place])).collect();
            if let Some(labels) = labels {
                *labels = places.iter().map(|place| labels[*place]).collect();
            }
        }
        self.most = Some(most);
        self
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
        let all: Option<u64> = self.parts.iter().map(Part::len_hint).sum();
        all.map(|all| self.most.map_or(all, |most| all.min(most as u64)))
    }

    /// Every file that is read: images, shards and tables.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().flat_map(Part::files).map(PathBuf::as_path)
    }

    /// The images, in order. An error ends them.
    ///
    /// The items' errors: [`ErrorKind::Io`]; [`ErrorKind::Malformed`] for a shard or a table that is truncated or broken;
    /// [`ErrorKind::Missing`] where one of a labelled set has no label.
    pub fn entries(&self) -> Entries<'_> {
        Entries {
            parts: self.parts.iter(),
            current: Box::new(std::iter::empty()),
            labelled: self.labelled,
            left: self.most.unwrap_or(usize::MAX),
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
    /// How many images may still come.
    left: usize,
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            match self.current.next() {
                Some(Ok(mut entry)) if !self.labelled || is_label(entry.label) => {
                    entry.label = entry.label.filter(|_| self.labelled);
                    self.left -= 1;
                    return Some(Ok(entry));
                }
                Some(Ok(entry)) => {
                    self.left = 0;
                    return Some(Err(Error::new(ErrorKind::Missing, "no label")
                        .file(entry.id)
                        .expected("a label for each image, as for the first")
                        .fix("label all images, or take such a shard or table on its own")));
                }
                Some(Err(error)) => {
                    self.left = 0;
                    return Some(Err(error));
                }
                None => match self.parts.next() {
                    Some(part) => self.current = part.entries(),
                    None => self.left = 0,
                },
            }
        }
        None
    }
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
    fn thinned_sets_keep_images_of_all_classes() {
        let names: Vec<String> = (0..10).map(|at| format!("{}/{at}.png", ["cat", "dog"][at / 5])).collect();
        let folder = folder_of(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let set = ImageSet::find(&[folder.path().display().to_string()]).unwrap();
        for (most, kept) in
            [(0, vec![]), (2, vec![0, 5]), (4, vec![0, 2, 5, 7]), (10, (0..10).collect()), (99, (0..10).collect())]
        {
            let thinned = set.clone().thinned(most);
            let wanted: Vec<(String, Option<i64>)> =
                kept.iter().map(|at: &usize| (names[*at].clone(), Some((*at / 5) as i64))).collect();
            let found = all(&thinned);
            assert_eq!(thinned.len_hint(), Some(kept.len() as u64));
            assert_eq!(found.len(), wanted.len(), "{most}");
            assert!(
                found.iter().zip(&wanted).all(|(found, wanted)| found.0.ends_with(&wanted.0) && found.1 == wanted.1)
            );
        }
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
