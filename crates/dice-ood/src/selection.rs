//! What a fit goes on with, and what it leaves out.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::spec::Spec;

/// A detector to be fitted.
pub(crate) struct Wanted {
    pub(crate) spec: Spec,
    /// Whether the fit fails where it cannot be fitted.
    pub(crate) required: bool,
}

/// A detector that could not be fitted, and why.
#[derive(Debug, Clone)]
pub struct LeftOut {
    /// What was to be fitted.
    pub spec: Spec,
    /// What stands against it.
    pub reason: Arc<Error>,
}

/// Which detectors a fit goes on with.
#[derive(Default)]
pub(crate) struct Selection {
    pub(crate) left_out: Vec<LeftOut>,
}

impl Selection {
    /// What succeeded, in order.
    ///
    /// # Errors
    /// That of the first required detector that failed; that of the first of all where none is left.
    pub(crate) fn keep<T>(&mut self, outcomes: impl Iterator<Item = (Wanted, Result<T>)>) -> Result<Vec<(Wanted, T)>> {
        let mut kept = Vec::new();
        for (wanted, outcome) in outcomes {
            match outcome {
                Ok(made) => kept.push((wanted, made)),
                Err(error) if wanted.required => return Err(error),
                Err(error) => self.left_out.push(LeftOut { spec: wanted.spec, reason: Arc::new(error) }),
            }
        }
        if kept.is_empty() { Err(self.first_reason()) } else { Ok(kept) }
    }

    /// Leaves out a detector that need not be there.
    ///
    /// # Errors
    /// The `error`, where it is required.
    pub(crate) fn unless_required(&mut self, spec: Spec, required: bool, error: Error) -> Result<()> {
        match required {
            true => Err(error),
            false => {
                self.left_out.push(LeftOut { spec, reason: Arc::new(error) });
                Ok(())
            }
        }
    }

    fn first_reason(&mut self) -> Error {
        self.left_out.truncate(1);
        let Some(LeftOut { reason, .. }) = self.left_out.pop() else {
            return Error::new(ErrorKind::Argument, "none").argument("detectors").expected("at least one");
        };
        Arc::try_unwrap(reason).unwrap_or_else(|shared| Error::new(shared.kind(), shared.to_string()))
    }
}
