//! The sentences of an account.

use dice_ood::explanation::{Decided, Neighbour, UnitShare};

use super::Account;
use crate::names::shown;
use crate::report::{count, percent};

/// Units, classes, members that are listed each.
pub(super) const LISTED: usize = 5;
/// A unit that takes less than this part of what is missing to the threshold explains nothing by itself.
const SMALL: f64 = 0.1;

impl Account {
    /// What was decided, in one sentence.
    pub(super) fn verdict(&self) -> String {
        match &self.why.decided {
            Some(decided) => {
                let verdict = if decided.accepted { "accepted" } else { "rejected" };
                format!("{verdict}: {}.", reached(decided))
            }
            None => "not decided: the detector is not calibrated, and gives scores only.".into(),
        }
    }

    /// The score beside its threshold.
    pub(super) fn score(&self) -> String {
        match &self.why.decided {
            Some(decided) => format!(
                "Score {:.4}, accepted from {:.4} on (TPR of {} %); p-value {:.4}.",
                self.why.score,
                decided.threshold,
                percent(decided.promised_tpr),
                decided.p_value
            ),
            None => format!("Score {:.4}; higher = more in-distribution.", self.why.score),
        }
    }

    /// A class for people.
    fn class(&self, class: usize) -> String {
        self.class_names.show(class)
    }

    /// What the network takes the input for.
    pub(super) fn prediction(&self) -> String {
        let predicted = &self.why.classes[self.why.prediction];
        let mut text = format!(
            "The network takes it for class {} (softmax {:.3})",
            self.class(predicted.class),
            predicted.dense_share
        );
        let others = self.why.classes.iter().filter(|one| one.class != predicted.class);
        if let Some(second) = others.max_by(|a, b| a.dense_logit.total_cmp(&b.dense_logit)) {
            text += &format!(", then class {} ({:.3})", self.class(second.class), second.dense_share);
        }
        if let Some(label) = self.input.label {
            text += &format!("; its label is {label}");
        }
        text + "."
    }

    /// The units that weigh most, in one sentence: those that speak against an input that is rejected, for one that is accepted.
    pub(super) fn because(&self) -> Option<String> {
        let against = self.why.decided.is_none_or(|decided| !decided.accepted);
        let units: Vec<&UnitShare> = if against { self.lowering() } else { self.raising() };
        let first = units.first()?;
        if let Some(decided) = self.why.decided.filter(|_| against) {
            let missing = decided.threshold - self.why.score;
            if -first.share < SMALL * missing {
                return Some(format!(
                    "No single unit explains it: the strongest, {}, takes {:.3} of the {missing:.3} that are missing.",
                    self.unit(first.unit),
                    -first.share
                ));
            }
        }
        let parts: Vec<String> = units.iter().take(3).map(|unit| self.unit_in_words(unit)).collect();
        Some(format!("Mostly {} it: {}.", if against { "against" } else { "for" }, parts.join(", ")))
    }

    fn unit_in_words(&self, unit: &UnitShare) -> String {
        format!(
            "{} is {:.3} where training inputs have {:.3} on average ({:+.3} of the score)",
            self.unit(unit.unit),
            unit.activation,
            unit.mean,
            unit.share
        )
    }

    /// What the nearest training inputs are labelled, against the prediction.
    pub(super) fn company(&self) -> Option<String> {
        let near = self.neighbours();
        let labelled: Vec<i64> = near.iter().filter_map(|one| one.label).collect();
        if labelled.is_empty() {
            return None;
        }
        let alike = labelled.iter().filter(|label| **label == self.why.prediction as i64).count();
        Some(format!(
            "{alike} of the {} nearest training inputs are of class {}.",
            labelled.len(),
            self.class(self.why.prediction)
        ))
    }

    /// A unit by its number, and its name where a table had one.
    pub(super) fn unit(&self, unit: usize) -> String {
        match self.unit_names.get(unit) {
            Some(name) => format!("unit {unit} ({})", shown(name)),
            None => format!("unit {unit}"),
        }
    }

    /// Units whose activation lowers the score, the strongest first.
    pub(super) fn lowering(&self) -> Vec<&UnitShare> {
        let mut units: Vec<&UnitShare> = self.why.units.iter().filter(|unit| unit.share < 0.0).collect();
        units.sort_by(|a, b| a.share.total_cmp(&b.share));
        units
    }

    /// Units whose activation raises the score, the strongest first.
    pub(super) fn raising(&self) -> Vec<&UnitShare> {
        let mut units: Vec<&UnitShare> = self.why.units.iter().filter(|unit| unit.share > 0.0).collect();
        units.sort_by(|a, b| b.share.total_cmp(&a.share));
        units
    }

    /// Classes by their logit in the pipeline, the largest first.
    pub(super) fn classes_by_logit(&self) -> Vec<usize> {
        let mut classes: Vec<usize> = (0..self.why.classes.len()).collect();
        classes.sort_by(|a, b| self.why.classes[*b].logit.total_cmp(&self.why.classes[*a].logit));
        classes
    }

    /// The nearest of the files given, else of the bank.
    pub(super) fn neighbours(&self) -> &[Neighbour] {
        self.training.as_deref().unwrap_or(&self.why.nearest)
    }

    /// What pruning removed, in sentences.
    pub(super) fn pruning(&self) -> Option<String> {
        let pruning = self.why.pruning.as_ref()?;
        let mut text = format!(
            "`{}` keeps {} of {} weights, {} of {} for class {}. Dropping the others takes {:.4} from the energy: {:.4} with all, {:.4} \
             with those kept. ",
            self.why.pipeline,
            count(pruning.weights_kept),
            count(pruning.weights),
            count(pruning.class_weights_kept),
            count(self.why.units.len()),
            self.class(self.why.prediction),
            pruning.removed,
            pruning.shaped_energy,
            pruning.energy,
        );
        if pruning.dense_energy != pruning.shaped_energy {
            text += &format!("Without shaping the energy is {:.4}. ", pruning.dense_energy);
        }
        let largest: Vec<String> =
            pruning.largest.iter().map(|one| format!("{} {:+.3}", self.unit(one.unit), one.contribution)).collect();
        text += &format!(
            "Dropped from class {}: {:+.4} in all that speak for it, {:+.4} against it; the largest: {}.",
            self.class(self.why.prediction),
            pruning.removed_positive,
            pruning.removed_negative,
            if largest.is_empty() { "none".into() } else { largest.join(", ") },
        );
        Some(text)
    }

    /// What the members of a combination say, in a sentence: the one that speaks most against the input.
    pub(super) fn members(&self) -> Option<String> {
        let lost = |member: &dice_ood::explanation::MemberVote| member.vote - member.usual_vote;
        let most = self.why.members.iter().min_by(|a, b| lost(a).total_cmp(&lost(b)))?;
        Some(match lost(most) < 0.0 {
            true => format!(
                "Of its members `{}` speaks most against the input: {:.3}, where in-distribution inputs usually have {:.3}.",
                most.detector, most.vote, most.usual_vote
            ),
            false => "None of its members speaks against the input more than usual.".into(),
        })
    }
}

/// How many in-distribution inputs score so low.
fn reached(decided: &Decided) -> String {
    let Decided { calibration_inputs: inputs, calibration_at_most: low, percentile, .. } = *decided;
    match low {
        0 => format!("none of {} calibration inputs scores this low", count(inputs)),
        _ => format!(
            "{} % of in-distribution inputs score this low or lower ({} of {} calibration inputs)",
            percent(percentile),
            count(low),
            count(inputs)
        ),
    }
}
