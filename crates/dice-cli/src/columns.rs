//! Which columns of tables hold what: the flags that say so, and the names that a fit records.

use std::collections::BTreeMap;

use dice_ood::artifact::read_provenance;
use dice_ood::io::{Columns as Chosen, Location};
use dice_ood::{Artifact, Error, ErrorKind, Layout, Note, Result};

use crate::{Context, classes};

/// Which columns of tables (CSV, Parquet, Arrow) hold what; found by names and types where this does not say.
#[derive(clap::Args, Debug, Clone, Default)]
pub(crate) struct Columns {
    /// Columns of features: one of lists, or one a unit; names or patterns ('f*'), several with commas.
    #[arg(long, visible_alias = "features-columns", value_name = "NAME", value_delimiter = ',', help_heading = HEADING)]
    pub(crate) features_column: Vec<String>,
    /// The column that names the inputs; it keeps its type in the results.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub(crate) id_column: Option<String>,
    /// The column of class labels.
    #[arg(long, value_name = "NAME", help_heading = HEADING)]
    pub(crate) label_column: Option<String>,
    /// Columns that are no features: names or patterns, several with commas.
    #[arg(long, visible_alias = "drop-columns", value_name = "NAME", value_delimiter = ',', help_heading = HEADING)]
    pub(crate) drop_column: Vec<String>,
}

const HEADING: &str = "Columns of tables";

/// Where a detector file records the names of the columns that its units were.
const RECORD: &str = "columns";

impl Columns {
    pub(crate) fn chosen(&self) -> Chosen {
        Chosen {
            features: self.features_column.clone(),
            id: self.id_column.clone(),
            label: self.label_column.clone(),
            drop: self.drop_column.clone(),
        }
    }
}

/// What a detector file records of the columns its units were, if they were columns with names.
pub(crate) fn record(layout: &Layout) -> Option<(String, String)> {
    (!layout.units.is_empty()).then(|| (RECORD.to_owned(), serde_json::Value::from(layout.units.clone()).to_string()))
}

/// The names of the columns that the units of `artifact` were; none where they were not columns with names.
pub(crate) fn recorded(artifact: &Artifact) -> Result<Vec<String>> {
    let (units, names) = (artifact.head().units(), names_in(artifact.provenance())?);
    if names.is_empty() || names.len() == units {
        return Ok(names);
    }
    Err(Error::new(ErrorKind::Malformed, format!("{} names", names.len()))
        .tensor(RECORD)
        .expected(format!("the names of {units} columns")))
}

fn names_in(provenance: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let Some(text) = provenance.get(RECORD) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|error| {
        Error::new(ErrorKind::Malformed, error.to_string()).tensor(RECORD).expected("names of columns as JSON")
    })
}

/// The names that `files` of statistics and detectors record; sums over columns in different orders do not merge.
pub(crate) fn recorded_in(files: &[String]) -> Result<Vec<String>> {
    let mut first: Option<(&String, Vec<String>)> = None;
    for file in files {
        // What is no file of ours, such as a published mean, records no names; what is wrong with it is told when it is read.
        let Ok(provenance) = read_provenance(&Location::parse(file).path) else { continue };
        let names = names_in(&provenance).map_err(|error| error.file(file))?;
        match &first {
            Some((other, others)) if *others != names => {
                return Err(Error::new(ErrorKind::Columns, "columns of other names, or in another order")
                    .file(file)
                    .expected(format!("those of {other}"))
                    .fix("fit both with the columns in one order"));
            }
            Some(_) => {}
            None => first = Some((file, names)),
        }
    }
    Ok(first.map(|(_, names)| names).unwrap_or_default())
}

/// A line of an account of a detector file, with names of columns and classes in short.
pub(crate) fn shown<'a>(key: &str, value: &'a str) -> std::borrow::Cow<'a, str> {
    match serde_json::from_str::<Vec<String>>(value) {
        Ok(names) if ![RECORD, classes::RECORD].contains(&key) || names.is_empty() => value.into(),
        Ok(names) => {
            let shown: Vec<String> = names.iter().map(|name| crate::names::shown(name)).collect();
            match &shown[..] {
                [first, second, .., last] if shown.len() > 4 => {
                    format!("{first}, {second}, ... {last} ({})", shown.len()).into()
                }
                all => all.join(", ").into(),
            }
        }
        Err(_) => value.into(),
    }
}

/// Tells how `file` was read, where there is something to know.
pub(crate) fn tell(layout: &Layout, file: &str, context: &Context) {
    for note in &layout.notes {
        let advice = match note {
            Note::NoIds => "; --id-column NAME names another column",
            Note::LeftOut(_) => "; --features-column NAME takes them, --drop-column NAME hides them",
            _ => "",
        };
        context.note(format_args!("Note: {file}: {note}{advice}."));
    }
}
