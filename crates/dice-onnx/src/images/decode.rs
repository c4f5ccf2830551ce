//! From the bytes of an image to its pixels.

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use dice_ood::{Error, ErrorKind, Result};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

/// The most memory that decoding one image may take: 100 million pixels of three bytes and some room.
pub(super) const MOST_MEMORY: u64 = 512 << 20;

/// Decodes an image, turned as its EXIF orientation says. The format is told from the bytes, not from the name.
///
/// PNG, JPEG (CMYK and YCCK too), WebP, GIF (its first frame), BMP, TIFF. Lossless formats give the pixels that Pillow
/// gives. JPEG is within 2 levels of 255, and up to 7 at hard edges where colours are stored at half the resolution, as
/// decoders differ in how they bring them back. A TIFF with a palette is refused.
///
/// # Errors
/// [`ErrorKind::Io`], or [`ErrorKind::Malformed`] for what is no image, a broken one, or one that would take more than
/// 512 MiB.
pub fn decode(path: &Path) -> Result<DynamicImage> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    decode_from(BufReader::new(file), &name)
}

/// [`decode`] of bytes in memory, which errors call `name`.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(bytes: &[u8], name: &str) -> Result<DynamicImage> {
    decode_from(Cursor::new(bytes), name)
}

fn decode_from(input: impl BufRead + Seek, name: &str) -> Result<DynamicImage> {
    // Decoders are tested against hostile bytes; where one panics nevertheless, it is one image that is lost.
    catch_unwind(AssertUnwindSafe(|| turned(input, name)))
        .unwrap_or_else(|_| Err(broken(name, "bytes that its decoder gave up on".into())))
}

fn turned(input: impl BufRead + Seek, name: &str) -> Result<DynamicImage> {
    let failed = |error: image::ImageError| broken(name, error.to_string());
    let mut reader = ImageReader::new(input).with_guessed_format().map_err(|error| Error::io(name, error))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_MEMORY);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(failed)?;
    if decoder.total_bytes() > MOST_MEMORY {
        let (width, height) = decoder.dimensions();
        return Err(Error::new(ErrorKind::Malformed, format!("{width} x {height} pixels"))
            .file(name)
            .expected("an image of at most 512 MiB"));
    }
    decoder.set_limits(limits).map_err(failed)?;
    // A format without orientation says so, or fails at what it cannot read: then the image is as it is.
    let orientation = decoder.orientation().ok();
    let mut image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    if let Some(orientation) = orientation {
        image.apply_orientation(orientation);
    }
    Ok(image)
}

fn broken(name: &str, found: String) -> Error {
    Error::new(ErrorKind::Malformed, found)
        .file(name)
        .expected("an image that can be decoded")
        .fix("leave it out, or pass --broken skip to go on without such images")
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

    #[test]
    fn other_bytes_in_any_format_are_an_image_or_an_error() {
        for name in ["rgb16.png", "420.jpg", "ycck.jpg", "progressive.jpg", "animated.gif", "edges.webp"] {
            damage(name);
        }
        for name in ["lossless-alpha.webp", "rgb-lzw.tiff", "grey16.tiff", "palette.bmp"] {
            damage(name);
        }
    }

    /// Each byte of a header flipped, and a cut at each of its places.
    fn damage(name: &str) {
        let whole = committed(name);
        assert!(decode_bytes(&whole, name).is_ok());
        for place in 0..whole.len().min(400) {
            let mut bytes = whole.clone();
            bytes[place] ^= 0xff;
            let _ = decode_bytes(&bytes, name);
            let _ = decode_bytes(&whole[..place], name);
        }
        assert!(decode_bytes(&whole[..whole.len() / 4], name).is_err(), "a quarter of {name}");
    }
}
