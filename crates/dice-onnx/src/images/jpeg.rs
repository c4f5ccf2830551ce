//! JPEGs, with the pixels that Pillow gives them: those of libjpeg-turbo.

use std::io;

use dice_ood::io::guard;
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress, Marker};

/// What an EXIF segment starts with.
const EXIF: &[u8] = b"Exif\0\0";

/// Scans of one image, of whatever size: encoders write about ten, scripts of a scan for each few coefficients some tens.
const MOST_SCANS: usize = 1000;

/// Scans times pixels of one image: 64 scans of 100 million pixels. A scan takes its time for every block, in how few bytes it may be
/// written: 60 ms at 100 million pixels. A photograph of that size in 44 scans decodes in 1.3 s, the worst at this bound in about 5 s.
const MOST_SCANNED: u64 = 64 * 100_000_000;

/// A JPEG whose header is read.
pub(super) struct Jpeg<'a> {
    decoder: Decompress<&'a [u8]>,
    /// Width and height.
    pub(super) size: [u32; 2],
    /// How its EXIF segment says that it is to be turned.
    pub(super) orientation: Option<Orientation>,
    kind: Kind,
}

/// What the pixels are.
#[derive(Clone, Copy)]
enum Kind {
    Grey,
    Colours,
    Inks,
}

impl<'a> Jpeg<'a> {
    /// Reads the header; the first line of what is wrong with it is the error.
    pub(super) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let scans = scans_of(bytes)?;
        guard(|| {
            let decoder = Decompress::with_markers(&[Marker::APP(1)]).from_mem(bytes)?;
            let kind = match decoder.color_space() {
                ColorSpace::JCS_GRAYSCALE => Kind::Grey,
                ColorSpace::JCS_YCbCr | ColorSpace::JCS_RGB => Kind::Colours,
                ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => Kind::Inks,
                _ => return Err(io::Error::other(format!("{} colour components", decoder.components().len()))),
            };
            let mut exif = decoder.markers().filter_map(|marker| marker.data.strip_prefix(EXIF));
            let orientation = exif.next().and_then(Orientation::from_exif_chunk);
            let (width, height) = decoder.size();
            if scans.saturating_mul(width as u64 * height as u64) > MOST_SCANNED {
                return Err(io::Error::other(format!("{scans} scans of {width} x {height} pixels")));
            }
            Ok(Self { size: [width as u32, height as u32], orientation, kind, decoder })
        })
    }

    /// The most bytes of a pixel while it is decoded: its colours, and the coefficients of a progressive image.
    pub(super) const BYTES: u64 = 4 + 2 * 4;

    /// Decodes the pixels.
    pub(super) fn pixels(self) -> Result<DynamicImage, String> {
        let ([width, height], kind) = (self.size, self.kind);
        let colours = match kind {
            Kind::Grey => ColorSpace::JCS_GRAYSCALE,
            Kind::Colours => ColorSpace::JCS_RGB,
            Kind::Inks => ColorSpace::JCS_CMYK,
        };
        let values: Vec<u8> = guard(|| self.decoder.to_colorspace(colours)?.read_scanlines())?;
        let image = match kind {
            Kind::Grey => GrayImage::from_raw(width, height, values).map(DynamicImage::ImageLuma8),
            Kind::Colours => RgbImage::from_raw(width, height, values).map(DynamicImage::ImageRgb8),
            Kind::Inks => RgbImage::from_raw(width, height, of_inks(&values)).map(DynamicImage::ImageRgb8),
        };
        image.ok_or_else(|| "fewer pixels than its header says".to_owned())
    }
}

/// Red, green, blue of inks, as Pillow computes them: CMYK in JPEGs is stored inverted, as Adobe does.
fn of_inks(values: &[u8]) -> Vec<u8> {
    let pixel = |inks: &[u8; 4]| {
        let white = u32::from(inks[3]);
        [0, 1, 2].map(|ink| {
            let product = u32::from(255 - inks[ink]) * white + 128;
            white.saturating_sub(((product >> 8) + product) >> 8) as u8
        })
    };
    values.as_chunks::<4>().0.iter().flat_map(pixel).collect()
}

/// How many scans there are. Refuses data that ends before the image does, for which libjpeg makes pixels up. The thumbnail within an
/// image has an end of its own.
fn scans_of(bytes: &[u8]) -> Result<u64, String> {
    const END: u8 = 0xd9;
    const SCAN: u8 = 0xda;
    let mut rest = bytes.get(2..).unwrap_or_default();
    let mut scans = 0;
    loop {
        let is_marker = |place: &usize| !matches!(rest.get(place + 1), None | Some(0x00 | 0xff));
        let Some(place) = memchr::memchr_iter(0xff, rest).find(is_marker) else {
            return Err("the end of the data".into());
        };
        let marker = rest[place + 1];
        rest = &rest[place + 2..];
        scans += usize::from(marker == SCAN);
        if scans > MOST_SCANS {
            return Err(format!("more than {MOST_SCANS} scans"));
        }
        match marker {
            END => return Ok(scans as u64),
            // Markers without a length: restarts within a scan, the start, and TEM.
            0x01 | 0xd0..=0xd8 => {}
            // The length of a scan is that of its header alone; the end of its data, where 0xff is written 0xff00, is searched for.
            _ => {
                let length = rest.first_chunk().map_or(usize::MAX, |length| usize::from(u16::from_be_bytes(*length)));
                rest = rest.get(length..).unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// A progressive image that says to be of `size`, in `scans` scans.
    fn claiming(size: [u16; 2], scans: usize) -> Vec<u8> {
        let mut bytes = include_bytes!("../../tests/images/progressive.jpg").to_vec();
        let frame = bytes.windows(2).position(|pair| pair == [0xff, 0xc2]).unwrap();
        bytes[frame + 5..frame + 7].copy_from_slice(&size[0].to_be_bytes());
        bytes[frame + 7..frame + 9].copy_from_slice(&size[1].to_be_bytes());
        let last = bytes.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
        let scan = bytes[last..bytes.len() - 2].to_vec();
        bytes.truncate(bytes.len() - 2);
        let there = bytes.windows(2).filter(|pair| *pair == [0xff, 0xda]).count();
        (there..scans).for_each(|_| bytes.extend(&scan));
        bytes.extend([0xff, 0xd9]);
        bytes
    }

    #[test]
    fn scans_are_bounded_by_what_they_take() {
        for (size, most) in [([10_000, 10_000], 64), ([8_000, 4_000], 200), ([20, 30], MOST_SCANS)] {
            assert!(Jpeg::open(&claiming(size, most)).is_ok(), "{size:?}");
            let error = Jpeg::open(&claiming(size, most + 1)).map(|_| ()).unwrap_err();
            assert!(error.contains("scans"), "{error}");
        }
        // Told as an image that cannot be decoded, which a run may leave out.
        let error =
            crate::decode_bytes(&claiming([10_000, 10_000], 65), "bomb.jpg", crate::Orientation::Stored).unwrap_err();
        assert_eq!(error.remedy(), Some(dice_ood::Remedy::SkipBroken));
        for part in ["bomb.jpg", "65 scans of 10000 x 10000 pixels"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
