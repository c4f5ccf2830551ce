//! Specs with placeholders, and the values that are put in their places: the candidates of a sweep or a choice.

use std::str::FromStr;
use std::sync::Arc;

use crate::detector::{Detector, Prepared};
use crate::error::{Error, ErrorKind, Result};
use crate::features::{FeatureSource, for_each_block};
use crate::head::LinearHead;
use crate::pipeline::Fitting;
use crate::plan::{NonFinite, Plan};
use crate::spec::Spec;
use crate::statistics::Statistics;

/// Combinations of values of one call, at most.
const MOST: usize = 4096;
/// Digits of the largest value of a range, and of its step, whichever are more.
const DIGITS: i32 = 6;
const STEP_DIGITS: i32 = 4;

/// A spec in which words of capital letters stand for values: `react(R) | dice(P, preset=S) | energy`.
///
/// ```
/// use dice_ood::grid::{Grid, Template, expand};
/// let template: Template = "dice(P) | energy".parse()?;
/// let grid: Grid = "P=0:0.9:10".parse()?;
/// let candidates = expand(&[template], &[grid])?;
/// assert_eq!((candidates.len(), candidates[3].spec.to_string()), (10, "dice(0.3) | energy".into()));
/// # Ok::<(), dice_ood::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
}

/// The values of a placeholder: `P=0:0.99:20` (from, to, how many, ends included) or `R=0.9,0.99`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    name: String,
    values: Vec<String>,
}

/// A template with values in the places of its placeholders.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// What it comes to.
    pub spec: Spec,
    /// Each placeholder of the template with its value, in the order of the grids.
    pub values: Vec<(String, String)>,
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let template = Self { text: text.to_owned() };
        match template.placeholders().is_empty() {
            // What has no placeholder is a spec, and is refused at once where it is none.
            true => text.parse::<Spec>().map(|_| template),
            false => Ok(template),
        }
    }
}

impl Template {
    /// Words of capital letters, digits and `_` that begin with a letter, each once.
    pub fn placeholders(&self) -> Vec<&str> {
        let mut found = Vec::new();
        for word in words(&self.text).filter(|word| is_placeholder(word)) {
            if !found.contains(&word) {
                found.push(word);
            }
        }
        found
    }

    fn with(&self, values: &[(String, String)]) -> Result<Spec> {
        let value = |word: &str| values.iter().find(|(name, _)| name == word).map(|(_, value)| value.clone());
        let text: String = words(&self.text).map(|word| value(word).unwrap_or_else(|| word.to_owned())).collect();
        text.parse()
    }
}

/// The runs of `text` that are words, and those between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = rest.find(|c| is_word(c) != is_word(first)).unwrap_or(rest.len());
        let (word, later) = rest.split_at(end);
        rest = later;
        Some(word)
    })
}

fn is_placeholder(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

impl FromStr for Grid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |found: String| {
            Error::new(ErrorKind::Argument, found)
                .argument("grid")
                .expected("NAME=VALUE,VALUE,... or NAME=FROM:TO:COUNT, NAME in capital letters, as in P=0:0.9:10")
        };
        let (name, values) = text.split_once('=').ok_or_else(|| wrong(format!("`{text}`")))?;
        let name = name.trim();
        if !is_placeholder(name) {
            return Err(wrong(format!("`{name}`")));
        }
        let values = match values.split(':').map(str::trim).collect::<Vec<_>>()[..] {
            [from, to, count] => range(from, to, count),
            _ => Some(values.split(',').map(|value| value.trim().to_owned()).collect()),
        };
        let values = values.filter(|values| values.iter().all(|value| is_value(value)));
        let values = values.ok_or_else(|| wrong(format!("`{text}`")))?;
        match (1..values.len()).find(|at| values[..*at].contains(&values[*at])) {
            Some(twice) => Err(wrong(format!("{} twice in `{text}`", values[twice]))),
            None => Ok(Self { name: name.to_owned(), values }),
        }
    }
}

fn is_value(value: &str) -> bool {
    !value.is_empty() && words(value).count() == 1 && value.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-')
}

/// Values from one end to the other, in equal steps, rounded; `None` for what is no range.
fn range(from: &str, to: &str, count: &str) -> Option<Vec<String>> {
    let (from, to) = (from.parse::<f64>().ok()?, to.parse::<f64>().ok()?);
    let count = count.parse::<usize>().ok().filter(|count| (1..=MOST).contains(count))?;
    let all_finite = from.is_finite() && to.is_finite();
    match (all_finite, count, from == to) {
        (false, ..) | (true, 1, false) | (true, 2.., true) => return None,
        (true, 1, true) => return Some(vec![from.to_string()]),
        _ => {}
    }
    let step = (to - from) / (count - 1) as f64;
    let places = |digits: i32, of: f64| digits - 1 - of.abs().max(1e-200).log10().floor() as i32;
    let scale = 10f64.powi(places(DIGITS, from.abs().max(to.abs())).max(places(STEP_DIGITS, step)).min(200));
    // Adding zero makes -0.0 print as 0.
    Some((0..count).map(|place| (((from + step * place as f64) * scale).round() / scale + 0.0).to_string()).collect())
}

/// Every template with every combination of the values of its placeholders, the last grid running fastest.
///
/// # Errors
/// [`ErrorKind::Argument`] for a placeholder without a grid, a grid without a placeholder or given twice, no templates, candidates that
/// come out alike, and more than 4,096; [`ErrorKind::Spec`] for what does not parse.
pub fn expand(templates: &[Template], grids: &[Grid]) -> Result<Vec<Candidate>> {
    check(templates, grids)?;
    let mut candidates: Vec<Candidate> = Vec::new();
    for template in templates {
        let names = template.placeholders();
        let own: Vec<&Grid> = grids.iter().filter(|grid| names.contains(&grid.name.as_str())).collect();
        let count = own.iter().fold(1usize, |count, grid| count.saturating_mul(grid.values.len()));
        if count.saturating_add(candidates.len()) > MOST {
            let found = format!("{count} combinations in '{}'", template.text);
            return Err(Error::new(ErrorKind::Argument, found).argument("grids").expected(format!("at most {MOST}")));
        }
        for place in 0..count {
            let values = chosen(&own, place);
            let spec = template.with(&values)?;
            if candidates.iter().any(|known| known.spec == spec) {
                let found = format!("'{spec}' twice");
                return Err(Error::new(ErrorKind::Argument, found).argument("detectors").expected("different ones"));
            }
            candidates.push(Candidate { spec, values });
        }
    }
    Ok(candidates)
}

/// Combination number `place`.
fn chosen(grids: &[&Grid], mut place: usize) -> Vec<(String, String)> {
    let mut values: Vec<(String, String)> = Vec::new();
    for grid in grids.iter().rev() {
        values.push((grid.name.clone(), grid.values[place % grid.values.len()].clone()));
        place /= grid.values.len();
    }
    values.reverse();
    values
}

fn check(templates: &[Template], grids: &[Grid]) -> Result<()> {
    let wrong = |argument: &str, found: String, expected: String| {
        Err(Error::new(ErrorKind::Argument, found).argument(argument).expected(expected))
    };
    if templates.is_empty() {
        return wrong("detectors", "none".into(), "at least one".into());
    }
    if let Some(twice) = (1..grids.len()).find(|at| grids[..*at].iter().any(|grid| grid.name == grids[*at].name)) {
        return wrong("grids", format!("{} twice", grids[twice].name), "one grid a placeholder".into());
    }
    let all: Vec<&str> = templates.iter().flat_map(Template::placeholders).collect();
    if let Some(grid) = grids.iter().find(|grid| !all.contains(&grid.name.as_str())) {
        let expected = format!("a detector with the placeholder {0}, as in 'dice({0}) | energy'", grid.name);
        return wrong("grids", format!("a grid of {0}, which stands in no detector", grid.name), expected);
    }
    match all.iter().find(|name| !grids.iter().any(|grid| grid.name == **name)) {
        Some(name) => wrong("detectors", format!("{name} without a grid"), format!("its values, as in {name}=0.5,0.9")),
        None => Ok(()),
    }
}

/// Fits `candidates` together, so that they share steps. `reference` are in-distribution inputs that the statistics do not rest on: the
/// p-values of members of combinations rest on them.
///
/// # Errors
/// As [`Spec::fit`], where the candidate is named; and what reading and scoring the reference inputs meet.
pub fn fit(
    candidates: &[Candidate],
    head: &Arc<LinearHead>,
    statistics: &Statistics,
    reference: Option<&mut dyn FeatureSource>,
) -> Result<Vec<Detector>> {
    let fitting = Fitting::new(head, statistics)?;
    let named = |candidate: &Candidate, error: Error| error.argument(format!("detector '{}'", candidate.spec));
    let prepare = |candidate: &Candidate| candidate.spec.prepare(&fitting).map_err(|error| named(candidate, error));
    let prepared: Vec<Prepared> = candidates.iter().map(prepare).collect::<Result<_>>()?;
    let members: Vec<Detector> =
        prepared.iter().filter(|one| one.takes_reference()).flat_map(Prepared::pipelines).collect();
    let mut scores = vec![Vec::new(); members.len()];
    if let (Some(source), false) = (reference, members.is_empty()) {
        let plan = Plan::new(&members);
        for_each_block(source, |block| {
            let scored = plan.score_block(block, NonFinite::Reject)?;
            scores.iter_mut().zip(scored).for_each(|(all, scored)| all.extend(scored.scores));
            Ok(())
        })?;
    }
    let mut scores = scores.into_iter();
    let finish = |(one, candidate): (Prepared, &Candidate)| {
        let of_members = if one.takes_reference() { one.pipelines().len() } else { 0 };
        one.finish(&scores.by_ref().take(of_members).collect::<Vec<_>>()).map_err(|error| named(candidate, error))
    };
    prepared.into_iter().zip(candidates).map(finish).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expanded(templates: &[&str], grids: &[&str]) -> Result<Vec<String>> {
        let templates = templates.iter().map(|text| text.parse()).collect::<Result<Vec<Template>>>()?;
        let grids = grids.iter().map(|text| text.parse()).collect::<Result<Vec<Grid>>>()?;
        Ok(expand(&templates, &grids)?.iter().map(|candidate| candidate.spec.to_string()).collect())
    }

    #[test]
    fn numbers_words_and_members_are_put_in_their_places() {
        assert_eq!(
            expanded(&["react(R) | dice(P, preset=S) | energy"], &["S=official,openood", "P=0.5:0.9:2", "R=0.99"])
                .unwrap(),
            [
                "react(0.99) | dice(0.5, preset=official) | energy",
                "react(0.99) | dice(0.9, preset=official) | energy",
                "react(0.99) | dice(0.5, preset=openood) | energy",
                "react(0.99) | dice(0.9, preset=openood) | energy",
            ]
        );
        assert_eq!(
            expanded(&["fisher(energy, knn(K))", "msp"], &["K=1:9:3"]).unwrap(),
            ["fisher(energy, knn(1))", "fisher(energy, knn(5))", "fisher(energy, knn(9))", "msp"]
        );
    }

    #[test]
    fn ends_of_a_range_are_values_and_values_are_short() {
        let grid: Grid = "P=0:0.99:20".parse().unwrap();
        assert_eq!((grid.values.len(), &*grid.values[0], &*grid.values[19]), (20, "0", "0.99"));
        assert_eq!(grid.values[1], "0.052105");
        assert_eq!("K=-2:2:3".parse::<Grid>().unwrap().values, ["-2", "0", "2"]);
        assert_eq!("K=7:7:1".parse::<Grid>().unwrap().values, ["7"]);
    }

    #[test]
    fn what_is_no_grid_is_refused_by_name() {
        for text in
            ["P", "P=", "P=,", "P=0:1:0", "P=0:1:1", "P=0:1", "p=1", "=1", "P=a b", "P=0:x:3", "P=0:inf:3", "P=1,1"]
        {
            let error = text.parse::<Grid>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Argument, "{text}");
        }
        let message = |templates: &[&str], grids: &[&str]| expanded(templates, grids).unwrap_err().to_string();
        assert!(message(&["dice(P) | energy"], &[]).contains("P without a grid"));
        assert!(message(&["energy"], &["P=1,2"]).contains("a grid of P, which stands in no detector"));
        assert!(message(&["dice(P) | energy"], &["P=0.1", "P=0.2"]).contains("P twice"));
        assert!(message(&["dice(P) | energy", "dice(0.5) | energy"], &["P=0.5"]).contains("twice"));
        assert!(
            message(&["react(R) | dice(P) | energy"], &["R=0.1:0.9:100", "P=0.1:0.9:100"])
                .contains("10000 combinations")
        );
        assert_eq!(expanded(&["dice(P) | energy"], &["P=2"]).unwrap_err().kind(), ErrorKind::Spec);
        assert_eq!(expanded(&["dcie(0.5) | energy"], &[]).unwrap_err().kind(), ErrorKind::Spec);
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(template in "[A-Za-z0-9(),|=. ]{0,30}", grid in "[A-Z]{0,2}=?[0-9:.,a-z-]{0,20}") {
            let _ = expanded(&[&template], &[&grid]);
        }

        #[test]
        fn a_range_begins_and_ends_where_it_says(from in -1e3..1e3f64, width in 0.1..1e3f64, count in 2usize..50) {
            let grid: Grid = format!("P={from}:{}:{count}", from + width).parse().unwrap();
            let values: Vec<f64> = grid.values.iter().map(|value| value.parse().unwrap()).collect();
            let most = from.abs().max((from + width).abs());
            prop_assert!(values.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!((values[0] - from).abs() <= 1e-5 * most && (values[count - 1] - from - width).abs() <= 1e-5 * most);
        }
    }
}
