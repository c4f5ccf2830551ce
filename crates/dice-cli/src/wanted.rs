//! The detectors that `--detector` names.

use std::fmt;
use std::str::FromStr;

use dice_ood::{Error, ErrorKind, Result, Spec};

/// A detector, the one that a fit chooses, or all there are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    All,
    Auto,
    Spec(Box<Spec>),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Auto => f.write_str("auto"),
            Self::Spec(spec) => spec.fmt(f),
        }
    }
}

impl FromStr for Wanted {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "all" => Self::All,
            "auto" => Self::Auto,
            _ => Self::Spec(Box::new(text.parse()?)),
        })
    }
}

/// What a fit makes where no detector is named: the one that it chooses, if it can, and two to compare with.
pub(crate) const DEFAULT: [&str; 3] = ["auto", "dice(0.9) | energy", "energy"];

/// What a command line asks for.
pub(crate) struct Named<'a> {
    /// The detectors that are named one by one.
    pub(crate) specs: Vec<&'a Spec>,
    /// Whether all others are wanted too.
    pub(crate) all: bool,
    /// Before which of `specs` the chosen detector comes, where it is wanted.
    pub(crate) auto: Option<usize>,
}

/// What `wanted` asks for.
pub(crate) fn named(wanted: &[Wanted]) -> Result<Named<'_>> {
    if let Some(twice) = (1..wanted.len()).find(|at| wanted[..*at].contains(&wanted[*at])) {
        let name = match &wanted[twice] {
            Wanted::All => "all".to_owned(),
            Wanted::Auto => "auto".to_owned(),
            Wanted::Spec(spec) => spec.to_string(),
        };
        return Err(Error::new(ErrorKind::Argument, format!("'{name}' twice"))
            .argument("--detector")
            .expected("different detectors"));
    }
    let spec = |wanted| match wanted {
        &(Wanted::All | Wanted::Auto) => None,
        Wanted::Spec(spec) => Some(&**spec),
    };
    let auto = wanted.iter().position(|wanted| *wanted == Wanted::Auto);
    Ok(Named {
        specs: wanted.iter().filter_map(spec).collect(),
        all: wanted.contains(&Wanted::All),
        auto: auto.map(|place| wanted[..place].iter().filter_map(spec).count()),
    })
}
