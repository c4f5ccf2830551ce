//! What to expect of pruning, near and far apart, by rules whose hit rates were measured.
//!
//! A rule is never more than a summary of the networks that it was tried on. `docs/DIAGNOSE.md` lists these and has the
//! command that counts the hits again.

use serde::Serialize;

use crate::auto::RECIPE;
use crate::evaluation::Distance;

/// What pruning does to AUROC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It rises by [`MATERIAL`] or more.
    Helps,
    /// It falls by [`MATERIAL`] or more.
    Hurts,
    /// It moves by less.
    NoDifference,
    /// The rule is right too rarely to say.
    CannotTell,
}

/// A difference of AUROC that matters: one point.
pub const MATERIAL: f64 = 0.01;
/// Share of negative values from which features count as signed: no rectifier stands before the head.
pub const SIGNED: f64 = 0.01;
/// How far the own-logit signal-to-noise ratio must move, up or down, for a rule to speak.
pub const SIGNAL: f64 = 0.2;
/// A rule that is right less often says nothing.
pub const RELIABLE: f64 = 0.7;
/// Nor does one that was tried on fewer sets that count: of four, four right ones can be chance.
pub const FEWEST: u32 = 5;

/// By what an expectation was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Measured on out-of-distribution sets that were given.
    Measured,
    /// The mean gain on stand-ins, distorted in-distribution inputs.
    StandIns,
    /// Near inputs lose whatever the network.
    NearLoses,
    /// A share of [`SIGNED`] or more of the features is negative.
    SignedFeatures,
    /// The own-logit signal-to-noise ratio falls by [`SIGNAL`] or more.
    SignalFalls,
    /// It rises by [`SIGNAL`] or more.
    SignalRises,
    /// It does neither.
    SignalStays,
    /// No rule was tried for such a detector.
    Untried,
}

/// What happened where a rule said the same, on the networks and sets that it was tried on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tried {
    /// The p of `dice(p) | energy` with which it was tried.
    pub p: f64,
    /// Sets whose AUROC rose by [`MATERIAL`] or more.
    pub better: u32,
    /// Sets whose AUROC fell by [`MATERIAL`] or more.
    pub worse: u32,
    /// Sets whose AUROC moved by less.
    pub same: u32,
}

impl Tried {
    /// How often the rule was right, and of how many sets. A rule that says helps or hurts is judged by the sets that moved, as
    /// it then says whether to prune; one that says no difference by all.
    pub fn hits(&self, said: Effect) -> (u32, u32) {
        match said {
            Effect::Helps => (self.better, self.better + self.worse),
            Effect::Hurts => (self.worse, self.better + self.worse),
            Effect::NoDifference => (self.same, self.better + self.worse + self.same),
            Effect::CannotTell => (0, 0),
        }
    }
}

/// What to expect on sets of one distance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Expectation {
    /// What to expect; [`Effect::CannotTell`] where the rule is right less often than [`RELIABLE`], on all networks or on those that
    /// set no threshold, or was tried on fewer than [`FEWEST`] sets.
    pub effect: Effect,
    /// The rule that gave it.
    pub rule: Rule,
    /// What the rule says by itself.
    pub rule_says: Effect,
    /// What happened where the rule said that; `None` for what was measured, and where it was never tried.
    pub tried: Option<Tried>,
    /// Of that, what happened on networks that were not in view when the thresholds of the rules were set.
    pub unseen: Option<Tried>,
    /// The mean gain in AUROC that the rule rests on, where it rests on one.
    pub gain: Option<f64>,
}

/// What to expect of pruning. Near and far are apart: what gains on one often loses on the other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Forecast {
    /// On inputs near the training inputs.
    pub near: Expectation,
    /// On inputs far from them.
    pub far: Expectation,
    /// What to take in place of pruning.
    pub instead: Instead,
}

/// A detector that was compared with both `dice(0.7) | energy` and `energy`, on the networks whose test inputs are apart from those of
/// the fit: how often its AUROC was above the better of the two.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Instead {
    /// Its spec.
    pub detector: &'static str,
    /// On near sets.
    pub near: Tried,
    /// On far sets.
    pub far: Tried,
}

/// Counted by `bench/choose/diagnose.py --panel --check`.
const INSTEAD: Instead = Instead {
    detector: RECIPE.panel,
    near: Tried { p: 0.7, better: 1, worse: 1, same: 0 },
    far: Tried { p: 0.7, better: 9, worse: 1, same: 2 },
};

/// What a forecast rests on.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    /// Share of negative values.
    pub(super) negative: f64,
    /// The change of the own-logit signal-to-noise ratio.
    pub(super) signal: f64,
    /// The p of `dice(p) | energy`; `None` for detectors of other kinds, with which no rule was tried.
    pub(super) dice: Option<f64>,
    /// Gains on sets of out-of-distribution inputs, and on stand-ins.
    pub(super) measured: Vec<(Distance, f64)>,
    pub(super) stand_ins: Vec<(Distance, f64)>,
}

/// The effect that a gain in AUROC is.
pub fn effect_of(gain: f64) -> Effect {
    match gain {
        gain if gain >= MATERIAL => Effect::Helps,
        gain if gain <= -MATERIAL => Effect::Hurts,
        gain if gain.is_nan() => Effect::CannotTell,
        _ => Effect::NoDifference,
    }
}

impl Evidence {
    pub(super) fn forecast(&self) -> Forecast {
        Forecast { near: self.at(Distance::Near), far: self.at(Distance::Far), instead: INSTEAD }
    }

    fn at(&self, distance: Distance) -> Expectation {
        let mean = |gains: &[(Distance, f64)]| {
            let own: Vec<f64> = gains.iter().filter(|(of, _)| *of == distance).map(|(_, gain)| *gain).collect();
            (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64)
        };
        let measured = |gain: f64| Expectation {
            effect: effect_of(gain),
            rule: Rule::Measured,
            rule_says: effect_of(gain),
            tried: None,
            unseen: None,
            gain: Some(gain),
        };
        let by_stand_ins = || {
            let gain = mean(&self.stand_ins)?;
            let by = self.by_rule(Rule::StandIns, effect_of(gain), distance, Some(gain));
            // Tried too rarely to speak, it does not silence a rule of features.
            by.tried.filter(|tried| self.dice.is_some() && tried.hits(by.rule_says).1 >= FEWEST).map(|_| by)
        };
        mean(&self.measured).map(measured).or_else(by_stand_ins).unwrap_or_else(|| {
            let rule = self.rule_of_features(distance);
            self.by_rule(rule, rule_says(rule), distance, None)
        })
    }

    fn by_rule(&self, rule: Rule, rule_says: Effect, distance: Distance, gain: Option<f64>) -> Expectation {
        let (tried, unseen) = self.dice.and_then(|p| tried(p, rule, rule_says, distance)).unzip();
        let holds_unseen = |unseen: &Tried| unseen.hits(rule_says).1 < FEWEST || is_reliable(unseen, rule_says);
        let reliable =
            tried.is_some_and(|tried| is_reliable(&tried, rule_says)) && unseen.as_ref().is_none_or(holds_unseen);
        let effect = if reliable { rule_says } else { Effect::CannotTell };
        Expectation { effect, rule, rule_says, tried, unseen, gain }
    }

    fn rule_of_features(&self, distance: Distance) -> Rule {
        match () {
            () if self.dice.is_none() || self.signal.is_nan() => Rule::Untried,
            () if self.negative >= SIGNED => Rule::SignedFeatures,
            () if distance == Distance::Near => Rule::NearLoses,
            () if self.signal <= -SIGNAL => Rule::SignalFalls,
            () if self.signal >= SIGNAL => Rule::SignalRises,
            () => Rule::SignalStays,
        }
    }
}

fn is_reliable(tried: &Tried, said: Effect) -> bool {
    let (right, of) = tried.hits(said);
    of >= FEWEST && f64::from(right) >= RELIABLE * f64::from(of)
}

/// What a rule of features says.
fn rule_says(rule: Rule) -> Effect {
    match rule {
        Rule::SignedFeatures | Rule::NearLoses | Rule::SignalFalls => Effect::Hurts,
        Rule::SignalRises => Effect::Helps,
        Rule::SignalStays => Effect::NoDifference,
        Rule::Measured | Rule::StandIns | Rule::Untried => Effect::CannotTell,
    }
}

/// What happened where `rule` said that, with the p nearest to this one: on all networks, and on those that set no threshold.
fn tried(p: f64, rule: Rule, said: Effect, distance: Distance) -> Option<(Tried, Tried)> {
    let (p, trials) = TRIALS.iter().min_by(|a, b| (a.0 - p).abs().total_cmp(&(b.0 - p).abs()))?;
    let (.., all, unseen) = trials.iter().find(|trial| (trial.0, trial.1, trial.2) == (rule, said, distance))?;
    let tried = |[better, worse, same]: [u32; 3]| Tried { p: *p, better, worse, same };
    Some((tried(*all), tried(*unseen)))
}

/// Sets that got better, worse, or moved by less than a point: of all networks, and of those that set no threshold.
type Trial = (Rule, Effect, Distance, [u32; 3], [u32; 3]);

/// Counted by `bench/choose/diagnose.py --check`, for dice(0.7) and dice(0.9).
#[rustfmt::skip]
const TRIALS: [(f64, &[Trial]); 2] = [
    (0.7, &[
        (Rule::SignedFeatures, Effect::Hurts, Distance::Near, [1, 5, 0], [1, 4, 0]),
        (Rule::NearLoses, Effect::Hurts, Distance::Near, [1, 7, 1], [1, 6, 1]),
        (Rule::SignedFeatures, Effect::Hurts, Distance::Far, [3, 18, 1], [3, 11, 0]),
        (Rule::SignalRises, Effect::Helps, Distance::Far, [15, 6, 18], [2, 5, 3]),
        (Rule::SignalStays, Effect::NoDifference, Distance::Far, [2, 2, 9], [0, 0, 4]),
        (Rule::StandIns, Effect::Helps, Distance::Far, [13, 1, 11], [0, 0, 0]),
        (Rule::StandIns, Effect::Hurts, Distance::Far, [3, 7, 2], [3, 4, 1]),
        (Rule::StandIns, Effect::NoDifference, Distance::Far, [2, 2, 9], [0, 0, 0]),
        (Rule::StandIns, Effect::Hurts, Distance::Near, [0, 4, 0], [0, 3, 0]),
    ]),
    (0.9, &[
        (Rule::SignedFeatures, Effect::Hurts, Distance::Near, [1, 5, 0], [1, 4, 0]),
        (Rule::NearLoses, Effect::Hurts, Distance::Near, [0, 9, 0], [0, 8, 0]),
        (Rule::SignedFeatures, Effect::Hurts, Distance::Far, [1, 19, 2], [1, 12, 1]),
        (Rule::SignalFalls, Effect::Hurts, Distance::Far, [0, 6, 2], [0, 4, 0]),
        (Rule::SignalRises, Effect::Helps, Distance::Far, [4, 0, 4], [3, 0, 1]),
        (Rule::SignalStays, Effect::NoDifference, Distance::Far, [10, 14, 12], [0, 6, 0]),
        (Rule::StandIns, Effect::Helps, Distance::Far, [10, 2, 9], [0, 0, 0]),
        (Rule::StandIns, Effect::Hurts, Distance::Far, [4, 15, 6], [3, 4, 1]),
        (Rule::StandIns, Effect::NoDifference, Distance::Far, [0, 0, 4], [0, 0, 0]),
        (Rule::StandIns, Effect::Hurts, Distance::Near, [0, 4, 0], [0, 3, 0]),
    ]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(negative: f64, signal: f64) -> Evidence {
        Evidence { negative, signal, dice: Some(0.7), ..Evidence::default() }
    }

    #[test]
    fn rules_of_features_say_what_they_were_tried_with() {
        let said = |evidence: &Evidence| {
            let forecast = evidence.forecast();
            (forecast.near.rule_says, forecast.far.rule_says, forecast.far.rule)
        };
        assert_eq!(said(&evidence(0.01, 3.0)), (Effect::Hurts, Effect::Hurts, Rule::SignedFeatures));
        assert_eq!(said(&evidence(0.0, -0.2)), (Effect::Hurts, Effect::Hurts, Rule::SignalFalls));
        assert_eq!(said(&evidence(0.0, f64::NEG_INFINITY)).2, Rule::SignalFalls);
        assert_eq!(said(&evidence(0.009, 0.2)), (Effect::Hurts, Effect::Helps, Rule::SignalRises));
        assert_eq!(said(&evidence(0.0, 0.19)), (Effect::Hurts, Effect::NoDifference, Rule::SignalStays));
        assert_eq!(evidence(0.0, 0.0).forecast().near.rule, Rule::NearLoses);
        let untried = Evidence { dice: None, ..evidence(0.0, 1.0) }.forecast();
        assert_eq!((untried.far.effect, untried.far.rule), (Effect::CannotTell, Rule::Untried));
        assert_eq!(evidence(0.0, f64::NAN).forecast().near.effect, Effect::CannotTell);
    }

    #[test]
    fn hits_are_of_the_sets_that_a_rule_speaks_of() {
        let tried = Tried { p: 0.7, better: 7, worse: 3, same: 20 };
        let hits = [Effect::Helps, Effect::Hurts, Effect::NoDifference].map(|effect| tried.hits(effect));
        assert_eq!(hits, [(7, 10), (3, 10), (20, 30)]);
        assert!(is_reliable(&tried, Effect::Helps) && !is_reliable(&tried, Effect::NoDifference));
        assert!(!is_reliable(&Tried { better: 0, worse: 0, ..tried }, Effect::Helps), "nothing moved");
        let always = |worse| is_reliable(&Tried { better: 0, worse, ..tried }, Effect::Hurts);
        assert!(always(FEWEST) && !always(FEWEST - 1));
    }

    /// What holds on the networks that set a threshold, and not on others, is not said.
    #[test]
    fn a_rule_that_does_not_carry_over_cannot_tell() {
        let far = evidence(0.0, 0.5).forecast().far;
        assert_eq!((far.rule, far.rule_says, far.effect), (Rule::SignalRises, Effect::Helps, Effect::CannotTell));
        assert!(is_reliable(&far.tried.unwrap(), Effect::Helps) && !is_reliable(&far.unseen.unwrap(), Effect::Helps));
        for (_, trials) in TRIALS {
            for (.., all, unseen) in trials {
                assert!(all.iter().zip(unseen).all(|(all, part)| part <= all));
            }
        }
    }

    /// A rule that is right too rarely, or that was never tried, does not speak.
    #[test]
    fn unreliable_rules_cannot_tell() {
        for negative in [0.0, 0.5] {
            for signal in [-1.0, 0.0, 1.0] {
                let forecast = evidence(negative, signal).forecast();
                for expected in [forecast.near, forecast.far] {
                    let reliable = expected.tried.is_some_and(|tried| is_reliable(&tried, expected.rule_says));
                    let (right, of) = expected.unseen.map_or((0, 0), |unseen| unseen.hits(expected.rule_says));
                    let reliable = reliable && (of < FEWEST || f64::from(right) >= RELIABLE * f64::from(of));
                    assert_eq!(expected.effect == expected.rule_says, reliable, "{expected:?}");
                    assert!(reliable || expected.effect == Effect::CannotTell);
                }
            }
        }
    }

    #[test]
    fn what_is_measured_comes_first_and_near_and_far_do_not_mix() {
        let mut given = evidence(0.5, -1.0);
        given.stand_ins = vec![(Distance::Near, -0.05), (Distance::Far, 0.2), (Distance::Far, -0.1)];
        let forecast = given.forecast();
        assert_eq!((forecast.far.rule, forecast.far.rule_says), (Rule::StandIns, Effect::Helps));
        assert!((forecast.far.gain.unwrap() - 0.05).abs() < 1e-12);
        given.measured = vec![(Distance::Far, -0.004)];
        let forecast = given.forecast();
        assert_eq!((forecast.far.rule, forecast.far.effect), (Rule::Measured, Effect::NoDifference));
        // On near sets stand-ins were tried too rarely to speak: the rule of features does.
        assert_eq!((forecast.near.rule, forecast.near.effect), (Rule::SignedFeatures, Effect::Hurts));
        assert_eq!(
            (effect_of(0.01), effect_of(-0.01), effect_of(0.0099)),
            (Effect::Helps, Effect::Hurts, Effect::NoDifference)
        );
    }
}
