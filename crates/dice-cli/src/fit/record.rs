//! What a detector file records of where it came from.

use std::collections::BTreeMap;

use dice_onnx::{Model, Origin};
use dice_ood::io::Location;
use dice_ood::{Error, ErrorKind, Layout, Result};

use super::Fit;
use super::start::Start;
use crate::classes;
use crate::columns;
use crate::data::{Inputs, is_onnx};
use crate::network::check_fingerprint;

impl Fit {
    /// Where features came from, if their files say so; a head of another model is refused.
    pub(super) fn recorded_origin(&self, start: &Start, calibration: Option<&Inputs<'_>>) -> Result<Option<Origin>> {
        let mut files = start.features().map_or_else(Vec::new, |training| training.files().to_vec());
        if let Some(Inputs::Features(data)) = calibration {
            files.extend_from_slice(data.files());
        }
        let origin = Origin::of_files(&files)?;
        let model = self.head.as_deref().map(Location::parse).filter(is_onnx);
        if let (Some(origin), Some(model)) = (&origin, model) {
            check_fingerprint(&Model::open(&model.path)?, origin, &files[0].path)?;
        }
        Ok(origin)
    }

    pub(super) fn provenance(
        &self,
        origin: Option<&Origin>,
        layout: &Layout,
        names: &[String],
    ) -> Result<BTreeMap<String, String>> {
        let mut provenance = match origin {
            Some(origin) => origin.to_notes()?,
            None => BTreeMap::new(),
        };
        let training = match (&*self.statistics, &*self.images, &*self.inputs) {
            ([], [], []) => ("features", self.features.join(" ")),
            ([], [], inputs) => ("arrays", inputs.join(" ")),
            ([], images, _) => ("images", images.join(" ")),
            (statistics, ..) => ("statistics", statistics.join(" ")),
        };
        let calibration = match (self.calibration.is_empty(), self.holds_out()) {
            (false, _) => self.calibration.join(" "),
            (true, true) => format!("{:.2} of the {}, seed {}", self.calibration_fraction, training.0, self.seed),
            (true, false) => "none".into(),
        };
        let record = [("head", self.head_name().to_owned()), training, ("calibration", calibration)];
        let record = record.into_iter().chain(source_date()?.map(|date| ("fitted", date)));
        provenance.extend(record.map(|(key, value)| (key.to_owned(), value)));
        provenance.extend(columns::record(layout).into_iter().chain(classes::record(names)));
        Ok(provenance)
    }
}

/// The time that `SOURCE_DATE_EPOCH` names, in UTC, as RFC 3339 writes it. The clock is not asked: the same fit is the same bytes.
fn source_date() -> Result<Option<String>> {
    const VARIABLE: &str = "SOURCE_DATE_EPOCH";
    /// The last second that four digits of a year can write.
    const LAST: u64 = 253_402_300_799;
    let Some(value) = std::env::var_os(VARIABLE) else { return Ok(None) };
    match value.to_str().and_then(|text| text.parse().ok()).filter(|seconds| *seconds <= LAST) {
        Some(seconds) => Ok(Some(rfc_3339(seconds))),
        None => Err(Error::new(ErrorKind::Argument, format!("`{}`", value.display()))
            .argument(VARIABLE)
            .expected("whole seconds since 1970")),
    }
}

/// Gregorian date of a Unix time (Hinnant's `civil_from_days`).
fn rfc_3339(seconds: u64) -> String {
    let (days, time) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc_3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc_3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc_3339(1_795_435_199), "2026-11-23T11:59:59Z");
    }
}
