//! What one pass over a set gathers: sums by group of rows, from which every number of a diagnosis is made, and scores.
//!
//! Sums grow row by row in the order of the rows, so they depend neither on blocks nor on threads.

use rayon::prelude::*;
use serde::Serialize;

use super::estimate::{GROUPS, Sums, group_of};
use super::ladder::{Ladder, Logits, product};
use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, for_each_block};
use crate::kernel::Kernel;
use crate::progress::Progress;
use crate::views::LogitSummary;

/// Values of logits that are in memory together.
const TOGETHER: usize = 1 << 21;

/// What features of a set are like.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Profile {
    /// How many inputs there are.
    pub rows: u64,
    /// Share of the values below zero.
    pub negative: f64,
    /// Share of the values that are zero.
    pub zero: f64,
    /// Mean of the lengths `|h|`.
    pub norm: f64,
    /// Their standard deviation.
    pub norm_deviation: f64,
}

/// Counts and sums of values of features.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Tally {
    rows: u64,
    values: u64,
    negative: u64,
    zero: u64,
    norms: f64,
    squares: f64,
}

impl Tally {
    pub(super) fn see(&mut self, block: &Block) {
        for row in block.features.chunks_exact(block.units.max(1)) {
            let mut square = 0.0;
            let (mut negative, mut zero) = (0, 0);
            for value in row {
                negative += u64::from(*value < 0.0);
                zero += u64::from(*value == 0.0);
                square += f64::from(*value) * f64::from(*value);
            }
            self.rows += 1;
            self.values += row.len() as u64;
            self.negative += negative;
            self.zero += zero;
            self.norms += square.sqrt();
            self.squares += square;
        }
    }

    pub(super) fn profile(&self) -> Profile {
        let (rows, values) = (self.rows.max(1) as f64, self.values.max(1) as f64);
        let norm = self.norms / rows;
        Profile {
            rows: self.rows,
            negative: self.negative as f64 / values,
            zero: self.zero as f64 / values,
            norm,
            norm_deviation: (self.squares / rows - norm * norm).max(0.0).sqrt(),
        }
    }
}

/// What a head makes of a set at one stage and rung.
#[derive(Debug)]
pub(super) struct Readout {
    /// Of the logits without bias and of their squares `[2 C]`.
    pub(super) logits: Sums,
    /// Of the logit, without bias, of the class that the dense head predicts, and of its square `[2]`.
    pub(super) own: Sums,
    /// The energy of each input `[n]`.
    pub(super) scores: Vec<f64>,
    /// How many inputs it puts into the class that the dense head predicts.
    pub(super) agree: u64,
    /// How many it puts into the class of their label.
    pub(super) correct: u64,
}

/// What was gathered of a set.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) tally: Tally,
    /// Rows of each group.
    pub(super) rows: [u64; GROUPS],
    /// By stage, of the features and of their squares `[2 D]`.
    pub(super) units: Vec<Sums>,
    /// By stage, then by rung.
    pub(super) readouts: Vec<Vec<Readout>>,
    pub(super) labelled: u64,
    /// How many inputs have the class of the nearest class mean as prediction; none where there are no means.
    pub(super) nearest: Option<u64>,
}

impl Reading {
    pub(super) fn new(ladder: &Ladder) -> Self {
        let (classes, units) = (ladder.head.classes(), ladder.head.units());
        let readout =
            || Readout { logits: Sums::new(2 * classes), own: Sums::new(2), scores: Vec::new(), agree: 0, correct: 0 };
        let readouts = || (0..ladder.rungs.len()).map(|_| readout()).collect();
        Self {
            tally: Tally::default(),
            rows: [0; GROUPS],
            units: (0..ladder.stages()).map(|_| Sums::new(2 * units)).collect(),
            readouts: (0..ladder.stages()).map(|_| readouts()).collect(),
            labelled: 0,
            nearest: None,
        }
    }

    /// Reads a whole set. `labels` says whether those beside the features are looked at; `means` are class means as a head,
    /// whose logits are larger the nearer a row is to the mean.
    ///
    /// # Errors
    /// What reading meets, [`ErrorKind::Shape`] for another D, [`ErrorKind::NotFinite`], [`ErrorKind::Argument`] for labels
    /// that are no classes of the head, [`ErrorKind::Empty`] for no rows.
    pub(super) fn of(
        source: &mut dyn FeatureSource,
        ladder: &Ladder,
        labels: bool,
        means: Option<&Kernel>,
        (what, progress): (&'static str, &mut dyn Progress),
    ) -> Result<Self> {
        ladder.head.check_features(source.units())?;
        let mut reading = Self::new(ladder);
        let total = source.rows();
        for_each_block(source, |block| {
            check_values(block)?;
            let labels = if labels { labels_of(block, ladder.head.classes())? } else { None };
            reading.add(block, ladder, labels, means)?;
            progress.advance(what, reading.tally.rows, total);
            Ok(())
        })?;
        match reading.tally.rows {
            0 => Err(Error::new(ErrorKind::Empty, "no rows").tensor("features").expected("at least one row")),
            _ => Ok(reading),
        }
    }

    /// Adds a block, as many rows at a time as have their logits in memory together.
    ///
    /// # Errors
    /// [`ErrorKind::NotFinite`] for a row of finite values whose energy is not; then the reading holds nothing of use.
    pub(super) fn add(
        &mut self,
        block: &Block,
        ladder: &Ladder,
        labels: Option<&[i64]>,
        means: Option<&Kernel>,
    ) -> Result<()> {
        let width = (ladder.head.classes() * ladder.rungs.len() * ladder.stages()).max(1);
        let together = (TOGETHER / width).max(1);
        let first = self.tally.rows;
        self.tally.see(block);
        for (place, rows) in block.features.chunks(together * block.units).enumerate() {
            let start = place * together;
            let count = rows.len() / block.units;
            let labels = labels.map(|labels| &labels[start..start + count]);
            let groups: Vec<usize> = (0..count).map(|row| group_of(first + (start + row) as u64)).collect();
            groups.iter().for_each(|group| self.rows[*group] += 1);
            if let Some(row) = self.add_rows(rows, &groups, ladder, labels, means) {
                return Err(too_large(block, start + row));
            }
        }
        Ok(())
    }

    /// The first row whose energy overflows, if there is one: then the reading holds nothing of use.
    fn add_rows(
        &mut self,
        rows: &[f32],
        groups: &[usize],
        ladder: &Ladder,
        labels: Option<&[i64]>,
        means: Option<&Kernel>,
    ) -> Option<usize> {
        let shaped = ladder.shaped(rows);
        let stages: Vec<&[f32]> = std::iter::once(rows).chain(shaped.as_deref()).collect();
        for (sums, rows) in self.units.iter_mut().zip(&stages) {
            add_squares(sums, rows, groups);
        }
        let logits: Logits = stages.iter().map(|rows| ladder.logits(rows)).collect();
        let bias = ladder.head.bias().to_vec();
        let predicted = classes(&logits[0][0], &bias);
        let pairs = self.readouts.iter_mut().flatten().zip(logits.iter().flatten()).collect::<Vec<_>>();
        let overflows = pairs
            .into_par_iter()
            .filter_map(|(readout, logits)| readout.add(logits, &bias, groups, &predicted, labels))
            .min();
        self.labelled += labels.map_or(0, |labels| labels.len() as u64);
        if let Some(means) = means {
            let near = product(means, rows, ladder.head.units(), bias.len());
            let nearest = classes(&near, &vec![0.0; bias.len()]);
            let same = nearest.iter().zip(&predicted).filter(|(near, predicted)| near == predicted).count();
            self.nearest = Some(self.nearest.unwrap_or(0) + same as u64);
        }
        overflows
    }
}

impl Readout {
    /// Adds logits `[n, C]`; the first row whose energy is not finite, if there is one.
    fn add(
        &mut self,
        logits: &[f32],
        bias: &[f32],
        groups: &[usize],
        predicted: &[usize],
        labels: Option<&[i64]>,
    ) -> Option<usize> {
        let width = bias.len();
        add_squares(&mut self.logits, logits, groups);
        let mut with_bias = vec![0.0; width];
        for (row, (logits, predicted)) in logits.chunks_exact(width).zip(predicted).enumerate() {
            let own = f64::from(logits[*predicted]);
            self.own.of(groups[row]).iter_mut().zip([own, own * own]).for_each(|(sum, value)| *sum += value);
            with_bias.iter_mut().zip(logits.iter().zip(bias)).for_each(|(out, (logit, bias))| *out = logit + bias);
            let summary = LogitSummary::of(&with_bias);
            self.agree += u64::from(summary.class == *predicted);
            self.correct += u64::from(labels.is_some_and(|labels| labels[row] == summary.class as i64));
            self.scores.push(summary.energy(1.0));
        }
        let added = self.scores.len() - groups.len();
        self.scores[added..].iter().position(|score| !score.is_finite())
    }
}

/// Adds rows `[n, K]` and their squares to sums `[2 K]` by group.
fn add_squares(sums: &mut Sums, rows: &[f32], groups: &[usize]) {
    let width = rows.len() / groups.len().max(1);
    for (row, group) in rows.chunks_exact(width.max(1)).zip(groups) {
        let (plain, squares) = sums.of(*group).split_at_mut(width);
        for ((sum, square), value) in plain.iter_mut().zip(squares).zip(row) {
            let value = f64::from(*value);
            *sum += value;
            *square += value * value;
        }
    }
}

/// The class of the largest logit of each row, the first of several.
fn classes(logits: &[f32], bias: &[f32]) -> Vec<usize> {
    let class = |row: &[f32]| {
        let first = (0, f32::NEG_INFINITY);
        let values = row.iter().zip(bias).map(|(logit, bias)| logit + bias).enumerate();
        values.fold(first, |best, (class, logit)| if logit > best.1 { (class, logit) } else { best }).0
    };
    logits.par_chunks_exact(bias.len()).map(class).collect()
}

/// The error for a row of finite values whose energy is not; names its largest value.
fn too_large(block: &Block, row: usize) -> Error {
    let values = &block.features[row * block.units..][..block.units];
    let largest = values.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
    let (column, value) = largest.map_or((0, 0.0), |(column, value)| (column, *value));
    block.not_finite(row, column, value)
}

fn check_values(block: &Block) -> Result<()> {
    match block.features.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(place) => Err(block.not_finite(place / block.units, place % block.units, block.features[place])),
    }
}

pub(super) fn labels_of(block: &Block, classes: usize) -> Result<Option<&[i64]>> {
    let Some(labels) = block.labels.as_deref() else { return Ok(None) };
    match labels.iter().find(|label| !(0..classes as i64).contains(*label)) {
        None => Ok(Some(labels)),
        Some(label) => Err(block.located(
            Error::new(ErrorKind::Argument, label.to_string())
                .tensor("labels")
                .expected(format!("classes of the head, 0 to {}", classes - 1)),
        )),
    }
}
