//! One file for what was fitted: head, statistics, detectors, their calibration, and where it all came from.
//!
//! A `.safetensors` file that any tool can open. Tensors: `head.weight` f32 `[C, D]`, `head.bias` f32 `[C]`,
//! `statistics.activation_sum` f64 `[D]` and what else was gathered, and for detector i `detector.i.mask` u8 `[C, D]`
//! and `detector.i.calibration` f64 `[n]`. `__metadata__` holds the schema version and a JSON description.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use ndarray::{Array1, Array2};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::calibration::{Calibration, Threshold};
use crate::detector::Detector;
use crate::error::{Error, ErrorKind, Result};
use crate::head::LinearHead;
use crate::io::{DType, SafetensorsHeader, Tensor, write_tensors};
use crate::sparsify::Mask;
use crate::spec::{Clip, Shaping, Sparsity, Spec};
use crate::statistics::{ActivationHistogram, ClassSums, Statistics};

/// The version of the layout that this crate writes, and the newest it reads.
pub const SCHEMA: u32 = 1;

/// More than anyone compares.
const MOST_DETECTORS: usize = 256;
const SCHEMA_KEY: &str = "dice_ood_schema";
const DESCRIPTION_KEY: &str = "dice_ood";
pub(crate) const STATISTICS_SUM: &str = "statistics.activation_sum";
const SEQUENTIAL_SUM: &str = "statistics.activation_sum_sequential_f32";
const HISTOGRAM_BINS: &str = "statistics.activation_histogram_bins";
const HISTOGRAM_COUNTS: &str = "statistics.activation_histogram_counts";
const CLASS_LABELS: &str = "statistics.class_labels";
const CLASS_ROWS: &str = "statistics.class_rows";
const CLASS_SUMS: &str = "statistics.class_sums";

/// A fitted detector with the calibration its decisions rest on.
#[derive(Debug, Clone)]
pub struct Calibrated {
    /// What scores.
    pub detector: Detector,
    /// In-distribution scores; `None` where the detector was fitted without calibration data and gives scores only.
    pub calibration: Option<Calibration>,
    /// What decides.
    pub threshold: Option<Threshold>,
}

impl Calibrated {
    /// A detector without decisions.
    pub fn scores_only(detector: Detector) -> Self {
        Self { detector, calibration: None, threshold: None }
    }

    /// A detector that accepts a fresh in-distribution input with probability at least `tpr`.
    ///
    /// # Errors
    /// As [`Calibration::threshold`].
    pub fn new(detector: Detector, calibration: Calibration, tpr: f64) -> Result<Self> {
        let threshold = calibration.threshold(tpr)?;
        Ok(Self { detector, calibration: Some(calibration), threshold: Some(threshold) })
    }
}

/// Everything one fit produced: what [`Artifact::save`] writes and [`Artifact::load`] reads.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The dense head.
    pub head: Arc<LinearHead>,
    /// What was gathered from the training features; other detectors can be fitted from it.
    pub statistics: Statistics,
    /// The detectors, the first being the one that decides unless another is named.
    pub detectors: Vec<Calibrated>,
    /// Where it came from, in the order of the keys: inputs, seeds, times.
    pub provenance: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Description {
    library: String,
    rows: u64,
    published: bool,
    cut_off: Option<u32>,
    detectors: Vec<DetectorDescription>,
    provenance: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct DetectorDescription {
    spec: String,
    clip: Option<f64>,
    tpr: Option<f64>,
    threshold: Option<f64>,
}

impl Artifact {
    /// Writes the artifact to `path`, atomically.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; [`ErrorKind::Argument`] for a detector with a calibration and no threshold, or the reverse.
    pub fn save(&self, path: &Path) -> Result<()> {
        let head = &self.head;
        let (classes, units) = (head.classes(), head.units());
        if self.detectors.iter().any(|one| one.calibration.is_some() != one.threshold.is_some()) {
            return Err(Error::new(ErrorKind::Argument, "only one of the two")
                .tensor("detector")
                .expected("a calibration and its threshold, or neither"));
        }
        let mut tensors = vec![
            (
                "head.weight".into(),
                Tensor::new(Dtype::F32, &[classes, units], head.weight().iter().flat_map(|v| v.to_le_bytes())),
            ),
            ("head.bias".into(), Tensor::new(Dtype::F32, &[classes], head.bias().iter().flat_map(|v| v.to_le_bytes()))),
        ];
        tensors.extend(statistics_tensors(&self.statistics));
        let mut detectors = Vec::new();
        for (index, calibrated) in self.detectors.iter().enumerate() {
            let detector = &calibrated.detector;
            if let Some(mask) = detector.mask() {
                let kept = mask.kept().into_iter().map(|kept| u8::from(*kept)).collect::<Vec<u8>>();
                tensors.push((format!("detector.{index}.mask"), Tensor::new(Dtype::U8, &[classes, units], kept)));
            }
            if let Some(calibration) = &calibrated.calibration {
                let scores = calibration.scores();
                tensors.push((
                    format!("detector.{index}.calibration"),
                    Tensor::new(Dtype::F64, &[scores.len()], scores.iter().flat_map(|v| v.to_le_bytes())),
                ));
            }
            detectors.push(DetectorDescription {
                spec: detector.spec().to_string(),
                clip: detector.clip(),
                tpr: calibrated.threshold.map(|threshold| threshold.tpr()),
                threshold: calibrated.threshold.map(|threshold| threshold.score()),
            });
        }
        write(path, tensors, &self.statistics, detectors, self.provenance.clone())
    }

    /// Reads an artifact.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a file that is none, or of a newer schema; [`ErrorKind::Malformed`] for one
    /// whose parts contradict each other.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_unnamed(path).map_err(|error| error.file(path.display()))
    }

    fn load_unnamed(path: &Path) -> Result<Self> {
        let not_ours = |error: Error| match error.kind() {
            ErrorKind::Malformed => error.fix("is this a detector, as `dice fit` writes them, and complete?"),
            _ => error,
        };
        let file = SafetensorsHeader::read(path).map_err(not_ours)?;
        let description = describe(&file)?;
        let (weight, mut rows) = file.expect("head.weight", DType::F32)?;
        let (_, mut bias) = file.expect("head.bias", DType::F32)?;
        let units = weight.matrix().map_or(0, |(_, units)| units);
        let head = Arc::new(LinearHead::from_rows(rows.all_f32()?, bias.all_f32()?, units)?);
        let statistics = statistics_of(&file, &description)?;
        if statistics.units() != head.units() {
            return Err(Error::new(ErrorKind::Malformed, format!("[{}]", statistics.units()))
                .tensor(STATISTICS_SUM)
                .expected(format!("[{}], one for each unit of the head", head.units())));
        }
        // Every detector is packed when it is made: a small description must not ask for many.
        let specs: HashSet<&str> = description.detectors.iter().map(|detector| detector.spec.as_str()).collect();
        if description.detectors.len() > MOST_DETECTORS || specs.len() != description.detectors.len() {
            return Err(Error::new(ErrorKind::Malformed, format!("{} detectors", description.detectors.len()))
                .expected(format!("at most {MOST_DETECTORS}, all different")));
        }
        let detectors = (0..description.detectors.len())
            .map(|index| detector_of(&file, &description.detectors[index], index, &head))
            .collect::<Result<Vec<_>>>()?;
        if detectors.is_empty() {
            return Err(Error::new(ErrorKind::Malformed, "no detectors"));
        }
        Ok(Self { head, statistics, detectors, provenance: description.provenance })
    }
}

/// Detector number `index`, whose parts must not contradict each other.
fn detector_of(
    file: &SafetensorsHeader,
    described: &DetectorDescription,
    index: usize,
    head: &Arc<LinearHead>,
) -> Result<Calibrated> {
    let spec: Spec =
        described.spec.parse().map_err(|error: Error| Error::new(ErrorKind::Malformed, error.to_string()))?;
    let name = format!("detector.{index}.mask");
    let mask = if file.has(&name) { Some(mask_of(file, &name, head)?) } else { None };
    let other_clip = match spec.shaping {
        Shaping::React(Clip::Value(value)) => described.clip != Some(value),
        _ => described.clip.is_some_and(|clip| !clip.is_finite()),
    };
    let contradicts = other_clip
        || mask.as_ref().is_some_and(|mask| mask.count() == 0)
        || mask.is_none() != (spec.sparsity == Sparsity::Dense)
        || described.clip.is_none() != (spec.shaping == Shaping::None);
    if contradicts {
        return Err(Error::new(ErrorKind::Malformed, format!("a state that does not belong to `{spec}`")));
    }
    let detector = Detector::from_parts(spec, Arc::clone(head), mask, described.clip)?;
    let name = format!("detector.{index}.calibration");
    match (file.has(&name), described.tpr) {
        (false, None) => Ok(Calibrated::scores_only(detector)),
        (true, Some(tpr)) => {
            let calibration = Calibration::new(file.expect(&name, DType::F64)?.1.all_f64()?)?;
            let calibrated = Calibrated::new(detector, calibration, tpr)?;
            let recorded = described.threshold;
            if calibrated.threshold.map(|threshold| threshold.score()) == recorded {
                return Ok(calibrated);
            }
            Err(Error::new(ErrorKind::Malformed, format!("a recorded threshold of {recorded:?}"))
                .tensor(&name)
                .expected("the one that follows from the calibration scores"))
        }
        _ => Err(Error::new(ErrorKind::Malformed, "only one of the two")
            .tensor(&name)
            .expected("calibration scores and a TPR, or neither")),
    }
}

fn mask_of(file: &SafetensorsHeader, name: &str, head: &LinearHead) -> Result<Mask> {
    let shape = (head.classes(), head.units());
    let (info, mut rows) = file.expect(name, DType::U8)?;
    let other_shape = || {
        Error::new(ErrorKind::Malformed, info.to_string())
            .tensor(name)
            .expected(format!("[{}, {}], as the head", shape.0, shape.1))
    };
    if info.shape != [shape.0, shape.1] {
        return Err(other_shape());
    }
    let kept = rows.all_f32()?.into_iter().map(|kept| kept != 0.0).collect();
    Ok(Mask::new(Array2::from_shape_vec(shape, kept).map_err(|_| other_shape())?))
}

impl Statistics {
    /// Writes the statistics alone, atomically: to be merged with others, or fitted from later
    /// ([`read_statistics`](crate::io::read_statistics)).
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        write(path, statistics_tensors(self), self, Vec::new(), BTreeMap::new())
    }
}

fn write(
    path: &Path,
    tensors: Vec<(String, Tensor)>,
    statistics: &Statistics,
    detectors: Vec<DetectorDescription>,
    provenance: BTreeMap<String, String>,
) -> Result<()> {
    let description = Description {
        library: env!("CARGO_PKG_VERSION").into(),
        rows: statistics.rows(),
        published: statistics.is_published(),
        cut_off: statistics.activations().map(ActivationHistogram::cut_off),
        detectors,
        provenance,
    };
    let description = serde_json::to_string(&description)
        .map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()).file(path.display()))?;
    let schema = (SCHEMA_KEY.to_owned(), SCHEMA.to_string());
    write_tensors(path, tensors, HashMap::from([schema, (DESCRIPTION_KEY.to_owned(), description)]))
}

/// Reads the statistics that an artifact carries, or that were saved alone.
pub(crate) fn read_statistics(path: &Path) -> Result<Statistics> {
    let file = SafetensorsHeader::read(path)?;
    let description = describe(&file).map_err(|error| error.file(path.display()))?;
    statistics_of(&file, &description).map_err(|error| error.file(path.display()))
}

fn describe(file: &SafetensorsHeader) -> Result<Description> {
    let not_ours = || {
        Error::new(ErrorKind::Unsupported, "a safetensors file of another kind")
            .expected("a detector written by `dice fit`")
    };
    let schema = file.metadata().get(SCHEMA_KEY).ok_or_else(not_ours)?;
    match schema.parse::<u32>() {
        Ok(SCHEMA) => {}
        Ok(newer) if newer > SCHEMA => {
            return Err(Error::new(ErrorKind::Unsupported, format!("schema {newer}"))
                .expected(format!("schema {SCHEMA} or older"))
                .fix("update dice-ood"));
        }
        _ => return Err(Error::new(ErrorKind::Malformed, format!("schema `{schema}`")).expected("a schema number")),
    }
    let description = file.metadata().get(DESCRIPTION_KEY).ok_or_else(not_ours)?;
    serde_json::from_str(description)
        .map_err(|error| Error::new(ErrorKind::Malformed, error.to_string()).tensor("description"))
}

fn statistics_tensors(statistics: &Statistics) -> Vec<(String, Tensor)> {
    let units = statistics.units();
    let mut tensors = vec![(
        STATISTICS_SUM.to_owned(),
        Tensor::new(Dtype::F64, &[units], statistics.sum().iter().flat_map(|v| v.to_le_bytes())),
    )];
    if let Some(sums) = statistics.sequential_sum() {
        tensors.push((
            SEQUENTIAL_SUM.into(),
            Tensor::new(Dtype::F32, &[units], sums.iter().flat_map(|v| v.to_le_bytes())),
        ));
    }
    if let Some(activations) = statistics.activations() {
        let (bins, counts): (Vec<u32>, Vec<u64>) = activations.bins().unzip();
        let length = bins.len();
        tensors.push((
            HISTOGRAM_BINS.into(),
            Tensor::new(Dtype::U32, &[length], bins.iter().flat_map(|v| v.to_le_bytes())),
        ));
        tensors.push((
            HISTOGRAM_COUNTS.into(),
            Tensor::new(Dtype::U64, &[length], counts.iter().flat_map(|v| v.to_le_bytes())),
        ));
    }
    if let Some(ClassSums(classes)) = statistics.classes() {
        let (labels, rows) = (classes.keys(), classes.values().map(|(rows, _)| rows));
        let sums = classes.values().flat_map(|(_, sums)| sums);
        let count = classes.len();
        tensors.extend([
            (CLASS_LABELS.into(), Tensor::new(Dtype::I64, &[count], labels.flat_map(|v| v.to_le_bytes()))),
            (CLASS_ROWS.into(), Tensor::new(Dtype::U64, &[count], rows.flat_map(|v| v.to_le_bytes()))),
            (CLASS_SUMS.into(), Tensor::new(Dtype::F64, &[count, units], sums.flat_map(|v| v.to_le_bytes()))),
        ]);
    }
    tensors
}

fn statistics_of(file: &SafetensorsHeader, description: &Description) -> Result<Statistics> {
    let sum = Array1::from(file.expect(STATISTICS_SUM, DType::F64)?.1.all_f64()?);
    let sequential = match file.has(SEQUENTIAL_SUM) {
        true => Some(Array1::from(file.expect(SEQUENTIAL_SUM, DType::F32)?.1.all_f32()?)),
        false => None,
    };
    let activations = match description.cut_off {
        None => None,
        Some(cut_off) => {
            let bins = file.expect(HISTOGRAM_BINS, DType::U32)?.1.all_i64()?;
            let counts = file.expect(HISTOGRAM_COUNTS, DType::U64)?.1.all_i64()?;
            if bins.len() != counts.len() {
                return Err(Error::new(ErrorKind::Malformed, format!("{} counts", counts.len()))
                    .tensor(HISTOGRAM_COUNTS)
                    .expected(format!("{}, one for each bin", bins.len())));
            }
            let bins = bins.into_iter().zip(counts).map(|(bin, count)| (bin as u32, count.max(0) as u64));
            Some(ActivationHistogram::from_bins(bins, cut_off)?)
        }
    };
    let classes = if file.has(CLASS_SUMS) { Some(class_sums_of(file, sum.len())?) } else { None };
    Statistics::from_parts(description.rows, description.published, sum, sequential, activations, classes)
}

fn class_sums_of(file: &SafetensorsHeader, units: usize) -> Result<ClassSums> {
    let labels = file.expect(CLASS_LABELS, DType::I64)?.1.all_i64()?;
    let rows = file.expect(CLASS_ROWS, DType::U64)?.1.all_i64()?;
    let (info, mut sums) = file.expect(CLASS_SUMS, DType::F64)?;
    let wrong = |found: String| {
        Error::new(ErrorKind::Malformed, found)
            .tensor(CLASS_SUMS)
            .expected(format!("finite sums [{}, {units}], a row for each label", labels.len()))
    };
    if rows.len() != labels.len() || info.shape != [labels.len(), units] {
        return Err(wrong(format!("{info}, {} counts", rows.len())));
    }
    let sums = sums.all_f64()?;
    if let Some(value) = sums.iter().find(|value| !value.is_finite()) {
        return Err(wrong(value.to_string()));
    }
    let parts = rows.into_iter().zip(sums.chunks_exact(units.max(1)));
    let classes = labels.iter().zip(parts).map(|(label, (rows, sums))| (*label, (rows.max(0) as u64, sums.to_vec())));
    Ok(ClassSums(classes.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Gather;

    fn artifact() -> (Artifact, Array2<f32>) {
        let features = Array2::from_shape_fn((400, 9), |(row, unit)| ((row * 13 + unit * 29) % 31) as f32 / 10.0);
        let weight = (0..27).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
        let head = Arc::new(LinearHead::from_rows(weight, vec![0.5, -0.25, 0.0], 9).unwrap());
        let mut statistics = Statistics::new(9, Gather::ALL);
        statistics.update(features.view()).unwrap();
        let detectors = ["react(0.9) | dice(0.5) | energy", "msp", "dice(0.4, preset=openood) | energy"]
            .iter()
            .map(|spec| {
                let detector = spec.parse::<Spec>().unwrap().fit(&head, &statistics).unwrap();
                let scores = detector.score(features.view()).unwrap();
                Calibrated::new(detector, Calibration::new(scores).unwrap(), 0.9).unwrap()
            })
            .collect();
        let provenance = BTreeMap::from([("features".into(), "a test".into())]);
        (Artifact { head, statistics, detectors, provenance }, features)
    }

    #[test]
    fn save_load_score_is_bit_equal() {
        let (artifact, features) = artifact();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("detector.safetensors");
        artifact.save(&path).unwrap();
        let loaded = Artifact::load(&path).unwrap();
        assert_eq!(loaded.statistics, artifact.statistics);
        assert_eq!(loaded.provenance, artifact.provenance);
        for (loaded, saved) in loaded.detectors.iter().zip(&artifact.detectors) {
            assert_eq!(loaded.detector.score(features.view()).unwrap(), saved.detector.score(features.view()).unwrap());
            assert_eq!(loaded.threshold, saved.threshold);
            assert_eq!(loaded.detector.spec(), saved.detector.spec());
        }
        // What was gathered is enough to fit anew.
        let refitted = loaded.detectors[0].detector.spec().fit(&loaded.head, &read_statistics(&path).unwrap()).unwrap();
        assert_eq!(refitted.mask(), artifact.detectors[0].detector.mask());
        assert_eq!(refitted.clip(), artifact.detectors[0].detector.clip());
        artifact.statistics.save(&path).unwrap();
        assert_eq!(read_statistics(&path).unwrap(), artifact.statistics);
        assert!(Artifact::load(&path).is_err(), "statistics alone are no detector");

        let mut with_classes = Statistics::new(9, Gather { class_means: true, ..Gather::default() });
        let labels: Vec<i64> = (0..features.nrows() as i64).map(|row| row % 3 - 1).collect();
        with_classes.update_labelled(features.view(), &labels).unwrap();
        with_classes.save(&path).unwrap();
        assert_eq!(read_statistics(&path).unwrap(), with_classes);
    }

    #[test]
    fn other_files_newer_schemas_and_contradictions_are_refused() {
        let (artifact, _) = artifact();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("detector.safetensors");
        artifact.save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let replaced = |from: &str, to: &str| {
            assert_eq!(from.len(), to.len());
            let start = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            let mut changed = bytes.clone();
            changed[start..start + to.len()].copy_from_slice(to.as_bytes());
            std::fs::write(&path, changed).unwrap();
            Artifact::load(&path).unwrap_err()
        };
        assert!(replaced("dice_ood_schema\":\"1", "dice_ood_schema\":\"9").to_string().contains("update dice-ood"));
        assert_eq!(replaced("dice_ood_schema", "dice_ood_scheme").kind(), ErrorKind::Unsupported);
        assert_eq!(replaced("react(0.9)", "react(2.9)").kind(), ErrorKind::Malformed);
        assert_eq!(replaced("detector.1.calibration", "detector.1.calibratiom").kind(), ErrorKind::Malformed);
        std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        assert_eq!(Artifact::load(&path).unwrap_err().kind(), ErrorKind::Malformed);
    }

    #[test]
    fn any_flipped_byte_loads_or_is_an_error() {
        let (artifact, features) = artifact();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("detector.safetensors");
        artifact.save(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for place in (0..bytes.len()).step_by(7) {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << (place % 8);
            std::fs::write(&path, flipped).unwrap();
            if let Ok(loaded) = Artifact::load(&path) {
                for calibrated in &loaded.detectors {
                    let _ = calibrated.detector.score(features.view());
                    let mask = calibrated.detector.mask();
                    crate::Salience::measure(&loaded.head, &loaded.statistics, mask);
                }
            }
        }
    }
}
