//! Reports as tables in text, Markdown, LaTeX and CSV, and how numbers are written.

use dice_ood::evaluation::{Averages, DetectorReport, Overlap, SetReport};
use dice_ood::metrics::{Interval, Intervals, Metrics};
use dice_ood::{Check, Error, ErrorKind, Report, Result, Side, Verdict};
use serde::Serialize;

use crate::latex::tabular;
use crate::layout::{Fitted, curve, width_of, wrap};
use crate::names::{shown, visible};
use crate::said::Context;

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for a terminal.
    Table,
    /// A Markdown table.
    Markdown,
    /// A LaTeX tabular (booktabs).
    Latex,
    /// Every metric, one row for each detector and set.
    Csv,
    /// Everything.
    Json,
}

/// A table: the first `left` columns are text, the others numbers.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
    pub(crate) left: usize,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, header: &[&str], left: usize) -> Self {
        let header = header.iter().map(|name| (*name).to_owned()).collect();
        Self { title: title.into(), header, rows: Vec::new(), left }
    }

    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Table | Format::Json => self.fitted(None),
            Format::Markdown => self.markdown(),
            Format::Latex => tabular(&self.title, &self.header, &self.rows, self.left),
            Format::Csv => self.csv(),
        }
    }

    /// Lines as wide as the terminal, where standard output is one.
    pub(crate) fn on_terminal(&self) -> String {
        self.fitted(width_of(None))
    }

    /// Lines of at most so many characters: text is wrapped, and columns that do not fit are left out, which the last line says.
    pub(crate) fn fitted(&self, limit: Option<usize>) -> String {
        let seen = |cells: &Vec<String>| cells.iter().map(|cell| visible(cell)).collect::<Vec<_>>();
        let (header, rows) = (seen(&self.header), self.rows.iter().map(seen).collect::<Vec<_>>());
        let width = |column: usize| {
            let cells = std::iter::once(&header).chain(&rows).map(|cells| cells[column].chars().count());
            cells.max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        // A column without a heading says more of the one before it, and bars show what numbers say.
        let lesser = |column: usize| self.header[column].is_empty() || self.header[column].ends_with(" scores");
        let fitted = Fitted::new(&widths, self.left, limit, lesser);
        let mut text = String::new();
        if !self.title.is_empty() {
            let lines = wrap(&self.title, limit.unwrap_or(usize::MAX));
            text += &format!("\x1b[1m{}\x1b[0m\n", lines.join("\n"));
        }
        let header = fitted.row(&header);
        text += &header;
        let rule = header.lines().map(|line| line.chars().count()).max().unwrap_or(0).max(8);
        text += &format!("{}\n", "-".repeat(rule));
        for row in &rows {
            text += &fitted.row(row);
        }
        text + &self.left_out(fitted.dropped(), limit)
    }

    /// Which columns are not shown, and how they are seen.
    fn left_out(&self, dropped: &[usize], limit: Option<usize>) -> String {
        let name = |place: &usize| match (&*self.header[*place], *place) {
            ("", 0) => "the first".to_owned(),
            ("", place) => format!("more of {}", shown(&self.header[place - 1])),
            (name, _) => shown(name),
        };
        let names: Vec<String> = dropped.iter().map(name).collect();
        if names.is_empty() {
            return String::new();
        }
        let note = format!("Too wide to be shown: {}; in a wider terminal, or with | cat, they are.", names.join(", "));
        wrap(&note, limit.unwrap_or(usize::MAX)).join("\n") + "\n"
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            format!("| {} |\n", cells.join(" | "))
        };
        let mut text = if self.title.is_empty() { String::new() } else { format!("**{}**\n\n", self.title) };
        text += &line(&self.header);
        let rule: Vec<&str> =
            (0..self.header.len()).map(|column| if column < self.left { "---" } else { "---:" }).collect();
        text += &format!("| {} |\n", rule.join(" | "));
        for row in &self.rows {
            text += &line(row);
        }
        text
    }

    fn csv(&self) -> String {
        let quote = |cell: &String| {
            if cell.contains([',', '"', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
        };
        std::iter::once(&self.header)
            .chain(&self.rows)
            .map(|row| row.iter().map(quote).collect::<Vec<_>>().join(",") + "\n")
            .collect()
    }
}

/// A report as tables: the usual metrics or all of them, then what thresholds do and accuracies, where there are any.
pub(crate) fn tables(report: &Report, all_metrics: bool) -> Vec<Table> {
    let alone = report.detectors.iter().all(|detector| detector.sets.is_empty());
    let mut tables = vec![match (all_metrics, alone) {
        (true, _) => every_metric(report),
        (false, true) => scores(report),
        (false, false) => headline(report),
    }];
    if report.detectors.iter().any(|detector| detector.decision.is_some()) {
        tables.push(decisions(report));
    }
    if report.dense_accuracy.is_some() {
        tables.push(accuracies(report));
    }
    tables
}

/// The paper's columns, with intervals.
fn headline(report: &Report) -> Table {
    let fpr = format!("FPR@{}TPR ↓", trimmed(100.0 * report.at_tpr));
    let has_intervals = report.detectors.iter().flat_map(|detector| &detector.sets).any(|set| set.intervals.is_some());
    let mut table = Table::new(
        format!(
            "{} in-distribution inputs; in percent, ID positive{}",
            count(report.id_inputs),
            if has_intervals { ", with 95 % bootstrap intervals" } else { "" }
        ),
        &["detector", "OOD set", "inputs", &fpr, "", "AUROC ↑", "", "AUPR-in ↑", "AUPR-out ↑"],
        2,
    );
    let interval = |interval: Option<Interval>| {
        interval.map(|i| format!("[{:.1}, {:.1}]", 100.0 * i.low, 100.0 * i.high)).unwrap_or_default()
    };
    for detector in &report.detectors {
        for (place, set) in detector.sets.iter().enumerate() {
            table.rows.push(vec![
                if place == 0 { detector.detector.clone() } else { String::new() },
                match set.distance {
                    Some(distance) => format!("{} ({})", set.ood, distance.name()),
                    None => set.ood.clone(),
                },
                count(set.ood_inputs),
                percent(set.metrics.fpr_at_tpr),
                interval(set.intervals.map(|i| i.fpr_at_tpr)),
                percent(set.metrics.auroc),
                interval(set.intervals.map(|i| i.auroc)),
                percent(set.metrics.aupr_in),
                percent(set.metrics.aupr_out),
            ]);
        }
        let several = detector.average.filter(|_| detector.sets.len() > 1);
        let averages = [("near average", detector.near), ("far average", detector.far), ("average", several)];
        for (name, average) in averages.iter().filter_map(|(name, average)| Some((*name, (*average)?))) {
            let mut row = vec![String::new(), name.into(), String::new(), percent(average.fpr_at_tpr), String::new()];
            row.extend([percent(average.auroc), String::new(), percent(average.aupr_in), percent(average.aupr_out)]);
            table.rows.push(row);
        }
    }
    table
}

/// Adds to a headline where scores lie, as bars from the lowest to the highest; nothing where a report does not carry that.
pub(crate) fn add_scores(table: &mut Table, report: &Report) {
    const TOGETHER: usize = 5;
    let bars = |counts: &[u64]| {
        let sums: Vec<f64> = counts.chunks(TOGETHER).map(|part| part.iter().sum::<u64>() as f64).collect();
        curve(&sums, 0.0, sums.iter().copied().fold(0.0, f64::max), true)
    };
    let sets = report.detectors.iter().flat_map(|one| one.sets.iter().map(move |set| (one, set)));
    let mut sets = sets.map(|(one, set)| Some([bars(&one.drawn.as_ref()?.id), bars(set.scores.as_ref()?)]));
    table.header.extend(["ID scores", "OOD scores"].map(str::to_owned));
    for row in &mut table.rows {
        // Averages have no inputs of their own.
        let is_set = !row[2].is_empty();
        let cells = if is_set { sets.next().flatten() } else { None };
        row.extend(cells.unwrap_or_default());
    }
}

/// What each threshold accepts.
fn decisions(report: &Report) -> Table {
    let mut table = Table::new(
        "Accepted by each detector's own threshold, in percent",
        &["detector", "threshold", "promised", "ID accepted", "expected (95 %)", "like calibration"],
        1,
    );
    let names: Vec<String> = report.detectors[0].sets.iter().map(|set| format!("{} accepted", set.ood)).collect();
    table.header.extend(names);
    for detector in &report.detectors {
        let mut row = vec![detector.detector.clone()];
        match &detector.decision {
            Some(decision) => row.extend([
                format!("{:.6}", decision.threshold),
                format!("≥ {}", percent(decision.promised_tpr)),
                percent(decision.id_accepted),
                format!("[{:.2}, {:.2}]", 100.0 * decision.id_expected.low, 100.0 * decision.id_expected.high),
                like_calibration(decision.check.verdict).into(),
            ]),
            None => row.extend(["none", "-", "-", "-", "-"].map(String::from)),
        }
        row.extend(detector.sets.iter().map(|set| set.accepted.map_or("-".into(), percent)));
        table.rows.push(row);
    }
    table
}

fn accuracies(report: &Report) -> Table {
    let mut table =
        Table::new("Classification accuracy on the in-distribution set, in percent", &["head", "accuracy"], 1);
    let dense = report.dense_accuracy.map_or("-".into(), percent);
    table.rows.push(vec!["dense head (use this one to predict)".into(), dense]);
    for detector in &report.detectors {
        table.rows.push(vec![detector.detector.clone(), detector.accuracy.map_or("-".into(), percent)]);
    }
    table
}

/// Columns of [`every_metric`].
const METRICS: [&str; 49] = [
    "detector",
    "ood",
    "id_inputs",
    "ood_inputs",
    "at_tpr",
    "fpr_at_tpr",
    "fpr_at_tpr_low",
    "fpr_at_tpr_high",
    "fpr_at_tpr_ood_positive",
    "auroc",
    "auroc_low",
    "auroc_high",
    "aupr_in",
    "aupr_out",
    "aupr_in_trapezoid",
    "aupr_out_trapezoid",
    "autc",
    "official_fpr",
    "official_auroc",
    "official_dterr",
    "official_auin",
    "official_auout",
    "ccr_at_fpr_1",
    "ccr_at_fpr_10",
    "accepted",
    "id_accepted",
    "promised_tpr",
    "accuracy",
    "dense_accuracy",
    "id_score_q05",
    "id_score_q50",
    "id_score_q95",
    "check_statistic",
    "check_p_value",
    "check_acceptance_p_value",
    "check_verdict",
    "distance",
    "average_fpr_at_tpr",
    "average_auroc",
    "average_aupr_in",
    "average_aupr_out",
    "near_fpr_at_tpr",
    "near_auroc",
    "near_aupr_in",
    "near_aupr_out",
    "far_fpr_at_tpr",
    "far_auroc",
    "far_aupr_in",
    "far_aupr_out",
];

/// One row for each detector and set (or detector alone), one column for each metric by its full name, as fractions.
fn every_metric(report: &Report) -> Table {
    let mut table = Table::new("", &METRICS, 2);
    for detector in &report.detectors {
        if detector.sets.is_empty() {
            table.rows.push(metrics_row(report, detector, None));
        }
        table.rows.extend(detector.sets.iter().map(|set| metrics_row(report, detector, Some(set))));
    }
    table
}

fn metrics_row(report: &Report, detector: &DetectorReport, set: Option<&SetReport>) -> Vec<String> {
    let metric = |of: fn(&Metrics) -> f64| set.map(|set| of(&set.metrics));
    let bound = |of: fn(&Intervals) -> f64| set.and_then(|set| set.intervals.as_ref()).map(of);
    let decision = detector.decision.as_ref();
    let mut row = vec![
        detector.detector.clone(),
        set.map(|set| set.ood.clone()).unwrap_or_default(),
        report.id_inputs.to_string(),
        set.map(|set| set.ood_inputs.to_string()).unwrap_or_default(),
    ];
    let values = [
        Some(report.at_tpr),
        metric(|m| m.fpr_at_tpr),
        bound(|i| i.fpr_at_tpr.low),
        bound(|i| i.fpr_at_tpr.high),
        metric(|m| m.fpr_at_tpr_ood_positive),
        metric(|m| m.auroc),
        bound(|i| i.auroc.low),
        bound(|i| i.auroc.high),
        metric(|m| m.aupr_in),
        metric(|m| m.aupr_out),
        metric(|m| m.aupr_in_trapezoid),
        metric(|m| m.aupr_out_trapezoid),
        metric(|m| m.autc),
        metric(|m| m.official.fpr),
        metric(|m| m.official.auroc),
        metric(|m| m.official.dterr),
        metric(|m| m.official.auin),
        metric(|m| m.official.auout),
        set.and_then(|set| set.ccr_at_fpr_1),
        set.and_then(|set| set.ccr_at_fpr_10),
        set.and_then(|set| set.accepted),
        decision.map(|decision| decision.id_accepted),
        decision.map(|decision| decision.promised_tpr),
        detector.accuracy,
        report.dense_accuracy,
        Some(detector.id_scores.q05),
        Some(detector.id_scores.q50),
        Some(detector.id_scores.q95),
        decision.map(|decision| decision.check.statistic),
        decision.map(|decision| decision.check.p_value),
        decision.map(|decision| decision.check.acceptance_p_value),
    ];
    let written = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    row.extend(values.map(written));
    row.push(decision.map(|decision| verdict(decision.check.verdict).replace(' ', "_")).unwrap_or_default());
    row.push(set.and_then(|set| set.distance).map(|distance| distance.name().to_owned()).unwrap_or_default());
    for of in [detector.average, detector.near, detector.far] {
        let metrics: [fn(&Averages) -> f64; 4] = [|a| a.fpr_at_tpr, |a| a.auroc, |a| a.aupr_in, |a| a.aupr_out];
        row.extend(metrics.map(|metric| written(of.as_ref().map(metric))));
    }
    row
}

/// Where scores lie, for an in-distribution set alone.
fn scores(report: &Report) -> Table {
    let mut table = Table::new(
        format!("Scores of {} in-distribution inputs", count(report.id_inputs)),
        &["detector", "min", "1 %", "5 %", "25 %", "median", "75 %", "95 %", "99 %", "max"],
        1,
    );
    for detector in &report.detectors {
        let q = &detector.id_scores;
        let quantiles = [q.min, q.q01, q.q05, q.q25, q.q50, q.q75, q.q95, q.q99, q.max];
        let row = quantiles.map(|score| format!("{score:.4}"));
        table.rows.push(std::iter::once(detector.detector.clone()).chain(row).collect());
    }
    table
}

/// A check in words.
pub(crate) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Consistent => "consistent",
        Verdict::SlightlyDifferent => "slightly different",
        Verdict::Contradicted => "contradicted",
    }
}

fn like_calibration(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Consistent => "yes",
        Verdict::SlightlyDifferent => "nearly",
        Verdict::Contradicted => "no",
    }
}

/// How a batch differs from the calibration inputs: the size of the effect, and how likely chance makes one.
pub(crate) fn contradiction(check: &Check, tpr: f64, accepted: f64) -> String {
    let lie = match check.scores {
        Side::Lower => "lower",
        Side::Higher => "higher",
    };
    format!(
        "scores lie {lie} than those of the calibration inputs (Kolmogorov-Smirnov distance {:.3}, p-value {}); {} % are rejected \
         where at most {} % were promised for in-distribution inputs (p-value {})",
        check.statistic,
        p_value(check.p_value),
        percent(1.0 - accepted),
        trimmed(100.0 * (1.0 - tpr)),
        p_value(check.acceptance_p_value),
    )
}

fn p_value(p: f64) -> String {
    match p {
        p if p < 1e-15 => "below 1e-15".into(),
        p if p < 0.001 => format!("{p:.1e}"),
        p => format!("{p:.3}"),
    }
}

/// A value as JSON text that ends in a new line.
pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()))
}

/// A fraction as a percentage with two digits, without the sign.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.2}", 100.0 * fraction)
}

/// A whole number with separators: 50,000.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn trimmed(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Warns of sets that are in-distribution in part.
pub(crate) fn warn_of_overlaps(report: &Report, context: &Context) {
    for Overlap { ood, share } in &report.overlaps {
        context.warn(format_args!(
            "{ood}: {} % of its rows are in-distribution inputs too; was the same file given twice?",
            percent(*share)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_in_every_format() {
        let mut table = Table::new("", &["detector", "FPR ↓"], 1);
        table.rows.push(vec!["dice(0.9) | energy".into(), "1.50".into()]);
        assert_eq!(
            table.render(Format::Table),
            "detector            FPR ↓\n-------------------------\ndice(0.9) | energy   1.50\n"
        );
        assert_eq!(
            table.render(Format::Markdown),
            "| detector | FPR ↓ |\n| --- | ---: |\n| dice(0.9) \\| energy | 1.50 |\n"
        );
        assert!(table.render(Format::Latex).contains("dice(0.9) \\textbar{} energy & 1.50 \\\\"));
        assert_eq!(table.fitted(Some(10)), table.fitted(None), "nothing is left to leave out");
        let mut wide = Table::new("", &["detector", "FPR ↓", "", "AUROC ↑"], 1);
        wide.rows.push(["react(0.9) | dice(0.9) | energy", "1.50", "[1.0, 2.0]", "99.00"].map(String::from).to_vec());
        assert_eq!(
            wide.fitted(Some(36)),
            "detector              FPR ↓  AUROC ↑\n------------------------------------\nreact(0.9) |           1.50    99.00\n\
             dice(0.9) | energy\nToo wide to be shown: more of FPR ↓;\nin a wider terminal, or with | cat,\nthey are.\n"
        );
        table.rows[0][0] = "a, \"b\"".into();
        assert_eq!(table.render(Format::Csv), "detector,FPR ↓\n\"a, \"\"b\"\"\",1.50\n");
        assert_eq!((count(7), count(1_234), count(1_000_000)), ("7".into(), "1,234".into(), "1,000,000".into()));
    }
}
