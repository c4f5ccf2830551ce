//! One file for what was fitted: head, statistics, detectors, their calibration, and where it all came from.
//!
//! A `.safetensors` file that any tool can open. Tensors:
//!
//! | name | what |
//! | --- | --- |
//! | `head.weight` f32 `[C, D]`, `head.bias` f32 `[C]` | the dense head |
//! | `statistics.activation_sum` f64 `[D]`, `statistics.rows` u64 `[1]`, `statistics.…` | what was gathered |
//! | `stem.K.mask` u8 `[C, D]`, `stem.K.shaping.…`, `stem.K.shaped_mean` f64 `[D]` | the K-th distinct shaping and sparsity; the mean of shaped features where the mask rests on it |
//! | `pipeline.K.score.…`, `pipeline.K.reference` f64 `[m]` | the K-th distinct pipeline: its fitted score, and its scores of the reference inputs where a combination needs them |
//! | `detector.N.calibration` f64 `[n]` | ascending calibration scores of detector N |
//!
//! Stems and pipelines are numbered as they first appear in the detectors' specs. `__metadata__` holds the schema version,
//! a JSON description (specs, thresholds, tensors that are stored under another name, provenance) and a CRC-32 over
//! description and tensors. With `energy`, `M` the mask and `b` the bias, a score is
//! `logsumexp((M * W) @ h + b)`.

mod legacy;

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use ndarray::Array1;
use serde::{Deserialize, Serialize};

use crate::calibration::{Calibration, Threshold};
use crate::detector::Detector;
use crate::error::{Error, ErrorKind, Missing, Result};
use crate::head::LinearHead;
use crate::io::location::Location;
use crate::io::state::{state_bytes, write_state};
use crate::io::tensors::is_safetensors;
use crate::io::tensors::safetensors::SafetensorsHeader;
use crate::io::vectors::read_vector;
use crate::pipeline::{Fitting, Pipeline, Stem};
use crate::spec::{PipelineSpec, Spec};
use crate::state::{State, check_finite};
use crate::statistics::Statistics;

/// The version of the layout that this crate writes, and the newest it reads.
pub const SCHEMA: u32 = 2;

/// More than anyone compares.
const MOST_DETECTORS: usize = 256;
const SCHEMA_KEY: &str = "dice_ood_schema";
const DESCRIPTION_KEY: &str = "dice_ood";
const CHECKSUM_KEY: &str = "dice_ood_checksum";
/// By which a file of statistics is known.
const STATISTICS_SUM: &str = "statistics.activation_sum";

/// A fitted detector, and what its decisions rest on.
#[derive(Debug, Clone)]
pub struct Calibrated {
    detector: Detector,
    decides: Option<Decides>,
}

/// In-distribution scores, and the threshold that follows from them.
#[derive(Debug, Clone)]
pub struct Decides {
    calibration: Calibration,
    threshold: Threshold,
}

impl Calibrated {
    /// A detector without decisions.
    pub fn scores_only(detector: Detector) -> Self {
        Self { detector, decides: None }
    }

    /// A detector that accepts a fresh in-distribution input with probability at least `tpr`.
    ///
    /// # Errors
    /// As [`Calibration::threshold`].
    pub fn new(detector: Detector, calibration: Calibration, tpr: f64) -> Result<Self> {
        let threshold = calibration.threshold(tpr)?;
        Ok(Self { detector, decides: Some(Decides { calibration, threshold }) })
    }

    /// What scores.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }

    /// In-distribution scores; `None` where the detector was fitted without calibration inputs and gives scores only.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.decides.as_ref().map(|decides| &decides.calibration)
    }

    /// What decides.
    pub fn threshold(&self) -> Option<&Threshold> {
        self.decides.as_ref().map(|decides| &decides.threshold)
    }

    /// The same detector at another operating point, from the same calibration scores.
    ///
    /// # Errors
    /// As [`Calibration::threshold`]; [`ErrorKind::Calibration`] for a detector without calibration scores.
    pub fn with_tpr(&self, tpr: f64) -> Result<Self> {
        match &self.decides {
            Some(decides) => Self::new(self.detector.clone(), decides.calibration.clone(), tpr),
            None => Err(Error::new(ErrorKind::Calibration, "a detector without calibration scores")
                .argument(format!("detector '{}'", self.detector.spec()))
                .expected("calibration scores, to set a threshold by")),
        }
    }
}

/// Everything one fit produced: what [`Artifact::save`] writes and [`Artifact::load`] reads.
#[derive(Debug, Clone)]
pub struct Artifact {
    head: Arc<LinearHead>,
    statistics: Statistics,
    detectors: Vec<Calibrated>,
    provenance: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Description {
    library: String,
    detectors: Vec<DetectorDescription>,
    /// Tensors whose values are stored under another name, which equal ones share.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    same: BTreeMap<String, String>,
    provenance: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct DetectorDescription {
    spec: String,
    tpr: Option<f64>,
    threshold: Option<f64>,
}

impl Artifact {
    /// What a fit produced: the head, the statistics of its features, detectors fitted from both, the first being the one that
    /// decides unless another is named, and where it came from (inputs, seeds, times).
    ///
    /// # Errors
    /// [`ErrorKind::Empty`] for no detectors; [`ErrorKind::Argument`] for more than 256, two with one spec, or one with
    /// another head; [`ErrorKind::Shape`] for statistics of other features.
    pub fn new(
        head: Arc<LinearHead>,
        statistics: Statistics,
        detectors: Vec<Calibrated>,
        provenance: BTreeMap<String, String>,
    ) -> Result<Self> {
        check_specs(detectors.iter().map(|calibrated| calibrated.detector.spec().to_string()))?;
        if statistics.units() != head.units() {
            return Err(Error::new(ErrorKind::Shape, format!("[{}]", statistics.units()))
                .tensor(STATISTICS_SUM)
                .expected(format!("[{}], one for each unit of the head", head.units())));
        }
        let other = |one: &&Calibrated| !Arc::ptr_eq(one.detector.head(), &head) && **one.detector.head() != *head;
        if let Some(other) = detectors.iter().find(other) {
            return Err(Error::new(ErrorKind::Argument, "another head")
                .argument(format!("detector '{}'", other.detector.spec()))
                .expected("the head of the artifact"));
        }
        Ok(Self { head, statistics, detectors, provenance })
    }

    /// The dense head.
    pub fn head(&self) -> &Arc<LinearHead> {
        &self.head
    }

    /// What was gathered from the training features; other detectors can be fitted from it.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// The detectors, the first being the one that decides unless another is named.
    pub fn detectors(&self) -> &[Calibrated] {
        &self.detectors
    }

    /// The artifact of the detector at `place` alone.
    ///
    /// # Errors
    /// [`ErrorKind::Argument`] where there is none.
    pub fn part(&self, place: usize) -> Result<Self> {
        let detector = self.detectors.get(place).ok_or_else(|| {
            Error::new(ErrorKind::Argument, format!("detector {place}"))
                .expected(format!("one of {}", self.detectors.len()))
        })?;
        Self::new(Arc::clone(&self.head), self.statistics.clone(), vec![detector.clone()], self.provenance.clone())
    }

    /// Where it came from, by key.
    pub fn provenance(&self) -> &BTreeMap<String, String> {
        &self.provenance
    }

    /// Writes the artifact to `path`, atomically. The same artifact gives the same bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (state, metadata) = self.tensors().map_err(|error| error.file(path.as_ref().display()))?;
        write_state(path.as_ref(), &state, &metadata)
    }

    /// The bytes of the file that [`Artifact::save`] writes.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] for provenance that cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (state, metadata) = self.tensors()?;
        state_bytes(&state, &metadata)
    }

    /// What the file holds: its tensors and its metadata.
    fn tensors(&self) -> Result<(State, BTreeMap<String, String>)> {
        let mut state = State::default();
        let (classes, units) = self.head.weight().dim();
        state.put("head.weight", &[classes, units], self.head.weight().iter().copied().collect::<Vec<f32>>());
        state.put("head.bias", &[classes], self.head.bias().to_vec());
        state.put_part("statistics", self.statistics.state());
        self.save_detectors(&mut state);
        let detectors = self.detectors.iter().map(|calibrated| DetectorDescription {
            spec: calibrated.detector.spec().to_string(),
            tpr: calibrated.threshold().map(Threshold::tpr),
            threshold: calibrated.threshold().map(Threshold::score),
        });
        let metadata = described(&mut state, detectors.collect(), self.provenance.clone())?;
        Ok((state, metadata))
    }

    /// Writes the statistics alone, with where they came from, atomically: to be merged with others, or fitted from later.
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn save_statistics(&self, path: impl AsRef<Path>) -> Result<()> {
        save_statistics(&self.statistics, path.as_ref(), self.provenance.clone())
    }

    fn save_detectors(&self, state: &mut State) {
        let mut order = Order::default();
        for (index, calibrated) in self.detectors.iter().enumerate() {
            let detector = &calibrated.detector;
            for (place, pipeline) in detector.fitted().iter().enumerate() {
                let (number, stem, new) = order.add(&pipeline.spec);
                if let Some(stem) = stem {
                    let mut part = State::default();
                    pipeline.stem.save(&mut part);
                    state.put_part(&format!("stem.{stem}"), part);
                }
                if new {
                    let mut part = State::default();
                    pipeline.save(&mut part);
                    state.put_part(&format!("pipeline.{number}"), part);
                }
                if let Some(scores) = detector.reference().get(place) {
                    state.put(&format!("pipeline.{number}.reference"), &[scores.len()], scores.clone());
                }
            }
            if let Some(calibration) = calibrated.calibration() {
                let scores = calibration.scores();
                state.put(&format!("detector.{index}.calibration"), &[scores.len()], scores.to_vec());
            }
        }
    }

    /// Reads an artifact. Whatever can be recomputed from what the file holds is, and must agree.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for a file that is none, or of a newer schema; [`ErrorKind::Malformed`] for one
    /// whose parts contradict each other or its checksum.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::load_unnamed(path).map_err(|error| error.file(path.display()))
    }

    /// The artifact of the bytes of a file: what [`Artifact::to_bytes`] gave.
    ///
    /// # Errors
    /// As [`Artifact::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::of_file(SafetensorsHeader::of_bytes(bytes))
    }

    fn load_unnamed(path: &Path) -> Result<Self> {
        Self::of_file(SafetensorsHeader::read(path))
    }

    fn of_file(file: Result<SafetensorsHeader>) -> Result<Self> {
        let not_ours = |error: Error| match error.kind() {
            ErrorKind::Malformed => error.fix("is this a detector, as this library writes them, and complete?"),
            _ => error,
        };
        let (mut state, description) = file.and_then(|file| read_file(&file)).map_err(not_ours)?;
        check_specs(description.detectors.iter().map(|detector| detector.spec.clone()))?;
        let (shape, weight) = state.take_shaped::<f32>("head.weight", &[None, None])?;
        let bias = state.take::<f32>("head.bias", &[Some(shape[0])])?;
        let head = Arc::new(LinearHead::from_rows(weight.to_vec(), bias.to_vec(), shape[1])?);
        let mut part = state.take_part("statistics");
        let statistics = Statistics::take(&mut part)?;
        part.finish()?;
        let detectors = load_detectors(&mut state, &description.detectors, &head, &statistics)?;
        state.finish()?;
        Self::new(head, statistics, detectors, description.provenance)
    }
}

/// Numbers stems and pipelines as they first appear.
#[derive(Default)]
struct Order {
    stems: Vec<String>,
    pipelines: Vec<String>,
}

impl Order {
    /// The number of a pipeline, that of its stem where the stem is new, and whether the pipeline is.
    fn add(&mut self, spec: &PipelineSpec) -> (usize, Option<usize>, bool) {
        let place = |all: &mut Vec<String>, text: String| match all.iter().position(|known| *known == text) {
            Some(place) => (place, false),
            None => {
                all.push(text);
                (all.len() - 1, true)
            }
        };
        let (stem, new_stem) = place(&mut self.stems, spec.stem.to_string());
        let (pipeline, new) = place(&mut self.pipelines, spec.to_string());
        (pipeline, new_stem.then_some(stem), new)
    }
}

fn check_specs(specs: impl Iterator<Item = String>) -> Result<()> {
    let specs: Vec<String> = specs.collect();
    let different: HashSet<&String> = specs.iter().collect();
    if specs.is_empty() {
        return Err(Error::new(ErrorKind::Empty, "no detectors").expected("at least one detector"));
    }
    // Every detector is packed when it is made: a small description must not ask for many.
    if specs.len() > MOST_DETECTORS || specs.len() != different.len() {
        return Err(Error::new(ErrorKind::Argument, format!("{} detectors", specs.len()))
            .expected(format!("at most {MOST_DETECTORS}, all different")));
    }
    Ok(())
}

fn load_detectors(
    state: &mut State,
    described: &[DetectorDescription],
    head: &Arc<LinearHead>,
    statistics: &Statistics,
) -> Result<Vec<Calibrated>> {
    let fitting = Fitting::new(head, statistics)?;
    let mut order = Order::default();
    let mut pipelines: Vec<(Arc<Pipeline>, Vec<f64>)> = Vec::new();
    let mut detectors = Vec::new();
    for (index, described) in described.iter().enumerate() {
        let spec: Spec =
            described.spec.parse().map_err(|error: Error| Error::caused_by(ErrorKind::Malformed, error))?;
        let (mut own, mut reference) = (Vec::new(), Vec::new());
        for pipeline in spec.pipelines() {
            let (number, stem, new) = order.add(pipeline);
            if new {
                pipelines.push(load_pipeline(state, pipeline, number, stem, &fitting)?);
            }
            own.push(Arc::clone(&pipelines[number].0));
            if spec.as_pipeline().is_none() {
                reference.push(pipelines[number].1.clone());
            }
        }
        let name = format!("detector.{index}.calibration");
        let contradicts = |error: Error| Error::caused_by(ErrorKind::Malformed, error);
        let detector = Detector::of_parts(spec, own, &reference).map_err(contradicts)?;
        detectors.push(calibrated(state, &name, detector, described)?);
    }
    Ok(detectors)
}

/// A pipeline, and its scores of the reference inputs where there are some.
fn load_pipeline(
    state: &mut State,
    spec: &PipelineSpec,
    number: usize,
    stem: Option<usize>,
    fitting: &Fitting<'_>,
) -> Result<(Arc<Pipeline>, Vec<f64>)> {
    let stem = fitting.stem(&spec.stem, |training| {
        let mut part = stem.map(|stem| state.take_part(&format!("stem.{stem}"))).unwrap_or_default();
        let loaded = Stem::load(&spec.stem, &mut part, training)?;
        part.finish()?;
        Ok(loaded)
    })?;
    let mut part = state.take_part(&format!("pipeline.{number}"));
    let reference = if part.has("reference") { part.take::<f64>("reference", &[None])?.to_vec() } else { Vec::new() };
    check_finite("reference", &reference)?;
    let pipeline = Pipeline::load(spec, stem, &mut part)?;
    part.finish()?;
    Ok((Arc::new(pipeline), reference))
}

/// Adds the calibration scores of a detector, whose recorded threshold must follow from them.
fn calibrated(
    state: &mut State,
    name: &str,
    detector: Detector,
    described: &DetectorDescription,
) -> Result<Calibrated> {
    match (state.has(name), described.tpr) {
        (false, None) => Ok(Calibrated::scores_only(detector)),
        (true, Some(tpr)) => {
            let scores = state.take::<f64>(name, &[None])?;
            let calibrated = Calibrated::new(detector, Calibration::new(scores.to_vec())?, tpr)?;
            if calibrated.threshold().map(Threshold::score) == described.threshold {
                return Ok(calibrated);
            }
            Err(Error::new(ErrorKind::Malformed, format!("a recorded threshold of {:?}", described.threshold))
                .tensor(name)
                .expected("the one that follows from the calibration scores"))
        }
        _ => Err(Error::new(ErrorKind::Malformed, "only one of the two")
            .tensor(name)
            .expected("calibration scores and a TPR, or neither")),
    }
}

impl Statistics {
    /// Writes the statistics alone, atomically: to be merged with others, or fitted from later
    /// ([`read_statistics`]).
    ///
    /// # Errors
    /// [`ErrorKind::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        save_statistics(self, path.as_ref(), BTreeMap::new())
    }

    /// The bytes of the file that [`Statistics::save`] writes: what a machine sends where statistics are merged.
    ///
    /// # Errors
    /// None that is known.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let (state, metadata) = statistics_tensors(self, BTreeMap::new())?;
        state_bytes(&state, &metadata)
    }

    /// The statistics of the bytes of a file: what [`Statistics::to_bytes`] gave, or the bytes of a detector.
    ///
    /// # Errors
    /// [`ErrorKind::Malformed`] and [`ErrorKind::Unsupported`] for other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        statistics_of(&SafetensorsHeader::of_bytes(bytes)?)
    }
}

fn save_statistics(statistics: &Statistics, path: &Path, provenance: BTreeMap<String, String>) -> Result<()> {
    let tensors = statistics_tensors(statistics, provenance);
    let (state, metadata) = tensors.map_err(|error| error.file(path.display()))?;
    write_state(path, &state, &metadata)
}

fn statistics_tensors(
    statistics: &Statistics,
    provenance: BTreeMap<String, String>,
) -> Result<(State, BTreeMap<String, String>)> {
    let mut state = State::default();
    state.put_part("statistics", statistics.state());
    let metadata = described(&mut state, Vec::new(), provenance)?;
    Ok((state, metadata))
}

/// Where the artifact or the statistics of a file came from, by key; nothing for a file of another kind.
///
/// # Errors
/// Those of reading, and [`ErrorKind::Malformed`] for a damaged file.
pub fn read_provenance(path: impl AsRef<Path>) -> Result<BTreeMap<String, String>> {
    let path = path.as_ref();
    match read(path) {
        Ok((_, description)) => Ok(description.provenance),
        Err(error) if error.kind() == ErrorKind::Unsupported => Ok(BTreeMap::new()),
        Err(error) => Err(error.file(path.display())),
    }
}

/// Reads statistics: those that [`Statistics::save`] wrote or a detector carries, or a published mean activation as npy,
/// npz or safetensors.
///
/// # Errors
/// Those of reading; [`ErrorKind::Missing`] where the file holds no statistics.
pub fn read_statistics(file: impl Into<Location>) -> Result<Statistics> {
    const MEAN_NAMES: [&str; 5] = ["mean_activation_f64", "mean_activation", "mean", "feat_stat", "info"];
    let file = file.into();
    if file.name.is_none() && is_safetensors(&file.path)? && SafetensorsHeader::read(&file.path)?.has(STATISTICS_SUM) {
        return load_statistics(&file.path).map_err(|error| error.file(&file));
    }
    let mean = read_vector(&file, &MEAN_NAMES)?;
    Statistics::from_mean_activation(Array1::from(mean)).map_err(|error| error.file(&file))
}

/// Reads statistics of several parts of the training data, as [`read_statistics`] does each, and merges them.
///
/// # Errors
/// As [`read_statistics`] and [`Statistics::merge`]; [`ErrorKind::Missing`] for no files.
pub fn read_merged_statistics<F: Into<Location>>(files: impl IntoIterator<Item = F>) -> Result<Statistics> {
    let mut files = files.into_iter().map(read_statistics);
    let none = || Error::lacking(Missing::Statistics, "no statistics");
    let mut merged = files.next().ok_or_else(none)??;
    files.try_for_each(|statistics| merged.merge(&statistics?))?;
    Ok(merged)
}

fn load_statistics(path: &Path) -> Result<Statistics> {
    statistics_of(&SafetensorsHeader::read(path)?)
}

fn statistics_of(file: &SafetensorsHeader) -> Result<Statistics> {
    let (mut state, _) = read_file(file)?;
    let mut part = state.take_part("statistics");
    let statistics = Statistics::take(&mut part)?;
    part.finish()?;
    Ok(statistics)
}

/// Shares equal tensors of `state`, and describes it: the metadata of its file.
fn described(
    state: &mut State,
    detectors: Vec<DetectorDescription>,
    provenance: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let same = state.share();
    let description = Description { library: env!("CARGO_PKG_VERSION").into(), detectors, same, provenance };
    let description =
        serde_json::to_string(&description).map_err(|error| Error::caused_by(ErrorKind::Malformed, error))?;
    let checksum = checksum(&description, state);
    Ok(BTreeMap::from([
        (SCHEMA_KEY.to_owned(), SCHEMA.to_string()),
        (DESCRIPTION_KEY.to_owned(), description),
        (CHECKSUM_KEY.to_owned(), checksum),
    ]))
}

/// The CRC-32 of the description and of every tensor's name, shape and values, in hexadecimal.
fn checksum(description: &str, state: &State) -> String {
    let mut crc = crc32fast::Hasher::new();
    crc.update(description.as_bytes());
    for (name, tensor) in state.tensors() {
        crc.update(name.as_bytes());
        crc.update(format!("{:?}{}", tensor.shape, tensor.values.type_name()).as_bytes());
        crc.update(tensor.values.bytes());
    }
    format!("{:08x}", crc.finalize())
}

/// All tensors of a file of ours, shared ones under each of their names, and its description.
fn read(path: &Path) -> Result<(State, Description)> {
    read_file(&SafetensorsHeader::read(path)?)
}

fn read_file(file: &SafetensorsHeader) -> Result<(State, Description)> {
    let not_ours = || {
        Error::new(ErrorKind::Unsupported, "a safetensors file of another kind")
            .expected("a detector, or statistics, as this library writes them")
    };
    let schema = file.metadata().get(SCHEMA_KEY).ok_or_else(not_ours)?;
    let description = file.metadata().get(DESCRIPTION_KEY).ok_or_else(not_ours)?;
    match schema.parse::<u32>() {
        Ok(SCHEMA) => {}
        Ok(1) => return legacy::read(file, description),
        Ok(newer) if newer > SCHEMA => {
            return Err(Error::new(ErrorKind::Unsupported, format!("schema {newer}"))
                .expected(format!("schema {SCHEMA} or older"))
                .fix("update dice-ood"));
        }
        _ => return Err(Error::new(ErrorKind::Malformed, format!("schema `{schema}`")).expected("a schema number")),
    }
    let mut state = file.state()?;
    let found = checksum(description, &state);
    if file.metadata().get(CHECKSUM_KEY) != Some(&found) {
        return Err(Error::new(ErrorKind::Malformed, format!("contents whose checksum is {found}"))
            .expected(format!("the recorded one, {}", file.metadata().get(CHECKSUM_KEY).map_or("none", String::as_str)))
            .fix("the file is damaged: fit the detector again, or copy the file again"));
    }
    let description: Description = serde_json::from_str(description)
        .map_err(|error| Error::caused_by(ErrorKind::Malformed, error).tensor("description"))?;
    state.unshare(&description.same)?;
    Ok((state, description))
}

#[cfg(test)]
mod tests;
