//! What each member of a combination says of an input.

use std::sync::Arc;

use ndarray::ArrayView2;
use serde::Serialize;

use crate::calibration::Calibration;
use crate::detector::Detector;
use crate::error::{Error, ErrorKind, Result};
use crate::mask::neighbours;
use crate::spec::{MemberSpec, Spec};

/// What one member of a combination says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberVote {
    /// Its spec.
    pub detector: String,
    /// What the combination multiplies its vote by.
    pub weight: f64,
    /// Its score, higher = more in-distribution.
    pub score: f64,
    /// The conformal p-value of that score among its scores of the reference inputs.
    pub p_value: f64,
    /// The term that it adds to the combined score, its weight included: the lower, the more it speaks against the input. For
    /// `simes`, whose score is the smallest term, the term.
    pub vote: f64,
    /// The median of its votes on the reference inputs: what an in-distribution input usually gets.
    pub usual_vote: f64,
}

/// The votes of the members of a combination; none for a pipeline.
pub(super) fn votes(detector: &Detector, features: &[f32]) -> Result<Vec<MemberVote>> {
    let Spec::Combined { members: specs, .. } = detector.spec() else { return Ok(Vec::new()) };
    let members = detector.members();
    let row = ArrayView2::from_shape((1, features.len()), features)
        .map_err(|error| Error::caused_by(ErrorKind::Shape, error).tensor("features"))?;
    let scores: Vec<Vec<f64>> = members.iter().map(|member| member.score(row)).collect::<Result<_>>()?;
    let references: Vec<Vec<f64>> = members.iter().map(|member| reference(detector, member)).collect::<Result<_>>()?;
    let (own, usual) = (detector.votes(&scores)?, detector.votes(&references)?);
    let vote = |(place, member): (usize, &MemberSpec)| {
        Ok(MemberVote {
            detector: member.spec.to_string(),
            weight: member.weight,
            score: scores[place][0],
            p_value: Calibration::new(references[place].clone())?.p_value(scores[place][0]),
            vote: own[place][0],
            usual_vote: median(&usual[place]),
        })
    };
    specs.iter().enumerate().map(vote).collect()
}

/// What `member` of `detector` scores the reference inputs.
fn reference(detector: &Detector, member: &Detector) -> Result<Vec<f64>> {
    let place = |own: &Arc<_>| detector.fitted().iter().position(|known| Arc::ptr_eq(known, own)).unwrap_or(0);
    let lists: Vec<Vec<f64>> =
        member.fitted().iter().map(|pipeline| detector.reference()[place(pipeline)].clone()).collect();
    member.combine(&lists)
}

fn median(values: &[f64]) -> f64 {
    neighbours(values, (values.len() - 1) / 2, f64::total_cmp).0
}
