//! Against pytorch-ood, scikit-learn and numpy: `golden/make_space.py` wrote what they compute.
#![cfg(feature = "linalg")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;

use dice_ood::io::{Dataset, Location, read_head, read_vector};
use dice_ood::{Detector, LinearHead, Spec, Statistics, for_each_block};
use ndarray::Array2;

fn golden() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/space.safetensors").to_string_lossy().into_owned()
}

fn matrix(name: &str) -> Array2<f32> {
    let (mut values, mut units) = (Vec::new(), 0);
    for_each_block(&mut *Dataset::new(&[format!("{}#{name}", golden())]).unwrap().open().unwrap(), |block| {
        units = block.units;
        values.extend_from_slice(&block.features);
        Ok(())
    })
    .unwrap();
    Array2::from_shape_vec((values.len() / units, units), values).unwrap()
}

fn vector(name: &str) -> Vec<f64> {
    read_vector(&Location { path: golden().into(), name: Some(name.into()) }, &[]).unwrap()
}

struct Peers {
    head: Arc<LinearHead>,
    train: Array2<f32>,
    labels: Vec<i64>,
    test: Array2<f32>,
}

impl Peers {
    /// The largest difference from the peer's scores, which are below a hundred and have a standard deviation above .1.
    fn check(&self, spec: &str, peer: &str, tolerance: f64) {
        let parsed: Spec = spec.parse().unwrap();
        let mut statistics = Statistics::of_head(&self.head, &parsed.needs()).unwrap();
        statistics.update_labelled(self.train.view(), &self.labels).unwrap();
        let found = parsed.fit(&self.head, &statistics).unwrap().score(self.test.view()).unwrap();
        let expected = vector(&format!("score {peer}{spec}"));
        let size = expected.iter().map(|score| score.abs()).fold(1.0, f64::max);
        for (row, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() <= tolerance * size, "{peer}{spec}, row {row}: {found} for {expected}");
        }
    }
}

#[test]
fn scores_of_the_space_of_features_are_those_of_peers() {
    let head = Arc::new(read_head(Location::parse(&golden()), None).unwrap());
    let labels = vector("numbers").iter().map(|label| *label as i64).collect();
    let peers = Peers { head, train: matrix("features"), labels, test: matrix("test") };
    for spec in [
        "mds",
        "mds(shrinkage=none)",
        "mds(by=prediction, shrinkage=none)",
        "rmds",
        "rmds(shrinkage=none)",
        "mds++",
        "mds++(shrinkage=none)",
        "rmds++",
        "rmds++(shrinkage=none)",
        "residual(7)",
        "neco(6)",
        "relation",
        "relation(2)",
        "core",
        "pnml",
    ] {
        // Features and maps of f32 against f64.
        peers.check(spec, "", 1e-5);
    }
    for spec in ["mds(shrinkage=none)", "rmds(shrinkage=none)", "nnguide(10, alpha=1)", "pnml(ridge=0)"] {
        // pytorch-ood sums, inverts and scores in f32.
        peers.check(spec, "pytorch-ood ", 1e-4);
    }
}

/// Statistics for `spec` of rows `[n, D]` of these labels.
fn fit(spec: &str, head: &Arc<LinearHead>, rows: &Array2<f32>, labels: &[i64]) -> dice_ood::Result<Detector> {
    let spec: Spec = spec.parse()?;
    let mut statistics = Statistics::of_head(head, &spec.needs())?;
    statistics.update_labelled(rows.view(), labels)?;
    spec.fit(head, &statistics)
}

#[test]
fn what_a_fit_cannot_rest_on_is_named() {
    let head =
        Arc::new(LinearHead::from_rows((0..12).map(|i| (i % 5) as f32 - 1.5).collect(), vec![0.0; 3], 4).unwrap());
    let rows = Array2::from_shape_fn((30, 4), |(row, unit)| ((row * 7 + unit * unit * 5) % 11) as f32);
    let labels: Vec<i64> = (0..30).map(|row| row % 3).collect();
    let relabelled = |from: i64, to: i64| -> Vec<i64> {
        labels.iter().map(|label| if *label == from { to } else { *label }).collect()
    };
    let mut constant = rows.clone();
    constant.column_mut(2).fill(1.5);
    let few = rows.slice(ndarray::s![..6, ..]).to_owned();
    let same = Array2::from_elem((30, 4), 0.5);
    for (spec, rows, labels, expected) in [
        ("mds", &rows, relabelled(1, 0), "class 1"),
        ("rmds++", &rows, relabelled(2, 7), "label 7"),
        ("core", &rows, relabelled(0, -1), "label -1"),
        ("mds(shrinkage=none)", &constant, labels.clone(), "unit 2"),
        ("mds(shrinkage=none)", &few, labels[..6].to_vec(), "at least 7"),
        ("mds", &same, labels.clone(), "unit 0"),
        ("pnml(ridge=0)", &same, labels.clone(), "ridge"),
        ("core(by=prediction)", &same, labels.clone(), "every training row"),
        ("gmm(4)", &same, labels.clone(), "components of `gmm`"),
        ("gmm(1)", &same, labels.clone(), "all the same"),
        ("neco(5)", &rows, labels.clone(), "at most the 4 units"),
        ("residual(4)", &rows, labels.clone(), "fewer than the 4 units"),
        ("nnguide(50)", &rows, labels.clone(), "at least 50"),
    ] {
        let error = fit(spec, &head, rows, &labels).unwrap_err().to_string();
        assert!(error.contains(expected), "{spec}: {error}");
    }
    let unlabelled: Spec = "mds".parse().unwrap();
    let refused = Statistics::of_head(&head, &unlabelled.needs()).unwrap().update(rows.view()).unwrap_err();
    assert!(refused.to_string().contains("labels"), "{refused}");
    for spec in ["mds(by=prediction)", "mds++(by=prediction)", "rmds", "neco", "pnml", "gmm", "relation"] {
        let detector = fit(spec, &head, &constant, &labels).unwrap();
        let scores = detector.score(Array2::zeros((1, 4)).view()).unwrap();
        assert!(scores[0].is_finite(), "{spec} of a row of zeros: {}", scores[0]);
    }
}

/// `z(logsumexp f) + z(max_c cos(r(h), E_c[r]))`, `r(h)` what is orthogonal to the weights of the predicted class.
fn core_of_many_classes(head: &LinearHead, train: &Array2<f32>, rows: &Array2<f32>) -> Vec<f64> {
    let (weight, bias) = (head.weight().mapv(f64::from), head.bias().mapv(f64::from));
    let parts = |row: ndarray::ArrayView1<'_, f32>| {
        let row = row.mapv(f64::from);
        let logits = weight.dot(&row) + &bias;
        let class = (0..logits.len()).fold(0, |best, class| if logits[class] > logits[best] { class } else { best });
        let own = weight.row(class);
        let residual = &row - &(&own * (row.dot(&own) / own.dot(&own)));
        (logits.mapv(f64::exp).sum().ln(), class, residual)
    };
    let known: Vec<_> = train.rows().into_iter().map(parts).collect();
    let mut means = vec![ndarray::Array1::<f64>::zeros(head.units()); head.classes()];
    known.iter().for_each(|(_, class, residual)| means[*class] += residual);
    let cosine = |residual: &ndarray::Array1<f64>| {
        let length = |x: &ndarray::Array1<f64>| x.dot(x).sqrt();
        let seen = means.iter().filter(|mean| length(mean) > 0.0);
        seen.map(|mean| residual.dot(mean) / length(mean) / length(residual)).fold(f64::NEG_INFINITY, f64::max)
    };
    let scale = |values: Vec<f64>| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt())
    };
    let energies = scale(known.iter().map(|part| part.0).collect());
    let cosines = scale(known.iter().map(|part| cosine(&part.2)).collect());
    let score =
        |(energy, _, residual)| (energy - energies.0) / energies.1 + (cosine(&residual) - cosines.0) / cosines.1;
    rows.rows().into_iter().map(parts).map(score).collect()
}

#[test]
fn core_looks_beside_the_weights_of_a_class_where_all_together_span_everything() {
    let file = golden();
    let (train, test) = (matrix("features"), matrix("test"));
    let small = read_head(Location::parse(&file), None).unwrap();
    // Twenty classes for sixteen units: the weights of five, turned.
    let weight = (0..20 * 16).map(|at| small.weight()[((at / 16) % 5, (at + at / 80) % 16)]).collect();
    let head = Arc::new(LinearHead::from_rows(weight, vec![0.1; 20], 16).unwrap());
    let found = fit("core(by=prediction)", &head, &train, &[0; 600]).unwrap().score(test.view()).unwrap();
    for (row, (found, expected)) in found.iter().zip(core_of_many_classes(&head, &train, &test)).enumerate() {
        assert!((found - expected).abs() < 1e-4, "row {row}: {found} for {expected}");
    }
}
