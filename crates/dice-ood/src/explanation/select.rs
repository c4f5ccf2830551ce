//! One input out of many, by its row or its name.

use crate::error::{Error, ErrorKind, Result};
use crate::features::{Block, FeatureSource, block_rows};

/// Which input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The only one there is.
    Only,
    /// That of a row, counted from 0 over all files.
    Row(u64),
    /// That of a name. Rows without names are called by their number in the file, and by `file:number` where there are
    /// several files.
    Id(String),
}

/// An input, and what its source says of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// Its features `[D]`.
    pub features: Vec<f32>,
    /// Its name.
    pub id: String,
    /// Its row, counted from 0 over all files.
    pub row: u64,
    /// The file that it is from; empty where that is not known.
    pub file: String,
    /// Its class, where it has a label.
    pub label: Option<i64>,
}

/// Names beyond so many are not looked at for a similar spelling.
const MOST_COMPARED: u64 = 100_000;
/// Longer names are not compared: the time for it grows with the square.
const LONGEST_COMPARED: usize = 200;

/// The input of `source` that is `wanted`; `several` says whether rows without names are called by their file too.
///
/// # Errors
/// What reading meets; [`ErrorKind::Empty`] for no rows; [`ErrorKind::Argument`] for a row beyond the last, saying how many there are;
/// [`ErrorKind::Missing`] for a name that there is not, with the one spelled most alike; [`ErrorKind::Ambiguous`] for a name of
/// several rows, and where the only one is wanted and there are more.
pub fn select(source: &mut dyn FeatureSource, wanted: &Wanted, several: bool) -> Result<Selected> {
    let mut search = Search { wanted, several, rows: 0, found: None, second: None, similar: None };
    let size = block_rows(source.units());
    let mut block = Block::default();
    loop {
        source.read(&mut block, size)?;
        if block.rows() == 0 || search.look_at(&block) {
            return search.result();
        }
    }
}

struct Search<'a> {
    wanted: &'a Wanted,
    several: bool,
    rows: u64,
    found: Option<Selected>,
    /// The row of a second one of that name.
    second: Option<u64>,
    /// The name spelled most like the one wanted, and how far it is from that.
    similar: Option<(usize, String)>,
}

impl Search<'_> {
    /// Whether the search is over.
    fn look_at(&mut self, block: &Block) -> bool {
        let first = self.rows;
        self.rows += block.rows() as u64;
        match self.wanted {
            Wanted::Only => self.take(block, 0, first),
            Wanted::Row(row) if (first..self.rows).contains(row) => self.take(block, (row - first) as usize, first),
            Wanted::Row(_) => {}
            Wanted::Id(id) => (0..block.rows()).for_each(|row| self.look_for(id, block, row, first)),
        }
        match self.wanted {
            Wanted::Only => self.rows > 1,
            Wanted::Row(_) => self.found.is_some(),
            Wanted::Id(_) => self.second.is_some(),
        }
    }

    fn look_for(&mut self, id: &str, block: &Block, row: usize, first: u64) {
        let name = name_of(block, row, self.several);
        match (name == id, &self.found) {
            (true, None) => self.take(block, row, first),
            (true, Some(_)) => self.second = self.second.or(Some(first + row as u64)),
            (false, None) if first + (row as u64) < MOST_COMPARED => self.compare(id, name),
            (false, _) => {}
        }
    }

    fn take(&mut self, block: &Block, row: usize, first: u64) {
        let several = self.several;
        self.found.get_or_insert_with(|| Selected {
            features: block.features[row * block.units..][..block.units].to_vec(),
            id: name_of(block, row, several),
            row: first + row as u64,
            file: block.origin.to_string(),
            label: block.labels.as_ref().map(|labels| labels[row]),
        });
    }

    /// Keeps the name that is nearest in spelling; one that ends with the wanted one, as a path does, is nearer than all.
    fn compare(&mut self, id: &str, name: String) {
        if id.is_empty() || name.len().max(id.len()) > LONGEST_COMPARED {
            return;
        }
        let distance = if name.ends_with(id) { 0 } else { strsim::damerau_levenshtein(&name, id) };
        if distance <= id.chars().count() / 2 && self.similar.as_ref().is_none_or(|(least, _)| distance < *least) {
            self.similar = Some((distance, name));
        }
    }

    fn result(self) -> Result<Selected> {
        if self.rows == 0 {
            return Err(Error::new(ErrorKind::Empty, "no rows").tensor("features").expected("at least one input"));
        }
        match (self.wanted, self.found, self.second) {
            (Wanted::Only, Some(_), _) if self.rows > 1 => Err(Error::new(ErrorKind::Ambiguous, "several inputs")
                .expected("one input, or which of them")
                .fix("name one by its row or its id")),
            (Wanted::Id(id), Some(first), Some(second)) => {
                Err(Error::new(ErrorKind::Ambiguous, format!("rows {} and {second}", first.row))
                    .argument(format!("id {}", shown(id)))
                    .expected("one row of that name")
                    .fix("name it by its row"))
            }
            (_, Some(found), _) => Ok(found),
            (Wanted::Id(id), None, _) => Err(no_such(id, self.similar, self.rows)),
            (Wanted::Row(row), None, _) => Err(Error::new(ErrorKind::Argument, format!("row {row}"))
                .expected(format!("a row from 0 to {}, as there are {} inputs", self.rows - 1, self.rows))),
            (Wanted::Only, None, _) => Err(Error::new(ErrorKind::Empty, "no rows").tensor("features")),
        }
    }
}

/// What a row is called.
fn name_of(block: &Block, row: usize, several: bool) -> String {
    match (&block.ids, several) {
        (None, true) => format!("{}:{}", block.origin, block.row_number(row)),
        _ => block.id(row).to_string(),
    }
}

fn no_such(id: &str, similar: Option<(usize, String)>, rows: u64) -> Error {
    let error = Error::new(ErrorKind::Missing, format!("none of {rows} inputs"))
        .argument(format!("id {}", shown(id)))
        .expected("an input of that name");
    match similar {
        Some((_, name)) => error.fix(format!("the name spelled most like it is {}", shown(&name))),
        None => error,
    }
}

/// A name from outside, safe to print and never long.
fn shown(name: &str) -> String {
    let mut text: String = name.chars().take(LONGEST_COMPARED).flat_map(char::escape_debug).collect();
    if name.chars().nth(LONGEST_COMPARED).is_some() {
        text += "...";
    }
    format!("'{text}'")
}
