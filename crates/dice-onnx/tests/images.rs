//! Images of every format, and resized, against what Pillow makes of them: see images/make.py.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use dice_onnx::{Channels, ImageSet, Orientation, Preprocess, Resize, Resizer};
use image::DynamicImage;
use sha2::Digest as _;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images")
}

fn decode(path: impl AsRef<Path>) -> dice_ood::Result<DynamicImage> {
    dice_onnx::decode(path, Orientation::Exif)
}

fn levels(image: &DynamicImage, settings: &str) -> (Vec<u8>, [usize; 2]) {
    let (input, size) = format!("scale=1,{settings}").parse::<Preprocess>().unwrap().apply(image).unwrap();
    let area = size[0] * size[1];
    let channels = input.len() / area;
    let value = |place: usize| input[place % channels * area + place / channels];
    ((0..input.len()).map(|place| value(place) as u8).collect(), size)
}

fn furthest(ours: &[u8], theirs: &[u8]) -> u8 {
    assert_eq!(ours.len(), theirs.len());
    ours.iter().zip(theirs).map(|(ours, theirs)| ours.abs_diff(*theirs)).max().unwrap()
}

#[test]
fn every_format_has_the_pixels_of_pillow() {
    let pixels = std::fs::read(folder().join("expected.bin")).unwrap();
    let mut rest = &pixels[..];
    for line in std::fs::read_to_string(folder().join("expected.txt")).unwrap().lines() {
        let [name, mode, width, height] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let size: [usize; 2] = [height.parse().unwrap(), width.parse().unwrap()];
        let (rgb, others) = rest.split_at(size[0] * size[1] * 3);
        let (grey, others) = others.split_at(size[0] * size[1]);
        rest = others;
        if name == "palette.tiff" {
            assert!(decode(folder().join(name)).unwrap_err().to_string().contains("RGBPalette"));
            continue;
        }
        let image = decode(folder().join(name)).unwrap();
        let (colours, its_size) = levels(&image, "channels=rgb");
        assert_eq!(its_size, size, "{name}");
        let (greys, _) = levels(&image, "channels=grey");
        if mode == "I;16" {
            // Pillow cuts at 255 what goes up to 65535: nearly all of it. Here the upper bytes count.
            assert!(grey.iter().filter(|level| **level == 255).count() > grey.len() / 2, "{name}");
            assert!(greys.iter().zip(grey).any(|(ours, theirs)| ours != theirs));
            assert!(colours.chunks_exact(3).zip(&greys).all(|(colour, grey)| colour == [*grey; 3]), "{name}");
            let same = levels(&decode(folder().join("rgb16.png")).unwrap(), "channels=rgb").0;
            assert!(same.chunks_exact(3).zip(&greys).all(|(colour, grey)| colour[0] == *grey), "{name}");
            continue;
        }
        assert_eq!(furthest(&colours, rgb), 0, "{name}");
        assert_eq!(furthest(&greys, grey), 0, "{name} in grey");
    }
    assert!(rest.is_empty());
}

#[test]
fn resizing_is_that_of_pillow_to_the_bit() {
    let mut compared = 0;
    for entry in std::fs::read_dir(folder().join("resize")).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let [filter, source, size] = stem.split('_').collect::<Vec<_>>()[..] else { continue };
        let (width, height) = size.split_once('x').unwrap();
        let image = decode(path.with_file_name(format!("{source}.png"))).unwrap();
        let expected = decode(&path).unwrap().to_rgb8().into_raw();
        let plain = filter.trim_start_matches("tensor-");
        let (resized, _) = levels(&image, &format!("resize={height}x{width},filter={plain}"));
        if plain == filter {
            assert_eq!(furthest(&resized, &expected), 0, "{stem}");
        } else {
            let (tensor, _) = levels(&image, &format!("resize={height}x{width},filter={plain},as=torchvision"));
            assert_eq!(furthest(&tensor, &expected), 0, "{stem}");
            assert!(furthest(&resized, &expected) <= 1, "{stem}");
        }
        compared += 1;
    }
    assert!(compared >= 50, "{compared} of the goldens are there");
}

/// Goldens of images/resizers.py.
#[test]
fn each_resizer_is_what_it_is_called_to_the_bit() {
    let folder = folder().join("resize");
    let mut apart = 0;
    for resizer in Resizer::ALL {
        let goldens = std::fs::read_to_string(folder.join(format!("{}.txt", resizer.name()))).unwrap();
        for line in goldens.lines() {
            let [filter, source, size, hash] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let (width, height) = size.split_once('x').unwrap();
            let image = decode(folder.join(format!("{source}.png"))).unwrap();
            let resized = |name: &str| levels(&image, &format!("resize={height}x{width},filter={filter},as={name}")).0;
            let ours = resized(resizer.name());
            assert_eq!(sha256(&ours), hash, "{}: {filter} {source} {size}", resizer.name());
            apart += usize::from(ours != resized("pillow-12"));
        }
    }
    assert!(apart > 50, "{apart}: the goldens tell resizers apart");
    let lanczos = "filter=lanczos,as=torchvision".parse::<Preprocess>().unwrap_err().to_string();
    assert!(lanczos.contains("no Lanczos"), "{lanczos}");
}

/// Pillow's `Image.open` leaves an image as it is stored, but for a TIFF, and so does a preset; `exif` turns it.
#[test]
fn images_are_turned_where_that_is_asked_for() {
    let stored = |name: &str| dice_onnx::decode(folder().join(name), Orientation::Stored).unwrap().to_rgb8();
    assert_eq!(stored("turned.png"), stored("rgb8.png"));
    assert_eq!(stored("turned.tiff"), decode(folder().join("turned.tiff")).unwrap().to_rgb8());
    for turn in 1..=8 {
        let name = format!("turned{turn}.jpg");
        assert_eq!(stored(&name), stored("turned1.jpg"), "{name}");
        assert_eq!(stored(&name) == decode(folder().join(&name)).unwrap().to_rgb8(), turn == 1, "{name}");
    }
    let imagenet: Preprocess = "imagenet".parse().unwrap();
    let turned: Preprocess = "imagenet,orientation=exif".parse().unwrap();
    assert_eq!((imagenet.orientation, turned.orientation), (Orientation::Stored, Orientation::Exif));
    assert!(turned.to_string().contains("turned by EXIF") && !imagenet.to_string().contains("EXIF"));
    // What was recorded before the orientation was: those images were turned.
    let mut recorded = serde_json::to_value(&imagenet).unwrap();
    for later in ["orientation", "resizer"] {
        assert!(recorded.as_object_mut().unwrap().remove(later).is_some());
    }
    let old: Preprocess = serde_json::from_value(recorded).unwrap();
    assert_eq!((old.orientation, old.resizer), (Orientation::Exif, Resizer::Pillow12));
}

#[test]
fn a_network_of_levels_gets_levels() {
    let image = decode(folder().join("rgb8.png")).unwrap();
    let plain: Preprocess = "scale=1,mean=0,std=1".parse().unwrap();
    let (input, _) = plain.apply(&image).unwrap();
    assert_eq!((plain.channels, plain.resize), (Channels::Rgb, Resize::Keep));
    assert!(input.iter().all(|level| level.fract() == 0.0) && input.contains(&255.0));
}

#[test]
fn shards_of_webdataset_are_read() {
    let path = folder().join("shard.tgz").display().to_string();
    let set = ImageSet::find(std::slice::from_ref(&path)).unwrap();
    let entries: Vec<_> = set.entries().map(Result::unwrap).collect();
    assert_eq!(entries.iter().map(|entry| entry.label.unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(entries[1].id, format!("{path}/train/001.jpg"));
    assert_eq!(entries[2].id, format!("{path}/{}002.webp", "a-folder-with-a-long-name/".repeat(5)));
    same_pixels(&entries);
}

#[cfg(feature = "columns")]
#[test]
fn tables_of_hugging_face_are_read() {
    let path = folder().join("table.parquet").display().to_string();
    let set = ImageSet::find(&[path]).unwrap();
    assert_eq!((set.classes(), set.len_hint()), (&["cat", "dog", "owl"].map(String::from)[..], Some(3)));
    let entries: Vec<_> = set.entries().map(Result::unwrap).collect();
    assert_eq!(entries.iter().map(|entry| entry.label.unwrap()).collect::<Vec<_>>(), [2, 0, 1]);
    assert_eq!(entries[1].id, "001.jpg");
    same_pixels(&entries);
}

fn same_pixels(entries: &[dice_onnx::Entry]) {
    assert_eq!(entries.len(), 3);
    for (entry, name) in entries.iter().zip(["rgb8.png", "444.jpg", "lossless.webp"]) {
        assert_eq!(entry.decode(Orientation::Exif).unwrap(), decode(folder().join(name)).unwrap(), "{name}");
    }
}

fn sha256(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Damaged files of which the decoder here makes other pixels than Pillow where it is built without SIMD.
const OTHERWISE: [&str; 13] = [
    "damaged-440-33x20-1.jpg",
    "damaged-422-33x20-2-progressive.jpg",
    "damaged-420-33x20-1-restart.jpg",
    "damaged-444-40x41-1.jpg",
    "damaged-444-40x41-1-restart.jpg",
    "damaged-440-40x41-0.jpg",
    "damaged-422-40x41-1.jpg",
    "damaged-440-40x41-1.jpg",
    "damaged-422-40x41-1-restart.jpg",
    "damaged-420-40x41-1.jpg",
    "damaged-420-40x41-0-progressive.jpg",
    "damaged-ycck2-33x20.jpg",
    "damaged-cmyk2-40x41.jpg",
];

/// `images/jpegs.py` made the files and the hashes of what Pillow makes of them.
#[test]
fn jpegs_of_every_kind_have_the_pixels_of_pillow() {
    let expected = std::fs::read_to_string(folder().join("jpegs.txt")).unwrap();
    let archive = std::fs::File::open(folder().join("jpegs.tar.gz")).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let mut compared = 0;
    for (entry, line) in archive.entries().unwrap().zip(expected.lines()) {
        let [name, hash, width, height] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry.unwrap(), &mut bytes).unwrap();
        let image = dice_onnx::decode_bytes(&bytes, name, Orientation::Stored).unwrap().into_rgb8();
        assert_eq!([image.width().to_string(), image.height().to_string()], [width, height], "{name}");
        let found = sha256(image.as_raw());
        assert!(found == hash || OTHERWISE.contains(&name), "{name}");
        compared += 1;
    }
    assert_eq!(compared, expected.lines().count());
}

/// `images/photographs.py` made the hashes; the photographs are not part of the project.
#[test]
fn photographs_have_the_pixels_of_pillow() {
    let data = std::env::var_os("DICE_DATA").map_or_else(|| "../../../shared/data".into(), PathBuf::from);
    let photographs = Path::new(env!("CARGO_MANIFEST_DIR")).join(data).join("images/imagenet");
    let Ok(entries) = std::fs::read_dir(&photographs) else {
        println!("skipped: no photographs in {}", photographs.display());
        return;
    };
    let expected = std::fs::read_to_string(folder().join("photographs.txt")).unwrap();
    let expected: std::collections::HashMap<&str, &str> =
        expected.lines().map(|line| line.split_once(' ').unwrap()).collect();
    let mut compared = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let Some(expected) = expected.get(&*sha256(&bytes)) else { continue };
        let image = dice_onnx::decode_bytes(&bytes, "a photograph", Orientation::Stored).unwrap().into_rgb8();
        let found = format!("{} {} {}", sha256(image.as_raw()), image.width(), image.height());
        assert_eq!(found, *expected, "{}", path.display());
        compared += 1;
    }
    if compared == 0 {
        return println!("skipped: {} has other photographs", photographs.display());
    }
    assert_eq!(compared, expected.len(), "photographs of {}", photographs.display());
}
