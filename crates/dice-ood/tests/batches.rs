//! Whether batches are told apart from calibration inputs, on the paper's own network.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use dice_ood::artifact::read_statistics;
use dice_ood::io::{Dataset, Location, read_head};
use dice_ood::{BatchCheck, Calibration, Check, Detector, NonFinite, Side, Spec, Verdict, for_each_block};

/// Scores of CIFAR-10 test, SVHN, and CIFAR-10 test features 255 times too large.
fn scores(spec: &str) -> Option<[Vec<f64>; 3]> {
    let folder = common::data("cifar10-densenet101")?;
    let file = |name: &str| Location::parse(&folder.join(name).to_string_lossy());
    let head = Arc::new(read_head(file("head.safetensors"), Some(342)).unwrap());
    let published = read_statistics(file("mean_activation.safetensors")).unwrap();
    let detector = spec.parse::<Spec>().unwrap().fit(&head, &published).unwrap();
    let data = |name: &str| Dataset::new(&[folder.join(name).to_string_lossy().into_owned()]).unwrap();
    let (id, svhn) = (data("id_test.safetensors"), data("svhn.safetensors"));
    Some([score(&detector, &id, 1.0), score(&detector, &svhn, 1.0), score(&detector, &id, 255.0)])
}

fn score(detector: &Detector, data: &Dataset, scale: f32) -> Vec<f64> {
    let mut scores = Vec::new();
    for_each_block(&mut *data.open().unwrap(), |block| {
        let mut scaled = block.clone();
        scaled.features.iter_mut().for_each(|value| *value *= scale);
        scores.extend(detector.score_block(&scaled, NonFinite::Reject)?.scores);
        Ok(())
    })
    .unwrap();
    scores
}

fn check(calibration: &[f64], batch: &[f64]) -> Check {
    let calibration = Calibration::new(calibration.to_vec()).unwrap();
    let mut check = BatchCheck::new(&calibration, calibration.threshold(0.95).unwrap());
    batch.iter().for_each(|score| {
        check.add(*score);
    });
    check.result().unwrap()
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

/// 200 random splits of the test set into calibration inputs and a batch: exchangeable whatever the scores, so that p-values
/// are at most 0.05 in at most 5 % of the splits. SVHN and the wrong scale are found in every one of them.
#[test]
fn two_hundred_splits_raise_no_alarm_and_other_inputs_do() {
    for spec in ["dice(0.9) | energy", "msp"] {
        let Some([id, svhn, scaled]) = scores(spec) else { return };
        let (mut small, mut few, mut alarms) = (0u32, 0u32, 0u32);
        for seed in 0..200 {
            let mut random = id.clone();
            shuffle(&mut random, seed);
            let (calibration, rest) = random.split_at(2000);
            let found = check(calibration, &rest[..1000 + 30 * seed as usize]);
            small += u32::from(found.p_value <= 0.05);
            few += u32::from(found.acceptance_p_value <= 0.05);
            alarms += u32::from(found.verdict != Verdict::Consistent);
            if seed % 20 == 0 {
                let found = check(calibration, &svhn[..500]);
                assert_eq!((found.verdict, found.scores), (Verdict::Contradicted, Side::Lower), "{spec}: {found:?}");
                assert!(found.p_value < 1e-30, "{spec}: {found:?}");
                let found = check(calibration, &scaled[..500]);
                assert_eq!((found.verdict, found.scores), (Verdict::Contradicted, Side::Higher), "{spec}: {found:?}");
            }
        }
        // Binomial(200, at most 0.05) exceeds 22 with probability below 0.1 %; a test that never rejects would show none.
        assert!((1..=22).contains(&small) && (1..=22).contains(&few), "{spec}: {small} {few}");
        assert!(alarms <= 2, "{spec}: {alarms} alarms at a level of 0.001");
    }
}
