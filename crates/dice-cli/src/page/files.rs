//! Figures and tables of the page in files of their own.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use dice_ood::diagnosis::Anatomy;
use dice_ood::io::AtomicFile;
use dice_ood::io::files::claim_outputs;
use dice_ood::{Error, Report, Result};
use serde::Serialize;

#[cfg(feature = "pictures")]
use super::pictures::Studio;
use super::provenance::Provenance;
use super::svg::Drawing;
use super::{FIGURE_STYLE, PaperNotes, published, why};
use crate::eval::{Compared, Look};
use crate::html::COLOURS;
use crate::names::{shown, shown_words};
use crate::report::{Format, Table, json, tables as report_tables};

const FORMATS: [(&str, Format); 3] = [("tex", Format::Latex), ("md", Format::Markdown), ("csv", Format::Csv)];
/// Where all numbers are.
const NUMBERS: &str = "report.json";
/// The endings of all files.
const ENDINGS: [&str; 7] = ["svg", "png", "pdf", "tex", "md", "csv", "json"];
/// Pixels of a figure in a file of its own, to one unit of the figure.
const ENLARGED: f64 = 2.0;

/// Files that are in `folder` and that figures or tables may take the place of.
pub(crate) fn replaced_in(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let ours = |file: &PathBuf| file.extension().is_some_and(|ending| ENDINGS.iter().any(|one| ending == *one));
    files.filter(ours).collect()
}

/// Writes figures, each by what it shows and its number among those of its kind.
pub(super) fn figures(folder: &Path, figures: &[(&'static str, Drawing)]) -> Result<()> {
    make(folder)?;
    #[cfg(feature = "pictures")]
    let studio = Studio::new();
    let mut seen = BTreeMap::new();
    for (kind, drawing) in figures {
        let number = seen.entry(kind).and_modify(|number| *number += 1).or_insert(1);
        let svg = alone(drawing);
        let file = folder.join(format!("{kind}-{number}.svg"));
        write(&file, svg.as_bytes())?;
        #[cfg(feature = "pictures")]
        {
            let picture = studio.picture(&svg).map_err(|error| error.file(file.display()))?;
            write(&file.with_extension("png"), &picture.png().map_err(|error| error.file(file.display()))?)?;
            write(&file.with_extension("pdf"), &picture.pdf().map_err(|error| error.file(file.display()))?)?;
        }
    }
    Ok(())
}

/// A figure of the page as one that needs no page: in the colours of a light one, on white.
fn alone(drawing: &Drawing) -> String {
    let mut style = FIGURE_STYLE.to_owned();
    // The first block of colours is the light one.
    for setting in COLOURS.split('}').next().unwrap_or_default().split(['{', ';']) {
        if let Some((name, value)) = setting.split_once(':').filter(|(name, _)| name.trim().starts_with("--")) {
            style = style.replace(&format!("var({})", name.trim()), value.trim());
        }
    }
    let (svg, [left, top, width, height]) = drawing.alone();
    let (across, down) = (ENLARGED * width, ENLARGED * height);
    let opened = format!("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{across}\" height=\"{down}\" ");
    let ground = format!("<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>");
    let background = format!("</desc><style>\n{style}</style>{ground}");
    svg.replacen("<svg ", &opened, 1).replacen("</desc>", &background, 1)
}

/// All that a page is made of, as numbers.
#[derive(Serialize)]
struct Numbers<'a> {
    #[serde(flatten)]
    report: &'a Report,
    pruning: Option<&'a Anatomy>,
    inputs: &'a [Look],
    provenance: &'a Provenance,
}

/// Writes the tables, and every number.
pub(super) fn tables(
    folder: &Path,
    Compared { report, anatomy, looks, .. }: &Compared,
    notes: Option<&PaperNotes>,
    provenance: &Provenance,
) -> Result<()> {
    make(folder)?;
    let anatomy = anatomy.as_ref().and_then(|found| found.as_ref().ok());
    let mut tables = report_tables(report, false).into_iter();
    let decided = report.detectors.iter().any(|one| one.decision.is_some());
    let mut made = vec![("methods", tables.next())];
    made.push(("decisions", if decided { tables.next() } else { None }));
    made.push(("accuracies", tables.next()));
    made.push(("published", notes.map(published::table)));
    made.extend(anatomy.into_iter().flat_map(why::tables).map(|(name, table)| (name, Some(table))));
    for (name, table) in made.into_iter().filter_map(|(name, table)| Some((name, plain(table?)))) {
        for (ending, format) in FORMATS {
            write(&folder.join(format!("{name}.{ending}")), table.render(format).as_bytes())?;
        }
    }
    write(&folder.join(NUMBERS), json(&Numbers { report, pruning: anatomy, inputs: looks, provenance })?.as_bytes())
}

/// The same with names that stay in their cell and turn nothing around them.
fn plain(mut table: Table) -> Table {
    table.title = shown_words(&table.title);
    table.header.iter_mut().chain(table.rows.iter_mut().flatten()).for_each(|cell| *cell = shown(cell));
    table
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))
}

/// Claims a file unless it is there: those that are were claimed before anything was read.
pub(crate) fn claim_new(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err() { claim_outputs([path]) } else { Ok(()) }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    claim_new(path)?;
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(|error| Error::io(path, error))?;
    file.commit()
}
