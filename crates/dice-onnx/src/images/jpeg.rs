//! JPEGs, with the pixels that Pillow gives them: those of libjpeg-turbo.

use std::io;

use dice_ood::io::guard;
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress, Marker};

/// What an EXIF segment starts with.
const EXIF: &[u8] = b"Exif\0\0";

/// Scans of one image: photographs have a dozen at most, and each takes the time of a whole image.
const MOST_SCANS: usize = 1000;

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
        check_whole(bytes)?;
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

/// Refuses data that ends before the image does, for which libjpeg makes pixels up. The thumbnail within an image has an end of its own.
fn check_whole(bytes: &[u8]) -> Result<(), String> {
    const END: u8 = 0xd9;
    const SCAN: u8 = 0xda;
    let mut rest = bytes.get(2..).unwrap_or_default();
    let mut scans = 0;
    loop {
        let Some(place) = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff)) else {
            return Err("the end of the data".into());
        };
        let marker = rest[place + 1];
        rest = &rest[place + 2..];
        scans += usize::from(marker == SCAN);
        if scans > MOST_SCANS {
            return Err(format!("more than {MOST_SCANS} scans"));
        }
        match marker {
            END => return Ok(()),
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
