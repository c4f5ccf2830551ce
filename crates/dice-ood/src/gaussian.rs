//! Normal distributions of features: covariances about class means, whitening, and distances to whitened centres.

use std::sync::Arc;

use ndarray::{Array1, Array2};

use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Graph, Reduce, Wire};
use crate::kernel::{Product, Scratch};
use crate::linalg;
use crate::state::{State, check_finite};
use crate::statistics::ClassMean;

/// How a covariance is shrunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shrinkage {
    /// Oracle approximating shrinkage.
    Oas,
    None,
}

impl Shrinkage {
    pub(crate) fn of_word(word: &str) -> Self {
        if word == Self::None.word() { Self::None } else { Self::Oas }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Oas => "oas",
            Self::None => "none",
        }
    }
}

/// What to do about a covariance without inverse.
pub(crate) const SHRINK: &str = "shrink the covariance (`shrinkage=oas`)";

/// Of the mean square of a unit, the share of its variance that may be rounding.
pub(crate) const CONSTANT: f64 = 1e-12;

/// The covariance `[D, D]` of rows about the means of their classes, from the sum of `x x^T` over all rows.
///
/// # Errors
/// [`ErrorKind::Argument`] where there are too few rows for an inverse and nothing shrinks it.
pub(crate) fn covariance(moment: &Array2<f64>, about: &[ClassMean], shrinkage: Shrinkage) -> Result<Array2<f64>> {
    let (units, rows) = (moment.nrows(), about.iter().map(|class| class.rows).sum::<u64>());
    if shrinkage == Shrinkage::None && rows < (units + about.len()) as u64 {
        return Err(Error::new(ErrorKind::Argument, format!("{rows} training rows"))
            .tensor("covariance")
            .expected(format!("at least {}, for {units} units about {} means", units + about.len(), about.len()))
            .fix(SHRINK));
    }
    let mut found = moment / rows.max(1) as f64;
    for class in about {
        let weight = class.rows as f64 / rows.max(1) as f64;
        for (mut row, mean) in found.rows_mut().into_iter().zip(&class.mean) {
            row.scaled_add(-weight * mean, &class.mean);
        }
    }
    for unit in 0..units {
        if found[(unit, unit)] <= CONSTANT * moment[(unit, unit)] / rows.max(1) as f64 {
            found.row_mut(unit).fill(0.0);
            found.column_mut(unit).fill(0.0);
        }
    }
    if shrinkage == Shrinkage::Oas {
        shrink(&mut found, rows as f64);
    }
    Ok(found)
}

/// Oracle approximating shrinkage (Chen et al. 2010, equation 23) of the covariance `[D, D]` of `rows` rows, towards the
/// identity times the mean variance.
fn shrink(covariance: &mut Array2<f64>, rows: f64) {
    let units = covariance.nrows() as f64;
    let mean = covariance.diag().sum() / units;
    let squares = covariance.iter().map(|entry| entry * entry).sum::<f64>() / (units * units);
    let apart = (rows + 1.0) * (squares - mean * mean / units);
    let share = if apart > 0.0 { ((squares + mean * mean) / apart).min(1.0) } else { 1.0 };
    *covariance *= 1.0 - share;
    covariance.diag_mut().iter_mut().for_each(|variance| *variance += share * mean);
}

/// The mean of all rows, as the one class that they make.
pub(crate) fn together(classes: &[ClassMean]) -> ClassMean {
    let rows = classes.iter().map(|class| class.rows).sum::<u64>();
    let mut mean = Array1::zeros(classes.first().map_or(0, |class| class.mean.len()));
    for class in classes {
        mean.scaled_add(class.rows as f64 / rows.max(1) as f64, &class.mean);
    }
    ClassMean { class: 0, rows, mean }
}

/// A linear map that gives rows zero mean and unit covariance: `z = A h + o`.
#[derive(Debug)]
pub(crate) struct Whitening {
    /// A `[D, D]`.
    matrix: Arc<[f32]>,
    /// o `[D]`.
    offset: Arc<[f32]>,
    product: Product,
}

impl Whitening {
    fn new(matrix: Arc<[f32]>, offset: Arc<[f32]>) -> Result<Self> {
        let product = Product::new(&matrix, [offset.len(), offset.len()], Some(&offset))?;
        Ok(Self { matrix, offset, product })
    }

    /// The one of rows with this covariance `[D, D]` about this mean.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] for a covariance without inverse.
    pub(crate) fn of(covariance: &Array2<f64>, mean: &Array1<f64>) -> Result<Self> {
        let matrix = linalg::whitening(covariance)?;
        let offset: Array1<f64> = -matrix.dot(mean);
        let narrow = |values: &mut dyn Iterator<Item = &f64>| values.map(|value| *value as f32).collect();
        Self::new(narrow(&mut matrix.iter()), narrow(&mut offset.iter()))
    }

    /// Whitened `points`, by the rounded map, so that its rounding cancels from distances to them.
    pub(crate) fn centres(&self, points: &[ClassMean]) -> Result<Centres> {
        let units = self.offset.len();
        let whiten = |point: &ClassMean| -> Vec<f32> {
            let product = |row: &[f32]| row.iter().zip(&point.mean).map(|(a, b)| f64::from(*a) * b).sum::<f64>();
            let parts = self.matrix.chunks_exact(units).zip(&*self.offset);
            parts.map(|(row, offset)| (product(row) + f64::from(*offset)) as f32).collect()
        };
        Centres::new(points.iter().flat_map(whiten).collect(), units)
    }

    /// The whitened `rows` `[n, D]` into `out`, and the squared length of each.
    pub(crate) fn apply(&self, rows: &[f32], scratch: &mut Scratch, out: &mut Vec<f32>, squares: &mut [f64]) {
        out.clear();
        out.resize(rows.len(), 0.0);
        // Rows that are not finite are refused by who scores them.
        let _ = self.product.multiply(rows, scratch, out);
        for (square, row) in squares.iter_mut().zip(out.chunks_exact(self.offset.len())) {
            *square = row.iter().map(|value| f64::from(*value).powi(2)).sum();
        }
    }

    pub(crate) fn save(&self, to: &mut State) {
        let units = self.offset.len();
        to.put("whitening", &[units, units], Arc::clone(&self.matrix));
        to.put("offset", &[units], Arc::clone(&self.offset));
    }

    pub(crate) fn load(state: &mut State, units: usize) -> Result<Self> {
        let matrix = state.take::<f32>("whitening", &[Some(units), Some(units)])?;
        let offset = state.take::<f32>("offset", &[Some(units)])?;
        check_finite("whitening", &matrix)?;
        check_finite("offset", &offset)?;
        Self::new(matrix, offset)
    }

    /// The whitened rows as operators.
    pub(crate) fn express(&self, graph: &mut Graph, rows: Wire) -> Wire {
        let units = self.offset.len();
        let products = graph.times(rows, [units, units], Arc::clone(&self.matrix));
        let offset = graph.row(self.offset.iter().copied());
        graph.add(products, offset)
    }
}

/// Some points of the whitened space.
#[derive(Debug)]
pub(crate) struct Centres {
    /// `[M, D]`.
    points: Arc<[f32]>,
    /// `-|m|^2 / 2` of each.
    half: Vec<f32>,
    /// Gives `z m - |m|^2 / 2`, so that `-|z - m|^2` is twice that less `|z|^2`.
    product: Product,
}

impl Centres {
    pub(crate) fn new(points: Arc<[f32]>, units: usize) -> Result<Self> {
        let square = |point: &[f32]| point.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
        let half: Vec<f32> = points.chunks_exact(units).map(|point| (-0.5 * square(point)) as f32).collect();
        let product = Product::new(&points, [half.len(), units], Some(&half))?;
        Ok(Self { points, half, product })
    }

    /// `-min_m |z - m|^2` of whitened rows, whose squared lengths are in `out`.
    pub(crate) fn nearest(&self, rows: &[f32], scratch: &mut Scratch, out: &mut [f64]) {
        let mut largest = vec![f32::NEG_INFINITY; out.len()];
        let _ = self.product.for_each_slab(rows, scratch, |slab| {
            let values = slab.values.chunks_exact(slab.outputs.len());
            for (largest, values) in largest[slab.rows.clone()].iter_mut().zip(values) {
                *largest = values.iter().copied().fold(*largest, f32::max);
            }
        });
        for (out, largest) in out.iter_mut().zip(largest) {
            *out = 2.0 * f64::from(largest) - *out;
        }
    }

    pub(crate) fn save(&self, to: &mut State) {
        let count = self.half.len();
        to.put("centres", &[count, self.points.len() / count], Arc::clone(&self.points));
    }

    pub(crate) fn load(state: &mut State, units: usize) -> Result<Self> {
        let points = state.take::<f32>("centres", &[None, Some(units)])?;
        check_finite("centres", &points)?;
        Self::new(points, units)
    }

    /// `z m - |m|^2 / 2` `[N, M]` as operators.
    pub(crate) fn express(&self, graph: &mut Graph, rows: Wire) -> Wire {
        let count = self.half.len();
        let products = graph.times(rows, [count, self.points.len() / count], Arc::clone(&self.points));
        let half = graph.row(self.half.iter().copied());
        graph.add(products, half)
    }

    /// What [`Centres::nearest`] gives, as operators.
    pub(crate) fn express_nearest(&self, graph: &mut Graph, rows: Wire) -> Wire {
        let values = self.express(graph, rows);
        let largest = graph.reduce(Reduce::Max, values);
        let (twice, square) = (graph.scale(largest, 2.0), square(graph, rows));
        graph.sub(twice, square)
    }
}

/// The squared length of each row as operators.
pub(crate) fn square(graph: &mut Graph, rows: Wire) -> Wire {
    let squares = graph.mul(rows, rows);
    graph.sum(squares)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shrinkage_is_that_of_scikit_learn() {
        // sklearn.covariance.oas(X, assume_centered=True), X the rows (1, 2), (-1, 0), (0, -2), (2, 1), twenty times each.
        let moment = 20.0 * Array2::from_shape_vec((2, 2), vec![6.0, 4.0, 4.0, 9.0]).unwrap();
        let origin = |rows| ClassMean { class: 0, rows, mean: Array1::zeros(2) };
        let found = covariance(&moment, &[origin(80)], Shrinkage::Oas).unwrap();
        for (place, expected) in [((0, 0), 1.54743785), ((0, 1), 0.87349907), ((1, 1), 2.20256215)] {
            assert!((found[place] - expected).abs() < 1e-8, "{place:?}: {}", found[place]);
        }
        let few = covariance(&(moment / 20.0), &[origin(4)], Shrinkage::Oas).unwrap();
        assert_eq!(few, 1.875 * Array2::<f64>::eye(2), "so few rows tell no direction");
    }

    #[test]
    fn too_few_rows_for_an_inverse_are_refused_unless_shrunk() {
        let moment = Array2::<f64>::eye(3);
        let about = [ClassMean { class: 0, rows: 3, mean: Array1::zeros(3) }];
        let refused = covariance(&moment, &about, Shrinkage::None).unwrap_err();
        assert!(refused.to_string().contains("at least 4"), "{refused}");
        assert!(covariance(&moment, &about, Shrinkage::Oas).is_ok());
    }
}
