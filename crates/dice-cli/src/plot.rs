//! `dice plot`: where scores lie, in a terminal.

use dice_ood::io::{SCORE_NAMES, expand, read_vector};
use dice_ood::{Error, ErrorKind, Result};

use crate::layout::{curve, is_unicode, width_of};
use crate::names::shown;
use crate::report::{Table, count};
use crate::said::{Context, print};
use crate::score::Orientation;

/// Draw where scores lie, of dice or of any tool, one line a file.
///
/// All lines have the same bins, from the smallest score to the largest: in each a bar for the share of the file's scores. Bars are
/// block characters where the terminal shows Unicode, else digits from 0 to 7.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Plot {
    /// Scores [N], as `dice score` or any tool writes them; NAME= says what a line is called.
    #[arg(value_name = "[NAME=]FILE", required = true)]
    files: Vec<String>,
    /// The sign of the scores.
    #[arg(long, default_value = "in-distribution")]
    orientation: Orientation,
    /// Bars of a line; by default 48, or fewer where the terminal is narrower.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=500))]
    bins: Option<u16>,
}

const EXAMPLES: &str = "Examples:
  dice plot scores.csv
  dice plot id=id.csv svhn=svhn.csv textures=dtd.npy
  dice plot 'theirs.csv#confidence'";

impl Plot {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let sets = self.files.iter().map(|given| self.read(given, context)).collect::<Result<Vec<_>>>()?;
        let ends = sets.iter().flat_map(|(_, scores)| scores.first().zip(scores.last()));
        let (low, high) = ends
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (first, last)| (low.min(*first), high.max(*last)));
        let width = width_of(None);
        let bins = self.bins.map_or_else(|| room(&drawn(&sets, (low, high), 0), width), usize::from);
        print(&drawn(&sets, (low, high), bins).fitted(width))
    }

    /// The name of a line and its finite scores, ascending.
    fn read(&self, given: &str, context: &Context) -> Result<(String, Vec<f64>)> {
        let (name, file) = given.split_once('=').unwrap_or((given, given));
        let mut scores = Vec::new();
        for file in expand(&[file.to_owned()])? {
            scores.extend(read_vector(&file, &SCORE_NAMES)?);
        }
        let all = scores.len();
        scores.retain(|score| score.is_finite());
        if !scores.is_empty() && scores.len() < all {
            context.note(format_args!("{}: {} scores are not finite, and not drawn", shown(file), all - scores.len()));
        }
        let mut scores: Vec<f64> = scores.into_iter().map(|score| self.orientation.apply(score)).collect();
        scores.sort_by(f64::total_cmp);
        match scores.is_empty() {
            true => Err(Error::new(ErrorKind::Empty, "no finite score").file(file).expected("at least one")),
            false => Ok((name.to_owned(), scores)),
        }
    }
}

/// Bars of a line where nothing else is said.
const BINS: usize = 48;

/// Sets of scores, a line each with so many bars behind its name.
fn drawn(sets: &[(String, Vec<f64>)], (low, high): (f64, f64), bins: usize) -> Table {
    let mut table = Table::new("", &["scores", "", "inputs", "min", "median", "max"], 1);
    table.header[1] = format!("{low:.4} to {high:.4}");
    for (name, scores) in sets {
        let shares = shares(scores, (low, high), bins);
        let most = shares.iter().copied().fold(0.0, f64::max);
        let mut row = vec![shown(name), curve(&shares, 0.0, most, is_unicode()), count(scores.len())];
        row.extend([0, (scores.len() - 1) / 2, scores.len() - 1].map(|place| format!("{:.4}", scores[place])));
        table.rows.push(row);
    }
    table
}

/// Bars that there is room for beside the rest of a table, whose columns of bars are empty.
fn room(table: &Table, width: Option<usize>) -> usize {
    let longest = table.fitted(None).lines().map(|line| line.chars().count()).max().unwrap_or(0);
    let rest = longest - table.header[1].chars().count();
    width.map_or(BINS, |width| width.saturating_sub(rest).clamp(BINS / 3, BINS))
}

/// The share of scores in each of so many bins.
fn shares(scores: &[f64], (low, high): (f64, f64), bins: usize) -> Vec<f64> {
    let mut counts = vec![0u64; bins];
    if bins == 0 {
        return Vec::new();
    }
    for score in scores {
        // Halves, as a difference of two finite numbers can be infinite. Where all scores are one, the quotient is undefined: the first.
        let place = (score / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0) * bins as f64;
        counts[(place as usize).min(bins - 1)] += 1;
    }
    counts.into_iter().map(|count| count as f64 / scores.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_score_is_in_a_bin() {
        assert_eq!(shares(&[0.0, 1.0, 2.0, 4.0], (0.0, 4.0), 4), [0.25, 0.25, 0.25, 0.25]);
        assert_eq!(shares(&[7.0, 7.0], (7.0, 7.0), 3), [1.0, 0.0, 0.0]);
        assert_eq!(shares(&[f64::MIN, f64::MAX], (f64::MIN, f64::MAX), 2), [0.5, 0.5]);
    }
}
