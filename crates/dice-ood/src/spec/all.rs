//! A detector for every method there is.

use super::Spec;
use crate::auto::RECIPE;
use crate::error::Result;
use crate::methods::{Entry, METHODS};

/// The panel of `auto`, and the same where some class has no row.
const PANELS: [&str; 2] = [RECIPE.panel, "evidence(lts, nci, mds, vim, core)"];

/// Roles in the order in which [`Spec::all`] has them.
const ROLES: [&str; 3] = ["sparsity", "shaping", "score"];

impl Spec {
    /// A detector that stands for `method`: a score with its defaults, any other step as the example of its card has it.
    ///
    /// # Errors
    /// None for an entry of [`METHODS`]: tests hold their examples to it.
    pub fn of_method(method: &Entry) -> Result<Self> {
        match method.role() {
            "score" => method.card.name.parse().or_else(|_| method.card.example.parse()),
            _ => method.card.example.parse(),
        }
    }

    /// Detectors to compare where nothing is known yet: sparsities and shapings with the energy behind them, `dice(0.9) | energy`
    /// first; every score with its defaults; and the panel of [`auto`](crate::auto), with `caref` and without.
    ///
    /// Not all can be fitted to every network and data set: see [`Fit::detector_if_possible`](crate::Fit::detector_if_possible).
    ///
    /// ```
    /// let all = dice_ood::Spec::all();
    /// assert!(all.len() > 40 && all[0].to_string() == "dice(0.9) | energy");
    /// assert!(all.iter().any(|spec| spec.to_string() == "react(0.99) | energy"));
    /// ```
    pub fn all() -> Vec<Self> {
        let of_role = |role: &'static str| METHODS.iter().filter(move |entry| entry.role() == role);
        let single = ROLES.into_iter().flat_map(of_role).filter_map(|entry| Self::of_method(entry).ok());
        single.chain(PANELS.iter().flat_map(|panel| panel.parse())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_a_detector_that_uses_it_and_all_are_different() {
        let all: Vec<String> = Spec::all().iter().map(Spec::to_string).collect();
        for entry in METHODS {
            let spec = Spec::of_method(entry).unwrap().to_string();
            let uses = |text: &str| text.split(['|', '(', ',', ')', ' ']).any(|word| word == entry.card.name);
            assert!(uses(&spec), "{spec} for {}", entry.card.name);
            assert_eq!(all.contains(&spec), entry.role() != "combination", "{spec}");
        }
        assert!(all.ends_with(&PANELS.map(str::to_owned)));
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        let single = METHODS.iter().filter(|entry| entry.role() != "combination").count();
        assert_eq!(all.len(), single + PANELS.len());
    }
}
