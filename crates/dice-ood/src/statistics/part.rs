//! One gathered statistic: what it adds up, merges, saves and loads.

use ndarray::Array1;

use super::activations::Activations;
use super::bank::Bank;
use super::classes::Classes;
use super::moment::SecondMoment;
use super::needs::{By, Need, Needs, Space};
use super::sorted::SortedSum;
use super::sums::add_rows;
use super::templates::Templates;
use crate::error::{Error, ErrorKind, Result};
use crate::state::State;

/// A gathered statistic; its [`Need`] says which.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    SequentialMean(Array1<f32>),
    Activations(Activations),
    SortedMean(SortedSum),
    Classes(Classes),
    SecondMoment(SecondMoment),
    Templates(Templates),
    Bank(Bank),
}

/// Some training rows, as statistics add them.
pub(super) struct TrainingRows<'a> {
    /// `[n, D]`.
    pub(super) features: &'a [f32],
    /// The same on the unit sphere `[n, D]`, where a statistic rests on them.
    pub(super) sphere: &'a [f32],
    pub(super) labels: Option<&'a [i64]>,
    /// `[n, C]` of the dense head, where a statistic rests on them.
    pub(super) logits: &'a [f32],
    /// What the dense head predicts `[n]`, where a statistic rests on it.
    pub(super) predictions: &'a [i64],
}

impl Part {
    /// Whether what it is gathered for takes labels, where its need alone does not say so.
    pub(super) fn takes_labels(&self) -> bool {
        matches!(self, Self::Bank(bank) if bank.takes_labels())
    }

    pub(super) fn new(need: Need, needs: &Needs, units: usize, classes: usize) -> Self {
        match need {
            Need::SequentialMean => Self::SequentialMean(Array1::zeros(units)),
            Need::Activations => Self::Activations(Activations::default()),
            Need::SortedMean => Self::SortedMean(SortedSum::new(units)),
            Need::Classes(..) => Self::Classes(Classes::default()),
            Need::SecondMoment(_) => Self::SecondMoment(SecondMoment::new(units)),
            Need::Templates => Self::Templates(Templates::new(classes)),
            Need::Bank => Self::Bank(Bank::new(units, needs.bank_rows(), needs.bank_takes_labels())),
        }
    }

    pub(super) fn add(&mut self, need: Need, rows: &TrainingRows<'_>, units: usize) -> Result<()> {
        match self {
            Self::SequentialMean(sums) => add_rows(sums.as_slice_mut().unwrap_or_default(), rows.features),
            Self::Activations(activations) => activations.add(rows.features),
            Self::SortedMean(sorted) => sorted.add(rows.features),
            Self::Classes(classes) => classes.add(rows.vectors(need), &rows.classes(need), units),
            Self::SecondMoment(moment) => moment.add(rows.vectors(need))?,
            Self::Templates(templates) => templates.add(rows.logits),
            Self::Bank(bank) => bank.add(rows.features, rows.labels),
        }
        Ok(())
    }

    pub(super) fn merge(&mut self, other: &Self) {
        match (self, other) {
            (Self::SequentialMean(mine), Self::SequentialMean(theirs)) => *mine += theirs,
            (Self::Activations(mine), Self::Activations(theirs)) => mine.merge(theirs),
            (Self::SortedMean(mine), Self::SortedMean(theirs)) => mine.merge(theirs),
            (Self::Classes(mine), Self::Classes(theirs)) => mine.merge(theirs),
            (Self::SecondMoment(mine), Self::SecondMoment(theirs)) => mine.merge(theirs),
            (Self::Templates(mine), Self::Templates(theirs)) => mine.merge(theirs),
            (Self::Bank(mine), Self::Bank(theirs)) => mine.merge(theirs),
            (mine, theirs) => unreachable!("one need, two statistics: {mine:?} and {theirs:?}"),
        }
    }

    pub(super) fn save(&self, to: &mut State, units: usize, rows: u64) {
        match self {
            Self::SequentialMean(sums) => to.put("sum", &[sums.len()], sums.to_vec()),
            Self::Activations(activations) => activations.save(to),
            Self::SortedMean(sorted) => sorted.save(to),
            Self::Classes(classes) => classes.save(to, units),
            Self::SecondMoment(moment) => moment.save(to),
            Self::Templates(templates) => templates.save(to),
            Self::Bank(bank) => bank.save(to, rows),
        }
    }

    pub(super) fn load(need: Need, state: &mut State, units: usize, rows: u64) -> Result<Self> {
        let (part, counted, expected) = match need {
            Need::SequentialMean => {
                let sums = state.take::<f32>("sum", &[Some(units)])?;
                (Self::SequentialMean(sums.iter().copied().collect()), rows, rows..=rows)
            }
            Need::Activations => {
                let activations = Activations::load(state)?;
                let (total, all) = (activations.total(), rows.saturating_mul(units as u64));
                (Self::Activations(activations), total, all..=all)
            }
            Need::SortedMean => (Self::SortedMean(SortedSum::load(state, units)?), rows, rows..=rows),
            Need::Classes(by, _) => {
                let classes = Classes::load(state, units)?;
                let total = classes.total();
                (Self::Classes(classes), total, if by == By::Correct { 0..=rows } else { rows..=rows })
            }
            Need::SecondMoment(_) => (Self::SecondMoment(SecondMoment::load(state, units)?), rows, rows..=rows),
            Need::Templates => {
                let templates = Templates::load(state)?;
                let total = templates.total();
                (Self::Templates(templates), total, rows..=rows)
            }
            Need::Bank => {
                let bank = Bank::load(state, units, rows)?;
                let total = bank.total();
                (Self::Bank(bank), total, 0..=rows)
            }
        };
        if expected.contains(&counted) {
            return Ok(part);
        }
        Err(Error::new(ErrorKind::Malformed, format!("counts that add up to {counted}"))
            .tensor(need.key())
            .expected(format!("counts of {rows} rows")))
    }
}

impl TrainingRows<'_> {
    /// The vectors that a statistic is of.
    fn vectors(&self, need: Need) -> &[f32] {
        match need.space() {
            Space::Features => self.features,
            Space::Sphere => self.sphere,
        }
    }

    /// The class that each row counts for, where it counts.
    fn classes(&self, need: Need) -> Vec<Option<i64>> {
        let labels = self.labels.unwrap_or_default();
        match need {
            Need::Classes(By::Prediction, _) => self.predictions.iter().copied().map(Some).collect(),
            Need::Classes(By::Correct, _) => {
                labels.iter().zip(self.predictions).map(|(label, class)| (label == class).then_some(*label)).collect()
            }
            _ => labels.iter().copied().map(Some).collect(),
        }
    }
}

/// The first of the largest of each row of logits.
pub(super) fn predictions(logits: &[f32], rows: usize) -> Vec<i64> {
    let classes = logits.len().checked_div(rows).unwrap_or(0);
    let largest = |row: &[f32]| {
        let first = (0, f32::NEG_INFINITY);
        row.iter()
            .enumerate()
            .fold(first, |best, (class, logit)| if *logit > best.1 { (class, *logit) } else { best })
            .0
    };
    logits.chunks_exact(classes.max(1)).map(|row| largest(row) as i64).collect()
}
