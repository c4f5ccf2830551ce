//! What a model with a detector inside really gives, beside the model that it was made of: runtimes merge operators by what is read of
//! them, so that outputs may round elsewhere once there are more.

use dice_ood::io::ArrayValues;
use dice_ood::random::SplitMix64;
use dice_ood::{Block, Calibrated, Decision, Error, ErrorKind, Result};
use image::{DynamicImage, RgbImage};

use crate::arrays::feed::{is_made, is_mask};
use crate::images::preprocess::Preprocess;
use crate::model::Model;
use crate::model::head::FoundHead;
use crate::network::origin::Prepared;
use crate::run::backbone::{Backbone, RowArrays};
use crate::run::input::{Element, ModelInput};
use crate::run::runtime::Runtime;
use crate::run::whole::Whole;
use crate::write::export::{DECISION, FEATURES, SCORE};

/// Extents that free axes are given, until the model runs: of a text, of a small image, of a wave.
const EXTENTS: [usize; 3] = [16, 64, 1024];

/// The same inputs each time.
const SEED: u64 = 1;

/// What an exported model gives for some inputs, beside what it should.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Measured {
    /// How many inputs there were, N.
    pub rows: usize,
    /// By how much each output of the original differs in the exported model, relative to its largest value; 0 where all bits are the
    /// same. Empty for a detector alone.
    pub outputs: Vec<(String, f64)>,
    /// By how much [`SCORE`] differs from what the detector scores, relative to the largest score.
    pub score: f64,
    /// How many of the decisions [`DECISION`] differ, where the detector decides.
    pub decisions: Option<usize>,
}

impl Measured {
    /// The output that differs most.
    pub fn worst(&self) -> Option<&(String, f64)> {
        self.outputs.iter().max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// Runs `exported`, made of `original` and `calibrated`, and `original` itself in `runtime`, on at least `rows` random inputs, the same
/// ones each time, which are those of images or arrays as `prepared` says.
///
/// # Errors
/// What the runtime lacks for either; [`ErrorKind::Unsupported`] where random inputs are none that the model takes.
pub fn measure(
    (original, found): (&Model, &FoundHead),
    exported: &Model,
    calibrated: &Calibrated,
    prepared: Option<&Prepared>,
    runtime: &Runtime,
    rows: usize,
) -> Result<Measured> {
    let backbone = Backbone::new(original, found, runtime)?;
    let rows = rows.next_multiple_of(backbone.fixed_batch().unwrap_or(1));
    let preprocess = match prepared {
        Some(Prepared::Images(preprocess)) => Some(preprocess),
        _ => None,
    };
    let tried = |extent: usize| -> Result<(Vec<RowArrays>, Vec<f32>)> {
        let arrays = random_inputs(original, &backbone, preprocess, rows, extent)?;
        let features = backbone.run_arrays(&arrays, rows)?;
        Ok((arrays, features))
    };
    let first = tried(EXTENTS[0]);
    let (arrays, features) =
        first.or_else(|error| EXTENTS[1..].iter().find_map(|extent| tried(*extent).ok()).ok_or(error))?;
    let batch = backbone.batch_of_arrays(&arrays, rows);
    drop(backbone);
    let before = Whole::new(original, runtime)?;
    let before = before.run(&arrays, rows, batch)?;
    let after = Whole::new(exported, runtime)?;
    let after = after.run(&arrays, rows, batch)?;
    let outputs = before
        .iter()
        .map(|(name, old)| Ok(((*name).to_owned(), difference(old, output(&after, name)?))))
        .collect::<Result<_>>()?;
    scored(&after, &features, rows, calibrated, outputs)
}

/// [`measure`] for a detector that was exported alone, whose features are random too.
///
/// # Errors
/// What the runtime lacks.
pub fn measure_alone(exported: &Model, calibrated: &Calibrated, runtime: &Runtime, rows: usize) -> Result<Measured> {
    let units = calibrated.detector().head().units();
    let mut random = SplitMix64::new(SEED);
    let features: Vec<f32> = (0..rows * units).map(|_| random.fraction()).collect();
    let whole = Whole::new(exported, runtime)?;
    let arrays = [RowArrays { shape: vec![units], values: ArrayValues::Floats(features.clone()) }];
    debug_assert_eq!(exported.inputs().first().map(|input| &*input.name), Some(FEATURES));
    let after = whole.run(&arrays, rows, rows)?;
    scored(&after, &features, rows, calibrated, Vec::new())
}

/// The values that a model gave by the names of its outputs.
type Outputs<'a> = [(&'a str, Vec<f32>)];

fn output<'a>(outputs: &'a Outputs<'_>, name: &str) -> Result<&'a [f32]> {
    let found = outputs.iter().find(|(known, _)| *known == name).map(|(_, values)| &**values);
    found.ok_or_else(|| Error::new(ErrorKind::Missing, "no such output").tensor(crate::text::quoted(name)))
}

/// What `after` scores and decides beside what `calibrated` does with the features `[rows, D]`.
fn scored(
    after: &Outputs<'_>,
    features: &[f32],
    rows: usize,
    calibrated: &Calibrated,
    outputs: Vec<(String, f64)>,
) -> Result<Measured> {
    let units = calibrated.detector().head().units();
    let features = Block { features: features.to_vec(), units, ..Block::default() };
    let expected = calibrated.detector().score(features.view())?;
    let rounded: Vec<f32> = expected.iter().map(|score| *score as f32).collect();
    let decide = |threshold: &dice_ood::Threshold| -> Result<usize> {
        let differs =
            |(score, ood): (&f64, &f32)| (threshold.decide(*score) == Decision::OutOfDistribution) != (*ood != 0.0);
        Ok(expected.iter().zip(output(after, DECISION)?).filter(|pair| differs(*pair)).count())
    };
    let decisions = calibrated.threshold().map(decide).transpose()?;
    Ok(Measured { rows, outputs, score: difference(&rounded, output(after, SCORE)?), decisions })
}

/// The largest difference relative to the largest value of `expected`; NaN equals NaN, and nothing else.
fn difference(expected: &[f32], found: &[f32]) -> f64 {
    if expected.len() != found.len() {
        return f64::INFINITY;
    }
    let apart = |(a, b): (&f32, &f32)| match a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan() {
        true => 0.0,
        false => (f64::from(*a) - f64::from(*b)).abs(),
    };
    let furthest = expected
        .iter()
        .zip(found)
        .map(apart)
        .fold(0.0, |most, next| if next.is_nan() { f64::INFINITY } else { next.max(most) });
    let largest = expected
        .iter()
        .filter(|value| value.is_finite())
        .fold(0.0f64, |largest, value| largest.max(f64::from(value.abs())));
    if furthest == 0.0 { 0.0 } else { furthest / largest.max(f64::MIN_POSITIVE) }
}

/// Inputs of `rows` rows for `model`: noise through the preprocessing where images are taken, else numbers that its inputs may hold.
fn random_inputs(
    model: &Model,
    backbone: &Backbone,
    preprocess: Option<&Preprocess>,
    rows: usize,
    extent: usize,
) -> Result<Vec<RowArrays>> {
    let mut random = SplitMix64::new(SEED);
    if let Some(preprocess) = preprocess {
        return Ok(vec![noise(backbone, preprocess, rows, extent, &mut random)?]);
    }
    backbone.inputs().iter().map(|input| random_array(model, input, rows, extent, &mut random)).collect()
}

/// Images of noise, prepared.
fn noise(
    backbone: &Backbone,
    preprocess: &Preprocess,
    rows: usize,
    extent: usize,
    random: &mut SplitMix64,
) -> Result<RowArrays> {
    let input = backbone.input()?;
    let sides = preprocess.size().unwrap_or_else(|| input.size.map(|side| side.unwrap_or(extent)));
    let [height, width] = sides.map(|side| u32::try_from(side).unwrap_or(u32::MAX));
    let (mut values, mut size) = (Vec::new(), [0; 2]);
    for _ in 0..rows {
        let image = RgbImage::from_fn(width, height, |_, _| image::Rgb([(); 3].map(|()| (random.next() >> 56) as u8)));
        let (pixels, made) = preprocess.apply(&DynamicImage::ImageRgb8(image))?;
        values.extend(pixels);
        size = made;
    }
    let shape = input.row(preprocess.channels.count(), size);
    Ok(RowArrays { shape, values: ArrayValues::Floats(values) })
}

/// Numbers for an input: a mask of ones, ids of rows that the model has, or floats from -1 to 1.
fn random_array(
    model: &Model,
    input: &ModelInput,
    rows: usize,
    extent: usize,
    random: &mut SplitMix64,
) -> Result<RowArrays> {
    let shape: Vec<usize> = input.row().unwrap_or_default().into_iter().map(|axis| axis.unwrap_or(extent)).collect();
    let count =
        shape.iter().try_fold(rows, |count, extent| count.checked_mul(*extent)).filter(|count| *count <= 1 << 28);
    let count = count
        .ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("an input of {shape:?}")).expected("fewer values"))?;
    let whole = |value: &mut dyn FnMut() -> i64| ArrayValues::Integers((0..count).map(|_| value()).collect());
    let values = match input.element {
        element if element == Element::Bool || is_mask(input) => whole(&mut || 1),
        _ if is_made(input) => whole(&mut || 0),
        Element::Uint8 | Element::Int8 => whole(&mut || (random.next() >> 57) as i64),
        element if element.is_whole() => {
            let known = model.rows_looked_up(&input.name).unwrap_or(2);
            whole(&mut || (random.next() >> 33) as i64 % known)
        }
        _ => ArrayValues::Floats((0..count).map(|_| 2.0 * random.fraction() - 1.0).collect()),
    };
    Ok(RowArrays { shape, values })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;
    use std::sync::Arc;

    use dice_ood::{Calibration, Needs, Spec, Statistics};

    use super::*;
    use crate::model::head::HeadOptions;
    use crate::testing::Builder;
    use crate::write::export::Exporter;

    /// Scales its input before it pools, behind which lies one head.
    fn model(scale: f32) -> Model {
        let builder = Builder::new().floats("c", &[], &[scale]).node("Mul", &["x", "c"], &["m"], &[]);
        let builder = builder.node("GlobalAveragePool", &["m"], &["g"], &[]).node("Flatten", &["g"], &["h"], &[]);
        let builder = builder.counting("w", &[3, 2]).node("MatMul", &["h", "w"], &["y"], &[]).output("y", &[0, 2]);
        Model::from_bytes(builder.encode(), Path::new("test.onnx")).unwrap()
    }

    #[test]
    fn an_export_of_another_network_is_measured_to_be_another() {
        let original = model(1.0);
        let found = original.find_head(&HeadOptions::default()).unwrap();
        let mut statistics = Statistics::new(3, &Needs::marginals());
        let rows = Block { features: vec![0.1, 0.2, 0.3], units: 3, ..Block::default() };
        statistics.update(rows.view()).unwrap();
        let detector = "energy".parse::<Spec>().unwrap().fit(&Arc::new(found.head.clone()), &statistics).unwrap();
        let scores = (0..40).map(|place| f64::from(place) / 10.0 - 2.0).collect();
        let calibrated = Calibrated::new(detector, Calibration::new(scores).unwrap(), 0.5).unwrap();
        let measured = |of: &Model, rows: usize| {
            let export = Exporter::new(&calibrated).unwrap().in_model(of, &found).unwrap();
            let exported = Model::from_bytes(export.bytes().to_vec(), Path::new("exported.onnx")).unwrap();
            measure((&original, &found), &exported, &calibrated, None, &Runtime::BuiltIn, rows).unwrap()
        };
        let same = measured(&original, 5);
        assert_eq!((same.rows, same.worst(), same.decisions), (5, Some(&("y".to_owned(), 0.0)), Some(0)));
        assert!(same.score < 1e-6, "{same:?}");
        // Of inputs of 48 values 85 are run together.
        let uneven = measured(&original, 100);
        assert_eq!((uneven.rows, uneven.worst().unwrap().1, uneven.decisions), (100, 0.0, Some(0)));
        let other = measured(&model(-3.0), 64);
        let (name, difference) = other.worst().unwrap();
        assert!(name == "y" && (difference - 4.0).abs() < 1e-5 && other.score > 0.1, "{other:?}");
        assert!(other.decisions.unwrap() > 0, "{other:?}");

        let alone = Exporter::new(&calibrated).unwrap().alone().unwrap();
        let alone = Model::from_bytes(alone.bytes().to_vec(), Path::new("alone.onnx")).unwrap();
        let alone = measure_alone(&alone, &calibrated, &Runtime::BuiltIn, 7).unwrap();
        assert!(alone.score < 1e-6 && alone.outputs.is_empty() && alone.decisions == Some(0), "{alone:?}");
    }

    #[test]
    fn differences_are_relative_to_the_largest_value() {
        assert_eq!(difference(&[1.0, -4.0], &[1.0, -3.0]), 0.25);
        assert_eq!(difference(&[f32::NAN, 0.0], &[f32::NAN, 0.0]), 0.0);
        assert_eq!(difference(&[f32::NAN, 1.0], &[2.0, 1.0]), f64::INFINITY);
        assert_eq!(difference(&[1.0], &[1.0, 1.0]), f64::INFINITY);
    }
}
