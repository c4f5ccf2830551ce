//! A fitted detector.

use std::path::PathBuf;
use std::sync::Arc;

use dice_onnx::{Exporter, HeadOptions, Model};
use dice_ood::io::Location;
use dice_ood::{Artifact, Calibrated, Decision, Error, ErrorKind, NO_CLASS, NonFinite, Result, Scored, for_each_block};
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::data::{Features, View};
use crate::error::Raise;
use crate::head::Head;
use crate::running::{Stop, interruptible};
use crate::statistics::Statistics;

/// Values that are scored without asking Python for signals meanwhile.
const SHORT: usize = 1 << 21;
/// A fitted detector and everything its fit produced.
#[pyclass(frozen, module = "dice_ood._native")]
#[derive(Clone)]
pub(crate) struct Fitted {
    artifact: Arc<Artifact>,
    /// Which of the artifact's detectors this is.
    place: usize,
}

/// Scores, and where the detector has them p-values and decisions, and predicted classes.
type Decided<'py> = (
    Bound<'py, PyArray1<f64>>,
    Option<Bound<'py, PyArray1<f64>>>,
    Option<Bound<'py, PyArray1<bool>>>,
    Bound<'py, PyArray1<i64>>,
);

impl Fitted {
    pub(crate) fn new(artifact: Artifact) -> Self {
        Self { artifact: Arc::new(artifact), place: 0 }
    }

    pub(crate) fn calibrated(&self) -> &Calibrated {
        &self.artifact.detectors()[self.place]
    }

    /// The artifact of this detector alone.
    fn alone(&self) -> Result<Artifact> {
        self.artifact.part(self.place)
    }

    fn scored(&self, py: Python<'_>, features: View<'_>, non_finite: NonFinite) -> PyResult<Scored> {
        match features.values() {
            Some(values) if values <= SHORT => {
                py.detach(|| self.score_all(features, non_finite, &Stop::default())).raise()
            }
            _ => interruptible(py, |stop| self.score_all(features, non_finite, stop)),
        }
    }

    fn score_all(&self, features: View<'_>, non_finite: NonFinite, stop: &Stop) -> Result<Scored> {
        let detector = self.calibrated().detector();
        match (features, features.values()) {
            (View::F32(array), Some(..=SHORT)) => return detector.evaluate(array, non_finite),
            (View::F32(array), _) if array.is_standard_layout() => {
                return detector.evaluate_unless(array, non_finite, stop.flag());
            }
            _ => {}
        }
        let mut all = Scored { scores: Vec::new(), classes: Vec::new() };
        for_each_block(&mut *features.open(None, stop)?, |block| {
            let scored = detector.score_block(block, non_finite)?;
            all.scores.extend(scored.scores);
            all.classes.extend(scored.classes);
            Ok(())
        })?;
        Ok(all)
    }

    fn p_values_of(&self, scores: &[f64]) -> Option<Vec<f64>> {
        let calibration = self.calibrated().calibration()?;
        Some(scores.iter().map(|score| calibration.p_value(*score)).collect())
    }

    fn rejected(&self, scores: &[f64]) -> Option<Vec<bool>> {
        let threshold = self.calibrated().threshold()?;
        Some(scores.iter().map(|score| threshold.decide(*score) == Decision::OutOfDistribution).collect())
    }
}

fn non_finite(as_ood: bool) -> NonFinite {
    if as_ood { NonFinite::OutOfDistribution } else { NonFinite::Reject }
}

#[pymethods]
impl Fitted {
    /// The detectors of a file.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf) -> PyResult<Vec<Self>> {
        let artifact = Arc::new(py.detach(|| Artifact::load(path)).raise()?);
        let all = 0..artifact.detectors().len();
        Ok(all.map(|place| Self { artifact: Arc::clone(&artifact), place }).collect())
    }

    /// The detector of the bytes of a file that holds one.
    #[staticmethod]
    fn from_bytes(py: Python<'_>, bytes: &[u8]) -> PyResult<Self> {
        Ok(Self::new(py.detach(|| Artifact::from_bytes(bytes)).raise()?))
    }

    /// The bytes of the file of this detector.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let bytes = py.detach(|| self.alone()?.to_bytes()).raise()?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// Writes the file of this detector.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        py.detach(|| self.alone()?.save(path)).raise()
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, (Bound<'py, PyBytes>,))> {
        let from_bytes = py.get_type::<Self>().getattr("from_bytes")?;
        Ok((from_bytes, (self.to_bytes(py)?,)))
    }

    /// Writes the detector as an ONNX model: alone, or inside `model`.
    #[pyo3(signature = (path, model=None))]
    fn to_onnx(&self, py: Python<'_>, path: PathBuf, model: Option<String>) -> PyResult<()> {
        py.detach(|| {
            let exporter = Exporter::new(self.calibrated())?;
            let exported = match model.map(|model| Location::parse(&model)) {
                None => exporter.alone()?,
                Some(location) => {
                    let model = Model::open(&location.path)?;
                    let found = model.find_head(&HeadOptions { head: location.name, features: None })?;
                    exporter.in_model(&model, &found)?
                }
            };
            exported.write(&path)
        })
        .raise()
    }

    /// Scores `[N]`.
    #[pyo3(signature = (features, non_finite_as_ood=false))]
    fn score<'py>(
        &self,
        py: Python<'py>,
        features: &Bound<'py, PyAny>,
        non_finite_as_ood: bool,
    ) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let features = self.features(features)?;
        if let (View::F32(array), false) = (features.view(), non_finite_as_ood)
            && let (1, Some(row)) = (array.nrows(), array.as_slice())
        {
            let score = py.detach(|| self.calibrated().detector().score_one(row)).raise()?;
            return Ok(vec![score].into_pyarray(py));
        }
        let scored = self.scored(py, features.view(), non_finite(non_finite_as_ood))?;
        Ok(scored.scores.into_pyarray(py))
    }

    /// Scores, p-values, whether inputs are rejected, and predicted classes, `[N]` each.
    #[pyo3(signature = (features, non_finite_as_ood=false))]
    fn decide<'py>(
        &self,
        py: Python<'py>,
        features: &Bound<'py, PyAny>,
        non_finite_as_ood: bool,
    ) -> PyResult<Decided<'py>> {
        let features = self.features(features)?;
        let scored = self.scored(py, features.view(), non_finite(non_finite_as_ood))?;
        let (p_values, rejected, classes) = py.detach(|| {
            let class = |class: u32| if class == NO_CLASS { -1 } else { i64::from(class) };
            let classes: Vec<i64> = scored.classes.iter().map(|one| class(*one)).collect();
            (self.p_values_of(&scored.scores), self.rejected(&scored.scores), classes)
        });
        Ok((
            scored.scores.into_pyarray(py),
            p_values.map(|values| values.into_pyarray(py)),
            rejected.map(|values| values.into_pyarray(py)),
            classes.into_pyarray(py),
        ))
    }

    /// P-values `[N]` of scores; `None` without calibration.
    fn p_values<'py>(
        &self,
        py: Python<'py>,
        scores: PyReadonlyArray1<'py, f64>,
    ) -> PyResult<Option<Bound<'py, PyArray1<f64>>>> {
        let scores = scores.as_slice()?;
        Ok(py.detach(|| self.p_values_of(scores)).map(|values| values.into_pyarray(py)))
    }

    /// The same detector with another promise, from its calibration scores.
    fn with_tpr(&self, py: Python<'_>, tpr: f64) -> PyResult<Self> {
        py.detach(|| {
            let (artifact, calibrated) = (&self.artifact, self.calibrated().with_tpr(tpr)?);
            let provenance = artifact.provenance().clone();
            Artifact::new(Arc::clone(artifact.head()), artifact.statistics().clone(), vec![calibrated], provenance)
        })
        .map(Self::new)
        .raise()
    }

    /// Where the realised acceptance rate lies with this confidence.
    fn interval(&self, level: f64) -> Option<(f64, f64)> {
        self.calibrated().threshold().map(|threshold| threshold.interval(level))
    }

    #[getter]
    fn spec(&self) -> String {
        self.calibrated().detector().spec().to_string()
    }

    #[getter]
    fn threshold(&self) -> Option<f64> {
        self.calibrated().threshold().map(|threshold| threshold.score())
    }

    #[getter]
    fn tpr(&self) -> Option<f64> {
        self.calibrated().threshold().map(|threshold| threshold.tpr())
    }

    #[getter]
    fn calibration_scores<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyArray1<f64>>> {
        self.calibrated().calibration().map(|calibration| PyArray1::from_slice(py, calibration.scores()))
    }

    #[getter]
    fn head(&self) -> Head {
        Head(Arc::clone(self.artifact.head()))
    }

    #[getter]
    fn statistics(&self) -> Statistics {
        Statistics::new(self.artifact.statistics().clone())
    }

    #[getter]
    fn provenance(&self) -> std::collections::BTreeMap<String, String> {
        self.artifact.provenance().clone()
    }

    /// How scoring runs on this machine, in words.
    #[getter]
    fn kernel(&self) -> String {
        self.calibrated().detector().kernel()
    }
}

impl Fitted {
    /// Features that Python gave; files of tables are read in the order of the fit's columns.
    fn features<'py>(&self, given: &Bound<'py, PyAny>) -> PyResult<Features<'py>> {
        let features = Features::of(given)?;
        match &features {
            Features::Files(_) => {
                let names = self.columns().raise()?;
                Ok(features.without_labels().with_units(self.artifact.head().units(), &names))
            }
            _ => Ok(features),
        }
    }

    /// The names of the columns that the fit's features were; none where they had no names.
    fn columns(&self) -> Result<Vec<String>> {
        let Some(text) = self.artifact.provenance().get("columns") else { return Ok(Vec::new()) };
        serde_json::from_str(text).map_err(|error| Error::caused_by(ErrorKind::Malformed, error).tensor("columns"))
    }
}
