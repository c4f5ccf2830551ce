//! Reports of made-up detectors and sets.

use super::*;
use crate::calibration::Calibration;
use crate::exchangeability::Verdict;
use crate::features::ArraySource;
use ndarray::{Array2, array};

fn head() -> Arc<LinearHead> {
    Arc::new(LinearHead::from_rows(vec![1.0, 0.0, 0.0, 1.0], vec![0.0, 0.0], 2).unwrap())
}

fn fitted(spec: &str, head: &Arc<LinearHead>) -> Detector {
    spec.parse::<Spec>().unwrap().fit(head, &Statistics::new(2, &Needs::default())).unwrap()
}

fn rows(count: usize, scale: f32) -> Array2<f32> {
    Array2::from_shape_fn((count, 2), |(row, unit)| if row % 2 == unit { scale * (1 + row % 50) as f32 } else { 0.0 })
}

fn labels(count: i64) -> Vec<i64> {
    (0..count).map(|row| row % 2).collect()
}

#[derive(Default)]
struct Listener(Vec<(String, u64, Option<u64>)>);

impl Progress for Listener {
    fn advance(&mut self, what: &str, done: u64, total: Option<u64>) {
        match self.0.last_mut() {
            Some(last) if last.0 == what => *last = (what.into(), done, total),
            _ => self.0.push((what.into(), done, total)),
        }
    }
}

#[test]
fn a_report_of_two_detectors_and_two_sets() {
    let head = head();
    let calibration = Calibration::new((0..100).map(|i| f64::from(1 + i % 50)).collect()).unwrap();
    let detectors = [
        Calibrated::new(fitted("max-logit", &head), calibration, 0.9).unwrap(),
        Calibrated::scores_only(fitted("energy", &head)),
    ];
    let (id, near, far) = (rows(100, 1.0), rows(60, 0.5), rows(40, 0.01));
    let labels = labels(100);
    let options = EvaluationOptions { bootstrap: 10, ..EvaluationOptions::default() };
    let sets = vec![
        TestSet::of("near", ArraySource::new(near.view())),
        TestSet::new("far", || Ok(Box::new(ArraySource::new(far.view())))),
    ];
    let mut listener = Listener::default();
    let id = TestSet::of("test", ArraySource::with_labels(id.view(), &labels).unwrap());
    let report = evaluate(&detectors, id, sets, &options, &mut listener).unwrap();
    assert_eq!((report.id_inputs, report.dense_accuracy), (100, Some(1.0)));
    let first = &report.detectors[0];
    assert_eq!((first.detector.as_str(), first.sets.len(), first.sets[1].ood_inputs), ("max-logit", 2, 40));
    assert_eq!((first.id_scores.min, first.id_scores.q50, first.id_scores.max), (1.0, 25.0, 50.0));
    let decision = first.decision.unwrap();
    // The threshold is the tenth smallest of the calibration scores 1, 1, 2, 2, ...: 5.
    assert_eq!((decision.threshold, decision.id_accepted), (5.0, 0.92));
    assert_eq!((decision.check.statistic, decision.check.verdict), (0.0, Verdict::Consistent));
    assert!(!first.breaks_its_promise() && report.detectors[1].decision.is_none());
    assert_eq!(first.sets[1].accepted, Some(0.0));
    let mean = (first.sets[0].metrics.auroc + first.sets[1].metrics.auroc) / 2.0;
    assert_eq!(first.average.unwrap().auroc, mean);
    let expected = [("test", 100), ("near", 60), ("far", 40), ("bootstrap", 40)];
    assert_eq!(listener.0, expected.map(|(stage, steps)| (stage.to_owned(), steps, Some(steps))));
}

#[test]
fn the_in_distribution_set_alone_is_a_report() {
    let detectors = [Calibrated::scores_only(fitted("msp", &head()))];
    let (id, labels) = (rows(20, 1.0), labels(20));
    let source = ArraySource::with_labels(id.view(), &labels).unwrap();
    let report =
        evaluate(&detectors, TestSet::of("test", source), vec![], &EvaluationOptions::default(), &mut ()).unwrap();
    assert_eq!(report.detectors[0].average, None);
    assert_eq!(report.detectors[0].accuracy, Some(1.0));
    let unlabelled = TestSet::of("test", ArraySource::new(id.view()));
    let report = evaluate(&detectors, unlabelled, vec![], &EvaluationOptions::default(), &mut ()).unwrap();
    assert_eq!((report.dense_accuracy, report.detectors[0].accuracy), (None, None));
}

#[test]
fn what_cannot_be_evaluated_is_refused_in_words() {
    let detectors = [Calibrated::scores_only(fitted("energy", &head()))];
    let other = Arc::new(LinearHead::from_rows(vec![2.0; 4], vec![0.0; 2], 2).unwrap());
    let two_heads = [detectors[0].clone(), Calibrated::scores_only(fitted("energy", &other))];
    let (id, none) = (rows(4, 1.0), Array2::zeros((0, 2)));
    let plain = EvaluationOptions::default();
    let message = |detectors: &[Calibrated], labels: &[i64], names: &[&str], ood: &Array2<f32>, options| {
        let sets = names.iter().map(|name| TestSet::of(*name, ArraySource::new(ood.view()))).collect();
        let id = TestSet::of("test", ArraySource::with_labels(id.view(), labels).unwrap());
        evaluate(detectors, id, sets, options, &mut ()).unwrap_err().to_string()
    };
    let good = [0, 1, 0, 1];
    let steep = EvaluationOptions { at_tpr: 1.5, ..plain };
    for (found, part) in [
        (message(&detectors, &good, &["a", "b", "a"], &id, &plain), "'a' twice"),
        (message(&detectors, &good, &["a"], &none, &plain), "a: expected at least one input, found no rows"),
        (message(&detectors, &[0, 1, 2, 0], &[], &id, &plain), "class indices 0 to 1"),
        (message(&detectors, &[0, -1, 1, 0], &[], &id, &plain), "-1 at row 1"),
        (message(&detectors, &good, &[], &id, &steep), "1.5"),
        (message(&[], &good, &[], &id, &plain), "no detectors"),
        (message(&two_heads, &good, &[], &id, &plain), "different heads"),
    ] {
        assert!(found.contains(part) && !found.contains("--"), "`{part}` is missing from: {found}");
    }
    let nan = evaluate_scores("s", &[1.0, f64::NAN], &[], &plain, &mut ()).unwrap_err().to_string();
    assert!(nan.contains("NaN at row 1"), "{nan}");
    assert!(evaluate_scores("s", &[], &[], &plain, &mut ()).is_err());
}

#[test]
fn scores_of_other_tools_are_evaluated_alike() {
    let ood = [("x".into(), vec![0.0, 1.0])];
    let report = evaluate_scores("theirs", &[2.0, 3.0], &ood, &EvaluationOptions::default(), &mut ()).unwrap();
    assert_eq!(report.detectors[0].sets[0].metrics.auroc, 1.0);
    assert_eq!(report.detectors[0].detector, "theirs");
    // Features that could not be scored count as out-of-distribution.
    let detectors = [Calibrated::scores_only(fitted("energy", &head()))];
    let (id, broken) = (rows(4, 1.0), array![[f32::NAN, 0.0]]);
    let options = EvaluationOptions { non_finite: NonFinite::OutOfDistribution, ..Default::default() };
    let sets = vec![TestSet::of("broken", ArraySource::new(broken.view()))];
    let report = evaluate(&detectors, TestSet::of("id", ArraySource::new(id.view())), sets, &options, &mut ()).unwrap();
    assert_eq!(report.detectors[0].sets[0].metrics.auroc, 1.0);
}

fn labelled(name: &str, distance: Option<Distance>) -> SetLabel {
    SetLabel { name: name.into(), distance }
}

/// Scores of which a given share lies below all in-distribution scores.
fn below(share: usize) -> Vec<f64> {
    (0..10).map(|place| if place < share { -1.0 } else { 5.0 + place as f64 }).collect()
}

#[test]
fn near_and_far_sets_have_averages_of_their_own() {
    let id: Vec<f64> = (0..20).map(f64::from).collect();
    let sets = [
        (labelled("a", Some(Distance::Near)), below(2)),
        (labelled("b", Some(Distance::Near)), below(4)),
        (labelled("c", Some(Distance::Far)), below(10)),
        (labelled("near", None), below(0)),
    ];
    let report = evaluate_scores("s", &id, &sets, &EvaluationOptions::default(), &mut ()).unwrap();
    let detector = &report.detectors[0];
    let auroc = |places: &[usize]| {
        places.iter().map(|place| detector.sets[*place].metrics.auroc).sum::<f64>() / places.len() as f64
    };
    assert_eq!(detector.near.unwrap().auroc, auroc(&[0, 1]));
    assert_eq!(detector.far.unwrap().auroc, auroc(&[2]));
    assert_eq!(detector.average.unwrap().auroc, auroc(&[0, 1, 2, 3]));
    let json = serde_json::to_value(&report).unwrap();
    let distances: Vec<&serde_json::Value> =
        json["detectors"][0]["sets"].as_array().unwrap().iter().map(|set| &set["distance"]).collect();
    assert_eq!(distances, [&"near".into(), &"near".into(), &"far".into(), &serde_json::Value::Null]);
    let untagged = evaluate_scores("s", &id, &sets[3..], &EvaluationOptions::default(), &mut ()).unwrap();
    assert_eq!((untagged.detectors[0].near, untagged.detectors[0].far), (None, None));
    // Two sets of one name are one too many, whatever they are tagged.
    let twice = [(labelled("a", Some(Distance::Near)), below(2)), (labelled("a", Some(Distance::Far)), below(3))];
    assert!(evaluate_scores("s", &id, &twice, &EvaluationOptions::default(), &mut ()).is_err());
}

/// A report of three detectors that rank differently near and far; the first and the last are equal everywhere.
fn ranked() -> Report {
    let id: Vec<f64> = (0..20).map(f64::from).collect();
    let one = |name: &str, near: usize, far: usize| {
        let sets =
            [(labelled("a", Some(Distance::Near)), below(near)), (labelled("b", Some(Distance::Far)), below(far))];
        evaluate_scores(name, &id, &sets, &EvaluationOptions { bootstrap: 0, ..Default::default() }, &mut ()).unwrap()
    };
    let mut report = one("first", 3, 8);
    report.detectors.extend(
        ["near", "far", "last"]
            .into_iter()
            .zip([(7, 7), (1, 10), (3, 8)])
            .flat_map(|(name, (near, far))| one(name, near, far).detectors),
    );
    report
}

#[test]
fn the_best_detector_comes_first_and_equals_keep_their_order() {
    let order = |over, metric| {
        let mut report = ranked();
        report.sort(Ranking { over, metric }).unwrap();
        let loss = |detector: &DetectorReport| {
            let of = detector.average_over(over).unwrap();
            match metric {
                RankingMetric::FprAtTpr => of.fpr_at_tpr,
                RankingMetric::Auroc => -of.auroc,
                RankingMetric::AuprIn => -of.aupr_in,
                RankingMetric::AuprOut => -of.aupr_out,
            }
        };
        assert!(report.detectors.windows(2).all(|pair| loss(&pair[0]) <= loss(&pair[1])), "{over:?} {metric:?}");
        report.detectors.iter().map(|detector| detector.detector.clone()).collect::<Vec<_>>()
    };
    for metric in RankingMetric::ALL {
        assert_eq!(order(Some(Distance::Near), metric), ["near", "first", "last", "far"], "{metric:?}");
        assert_eq!(order(Some(Distance::Far), metric), ["far", "first", "last", "near"], "{metric:?}");
    }
    assert_eq!(order(None, RankingMetric::Auroc), ["near", "far", "first", "last"]);
}

#[test]
fn a_ranking_without_sets_is_refused() {
    let mut report = ranked();
    report.detectors.iter_mut().for_each(|detector| detector.near = None);
    let before = report.clone();
    let over = Some(Distance::Near);
    let error = report.sort(Ranking { over, metric: RankingMetric::Auroc }).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ranking: expected an out-of-distribution set that is near, to rank detectors by, found none"
    );
    assert_eq!(report, before);
}

/// Where energy is not among the detectors it is scored besides them, and stays out of the report.
#[test]
fn advice_compares_with_energy_whether_it_is_given_or_not() {
    let head = head();
    let (id, far) = (rows(200, 1.0), rows(120, 0.3));
    let labels = labels(200);
    let advise = Some(Ranking { over: None, metric: RankingMetric::Auroc });
    let told = |specs: &[&str], options: &EvaluationOptions| {
        let detectors: Vec<Calibrated> =
            specs.iter().map(|spec| Calibrated::scores_only(fitted(spec, &head))).collect();
        let id = TestSet::of("test", ArraySource::with_labels(id.view(), &labels).unwrap());
        let sets = vec![TestSet::of("far", ArraySource::new(far.view()))];
        evaluate(&detectors, id, sets, options, &mut ()).unwrap()
    };
    let options = EvaluationOptions { bootstrap: 50, advise, ..Default::default() };
    let (without, with) = (told(&["msp"], &options), told(&["msp", "energy"], &options));
    assert_eq!((without.detectors.len(), with.detectors.len(), without.dense_accuracy), (1, 2, Some(1.0)));
    let against = |report: &Report| report.advice.as_ref().unwrap().overall.comparisons[0].difference;
    assert_eq!(against(&without), against(&with));
    let auroc = |report: &Report, place: usize| report.detectors[place].sets[0].metrics.auroc;
    assert_eq!(against(&with), auroc(&with, 0) - auroc(&with, 1));
    let best = if against(&with) >= 0.0 { "msp" } else { "energy" };
    assert_eq!(with.advice.as_ref().unwrap().overall.best, best);
    assert_eq!(without.advice.as_ref().unwrap().overall.best, "msp", "energy is none of the detectors compared");
    for options in [EvaluationOptions { advise: None, ..options }, EvaluationOptions { bootstrap: 0, ..options }] {
        assert_eq!(told(&["msp"], &options).advice, None);
    }
}
