//! `dice sweep`: what parameters do, over a grid of their values.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use dice_ood::evaluation::{Averages, DetectorReport, Distance, EvaluationOptions, Ranking, SetLabel, TestSet, sweep};
use dice_ood::grid::{Candidate, Grid, Template, expand, fit};
use dice_ood::io::AtomicFile;
use dice_ood::{Calibrated, Detector, Error, HoldOut, Needs, Report, Result, Salience, Statistics};
use serde::Serialize;

use crate::basis::{Basis, Gathered, Read, standard_input_once};
use crate::eval::parse_set;
use crate::layout::{curve, is_unicode, width_of};
use crate::progress::Bar;
use crate::ranking::ranking_parser;
use crate::report::{Format, Table, count, json, percent, warn_of_overlaps};
use crate::said::{Context, print};
use crate::score::OnNonFinite;

/// Show what parameters of detectors do: FPR, AUROC, ID accuracy and the contribution kept, over a grid of their values.
///
/// Words of capital letters in a detector stand for values: any parameter of any method, words too. All values of DICE's p (or of any
/// sparsity whose masks nest) are scored in one pass. The best line of this table was chosen by the sets of this table: to choose a
/// detector, and to know how good it is, use `dice tune`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Sweep {
    #[command(flatten)]
    basis: Basis,
    /// A detector with placeholders, as in 'react(R) | dice(P) | energy'; repeat for several.
    #[arg(long = "detector", short = 'd', required = true, value_name = "SPEC")]
    detectors: Vec<Template>,
    /// The values of a placeholder: NAME=VALUE,VALUE,... or NAME=FROM:TO:COUNT, ends included.
    #[arg(long = "grid", value_name = "NAME=VALUES")]
    grids: Vec<Grid>,
    /// In-distribution test features [N, D]; labels beside them give accuracies.
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    id: Vec<String>,
    /// Labels of the in-distribution test set, where they are in a file of their own.
    #[arg(long, value_name = "FILE")]
    id_labels: Option<String>,
    /// An out-of-distribution test set; repeat for several. near:NAME=FILE and far:NAME=FILE get averages of their own.
    #[arg(long, required = true, value_name = "[near:|far:]NAME=FILE", value_parser = parse_set)]
    ood: Vec<(SetLabel, String)>,
    /// Put the best line first, in place of the order of the grid.
    #[arg(long, value_name = "METRIC", value_parser = ranking_parser())]
    sort: Option<Ranking>,
    /// The TPR at which FPR is taken.
    #[arg(long, default_value_t = 0.95, value_name = "RATE", value_parser = crate::flags::rate, allow_negative_numbers = true)]
    at_tpr: f64,
    /// What to do with inputs that hold NaN or infinity.
    #[arg(long, default_value = "reject")]
    non_finite: OnNonFinite,
    /// How to print; by default as the extension of --output says (.md .tex .csv .json), else a table and curves.
    #[arg(long)]
    format: Option<Format>,
    /// Where to write; standard output by default.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  dice sweep detector.safetensors -d 'dice(P) | energy' --grid P=0:0.99:20 --id test.safetensors --ood svhn=svhn.npy
  dice sweep --features train.safetensors --head head.pth -d 'react(R) | dice(P) | energy' \\
      --grid R=0.9,0.99 --grid P=0:0.9:10 --id test.npz --ood near:cifar100=c100.npy --ood far:svhn=svhn.npy -o sweep.csv
  dice sweep detector.safetensors -d 'dice(0.9, preset=S) | energy' --grid S=paper,official,openood \\
      --id test.npy --ood svhn=svhn.npy

The last --grid runs fastest; each curve follows it. `kept` is the share of positive contributions that the kept weights carry.
Combinations take --features: a tenth of the rows is held out for the p-values of their members.";

/// A line of the table.
#[derive(Serialize)]
struct Line<'a> {
    values: std::collections::BTreeMap<&'a str, &'a str>,
    /// None for a combination.
    contribution_kept: Option<f64>,
    detector: &'a str,
    accuracy: Option<f64>,
    sets: Vec<Rates<'a>>,
    average: Option<Averages>,
    near: Option<Averages>,
    far: Option<Averages>,
}

#[derive(Serialize)]
struct Rates<'a> {
    ood: &'a str,
    distance: Option<Distance>,
    ood_inputs: usize,
    fpr_at_tpr: f64,
    auroc: f64,
    aupr_in: f64,
    aupr_out: f64,
}

#[derive(Serialize)]
struct Told<'a> {
    at_tpr: f64,
    id_inputs: usize,
    dense_accuracy: Option<f64>,
    note: &'static str,
    points: Vec<Line<'a>>,
}

const ORACLE: &str = "The best line was chosen by the very sets that it is measured on: an oracle. To choose a detector and to know how \
                      good it is, use `dice tune`.";

impl Sweep {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let candidates = expand(&self.detectors, &self.grids)?;
        standard_input_once(self.id.iter().chain(self.ood.iter().map(|(_, file)| file)).chain(&self.basis.features))?;
        let others = self.id.iter().chain(self.ood.iter().map(|(_, file)| file)).map(String::as_str);
        let basis = self.basis.read(others, context)?;
        let id = basis.inputs(&self.id, self.id_labels.as_ref(), context)?;
        let ood = self.ood.iter().map(|(label, file)| {
            Ok((label, basis.inputs(std::slice::from_ref(file), None, context)?.without_labels()))
        });
        let ood = ood.collect::<Result<Vec<_>>>()?;
        let (statistics, detectors) = fitted(&basis, &candidates, context)?;
        let calibrated: Vec<Calibrated> = detectors.iter().cloned().map(Calibrated::scores_only).collect();
        let options = EvaluationOptions {
            at_tpr: self.at_tpr,
            bootstrap: 0,
            seed: 0,
            non_finite: self.non_finite.into(),
            advise: None,
            draw: false,
        };
        let sets = ood.iter().map(|(label, inputs)| TestSet::new((*label).clone(), || inputs.open(context))).collect();
        let mut report =
            sweep(&calibrated, TestSet::new(id.name(), || id.open(context)), sets, &options, &mut Bar::new(context))?;
        let curves = curves(&report, &candidates);
        self.sort.map_or(Ok(()), |by| report.sort(by))?;
        let kept: Vec<Option<f64>> = detectors.iter().map(|detector| kept(detector, &statistics)).collect();
        let lines: Vec<Line<'_>> = report.detectors.iter().map(|one| line(one, &candidates, &kept)).collect();
        self.write(&self.render(&report, lines, &curves)?)?;
        warn_of_overlaps(&report, context);
        context.note(ORACLE);
        Ok(())
    }

    fn render(&self, report: &Report, lines: Vec<Line<'_>>, curves: &str) -> Result<String> {
        let extension = self.output.as_ref().and_then(|path| path.extension()).and_then(|extension| extension.to_str());
        let format = self.format.unwrap_or(match extension {
            Some("md") => Format::Markdown,
            Some("tex") => Format::Latex,
            Some("csv") => Format::Csv,
            Some("json") => Format::Json,
            _ => Format::Table,
        });
        Ok(match format {
            Format::Json => json(&Told {
                at_tpr: report.at_tpr,
                id_inputs: report.id_inputs,
                dense_accuracy: report.dense_accuracy,
                note: ORACLE,
                points: lines,
            })?,
            Format::Csv => every_value(&lines).render(format),
            Format::Table => table(report, &lines).fitted(width_of(self.output.as_deref())) + "\n" + curves,
            Format::Markdown | Format::Latex => table(report, &lines).render(format),
        })
    }

    fn write(&self, text: &str) -> Result<()> {
        match &self.output {
            Some(path) if path != Path::new("-") => {
                let mut file = AtomicFile::create(path)?;
                let plain = anstream::adapter::strip_str(text).to_string();
                file.write_all(plain.as_bytes()).map_err(|error| Error::io(path, error))?;
                file.commit()
            }
            _ => print(text),
        }
    }
}

/// Fits the candidates; those of combinations on a tenth of the training features.
fn fitted(basis: &Read, candidates: &[Candidate], context: &Context) -> Result<(Statistics, Vec<Detector>)> {
    let needs = candidates.iter().fold(Needs::marginals(), |needs, one| needs.and(one.spec.needs()));
    match &basis.from {
        Gathered::Statistics(statistics) => {
            let detectors = fit(candidates, &basis.head, statistics, None)?;
            Ok((statistics.clone(), detectors))
        }
        Gathered::Features(data) => {
            let mut bar = Bar::new(context);
            dice_ood::Progress::advance(&mut bar, "gathering", 0, None);
            let combined = candidates.iter().any(|one| one.spec.as_pipeline().is_none());
            if !combined {
                let statistics = Statistics::gather(&mut data.open()?, Some(&basis.head), &needs)?;
                let detectors = fit(candidates, &basis.head, &statistics, None)?;
                return Ok((statistics, detectors));
            }
            let part = HoldOut::new(0.1, 0)?;
            let statistics = Statistics::gather(&mut part.remaining(data.open()?), Some(&basis.head), &needs)?;
            let mut reference = part.held_out(data.open()?);
            let detectors = fit(candidates, &basis.head, &statistics, Some(&mut reference))?;
            Ok((statistics, detectors))
        }
    }
}

/// The share of the contribution that a detector keeps; none for a combination.
fn kept(detector: &Detector, statistics: &Statistics) -> Option<f64> {
    detector.spec().as_pipeline()?;
    Some(Salience::measure(detector.head(), statistics, detector.mask()).contribution_kept)
}

fn line<'a>(report: &'a DetectorReport, candidates: &'a [Candidate], kept: &[Option<f64>]) -> Line<'a> {
    let place = candidates.iter().position(|one| one.spec.to_string() == report.detector).unwrap_or(0);
    let rates = |set: &'a dice_ood::evaluation::SetReport| Rates {
        ood: &set.ood,
        distance: set.distance,
        ood_inputs: set.ood_inputs,
        fpr_at_tpr: set.metrics.fpr_at_tpr,
        auroc: set.metrics.auroc,
        aupr_in: set.metrics.aupr_in,
        aupr_out: set.metrics.aupr_out,
    };
    Line {
        values: candidates[place].values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        contribution_kept: kept[place],
        detector: &report.detector,
        accuracy: report.accuracy,
        sets: report.sets.iter().map(rates).collect(),
        average: report.average,
        near: report.near,
        far: report.far,
    }
}

/// FPR and AUROC of each set and of the averages, in percent.
fn table(report: &Report, lines: &[Line<'_>]) -> Table {
    let first = &lines[0];
    let averages = |line: &Line<'_>| {
        let several = line.average.filter(|_| line.sets.len() > 1);
        [("near average", line.near), ("far average", line.far), ("average", several)]
    };
    let shown: Vec<String> = first
        .sets
        .iter()
        .map(|set| set.ood.to_owned())
        .chain(averages(first).into_iter().filter_map(|(name, average)| average.map(|_| name.to_owned())))
        .collect();
    let mut header = vec!["detector".to_owned()];
    header.extend(shown.iter().flat_map(|name| [format!("{name} FPR↓"), "AUROC↑".to_owned()]));
    header.extend(["ID acc.".to_owned(), "kept".to_owned()]);
    let title = format!(
        "{} detectors on {} ID inputs; FPR at {} % TPR, all in percent",
        count(lines.len()),
        count(report.id_inputs),
        percent(report.at_tpr)
    );
    let mut table = Table::new(title, &[], 1);
    table.header = header;
    for line in lines {
        let mut row = vec![line.detector.to_owned()];
        row.extend(line.sets.iter().flat_map(|set| [percent(set.fpr_at_tpr), percent(set.auroc)]));
        let averages = averages(line).into_iter().filter_map(|(_, average)| average);
        row.extend(averages.flat_map(|average| [percent(average.fpr_at_tpr), percent(average.auroc)]));
        row.extend([line.accuracy, line.contribution_kept].map(|share| share.map_or("-".into(), percent)));
        table.rows.push(row);
    }
    table
}

/// One row a detector, as fractions: the values of placeholders, then every rate by its name.
fn every_value(lines: &[Line<'_>]) -> Table {
    let mut names: Vec<&str> = lines.iter().flat_map(|line| line.values.keys().copied()).collect();
    names.sort_unstable();
    names.dedup();
    let mut table = Table::new("", &[], 1);
    table.header = vec!["detector".to_owned()];
    table.header.extend(names.iter().map(|name| (*name).to_owned()));
    table.header.extend(["id_accuracy", "contribution_kept"].map(str::to_owned));
    for set in &lines[0].sets {
        table
            .header
            .extend(["fpr_at_tpr", "auroc", "aupr_in", "aupr_out"].map(|metric| format!("{}_{metric}", set.ood)));
    }
    for of in ["average", "near", "far"] {
        table.header.extend(["fpr_at_tpr", "auroc"].map(|metric| format!("{of}_{metric}")));
    }
    for line in lines {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let mut row = vec![line.detector.to_owned()];
        row.extend(names.iter().map(|name| line.values.get(name).copied().unwrap_or_default().to_owned()));
        row.extend([number(line.accuracy), number(line.contribution_kept)]);
        let of_set =
            |set: &Rates<'_>| [set.fpr_at_tpr, set.auroc, set.aupr_in, set.aupr_out].map(|rate| rate.to_string());
        row.extend(line.sets.iter().flat_map(of_set));
        for average in [line.average, line.near, line.far] {
            row.extend([number(average.map(|of| of.fpr_at_tpr)), number(average.map(|of| of.auroc))]);
        }
        table.rows.push(row);
    }
    table
}

/// A curve of the average FPR for each run of the grid that runs fastest.
fn curves(report: &Report, candidates: &[Candidate]) -> String {
    let mut text = String::new();
    let mut start = 0;
    while start < candidates.len() {
        let Some((name, first)) = candidates[start].values.last() else {
            start += 1;
            continue;
        };
        let fixed = |one: &Candidate| one.values.split_last().map(|(_, fixed)| fixed.to_vec());
        let same = |one: &&Candidate| {
            fixed(one) == fixed(&candidates[start]) && one.values.last().is_some_and(|(other, _)| other == name)
        };
        let length = candidates[start..].iter().take_while(same).count();
        let run = start..start + length;
        if length > 1 {
            let rates: Vec<f64> =
                report.detectors[run.clone()].iter().filter_map(|one| Some(one.average?.fpr_at_tpr)).collect();
            let last = candidates[run.end - 1].values.last().map_or("", |(_, value)| value);
            let others: Vec<String> =
                fixed(&candidates[start]).iter().flatten().map(|(name, value)| format!("{name}={value}, ")).collect();
            let (low, high) = rates.iter().fold((1f64, 0f64), |(low, high), rate| (low.min(*rate), high.max(*rate)));
            let _ = writeln!(
                text,
                "{}{name}={first}..{last}: average FPR {} {} to {} %",
                others.concat(),
                curve(&rates, low, high, is_unicode()),
                percent(low),
                percent(high)
            );
        }
        start = run.end;
    }
    text
}
