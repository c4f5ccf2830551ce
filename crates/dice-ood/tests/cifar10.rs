//! Against the authors' own code, on the paper's own network: masks, scores and metrics that their modules produced.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dice_ood::artifact::read_statistics;
use dice_ood::io::{Dataset, Location, read_head, read_vector};
use dice_ood::metrics::{Curve, OfficialMetrics};
use dice_ood::{
    Calibration, Decision, Detector, Fitting, HoldOut, LinearHead, Needs, NonFinite, Spec, Statistics, for_each_block,
};

struct Network {
    folder: PathBuf,
    head: Arc<LinearHead>,
    published: Statistics,
}

const SETS: [(&str, &str); 3] = [("id_test", "id_test"), ("svhn", "svhn"), ("textures", "textures10")];

impl Network {
    fn open() -> Option<Self> {
        let folder = common::data("cifar10-densenet101")?;
        let file = |name: &str| Location::parse(&folder.join(name).to_string_lossy());
        let head = Arc::new(read_head(file("head.safetensors"), Some(342)).unwrap());
        let published = read_statistics(file("mean_activation.safetensors")).unwrap();
        Some(Self { folder, head, published })
    }

    fn dataset(&self, name: &str) -> Dataset {
        dataset(&self.folder.join(format!("{name}.safetensors")))
    }

    fn official(&self, tensor: &str) -> Vec<f64> {
        let file = self.folder.join("official.safetensors");
        read_vector(&Location { path: file, name: Some(tensor.into()) }, &[]).unwrap()
    }

    fn official_mask(&self, percent: u32) -> Vec<bool> {
        let file = format!("{}#p{percent}.mask", self.folder.join("official.safetensors").display());
        let mut kept = Vec::new();
        // A mask is a matrix like any other: read it as features.
        for_each_block(&mut *Dataset::new(&[file]).unwrap().open().unwrap(), |block| {
            kept.extend(block.features.iter().map(|value| *value != 0.0));
            Ok(())
        })
        .unwrap();
        kept
    }

    fn metrics(&self, key: &str) -> OfficialMetrics {
        let text = std::fs::read_to_string(self.folder.join("official_metrics.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let number = |name: &str| json[key][name].as_f64().unwrap();
        OfficialMetrics {
            fpr: number("FPR"),
            auroc: number("AUROC"),
            dterr: number("DTERR"),
            auin: number("AUIN"),
            auout: number("AUOUT"),
        }
    }
}

fn dataset(path: &Path) -> Dataset {
    Dataset::new(&[path.to_string_lossy().into_owned()]).unwrap()
}

fn scores(detector: &Detector, data: &Dataset) -> Vec<f64> {
    let mut scores = Vec::new();
    for_each_block(&mut *data.open().unwrap(), |block| {
        scores.extend(detector.score_block(block, NonFinite::Reject)?.scores);
        Ok(())
    })
    .unwrap();
    scores
}

fn assert_close(found: OfficialMetrics, expected: OfficialMetrics, tolerance: f64, what: &str) {
    for (name, found, expected) in [
        ("FPR", found.fpr, expected.fpr),
        ("AUROC", found.auroc, expected.auroc),
        ("DTERR", found.dterr, expected.dterr),
        ("AUIN", found.auin, expected.auin),
        ("AUOUT", found.auout, expected.auout),
    ] {
        assert!((found - expected).abs() <= tolerance, "{what} {name}: {found}, the authors have {expected}");
    }
}

fn detector_names() -> [(&'static str, &'static str); 4] {
    [
        ("dense", "energy"),
        ("p70", "dice(0.7, preset=official) | energy"),
        ("p90", "dice(0.9, preset=official) | energy"),
        ("p99", "dice(0.99, preset=official) | energy"),
    ]
}

#[test]
fn masks_and_scores_are_the_authors() {
    let Some(network) = Network::open() else { return };
    for (key, spec) in detector_names() {
        let detector = spec.parse::<Spec>().unwrap().fit(&network.head, &network.published).unwrap();
        if let Some(mask) = detector.mask() {
            let percent = key[1..].parse().unwrap();
            assert_eq!(mask.kept().iter().copied().collect::<Vec<_>>(), network.official_mask(percent), "{key}");
        }
        for (set, their_set) in SETS {
            let ours = scores(&detector, &network.dataset(set));
            let theirs = network.official(&format!("{key}.{their_set}"));
            assert_eq!(ours.len(), theirs.len());
            let worst = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst <= 1e-4, "{key}.{their_set}: off by {worst}");
        }
    }
}

#[test]
fn metrics_are_the_authors() {
    let Some(network) = Network::open() else { return };
    for (key, spec) in detector_names() {
        let detector = spec.parse::<Spec>().unwrap().fit(&network.head, &network.published).unwrap();
        let id = network.official(&format!("{key}.id_test"));
        let our_id = scores(&detector, &network.dataset("id_test"));
        for (set, their_set) in &SETS[1..] {
            let name = format!("{key}.{their_set}");
            let expected = network.metrics(&name);
            let theirs = Curve::new(&id, &network.official(&name)).unwrap().metrics(0.95).official;
            assert_close(theirs, expected, 1e-9, &name);
            let ours = Curve::new(&our_id, &scores(&detector, &network.dataset(set))).unwrap().metrics(0.95).official;
            assert_close(ours, expected, 2e-4, &name);
        }
    }
}

#[test]
fn the_mean_of_the_training_features_is_the_authors() {
    let Some(network) = Network::open() else { return };
    let fitted =
        Statistics::gather(&mut *network.dataset("id_train").open().unwrap(), None, &Needs::marginals()).unwrap();
    assert_eq!(fitted.rows(), 50_000);
    let difference = &fitted.mean_activation() - &network.published.mean_activation();
    assert!(difference.iter().all(|difference| difference.abs() < 1e-5));
    for percent in [70, 90, 99] {
        let spec: Spec = format!("dice({}, preset=official) | energy", f64::from(percent) / 100.0).parse().unwrap();
        let detector = spec.fit(&network.head, &fitted).unwrap();
        let kept: Vec<bool> = detector.mask().unwrap().kept().iter().copied().collect();
        assert_eq!(kept, network.official_mask(percent), "p = {percent}");
    }
    // numpy.percentile(features, 90): exact, as the features are f16.
    assert_eq!(fitted.activation_quantile(0.9).unwrap(), 0.406_005_859_375);
}

/// The promise and both intervals over 200 random splits of the test set into calibration and fresh inputs.
///
/// A uniformly random split makes the fresh inputs exchangeable with the calibration inputs whatever the scores, so the
/// number accepted among the fresh ones is exactly beta-binomial and the splits are independent draws of it (up to
/// ties, which these scores do not have).
#[test]
fn realised_acceptance_is_as_promised_over_200_splits() {
    let Some(network) = Network::open() else { return };
    let spec: Spec = "dice(0.9) | energy".parse().unwrap();
    let detector = spec.fit(&network.head, &network.published).unwrap();
    let scores = scores(&detector, &network.dataset("id_test"));
    let (splits, level, tpr) = (200u32, 0.95, 0.95);
    let (mut inside, mut total) = (0u32, 0.0);
    for seed in 0..splits {
        let mut random = scores.clone();
        shuffle(&mut random, u64::from(seed));
        let (calibration, fresh) = random.split_at(2000);
        let threshold = Calibration::new(calibration.to_vec()).unwrap().threshold(tpr).unwrap();
        let accepted = fresh.iter().filter(|s| threshold.decide(**s) == Decision::InDistribution).count();
        let share = accepted as f64 / fresh.len() as f64;
        let (low, high) = threshold.interval_among(fresh.len(), level);
        inside += u32::from(low <= share && share <= high);
        total += share;
    }
    // Binomial(200, >= 0.95): fewer than 180 inside has probability below 0.2 %, and the seeds are fixed.
    assert!(inside >= 180, "{inside} of {splits} inside their intervals");
    // Each share has mean at least 0.95 and standard deviation near 0.0055; four standard errors of their mean.
    let mean = total / f64::from(splits);
    assert!((mean - tpr).abs() < 4.0 * 0.0055 / f64::from(splits).sqrt(), "{mean}");
}

/// The same for combinations with weights, whose members' p-values, threshold and fresh inputs rest on three parts of the set.
#[test]
fn realised_acceptance_of_combinations_is_as_promised_over_200_splits() {
    let Some(network) = Network::open() else { return };
    let (splits, level, tpr) = (200u64, 0.95, 0.95);
    for text in
        ["fisher(dice(0.9) | energy, lts*0.5, gradnorm*2)", "evidence(lts, msp*0.25, dice(0.9) | energy*2, gradnorm)"]
    {
        let spec: Spec = text.parse().unwrap();
        let prepared = spec.prepare(&Fitting::new(&network.head, &network.published).unwrap()).unwrap();
        let members: Vec<Vec<f64>> =
            prepared.pipelines().iter().map(|one| scores(one, &network.dataset("id_test"))).collect();
        let (mut inside, mut total) = (0, 0.0);
        for seed in 0..splits {
            let mut order: Vec<f64> = (0..members[0].len()).map(|row| row as f64).collect();
            shuffle(&mut order, seed);
            let part = |rows: &[f64]| -> Vec<Vec<f64>> {
                members.iter().map(|scores| rows.iter().map(|row| scores[*row as usize]).collect()).collect()
            };
            let detector = prepared.clone().finish(&part(&order[..1000])).unwrap();
            let calibration = Calibration::new(detector.combine(&part(&order[1000..2000])).unwrap()).unwrap();
            let threshold = calibration.threshold(tpr).unwrap();
            let fresh = detector.combine(&part(&order[2000..])).unwrap();
            let accepted = fresh.iter().filter(|s| threshold.decide(**s) == Decision::InDistribution).count();
            let share = accepted as f64 / fresh.len() as f64;
            let (low, high) = threshold.interval_among(fresh.len(), level);
            inside += u32::from(low <= share && share <= high);
            total += share;
        }
        // As above, with a standard deviation near 0.0074 for 1,000 calibration inputs.
        assert!(inside >= 180, "{text}: {inside} of {splits} inside their intervals");
        let mean = total / splits as f64;
        assert!((mean - tpr).abs() < 4.0 * 0.0074 / (splits as f64).sqrt(), "{text}: {mean}");
    }
}

fn shuffle(values: &mut [f64], seed: u64) {
    // xorshift64*, Fisher-Yates.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for last in (1..values.len()).rev() {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let draw = state.wrapping_mul(0x2545_f491_4f6c_dd1d);
        values.swap(last, ((u128::from(draw) * (last as u128 + 1)) >> 64) as usize);
    }
}

#[test]
fn a_held_out_part_of_the_training_set_is_stratified() {
    let Some(network) = Network::open() else { return };
    let hold_out = HoldOut::new(0.1, 0).unwrap();
    let mut counts = [0u32; 10];
    let mut source = hold_out.held_out(network.dataset("id_train").open().unwrap());
    for_each_block(&mut *source, |block| {
        block.labels.as_ref().unwrap().iter().for_each(|label| counts[*label as usize] += 1);
        Ok(())
    })
    .unwrap();
    assert_eq!(counts, [500; 10]);
}
