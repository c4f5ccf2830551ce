//! Advice on detectors whose differences are known.

use statrs::distribution::{ContinuousCDF, Normal};

use super::*;
use crate::evaluation::{SetLabel, evaluate_scores};
use crate::random::SplitMix64;

/// Scores of inputs whose every detector sees a common part, so that their metrics vary together.
struct World {
    id: Vec<Vec<f64>>,
    ood: Vec<Vec<Vec<f64>>>,
}

/// How far apart the sides are, `[detectors][sets]`, in standard deviations.
const APART: [[f64; 2]; 4] = [[1.5, 2.5], [1.5, 2.5], [2.2, 2.6], [1.2, 2.4]];

fn world(inputs: usize, seed: u64) -> World {
    let mut random = SplitMix64::new(SplitMix64::mix(seed));
    let mut normal = || {
        let uniform = ((random.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        Normal::standard().inverse_cdf(uniform)
    };
    let mut side = |shifts: &dyn Fn(usize) -> f64, count: usize| -> Vec<Vec<f64>> {
        let mut scores = vec![Vec::new(); APART.len()];
        for _ in 0..count {
            let common = normal();
            for (detector, scores) in scores.iter_mut().enumerate() {
                scores.push(0.8 * common + 0.6 * normal() - shifts(detector));
            }
        }
        scores
    };
    let id = side(&|_| 0.0, inputs);
    let sets = [side(&|detector| APART[detector][0], inputs), side(&|detector| APART[detector][1], inputs / 2)];
    let ood = (0..APART.len()).map(|detector| sets.iter().map(|set| set[detector].clone()).collect()).collect();
    World { id, ood }
}

fn fpr(apart: f64) -> f64 {
    let normal = Normal::standard();
    1.0 - normal.cdf(normal.inverse_cdf(0.05) + apart)
}

fn auroc_of(apart: f64) -> f64 {
    Normal::standard().cdf(apart / 2f64.sqrt())
}

const NAMES: [&str; 4] = ["energy", "msp", "dice(0.9) | energy", "max-logit"];

fn report(world: &World, distances: [Option<Distance>; 2]) -> Report {
    let sets = |detector: usize| -> Vec<(SetLabel, Vec<f64>)> {
        let labels = ["one", "two"].into_iter().zip(distances);
        let labels = labels.map(|(name, distance)| SetLabel { name: name.into(), distance });
        labels.zip(world.ood[detector].clone()).collect()
    };
    let options = EvaluationOptions { bootstrap: 0, ..Default::default() };
    let mut reports = NAMES
        .iter()
        .enumerate()
        .map(|(place, name)| evaluate_scores(name, &world.id[place], &sets(place), &options, &mut ()).unwrap());
    let mut first = reports.next().unwrap();
    first.detectors.extend(reports.flat_map(|report| report.detectors));
    first
}

fn advice(
    world: &World,
    distances: [Option<Distance>; 2],
    metric: RankingMetric,
    over: Option<Distance>,
) -> Option<Advice> {
    let report = report(world, distances);
    let scores = world.id.iter().zip(&world.ood);
    let scores = scores.map(|(id, ood)| PairedScores { id, ood: ood.iter().map(|set| &set[..]).collect() });
    let compared = Compared { report: &report, scores: scores.collect(), correct: None };
    let options = EvaluationOptions { bootstrap: 100, ..Default::default() };
    advise(&compared, Ranking { over, metric }, &options)
}

/// Intervals hold for all comparisons of a family together at least as often as they say, and what is the same for both is called
/// different no more often than that.
#[test]
fn intervals_cover_together_as_often_as_they_say() {
    let metrics =
        [(RankingMetric::FprAtTpr, fpr as fn(f64) -> f64), (RankingMetric::Auroc, auroc_of as fn(f64) -> f64)];
    for (metric, of_apart) in metrics {
        let (runs, mut covered, mut single, mut wrong, mut seen) = (200u32, 0, 0, 0, 0);
        let mean = |detector: usize| (of_apart(APART[detector][0]) + of_apart(APART[detector][1])) / 2.0;
        for run in 0..runs {
            let told = advice(&world(400, u64::from(run)), [None; 2], metric, None).unwrap();
            let covers = |one: &Difference| {
                let place = NAMES.iter().position(|name| *name == one.detector).unwrap();
                let (truth, interval) = (mean(place) - mean(0), one.interval.unwrap());
                interval.low <= truth && truth <= interval.high
            };
            assert_eq!(told.overall.comparisons.len(), 3);
            let held = told.overall.comparisons.iter().filter(|one| covers(one)).count() as u32;
            covered += u32::from(held == 3);
            single += held;
            wrong += u32::from(told.overall.comparisons[0].beyond_noise);
            seen += u32::from(told.overall.comparisons[1].beyond_noise);
        }
        // Due: at least 0.95 together, that is 190; 181 is three standard deviations fewer.
        assert!(covered >= 181 && single >= 3 * 190, "{metric:?}: {covered} of {runs}, {single} alone");
        // `msp` is no better than `energy`: at most 0.05 of the time it may seem so.
        assert!(wrong <= 19, "{metric:?}: {wrong}");
        // Its true difference is about three standard errors of FPR, and more of AUROC.
        assert!(seen >= 100, "{metric:?}: a real difference is seen {seen} times");
    }
}

#[test]
fn the_best_is_named_with_its_lead_overall_and_by_distance() {
    let (near, far) = (Some(Distance::Near), Some(Distance::Far));
    let world = world(2000, 7);
    let told = advice(&world, [near, far], RankingMetric::FprAtTpr, None).unwrap();
    assert_eq!((told.overall.best.as_str(), told.overall.name.as_str()), ("dice(0.9) | energy", "all sets"));
    let lead = told.overall.against_baseline.as_ref().unwrap();
    assert!(lead.beyond_noise && lead.difference < 0.0 && lead.interval.unwrap().high < 0.0);
    assert_eq!(told.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["near sets", "far sets"]);
    assert_eq!(
        (told.groups[0].sets.as_slice(), told.groups[0].best.as_str()),
        (&["one".to_owned()][..], "dice(0.9) | energy")
    );
    let exact: f64 = told.groups.iter().map(|group| group.value).sum::<f64>() / 2.0;
    assert!((exact - told.overall.value).abs() < 1e-12);
    assert!(told.next.contains(&Next::Panel) && !told.next.contains(&Next::Distances));
    // Over far sets alone detectors hardly differ, and it is said how many inputs would tell.
    let told = advice(&world, [near, far], RankingMetric::FprAtTpr, far).unwrap();
    assert_eq!((told.overall.name.as_str(), told.overall.sets.as_slice()), ("far sets", &["two".to_owned()][..]));
    // Without distances each set has its own standing.
    let told = advice(&world, [None; 2], RankingMetric::Auroc, None).unwrap();
    assert_eq!(told.groups.iter().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert!(told.next.contains(&Next::Distances) && told.overall.against_baseline.unwrap().difference > 0.0);
    assert!(advice(&world, [None; 2], RankingMetric::Auroc, near).is_none(), "no set is near");
}

#[test]
fn few_inputs_show_nothing() {
    let told = advice(&world(30, 1), [None; 2], RankingMetric::FprAtTpr, None).unwrap();
    for one in &told.overall.comparisons {
        assert_eq!((one.interval, one.p_value, one.beyond_noise, one.inputs_needed), (None, None, false, None));
    }
}

#[test]
fn accuracy_is_compared_input_by_input() {
    let world = world(400, 3);
    let report = report(&world, [None; 2]);
    let dense: Vec<bool> = (0..400).map(|row| row % 20 != 0).collect();
    let own: Vec<bool> = (0..400).map(|row| row % 20 != 0 && row % 50 != 1 || row == 0).collect();
    let correct = vec![dense.clone(), dense.clone(), own, dense.clone(), dense];
    let compared = Compared { report: &report, scores: Vec::new(), correct: Some(&correct) };
    let loss = accuracy(&compared, NAMES[2]).unwrap();
    // Eight are lost, one is gained.
    assert!((loss.lost - 7.0 / 400.0).abs() < 1e-12 && loss.dense_accuracy == 0.95);
    let error = (10.0f64 - 49.0 / 402.0).sqrt() / 402.0;
    assert!((loss.interval.low - (7.0 / 402.0 - 1.959_964 * error)).abs() < 1e-6, "{loss:?}");
    assert!(accuracy(&compared, NAMES[1]).is_none(), "the same classes");
}
