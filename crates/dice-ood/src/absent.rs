//! Methods of the field that are not here, and why: a spec that names one is told so.

use std::fmt;

/// A published method that takes more than features, a head and labels, or cannot keep what a detector here promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absent {
    /// The name that it would have in a spec.
    pub name: &'static str,
    /// Who published it, and where.
    pub paper: &'static str,
    /// When.
    pub year: u16,
    /// Why it is not here, and what is nearest to it.
    pub reason: &'static str,
}

/// Every method that is known and not here.
pub static ABSENT: &[Absent] = &[
    Absent {
        name: "adascale",
        paper: "Regmi, arXiv 2503.08023",
        year: 2025,
        reason: "it perturbs each input by a gradient of the network, to choose a percentile; `scale` has the same shaping at a \
                 fixed one",
    },
    Absent {
        name: "cfood",
        paper: "Angiulli, Fassetti and Zupi, SISAP",
        year: 2025,
        reason: "its score takes at most 230 values, between which no threshold or p-value lies; `knn` ranks by distances to the \
                 same neighbours",
    },
    Absent {
        name: "combood",
        paper: "Rajasekaran et al., SDM",
        year: 2024,
        reason: "it reads activations of every layer; `fisher(knn(50), mds)` combines its two kinds of distance in the last one",
    },
    Absent {
        name: "gram",
        paper: "Sastry and Oore, ICML",
        year: 2020,
        reason: "it reads the feature maps of every layer, whose Gram matrices it compares; features hold only the last, pooled",
    },
    Absent {
        name: "odin",
        paper: "Liang, Li and Srikant, ICLR",
        year: 2018,
        reason: "it perturbs each input by a gradient of the network; `msp(temperature=1000)` is what it does without that",
    },
    Absent {
        name: "rankfeat",
        paper: "Song, Sebe and Wang, NeurIPS",
        year: 2022,
        reason: "it takes the largest singular value from feature maps before they are pooled, which features do not hold",
    },
];

impl Absent {
    /// The one called `name`, in letters of either case.
    pub fn find(name: &str) -> Option<&'static Self> {
        ABSENT.iter().find(|absent| absent.name.eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` ({}, {}) is not here: {}", self.name, self.paper, self.year, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::Entry;
    use crate::spec::Spec;

    #[test]
    fn what_is_not_here_is_nowhere_else_and_what_is_nearest_is() {
        assert!(ABSENT.is_sorted_by_key(|absent| absent.name));
        for absent in ABSENT {
            assert!(Entry::find(absent.name).is_none(), "{}", absent.name);
            assert!(!absent.reason.ends_with('.') && absent.year > 2000, "{}", absent.name);
            for named in absent.reason.split('`').skip(1).step_by(2) {
                let whole: Result<Spec, _> = named.parse();
                assert!(whole.is_ok() || Entry::find(named).is_some(), "{named}");
            }
        }
    }
}
