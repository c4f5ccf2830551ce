//! How far apart the weight vectors of classes are: what turns a difference of logits into a distance to the boundary
//! between two classes.

use std::sync::OnceLock;

use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;

/// `|w_c - w_y|` of a head, in f64. The row of a class is made when that class is first asked for: a head of many
/// classes costs what it predicts.
#[derive(Debug)]
pub(crate) struct Boundaries {
    head: LinearHead,
    rows: Box<[OnceLock<Box<[f64]>>]>,
}

impl Boundaries {
    /// # Errors
    /// [`ErrorKind::Argument`] for a head that tells no two classes apart.
    pub(crate) fn new(head: &LinearHead) -> Result<Self> {
        let weight = head.weight();
        let first = weight.row(0);
        if weight.rows().into_iter().all(|row| row == first) {
            return Err(Error::new(ErrorKind::Argument, "one class, or equal weights of all classes")
                .tensor("head weight")
                .expected("at least two classes of different weights: there is a boundary between them"));
        }
        Ok(Self { head: head.clone(), rows: (0..head.classes()).map(|_| OnceLock::new()).collect() })
    }

    /// `|w_c - w_y|` for each c `[C]`; 0 where there is no boundary: for y itself, and for classes of its very weights.
    pub(crate) fn of(&self, class: usize) -> &[f64] {
        self.rows[class].get_or_init(|| {
            let weight = self.head.weight();
            let own = weight.row(class);
            let distance = |row: ndarray::ArrayView1<'_, f32>| {
                let squares = row.iter().zip(&own).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
                squares.sum::<f64>().sqrt()
            };
            weight.rows().into_iter().map(distance).collect()
        })
    }

    /// C.
    pub(crate) fn classes(&self) -> usize {
        self.rows.len()
    }

    /// What `of_distance` makes of each distance above 0, and 0 of the others: the table `[C, C]` of an expression.
    pub(crate) fn table(&self, of_distance: impl Fn(f64) -> f64) -> Vec<f32> {
        let value = |distance: &f64| if *distance > 0.0 { of_distance(*distance) as f32 } else { 0.0 };
        (0..self.classes()).flat_map(|class| self.of(class).iter().map(value)).collect()
    }
}
