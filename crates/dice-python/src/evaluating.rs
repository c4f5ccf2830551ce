//! Evaluations, as the JSON that `dice eval` prints.

use dice_ood::evaluation::{EvaluationOptions, Ranking, RankingMetric, SetLabel, TestSet};
use dice_ood::{Calibrated, Error, ErrorKind, NonFinite, Report};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;

use crate::data::{Features, Labels};
use crate::error::Raise;
use crate::fitted::Fitted;
use crate::running::interruptible;

/// How an evaluation is done.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Asked {
    at_tpr: f64,
    bootstrap: u32,
    seed: u64,
    non_finite_as_ood: bool,
    advise: bool,
}

impl From<&Asked> for EvaluationOptions {
    fn from(asked: &Asked) -> Self {
        let ranking = Ranking { over: None, metric: RankingMetric::FprAtTpr };
        Self {
            at_tpr: asked.at_tpr,
            bootstrap: asked.bootstrap,
            seed: asked.seed,
            non_finite: if asked.non_finite_as_ood { NonFinite::OutOfDistribution } else { NonFinite::Reject },
            advise: asked.advise.then_some(ranking),
            draw: false,
        }
    }
}

fn json(report: &Report) -> dice_ood::Result<String> {
    serde_json::to_string(report).map_err(|error| Error::caused_by(ErrorKind::Malformed, error))
}

/// The report on `detectors`, all of one head.
#[pyfunction]
#[pyo3(signature = (asked, detectors, id, labels, labels_file, ood))]
pub(crate) fn evaluate<'py>(
    py: Python<'py>,
    asked: Asked,
    detectors: Vec<PyRef<'py, Fitted>>,
    id: &Bound<'py, PyAny>,
    labels: Option<&Bound<'py, PyArray1<i64>>>,
    labels_file: Option<&str>,
    ood: Vec<(String, Bound<'py, PyAny>)>,
) -> PyResult<String> {
    let detectors: Vec<Calibrated> = detectors.iter().map(|one| one.calibrated().clone()).collect();
    let id = Features::of(id)?.with_labels_of(labels_file)?;
    let labels = Labels::of(labels);
    let ood: Vec<(SetLabel, Features<'_>)> = ood
        .iter()
        .map(|(name, features)| Ok((SetLabel::tagged(name), Features::of(features)?.without_labels())))
        .collect::<PyResult<_>>()?;
    let (id, labels) = (id.view(), labels.slice()?);
    let ood: Vec<_> = ood.iter().map(|(label, features)| (label.clone(), features.view())).collect();
    interruptible(py, |stop| {
        let sets = ood.into_iter().map(|(label, view)| TestSet::new(label, move || view.open(None, stop))).collect();
        let id = TestSet::new(id.describe(), move || id.open(labels, stop));
        json(&dice_ood::evaluate(&detectors, id, sets, &(&asked).into(), &mut ())?)
    })
}

/// The report on scores `[N]` of any tool, higher = more in-distribution.
#[pyfunction]
pub(crate) fn evaluate_scores<'py>(
    py: Python<'py>,
    asked: Asked,
    name: &str,
    id: PyReadonlyArray1<'py, f64>,
    ood: Vec<(String, PyReadonlyArray1<'py, f64>)>,
) -> PyResult<String> {
    let id = id.as_slice()?;
    let ood: Vec<(SetLabel, Vec<f64>)> = ood
        .iter()
        .map(|(name, scores)| Ok((SetLabel::tagged(name), scores.as_slice()?.to_vec())))
        .collect::<PyResult<_>>()?;
    let report = || dice_ood::evaluation::evaluate_scores(name, id, &ood, &(&asked).into(), &mut ());
    py.detach(|| json(&report()?)).raise()
}
