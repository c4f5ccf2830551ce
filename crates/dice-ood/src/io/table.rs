//! What the columns of a table are for.

use super::{FEATURE_NAMES, ID_NAMES, LABEL_NAMES, SCORE_NAMES};
use crate::error::{Error, ErrorKind, Result};

/// The role of each column of a table of features.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Roles {
    /// The columns of the features: one that holds lists, or one a unit.
    pub(super) features: Vec<usize>,
    pub(super) label: Option<usize>,
    pub(super) id: Option<usize>,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    /// A list of numbers a row.
    #[cfg_attr(not(feature = "columns"), allow(dead_code, reason = "CSV has no lists"))]
    List,
    Text,
    #[cfg_attr(not(feature = "columns"), allow(dead_code, reason = "CSV has only numbers and text"))]
    Other,
}

impl Roles {
    /// Assigns roles to `columns`; `name` is the features column where the user named one. A column of labels is never
    /// taken for a feature, but is read only where `labels` are wanted.
    pub(super) fn assign(columns: &[(String, Kind)], name: Option<&str>, labels: bool) -> Result<Self> {
        let called = |names: &[&str]| {
            names.iter().find_map(|name| {
                columns.iter().position(|(column, kind)| {
                    column.eq_ignore_ascii_case(name) && matches!(kind, Kind::Number | Kind::Text)
                })
            })
        };
        let is_one_of =
            |column: usize, names: &[&str]| names.iter().any(|name| columns[column].0.eq_ignore_ascii_case(name));
        let mut roles = Self { label: called(&LABEL_NAMES), id: called(&ID_NAMES), features: Vec::new() };
        let lists: Vec<usize> = (0..columns.len()).filter(|column| columns[*column].1 == Kind::List).collect();
        if let Some(name) = name {
            let found = columns.iter().position(|(column, _)| column == name);
            roles.features = vec![found.ok_or_else(|| missing(columns, name))?];
        } else if let Some(named) = lists.iter().find(|list| is_one_of(**list, &FEATURE_NAMES)) {
            roles.features = vec![*named];
        } else {
            match lists[..] {
                [only] => roles.features = vec![only],
                [] => {
                    let other = |column: &usize| {
                        let named = [&LABEL_NAMES[..], &ID_NAMES, &SCORE_NAMES];
                        columns[*column].1 == Kind::Number && !named.iter().any(|names| is_one_of(*column, names))
                    };
                    roles.features = (0..columns.len()).filter(other).collect();
                }
                _ => {
                    return Err(Error::new(ErrorKind::Ambiguous, names(columns))
                        .tensor("features")
                        .expected("one column of lists")
                        .fix("name it: FILE#COLUMN"));
                }
            }
        }
        if roles.features.is_empty() {
            return Err(missing(columns, "features"));
        }
        roles.label = roles.label.filter(|_| labels);
        Ok(roles)
    }
}

impl Roles {
    /// All columns that have a role, ascending.
    #[cfg(feature = "columns")]
    pub(super) fn columns(&self) -> Vec<usize> {
        let mut columns: Vec<usize> = self.features.iter().copied().chain(self.label).chain(self.id).collect();
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// The same roles in a table of only these `columns`, ascending.
    #[cfg(feature = "columns")]
    pub(super) fn within(&self, columns: &[usize]) -> Self {
        let place = |column: usize| columns.binary_search(&column).unwrap_or_default();
        Self {
            features: self.features.iter().map(|column| place(*column)).collect(),
            label: self.label.map(place),
            id: self.id.map(place),
        }
    }
}

/// The column that `name` names, or else the first of `defaults` that is there, or else the only one.
pub(super) fn pick(columns: &[(String, Kind)], name: Option<&str>, defaults: &[&str]) -> Result<usize> {
    let position = |name: &str| columns.iter().position(|(column, _)| column.eq_ignore_ascii_case(name));
    match name {
        Some(name) => position(name).ok_or_else(|| missing(columns, name)),
        None if columns.len() == 1 => Ok(0),
        None => defaults
            .iter()
            .find_map(|name| position(name))
            .ok_or_else(|| missing(columns, defaults.first().unwrap_or(&"values"))),
    }
}

fn missing(columns: &[(String, Kind)], name: &str) -> Error {
    Error::new(ErrorKind::Missing, names(columns))
        .tensor(name)
        .expected("a column of that name, holding numbers")
        .fix("name one: FILE#COLUMN")
}

fn names(columns: &[(String, Kind)]) -> String {
    let shown: Vec<&str> = columns.iter().take(10).map(|(name, _)| name.as_str()).collect();
    let more = columns.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("the columns {}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assign(columns: &[(&str, Kind)], name: Option<&str>) -> Result<Roles> {
        let columns: Vec<(String, Kind)> = columns.iter().map(|(name, kind)| ((*name).into(), *kind)).collect();
        Roles::assign(&columns, name, true)
    }

    #[test]
    fn roles_follow_names_and_kinds() {
        use Kind::{List, Number, Text};
        let wide = assign(&[("id", Text), ("f0", Number), ("f1", Number), ("label", Number)], None).unwrap();
        assert_eq!(wide, Roles { features: vec![1, 2], label: Some(3), id: Some(0) });
        let list = assign(&[("path", Text), ("width", Number), ("embedding", List)], None).unwrap();
        assert_eq!(list, Roles { features: vec![2], label: None, id: Some(0) });
        let twice = assign(&[("label", Number), ("Class", Number), ("f0", Number), ("ID", Number)], None).unwrap();
        assert_eq!(twice, Roles { features: vec![2], label: Some(0), id: Some(3) });
        assert_eq!(assign(&[("a", List), ("b", List)], None).unwrap_err().kind(), ErrorKind::Ambiguous);
        assert_eq!(assign(&[("a", List), ("b", List)], Some("b")).unwrap().features, [1]);
        assert_eq!(assign(&[("a", Text)], None).unwrap_err().kind(), ErrorKind::Missing);
    }
}
