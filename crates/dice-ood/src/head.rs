//! The classifier's last linear layer.

use ndarray::{ArcArray1, ArcArray2, Array1, Array2, ArrayView1, ArrayView2};

use crate::error::{Error, ErrorKind, Result};

/// A linear head: weight `W` `[C, D]` and bias `b` `[C]`, in the order of torch's `nn.Linear`.
///
/// Logits of penultimate features `h` `[D]` are `W h + b`. All values are finite, and `C` and `D` are at least 1. A clone
/// shares the values.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearHead {
    weight: ArcArray2<f32>,
    bias: ArcArray1<f32>,
}

impl LinearHead {
    /// A head from `weight` `[C, D]` and `bias` `[C]`.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] when they disagree, [`ErrorKind::Empty`] for no classes or units,
    /// [`ErrorKind::NotFinite`] for NaN or infinity.
    pub fn new(weight: Array2<f32>, bias: Array1<f32>) -> Result<Self> {
        let (classes, units) = weight.dim();
        if classes == 0 || units == 0 {
            return Err(Error::new(ErrorKind::Empty, format!("[{classes}, {units}]"))
                .tensor("head weight")
                .expected("at least one class and one unit"));
        }
        if bias.len() != classes {
            return Err(Error::new(ErrorKind::Shape, format!("[{}]", bias.len()))
                .tensor("head bias")
                .expected(format!("[{classes}], one value for each row of the weight [{classes}, {units}]"))
                .fix("is the weight stored as [D, C]? Transpose it to [C, D]"));
        }
        if weight.iter().fold(false, |bad, value| bad | !value.is_finite())
            && let Some(((class, unit), value)) = weight.indexed_iter().find(|(_, value)| !value.is_finite())
        {
            return Err(Error::new(ErrorKind::NotFinite, format!("{value} at class {class}, unit {unit}"))
                .tensor("head weight")
                .expected("finite values"));
        }
        if let Some((class, value)) = bias.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(Error::new(ErrorKind::NotFinite, format!("{value} at class {class}"))
                .tensor("head bias")
                .expected("finite values"));
        }
        // Kernels read rows as slices.
        let weight = if weight.is_standard_layout() { weight } else { weight.as_standard_layout().into_owned() };
        Ok(Self { weight: weight.into_shared(), bias: bias.into_shared() })
    }

    /// A head from row-major weights: `bias.len()` rows of `units` values.
    ///
    /// # Errors
    /// As [`LinearHead::new`].
    pub fn from_rows(weight: Vec<f32>, bias: Vec<f32>, units: usize) -> Result<Self> {
        let classes = bias.len();
        let found = weight.len();
        let weight = Array2::from_shape_vec((classes, units), weight).map_err(|_| {
            Error::new(ErrorKind::Shape, format!("{found} values"))
                .tensor("head weight")
                .expected(format!("[{classes}, {units}] = {} values", classes.saturating_mul(units)))
        })?;
        Self::new(weight, Array1::from(bias))
    }

    /// Checks that features of `units` columns can be the inputs of this head.
    ///
    /// # Errors
    /// [`ErrorKind::Shape`] where D is another, saying so where it is C.
    pub fn check_features(&self, units: usize) -> Result<()> {
        let (classes, expected) = self.weight.dim();
        if units == expected {
            return Ok(());
        }
        let fix = match units == classes {
            true => "as many columns as the head has classes: are these its outputs? Give its inputs",
            false => "are these the inputs of that very layer?",
        };
        Err(Error::new(ErrorKind::Shape, format!("[N, {units}]"))
            .tensor("features")
            .expected(format!("[N, {expected}], as the head is [{classes}, {expected}]"))
            .fix(fix))
    }

    /// The weight `[C, D]`.
    pub fn weight(&self) -> ArrayView2<'_, f32> {
        self.weight.view()
    }

    /// The bias `[C]`.
    pub fn bias(&self) -> ArrayView1<'_, f32> {
        self.bias.view()
    }

    /// Number of classes, C.
    pub fn classes(&self) -> usize {
        self.weight.nrows()
    }

    /// Number of penultimate units, D.
    pub fn units(&self) -> usize {
        self.weight.ncols()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_cannot_be_a_head() {
        let kind =
            |weight: Vec<f32>, bias: Vec<f32>, units| LinearHead::from_rows(weight, bias, units).unwrap_err().kind();
        assert_eq!(kind(vec![], vec![], 3), ErrorKind::Empty);
        assert_eq!(kind(vec![], vec![1.0], 0), ErrorKind::Empty);
        assert_eq!(kind(vec![1.0; 5], vec![0.0; 2], 3), ErrorKind::Shape);
        assert_eq!(kind(vec![1.0, f32::NAN], vec![0.0], 2), ErrorKind::NotFinite);
        assert_eq!(kind(vec![1.0, 2.0], vec![f32::INFINITY], 2), ErrorKind::NotFinite);
        let wrong_bias = LinearHead::new(Array2::zeros((2, 3)), Array1::zeros(3)).unwrap_err();
        assert!(wrong_bias.to_string().contains("expected [2]"), "{wrong_bias}");
    }

    #[test]
    fn column_major_weights_become_rows() {
        let transposed = Array2::from_shape_vec((3, 2), vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]).unwrap();
        let head = LinearHead::new(transposed.reversed_axes(), Array1::zeros(2)).unwrap();
        assert_eq!(head.weight().row(1).as_slice(), Some(&[4.0, 5.0, 6.0][..]));
    }
}
