use super::*;
use crate::features::Block;
use crate::statistics::Needs;
use ndarray::{Array2, Axis};
use proptest::prelude::*;

fn fitted(spec: &str, classes: usize, units: usize, weights: &[f32], features: &Array2<f32>) -> Detector {
    let head = LinearHead::from_rows(weights[..classes * units].to_vec(), vec![0.1; classes], units).unwrap();
    let mut statistics = Statistics::new(units, &Needs::marginals());
    statistics.update(features.view()).unwrap();
    spec.parse::<Spec>().unwrap().fit(&Arc::new(head), &statistics).unwrap()
}

const SPECS: [&str; 7] = [
    "energy",
    "msp",
    "max-logit",
    "msp(temperature=3)",
    "dice(0.5) | energy",
    "react(0.8) | energy(temperature=0.5)",
    "react(0.9) | dice(0.7) | energy",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_spec_is_its_reference(
        weights in proptest::collection::vec(-2f32..2.0, 60),
        values in proptest::collection::vec(0f32..3.0, 240),
    ) {
        let features = Array2::from_shape_vec((20, 12), values).unwrap();
        for text in SPECS {
            let detector = fitted(text, 5, 12, &weights, &features);
            let scores = detector.score(features.view()).unwrap();
            let mut graph = Graph::default();
            let wire = detector.express(&mut graph).unwrap();
            let expected = graph.evaluate(features.as_slice().unwrap(), 20, wire);
            for (found, expected) in scores.iter().zip(expected) {
                // 13 terms below 2 * 3 each: gamma_14 * 78, then exp and ln1p at the temperatures used here.
                prop_assert!((found - expected).abs() < 5e-4, "{}: {} for {}", text, found, expected);
            }
        }
    }

    #[test]
    fn scaling_weights_bias_and_temperature_scales_the_score(
        weights in proptest::collection::vec(-2f32..2.0, 60),
        values in proptest::collection::vec(0f32..3.0, 240),
    ) {
        let features = Array2::from_shape_vec((20, 12), values).unwrap();
        let plain = fitted("dice(0.5) | energy", 5, 12, &weights, &features);
        let doubled = LinearHead::new(plain.head().weight().mapv(|w| 2.0 * w), plain.head().bias().mapv(|b| 2.0 * b)).unwrap();
        let mut statistics = Statistics::new(12, &Needs::default());
        statistics.update(features.view()).unwrap();
        let spec: Spec = "dice(0.5) | energy(temperature=2)".parse().unwrap();
        let scaled = spec.fit(&Arc::new(doubled), &statistics).unwrap();
        for (a, b) in plain.score(features.view()).unwrap().iter().zip(scaled.score(features.view()).unwrap()) {
            // Powers of two scale without rounding.
            prop_assert_eq!(2.0 * a, b);
        }
    }
}

#[test]
fn rows_do_not_see_each_other_or_the_threads() {
    let features = Array2::from_shape_fn((700, 12), |(row, unit)| ((row * 7 + unit * 5) % 23) as f32 / 7.0);
    let weights: Vec<f32> = (0..60).map(|i| ((i * 37) % 41) as f32 / 20.0 - 1.0).collect();
    for text in SPECS {
        let detector = fitted(text, 5, 12, &weights, &features);
        let all = detector.score(features.view()).unwrap();
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one_thread.install(|| detector.score(features.view()).unwrap()), all);
        let single: Vec<f64> =
            features.axis_iter(Axis(0)).flat_map(|row| detector.score(row.insert_axis(Axis(0))).unwrap()).collect();
        assert_eq!(single, all);
        let one: Vec<f64> = features.rows().into_iter().map(|row| detector.score_one(&row.to_vec()).unwrap()).collect();
        assert_eq!(one, all);
        let transposed = features.t().as_standard_layout().into_owned();
        assert_eq!(detector.score(transposed.t()).unwrap(), all);
    }
}

#[test]
fn work_that_is_to_stop_stops() {
    let features = Array2::from_shape_fn((5000, 12), |(row, unit)| ((row * 7 + unit) % 11) as f32);
    let weights: Vec<f32> = (0..60).map(|place| (place % 7) as f32 - 3.0).collect();
    let detector = fitted("dice(0.5) | energy", 5, 12, &weights, &features);
    let stop = AtomicBool::new(false);
    let scored = |stop: &AtomicBool| detector.evaluate_unless(features.view(), NonFinite::Reject, stop);
    assert_eq!(scored(&stop).unwrap(), detector.evaluate(features.view(), NonFinite::Reject).unwrap());
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(scored(&stop).unwrap_err().kind(), ErrorKind::Io);
}

#[test]
fn values_that_are_not_finite_are_named_or_scored_as_ood() {
    let mut features = Array2::from_elem((300, 12), 1.0f32);
    let detector = fitted(
        "dice(0.5) | energy",
        5,
        12,
        &[0.5; 60].iter().enumerate().map(|(i, w)| w * i as f32).collect::<Vec<_>>(),
        &features,
    );
    let clean = detector.score(features.view()).unwrap();
    features[(290, 3)] = f32::NAN;
    features[(5, 0)] = f32::INFINITY;
    let error = detector.score(features.view()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFinite);
    let scored = detector.evaluate(features.view(), NonFinite::OutOfDistribution).unwrap().scores;
    assert_eq!(scored[290], f64::NEG_INFINITY);
    assert_eq!(scored[5], f64::NEG_INFINITY);
    assert_eq!(scored[6], clean[6]);
    features.fill(1e38);
    let overflow = detector.score(features.view()).unwrap_err();
    assert_eq!(overflow.kind(), ErrorKind::NotFinite);
    assert!(detector.score(Array2::zeros((3, 11)).view()).unwrap_err().to_string().contains("[N, 12]"));
}

#[test]
fn detectors_score_together_what_they_score_alone() {
    let features = Array2::from_shape_fn((300, 12), |(row, unit)| ((row * 7 + unit * 5) % 23) as f32 / 7.0);
    let weights: Vec<f32> = (0..60).map(|i| ((i * 37) % 41) as f32 / 20.0 - 1.0).collect();
    let head = Arc::new(LinearHead::from_rows(weights, vec![0.1; 5], 12).unwrap());
    let mut statistics = Statistics::new(12, &Needs::marginals().and(Needs::bank(1000)));
    statistics.update(features.view()).unwrap();
    let fitting = Fitting::new(&head, &statistics).unwrap();
    let mut specs: Vec<Spec> = SPECS.iter().map(|text| text.parse().unwrap()).collect();
    specs.extend(["entropy", "knn(3)", "ash-s(0.5) | energy"].map(|text| text.parse().unwrap()));
    let mut detectors: Vec<Detector> =
        specs.iter().map(|spec| spec.prepare(&fitting).unwrap().finish(&[]).unwrap()).collect();
    let combined: Spec = "fisher(energy, knn(3)*2, fisher(entropy, ash-s(0.5) | energy))".parse().unwrap();
    let prepared = combined.prepare(&fitting).unwrap();
    let reference: Vec<Vec<f64>> = prepared.pipelines().iter().map(|one| one.score(features.view()).unwrap()).collect();
    detectors.push(prepared.finish(&reference).unwrap());
    let plan = Plan::new(&detectors);
    // One visit for everything dense, and one for each other mask, clip or shaping.
    assert_eq!(plan.groups(), 5);
    let mut block = Block { features: features.iter().copied().collect(), units: 12, ..Block::default() };
    for _ in 0..2 {
        let scored = plan.score_block(&block, NonFinite::OutOfDistribution).unwrap();
        for (detector, scored) in detectors.iter().zip(scored) {
            assert_eq!(scored, detector.score_block(&block, NonFinite::OutOfDistribution).unwrap());
        }
        block.features[100] = f32::NAN;
    }
    assert_eq!(plan.score_block(&block, NonFinite::Reject).unwrap_err().kind(), ErrorKind::NotFinite);
    let one = detectors.last().unwrap();
    assert_eq!(one.score_one(features.row(3).as_slice().unwrap()).unwrap(), one.score(features.view()).unwrap()[3]);
    assert_eq!(combined.fit(&head, &statistics).unwrap_err().kind(), ErrorKind::Missing);
    let short = combined.prepare(&fitting).unwrap().finish(&reference[1..]).unwrap_err();
    assert_eq!(short.kind(), ErrorKind::Shape);
}

#[test]
fn one_input_of_another_width_or_with_nan_is_refused() {
    let features = Array2::from_elem((30, 12), 1.0f32);
    let detector = fitted("energy", 5, 12, &[0.5; 60], &features);
    assert!(detector.score_one(&[1.0; 11]).unwrap_err().to_string().contains("[12]"));
    let mut row = [1.0; 12];
    row[7] = f32::NAN;
    assert!(detector.score_one(&row).unwrap_err().to_string().contains("column 7"));
}

/// Members share the steps of their combination, and what they say adds up to its score.
#[test]
fn members_of_a_combination_say_their_part_of_the_score() {
    let features = Array2::from_shape_fn((80, 12), |(row, unit)| ((row * 7 + unit * 5) % 23) as f32 / 7.0);
    let weights: Vec<f32> = (0..60).map(|i| ((i * 37) % 41) as f32 / 20.0 - 1.0).collect();
    let head = Arc::new(LinearHead::from_rows(weights, vec![0.1; 5], 12).unwrap());
    let mut statistics = Statistics::new(12, &Needs::marginals());
    statistics.update(features.view()).unwrap();
    for text in [
        "evidence(energy, msp*2)",
        "fisher(energy, dice(0.5) | energy, msp)",
        "stouffer(energy, msp*0.5)",
        "cauchy(energy, msp)",
        "simes(energy, msp, entropy)",
        "fisher(msp, stouffer(energy, msp), energy)",
    ] {
        let spec: Spec = text.parse().unwrap();
        let prepared = spec.prepare(&Fitting::new(&head, &statistics).unwrap()).unwrap();
        let reference: Vec<Vec<f64>> =
            prepared.pipelines().iter().map(|one| one.score(features.view()).unwrap()).collect();
        let detector = prepared.finish(&reference).unwrap();
        let members = detector.members();
        let named = if text.starts_with("fisher(msp") { 3 } else { text.matches(", ").count() + 1 };
        assert_eq!(members.len(), named, "{text}");
        let others = features.mapv(|value| 0.9 * value + 0.05);
        let plan = Plan::new(std::iter::once(&detector).chain(&members));
        let mut scored = plan.score(others.view(), NonFinite::Reject).unwrap().into_iter().map(|scored| scored.scores);
        let scores = scored.next().unwrap();
        let own: Vec<Vec<f64>> = scored.collect();
        for (member, own) in members.iter().zip(&own) {
            assert_eq!(member.score(others.view()).unwrap(), *own, "{text}: {}", member.spec());
        }
        let votes = detector.votes(&own).unwrap();
        for (row, score) in scores.iter().enumerate() {
            let votes: Vec<f64> = votes.iter().map(|votes| votes[row]).collect();
            let told = match text.split('(').next() {
                Some("simes") => votes.iter().copied().fold(f64::INFINITY, f64::min),
                _ => votes.iter().sum::<f64>(),
            };
            assert_eq!(told, *score, "{text} at {row}");
        }
        let broken: Vec<Vec<f64>> = own.iter().map(|_| vec![f64::NEG_INFINITY]).collect();
        assert!(detector.votes(&broken).unwrap().iter().all(|votes| votes[0].is_nan()));
        assert!(detector.votes(&own[1..]).is_err());
    }
    let single = fitted("energy", 5, 12, &[0.5; 60], &features);
    assert!(single.members().is_empty() && single.votes(&[]).unwrap().is_empty());
}
