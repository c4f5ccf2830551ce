//! Fisher's combination of conformal p-values.

use std::sync::Arc;

use super::{Combination, Combiner, Member, Method};
use crate::card::{Arguments, Card};
use crate::error::Result;
use crate::votes::VoteSum;

/// `fisher(energy, knn(50))`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fisher;

impl Method for Fisher {
    const CARD: &'static Card = &Card {
        name: "fisher",
        about: "product of the members' conformal p-values",
        formula: "sum_m w_m log p_m, p_m = (1 + #{reference scores <= score}) / (n + 1)",
        paper: "Fisher; members are dependent, so its own threshold is conformal as well, on other inputs",
        year: 1932,
        cost: "a look-up a member; n reference scores a member are kept",
        exports: true,
        example: "fisher(energy, knn(50))",
        parameters: &[],
    };

    fn from_arguments(_: &Arguments) -> std::result::Result<Self, String> {
        Ok(Self)
    }

    fn arguments(&self) -> Arguments {
        Arguments::new(Self::CARD, [])
    }
}

impl Combination for Fisher {
    fn fit(&self, members: &[Member<'_>]) -> Result<Arc<dyn Combiner>> {
        Ok(Arc::new(VoteSum::new(members, |weight| weight, |rank, inputs| ((1.0 + rank) / (inputs + 1.0)).ln())))
    }
}
