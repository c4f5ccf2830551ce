//! Decompositions that some fits take. They need the crate's feature `linalg`; scoring does not.

use ndarray::{Array1, Array2};

use crate::error::Result;

/// Orthonormal axes of some rows: eigenvectors of their second moment about a centre, the largest eigenvalue first.
#[derive(Debug, Clone, PartialEq)]
pub struct Axes {
    /// `[D]`, descending.
    pub values: Array1<f64>,
    /// `[D, D]`, an axis a row.
    pub vectors: Array2<f64>,
}

#[cfg(feature = "linalg")]
mod decompositions {
    use super::{Array1, Array2, Axes, Result};
    use crate::error::{Error, ErrorKind};
    use faer::linalg::cholesky::llt::factor::LltError;
    use faer::{Mat, Side};

    fn failed(what: &str) -> Error {
        Error::new(ErrorKind::Argument, "no convergence").tensor(what.to_owned()).expected("finite values of sane size")
    }

    fn mat(of: &Array2<f64>) -> Mat<f64> {
        Mat::from_fn(of.nrows(), of.ncols(), |row, column| of[(row, column)])
    }

    impl Axes {
        /// Of a symmetric matrix `[D, D]`.
        pub(crate) fn of(symmetric: &Array2<f64>) -> Result<Self> {
            let units = symmetric.nrows();
            let found = mat(symmetric).self_adjoint_eigen(Side::Lower).map_err(|_| failed("eigenvectors"))?;
            let (values, vectors) = (found.S().column_vector(), found.U());
            // Ascending there. Of an axis and its opposite, the one whose largest part is positive.
            let axis = |place: usize| -> Vec<f64> {
                let column: Vec<f64> = (0..units).map(|row| vectors[(row, units - 1 - place)]).collect();
                let largest = column.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(1.0);
                let sign = if largest < 0.0 { -1.0 } else { 1.0 };
                column.into_iter().map(|part| sign * part).collect()
            };
            let rows: Vec<f64> = (0..units).flat_map(axis).collect();
            Ok(Self {
                values: (0..units).map(|place| values[units - 1 - place]).collect(),
                vectors: Array2::from_shape_vec((units, units), rows).map_err(|_| failed("eigenvectors"))?,
            })
        }
    }

    /// The shortest `x` `[D]` that brings `A x` nearest to `b` `[C]`: `pinv(A) b`.
    pub(crate) fn least_squares(a: &Array2<f64>, b: &Array1<f64>) -> Result<Array1<f64>> {
        let found = mat(a).thin_svd().map_err(|_| failed("singular values"))?;
        let (u, s, v) = (found.U(), found.S().column_vector(), found.V());
        let most = if s.nrows() > 0 { s[0] } else { 0.0 };
        // numpy.linalg.pinv's cut.
        let cut = 1e-15 * most;
        let mut x = Array1::zeros(a.ncols());
        for place in (0..s.nrows()).filter(|place| s[*place] > cut) {
            let along: f64 = (0..a.nrows()).map(|row| u[(row, place)] * b[row]).sum();
            for (unit, x) in x.iter_mut().enumerate() {
                *x += v[(unit, place)] * along / s[place];
            }
        }
        Ok(x)
    }

    /// `L^-1` `[D, D]`, where `L L^T` is this covariance: it makes rows of unit covariance.
    pub(crate) fn whitening(covariance: &Array2<f64>) -> Result<Array2<f64>> {
        let units = covariance.nrows();
        let singular = |unit: usize| {
            Error::new(ErrorKind::Argument, format!("unit {unit} constant, or a linear combination of units before it"))
                .tensor("covariance")
                .expected("features that vary in every direction")
        };
        if let Some(constant) = covariance.diag().iter().position(|variance| *variance <= 0.0) {
            return Err(singular(constant));
        }
        let found = mat(covariance).llt(Side::Lower).map_err(|error| match error {
            LltError::NonPositivePivot { index } => singular(index.min(units - 1)),
        })?;
        // Below this, what is left of a unit's variance is rounding.
        let least = units as f64 * f64::EPSILON;
        let lower = found.L();
        let left = |unit: &usize| lower[(*unit, *unit)].powi(2) / covariance[(*unit, *unit)];
        if let Some(unit) = (0..units).find(|unit| left(unit) < least) {
            return Err(singular(unit));
        }
        let mut inverse = Mat::<f64>::identity(units, units);
        lower.solve_lower_triangular_in_place(&mut inverse);
        Ok(Array2::from_shape_fn((units, units), |(row, column)| inverse[(row, column)]))
    }
}

#[cfg(not(feature = "linalg"))]
mod decompositions {
    use super::{Array1, Array2, Axes, Result};
    use crate::error::{Error, ErrorKind};

    fn without(what: &str) -> Error {
        Error::new(ErrorKind::Unsupported, "a build of dice-ood without the feature `linalg`")
            .tensor(what.to_owned())
            .expected("linear algebra, to fit this method")
            .fix("build with it; a fitted detector scores without")
    }

    impl Axes {
        pub(crate) fn of(_: &Array2<f64>) -> Result<Self> {
            Err(without("eigenvectors"))
        }
    }

    pub(crate) fn least_squares(_: &Array2<f64>, _: &Array1<f64>) -> Result<Array1<f64>> {
        Err(without("singular values"))
    }

    pub(crate) fn whitening(_: &Array2<f64>) -> Result<Array2<f64>> {
        Err(without("covariance"))
    }
}

pub(crate) use decompositions::{least_squares, whitening};

#[cfg(all(test, feature = "linalg"))]
mod tests {
    use super::*;

    fn covariance() -> Array2<f64> {
        ndarray::arr2(&[[4.0, 2.0, 0.0], [2.0, 5.0, 1.0], [0.0, 1.0, 3.0]])
    }

    #[test]
    fn whitened_rows_have_unit_covariance() {
        let whitening = whitening(&covariance()).unwrap();
        let unit = whitening.dot(&covariance()).dot(&whitening.t());
        assert!((unit - Array2::<f64>::eye(3)).iter().all(|difference| difference.abs() < 1e-12));
    }

    #[test]
    fn units_that_do_not_vary_by_themselves_are_named() {
        let mut constant = covariance();
        constant.row_mut(1).fill(0.0);
        constant.column_mut(1).fill(0.0);
        assert!(whitening(&constant).unwrap_err().to_string().contains("unit 1"));
        // Unit 2 is the sum of the others.
        let rows = ndarray::arr2(&[[1.0, 0.0], [0.3, 1.0], [1.3, 1.0]]);
        assert!(whitening(&rows.dot(&rows.t())).unwrap_err().to_string().contains("unit 2"));
    }
}
