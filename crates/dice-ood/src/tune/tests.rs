use super::*;
use crate::features::ArraySource;
use ndarray::{Array2, Axis, s};

const UNITS: usize = 12;
const CLASSES: usize = 5;

/// A standard normal number, nearly: the sum of twelve uniform ones.
fn normal(random: &mut crate::random::SplitMix64) -> f64 {
    (0..12).map(|_| (random.next() >> 11) as f64 / (1u64 << 53) as f64).sum::<f64>() - 6.0
}

fn head() -> Arc<LinearHead> {
    let weight = (0..CLASSES * UNITS).map(|at| if at % UNITS % CLASSES == at / UNITS { 0.8 } else { -0.1 }).collect();
    Arc::new(LinearHead::from_rows(weight, vec![0.0; CLASSES], UNITS).unwrap())
}

/// Rectified features around the class of each row, which is its place modulo C; `strength` tells how far from nothing.
fn features(rows: usize, strength: f64, seed: u64) -> (Array2<f32>, Vec<i64>) {
    let mut random = crate::random::SplitMix64::new(seed);
    let labels: Vec<i64> = (0..rows).map(|row| (row % CLASSES) as i64).collect();
    let features = Array2::from_shape_fn((rows, UNITS), |(row, unit)| {
        let own = if unit % CLASSES == row % CLASSES { strength } else { 0.3 };
        (own + 0.7 * normal(&mut random)).max(0.0) as f32
    });
    (features, labels)
}

fn opened<'a>(data: &'a (Array2<f32>, Vec<i64>)) -> Open<'a> {
    Box::new(move || Ok(Box::new(ArraySource::with_labels(data.0.view(), &data.1)?)))
}

fn unlabelled(data: &(Array2<f32>, Vec<i64>)) -> Open<'_> {
    Box::new(move || Ok(Box::new(ArraySource::new(data.0.view()))))
}

fn hopefuls(specs: &[&str]) -> Vec<Hopeful> {
    specs.iter().map(|spec| Hopeful { spec: spec.parse().unwrap(), required: true }).collect()
}

struct Case {
    training: (Array2<f32>, Vec<i64>),
    id: (Array2<f32>, Vec<i64>),
    near: (Array2<f32>, Vec<i64>),
    far: (Array2<f32>, Vec<i64>),
}

impl Case {
    fn new(rows: usize, seed: u64) -> Self {
        let set = |strength, salt| features(rows, strength, crate::random::SplitMix64::mix(seed * 8 + salt));
        Self { training: features(2000, 2.0, 99), id: set(2.0, 1), near: set(1.4, 2), far: set(0.8, 3) }
    }

    fn sets(&self) -> Validation<'_> {
        Validation::Sets(vec![("near".into(), unlabelled(&self.near)), ("far".into(), unlabelled(&self.far))])
    }

    fn tune<'a>(&'a self, validation: Validation<'a>, specs: &[&str], options: &Options) -> Result<Tuned> {
        let (training, id) = (Training::Features(opened(&self.training)), opened(&self.id));
        tune(&head(), training, id, validation, &hopefuls(specs), options, &mut Memo::nowhere(), &mut ())
    }
}

const SPECS: [&str; 4] = ["msp", "max-logit", "dice(0.5) | energy", "fisher(energy, msp)"];

fn few() -> Options {
    Options { replicates: 100, ..Options::default() }
}

#[test]
fn every_row_does_one_thing() {
    let case = Case::new(600, 1);
    let Parts { id_choosing, id_reporting, id_calibration, id_reference, sets } =
        case.tune(case.sets(), &SPECS, &few()).unwrap().outcome.parts;
    assert_eq!((id_choosing, id_reporting, id_calibration, id_reference), (180, 180, 120, 120));
    assert_eq!(sets, [("near".into(), 300, 300), ("far".into(), 300, 300)]);
}

/// Rows of `data` that are for `part` become rows of another place.
fn spoiled(data: &mut Array2<f32>, pattern: &[Part], part: Part) {
    let rows = data.nrows();
    for row in (0..rows).filter(|row| split::part(pattern, 0, *row as u64) == part) {
        data.slice_mut(s![row, ..]).mapv_inplace(|value| 3.0 - value.min(3.0));
    }
}

/// What is reported does not depend on the rows that chose, nor the choice on those that report; both would if a row did two things.
#[test]
fn rows_that_report_do_not_choose_and_rows_that_choose_do_not_report() {
    let losses = |outcome: &Outcome| {
        let losses = outcome.finalists.iter().map(|one| (one.detector.clone(), one.loss));
        losses.collect::<BTreeMap<_, _>>()
    };
    let run = |case: &Case| case.tune(case.sets(), &["msp"], &few()).unwrap();
    let plain = run(&Case::new(600, 1));
    for (part, same_choice) in [(Part::Reporting, true), (Part::Choosing, false)] {
        let mut case = Case::new(600, 1);
        spoiled(&mut case.id.0, split::ID, part);
        spoiled(&mut case.near.0, split::OOD, part);
        spoiled(&mut case.far.0, split::OOD, part);
        let other = run(&case);
        assert_eq!(plain.outcome.ranking == other.outcome.ranking, same_choice);
        assert_eq!(losses(&plain.outcome) == losses(&other.outcome), !same_choice);
        assert_eq!(plain.calibrated.threshold().unwrap().calibration_size(), 120);
        if same_choice {
            assert_eq!(plain.calibrated.threshold(), other.calibrated.threshold());
        }
    }
}

/// Over 100 choices, each with inputs of its own, how often the interval of the difference holds the difference on all inputs.
#[test]
fn intervals_cover_after_a_choice_as_often_as_they_say() {
    let specs = ["msp", "max-logit", "dice(0.5) | energy"];
    let (large, head) = (Case::new(40_000, 1_000_003), head());
    for loss in [Loss::Auroc, Loss::Fpr] {
        let statistics =
            Statistics::gather(&mut *opened(&large.training)().unwrap(), Some(&head), &Needs::default()).unwrap();
        let truth = |name: &str| {
            let detector = name.parse::<Spec>().unwrap().fit(&head, &statistics).unwrap();
            let scores = |data: &(Array2<f32>, Vec<i64>)| detector.score(data.0.view()).unwrap();
            let id = scores(&large.id);
            let of = |data| loss.measure(&id, &scores(data), 0.95).unwrap();
            (of(&large.near) + of(&large.far)) / 2.0
        };
        let truths: BTreeMap<&str, f64> = specs.into_iter().chain([BASELINE]).map(|name| (name, truth(name))).collect();
        let options = Options { loss, replicates: 200, ..Options::default() };
        let (mut covered, mut chosen) = (0, std::collections::BTreeSet::new());
        for run in 0..100 {
            let case = Case::new(500, run);
            let outcome = case.tune(case.sets(), &specs, &options).unwrap().outcome;
            let difference = outcome.differences.last().unwrap();
            let true_difference = truths[&*outcome.chosen] - truths[&*difference.to];
            covered += u32::from((difference.interval.low..=difference.interval.high).contains(&true_difference));
            chosen.insert(outcome.chosen);
        }
        // At 0.95, fewer than 88 of 100 has a probability of 0.002. FPR is discrete: its intervals may cover more.
        assert!(covered >= 88, "{loss:?}: {covered} of 100");
        assert!(!chosen.is_empty() && (loss == Loss::Fpr || covered < 100 || chosen.len() > 1), "{chosen:?}");
    }
}

#[test]
fn many_candidates_are_halved_the_same_way_each_time_and_all_are_told_of() {
    let case = Case::new(8000, 3);
    let specs: Vec<String> = (0..40).map(|step| format!("dice({}) | energy", 0.02 * f64::from(step) + 0.01)).collect();
    let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
    let outcome = case.tune(case.sets(), &specs, &few()).unwrap().outcome;
    assert_eq!(outcome.ranking.len(), 41);
    let early = outcome.ranking.iter().filter(|one| one.compared_on != "all rows").count();
    assert!((20..41).contains(&early), "{early}");
    assert_eq!(outcome.ranking[0].detector, outcome.chosen);
    assert_eq!(outcome, case.tune(case.sets(), &specs, &few()).unwrap().outcome);
}

/// Every class is halved on by itself, and losses are averaged over them.
#[test]
fn many_candidates_are_halved_on_held_out_classes_too() {
    let case = Case::new(8000, 9);
    let specs: Vec<String> = (0..30).map(|step| format!("dice({}) | energy", 0.03 * f64::from(step) + 0.01)).collect();
    let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().unwrap();
    let run = |memo: &mut Memo| {
        let (training, id) = (Training::Features(opened(&case.training)), opened(&case.id));
        tune(&head(), training, id, Validation::Classes(2), &hopefuls(&specs), &few(), memo, &mut ()).unwrap().outcome
    };
    let outcome = run(&mut Memo::nowhere());
    let early = outcome.ranking.iter().filter(|one| one.compared_on != "all rows").count();
    // Half of 31, and less where the baseline is among them: it stays.
    assert!(outcome.ranking.len() == 31 && (14..31).contains(&early), "{early}");
    assert!(outcome.parts.sets.iter().all(|(_, choosing, reporting)| choosing + reporting == 1600));
    // Stages that are kept are gone on from, the last one and earlier ones too.
    let path = folder.path().join("stages.json");
    assert_eq!(run(&mut Memo::open(&path).unwrap()), outcome);
    assert_eq!(run(&mut Memo::open(&path).unwrap()), outcome);
    let mut kept: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    kept["stages"].as_object_mut().unwrap().retain(|name, _| !name.ends_with("1/1 of the rows"));
    std::fs::write(&path, kept.to_string()).unwrap();
    assert_eq!(run(&mut Memo::open(&path).unwrap()), outcome);
}

#[test]
fn held_out_classes_and_noise_stand_for_what_is_missing() {
    let case = Case::new(600, 4);
    let tuned = case.tune(Validation::Classes(2), &["msp", "fdbd"], &few()).unwrap();
    assert_eq!((tuned.outcome.parts.sets.len(), tuned.outcome.ranking.len()), (2, 3));
    assert!(
        tuned
            .outcome
            .parts
            .sets
            .iter()
            .all(|(name, choosing, reporting)| { name.starts_with("class ") && choosing + reporting == 120 })
    );
    assert_eq!(tuned.calibrated.detector().head().classes(), CLASSES);
    let noise = case.tune(Validation::Noise, &["msp"], &few()).unwrap();
    assert_eq!(noise.outcome.parts.sets, [("noise".into(), 2048, 2048)]);
    assert!(noise.outcome.worth.contains("badly"));
}

#[test]
fn a_difference_that_is_chance_is_not_shown_and_a_large_one_is() {
    let case = Case::new(600, 5);
    let alike = case.tune(case.sets(), &["energy(temperature=1.0000001)"], &few()).unwrap().outcome;
    assert!(!alike.differences[0].shown, "{alike:?}");
    let worse = case.tune(case.sets(), &["dice(0.97) | msp"], &few()).unwrap().outcome;
    assert!(worse.differences[0].shown && worse.differences[0].estimate < 0.0, "{worse:?}");
}

#[test]
fn stand_ins_that_are_in_distribution_do_not_count() {
    let (case, alike) = (Case::new(600, 6), features(600, 2.0, 777));
    let standins = |with_far: bool| {
        let mut sets: Vec<(String, Open<'_>)> = vec![("flip".into(), unlabelled(&alike))];
        if with_far {
            sets.push(("blur".into(), unlabelled(&case.far)));
        }
        Validation::StandIns(sets)
    };
    let outcome = case.tune(standins(true), &["msp"], &few()).unwrap().outcome;
    assert_eq!((outcome.dropped, outcome.parts.sets.len()), (vec!["flip".to_owned()], 1));
    let none = case.tune(standins(false), &["msp"], &few()).unwrap_err().to_string();
    assert!(none.contains("no candidate") && none.contains("distort images more strongly"), "{none}");
}

#[test]
fn what_cannot_choose_is_refused_by_name() {
    let case = Case::new(600, 7);
    let refused = |validation, specs: &[&str]| case.tune(validation, specs, &few()).unwrap_err().to_string();
    let sets = |open| Validation::Sets(vec![("svhn".to_owned(), open)]);
    assert!(refused(sets(unlabelled(&case.id)), &["msp"]).contains("100.0 % of its rows"));
    let one = (case.far.0.slice(s![..1, ..]).to_owned(), vec![0]);
    let message = refused(Validation::StandIns(vec![("blur".into(), unlabelled(&one))]), &["msp"]);
    assert!(message.contains("'blur'") && message.contains("1 row"), "{message}");
    let repeated = (case.far.0.select(Axis(0), &[0; 40]), vec![0; 40]);
    let message = refused(Validation::StandIns(vec![("blur".into(), unlabelled(&repeated))]), &["msp"]);
    assert!(message.contains("'blur'") && message.contains("40 rows that are all the same"), "{message}");
    assert!(refused(Validation::Sets(Vec::new()), &["msp"]).contains("validation sets"));
    assert!(refused(case.sets(), &[]).contains("candidates"));
    assert!(refused(case.sets(), &["msp", "msp"]).contains("twice"));
    let run = |training, id, head: &Arc<LinearHead>| {
        let candidates = hopefuls(&["msp"]);
        tune(head, training, id, Validation::Classes(3), &candidates, &few(), &mut Memo::nowhere(), &mut ())
            .unwrap_err()
    };
    let error = run(Training::Features(opened(&case.training)), unlabelled(&case.id), &head());
    assert_eq!(error.missing(), Some(Missing::Labels));
    let same = (case.id.0.clone(), vec![2; 600]);
    let error = run(Training::Features(opened(&case.training)), opened(&same), &head());
    assert!(error.to_string().contains("1 class"), "{error}");
    let error = run(Training::Statistics(Statistics::new(UNITS, &Needs::default())), opened(&case.id), &head());
    assert_eq!(error.missing(), Some(Missing::Features));
    let two = Arc::new(LinearHead::from_rows(vec![0.5; 2 * UNITS], vec![0.0; 2], UNITS).unwrap());
    let error = run(Training::Features(opened(&case.training)), opened(&case.id), &two);
    assert!(error.to_string().contains("2 classes"), "{error}");
    let small = Case::new(60, 1);
    let error = small.tune(small.sets(), &["msp"], &few()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Calibration);
}

#[test]
fn what_was_kept_gives_the_same_outcome() {
    let folder = tempfile::tempdir().unwrap();
    let (path, case) = (folder.path().join("stages.json"), Case::new(600, 8));
    let run = |seed: u64| {
        let (training, id) = (Training::Features(opened(&case.training)), opened(&case.id));
        let options = Options { seed, ..few() };
        let candidates = hopefuls(&SPECS);
        tune(&head(), training, id, case.sets(), &candidates, &options, &mut Memo::open(&path).unwrap(), &mut ())
    };
    let first = run(0).unwrap().outcome;
    assert!(path.exists());
    assert_eq!(run(0).unwrap().outcome, first);
    assert_eq!(first, case.tune(case.sets(), &SPECS, &few()).unwrap().outcome);
    assert!(run(1).unwrap_err().to_string().contains("stages.json"));
}
