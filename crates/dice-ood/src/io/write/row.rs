//! What is said of one input.

use crate::calibration::Decision;
use crate::features::Id;

/// The column of names of classes.
pub(super) const CLASS: &str = "class";

/// What is said of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRow {
    /// Its name.
    pub id: Id,
    /// Its score.
    pub score: f64,
    /// Its conformal p-value, where the detector is calibrated.
    pub p_value: Option<f64>,
    /// Its decision, where the detector is calibrated.
    pub decision: Option<Decision>,
    /// The class that the network predicts, where it was asked for and the input could be scored.
    pub prediction: Option<u32>,
    /// What each member of a combination says of it, as many as [`ScoreWriter::with_votes`](crate::io::ScoreWriter::with_votes) was
    /// told; `None` where a member could not score it.
    pub votes: Vec<Option<f64>>,
}

impl ScoreRow {
    /// The name of the predicted class among these.
    pub(super) fn class<'a>(&self, names: &'a [String]) -> Option<&'a str> {
        names.get(self.prediction? as usize).map(String::as_str)
    }
}
