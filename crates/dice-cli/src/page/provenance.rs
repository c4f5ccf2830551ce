//! Where a page comes from: the files with what they hold, the conventions of its numbers, the commands that make it again.

use std::fmt::Write;
use std::path::PathBuf;

use dice_ood::Result;
use dice_ood::io::{Location, expand};
use serde::Serialize;

use super::{Contents, Page};
use crate::eval::{Comparison, Read};
use crate::html::{escaped, named};
use crate::names::{quoted, visible};
use crate::report::{count, percent};
use crate::sources::Source;

const IN: &str = "in-distribution";
const OUT: &str = "out-of-distribution";

/// What made a page.
#[derive(Serialize)]
pub(crate) struct Provenance {
    /// Of dice.
    version: &'static str,
    /// Command lines, in the order in which they run.
    pub(crate) commands: Vec<String>,
    pub(crate) sources: Vec<Source>,
}

impl Provenance {
    /// Reads the inputs once more.
    pub(super) fn of(page: &Page, read: &Read) -> Result<Self> {
        let of = &page.comparison;
        let sources = if of.scores { of_scores(of)? } else { of_features(of, read)? };
        Ok(Self { version: env!("CARGO_PKG_VERSION"), commands: vec![command(page)], sources })
    }
}

fn of_features(of: &Comparison, read: &Read) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    if let Some(path) = &of.artifact {
        sources.push(Source::of_file("detectors", path)?);
    }
    sources.extend(of.model.iter().map(|model| Source {
        role: "network",
        set: None,
        given: vec![model.clone()],
        files: 1,
        sha256: read.network.clone(),
    }));
    sources.push(Source::of(IN, &of.id, &read.id)?);
    if let Some(labels) = &of.id_labels {
        sources.push(Source::of("labels", std::slice::from_ref(labels), &[Location::parse(labels).path])?);
    }
    for ((label, given), files) in of.ood.iter().zip(&read.ood) {
        sources.push(Source::of(OUT, std::slice::from_ref(given), files)?.called(&label.name));
    }
    Ok(sources)
}

fn of_scores(of: &Comparison) -> Result<Vec<Source>> {
    let files =
        |given: &[String]| -> Result<Vec<PathBuf>> { Ok(expand(given)?.into_iter().map(|file| file.path).collect()) };
    let mut sources = vec![Source::of(IN, &of.id, &files(&of.id)?)?];
    for (label, given) in &of.ood {
        let given = std::slice::from_ref(given);
        sources.push(Source::of(OUT, given, &files(given)?)?.called(&label.name));
    }
    Ok(sources)
}

pub(super) fn section(page: &Contents<'_>) -> String {
    let Provenance { version, commands, sources } = page.provenance;
    let mut text = "<h2>Where this comes from</h2>\n<ul class=\"soft\">\n".to_owned();
    for source in sources {
        let _ = writeln!(text, "<li>{}</li>", told(source));
    }
    let _ = writeln!(
        text,
        "<li>FPR is the share of out-of-distribution inputs accepted where {} % of in-distribution ones are (in-distribution positive, as in the DICE \
         paper); AUPR-in is average precision; averages weigh sets, not inputs. Intervals: 95 % percentiles of {} bootstrap replicates, seed {}.</li>",
        percent(page.report.at_tpr),
        page.comparison.bootstrap,
        page.comparison.seed
    );
    let commands: Vec<String> = commands.iter().map(|line| format!("<code>{}</code>", escaped(line))).collect();
    let _ = writeln!(text, "<li>Made by dice {version} with {}</li>\n</ul>", commands.join(" and then "));
    text
}

/// What a source is, how it was named, and its hash.
fn told(Source { role, set, given, files, sha256 }: &Source) -> String {
    let set = set.as_deref().map_or_else(String::new, |set| format!(" {}", named(set)));
    let (first, rest) = role.split_at(1);
    let given: Vec<String> = given.iter().map(|name| named(name)).collect();
    let hash = match (sha256, files) {
        (Some(hash), 1) => format!("SHA-256 <code>{hash}</code>"),
        (Some(hash), files) => {
            format!("{} files, whose list by sha256sum has SHA-256 <code>{hash}</code>", count(*files))
        }
        (None, _) => "a stream, without a hash".into(),
    };
    format!("{}{rest}{set}: {}; {hash}", first.to_uppercase(), given.join(", "))
}

/// The command that makes a page again.
fn command(Page { comparison: of, no_ablations, .. }: &Page) -> String {
    let mut words = vec!["dice report".to_owned()];
    words.extend(of.artifact.iter().map(|path| quoted(&path.display().to_string())));
    words.extend(of.scores.then(|| "--scores".into()));
    words.extend(of.model.iter().map(|model| format!("--model {}", quoted(model))));
    words.push("--id".into());
    words.extend(of.id.iter().map(|file| quoted(file)));
    words.extend(of.id_labels.iter().map(|file| format!("--id-labels {}", quoted(file))));
    for (label, file) in &of.ood {
        let distance = label.distance.map(|distance| format!("{}:", distance.name())).unwrap_or_default();
        words.push(format!("--ood {}", quoted(&format!("{distance}{}={file}", label.name))));
    }
    let all: Vec<String> = of.detectors.iter().map(ToString::to_string).collect();
    words.extend(all.iter().map(|wanted| format!("-d {}", quoted(wanted))));
    words.push(format!("--at-tpr {} --bootstrap {} --seed {}", of.at_tpr, of.bootstrap, of.seed));
    words.extend(of.tpr.map(|tpr| format!("--tpr {tpr}")));
    words.extend(no_ablations.then(|| "--no-ablations".into()));
    words.push("-o report.html".into());
    visible(&words.join(" "))
}
