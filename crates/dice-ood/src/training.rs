//! What the fit of a step rests on.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use ndarray::{Array1, Array2};

use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::linalg::{Axes, least_squares};
use crate::statistics::{BankRows, By, ClassMean, Space, Statistics};

/// A head, the statistics of its training features, and what follows from them and is worth keeping.
#[derive(Debug, Clone)]
pub struct Training<'a> {
    head: &'a Arc<LinearHead>,
    statistics: &'a Statistics,
    /// Of the shaped features and kept weights that the score at hand will read.
    logits: Option<Arc<dyn Readout>>,
    /// The mean `[D]` of the shaped features that the sparsity at hand will stand behind.
    shaped: Option<Arc<[f64]>>,
    axes: Arc<Kept<About, Axes>>,
}

/// Training rows that the mean of shaped features rests on, at most.
pub(crate) const SHAPED_ROWS: usize = 50_000;

/// Rows of a bank whose logits are in memory together.
const TOGETHER: usize = 1024;

/// What principal axes are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum About {
    /// The mean activation.
    Mean,
    /// `-pinv(W) b`, whose logits are as near to zero as can be.
    HeadOrigin,
}

/// What makes logits of features.
pub(crate) trait Readout: Debug + Send + Sync {
    /// `[n, C]` of `rows` `[n, D]`.
    fn logits(&self, rows: &[f32]) -> Result<Vec<f32>>;
}

impl<'a> Training<'a> {
    /// # Errors
    /// [`ErrorKind::Shape`] where the two disagree on D.
    pub(crate) fn new(head: &'a Arc<LinearHead>, statistics: &'a Statistics) -> Result<Self> {
        if statistics.units() != head.units() {
            return Err(Error::new(ErrorKind::Shape, format!("[{}]", statistics.units()))
                .tensor("mean activation")
                .expected(format!("[{}], one for each unit of the head", head.units()))
                .fix("are features and head of the same network?"));
        }
        Ok(Self { head, statistics, logits: None, shaped: None, axes: Arc::default() })
    }

    /// The same, for a score that reads these logits.
    pub(crate) fn behind(&self, logits: Arc<dyn Readout>) -> Self {
        Self { logits: Some(logits), ..self.clone() }
    }

    /// The same, for a sparsity behind a shaping whose features have this mean `[D]`.
    pub(crate) fn shaped(&self, mean: Option<Arc<[f64]>>) -> Self {
        Self { shaped: mean, ..self.clone() }
    }

    /// The dense head.
    pub fn head(&self) -> &Arc<LinearHead> {
        self.head
    }

    /// What was gathered from its training features.
    pub fn statistics(&self) -> &Statistics {
        self.statistics
    }

    /// The mean `[D]` of shaped training features, for a sparsity that says that it
    /// [takes](crate::methods::Sparsity::takes_shaped_mean) it.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where no shaping stands before the sparsity.
    pub fn shaped_mean_activation(&self) -> Result<&Arc<[f64]>> {
        self.shaped.as_ref().ok_or_else(|| {
            Error::new(ErrorKind::Missing, "no shaping before the sparsity")
                .tensor("mean of shaped features")
                .expected("a shaping, as in `ras | dice(0.9, mean=shaped)`")
        })
    }

    /// Logits `[n, C]` of `rows` `[n, D]`, from the shaped features and kept weights that the score at hand will read.
    ///
    /// # Errors
    /// [`ErrorKind::NotFinite`] where rows are not; [`ErrorKind::Missing`] for a step that stands before the logits.
    pub fn logits(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let logits = self.logits.as_ref();
        logits.ok_or_else(|| Error::new(ErrorKind::Missing, "no logits before the score"))?.logits(rows)
    }

    /// The classes that rows were put into, ascending, each a class of the head; by label, all of them.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where they were not gathered, or where a class has no row of its label;
    /// [`ErrorKind::Argument`] for labels that are no classes of the head.
    pub fn class_means(&self, by: By, space: Space) -> Result<Vec<ClassMean>> {
        let found = self.statistics.class_means(by, space)?;
        let classes = self.head.classes() as i64;
        if let Some(other) = found.iter().find(|mean| !(0..classes).contains(&mean.class)) {
            return Err(Error::new(ErrorKind::Argument, format!("label {}", other.class))
                .tensor("labels")
                .expected(format!("classes of the head, 0 to {}", classes - 1)));
        }
        let absent = |class: &i64| found.binary_search_by_key(class, |mean| mean.class).is_err();
        match (0..classes).find(absent).filter(|_| by == By::Label) {
            None => Ok(found),
            Some(class) => Err(Error::new(ErrorKind::Missing, format!("no training row of class {class}"))
                .tensor("labels")
                .expected(format!("rows of each of the {classes} classes of the head"))
                .fix("give rows of all classes, or go by what the head predicts")),
        }
    }

    /// The mean activation of each class of the head `[C, D]`.
    ///
    /// # Errors
    /// As [`Training::class_means`], and [`ErrorKind::Missing`] where a class has no row by whatever rows were put into classes.
    pub fn mean_of_each_class(&self, by: By) -> Result<Array2<f64>> {
        let found = self.class_means(by, Space::Features)?;
        let mut means = Array2::zeros(self.head.weight().dim());
        for (class, mut row) in means.outer_iter_mut().enumerate() {
            let Some(mean) = found.iter().find(|mean| mean.class == class as i64) else {
                let right = if by == By::Correct { "rightly " } else { "" };
                return Err(Error::new(
                    ErrorKind::Missing,
                    format!("no training row {right}predicted as class {class}"),
                )
                .tensor("class means")
                .expected(format!("such rows of each of the {} classes of the head", self.head.classes()))
                .fix("fit on more training features, of every class"));
            };
            row.assign(&mean.mean);
        }
        Ok(means)
    }

    /// Shows rows of `bank` `[n, D]`, how often each was seen `[n]` and their logits `[n, C]` to `visit`, some at a time.
    ///
    /// # Errors
    /// As [`Training::logits`].
    pub fn visit_bank(&self, bank: &BankRows, mut visit: impl FnMut(&[f32], &[u64], &[f32])) -> Result<()> {
        let mut parts = bank.features.chunks(TOGETHER * bank.units).zip(bank.counts.chunks(TOGETHER));
        parts.try_for_each(|(rows, counts)| {
            visit(rows, counts, &self.logits(rows)?);
            Ok(())
        })
    }

    /// The principal axes of the training features about their mean, or about the point that the head maps to nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Missing`] where the second moment was not gathered, [`ErrorKind::Unsupported`] in a build without linear
    /// algebra.
    pub fn axes(&self, about: About) -> Result<Arc<Axes>> {
        self.axes.get(&about, || Axes::of(&self.moment_about(&self.centre(about)?)?))
    }

    /// The point `[D]` that axes are about.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] in a build without linear algebra.
    pub fn centre(&self, about: About) -> Result<Array1<f64>> {
        match about {
            About::Mean => Ok(self.statistics.mean_activation()),
            About::HeadOrigin => {
                let weight = self.head.weight().mapv(f64::from);
                Ok(-least_squares(&weight, &self.head.bias().mapv(f64::from))?)
            }
        }
    }

    /// `E[(h - c) (h - c)^T]` `[D, D]`.
    fn moment_about(&self, centre: &Array1<f64>) -> Result<Array2<f64>> {
        let moment = self.statistics.second_moment(Space::Features)?;
        let (mean, rows) = (self.statistics.mean_activation(), self.statistics.rows().max(1) as f64);
        Ok(Array2::from_shape_fn(moment.dim(), |(i, j)| {
            moment[(i, j)] / rows - mean[i] * centre[j] - centre[i] * mean[j] + centre[i] * centre[j]
        }))
    }
}

/// Things that are made once for each key, and shared.
#[derive(Debug)]
pub(crate) struct Kept<K, T>(Mutex<BTreeMap<K, Arc<T>>>);

impl<K, T> Default for Kept<K, T> {
    fn default() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }
}

impl<K: Ord + Clone, T> Kept<K, T> {
    /// What is kept under `key`, or what `make` makes.
    pub(crate) fn get(&self, key: &K, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let map = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = map().get(key) {
            return Ok(Arc::clone(found));
        }
        // The lock is not held while something is made, which may ask for other things.
        let made = Arc::new(make()?);
        Ok(Arc::clone(map().entry(key.clone()).or_insert(made)))
    }
}
