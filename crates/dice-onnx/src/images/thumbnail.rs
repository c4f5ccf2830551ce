//! Small pictures of images, for pages.

use std::io::Cursor;
use std::path::Path;

use dice_ood::{Error, ErrorKind, Result};
use image::{DynamicImage, ImageFormat};

use crate::images::decode::{Orientation, decode_file};
use crate::images::places::named_as_image;

/// The image in a file as PNG of at most `side` x `side` pixels, in its own proportions; smaller images keep their size.
///
/// Only a regular file whose name ends as that of an image does is opened: the path may come from a file of someone else.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for any other path, and as [`decode`](crate::decode).
pub fn thumbnail(path: impl AsRef<Path>, side: u32) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !named_as_image(extension) || !path.is_file() {
        return Err(Error::new(ErrorKind::Unsupported, "no file of an image").file(path.display()));
    }
    let decoded = decode_file(path, Orientation::Exif, |_| 0)?;
    let image = match decoded.image.width().max(decoded.image.height()) > side {
        true => decoded.image.thumbnail(side.max(1), side.max(1)),
        false => decoded.image.clone(),
    };
    let mut png = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image.to_rgb8())
        .write_to(&mut png, ImageFormat::Png)
        .map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()).file(path.display()))?;
    Ok(png.into_inner())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::images::decode::decode_bytes;
    use image::{Rgb, RgbImage};

    #[test]
    fn pictures_are_small_and_only_of_images() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        RgbImage::from_pixel(300, 150, Rgb([9, 120, 30])).save(path("wide.png")).unwrap();
        RgbImage::from_pixel(8, 4, Rgb([9, 120, 30])).save(path("small.png")).unwrap();
        for (name, size) in [("wide.png", (96, 48)), ("small.png", (8, 4))] {
            let png = thumbnail(path(name), 96).unwrap();
            let image = decode_bytes(&png, name, Orientation::Stored).unwrap().to_rgb8();
            assert_eq!((image.dimensions(), image.get_pixel(1, 1).0), (size, [9, 120, 30]));
        }
        std::fs::copy(path("small.png"), path("small.txt")).unwrap();
        std::fs::write(path("text.png"), "no image").unwrap();
        std::fs::create_dir(path("folder.png")).unwrap();
        for name in ["small.txt", "text.png", "folder.png", "absent.png"] {
            assert!(thumbnail(path(name), 96).is_err(), "{name}");
        }
    }
}
