//! Fits.

use std::collections::BTreeMap;
use std::sync::Arc;

use dice_ood::{Fit, Fitted as Fit_, HoldOut, LinearHead, Needs, Result};
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::data::{Features, Labels, View};
use crate::fitted::Fitted;
use crate::head::Head;
use crate::running::{Stop, interruptible};
use crate::statistics::Statistics;

/// What a fit takes besides data.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Asked {
    spec: String,
    tpr: f64,
    /// Share of the training features to hold out; 0 for none.
    fraction: f64,
    seed: u64,
    provenance: BTreeMap<String, String>,
}

/// A detector, sentences on what is probably a mistake, and how often the head is right on the training features.
type Outcome = (Fitted, Vec<String>, Option<f64>);

impl Asked {
    /// The fit, so far without calibration.
    fn begin<'a>(&self, head: &Arc<LinearHead>, record: [(&str, String); 2]) -> Result<Fit<'a>> {
        let mut provenance = self.provenance.clone();
        provenance.extend(record.map(|(key, value)| (key.to_owned(), value)));
        let fit = Fit::new(Arc::clone(head)).tpr(self.tpr).gather(Needs::marginals()).provenance(provenance);
        Ok(match &*self.spec {
            "auto" => fit.auto(),
            spec => fit.detector(spec.parse()?),
        })
    }
}

/// Fits to features, which are read twice where a part of them is held out.
#[pyfunction]
#[pyo3(signature = (asked, head, features, labels, labels_file, calibration))]
pub(crate) fn fit<'py>(
    py: Python<'py>,
    asked: Asked,
    head: &Head,
    features: &Bound<'py, PyAny>,
    labels: Option<&Bound<'py, PyArray1<i64>>>,
    labels_file: Option<&str>,
    calibration: Option<&Bound<'py, PyAny>>,
) -> PyResult<Outcome> {
    let features = Features::of(features)?.with_labels_of(labels_file)?;
    let calibration = calibration.map(Features::of).transpose()?.map(Features::without_labels);
    let labels = Labels::of(labels);
    let (training, labels) = (features.view(), labels.slice()?);
    let calibration = calibration.as_ref().map(Features::view);
    let head = &head.0;
    let fitted = interruptible(py, |stop| {
        let on = match calibration {
            Some(view) => view.describe(),
            None if asked.fraction > 0.0 => format!("{:.2} of the features, seed {}", asked.fraction, asked.seed),
            None => "none".into(),
        };
        let fit = asked.begin(head, [("features", training.describe()), ("calibration", on)])?;
        let fit = match calibration {
            Some(view) => fit.calibrate_on(move || view.open(None, stop)),
            None if asked.fraction > 0.0 => {
                fit.hold_out(HoldOut::new(asked.fraction, asked.seed)?, move || training.open(labels, stop))
            }
            None => fit,
        };
        fit.features(training.open(labels, stop)?)
    })?;
    Ok(outcome(fitted))
}

/// Fits to statistics that were gathered before.
#[pyfunction]
#[pyo3(signature = (asked, head, statistics, calibration))]
pub(crate) fn fit_statistics<'py>(
    py: Python<'py>,
    asked: Asked,
    head: &Head,
    statistics: &Statistics,
    calibration: Option<&Bound<'py, PyAny>>,
) -> PyResult<Outcome> {
    let calibration = calibration.map(Features::of).transpose()?.map(Features::without_labels);
    let view = calibration.as_ref().map(Features::view);
    let fitted = interruptible(py, |stop| of_statistics(&asked, &head.0, statistics, view, stop))?;
    Ok(outcome(fitted))
}

fn of_statistics(
    asked: &Asked,
    head: &Arc<LinearHead>,
    statistics: &Statistics,
    calibration: Option<View<'_>>,
    stop: &Stop,
) -> Result<Fit_> {
    let statistics = statistics.gathered();
    let on = calibration.map_or("none".into(), View::describe);
    let of = format!("statistics of {} rows", statistics.rows());
    let fit = asked.begin(head, [("statistics", of), ("calibration", on)])?;
    let fit = match calibration {
        Some(view) => fit.calibrate_on(move || view.open(None, stop)),
        None => fit,
    };
    fit.statistics(statistics.clone())
}

fn outcome(fitted: Fit_) -> Outcome {
    let findings = fitted.findings.iter().map(ToString::to_string).collect();
    (Fitted::new(fitted.artifact), findings, fitted.accuracy.map(|accuracy| accuracy.share))
}
