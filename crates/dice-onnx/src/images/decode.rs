//! From the bytes of an image to its pixels.

use std::io::{Cursor, Read};
use std::path::Path;

use dice_ood::io::{Budget, Share, files, guard};
use dice_ood::{Error, ErrorKind, Remedy, Result};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use serde::{Deserialize, Serialize};

use crate::images::jpeg::Jpeg;

/// The most bytes of one image, encoded or decoded: 100 million pixels of three bytes and some room.
pub(super) const MOST_MEMORY: u64 = 320 << 20;

/// What all images take together from their decoding to the inputs that are made of them, on all threads.
static DECODING: Budget = Budget::new(1 << 30);

/// Which way round an image is taken. A TIFF is always turned, as Pillow turns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Orientation {
    /// As its pixels are stored: Pillow's `Image.open`, and so torchvision's loader.
    #[default]
    Stored,
    /// Turned as its EXIF segment says: Pillow's `ImageOps.exif_transpose`.
    Exif,
}

/// An image, and its part of the memory for images at work.
pub(crate) struct Decoded {
    pub(crate) image: DynamicImage,
    _share: Share<'static>,
}

/// Decodes an image, as it is stored or turned. The format is told from the bytes, not from the name.
///
/// PNG, JPEG (CMYK and YCCK too), WebP, GIF (its first frame), BMP, TIFF: the pixels that Pillow gives, to the bit. A TIFF with a palette is
/// refused.
///
/// Calls on several threads wait for each other where they would take more than 1 GiB together.
///
/// # Errors
/// [`ErrorKind::Io`], or [`ErrorKind::Malformed`] for what is no image, a broken or truncated one, or one that takes more
/// than 320 MiB, encoded or decoded.
pub fn decode(path: impl AsRef<Path>, orientation: Orientation) -> Result<DynamicImage> {
    decode_file(path.as_ref(), orientation, |_| 0).map(|decoded| decoded.image)
}

/// [`decode`] of bytes in memory, which errors call `name`.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(bytes: &[u8], name: &str, orientation: Orientation) -> Result<DynamicImage> {
    decode_held(bytes, name, orientation, |_| 0).map(|decoded| decoded.image)
}

/// [`decode`], with room for what is made of an image of a height and width: `besides` says how many bytes.
pub(crate) fn decode_file(
    path: &Path,
    orientation: Orientation,
    besides: impl Fn([usize; 2]) -> u64,
) -> Result<Decoded> {
    let name = path.display().to_string();
    let located = |error| Error::io(path, error);
    let length = match std::fs::metadata(path).map_err(located)? {
        file if file.is_file() => file.len(),
        // The end of a pipe or a device is not known before it is read.
        _ => MOST_MEMORY,
    };
    if length > MOST_MEMORY {
        return Err(too_large(&name, format!("{length} bytes")));
    }
    let read = || -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        files::open(path)?.take(length).read_to_end(&mut bytes).map_err(located)?;
        Ok(bytes)
    };
    let (mut share, mut wanted) = (DECODING.take(length), 0);
    let bytes = read()?;
    let decoded = attempt(&bytes, &name, orientation, &besides, |bytes| {
        wanted = bytes;
        share.grow(bytes)
    })?;
    if let Some(image) = decoded {
        return Ok(Decoded { image, _share: share });
    }
    // A thread that waits for memory holds none, or threads would wait for each other: the file is read again.
    drop((bytes, share));
    let share = DECODING.take(length + wanted);
    let image = attempt(&read()?, &name, orientation, &besides, |_| true)?;
    let image = image.ok_or_else(|| too_large(&name, "more memory than there is".into()))?;
    Ok(Decoded { image, _share: share })
}

/// [`decode_file`] of bytes that are in memory.
pub(crate) fn decode_held(
    bytes: &[u8],
    name: &str,
    orientation: Orientation,
    besides: impl Fn([usize; 2]) -> u64,
) -> Result<Decoded> {
    let mut share = None;
    let image = attempt(bytes, name, orientation, &besides, |bytes| {
        share = Some(DECODING.take(bytes));
        true
    })?;
    match (image, share) {
        (Some(image), Some(share)) => Ok(Decoded { image, _share: share }),
        _ => Err(too_large(name, "more memory than there is".into())),
    }
}

/// The image, if `room` is there for the bytes that it needs.
fn attempt(
    bytes: &[u8],
    name: &str,
    orientation: Orientation,
    besides: &dyn Fn([usize; 2]) -> u64,
    room: impl FnMut(u64) -> bool,
) -> Result<Option<DynamicImage>> {
    // Decoders are tested against hostile bytes; a panic that remains costs this one image, not the run.
    guard(|| Ok::<_, String>(decoded(bytes, name, orientation, besides, room))).map_err(|found| broken(name, found))?
}

fn decoded(
    bytes: &[u8],
    name: &str,
    orientation: Orientation,
    besides: &dyn Fn([usize; 2]) -> u64,
    mut room: impl FnMut(u64) -> bool,
) -> Result<Option<DynamicImage>> {
    let failed = |error: image::ImageError| broken(name, error.to_string());
    let mut reader =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| Error::io(name, error))?;
    if reader.format() == Some(ImageFormat::Jpeg) {
        return decoded_jpeg(bytes, name, orientation, besides, room);
    }
    let is_tiff = reader.format() == Some(ImageFormat::Tiff);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    // Three bytes a pixel is what every image becomes. Decoders hold up to twice the result besides it, and so does turning.
    let largest = decoder.total_bytes().max(3 * u64::from(width) * u64::from(height));
    if largest > MOST_MEMORY {
        return Err(too_large(name, format!("{width} x {height} pixels")));
    }
    if !room(3 * largest + besides([height as usize, width as usize])) {
        return Ok(None);
    }
    decoder.set_limits(limits).map_err(failed)?;
    // An orientation that cannot be read is an image without one: it is not turned.
    let turn = decoder.orientation().ok().filter(|_| is_tiff || orientation == Orientation::Exif);
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    if let Some(turn) = turn {
        image.apply_orientation(turn);
    }
    Ok(Some(image))
}

fn decoded_jpeg(
    bytes: &[u8],
    name: &str,
    orientation: Orientation,
    besides: &dyn Fn([usize; 2]) -> u64,
    mut room: impl FnMut(u64) -> bool,
) -> Result<Option<DynamicImage>> {
    let failed = |found: String| broken(name, found);
    let jpeg = Jpeg::open(bytes).map_err(failed)?;
    let [width, height] = jpeg.size;
    let turn = jpeg.orientation.filter(|_| orientation == Orientation::Exif);
    let pixels = u64::from(width) * u64::from(height);
    if 3 * pixels > MOST_MEMORY {
        return Err(too_large(name, format!("{width} x {height} pixels")));
    }
    if !room(Jpeg::BYTES * pixels + besides([height as usize, width as usize])) {
        return Ok(None);
    }
    let mut image = jpeg.pixels().map_err(failed)?;
    if let Some(turn) = turn {
        image.apply_orientation(turn);
    }
    Ok(Some(image))
}

fn too_large(name: &str, found: String) -> Error {
    Error::new(ErrorKind::Malformed, found).file(name).expected("an image of at most 320 MiB")
}

fn broken(name: &str, found: String) -> Error {
    Error::new(ErrorKind::Malformed, found)
        .file(name)
        .expected("an image that can be decoded")
        .fix("leave it out, or go on without images that cannot be decoded")
        .with_remedy(Remedy::SkipBroken)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use image::RgbImage;

    fn committed(name: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images").join(name)).unwrap()
    }

    #[test]
    fn damage_is_an_error_that_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.png");
        RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8, y as u8, 0])).save(&path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(decode(&path, Orientation::Stored).unwrap().width(), 40);
        for length in (0..whole.len() - 12).step_by(7) {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(decode(&path, Orientation::Stored).unwrap_err().to_string().contains("x.png"), "{length} bytes");
        }
        // A header that claims 50,000 x 50,000 pixels.
        let mut claims = whole.clone();
        claims[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
        std::fs::write(&path, claims).unwrap();
        assert!(decode(&path, Orientation::Stored).is_err());
    }

    #[test]
    fn a_truncated_image_is_an_error_and_not_half_an_image() {
        for (name, spare) in [
            ("edges-444.jpg", 0),
            ("progressive.jpg", 0),
            ("grey.jpg", 0),
            ("turned6.jpg", 0),
            ("rgb16.png", 12),
            ("rgb-lzw.tiff", 0),
            ("palette.bmp", 0),
            // Padding and checksums that hold no pixels.
            ("edges.webp", 3),
            ("lossless.webp", 1),
        ] {
            let whole = committed(name);
            assert!(decode_bytes(&whole, name, Orientation::Exif).is_ok());
            for length in 0..whole.len() - spare {
                assert!(decode_bytes(&whole[..length], name, Orientation::Exif).is_err(), "{length} bytes of {name}");
            }
        }
        let mut trailing = committed("444.jpg");
        trailing.extend(b"what a camera adds");
        assert!(decode_bytes(&trailing, "trailing", Orientation::Exif).is_ok());
    }

    #[test]
    fn other_bytes_in_any_format_are_an_image_or_an_error() {
        let names = ["rgb16.png", "420.jpg", "ycck.jpg", "progressive.jpg", "animated.gif", "edges.webp"];
        for name in names.into_iter().chain(["lossless-alpha.webp", "rgb-lzw.tiff", "grey16.tiff", "palette.bmp"]) {
            let whole = committed(name);
            for place in 0..whole.len().min(400) {
                let mut bytes = whole.clone();
                bytes[place] ^= 0xff;
                let _ = decode_bytes(&bytes, name, Orientation::Exif);
            }
        }
    }
}
