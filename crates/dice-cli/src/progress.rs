//! Progress bars: for runs of the library, and for sources that commands read themselves.

use std::io::IsTerminal;

use dice_ood::{Block, FeatureSource, Progress, Result};
use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::said::Context;

/// Shows how far a run is: on a terminal, and nowhere else.
pub(crate) struct Bar {
    shown: bool,
    stage: String,
    bar: ProgressBar,
}

impl Bar {
    pub(crate) fn new(context: &Context) -> Self {
        let shown = !context.quiet && std::io::stderr().is_terminal();
        Self { shown, stage: String::new(), bar: ProgressBar::hidden() }
    }

    /// A bar for another stage, in place of the last one.
    fn begin(&mut self, what: &str, total: Option<u64>) {
        self.bar.finish_and_clear();
        self.stage = what.to_owned();
        self.bar = bar(what, total, self.shown);
    }
}

/// A bar of `total` steps, or a count where their number is not known; all numbers are whole.
pub(crate) fn bar(what: &str, total: Option<u64>, shown: bool) -> ProgressBar {
    let (bar, template) = match total {
        Some(rows) => (ProgressBar::new(rows), "{msg} {wide_bar} {human_pos}/{human_len}, {whole_per_sec}, {eta} left"),
        None => (ProgressBar::new_spinner(), "{msg} {spinner} {human_pos}, {whole_per_sec}"),
    };
    let whole_per_sec = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        // A text that takes no more is cut short.
        let _ = write!(text, "{}/s", HumanCount(state.per_sec() as u64));
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_draw_target(match shown {
        true => ProgressDrawTarget::stderr_with_hz(8),
        false => ProgressDrawTarget::hidden(),
    });
    bar.with_style(style.with_key("whole_per_sec", whole_per_sec)).with_message(what.to_owned())
}

impl Progress for Bar {
    fn advance(&mut self, what: &str, rows: u64, total: Option<u64>) {
        if self.stage != what {
            self.begin(what, total);
        }
        self.bar.set_position(rows);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A source that shows how far it has been read: on a terminal, and nowhere else.
pub(crate) struct Watched<'a> {
    source: Box<dyn FeatureSource + 'a>,
    bar: ProgressBar,
}

impl<'a> Watched<'a> {
    pub(crate) fn new(source: Box<dyn FeatureSource + 'a>, rows: Option<u64>, what: &str, context: &Context) -> Self {
        let shown = !context.quiet && std::io::stderr().is_terminal();
        Self { bar: bar(what, rows.or(source.rows()), shown), source }
    }
}

impl FeatureSource for Watched<'_> {
    fn units(&self) -> usize {
        self.source.units()
    }

    fn rows(&self) -> Option<u64> {
        self.source.rows()
    }

    fn layout(&self) -> dice_ood::Layout {
        self.source.layout()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        self.source.read(block, max_rows)?;
        self.bar.inc(block.rows() as u64);
        if block.rows() == 0 {
            self.bar.finish_and_clear();
        }
        Ok(())
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
