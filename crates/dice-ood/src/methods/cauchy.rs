//! The Cauchy combination: the least likely member weighs most, whatever the members' dependence.

use std::f64::consts::PI;
use std::sync::Arc;

use super::{Combination, Combiner, Member, Method};
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::votes::VoteSum;

/// `cauchy(energy, knn(50))`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cauchy;

impl Method for Cauchy {
    const CARD: &'static Card = &Card {
        name: "cauchy",
        about: "sum of the members' p-values as Cauchy deviates: the smallest p-value rules",
        formula: "sum_m w_m tan(pi (p_m - 1/2)) / sum_m w_m, p_m = (1 + #{reference scores <= score}) / (n + 2)",
        paper: "Liu and Xie, JASA; n + 2 keeps p below 1, where the deviate is infinite; its own threshold is conformal as \
                well, on other inputs",
        year: 2020,
        cost: "a look-up a member; n reference scores a member are kept",
        exports: true,
        example: "cauchy(energy, knn(50))",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Combination for Cauchy {
    fn fit(&self, members: &[Member<'_>]) -> Result<Arc<dyn Combiner>> {
        let total: f64 = members.iter().map(|member| member.weight).sum();
        let deviate = |rank: f64, inputs: f64| (PI * ((1.0 + rank) / (inputs + 2.0) - 0.5)).tan();
        Ok(Arc::new(VoteSum::new(members, |weight| weight / total, deviate)))
    }
}
