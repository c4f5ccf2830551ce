//! What has been read of a data set over all its files.

use crate::error::{Error, ErrorKind, Result};
use crate::features::Ids;
use crate::io::dataset::Dataset;

/// The rows read so far, which share out the labels of a file of their own, and what their ids are.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    /// What a row is, for messages.
    row: &'static str,
    rows: usize,
    /// What the ids of the first file are.
    ids: Option<&'static str>,
}

impl Tally {
    /// Of no rows yet, each of which is a `row` to the user.
    pub(super) fn new(row: &'static str) -> Self {
        Self { row, rows: 0, ids: None }
    }

    /// Counts `rows` more of `data`, of these ids, called `origin` in messages, and gives their labels, where those are in a file of their own.
    pub(super) fn count(
        &mut self,
        data: &Dataset,
        rows: usize,
        ids: Option<&Ids>,
        origin: &str,
    ) -> Result<Option<Vec<i64>>> {
        let start = self.rows;
        self.rows += rows;
        let of_file = data.labels.as_ref().map(|(_, labels)| {
            let labels = labels.get(start..self.rows).map(<[i64]>::to_vec);
            labels.ok_or_else(|| self.label_count(data, format!("at least {}", self.rows)))
        });
        let labels = of_file.transpose()?;
        if let Some(kind) = ids.map(Ids::kind) {
            let first = *self.ids.get_or_insert(kind);
            if first != kind {
                return Err(Error::new(ErrorKind::Malformed, kind)
                    .file(origin)
                    .tensor("ids")
                    .expected(format!("{first}, as in {}", data.shown[0]))
                    .fix("score the files one by one, or give their ids one type"));
            }
        }
        Ok(labels)
    }

    /// Checks, after the last row, that there are no labels left.
    pub(super) fn check_end(&self, data: &Dataset) -> Result<()> {
        match &data.labels {
            Some((_, labels)) if labels.len() != self.rows => Err(self.label_count(data, self.rows.to_string())),
            _ => Ok(()),
        }
    }

    fn label_count(&self, data: &Dataset, expected: String) -> Error {
        let labels = data.labels.as_ref().map_or(0, |(_, labels)| labels.len());
        let error = Error::new(ErrorKind::Shape, format!("{labels} labels"))
            .tensor("labels")
            .expected(format!("one for each {}, {expected}", self.row));
        data.labels.iter().fold(error, |error, (file, _)| error.file(file))
    }
}
