//! The detectors that `--detector` names.

use std::str::FromStr;

use dice_ood::{Error, ErrorKind, Result, Spec};

/// A detector, or all there are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted {
    All,
    Spec(Box<Spec>),
}

impl FromStr for Wanted {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "all" { Ok(Self::All) } else { Ok(Self::Spec(Box::new(text.parse()?))) }
    }
}

/// The detectors that are named one by one, and whether all others are wanted too.
pub(crate) fn named(wanted: &[Wanted]) -> Result<(Vec<&Spec>, bool)> {
    if let Some(twice) = (1..wanted.len()).find(|at| wanted[..*at].contains(&wanted[*at])) {
        let name = match &wanted[twice] {
            Wanted::All => "all".to_owned(),
            Wanted::Spec(spec) => spec.to_string(),
        };
        return Err(Error::new(ErrorKind::Argument, format!("'{name}' twice"))
            .argument("--detector")
            .expected("different detectors"));
    }
    let spec = |wanted| match wanted {
        &Wanted::All => None,
        Wanted::Spec(spec) => Some(&**spec),
    };
    Ok((wanted.iter().filter_map(spec).collect(), wanted.contains(&Wanted::All)))
}
