//! The inputs of sets that are worth a look, found while something else reads them: those nearest to a threshold on both sides, and
//! the mistakes that are furthest beyond it.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::artifact::Calibrated;
use crate::calibration::{Decision, Threshold};
use crate::detector::Detector;
use crate::diagnosis::Kind;
use crate::features::{Block, FeatureSource, Observed};
use crate::plan::{NonFinite, Plan};

/// Inputs of one set and reason.
const MOST: usize = 3;

/// Why an input is worth a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// On the wrong side of the threshold, and furthest from it: an in-distribution input of the lowest score, another of the highest.
    Mistake,
    /// At the threshold or above it, and nearest to it.
    JustAccepted,
    /// Below the threshold, and nearest to it.
    JustRejected,
}

/// An input that is worth a look.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Notable {
    /// The set that it is from.
    pub set: String,
    /// Why.
    pub reason: Reason,
    /// Its name, or its row where it has none.
    pub id: String,
    /// Its score.
    pub score: f64,
    /// Its features `[D]`.
    #[serde(skip)]
    pub features: Vec<f32>,
}

/// Looks out for notable inputs of calibrated detectors; those without a threshold have none.
pub struct Lookout {
    plan: Plan,
    thresholds: Vec<Option<Threshold>>,
    /// By detector, set by set and by reason, the most notable first.
    seen: Mutex<Vec<Vec<Notable>>>,
}

impl Lookout {
    /// A lookout for each of `detectors`, all of one head.
    pub fn new(detectors: &[Calibrated]) -> Self {
        let all: Vec<&Detector> = detectors.iter().map(Calibrated::detector).collect();
        Self {
            plan: Plan::new(all.iter().copied()),
            thresholds: detectors.iter().map(|one| one.threshold().copied()).collect(),
            seen: Mutex::new(vec![Vec::new(); detectors.len()]),
        }
    }

    /// The blocks of `source`, each looked at as it is read. What cannot be scored is passed over: it is for the reader to refuse.
    pub fn over<'s>(
        &'s self,
        set: &str,
        kind: Kind,
        source: Box<dyn FeatureSource + 's>,
    ) -> Box<dyn FeatureSource + 's> {
        let set = set.to_owned();
        Box::new(Observed::new(source, move |block: &mut Block| {
            let Ok(scored) = self.plan.score_block(block, NonFinite::OutOfDistribution) else { return Ok(()) };
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for ((seen, threshold), scored) in seen.iter_mut().zip(&self.thresholds).zip(scored) {
                let Some(threshold) = threshold else { continue };
                for (row, score) in scored.scores.iter().enumerate().filter(|(_, score)| score.is_finite()) {
                    for reason in reasons(*threshold, kind, *score) {
                        note(seen, (&set, reason, *score), block, row, *threshold);
                    }
                }
            }
            Ok(())
        }))
    }

    /// What was found, by detector: set by set as they were read, reason by reason, the most notable first.
    pub fn finish(self) -> Vec<Vec<Notable>> {
        self.seen.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For what an input may be worth a look.
fn reasons(threshold: Threshold, kind: Kind, score: f64) -> impl Iterator<Item = Reason> {
    let accepted = threshold.decide(score) == Decision::InDistribution;
    let near = if accepted { Reason::JustAccepted } else { Reason::JustRejected };
    let wrong = accepted != (kind == Kind::InDistribution);
    wrong.then_some(Reason::Mistake).into_iter().chain([near])
}

/// Keeps an input where it is more notable than another of its set and reason; the first of equals.
fn note(seen: &mut Vec<Notable>, (set, reason, score): (&str, Reason, f64), block: &Block, row: usize, by: Threshold) {
    let off = |score: f64| (score - by.score()).abs();
    let before = |a: f64, b: f64| if reason == Reason::Mistake { off(a) > off(b) } else { off(a) < off(b) };
    let start = seen.iter().position(|one| one.set == set && one.reason >= reason);
    let start = start.unwrap_or(seen.len());
    let own = seen[start..].iter().take_while(|one| one.set == set && one.reason == reason).count();
    let place = seen[start..start + own].iter().take_while(|one| !before(score, one.score)).count();
    if place >= MOST {
        return;
    }
    let features = block.features[row * block.units..][..block.units].to_vec();
    seen.insert(start + place, Notable { set: set.to_owned(), reason, id: block.id(row).to_string(), score, features });
    if own == MOST {
        seen.remove(start + MOST);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ndarray::Array2;

    use super::*;
    use crate::calibration::Calibration;
    use crate::features::{ArraySource, for_each_block};
    use crate::head::LinearHead;
    use crate::spec::Spec;
    use crate::statistics::{Needs, Statistics};

    #[test]
    fn the_nearest_and_the_worst_are_kept_whatever_the_blocks() {
        let head = Arc::new(LinearHead::from_rows(vec![1.0], vec![0.0], 1).unwrap());
        let energy = || "energy".parse::<Spec>().unwrap().fit(&head, &Statistics::new(1, &Needs::default())).unwrap();
        // The energy of one class is its logit; the threshold is 5.
        let scores: Vec<f64> = (5..25).map(f64::from).collect();
        let calibrated = Calibrated::new(energy(), Calibration::new(scores).unwrap(), 0.95).unwrap();
        assert_eq!(calibrated.threshold().unwrap().score(), 5.0);
        let lookout = Lookout::new(&[calibrated, Calibrated::scores_only(energy())]);
        let rows = |values: &[f32]| Array2::from_shape_vec((values.len(), 1), values.to_vec()).unwrap();
        let (id, ood) = (rows(&[9.0, 4.0, 6.0, 1.0, 5.0, 7.0, 8.0, f32::NAN, 3.0]), rows(&[5.5, 4.5, 20.0]));
        for (name, kind, rows) in [("id", Kind::InDistribution, &id), ("ood", Kind::OutOfDistribution, &ood)] {
            let mut source = lookout.over(name, kind, Box::new(ArraySource::new(rows.view())));
            for_each_block(&mut source, |_| Ok(())).unwrap();
        }
        let found = lookout.finish();
        let told: Vec<(&str, Reason, f64, &str)> =
            found[0].iter().map(|one| (&*one.set, one.reason, one.score, &*one.id)).collect();
        assert_eq!(
            told,
            [
                ("id", Reason::Mistake, 1.0, "3"),
                ("id", Reason::Mistake, 3.0, "8"),
                ("id", Reason::Mistake, 4.0, "1"),
                ("id", Reason::JustAccepted, 5.0, "4"),
                ("id", Reason::JustAccepted, 6.0, "2"),
                ("id", Reason::JustAccepted, 7.0, "5"),
                ("id", Reason::JustRejected, 4.0, "1"),
                ("id", Reason::JustRejected, 3.0, "8"),
                ("id", Reason::JustRejected, 1.0, "3"),
                ("ood", Reason::Mistake, 20.0, "2"),
                ("ood", Reason::Mistake, 5.5, "0"),
                ("ood", Reason::JustAccepted, 5.5, "0"),
                ("ood", Reason::JustAccepted, 20.0, "2"),
                ("ood", Reason::JustRejected, 4.5, "1"),
            ]
        );
        assert!(found[1].is_empty());
    }
}
