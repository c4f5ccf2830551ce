//! The files of a data set, read one after the other.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Missing, Result};
use crate::features::{Block, FeatureSource, Layout};
use crate::io::budget;
use crate::io::dataset::Dataset;
use crate::io::request::Request;
use crate::io::source::open_features;
use crate::io::tally::Tally;

impl Dataset {
    /// Opens the data set at its first row.
    ///
    /// # Errors
    /// Those of the first file: missing, malformed, without features, ambiguous.
    pub fn open(&self) -> Result<Box<dyn FeatureSource>> {
        let mut source = Chain {
            data: self.clone(),
            layout: Layout::default(),
            units: 0,
            current: None,
            next: 0,
            tally: Tally::new("row of features"),
        };
        source.advance()?;
        Ok(Box::new(source))
    }
}

/// Files one after the other, with labels from a separate file where given.
struct Chain {
    data: Dataset,
    /// The layout of the first file, which all others must have.
    layout: Layout,
    units: usize,
    current: Option<Current>,
    next: usize,
    tally: Tally,
}

/// The file that is being read.
struct Current {
    source: Box<dyn FeatureSource>,
    shown: Arc<str>,
    /// Rows that the file says it has.
    claimed: Option<u64>,
    read: u64,
}

impl Chain {
    /// Opens the next file, if there is one.
    fn advance(&mut self) -> Result<()> {
        self.current = None;
        let Some((file, shown)) = self.data.files.get(self.next).zip(self.data.shown.get(self.next)) else {
            return Ok(());
        };
        let first = self.next == 0;
        let request = Request {
            columns: &self.data.columns,
            name: file.name.as_deref(),
            units: if first { &self.data.units } else { &self.layout.units },
            width: if first { self.data.width } else { Some(self.units) },
            labels: self.data.wants_labels,
            ids: self.data.wants_ids,
        };
        let source = open_features(file, &request).map_err(|error| error.renamed(shown))?;
        budget::check_units(source.units()).map_err(|error| error.file(shown))?;
        let layout = source.layout();
        if let Some(width) = request.width.filter(|width| *width != source.units()) {
            return Err(wrong_width(source.units(), width, &layout).file(shown));
        }
        if !first && layout.units.is_empty() != self.layout.units.is_empty() {
            return Err(Error::new(ErrorKind::Columns, "features whose order nothing tells")
                .file(shown)
                .tensor("features")
                .expected("columns with names in all files, or in none"));
        }
        if !first && self.data.wants_ids && layout.ids.is_some() != self.layout.ids.is_some() {
            return Err(Error::lacking(Missing::Ids, named_or_not(&layout))
                .file(shown)
                .tensor("ids")
                .expected(format!("{}, as in {}", named_or_not(&self.layout), self.data.shown[0])));
        }
        self.units = source.units();
        if first {
            self.layout = layout;
        }
        self.current = Some(Current { claimed: source.rows(), source, shown: Arc::clone(shown), read: 0 });
        self.next += 1;
        Ok(())
    }
}

impl Current {
    /// What is read of a file is what the file says it holds.
    fn check_end(&self) -> Result<()> {
        match self.claimed {
            Some(claimed) if claimed != self.read => {
                Err(Error::new(ErrorKind::Malformed, format!("{} rows", self.read))
                    .file(&self.shown)
                    .expected(format!("{claimed} rows, as the file says"))
                    .fix("the file is truncated or corrupt: write it again"))
            }
            _ => Ok(()),
        }
    }
}

fn named_or_not(layout: &Layout) -> String {
    layout.ids.as_ref().map_or("no ids".into(), |ids| format!("ids (`{ids}`)"))
}

fn wrong_width(found: usize, expected: usize, layout: &Layout) -> Error {
    layout.one_too_many(found, expected).unwrap_or_else(|| {
        Error::new(ErrorKind::Shape, format!("[N, {found}]"))
            .tensor("features")
            .expected(format!("[N, {expected}]"))
            .fix("are these the inputs of that very layer?")
    })
}

impl FeatureSource for Chain {
    fn units(&self) -> usize {
        self.units
    }

    fn rows(&self) -> Option<u64> {
        match (&self.current, self.data.files.len()) {
            (Some(current), 1) => current.source.rows(),
            _ => None,
        }
    }

    fn layout(&self) -> Layout {
        self.layout.clone()
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        while let Some(current) = &mut self.current {
            current.source.read(block, max_rows).map_err(|error| error.renamed(&*current.shown))?;
            if block.rows() == 0 {
                current.check_end()?;
                self.advance()?;
                continue;
            }
            current.read += block.rows() as u64;
            block.origin = Arc::clone(&current.shown);
            if let Some(labels) = self.tally.count(&self.data, block.rows(), block.ids.as_ref(), &block.origin)? {
                block.labels = Some(labels);
            }
            return Ok(());
        }
        self.tally.check_end(&self.data)?;
        block.restart(self.units, 0);
        Ok(())
    }
}
