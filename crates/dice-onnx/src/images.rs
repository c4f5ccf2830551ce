//! Finding images and decoding them.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use dice_ood::{Error, ErrorKind, Result};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

/// Extensions of the formats we decode.
const EXTENSIONS: [&str; 9] = ["jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "jpe"];

/// The most memory that decoding one image may take: 100 million pixels of three bytes and some room.
const MOST_MEMORY: u64 = 512 << 20;

/// Images on disk, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSet {
    /// Paths, sorted within each folder or pattern.
    pub paths: Vec<PathBuf>,
    /// Names of the class folders, sorted; empty where there are none.
    pub classes: Vec<String>,
    /// For each path the index of its class folder.
    pub labels: Option<Vec<i64>>,
}

impl ImageSet {
    /// Finds images: folders (and all below them), glob patterns, single files, and `.txt` lists of paths, one a line,
    /// relative to the list.
    ///
    /// Where a single folder is given and all of its images are in subfolders, the names of these are classes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`], or [`ErrorKind::Empty`] where there is no image.
    pub fn find(inputs: &[String]) -> Result<Self> {
        let mut paths = Vec::new();
        for input in inputs {
            let path = Path::new(input);
            let before = paths.len();
            if path.is_dir() {
                walk(path, &mut paths)?;
            } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("txt")) {
                let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
                let base = path.parent().unwrap_or(Path::new(""));
                paths.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| base.join(line)));
            } else if path.exists() {
                paths.push(path.to_path_buf());
            } else {
                let unmatched = |error: glob::PatternError| {
                    Error::new(ErrorKind::Argument, error.to_string())
                        .file(input)
                        .expected("a folder, a file or a pattern")
                };
                let found = glob::glob(input).map_err(unmatched)?;
                let mut found: Vec<PathBuf> =
                    found.filter_map(std::result::Result::ok).filter(|path| is_image(path)).collect();
                found.sort();
                paths.extend(found);
            }
            if paths.len() == before {
                return Err(Error::new(ErrorKind::Empty, "no image")
                    .file(input)
                    .expected(format!("images ({})", EXTENSIONS.join(", ")))
                    .fix("name a folder of images, a pattern such as 'photos/*.jpg', or a .txt list of paths"));
            }
        }
        let (classes, labels) = classes_of(inputs, &paths);
        Ok(Self { paths, classes, labels })
    }
}

/// Subfolders as classes, where one folder is given and every image is below one of them.
fn classes_of(inputs: &[String], paths: &[PathBuf]) -> (Vec<String>, Option<Vec<i64>>) {
    let [root] = inputs else { return (Vec::new(), None) };
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
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    EXTENSIONS.contains(&extension.as_str()) && path.is_file()
}

/// All images below `folder`, sorted; links to folders are not followed, so that there is an end.
fn walk(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    let mut pending = vec![folder.to_path_buf()];
    let start = paths.len();
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|error| Error::io(&folder, error))? {
            let entry = entry.map_err(|error| Error::io(&folder, error))?;
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            let kind = entry.file_type().map_err(|error| Error::io(entry.path(), error))?;
            if kind.is_dir() && !hidden {
                pending.push(entry.path());
            } else if !hidden && is_image(&entry.path()) {
                paths.push(entry.path());
            }
        }
    }
    paths[start..].sort();
    Ok(())
}

/// Decodes an image, turned as its EXIF orientation says. The format is told from the bytes, not from the name.
///
/// # Errors
/// [`ErrorKind::Io`], or [`ErrorKind::Malformed`] for what is no image, a broken one, or one that would take more than
/// 512 MiB.
pub fn decode(path: &Path) -> Result<DynamicImage> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let broken = |error: image::ImageError| {
        Error::new(ErrorKind::Malformed, error.to_string())
            .file(path.display())
            .expected("an image that can be decoded")
            .fix("leave it out, or pass --broken skip to go on without such images")
    };
    let mut reader =
        ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(|error| Error::io(path, error))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    if decoder.total_bytes() > MOST_MEMORY {
        let (width, height) = decoder.dimensions();
        return Err(Error::new(ErrorKind::Malformed, format!("{width} x {height} pixels"))
            .file(path.display())
            .expected("an image of at most 512 MiB"));
    }
    decoder.set_limits(limits).map_err(broken)?;
    // A format without orientation says so, or fails at what it cannot read: then the image is as it is.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use image::{GrayImage, Luma, RgbImage};

    fn folder_of(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            GrayImage::from_pixel(2, 2, Luma([7])).save(path).unwrap();
        }
        folder
    }

    #[test]
    fn class_folders_are_labels_and_other_files_are_passed_over() {
        let folder = folder_of(&["dog/b.png", "dog/a.png", "cat/deep/c.png"]);
        std::fs::write(folder.path().join("cat/notes.md"), "no image").unwrap();
        let set = ImageSet::find(&[folder.path().display().to_string()]).unwrap();
        assert_eq!(set.classes, ["cat", "dog"]);
        assert_eq!(set.labels, Some(vec![0, 1, 1]));
        assert!(set.paths[1].ends_with("dog/a.png"));
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
            assert_eq!((set.paths.len(), set.labels), (2, None));
            assert!(set.paths[0].ends_with(first));
        }
        assert!(ImageSet::find(&[format!("{base}/*.gif")]).unwrap_err().to_string().contains("no image"));
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8, y as u8, 0])).save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(decode(&path).unwrap().width(), 40);
        for length in (0..whole.len() - 12).step_by(7) {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(decode(&path).unwrap_err().to_string().contains("x.png"), "{length} bytes");
        }
        // A header that claims 50,000 x 50,000 pixels.
        let mut claims = whole.clone();
        claims[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
        std::fs::write(&path, claims).unwrap();
        assert!(decode(&path).is_err());
    }
}
