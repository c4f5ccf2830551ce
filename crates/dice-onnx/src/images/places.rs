//! The files that images are in: what an input names, and what is below a folder.

use std::path::{Path, PathBuf};

use dice_ood::io::files;
use dice_ood::{Error, ErrorKind, Result};

/// Extensions of the formats we decode.
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "jpe"];

/// A file that holds images.
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) column: Option<String>,
}

pub(super) enum FileKind {
    Image,
    Shard,
    Table,
}

impl FileKind {
    pub(super) fn of(path: &Path) -> Self {
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

pub(super) fn none(input: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Empty, "no image")
        .file(input)
        .expected(format!("images ({}), tar shards or Parquet tables of them", EXTENSIONS.join(", ")))
        .fix("name a folder of images, a pattern such as 'photos/*.jpg', or a .txt list of paths")
}

pub(super) fn find_places(input: &str, places: &mut Vec<Place>) -> Result<()> {
    let whole = |path: PathBuf| Place { path, column: None };
    let path = Path::new(input);
    if path.is_dir() {
        let mut files = Vec::new();
        walk(path, &mut files)?;
        let images = files.iter().any(|path| is_image(path));
        files.retain(|path| if images { is_image(path) } else { !matches!(FileKind::of(path), FileKind::Image) });
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
            Some((table, column)) if matches!(FileKind::of(Path::new(table)), FileKind::Table) => (table, Some(column)),
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

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    named_as_image(extension) && path.is_file()
}

pub(super) fn named_as_image(extension: &str) -> bool {
    EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
}

fn holds_images(path: &Path) -> bool {
    is_image(path) || (!matches!(FileKind::of(path), FileKind::Image) && path.is_file())
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
