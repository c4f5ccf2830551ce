//! Explanations of real features, against f64 from the paper's network and its published mean activation.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use dice_ood::artifact::read_statistics;
use dice_ood::explanation::{Explanation, Wanted, nearest, select};
use dice_ood::io::{Dataset, read_head};
use dice_ood::{Calibrated, Spec};

#[test]
fn units_classes_and_neighbours_of_real_inputs() {
    let Some(folder) = common::data("cifar10-densenet101") else { return };
    let file = |name: &str| folder.join(format!("{name}.safetensors")).to_string_lossy().into_owned();
    let open = |name: &str| Dataset::new(&[file(name)]).unwrap().open().unwrap();
    let head = Arc::new(read_head(file("head").as_str(), Some(342)).unwrap());
    let statistics = read_statistics(file("mean_activation").as_str()).unwrap();
    let mean = statistics.mean_activation();
    let detector = "dice(0.9) | energy".parse::<Spec>().unwrap().fit(&head, &statistics).unwrap();
    let kept = detector.mask().unwrap().kept().to_owned();
    let calibrated = Calibrated::scores_only(detector);
    let energy = |logits: &[f64]| logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
    for row in [0, 4711, 9999] {
        let input = select(&mut *open("svhn"), &Wanted::Row(row), false).unwrap();
        let why = Explanation::of(&calibrated, &statistics, &input.features).unwrap();
        let logits: Vec<f64> = why.classes.iter().map(|class| class.logit).collect();
        // 343 terms in f32 whose magnitudes add up to less than 40: gamma_343 * 40 is below 1e-3, and far from reached.
        assert!((energy(&logits) - why.score).abs() < 1e-4);
        for unit in &why.units {
            let change = f64::from(unit.activation) - f64::from(mean[unit.unit] as f32);
            let weight = head.weight().column(unit.unit).mapv(f64::from);
            let without: Vec<f64> = (0..10)
                .map(|class| logits[class] - if kept[(class, unit.unit)] { weight[class] * change } else { 0.0 })
                .collect();
            let expected = energy(&logits) - energy(&without);
            assert!((unit.share - expected).abs() < 1e-4, "{unit:?}: {expected}");
            let unused = !kept.column(unit.unit).iter().any(|kept| *kept);
            assert!(!unused || unit.share == 0.0, "a unit that keeps no weight has no share");
        }
        let pruning = why.pruning.unwrap();
        assert_eq!((pruning.weights_kept, pruning.weights), (kept.iter().filter(|kept| **kept).count(), 3420));
    }
    let own = select(&mut *open("id_train"), &Wanted::Row(31_415), false).unwrap();
    let found = nearest(&mut *open("id_train"), &own.features).unwrap();
    assert_eq!((found[0].row, found[0].distance, found[0].label), (Some(31_415), 0.0, own.label));
    assert!(found.windows(2).all(|pair| pair[0].cosine >= pair[1].cosine) && found.len() == 5);
}
