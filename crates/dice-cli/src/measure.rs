//! `dice methods --measure`: what each method costs on given features.

use std::sync::Arc;

use dice_ood::{FeatureSource as _, Measurement, Result, Spec};
use serde::Serialize;

use crate::data::{dataset, head};
use crate::progress::Bar;
use crate::report::{Format, Table, count, json};
use crate::said::Context;

/// What to measure with.
#[derive(clap::Args)]
pub(crate) struct Measure {
    /// Fit and score every method on these features [N, D], and print what each costs: seconds of the fit beyond the shared pass,
    /// microseconds an input, bytes of its tensors.
    #[arg(long, num_args = 1.., value_name = "FEATURES", requires = "head")]
    measure: Vec<String>,
    /// With --measure: the linear head, as for `dice fit`.
    #[arg(long, value_name = "FILE", requires = "measure")]
    head: Option<String>,
    /// With --measure: class labels [N] of the features, where they are in a file of their own.
    #[arg(long, value_name = "FILE", requires = "measure")]
    labels: Option<String>,
    /// With --measure: rows to fit to and to score, drawn at random where there are more.
    #[arg(long, default_value_t = 10_000, value_name = "N", requires = "measure", value_parser = clap::value_parser!(u32).range(1..))]
    rows: u32,
}

/// A line of what is printed.
#[derive(Serialize)]
struct Line {
    detector: String,
    fit_seconds: Option<f64>,
    score_microseconds: Option<f64>,
    bytes: Option<usize>,
    /// Why it was not measured.
    left_out: Option<String>,
}

#[derive(Serialize)]
struct Told {
    rows: usize,
    of_rows: u64,
    units: usize,
    classes: usize,
    labelled: bool,
    threads: usize,
    pass_seconds: f64,
    detectors: Vec<Line>,
}

impl Measure {
    pub(crate) fn is_wanted(&self) -> bool {
        !self.measure.is_empty()
    }

    /// Measures `specs` and tells of it in `format`.
    pub(crate) fn tell(&self, specs: &[Spec], format: Format, context: &Context) -> Result<String> {
        let data = dataset(&self.measure, self.labels.as_ref())?;
        let mut source = data.open()?;
        let (head, _) = head(self.head.as_deref().unwrap_or_default(), source.units(), context)?;
        let head = Arc::new(head);
        let rows = self.rows as usize;
        let found = dice_ood::measure(&head, &mut source, specs, rows, &mut Bar::new(context))?;
        let told = Told {
            rows: found.rows,
            of_rows: found.of_rows,
            units: head.units(),
            classes: head.classes(),
            labelled: found.labelled,
            threads: found.threads,
            pass_seconds: found.pass_seconds,
            detectors: lines(&found),
        };
        match format {
            Format::Json => json(&told),
            _ => Ok(told.table(format)),
        }
    }
}

fn lines(found: &Measurement) -> Vec<Line> {
    let line = |(spec, cost): &(Spec, Result<dice_ood::Cost>)| {
        let known = cost.as_ref().ok();
        Line {
            detector: spec.to_string(),
            fit_seconds: known.map(|cost| cost.fit_seconds),
            score_microseconds: known.map(|cost| cost.score_microseconds),
            bytes: known.map(|cost| cost.bytes),
            left_out: cost.as_ref().err().map(ToString::to_string),
        }
    };
    found.detectors.iter().map(line).collect()
}

impl Told {
    fn table(&self, format: Format) -> String {
        let title = format!(
            "{} of {} rows of {} units, {} classes; {} thread{}; the pass that all share takes {:.3} s",
            count(self.rows),
            count(self.of_rows as usize),
            self.units,
            self.classes,
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            self.pass_seconds,
        );
        let mut table = Table::new(title, &["detector", "fit, s", "score, us an input", "bytes"], 1);
        let mut left_out = String::new();
        for line in &self.detectors {
            let shown = |number: Option<f64>| number.map_or("-".into(), |number| format!("{number:.3}"));
            let bytes = line.bytes.map_or("-".into(), count);
            table.rows.push(vec![
                line.detector.clone(),
                shown(line.fit_seconds),
                shown(line.score_microseconds),
                bytes,
            ]);
            if let Some(reason) = &line.left_out {
                left_out += &format!("\nNot measured: {} ({reason}).", line.detector);
            }
        }
        let text = if format == Format::Table { table.on_terminal() } else { table.render(format) };
        if left_out.is_empty() { text } else { text + &left_out + "\n" }
    }
}
