use ndarray::{Array2, ArrayView2};

use super::*;
use crate::evaluation::SetLabel;
use crate::features::{ArraySource, Block};
use crate::metrics::Curve;

const UNITS: usize = 12;
const CLASSES: usize = 3;

fn head() -> Arc<LinearHead> {
    let weight = (0..CLASSES * UNITS).map(|place| ((place * 29 + 7) % 17) as f32 / 8.0 - 0.9).collect();
    Arc::new(LinearHead::from_rows(weight, vec![0.3, -0.2, 0.1], UNITS).unwrap())
}

/// Rectified rows whose units depend on each other, and their classes.
fn features(rows: usize, scale: f32) -> (Array2<f32>, Vec<i64>) {
    let value = |row: usize, unit: usize| {
        let shared = ((row * 7 + unit / 3) as f32).sin();
        let own = ((row * 13 + unit * 31) as f32).cos();
        let class = if unit % CLASSES == row % CLASSES { 1.0 } else { 0.0 };
        (scale * (shared + 0.5 * own + class)).max(0.0)
    };
    let features = Array2::from_shape_fn((rows, UNITS), |(row, unit)| value(row, unit));
    (features, (0..rows).map(|row| (row % CLASSES) as i64).collect())
}

/// Gives at most `most` rows at a time.
struct Slowly<'a>(ArraySource<'a>, usize);

impl FeatureSource for Slowly<'_> {
    fn units(&self) -> usize {
        self.0.units()
    }

    fn rows(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, block: &mut Block, max_rows: usize) -> Result<()> {
        self.0.read(block, max_rows.min(self.1))
    }
}

type Opened<'a> = Result<Box<dyn FeatureSource + 'a>>;

fn diagnosed(spec: &str, most: usize) -> Diagnosis {
    let ((training, labels), (far, _)) = (features(211, 1.0), features(90, 0.5));
    let open =
        || -> Opened<'_> { Ok(Box::new(Slowly(ArraySource::with_labels(training.view(), &labels).unwrap(), most))) };
    let other = || -> Opened<'_> { Ok(Box::new(Slowly(ArraySource::new(far.view()), most))) };
    let sample = Sample::new("far", Kind::OutOfDistribution, Some(Distance::Far), other);
    Diagnose::new(head(), spec.parse().unwrap()).unwrap().sample(sample).simulate(1).run(&open).unwrap()
}

fn statistics(rows: ArrayView2<'_, f32>, labels: &[i64]) -> Statistics {
    let needs = Needs::of([Need::SortedMean]);
    let mut statistics = Statistics::of_head(&head(), &needs).unwrap();
    statistics.update_labelled(rows, labels).unwrap();
    statistics
}

fn close(found: f64, expected: f64, scale: f64) {
    // Logits are f32 sums of twelve products: a few units in the last place of their size.
    assert!((found - expected).abs() <= 2e-6 * scale.max(1.0), "{found} is not {expected}");
}

/// Mean and covariance of columns, two passes.
fn covariance(rows: &Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let count = rows.nrows() as f64;
    let mean: Vec<f64> = rows.columns().into_iter().map(|column| column.sum() / count).collect();
    let entry =
        |(i, j)| rows.rows().into_iter().map(|row| (row[i] - mean[i]) * (row[j] - mean[j])).sum::<f64>() / count;
    let entries = Array2::from_shape_fn((mean.len(), mean.len()), entry);
    (mean, entries)
}

/// The lemma's sums over pairs of units, one by one.
#[test]
fn outputs_are_the_lemmas_sums() {
    for spec in ["dice(0.5) | energy", "ras | dice(0.5) | energy", "react(0.8) | dice(0.5) | energy"] {
        let found = diagnosed(spec, 1000);
        let (training, labels) = features(211, 1.0);
        let statistics = statistics(training.view(), &labels);
        let detector = "dice(0.5) | energy".parse::<Spec>().unwrap().fit(&head(), &statistics).unwrap();
        let mask = detector.mask().unwrap().kept().to_owned();
        let (mean, covariance) = covariance(&training.mapv(f64::from));
        for (class, output) in found.sets[0].outputs.classes.iter().enumerate() {
            let weight = |unit: usize| f64::from(head().weight()[(class, unit)]);
            let (mut reduction, mut dropped, mut before) = (0.0, 0.0, 0.0);
            for i in 0..UNITS {
                for j in 0..UNITS {
                    let pair = weight(i) * weight(j) * covariance[(i, j)];
                    before += pair;
                    reduction += if mask[(class, i)] && mask[(class, j)] { 0.0 } else { pair };
                    dropped += if i == j && !mask[(class, i)] { pair } else { 0.0 };
                }
            }
            close(output.variance_before, before, before);
            close(output.reduction.value, reduction, before);
            close(output.dropped, dropped, before);
            close(output.twice_covariance, reduction - dropped, before);
            let kept = (0..UNITS).filter(|unit| mask[(class, *unit)]).map(|unit| weight(unit) * mean[unit]);
            close(output.mean_after, kept.sum(), 10.0);
            assert!(output.reduction.low < output.reduction.value && output.reduction.value < output.reduction.high);
        }
        assert_eq!(found.sets[0].outputs_shaped.is_some(), !spec.starts_with("dice"));
    }
}

/// What the detector itself scores, and what every other p gives by itself.
#[test]
fn gains_are_those_of_the_detectors() {
    let (training, labels) = features(211, 1.0);
    let (far, _) = features(90, 0.5);
    let statistics = statistics(training.view(), &labels);
    let scores = |spec: &str, rows: &Array2<f32>| {
        spec.parse::<Spec>().unwrap().fit(&head(), &statistics).unwrap().score(rows.view()).unwrap()
    };
    for shaping in ["", "ras | "] {
        let found = diagnosed(&format!("{shaping}dice(0.5) | energy"), 1000);
        let auroc = |spec: &str| Curve::new(&scores(spec, &training), &scores(spec, &far)).unwrap().metrics(0.95).auroc;
        let dense = auroc("energy");
        let separation = found.sets[1].separation.unwrap();
        assert!((separation.auroc_before - dense).abs() < 1e-4 && separation.gain.value.is_finite());
        assert!((separation.auroc_after - separation.auroc_before - separation.gain.value).abs() < 1e-12);
        assert_eq!((found.sensitivity[0].p, found.sensitivity[0].gains[0]), (0.0, 0.0));
        assert!(found.sensitivity.len() > 7, "{:?}", found.sensitivity);
        for level in &found.sensitivity[1..] {
            let alone = auroc(&format!("{shaping}dice({}) | energy", level.p));
            // Two scores in the order of their rounding move AUROC by one pair of 211 x 90.
            assert!((level.gains[0] - (alone - dense)).abs() < 2e-4, "{shaping}{}: {}", level.p, level.gains[0]);
        }
    }
}

#[test]
fn the_signal_and_the_accuracies_are_those_of_rows_one_by_one() {
    let found = diagnosed("dice(0.5) | energy", 1000);
    let (training, labels) = features(211, 1.0);
    let statistics = statistics(training.view(), &labels);
    let detector = "dice(0.5) | energy".parse::<Spec>().unwrap().fit(&head(), &statistics).unwrap();
    let (mask, head) = (detector.mask().unwrap().kept().to_owned(), head());
    let logit = |row: usize, class: usize, pruned: bool| -> f64 {
        let units = (0..UNITS).filter(|unit| !pruned || mask[(class, *unit)]);
        units.map(|unit| f64::from(head.weight()[(class, unit)]) * f64::from(training[(row, unit)])).sum()
    };
    let class = |row: usize, pruned: bool| {
        let with_bias = |class: usize| logit(row, class, pruned) + f64::from(head.bias()[class]);
        (0..CLASSES).max_by(|a, b| with_bias(*a).total_cmp(&with_bias(*b))).unwrap()
    };
    let ratio = |pruned: bool| {
        let own: Vec<f64> = (0..211).map(|row| logit(row, class(row, false), pruned)).collect();
        let mean = own.iter().sum::<f64>() / 211.0;
        mean / (own.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 211.0).sqrt()
    };
    close(found.sets[0].signal.value, (ratio(true) / ratio(false)).ln(), 10.0);
    let right = |pruned: bool| (0..211).filter(|row| class(*row, pruned) as i64 == labels[*row]).count() as f64 / 211.0;
    assert_eq!(found.sets[0].accuracy, Some((right(false), right(true))));
    let changed = (0..211).filter(|row| class(*row, true) != class(*row, false)).count() as f64 / 211.0;
    assert!((found.sets[0].class_changed - changed).abs() < 1e-12);
    assert!(found.sets[1].accuracy.is_none() && found.collapse.by_label && found.collapse.not_nearest.is_some());
    let asked = found.sensitivity.iter().find(|level| level.p == 0.5).unwrap();
    assert_eq!((asked.signal, asked.kept), (found.sets[0].signal, found.mask.kept));
}

#[test]
fn it_depends_neither_on_blocks_nor_on_threads() {
    let text = |found: &Diagnosis| serde_json::to_string(found).unwrap();
    let whole = text(&diagnosed("ras | dice(0.7) | energy", 1000));
    assert_eq!(whole, text(&diagnosed("ras | dice(0.7) | energy", 7)));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    assert_eq!(whole, pool.install(|| text(&diagnosed("ras | dice(0.7) | energy", 50))));
}

#[test]
fn what_cannot_be_diagnosed_is_refused_by_name() {
    let refused = |spec: &str| Diagnose::new(head(), spec.parse().unwrap()).map(|_| ()).unwrap_err().to_string();
    for spec in
        ["energy", "dice(0.9) | msp", "react(0.9) | energy", "fisher(energy, msp)", "dice(0.9) | energy(temperature=2)"]
    {
        assert!(refused(spec).contains("[SHAPING |] SPARSITY | energy"), "{spec}");
    }
    let (training, mut labels) = features(20, 1.0);
    labels[3] = 9;
    let labelled = || -> Opened<'_> { Ok(Box::new(ArraySource::with_labels(training.view(), &labels).unwrap())) };
    let none = || -> Opened<'_> { Ok(Box::new(ArraySource::new(training.slice(ndarray::s![..0, ..])))) };
    let narrow = || -> Opened<'_> { Ok(Box::new(ArraySource::new(training.slice(ndarray::s![.., ..3])))) };
    let spec = || "dice(0.5) | energy".parse::<Spec>().unwrap();
    let error = Diagnose::new(head(), spec()).unwrap().run(&labelled).unwrap_err();
    assert!(error.to_string().contains("label 9") && error.to_string().contains("0 to 2"), "{error}");
    assert_eq!(Diagnose::new(head(), spec()).unwrap().run(&none).unwrap_err().kind(), ErrorKind::Empty);
    assert_eq!(Diagnose::new(head(), spec()).unwrap().run(&narrow).unwrap_err().kind(), ErrorKind::Shape);
    let plain = || -> Opened<'_> { Ok(Box::new(ArraySource::new(training.view()))) };
    let twice = Diagnose::new(head(), spec())
        .unwrap()
        .sample(Sample::new("same", Kind::StandIn, None, plain))
        .sample(Sample::new("same", Kind::StandIn, None, plain));
    assert!(twice.run(&plain).unwrap_err().to_string().contains("'same' twice"));
    let on = |kind, rows: usize| {
        let training = &training;
        let other = move || -> Opened<'_> { Ok(Box::new(ArraySource::new(training.slice(ndarray::s![..rows, ..])))) };
        let diagnose = Diagnose::new(head(), spec()).unwrap().sample(Sample::new("other", kind, None, other));
        diagnose.run(&plain).unwrap_err().to_string()
    };
    let shared = on(Kind::OutOfDistribution, 20);
    assert!(shared.contains("'other'") && shared.contains("100.0 % of its rows are in-distribution"), "{shared}");
    let few = on(Kind::StandIn, 1);
    assert!(few.contains("'other'") && few.contains("1 row"), "{few}");
}

/// What is seen in passing is what a diagnosis of the same inputs finds, at any size of blocks.
#[test]
fn a_watch_finds_what_a_diagnosis_does() {
    let ((training, labels), (far, _)) = (features(211, 1.0), features(90, 0.5));
    let statistics = statistics(training.view(), &labels);
    for spec in ["dice(0.5) | energy", "ras | dice(0.5) | energy"] {
        let found = diagnosed(spec, 211);
        let seen = |most: usize| {
            let watch = Watch::new(&head(), &statistics, &spec.parse().unwrap(), true).unwrap();
            let id = Slowly(ArraySource::with_labels(training.view(), &labels).unwrap(), most);
            let label = SetLabel { name: "far".into(), distance: Some(Distance::Far) };
            for mut source in [
                watch.over(&"training".into(), Kind::InDistribution, Box::new(id)),
                watch.over(&label, Kind::OutOfDistribution, Box::new(Slowly(ArraySource::new(far.view()), most))),
            ] {
                for_each_block(&mut source, |_| Ok(())).unwrap();
            }
            watch.finish().unwrap()
        };
        let anatomy = seen(7);
        assert_eq!(anatomy, seen(211));
        assert_eq!((&anatomy.sets, &anatomy.levels, &anatomy.mask), (&found.sets, &found.sensitivity, &found.mask));
        let Contributions { class, order, kept, sets } = &anatomy.contributions;
        assert!(sets[0].mean.is_sorted_by(|a, b| a >= b));
        assert_eq!(kept.iter().filter(|kept| **kept).count(), found.mask.kept_by_class[*class]);
        // Contributions of the in-distribution inputs add up to the output of their class.
        let output = &anatomy.sets[0].pruned_outputs().classes[*class];
        assert!((sets[0].mean.iter().sum::<f64>() - output.mean_before).abs() < 1e-4);
        let after: f64 = sets[0].mean.iter().zip(kept).filter(|(_, kept)| **kept).map(|(mean, _)| mean).sum();
        assert!((after - output.mean_after).abs() < 1e-4);
        assert_eq!(order.len(), UNITS);
        // The dense head is the same by every ablation.
        assert_eq!(anatomy.ablations.len(), 12);
        let dense = anatomy.levels[0].auroc[0];
        assert!(anatomy.ablations.iter().all(|one| (one.levels[0].auroc - dense).abs() < 1e-9));
    }
}

#[test]
fn a_watch_passes_over_what_is_not_finite_and_refuses_what_prunes_nothing() {
    let ((training, labels), (mut other, _)) = (features(211, 1.0), features(9, 0.5));
    let statistics = statistics(training.view(), &labels);
    for spec in ["energy", "fisher(dice(0.9) | energy, msp)"] {
        let refused = Watch::new(&head(), &statistics, &spec.parse().unwrap(), false).err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::Argument);
    }
    other.row_mut(3)[1] = f32::NAN;
    let watch = Watch::new(&head(), &statistics, &"dice(0.5) | energy".parse().unwrap(), false).unwrap();
    for_each_block(
        &mut watch.over(&"x".into(), Kind::InDistribution, Box::new(ArraySource::new(other.view()))),
        |_| Ok(()),
    )
    .unwrap();
    assert_eq!(watch.finish().unwrap().sets[0].features.rows, 8);
    // A row whose energy overflows is told at the end, not while reading.
    other.row_mut(3).fill(f32::MAX);
    let watch = Watch::new(&head(), &statistics, &"dice(0.5) | energy".parse().unwrap(), false).unwrap();
    for_each_block(
        &mut watch.over(&"x".into(), Kind::InDistribution, Box::new(ArraySource::new(other.view()))),
        |_| Ok(()),
    )
    .unwrap();
    assert_eq!(watch.finish().unwrap_err().kind(), ErrorKind::NotFinite);
}
