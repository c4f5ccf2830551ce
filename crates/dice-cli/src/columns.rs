//! Which columns of tables hold what: the flags that say so, and the names that a fit records.

use dice_ood::artifact::read_provenance;
use dice_ood::io::{Columns as Chosen, Location};
use dice_ood::{Artifact, Error, ErrorKind, Layout, Note, Result};

use crate::records::{COLUMNS, names_in, names_of, record_of};
use crate::said::Context;

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
    record_of(COLUMNS, &layout.units)
}

/// The names of the columns that the units of `artifact` were; none where they were not columns with names.
pub(crate) fn recorded(artifact: &Artifact) -> Result<Vec<String>> {
    names_of(artifact, COLUMNS, artifact.head().units())
}

/// The names that `files` of statistics and detectors record; sums over columns in different orders do not merge.
pub(crate) fn recorded_in(files: &[String]) -> Result<Vec<String>> {
    let mut first: Option<(&String, Vec<String>)> = None;
    for file in files {
        // What is no file of ours, such as a published mean, records no names; what is wrong with it is told when it is read.
        let Ok(provenance) = read_provenance(&Location::parse(file).path) else { continue };
        let names = names_in(&provenance, COLUMNS).map_err(|error| error.file(file))?;
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
