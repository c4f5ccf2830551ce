//! Published numbers, and ours beside them.

use dice_ood::Report;
use dice_ood::metrics::Interval;

use crate::page::{Beside, Pair};

/// As they were printed, in percent; each with where it is from.
const TABLE: &str = include_str!("published.csv");
/// The value of a row that stands for the mean over all sets of the paper.
const AVERAGE: &str = "average";

/// The networks of the paper: what they are called, their classes and units, the share of weights dropped, the sets.
pub(crate) const NETWORKS: [Published; 3] = [
    Published { name: "cifar10", classes: 10, units: 342, p: 0.9, sets: &CIFAR },
    Published { name: "cifar100", classes: 100, units: 342, p: 0.9, sets: &CIFAR },
    Published {
        name: "imagenet",
        classes: 1000,
        units: 2048,
        p: 0.7,
        sets: &["inaturalist", "sun", "places", "textures"],
    },
];
const CIFAR: [&str; 6] = ["svhn", "lsunc", "lsunr", "isun", "textures", "places"];

/// A network of the paper.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Published {
    pub(crate) name: &'static str,
    pub(crate) classes: usize,
    pub(crate) units: usize,
    pub(crate) p: f64,
    pub(crate) sets: &'static [&'static str],
}

/// The name of a set as the table has it: letters and digits, whatever the case; other names of the same set.
pub(crate) fn key(set: &str) -> String {
    let plain: String = set.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    match plain.as_str() {
        "dtd" => "textures".into(),
        "places365" => "places".into(),
        "lsun" | "lsuncrop" => "lsunc".into(),
        "lsunresize" => "lsunr".into(),
        _ => plain,
    }
}

/// Every published number of `network` that has one of ours: of `report`, whose detectors are called as `names` says, spec and name.
/// Averages only where all sets of the paper are there.
pub(crate) fn beside(network: &Published, report: &Report, names: &[(String, &str)]) -> Vec<Beside> {
    let whole = report.detectors.first().is_some_and(|one| {
        one.sets.len() == network.sets.len() && one.sets.iter().all(|set| network.sets.contains(&&*key(&set.ood)))
    });
    let rows = TABLE.lines().skip(1).filter_map(|line| {
        let cells: Vec<&'static str> = line.splitn(8, ',').collect();
        let [of, set, name, fpr, auroc, fpr_sd, auroc_sd, source] = cells[..] else { return None };
        let spec = names.iter().find(|(_, known)| *known == name).filter(|_| of == network.name)?;
        let one = report.detectors.iter().find(|one| one.detector == spec.0)?;
        let number = |text: &str| text.parse::<f64>().ok().map(|percent| percent / 100.0);
        let pair = |published: &str, deviation: &str, (ours, interval): (f64, Option<Interval>)| {
            Some(Pair { published: number(published)?, deviation: number(deviation), ours, interval })
        };
        let (shown, fpr_ours, auroc_ours) = match set {
            AVERAGE => {
                let mean = one.average.filter(|_| whole)?;
                (AVERAGE.to_owned(), (mean.fpr_at_tpr, None), (mean.auroc, None))
            }
            _ => {
                let own = one.sets.iter().find(|own| key(&own.ood) == set)?;
                let of = |part: fn(&dice_ood::metrics::Intervals) -> Interval| own.intervals.as_ref().map(part);
                let fpr = (own.metrics.fpr_at_tpr, of(|all| all.fpr_at_tpr));
                (own.ood.clone(), fpr, (own.metrics.auroc, of(|all| all.auroc)))
            }
        };
        Some(Beside {
            detector: one.detector.clone(),
            set: shown,
            source,
            fpr: pair(fpr, fpr_sd, fpr_ours)?,
            auroc: pair(auroc, auroc_sd, auroc_ours)?,
        })
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole_and_names_what_there_is() {
        for line in TABLE.lines().skip(1) {
            let cells: Vec<&str> = line.splitn(8, ',').collect();
            let network = NETWORKS.iter().find(|one| one.name == cells[0]).unwrap();
            assert!(cells[1] == AVERAGE || network.sets.contains(&cells[1]), "{line}");
            assert!(cells[3..5].iter().all(|cell| (0.0..=100.0).contains(&cell.parse::<f64>().unwrap())), "{line}");
            assert!(!cells[7].is_empty(), "{line}");
        }
        assert_eq!((&*key("Places365"), &*key("LSUN-C"), &*key("dtd")), ("places", "lsunc", "textures"));
    }

    #[test]
    fn a_difference_is_judged_by_either_interval() {
        let pair = |published, deviation, interval: Option<(f64, f64)>| Pair {
            published,
            deviation,
            ours: 0.5,
            interval: interval.map(|(low, high)| Interval { low, high }),
        };
        assert_eq!(pair(0.52, None, Some((0.4, 0.6))).agrees(), Some(true));
        assert_eq!(pair(0.7, None, Some((0.4, 0.6))).agrees(), Some(false));
        assert_eq!(pair(0.7, Some(0.1), Some((0.4, 0.6))).agrees(), Some(true));
        assert_eq!(pair(0.8, Some(0.1), None).agrees(), Some(false));
        assert_eq!(pair(0.8, None, None).agrees(), None);
    }
}
