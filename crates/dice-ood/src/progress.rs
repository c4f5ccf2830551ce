//! Telling how far a long run is.

/// Told how far a run is: a progress bar, a log, a service that reports on its jobs.
pub trait Progress: Send {
    /// `rows` rows of the stage `what` are done, of `total` where that is known beforehand. Called for every block, from
    /// the thread that reads; a stage begins with its first call.
    fn advance(&mut self, what: &str, rows: u64, total: Option<u64>);
}

/// Progress is not reported.
impl Progress for () {
    fn advance(&mut self, _: &str, _: u64, _: Option<u64>) {}
}
