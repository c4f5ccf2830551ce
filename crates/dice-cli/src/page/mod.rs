//! `dice report`: one page on how good detectors are, where they fail, and what they were compared on.

mod curves;
mod files;
mod inputs;
mod methods;
mod parts;
#[cfg(feature = "pictures")]
mod pdf;
#[cfg(feature = "pictures")]
mod pictures;
mod provenance;
mod published;
mod sections;
mod svg;
mod why;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use dice_ood::diagnosis::Anatomy;
use dice_ood::io::AtomicFile;
use dice_ood::{Error, Report, Result};
use sha2::{Digest, Sha256};

use crate::advice::paragraph;
use crate::eval::{Compared, Comparison, Figures, Look, Told};
use crate::html::{COLOURS, base64};
use crate::names::visible;
use crate::said::{Context, print};
use crate::sources::Source;

pub(crate) use files::{claim_new, replaced_in};
use provenance::Provenance;
pub(crate) use published::{Beside, Pair};
use svg::Drawing;

/// Make one page on detectors and the sets that they are compared on.
///
/// Decisions, the reliability of p-values, distributions of scores, ROC and precision-recall curves with bands, a table of methods
/// and sets with intervals, and differences to energy. The numbers are those of `dice eval --format json`. The page needs no other file and no network; it follows the light or dark
/// setting of whoever reads it.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Page {
    #[command(flatten)]
    pub(crate) comparison: Comparison,
    /// Leave out the ablations of the paper, which cost twelve times what the sweep over p does.
    #[arg(long)]
    pub(crate) no_ablations: bool,
    #[cfg_attr(
        feature = "pictures",
        doc = "Also write every figure to this folder, as files of their own: .svg, .png (two pixels to one of the .svg) and .pdf."
    )]
    #[cfg_attr(
        not(feature = "pictures"),
        doc = "Also write every figure to this folder, as files of their own: .svg alone, as this program was built without `pictures`."
    )]
    #[arg(long, value_name = "DIR")]
    pub(crate) figures: Option<PathBuf>,
    /// Also write the tables to this folder: .tex (a tabular that needs the package booktabs), .md and .csv, and all numbers as report.json.
    #[arg(long, value_name = "DIR")]
    pub(crate) tables: Option<PathBuf>,
    /// Where to write; standard output by default.
    #[arg(long, short, value_name = "FILE.html")]
    pub(crate) output: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  dice report detector.safetensors --id test.npy --ood svhn=svhn.npy --ood textures=dtd.npy -o report.html
  dice report all.safetensors -d all --id test.npy --ood near:cifar100=c100.npy --ood far:svhn=svhn.npy --sort near-auroc -o report.html
  dice report detector.safetensors --model resnet.onnx --id val/ --ood textures=dtd/images/ -o report.html
  dice report d.safetensors --id test.npy --ood svhn=svhn.npy -o report.html --figures figures --tables tables
  dice report --scores --id id_scores.npy --ood svhn=svhn_scores.npy -o report.html

The best detector by --sort (FPR by default) comes first and is drawn beside energy, or beside the second where there is no energy.
What pruning does inside the network is shown of the first detector given that prunes the head, one with energy as its score if there is
such. The same inputs give the same bytes.

The last section, and report.json of --tables, have SHA-256 of each input, which are read once more for it: of a file that of `sha256sum`; of several files
or a folder that of the list which `sha256sum` prints of them, sorted by name, names below the innermost folder that holds them all:
  cd FOLDER && find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum
Only files that are read count. Of a network it is that of its file, with the weights beside it where there are some; streams have none.";

/// What the table's headings do where scripts run: a press sorts by that column.
const SCRIPT: &str = include_str!("sort.js");
const STYLE: &str = include_str!("style.css");
/// What is shared with figures in files of their own.
const FIGURE_STYLE: &str = include_str!("figure.css");

/// What is told of a paper whose numbers are made again.
pub(crate) struct PaperNotes {
    /// Published numbers that have one of ours.
    pub(crate) beside: Vec<Beside>,
    /// What cannot be had, and why.
    pub(crate) notes: Vec<String>,
    /// The command that fitted the detectors, and the files that it read.
    pub(crate) fitted: (String, Vec<Source>),
}

/// What is told of a paper, given what was found.
type Notes<'a> = &'a dyn Fn(&Report) -> Result<PaperNotes>;

/// All that a page tells.
struct Contents<'a> {
    report: &'a Report,
    /// The advice, line by line.
    advice: Vec<String>,
    /// What pruning does, of the first detector that prunes; or why that cannot be told.
    anatomy: Option<&'a std::result::Result<Anatomy, String>>,
    /// Inputs that are worth a look.
    looks: &'a [Look],
    notes: Option<&'a PaperNotes>,
    comparison: &'a Comparison,
    provenance: &'a Provenance,
    /// The figures so far: what each shows, and itself.
    figures: RefCell<Vec<(&'static str, Drawing)>>,
}

impl Page {
    /// The files that are written, as far as they are known before anything is read.
    pub(crate) fn outputs(&self) -> Vec<PathBuf> {
        let folders: BTreeSet<&PathBuf> = self.figures.iter().chain(&self.tables).collect();
        let replaced = folders.into_iter().flat_map(|folder| files::replaced_in(folder));
        self.output.iter().cloned().chain(replaced).collect()
    }

    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        self.run_beside(None, context)
    }

    /// The same with what is told of a paper beside it.
    pub(crate) fn run_beside(&self, paper: Option<Notes<'_>>, context: &Context) -> Result<()> {
        let told = Told { advice: true, bars: false, figures: Some(Figures { ablations: !self.no_ablations }) };
        let found = self.comparison.compared(told, context)?;
        let mut notes = paper.map(|paper| paper(&found.report)).transpose()?;
        let mut provenance = Provenance::of(self, &found.read)?;
        if let Some(PaperNotes { fitted: (command, sources), .. }) = &mut notes {
            provenance.commands.insert(0, visible(command));
            provenance.sources.append(sources);
        }
        let (page, figures) = page(&found, notes.as_ref(), &self.comparison, &provenance);
        match &self.output {
            Some(path) if path != Path::new("-") => {
                let mut file = AtomicFile::create(path)?;
                file.write_all(page.as_bytes()).map_err(|error| Error::io(path, error))?;
                file.commit()?;
            }
            _ => print(&page)?,
        }
        if let Some(folder) = &self.figures {
            files::figures(folder, &figures)?;
        }
        if let Some(folder) = &self.tables {
            files::tables(folder, &found, notes.as_ref(), &provenance)?;
        }
        self.comparison.conclude(&found.report, context)
    }
}

fn page(
    Compared { report, steps, anatomy, looks, .. }: &Compared,
    notes: Option<&PaperNotes>,
    comparison: &Comparison,
    provenance: &Provenance,
) -> (String, Vec<(&'static str, Drawing)>) {
    let advice = report.advice.as_ref().map(|advice| paragraph(advice, steps, report.at_tpr)).unwrap_or_default();
    let advice = anstream::adapter::strip_str(&advice).to_string();
    let advice = advice.lines().skip(1).map(str::to_owned).collect();
    let told = Contents {
        report,
        advice,
        anatomy: anatomy.as_ref(),
        looks,
        notes,
        comparison,
        provenance,
        figures: RefCell::default(),
    };
    let hash = base64(&Sha256::digest(SCRIPT.as_bytes()));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{hash}'; \
         base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n\
         <title>dice report</title>\n<style>\n{COLOURS}{STYLE}{FIGURE_STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    for section in sections::ALL {
        page += &section(&told);
    }
    page += &format!("</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n");
    (page, told.figures.into_inner())
}
