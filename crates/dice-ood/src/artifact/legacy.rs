//! Files of schema 1, read as if they were of the present one.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Description, DetectorDescription, Order};
use crate::error::{Error, ErrorKind, Result};
use crate::io::tensors::safetensors::SafetensorsHeader;
use crate::spec::Spec;
use crate::state::State;

#[derive(Deserialize)]
struct Described {
    library: String,
    rows: u64,
    published: bool,
    cut_off: Option<u32>,
    detectors: Vec<DescribedDetector>,
    provenance: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct DescribedDetector {
    spec: String,
    clip: Option<f64>,
    tpr: Option<f64>,
    threshold: Option<f64>,
}

/// Where tensors of statistics are now.
const MOVED: [(&str, &str); 6] = [
    ("activation_sum_sequential_f32", "sequential_mean.sum"),
    ("activation_histogram_bins", "activations.bins"),
    ("activation_histogram_counts", "activations.counts"),
    ("class_labels", "classes_by_label.classes"),
    ("class_rows", "classes_by_label.rows"),
    ("class_sums", "classes_by_label.sums"),
];

pub(super) fn read(file: &SafetensorsHeader, description: &str) -> Result<(State, Description)> {
    let described: Described = serde_json::from_str(description)
        .map_err(|error| Error::caused_by(ErrorKind::Malformed, error).tensor("description"))?;
    let mut state = file.state()?;
    let mut statistics = state.take_part("statistics");
    for (before, now) in MOVED {
        statistics.rename(before, now);
    }
    statistics.put("rows", &[1], vec![described.rows]);
    statistics.put("published", &[1], vec![u8::from(described.published)]);
    if let Some(cut_off) = described.cut_off {
        statistics.put("activations.cut_off", &[1], vec![cut_off]);
    }
    state.put_part("statistics", statistics);
    for (index, detector) in described.detectors.iter().enumerate() {
        move_stem(&mut state, index, detector, &described.detectors)?;
    }
    let detectors = described.detectors.into_iter().map(|detector| DetectorDescription {
        spec: detector.spec,
        tpr: detector.tpr,
        threshold: detector.threshold,
    });
    let detectors = detectors.collect();
    Ok((
        state,
        Description { library: described.library, detectors, same: BTreeMap::new(), provenance: described.provenance },
    ))
}

/// Mask and clip were kept with each detector; now each stem has one.
fn move_stem(state: &mut State, index: usize, detector: &DescribedDetector, all: &[DescribedDetector]) -> Result<()> {
    let mut order = Order::default();
    let mut stem = None;
    for described in &all[..=index] {
        let spec: Spec =
            described.spec.parse().map_err(|error: Error| Error::caused_by(ErrorKind::Malformed, error))?;
        for pipeline in spec.pipelines() {
            stem = order.add(pipeline).1;
        }
    }
    let name = format!("detector.{index}.mask");
    match stem {
        Some(stem) => {
            state.rename(&name, &format!("stem.{stem}.mask"));
            if let Some(clip) = detector.clip {
                state.put(&format!("stem.{stem}.shaping.clip"), &[1], vec![clip]);
            }
        }
        None => drop(state.take_any(&name)),
    }
    Ok(())
}
