//! Long work: detached from the interpreter, and stopped by Ctrl-C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use dice_ood::{Error, ErrorKind, FeatureSource, Observed, Result};
use pyo3::prelude::*;

use crate::error::Raise;

/// How often Python is asked whether Ctrl-C was pressed.
const PATIENCE: Duration = Duration::from_millis(50);

/// As much as the main thread has: fits recurse into decompositions.
const STACK: usize = 8 << 20;

/// Whether work is to stop.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// An error once the work is to stop, which nobody sees: Python raises its own.
    pub(crate) fn check(&self) -> Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Io, "interrupted")),
            false => Ok(()),
        }
    }

    /// Set once the work is to stop.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// The same source, which ends with an error once the work is to stop.
    pub(crate) fn watch<'a>(&self, source: impl FeatureSource + 'a) -> Box<dyn FeatureSource + 'a> {
        let stop = self.clone();
        Box::new(Observed::new(source, move |_| stop.check()))
    }
}

/// Runs `work` on a thread of its own while this one asks Python for signals. Work that reads stops at its next block.
///
/// # Errors
/// Those of `work`; `KeyboardInterrupt`, or what another handler of a signal raises.
pub(crate) fn interruptible<T: Send>(py: Python<'_>, work: impl FnOnce(&Stop) -> Result<T> + Send) -> PyResult<T> {
    let stop = Stop::default();
    let (outcome, raised) = py.detach(|| {
        thread::scope(|scope| {
            let (done, finished) = mpsc::channel();
            let stop = &stop;
            let worker = thread::Builder::new().name("dice".into()).stack_size(STACK).spawn_scoped(scope, move || {
                // The receiver waits for as long as this thread runs.
                let _ = done.send(work(stop));
            });
            match worker {
                Ok(_) => wait(&finished, stop),
                Err(error) => (Some(Err(Error::caused_by(ErrorKind::Io, error).argument("thread"))), None),
            }
        })
    });
    match (raised, outcome) {
        (Some(raised), _) => Err(raised),
        (None, Some(outcome)) => outcome.raise(),
        (None, None) => Err(pyo3::exceptions::PyRuntimeError::new_err("the working thread ended without a result")),
    }
}

/// What the work came to, and what Python raised meanwhile.
fn wait<T>(finished: &mpsc::Receiver<Result<T>>, stop: &Stop) -> (Option<Result<T>>, Option<PyErr>) {
    let mut raised = None;
    loop {
        match finished.recv_timeout(PATIENCE) {
            Ok(outcome) => return (Some(outcome), raised),
            Err(mpsc::RecvTimeoutError::Disconnected) => return (None, raised),
            Err(mpsc::RecvTimeoutError::Timeout) if raised.is_none() => {
                if let Err(error) = Python::attach(|py| py.check_signals()) {
                    stop.0.store(true, Ordering::Relaxed);
                    raised = Some(error);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
    }
}
