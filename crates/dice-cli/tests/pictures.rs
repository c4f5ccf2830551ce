//! Figures as PNG and PDF, by the real binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![cfg(feature = "pictures")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;

use common::{Desk, succeeded};

/// The files of a folder: their bytes by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    files.map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap())).collect()
}

/// Width and height of an SVG, in pixels, and those of the units that it is drawn in.
fn sizes(svg: &[u8]) -> [f64; 4] {
    let svg = std::str::from_utf8(svg).unwrap();
    let document = roxmltree::Document::parse(svg).unwrap();
    let attribute = |name: &str| document.root_element().attribute(name).unwrap();
    let view: Vec<f64> = attribute("viewBox").split(' ').map(|side| side.parse().unwrap()).collect();
    [attribute("width").parse().unwrap(), attribute("height").parse().unwrap(), view[2], view[3]]
}

/// The pixels of a PNG, row by row.
fn pixels(bytes: &[u8]) -> (u32, u32, Vec<[u8; 4]>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let found = reader.next_frame(&mut data).unwrap();
    assert_eq!((found.color_type, found.bit_depth), (png::ColorType::Rgba, png::BitDepth::Eight));
    (found.width, found.height, data.as_chunks().0.to_vec())
}

fn coloured([red, green, blue, _]: [u8; 4]) -> bool {
    red.max(green).max(blue) - red.min(green).min(blue) > 60
}

/// A PDF whose table says where each object is, with one page of this size.
fn check_pdf(name: &str, bytes: &[u8], [width, height]: [f64; 2]) {
    let find = |text: &str| bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
    assert!(bytes.starts_with(b"%PDF-1.4\n") && bytes.trim_ascii_end().ends_with(b"%%EOF"), "{name}");
    assert_eq!((find("/Type /Page\n"), find("/Count 1"), find("Date")), (1, 1, 0), "{name}");
    assert_eq!(find(&format!("/MediaBox [0 0 {width} {height}]")), 1, "{name}");
    let end = String::from_utf8_lossy(&bytes[bytes.len() - 60..]).into_owned();
    let start: usize = end.split("startxref").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    let table = String::from_utf8(bytes[start..].to_vec()).unwrap();
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("xref"), "{name}");
    let count: usize = lines.next().unwrap().strip_prefix("0 ").unwrap().parse().unwrap();
    for (object, line) in lines.take(count).enumerate().skip(1) {
        let place: usize = line.split(' ').next().unwrap().parse().unwrap();
        assert!(bytes[place..].starts_with(format!("{object} 0 obj").as_bytes()), "{name}: object {object}");
    }
    // As many states are left as are entered, or marks would stand in each other's places.
    assert_eq!((find("\nq\n"), find("\nf\n") > 5), (find("\nQ"), true), "{name}");
}

#[test]
fn every_figure_is_there_in_every_format() {
    let desk = Desk::fitted(&["energy", "dice(0.9) | energy"]);
    let line =
        "report d.safetensors --id test.safetensors --ood letters=letters.safetensors --bootstrap 20 --quiet -o r.html";
    succeeded(&desk.line(&format!("{line} --figures one")));
    let made = files(&desk.path("one"));
    let stems: BTreeSet<&str> = made.keys().map(|name| name.split_once('.').unwrap().0).collect();
    let names = |stem: &&str| ["pdf", "png", "svg"].map(|ending| format!("{stem}.{ending}"));
    assert!(stems.len() > 10 && made.keys().cloned().eq(stems.iter().flat_map(names)), "{:?}", made.keys());
    for stem in stems {
        let of = |ending: &str| &made[&format!("{stem}.{ending}")];
        let [width, height, across, down] = sizes(of("svg"));
        check_pdf(stem, of("pdf"), [0.75 * width, 0.75 * height]);
        let (columns, rows, pixels) = pixels(of("png"));
        assert_eq!([f64::from(columns), f64::from(rows)], [2.0 * width, 2.0 * height], "{stem}");
        let at = |x: f64, y: f64| {
            let (x, y) = (x / across * f64::from(columns), y / down * f64::from(rows));
            pixels[y as usize * columns as usize + x as usize]
        };
        assert_eq!(at(1.0, 1.0), [255; 4], "{stem}: the ground is white");
        let colours: HashSet<[u8; 4]> = pixels.iter().copied().collect();
        let marks = pixels.iter().filter(|pixel| coloured(**pixel)).count();
        assert!(colours.len() > 20 && marks > 2000, "{stem}: {} colours, {marks} marks", colours.len());
        // The name of the horizontal axis stands below its numbers.
        let words = (0..columns as usize).flat_map(|x| {
            let y = ((down - 12.0) / down * f64::from(rows)) as usize..rows as usize;
            y.map(move |y| (x, y))
        });
        let ink = words.filter(|(x, y)| pixels[y * columns as usize + x][0] < 128).count();
        assert!(ink > 200, "{stem}: {ink} pixels of words");
    }
    succeeded(&desk.line(&format!("{line} --figures two")));
    assert!(files(&desk.path("two")) == made, "the same inputs are the same bytes");
}
