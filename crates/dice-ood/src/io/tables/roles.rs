//! What the columns of a table are for: one decision for every kind of table.
//!
//! Columns of features are known by their names, not by their places: a fit records the names, and every later table is
//! put into that order or refused.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, ErrorKind, Missing, Result};
use crate::features::{Layout, Note};
use crate::io::names::{FEATURE_NAMES, ID_NAMES, INDEX_NAMES, LABEL_NAMES, SCORE_NAMES};
use crate::io::request::Request;

/// The role of each column of a table of features.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Roles {
    /// The columns of the features, in the order of the units: one that holds lists, or one a unit.
    pub(super) features: Vec<usize>,
    pub(super) label: Option<usize>,
    pub(super) id: Option<usize>,
}

/// A column: its name and what it holds.
pub(super) type Column = (String, ColumnKind);

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnKind {
    Float,
    Integer,
    /// Numbers in some rows, other text in others.
    Mixed,
    /// A list of numbers a row.
    #[cfg_attr(not(feature = "columns"), allow(dead_code, reason = "CSV has no lists"))]
    List,
    Text,
    #[cfg_attr(not(feature = "columns"), allow(dead_code, reason = "CSV has only numbers and text"))]
    Other,
}

impl ColumnKind {
    fn is_number(self) -> bool {
        matches!(self, Self::Float | Self::Integer | Self::Mixed)
    }

    fn names_inputs(self) -> bool {
        matches!(self, Self::Integer | Self::Text | Self::Mixed)
    }
}

/// A table as its header shows it.
pub(super) struct TableHeader<'a> {
    pub(super) columns: &'a [Column],
    /// Whether the columns have names of their own, or only the numbers of their places.
    pub(super) named: bool,
}

impl TableHeader<'_> {
    /// Assigns roles to the columns, and notes what the user should know of that choice. A column of labels or ids is never taken
    /// for a feature, but is read only where it is wanted.
    pub(super) fn assign(&self, request: &Request<'_>) -> Result<(Roles, Layout)> {
        let chosen = request.columns;
        let asked = request.name.map_or_else(|| chosen.features.clone(), |name| vec![name.to_owned()]);
        let wanted: HashSet<&str> =
            if self.named { request.units.iter().map(String::as_str).collect() } else { HashSet::new() };
        let dropped = self.all_of(&chosen.drop)?;
        let is_free = |column: &usize| !dropped.contains(column) && !wanted.contains(self.columns[*column].0.as_str());
        let (label, id) = self.beside(request, is_free)?;
        let is_left = |column: &usize| !dropped.contains(column) && ![label, id].contains(&Some(*column));
        let features = match asked.is_empty() {
            true => self.looks_like_features(is_left, &wanted)?,
            false => self.asked_for(&asked)?,
        };
        let is_list = matches!(features[..], [only] if self.columns[only].1 == ColumnKind::List);
        let features = match self.named && !is_list {
            true => self.in_order(features, request.units, &wanted)?,
            false => features,
        };
        let roles = Roles { features, label, id };
        let left_out = if is_list || !asked.is_empty() { Vec::new() } else { self.left_out(&roles, &dropped) };
        let layout = self.layout(&roles, request, is_list, left_out);
        Ok((Roles { label: label.filter(|_| request.labels), id: id.filter(|_| request.ids), ..roles }, layout))
    }

    /// The columns of labels and ids, among those that are free where the user names none.
    pub(super) fn beside(
        &self,
        request: &Request<'_>,
        is_free: impl Fn(&usize) -> bool,
    ) -> Result<(Option<usize>, Option<usize>)> {
        let chosen = request.columns;
        let label = match &chosen.label {
            Some(name) => Some(self.find(name)?),
            None => self.called(&LABEL_NAMES, |kind| kind.is_number() || kind == ColumnKind::Text, &is_free),
        };
        let id = match &chosen.id {
            Some(name) => Some(self.find(name)?),
            None => self.id(|column| is_free(column) && label != Some(*column)),
        };
        if let Some(label) = label.filter(|label| request.labels && self.columns[*label].1 == ColumnKind::Text) {
            return Err(text_labels(&self.columns[label].0));
        }
        Ok((label, id))
    }

    /// What the user should know of how the table is read.
    fn layout(&self, roles: &Roles, request: &Request<'_>, is_list: bool, left_out: Vec<String>) -> Layout {
        let name = |column: usize| self.columns[column].0.clone();
        let has_names = self.named && !is_list;
        let mut notes = Vec::new();
        if !is_list && has_names == request.units.is_empty() && request.width.is_some() {
            notes.push(Note::TakenByPlace);
        }
        if request.ids && roles.id.is_none() {
            notes.push(Note::NoIds);
        }
        if !left_out.is_empty() {
            notes.push(Note::LeftOut(left_out));
        }
        Layout {
            units: if has_names { roles.features.iter().copied().map(name).collect() } else { Vec::new() },
            ids: roles.id.map(name),
            notes,
            stray: self.stray(&roles.features),
        }
    }

    fn find(&self, name: &str) -> Result<usize> {
        let position = |same: fn(&str, &str) -> bool| self.columns.iter().position(|(column, _)| same(column, name));
        position(|column, name| column == name)
            .or_else(|| position(str::eq_ignore_ascii_case))
            .ok_or_else(|| missing(self.columns, name))
    }

    /// The columns that any of `patterns` names.
    fn all_of(&self, patterns: &[String]) -> Result<HashSet<usize>> {
        let mut found = HashSet::new();
        for pattern in patterns {
            found.extend(self.matching(pattern)?);
        }
        Ok(found)
    }

    /// The column named `pattern`, or else all columns that match the pattern.
    fn matching(&self, pattern: &str) -> Result<Vec<usize>> {
        if let Some(exact) = self.columns.iter().position(|(column, _)| column == pattern) {
            return Ok(vec![exact]);
        }
        let pattern = glob::Pattern::new(pattern).map_err(|error| {
            Error::caused_by(ErrorKind::Argument, error).tensor(pattern).expected("the name of a column, or a pattern")
        })?;
        Ok((0..self.columns.len()).filter(|column| pattern.matches(&self.columns[*column].0)).collect())
    }

    /// The feature columns that the user asked for.
    fn asked_for(&self, asked: &[String]) -> Result<Vec<usize>> {
        let (mut features, mut seen) = (Vec::new(), HashSet::new());
        for name in asked {
            let found = self.matching(name)?;
            if found.is_empty() {
                return Err(missing(self.columns, name));
            }
            features.extend(found.into_iter().filter(|column| seen.insert(*column)));
        }
        match features.iter().find(|column| self.columns[**column].1 == ColumnKind::List) {
            Some(list) if features.len() > 1 => Err(Error::new(ErrorKind::Columns, names(self.columns))
                .tensor(&self.columns[*list].0)
                .expected("one column of lists, or one column of numbers a unit")),
            _ => Ok(features),
        }
    }

    /// The feature columns where the user named none: the only column of lists, or all columns of numbers whose names mean
    /// nothing else.
    fn looks_like_features(&self, is_free: impl Fn(&usize) -> bool, wanted: &HashSet<&str>) -> Result<Vec<usize>> {
        let free: Vec<usize> = (0..self.columns.len()).filter(|column| is_free(column)).collect();
        let lists: Vec<usize> =
            free.iter().copied().filter(|column| self.columns[*column].1 == ColumnKind::List).collect();
        let called =
            |column: &&usize| FEATURE_NAMES.iter().any(|name| self.columns[**column].0.eq_ignore_ascii_case(name));
        let features = match (lists.iter().find(called), &lists[..]) {
            (Some(named), _) => vec![*named],
            (None, [only]) => vec![*only],
            (None, []) => {
                let is_feature = |column: &usize| {
                    let (name, kind) = &self.columns[*column];
                    kind.is_number() && (wanted.contains(name.as_str()) || !has_another_meaning(name))
                };
                free.into_iter().filter(is_feature).collect()
            }
            _ => {
                return Err(Error::new(ErrorKind::Ambiguous, names(self.columns))
                    .tensor("features")
                    .expected("one column of lists")
                    .fix("name it: FILE#COLUMN"));
            }
        };
        if features.is_empty() { Err(missing(self.columns, "features")) } else { Ok(features) }
    }

    /// The columns `chosen`, each name once, in the order of `units`; a mismatch is refused by name.
    fn in_order(&self, chosen: Vec<usize>, units: &[String], wanted: &HashSet<&str>) -> Result<Vec<usize>> {
        let mut places = HashMap::new();
        for column in &chosen {
            let name = self.columns[*column].0.as_str();
            if places.insert(name, *column).is_some() {
                return Err(Error::new(ErrorKind::Columns, format!("two columns `{}`", name.escape_debug()))
                    .tensor("features")
                    .expected("columns of different names"));
            }
        }
        if units.is_empty() {
            return Ok(chosen);
        }
        let absent: Vec<&str> = units.iter().map(String::as_str).filter(|name| !places.contains_key(name)).collect();
        let names = chosen.iter().map(|column| self.columns[*column].0.as_str());
        let new: Vec<&str> = names.filter(|name| !wanted.contains(name)).collect();
        if absent.is_empty() && new.is_empty() {
            return Ok(units.iter().map(|name| places[name.as_str()]).collect());
        }
        let mut found = format!("{} columns", chosen.len());
        for (what, names) in [(", without ", absent), (", with the new ", new)] {
            if !names.is_empty() {
                found += what;
                found += &quoted(&names);
            }
        }
        Err(Error::new(ErrorKind::Columns, found)
            .tensor("features")
            .expected(format!("`{}` to `{}`, {} columns in any order", units[0], units[units.len() - 1], units.len()))
            .fix("are these the features that were fitted? Drop what is no feature"))
    }

    /// The first column that `names` name, in the order of `names`.
    fn called(
        &self,
        names: &[&str],
        fits: impl Fn(ColumnKind) -> bool,
        is_free: impl Fn(&usize) -> bool,
    ) -> Option<usize> {
        names.iter().find_map(|name| {
            (0..self.columns.len())
                .filter(|column| is_free(column) && fits(self.columns[*column].1))
                .find(|column| self.columns[*column].0.eq_ignore_ascii_case(name))
        })
    }

    /// The column that names the inputs: one of a known name, or called an id, or a table's index.
    fn id(&self, is_free: impl Fn(&usize) -> bool) -> Option<usize> {
        let named = |names: &[&str]| self.called(names, ColumnKind::names_inputs, &is_free);
        let derived = || {
            (0..self.columns.len()).find(|column| {
                is_free(column) && self.columns[*column].1.names_inputs() && is_called_an_id(&self.columns[*column].0)
            })
        };
        named(&ID_NAMES).or_else(derived).or_else(|| named(&INDEX_NAMES))
    }

    /// Numbers that are not features for their name alone.
    fn left_out(&self, roles: &Roles, dropped: &HashSet<usize>) -> Vec<String> {
        let features: HashSet<usize> = roles.features.iter().copied().collect();
        (0..self.columns.len())
            .filter(|column| {
                self.columns[*column].1.is_number() && !features.contains(column) && !dropped.contains(column)
            })
            .filter(|column| ![roles.label, roles.id].contains(&Some(*column)))
            .map(|column| self.columns[column].0.clone())
            .collect()
    }

    /// The one feature column that is least like the others, in words: whole numbers beside fractions.
    fn stray(&self, features: &[usize]) -> Option<String> {
        let whole: Vec<usize> =
            features.iter().copied().filter(|column| self.columns[*column].1 == ColumnKind::Integer).collect();
        match whole[..] {
            [only] if features.len() > 1 => Some(format!("`{}`, the only one of whole numbers", self.columns[only].0)),
            _ => None,
        }
    }
}

/// Whether a column of this name is a label, an id or a score, and a feature only where the user says so.
pub(super) fn has_another_meaning(name: &str) -> bool {
    let known = [&LABEL_NAMES[..], &ID_NAMES, &INDEX_NAMES, &SCORE_NAMES];
    known.iter().any(|names| names.iter().any(|known| name.eq_ignore_ascii_case(known))) || is_called_an_id(name)
}

/// `user_id`, `userId`, `user id`, `image-path`, `sample_uuid`, ...
fn is_called_an_id(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let ends = |word: &str| {
        lower.strip_suffix(word).is_some_and(|before| before.ends_with(['_', '-', '.', ' ']) && before.len() > 1)
    };
    let camel = name.strip_suffix("Id").or(name.strip_suffix("ID"));
    ["id", "ids", "uuid", "guid", "key", "path", "file", "filename", "name"].into_iter().any(ends)
        || camel.is_some_and(|before| before.ends_with(|c: char| c.is_ascii_lowercase()))
}

fn text_labels(column: &str) -> Error {
    // Sorting the names would number them as the head's classes only where the head was trained on that very order.
    Error::new(ErrorKind::Columns, "text")
        .tensor(column)
        .expected("class indices: whole numbers from 0, in the order of the head's classes")
        .fix("replace each name by the index of its class in the head; or drop the column, where labels do not matter")
}

/// The column of numbers that `name` names, or else the first of `defaults` that is there, or else the only one beside the
/// index that pandas writes.
pub(super) fn pick(columns: &[Column], name: Option<&str>, defaults: &[&str]) -> Result<usize> {
    let position = |name: &str| columns.iter().position(|(column, _)| column.eq_ignore_ascii_case(name));
    let rest: Vec<usize> = (0..columns.len()).filter(|column| !is_index(columns, *column)).collect();
    let found = match name {
        Some(name) => position(name),
        None => {
            defaults.iter().find_map(|name| position(name)).or(if let [only] = rest[..] { Some(only) } else { None })
        }
    };
    let wanted = name.or(defaults.first().copied()).unwrap_or("values");
    match found {
        Some(column) if columns[column].1 == ColumnKind::Text => Err(Error::new(ErrorKind::Malformed, "text")
            .tensor(&columns[column].0)
            .expected("numbers")
            .fix("for labels: the index of each class in the head, from 0")),
        Some(column) => Ok(column),
        None => Err(missing(columns, wanted)),
    }
}

/// Whether a column is the index that pandas writes before all others.
fn is_index(columns: &[Column], column: usize) -> bool {
    column == 0
        && columns.len() > 1
        && ["", "Unnamed: 0"].contains(&columns[0].0.as_str())
        && columns[0].1 == ColumnKind::Integer
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

fn missing(columns: &[Column], name: &str) -> Error {
    Error::lacking(Missing::Tensor, names(columns))
        .tensor(name)
        .expected("a column of that name, holding numbers")
        .fix("name one: FILE#COLUMN")
}

/// Columns for a message; the first ten.
pub(super) fn names(columns: &[Column]) -> String {
    let shown: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    format!("the columns {}", quoted(&shown))
}

/// Names for a message; the first ten.
fn quoted(names: &[&str]) -> String {
    let shown: Vec<String> = names.iter().take(10).map(|name| format!("`{}`", name.escape_debug())).collect();
    let more = names.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
