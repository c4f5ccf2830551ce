//! The detector that is taken where nobody chooses one.
//!
//! One score a family, combined as evidence: the magnitude of the features, their angle to the class, the density of the class,
//! what lies outside the principal subspace, what the head cannot see, and the distance from the mean of the predicted class. No score by itself is good on near and on far
//! out-of-distribution inputs of every network; the sum of evidence carries a member that is bad on one of them.

use std::sync::Arc;

use crate::calibration::Calibration;
use crate::checks::Witness;
use crate::detector::Prepared;
use crate::error::{Error, ErrorKind, Result};
use crate::features::{Opening, for_each_block};
use crate::methods::{Combination, Member};
use crate::pipeline::Fitting;
use crate::plan::{NonFinite, Plan};
use crate::selection::LeftOut;
use crate::spec::{MemberSpec, Spec};
use crate::statistics::Needs;
use crate::weights::{Votes, accepted, fit_weights};

/// How a choice is made, and what it was worth where that was measured: another recipe changes both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// Name and version. One version takes the same detector for the same head, statistics, calibration inputs and validation sets.
    pub name: &'static str,
    /// The panel where every member can be fitted.
    pub panel: &'static str,
    /// What was measured over networks.
    pub measured: Measured,
    /// What each member looks at, and the member. One that rests on labels has another for features without.
    members: [(&'static str, &'static [&'static str]); 6],
    /// The rule that combines them, with a member for it to parse.
    rule: &'static str,
}

/// Mean FPR at 95 % TPR over networks, as fractions: `docs/CHOOSE.md` has the tables, `bench/choose/compare.py` prints them.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Measured {
    /// Over so many networks.
    pub networks: u32,
    /// Of the panel.
    pub panel: f64,
    /// Of the single method that is the best over the same networks.
    pub best_single: f64,
    /// Of the energy.
    pub energy: f64,
}

/// The recipe of this version.
pub const RECIPE: Recipe = Recipe {
    name: "auto-2",
    panel: "evidence(lts, nci, mds, vim, core, caref)",
    measured: Measured { networks: 16, panel: 0.277, best_single: 0.376, energy: 0.503 },
    members: [
        ("the magnitude of features", &["lts"]),
        ("their angle to the class", &["nci"]),
        ("the density of the class", &["mds", "mds(by=prediction)"]),
        ("what lies outside the principal subspace", &["vim"]),
        ("what the head cannot see", &["core", "core(by=prediction)"]),
        ("their distance from the mean of the predicted class", &["caref"]),
    ],
    rule: "evidence(energy)",
};

/// Fewer members are no panel: one that nobody asked for by name is then not taken.
const FEWEST: usize = 3;

/// The panel before its members are fitted.
pub(crate) struct Panel {
    rule: Arc<dyn Combination>,
    /// Each with what can be fitted in its place, best first.
    members: Vec<(&'static str, Vec<Spec>)>,
}

impl Panel {
    pub(crate) fn new() -> Result<Self> {
        let rule = match RECIPE.rule.parse()? {
            Spec::Combined { rule, .. } => rule,
            Spec::Pipeline(_) => return Err(Error::new(ErrorKind::Argument, RECIPE.rule).expected("a combination")),
        };
        let parse = |(family, specs): (&'static str, &[&str])| -> Result<_> {
            Ok((family, specs.iter().map(|spec| spec.parse()).collect::<Result<_>>()?))
        };
        Ok(Self { rule, members: RECIPE.members.into_iter().map(parse).collect::<Result<_>>()? })
    }

    /// Drops what takes labels.
    pub(crate) fn drop_labelled(&mut self) {
        self.members.iter_mut().for_each(|(_, specs)| specs.retain(|spec| !spec.needs().takes_labels()));
    }

    /// What a fit of every member rests on.
    pub(crate) fn needs(&self) -> Needs {
        self.members.iter().flat_map(|(_, specs)| specs).fold(Needs::default(), |needs, spec| needs.and(spec.needs()))
    }

    /// The members that can be fitted.
    ///
    /// # Errors
    /// Where none can: the reason of the first.
    pub(crate) fn choose(self, on: &Fitting<'_>) -> Result<Choice> {
        let mut choice = Choice { rule: self.rule, members: Vec::new(), left_out: Vec::new(), weighed: None };
        for (family, specs) in self.members {
            let mut refused = None;
            for spec in specs {
                match spec.prepare(on) {
                    Ok(_) => {
                        choice.members.push(Chosen { family, spec, weight: 1.0 });
                        refused = None;
                        break;
                    }
                    Err(error) => refused = refused.or(Some(LeftOut { spec, reason: Arc::new(error) })),
                }
            }
            choice.left_out.extend(refused);
        }
        choice.unless_empty()
    }
}

/// What was chosen, and why.
#[derive(Debug, Clone)]
pub struct Choice {
    rule: Arc<dyn Combination>,
    members: Vec<Chosen>,
    left_out: Vec<LeftOut>,
    weighed: Option<Weighed>,
}

/// A member of the chosen detector.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// What it looks at.
    pub family: &'static str,
    /// The member.
    pub spec: Spec,
    /// What its evidence is multiplied by.
    pub weight: f64,
}

/// Weights that were fitted to one half of each validation set and tried on the other.
#[derive(Debug, Clone)]
pub struct Weighed {
    /// Of each member, of mean 1.
    pub weights: Vec<f64>,
    /// For each validation set its name, the share of its second half that equal weights accept, and that these accept.
    pub accepted: Vec<(String, [f64; 2])>,
    /// Whether these weights accept less of the sets, on average, and so are the detector's.
    pub taken: bool,
}

/// Out-of-distribution sets to weigh members on.
pub(crate) struct ValidationSets<'a, 'w> {
    /// Their names, and how to open them.
    pub(crate) sets: Vec<(String, Opening<'a>)>,
    /// Of the in-distribution inputs that the fit has read: none of the sets' inputs are among them.
    pub(crate) id: Vec<&'w mut Witness>,
}

/// What each member scores the inputs of a validation set: `[member][input]`.
struct Validation {
    name: String,
    scores: Vec<Vec<f64>>,
}

impl Validation {
    /// # Errors
    /// What reading and scoring meet, and [`ErrorKind::Argument`](crate::ErrorKind::Argument) for inputs that are those of `id`.
    fn score(name: String, open: Opening<'_>, members: &Prepared, id: &mut [&mut Witness]) -> Result<Self> {
        let detectors = members.pipelines();
        let plan = Plan::new(&detectors);
        let mut scores = vec![Vec::new(); detectors.len()];
        let mut source = open()?;
        let head = detectors[0].head();
        head.check_features(source.units()).map_err(|error| error.file(&name))?;
        let mut seen = Witness::new(head.classes());
        for_each_block(&mut *source, |block| {
            seen.see(block);
            let scored = plan.score_block(block, NonFinite::Reject)?;
            scores.iter_mut().zip(scored).for_each(|(all, scored)| all.extend(scored.scores));
            Ok(())
        })?;
        let shared = id.iter_mut().try_for_each(|id| seen.refuse_shared(id));
        shared.map_err(|error| error.argument(format!("validation set '{name}'")))?;
        Ok(Self { name, scores })
    }
}

impl Choice {
    /// The detector.
    pub fn spec(&self) -> Spec {
        let member = |chosen: &Chosen| MemberSpec { spec: chosen.spec.clone(), weight: chosen.weight };
        Spec::Combined { rule: Arc::clone(&self.rule), members: self.members.iter().map(member).collect() }
    }

    /// Its members.
    pub fn members(&self) -> &[Chosen] {
        &self.members
    }

    /// Members that could not be fitted here.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Whether members have weights of their own; `None` where there were no validation sets.
    pub fn weighed(&self) -> Option<&Weighed> {
        self.weighed.as_ref()
    }

    /// Refuses a choice of too few members.
    pub(crate) fn unless_few(self) -> Result<Self> {
        match (self.members.len() < FEWEST, self.left_out.first()) {
            (true, Some(first)) => {
                let found = format!("{} of {} members", self.members.len(), RECIPE.members.len());
                let reason = format!("{FEWEST} members; '{}': {}", first.spec, first.reason);
                Err(Error::new(ErrorKind::Argument, found).expected(reason))
            }
            _ => Ok(self),
        }
    }

    fn unless_empty(self) -> Result<Self> {
        match (self.members.is_empty(), self.left_out.first()) {
            (true, Some(first)) => Err(Error::new(ErrorKind::Argument, format!("'{}': {}", first.spec, first.reason))
                .argument("auto")
                .expected("at least one member that can be fitted")),
            _ => Ok(self),
        }
    }

    /// The choice once it is known what its members score the reference inputs, which `reference` gathers, and the inputs of the
    /// validation sets.
    ///
    /// # Errors
    /// Where no member is left, and what reading and scoring meet.
    pub(crate) fn settle(
        self,
        fitting: &Fitting<'_>,
        reference: &dyn Fn(&Prepared) -> Vec<Vec<f64>>,
        validation: ValidationSets<'_, '_>,
    ) -> Result<Self> {
        let all = reference(&self.spec().prepare(fitting)?);
        let mut choice = self.supported(&all)?;
        let ValidationSets { sets, mut id } = validation;
        if sets.is_empty() {
            return Ok(choice);
        }
        let prepared = choice.spec().prepare(fitting)?;
        let score = |(name, open)| Validation::score(name, open, &prepared, &mut id);
        let sets = sets.into_iter().map(score).collect::<Result<Vec<_>>>()?;
        choice.weigh(&reference(&prepared), &sets)?;
        Ok(choice)
    }

    /// Drops members whose scores of the `reference` inputs, `[member][input]`, do not support the rule: those that score all
    /// inputs alike.
    ///
    /// # Errors
    /// Where no member is left.
    fn supported(mut self, reference: &[Vec<f64>]) -> Result<Self> {
        let rule = Arc::clone(&self.rule);
        for (chosen, scores) in std::mem::take(&mut self.members).into_iter().zip(reference) {
            match votes(&*rule, &chosen, scores, &[]) {
                Ok(_) => self.members.push(chosen),
                Err(error) => self.left_out.push(LeftOut { spec: chosen.spec, reason: Arc::new(error) }),
            }
        }
        self.unless_empty()
    }

    /// Fits weights to one half of each validation set, and takes them where they accept less of the other halves, on average,
    /// than equal weights. `reference` is what each member scores the inputs that its p-values rest on, never those of the
    /// detector's own threshold.
    ///
    /// # Errors
    /// [`ErrorKind::Empty`] for a set of fewer than two inputs.
    fn weigh(&mut self, reference: &[Vec<f64>], sets: &[Validation]) -> Result<()> {
        let vote = |scores: &dyn Fn(usize) -> Vec<f64>| -> Result<Votes> {
            let members = self.members.iter().zip(reference).enumerate();
            members.map(|(place, (chosen, reference))| votes(&*self.rule, chosen, reference, &scores(place))).collect()
        };
        let half = |set: &Validation, first: usize| {
            vote(&|member| set.scores[member].iter().skip(first).step_by(2).copied().collect())
        };
        if let Some(small) = sets.iter().find(|set| set.scores.first().map_or(0, Vec::len) < 2) {
            return Err(Error::new(ErrorKind::Empty, "fewer than two inputs").file(&small.name));
        }
        let id = vote(&|member| reference[member].clone())?;
        let to_fit = sets.iter().map(|set| half(set, 0)).collect::<Result<Vec<_>>>()?;
        let to_try = sets.iter().map(|set| half(set, 1)).collect::<Result<Vec<_>>>()?;
        let weights: Vec<f64> = fit_weights(&id, &to_fit)?.into_iter().map(rounded).collect();
        let equal = accepted(&id, &to_try, &vec![1.0; weights.len()])?;
        let weighted = accepted(&id, &to_try, &weights)?;
        let taken = weighted.iter().sum::<f64>() < equal.iter().sum::<f64>();
        if taken {
            self.members.iter_mut().zip(&weights).for_each(|(chosen, weight)| chosen.weight = *weight);
        }
        let names = sets.iter().map(|set| set.name.clone());
        let accepted = names.zip(equal.into_iter().zip(weighted).map(|(equal, weighted)| [equal, weighted])).collect();
        self.weighed = Some(Weighed { weights, accepted, taken });
        Ok(())
    }
}

/// What one member says of inputs that it scores `scores`.
fn votes(rule: &dyn Combination, of: &Chosen, reference: &[f64], scores: &[f64]) -> Result<Vec<f64>> {
    let name = of.spec.to_string();
    let reference = Arc::new(Calibration::new(reference.to_vec())?);
    let combiner = rule.fit(&[Member { name: &name, reference: &reference, weight: 1.0 }])?;
    Ok(scores.iter().map(|score| combiner.combine(&[*score])).collect())
}

/// To two decimals, for people to read, and never none.
fn rounded(weight: f64) -> f64 {
    ((weight * 100.0).round() / 100.0).max(0.01)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panel_parses_and_has_members_without_labels() {
        let mut panel = Panel::new().unwrap();
        assert!(panel.needs().takes_labels());
        let first: Vec<String> = panel.members.iter().map(|(_, specs)| specs[0].to_string()).collect();
        let rule = RECIPE.rule.split('(').next().unwrap();
        assert_eq!(RECIPE.panel, format!("{rule}({})", first.join(", ")));
        assert!(Spec::all().iter().any(|spec| spec.to_string() == RECIPE.panel));
        panel.drop_labelled();
        assert!(!panel.needs().takes_labels());
        assert!(panel.members.iter().all(|(_, specs)| specs.len() == 1));
    }

    #[test]
    fn the_document_of_the_choice_has_the_figures_of_the_recipe() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CHOOSE.md");
        let Ok(document) = std::fs::read_to_string(&path) else {
            println!("skipped: no {}", path.display());
            return;
        };
        let Measured { networks, panel, best_single, energy } = RECIPE.measured;
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        let row = |name: &str, mean: f64| format!("| {name} | {} |", percent(mean));
        for part in
            [row("F5 + caref", panel), row("mds++", best_single), row("energy", energy), RECIPE.panel.to_owned()]
        {
            assert!(document.contains(&part), "{part}");
        }
        let rows = document.split("## Networks").nth(1).unwrap().lines().skip_while(|line| !line.starts_with("|---"));
        assert_eq!(rows.skip(1).take_while(|line| line.starts_with('|')).count(), networks as usize);
    }

    #[test]
    fn a_choice_of_few_members_is_none() {
        let mut few = choice(&["energy", "msp"]);
        few.left_out.push(LeftOut {
            spec: "mds".parse().unwrap(),
            reason: Arc::new(Error::new(ErrorKind::Argument, "no labels")),
        });
        let message = few.unless_few().unwrap_err().to_string();
        assert!(message.contains("2 of 6 members") && message.contains("no labels"), "{message}");
        assert!(choice(&["energy", "msp", "gen"]).unless_few().is_ok());
    }

    fn choice(specs: &[&str]) -> Choice {
        let members = specs.iter().map(|spec| Chosen { family: "f", spec: spec.parse().unwrap(), weight: 1.0 });
        Choice { rule: Panel::new().unwrap().rule, members: members.collect(), left_out: Vec::new(), weighed: None }
    }

    fn spread(from: f64, step: f64) -> Vec<f64> {
        (0..400).map(|at| from + step * f64::from((at * 7919) % 400)).collect()
    }

    #[test]
    fn members_that_score_all_inputs_alike_are_left_out() {
        let left = choice(&["energy", "msp"]).supported(&[spread(0.0, 1.0), vec![0.5; 400]]).unwrap();
        assert_eq!(left.spec().to_string(), "evidence(energy)");
        assert_eq!(left.left_out()[0].spec.to_string(), "msp");
        let none = choice(&["msp"]).supported(&[vec![0.5; 400]]).unwrap_err().to_string();
        assert!(none.contains("auto") && none.contains("msp"), "{none}");
    }

    #[test]
    fn weights_are_taken_where_they_reject_more_of_the_other_half() {
        let reference = [spread(0.0, 1.0), spread(0.0, 1.0)];
        // The first member sees the set, the second takes it for more in-distribution than anything else.
        let seen = Validation { name: "seen".into(), scores: vec![spread(0.0, 0.1), spread(500.0, 0.1)] };
        let mut weighed = choice(&["energy", "msp"]);
        weighed.weigh(&reference, &[seen]).unwrap();
        let result = weighed.weighed().unwrap();
        assert!(result.taken && result.accepted[0].1[1] < result.accepted[0].1[0], "{result:?}");
        let printed = weighed.spec().to_string();
        assert_eq!(printed.parse::<Spec>().unwrap().to_string(), printed);
        assert!(weighed.members()[0].weight > weighed.members()[1].weight);

        let unseen = Validation { name: "unseen".into(), scores: vec![spread(200.0, 1.0), spread(200.0, 1.0)] };
        let mut equal = choice(&["energy", "msp"]);
        equal.weigh(&reference, &[unseen]).unwrap();
        assert_eq!(equal.spec().to_string(), "evidence(energy, msp)");
        let one = Validation { name: "one".into(), scores: vec![vec![1.0], vec![1.0]] };
        assert!(equal.weigh(&reference, &[one]).unwrap_err().to_string().contains("one"));
    }
}
