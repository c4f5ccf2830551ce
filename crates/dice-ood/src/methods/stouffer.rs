//! Stouffer's combination: p-values as normal deviates, added.

use std::sync::Arc;

use statrs::distribution::{ContinuousCDF, Normal};

use super::{Combination, Combiner, Member, Method};
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::votes::VoteSum;

/// `stouffer(energy, knn(50))`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stouffer;

impl Method for Stouffer {
    const CARD: &'static Card = &Card {
        name: "stouffer",
        about: "sum of the members' p-values as normal deviates: the least and the most likely weigh alike",
        formula: "sum_m w_m z(p_m) / sqrt(sum_m w_m^2), z the quantile of the standard normal distribution, \
                  p_m = (1 + #{reference scores <= score}) / (n + 2)",
        paper: "Stouffer et al.; n + 2 keeps p below 1, where z is infinite; members are dependent, so its own threshold is \
                conformal as well, on other inputs",
        year: 1949,
        cost: "a look-up a member; n reference scores a member are kept",
        exports: true,
        example: "stouffer(energy, knn(50))",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Combination for Stouffer {
    fn fit(&self, members: &[Member<'_>]) -> Result<Arc<dyn Combiner>> {
        let length = members.iter().map(|member| member.weight.powi(2)).sum::<f64>().sqrt();
        let normal = Normal::standard();
        let deviate = |rank: f64, inputs: f64| normal.inverse_cdf((1.0 + rank) / (inputs + 2.0));
        Ok(Arc::new(VoteSum::new(members, |weight| weight / length, deviate)))
    }
}
