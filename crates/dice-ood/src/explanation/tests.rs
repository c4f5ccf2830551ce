//! Explanations against their definitions.

use std::sync::Arc;

use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;

use super::*;
use crate::detector::Detector;
use crate::error::ErrorKind;
use crate::features::{ArraySource, Block, FeatureSource, Ids};
use crate::fit::Fit;
use crate::head::LinearHead;
use crate::random::SplitMix64;

const UNITS: usize = 12;

/// Rows of three classes, each with four units of its own.
fn rows(count: usize, seed: u64) -> Array2<f32> {
    let mut random = SplitMix64::new(SplitMix64::mix(seed));
    Array2::from_shape_fn((count, UNITS), |(row, unit)| {
        let noise = random.below(1000) as f32 / 1000.0;
        if unit / 4 == row % 3 { 1.5 + noise } else { 0.4 * noise }
    })
}

fn labels(count: usize) -> Vec<i64> {
    (0..count as i64).map(|row| row % 3).collect()
}

fn head() -> Arc<LinearHead> {
    let weight = (0..3 * UNITS).map(|place| {
        let (class, unit) = (place / UNITS, place % UNITS);
        if unit / 4 == class { 1.0 + 0.1 * unit as f32 } else { -0.05 * (1 + unit % 3) as f32 }
    });
    Arc::new(LinearHead::from_rows(weight.collect(), vec![0.1, -0.2, 0.3], UNITS).unwrap())
}

fn fitted(specs: &[&str]) -> crate::Artifact {
    let (training, held_out, labels) = (rows(300, 1), rows(200, 2), labels(300));
    let fit = Fit::new(head()).calibrate_on(|| Ok(ArraySource::new(held_out.view())));
    let fit = specs.iter().fold(fit, |fit, spec| fit.detector(spec.parse().unwrap()));
    fit.features(ArraySource::with_labels(training.view(), &labels).unwrap()).unwrap().artifact
}

fn explained(artifact: &crate::Artifact, place: usize, row: &[f32]) -> Explanation {
    Explanation::of(&artifact.detectors()[place], artifact.statistics(), row).unwrap()
}

const SPECS: [&str; 6] = [
    "energy",
    "dice(0.7) | energy",
    "react(0.9) | dice(0.5) | energy",
    "knn(5)",
    "ash-s(0.5) | msp",
    "evidence(energy, knn(5)*0.5, dice(0.7) | energy)",
];

#[test]
fn scores_and_shares_are_those_of_the_detector_whatever_it_is() {
    let artifact = fitted(&SPECS);
    let mean = artifact.statistics().mean_activation();
    let inputs = rows(4, 9);
    for (place, calibrated) in artifact.detectors().iter().enumerate() {
        for input in inputs.rows() {
            let row: Vec<f32> = input.to_vec();
            let why = explained(&artifact, place, &row);
            let score_of = |row: &[f32]| calibrated.detector().score_one(row).unwrap();
            assert_eq!(why.score, score_of(&row), "{}", why.detector);
            assert_eq!(why.units.len(), UNITS);
            for unit in &why.units {
                let mut other = row.clone();
                other[unit.unit] = mean[unit.unit] as f32;
                assert_eq!((unit.share, unit.activation), (why.score - score_of(&other), row[unit.unit]));
            }
            let (calibration, threshold) = (calibrated.calibration().unwrap(), calibrated.threshold().unwrap());
            let decided = why.decided.unwrap();
            assert_eq!(decided.p_value, calibration.p_value(why.score));
            assert_eq!(decided.accepted, threshold.decide(why.score) == Decision::InDistribution);
            let at_most = calibration.scores().iter().filter(|score| **score <= why.score).count();
            assert_eq!(
                (decided.calibration_at_most, decided.percentile),
                (at_most, at_most as f64 / 200.0 * if calibration.scores().len() == 200 { 1.0 } else { 2.0 })
            );
        }
    }
}

#[test]
fn logits_and_what_was_removed_add_up_to_the_score() {
    let artifact = fitted(&["react(0.9) | dice(0.5) | energy"]);
    let detector = artifact.detectors()[0].detector();
    let (mask, clip) = (detector.mask().unwrap().kept().to_owned(), detector.clip().unwrap());
    for row in rows(6, 4).rows() {
        let row = row.to_vec();
        let why = explained(&artifact, 0, &row);
        let pruning = why.pruning.unwrap();
        // Twelve products below 7 in f32 against f64: 13 * 2^-24 * 84, and the rounding of the logits themselves.
        assert!((pruning.energy - why.score).abs() < 1e-4, "{} {}", pruning.energy, why.score);
        let naive = |dense: bool, class: usize| {
            let kept = |unit: &usize| dense || mask[(class, *unit)];
            let read = |value: f32| if dense { f64::from(value) } else { f64::from(value).min(clip) };
            let weight = head().weight().row(class).to_vec();
            (0..UNITS).filter(kept).map(|unit| f64::from(weight[unit]) * read(row[unit])).sum::<f64>()
                + f64::from(head().bias()[class])
        };
        for class in &why.classes {
            assert!((class.dense_logit - naive(true, class.class)).abs() < 1e-12);
            assert!((class.logit - naive(false, class.class)).abs() < 1e-6, "the clip is an f32 in the kernel");
        }
        for share in [|class: &ClassShare| class.share, |class: &ClassShare| class.dense_share] {
            assert!((why.classes.iter().map(share).sum::<f64>() - 1.0).abs() < 1e-12);
        }
        assert!((pruning.removed - (pruning.shaped_energy - pruning.energy)).abs() < 1e-12);
        let logit = why.classes[why.prediction].logit;
        let shaped: f64 = (0..UNITS)
            .map(|unit| f64::from(head().weight()[(why.prediction, unit)]) * f64::from(row[unit]).min(clip))
            .sum();
        let dropped = shaped + f64::from(head().bias()[why.prediction]) - logit;
        assert!((pruning.removed_positive + pruning.removed_negative - dropped).abs() < 1e-5);
        assert_eq!(pruning.class_weights_kept, mask.row(why.prediction).iter().filter(|kept| **kept).count());
        for removed in &pruning.largest {
            assert_eq!(why.units[removed.unit].kept, Some(false));
        }
        let sizes: Vec<f64> = pruning.largest.iter().map(|removed| removed.contribution.abs()).collect();
        assert!(!sizes.is_empty() && sizes.windows(2).all(|pair| pair[0] >= pair[1]));
    }
    let dense = fitted(&["energy"]);
    let why = explained(&dense, 0, rows(1, 4).row(0).as_slice().unwrap());
    assert!(why.pruning.is_none() && why.units[0].kept.is_none());
}

#[test]
fn votes_of_members_are_the_terms_of_the_combined_score() {
    let artifact = fitted(&["evidence(energy, knn(5)*0.5, dice(0.7) | energy)"]);
    let detector: &Detector = artifact.detectors()[0].detector();
    let input = rows(1, 8).row(0).to_vec();
    let why = explained(&artifact, 0, &input);
    let sum: f64 = why.members.iter().map(|member| member.vote).sum();
    assert!((sum - why.score).abs() <= 1e-12 * why.score.abs());
    assert_eq!(why.members.iter().map(|member| member.weight).collect::<Vec<_>>(), [1.0, 0.5, 1.0]);
    let names: Vec<&str> = why.members.iter().map(|member| member.detector.as_str()).collect();
    assert_eq!((&names[..], why.pipeline.as_str()), (&["energy", "knn(5)", "dice(0.7) | energy"][..], names[2]));
    // p-values by the definition, of the half of the calibration inputs that members rest on.
    for (place, member) in why.members.iter().enumerate() {
        let reference = &detector.reference()[place];
        let reached = reference.iter().filter(|score| **score <= member.score).count();
        assert_eq!(member.p_value, (1 + reached) as f64 / (reference.len() + 1) as f64, "{}", member.detector);
        assert!(member.usual_vote < 0.0 && member.usual_vote > -1.0, "the log of one half, weighted");
    }
    assert!(why.pruning.is_some());
}

/// Rows as a source with names and labels.
struct Named<'a> {
    rows: ArrayView2<'a, f32>,
    names: &'a [&'a str],
    next: usize,
}

impl FeatureSource for Named<'_> {
    fn units(&self) -> usize {
        self.rows.ncols()
    }

    fn rows(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, block: &mut Block, _: usize) -> Result<()> {
        // Two rows a block, so that a search crosses blocks.
        let end = self.rows.nrows().min(self.next + 2);
        block.restart(self.units(), self.next as u64);
        block.origin = "named".into();
        self.rows.slice(ndarray::s![self.next..end, ..]).iter().for_each(|value| block.features.push(*value));
        block.ids = Some(Ids::Text(self.names[self.next..end].iter().map(|name| (*name).to_owned()).collect()));
        block.labels = Some((self.next as i64..end as i64).collect());
        self.next = end;
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_nearest_are_found_in_banks_and_in_files(values in proptest::collection::vec(-2i8..3, 4..80)) {
        // Small whole numbers: many ties, and rows of zeros.
        let count = values.len() / 4;
        let rows = Array2::from_shape_fn((count, 4), |(row, unit)| f32::from(values[row * 4 + unit]));
        let query = [1.0f32, 0.0, 2.0, -1.0];
        let norm = |row: &[f32]| row.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt();
        let mut naive: Vec<(f64, f64, usize)> = rows.rows().into_iter().enumerate().map(|(place, row)| {
            let row = row.to_vec();
            let product: f64 = row.iter().zip(query).map(|(a, b)| f64::from(a * b)).sum();
            let length = norm(&row) * norm(&query);
            let gap: f64 = row.iter().zip(query).map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>().sqrt();
            (if length > 0.0 { (product / length).clamp(-1.0, 1.0) } else { 0.0 }, gap, place)
        }).collect();
        naive.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)));
        let found = nearest(&mut ArraySource::new(rows.view()), &query).unwrap();
        let expected: Vec<(f64, f64, Option<u64>)> =
            naive.iter().take(5).map(|(cosine, gap, place)| (*cosine, *gap, Some(*place as u64))).collect();
        let told: Vec<_> = found.iter().map(|one| (one.cosine, one.distance, one.row)).collect();
        prop_assert_eq!(told, expected);
    }
}

#[test]
fn neighbours_have_the_names_and_labels_of_their_source() {
    let training = rows(7, 3);
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let mut source = Named { rows: training.view(), names: &names, next: 0 };
    let found = nearest(&mut source, training.row(4).as_slice().unwrap()).unwrap();
    let first = &found[0];
    assert_eq!(
        (first.id.as_deref(), first.file.as_deref(), first.row, first.label),
        (Some("e"), Some("named"), Some(4), Some(4))
    );
    assert!(first.distance == 0.0 && (first.cosine - 1.0).abs() < 1e-12 && found.len() == 5);
    let artifact = fitted(&["knn(5)"]);
    let of_bank = explained(&artifact, 0, rows(300, 1).row(5).as_slice().unwrap()).nearest;
    assert_eq!((of_bank.len(), of_bank[0].distance, of_bank[0].times), (5, 0.0, 1));
    let broken = Array2::from_elem((1, UNITS), f32::NAN);
    let error = nearest(&mut ArraySource::new(broken.view()), &[1.0; UNITS]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFinite);
}

#[test]
fn one_input_is_selected_by_row_or_name_and_what_cannot_be_is_told() {
    let all = rows(5, 6);
    let names = ["cat/01.png", "cat/02.png", "dog\u{202e}\n", "twice", "twice"];
    let found = |wanted: &Wanted| select(&mut Named { rows: all.view(), names: &names, next: 0 }, wanted, false);
    let id = |text: &str| Wanted::Id(text.into());
    for (wanted, row) in [(Wanted::Row(3), 3), (id("cat/02.png"), 1), (id("dog\u{202e}\n"), 2)] {
        let one = found(&wanted).unwrap();
        assert_eq!((one.row, one.label, &one.file[..]), (row, Some(row as i64), "named"));
        assert_eq!(one.features, all.row(row as usize).to_vec());
    }
    for (wanted, kind, part) in [
        (Wanted::Row(5), ErrorKind::Argument, "a row from 0 to 4, as there are 5 inputs"),
        (id("02.png"), ErrorKind::Missing, "spelled most like it is 'cat/02.png'"),
        (id("cat/03.pgn"), ErrorKind::Missing, "'cat/01.png'"),
        (id("dog"), ErrorKind::Missing, "none of 5 inputs"),
        (id("twice"), ErrorKind::Ambiguous, "rows 3 and 4"),
        (Wanted::Only, ErrorKind::Ambiguous, "several inputs"),
    ] {
        let error = found(&wanted).unwrap_err();
        assert!(error.kind() == kind && error.to_string().contains(part), "`{part}` is missing from: {error}");
    }
    let none = Array2::<f32>::zeros((0, UNITS));
    assert_eq!(
        select(&mut ArraySource::new(none.view()), &Wanted::Row(0), false).unwrap_err().kind(),
        ErrorKind::Empty
    );
    // Rows without names are called by their number, and by their file where there are several.
    let unnamed = |wanted, several| select(&mut ArraySource::new(all.view()), &wanted, several);
    assert_eq!(unnamed(id("2"), false).unwrap().row, 2);
    assert_eq!(unnamed(id(":2"), true).unwrap().id, ":2");
    assert!(unnamed(id("2"), true).is_err());
    assert!(found(&id(&"x".repeat(10_000))).unwrap_err().to_string().len() < 400);
}

#[test]
fn what_cannot_be_explained_is_refused() {
    let artifact = fitted(&["energy"]);
    let refused =
        |row: &[f32]| Explanation::of(&artifact.detectors()[0], artifact.statistics(), row).unwrap_err().kind();
    assert_eq!(refused(&[1.0; 3]), ErrorKind::Shape);
    assert_eq!(refused(&[f32::NAN; UNITS]), ErrorKind::NotFinite);
}
