//! What one pass over the training features gathers, and every fit rests on. One file a statistic.

mod activations;
mod bank;
mod classes;
mod moment;
pub(crate) mod needs;
mod part;
mod sorted;
mod sums;
mod templates;

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayView2};
use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Missing, Result};
use crate::features::{Block, FeatureSource, for_each_block, not_finite};
use crate::head::LinearHead;
use crate::kernel::{Kernel, Scratch};
use crate::sphere::to_sphere;
use crate::state::{State, check_finite};
pub use bank::BankRows;
pub use classes::ClassMean;
pub use needs::{By, Need, Needs, Space};
use part::{Part, TrainingRows, predictions};
use sums::add_rows;

/// Streaming statistics of penultimate features `[N, D]`: the mean activation, and what else was asked for.
///
/// Sums are f64, added row by row in stream order, so the result depends neither on the block size nor on the number
/// of threads. [`Statistics::merge`] is associative and commutative up to f64 rounding.
#[derive(Debug, Clone)]
pub struct Statistics {
    rows: u64,
    /// Whether the rows behind the mean are unknown: `rows` is 1 then, and stands for nothing.
    published: bool,
    sum: Array1<f64>,
    parts: BTreeMap<Need, Part>,
    /// The dense head whose predictions some statistics rest on, and its number of classes.
    head: Option<(Arc<Kernel>, usize)>,
}

/// Equal where the same was gathered from the same rows.
impl PartialEq for Statistics {
    fn eq(&self, other: &Self) -> bool {
        (self.rows, self.published, &self.sum, &self.parts) == (other.rows, other.published, &other.sum, &other.parts)
    }
}

impl Statistics {
    /// Statistics of no rows yet, over `units` units. Those of `needs` that rest on predictions take
    /// [`Statistics::of_head`].
    pub fn new(units: usize, needs: &Needs) -> Self {
        let part = |need| (need, Part::new(need, needs, units, 0));
        Self {
            rows: 0,
            published: false,
            sum: Array1::zeros(units),
            parts: needs.iter().map(part).collect(),
            head: None,
        }
    }

    /// Statistics of no rows yet, of features that `head` reads.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for an instruction-set level that this machine does not have.
    pub fn of_head(head: &LinearHead, needs: &Needs) -> Result<Self> {
        let (units, classes) = (head.units(), head.classes());
        let parts = needs.iter().map(|need| (need, Part::new(need, needs, units, classes))).collect();
        let kernel = || Ok((Arc::new(Kernel::new(head, None, None)?), classes));
        let head = needs.iter().any(Need::takes_head).then(kernel).transpose()?;
        Ok(Self { parts, head, ..Self::new(units, &Needs::default()) })
    }

    /// Statistics of a published mean activation `[D]`, of which nothing else is known.
    ///
    /// # Errors
    /// [`ErrorKind::Empty`] or [`ErrorKind::NotFinite`].
    pub fn from_mean_activation(mean: Array1<f64>) -> Result<Self> {
        if mean.is_empty() {
            return Err(Error::new(ErrorKind::Empty, "no values").tensor("mean activation").expected("[D] values"));
        }
        if let Some((unit, value)) = mean.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(Error::new(ErrorKind::NotFinite, format!("{value} at unit {unit}"))
                .tensor("mean activation")
                .expected("finite values"));
        }
        let sum = mean.as_standard_layout().into_owned();
        Ok(Self { rows: 1, published: true, sum, ..Self::new(0, &Needs::default()) })
    }

    /// Gathers the statistics of a whole source; those that rest on predictions take `head`.
    ///
    /// # Errors
    /// What reading meets, those of [`Statistics::update_block`], or [`ErrorKind::Empty`] for no rows.
    pub fn gather(source: &mut dyn FeatureSource, head: Option<&LinearHead>, needs: &Needs) -> Result<Self> {
        // Made with the first row and not before: until then its width is only a claim.
        let mut statistics = None;
        for_each_block(source, |block| {
            let statistics = match &mut statistics {
                Some(statistics) => statistics,
                slot => slot.insert(match head {
                    Some(head) => Self::of_head(head, needs)?,
                    None => Self::new(block.units, needs),
                }),
            };
            statistics.update_block(block)
        })?;
        statistics.ok_or_else(no_rows)
    }

    /// Adds the rows of `features` `[n, D]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another D, [`ErrorKind::NotFinite`] for NaN or infinity, [`ErrorKind::Missing`] where
    /// a statistic takes labels or a head. Nothing is added then.
    pub fn update(&mut self, features: ArrayView2<'_, f32>) -> Result<()> {
        let rows = self.rows;
        self.update_at(features, None, |row, column, value| not_finite(rows + row as u64, column, value))
    }

    /// Adds the rows of `features` `[n, D]`, whose classes are `labels` `[n]`.
    ///
    /// # Errors
    /// As [`Statistics::update`], and [`ErrorKind::Shape`] where there is not one label a row.
    pub fn update_labelled(&mut self, features: ArrayView2<'_, f32>, labels: &[i64]) -> Result<()> {
        let rows = self.rows;
        self.update_at(features, Some(labels), |row, column, value| not_finite(rows + row as u64, column, value))
    }

    /// Adds the rows of `block`; errors name its file and row.
    ///
    /// # Errors
    /// As [`Statistics::update`].
    pub fn update_block(&mut self, block: &Block) -> Result<()> {
        let labels = block.labels.as_deref();
        self.update_at(block.view(), labels, |row, column, value| block.not_finite(row, column, value))
            .map_err(|error| block.located(error))
    }

    fn update_at(
        &mut self,
        features: ArrayView2<'_, f32>,
        labels: Option<&[i64]>,
        located: impl FnOnce(usize, usize, f32) -> Error,
    ) -> Result<()> {
        self.check_rows(features, labels)?;
        let units = self.units();
        let features = features.as_standard_layout();
        let features = features.as_slice().unwrap_or_default();
        let rows = features.len().checked_div(units).unwrap_or(0);
        // Sums of f32 cannot overflow f64, so a sum that is not finite has met a value that is not: the features are
        // read once, and the sums taken back if need be.
        let before = self.sum.clone();
        add_rows(self.sum.as_slice_mut().unwrap_or_default(), features);
        if self.sum.iter().any(|sum| !sum.is_finite())
            && let Some(place) = features.iter().position(|value| !value.is_finite())
        {
            self.sum = before;
            return Err(located(place / units, place % units, features[place]));
        }
        let logits = self.logits(features, rows);
        let predictions = predictions(&logits, rows);
        let sphere = self.on_sphere(features);
        let rows_now = TrainingRows { features, sphere: &sphere, labels, logits: &logits, predictions: &predictions };
        self.parts.iter_mut().try_for_each(|(need, part)| part.add(*need, &rows_now, units))?;
        self.rows += rows as u64;
        Ok(())
    }

    fn check_rows(&self, features: ArrayView2<'_, f32>, labels: Option<&[i64]>) -> Result<()> {
        if features.ncols() != self.units() {
            return Err(Error::new(ErrorKind::Shape, format!("[N, {}]", features.ncols()))
                .tensor("features")
                .expected(format!("[N, {}]", self.units())));
        }
        if let Some(labels) = labels.filter(|labels| labels.len() != features.nrows()) {
            return Err(Error::new(ErrorKind::Shape, format!("[{}]", labels.len()))
                .tensor("labels")
                .expected(format!("[{}], one for each row of features", features.nrows())));
        }
        if labels.is_none()
            && let Some((need, _)) = self.parts.iter().find(|(need, part)| need.takes_labels() || part.takes_labels())
        {
            return Err(Error::lacking(Missing::Labels, "features without labels")
                .tensor("labels")
                .expected(format!("a class for each row, for {need}")));
        }
        if let Some(need) = self.parts.keys().find(|need| need.takes_head() && self.head.is_none()) {
            return Err(Error::lacking(Missing::Head, "features without a head")
                .tensor("head")
                .expected(format!("the linear head, for {need}")));
        }
        Ok(())
    }

    /// The rows on the unit sphere; none where nothing rests on them.
    fn on_sphere(&self, features: &[f32]) -> Vec<f32> {
        let wanted = self.parts.keys().any(|need| need.space() == Space::Sphere);
        let mut sphere = if wanted { features.to_vec() } else { Vec::new() };
        sphere.par_chunks_exact_mut(self.units().max(1)).for_each(to_sphere);
        sphere
    }

    /// `[n, C]` of the dense head; none where nothing rests on them.
    fn logits(&self, features: &[f32], rows: usize) -> Vec<f32> {
        let Some((head, classes)) = &self.head else { return Vec::new() };
        let mut logits = vec![0.0; rows * classes];
        // Features are finite here: the sums have shown it.
        let _ = head.logits(features, &mut Scratch::default(), &mut logits);
        logits
    }

    /// Adds the rows that `other` has seen. The f32 sum of the merged parts is that of numpy only where the rows of
    /// `other` follow those of `self` in one part each; the f64 sums do not depend on it.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] for another D, [`ErrorKind::Missing`] where one side has not gathered what the other has, or
    /// is a published mean of unknown weight. Nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.units() != other.units() {
            return Err(Error::new(ErrorKind::Shape, format!("{} units", other.units()))
                .tensor("statistics")
                .expected(format!("{} units, as in the others", self.units())));
        }
        if self.published || other.published {
            return Err(Error::lacking(Missing::Statistics, "a published mean")
                .tensor("statistics")
                .expected("the number of rows behind each part, to weigh it")
                .fix("use one published mean alone, or gather statistics from features"));
        }
        if !self.parts.keys().eq(other.parts.keys()) {
            return Err(Error::lacking(Missing::Statistics, "statistics that were gathered differently")
                .fix("gather all of them with the same detectors in mind"));
        }
        let rows = self.rows.checked_add(other.rows);
        self.rows = rows.ok_or_else(|| Error::new(ErrorKind::Malformed, "more rows than can be counted"))?;
        self.sum += &other.sum;
        for (mine, theirs) in self.parts.values_mut().zip(other.parts.values()) {
            mine.merge(theirs);
        }
        Ok(())
    }

    /// D.
    pub fn units(&self) -> usize {
        self.sum.len()
    }

    /// How many rows were seen; 1 for a published mean.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether this is a published mean, of which nothing else is known.
    pub fn is_published(&self) -> bool {
        self.published
    }

    /// What was gathered beyond the mean.
    pub fn gathered(&self) -> impl Iterator<Item = Need> + '_ {
        self.parts.keys().copied()
    }

    /// The mean activation `[D]` in f64 (paper, section 3).
    pub fn mean_activation(&self) -> Array1<f64> {
        &self.sum / self.rows.max(1) as f64
    }

    /// The mean activation `[D]` in f32 as `numpy.mean(axis=0)` of f32 features gives it: the sum in f32, row by row.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where that sum was not gathered.
    pub fn sequential_mean_activation(&self) -> Result<Array1<f32>> {
        match self.part(Need::SequentialMean)? {
            Part::SequentialMean(sums) => Ok(sums / self.rows.max(1) as f32),
            _ => Err(missing(Need::SequentialMean)),
        }
    }

    /// The `quantile` (0 to 1) of all N * D activations pooled, interpolated linearly as `numpy.percentile` does.
    ///
    /// Exact for features stored as f16 or bf16; within 2^-12 relative otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where the distribution was not gathered.
    pub fn activation_quantile(&self, quantile: f64) -> Result<f64> {
        match self.part(Need::Activations)? {
            Part::Activations(activations) => activations.quantile(quantile).ok_or_else(no_rows),
            _ => Err(missing(Need::Activations)),
        }
    }

    /// The mean over rows of their values sorted ascending `[D]`.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where it was not gathered.
    pub fn sorted_mean_activation(&self) -> Result<Array1<f64>> {
        match self.part(Need::SortedMean)? {
            Part::SortedMean(sorted) => Ok(sorted.sums().iter().map(|sum| sum / self.rows.max(1) as f64).collect()),
            _ => Err(missing(Need::SortedMean)),
        }
    }

    /// Every class that was seen, ascending.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where it was not gathered.
    pub fn class_means(&self, by: By, space: Space) -> Result<Vec<ClassMean>> {
        match self.part(Need::Classes(by, space))? {
            Part::Classes(classes) => Ok(classes.means()),
            _ => Err(missing(Need::Classes(by, space))),
        }
    }

    /// The sum of `x x^T` over rows `[D, D]`.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where it was not gathered.
    pub fn second_moment(&self, space: Space) -> Result<Array2<f64>> {
        match self.part(Need::SecondMoment(space))? {
            Part::SecondMoment(moment) => Ok(moment.full()),
            _ => Err(missing(Need::SecondMoment(space))),
        }
    }

    /// The mean softmax `[C, C]` of the rows that the dense head predicts as each class, row-major; certainty of the class
    /// for one that was never predicted.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where it was not gathered.
    pub fn templates(&self) -> Result<Vec<f64>> {
        match self.part(Need::Templates)? {
            Part::Templates(templates) => Ok(templates.means()),
            _ => Err(missing(Need::Templates)),
        }
    }

    /// A uniform sample of the distinct training rows.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where it was not gathered.
    pub fn bank(&self) -> Result<&Arc<BankRows>> {
        match self.part(Need::Bank)? {
            Part::Bank(bank) => Ok(bank.rows(self.rows)),
            _ => Err(missing(Need::Bank)),
        }
    }

    fn part(&self, need: Need) -> Result<&Part> {
        self.parts.get(&need).ok_or_else(|| missing(need))
    }

    /// Everything, as tensors.
    pub(crate) fn state(&self) -> State {
        let mut state = State::default();
        state.put("rows", &[1], vec![self.rows]);
        state.put("published", &[1], vec![u8::from(self.published)]);
        state.put("activation_sum", &[self.units()], self.sum.to_vec());
        for (need, part) in &self.parts {
            let mut inner = State::default();
            part.save(&mut inner, self.units(), self.rows);
            state.put_part(need.key(), inner);
        }
        state
    }

    /// What [`Statistics::state`] put; other tensors are left.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for what no pass over features can have gathered.
    pub(crate) fn take(state: &mut State) -> Result<Self> {
        let rows = state.take::<u64>("rows", &[Some(1)])?[0];
        let published = state.take::<u8>("published", &[Some(1)])?[0] != 0;
        let sum = state.take::<f64>("activation_sum", &[None])?;
        check_finite("activation_sum", &sum)?;
        if !(1..=MOST_ROWS).contains(&rows) || (published && rows != 1) {
            return Err(Error::new(ErrorKind::Malformed, rows.to_string())
                .tensor("rows")
                .expected("a number of rows from 1 to 2^53, which is 1 for a published mean"));
        }
        let mut statistics = Self { rows, published, ..Self::from_mean_activation(sum.iter().copied().collect())? };
        for need in Need::ALL {
            let mut inner = state.take_part(need.key());
            if inner.tensors().next().is_some() {
                let part = Part::load(need, &mut inner, statistics.units(), rows)?;
                inner.finish()?;
                statistics.parts.insert(need, part);
            }
        }
        Ok(statistics)
    }
}

/// Counts beyond this are not exact in f64.
const MOST_ROWS: u64 = 1 << 53;

fn no_rows() -> Error {
    Error::new(ErrorKind::Empty, "no rows").tensor("features").expected("at least one row to fit on")
}

fn missing(need: Need) -> Error {
    Error::lacking(Missing::Statistic(need), "statistics without it")
        .tensor("statistics")
        .expected(need.to_string())
        .fix("fit from training features, or from statistics that were gathered for this detector")
}

#[cfg(test)]
mod tests;
