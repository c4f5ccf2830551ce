use super::*;
use crate::sphere::norm;
use ndarray::Array2;
use proptest::prelude::*;

/// Everything that can be gathered, with a bank that does not hold all rows.
fn everything() -> Needs {
    Needs::of(Need::ALL).and(Needs::bank(7))
}

fn head(units: usize) -> LinearHead {
    let weight = (0..3 * units).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
    LinearHead::from_rows(weight, vec![0.5, -0.25, 0.0], units).unwrap()
}

fn gathered(rows: &[f32], labels: &[i64]) -> Statistics {
    let mut statistics = Statistics::of_head(&head(3), &everything()).unwrap();
    let features = ArrayView2::from_shape((rows.len() / 3, 3), rows).unwrap();
    statistics.update_labelled(features, labels).unwrap();
    statistics
}

/// Equal counts and samples, and sums that agree within `n eps sum |x|` (Higham), n additions in any order.
fn assert_same(a: &Statistics, b: &Statistics, magnitude: f64) {
    let (a, b) = (a.state(), b.state());
    assert!(a.tensors().map(|(name, _)| name).eq(b.tensors().map(|(name, _)| name)));
    for ((name, a), (_, b)) in a.tensors().zip(b.tensors()) {
        use crate::state::Values;
        match (&a.values, &b.values) {
            (Values::F64(a), Values::F64(b)) => {
                let bound = 64.0 * f64::EPSILON * magnitude;
                assert!(a.iter().zip(&**b).all(|(a, b)| (a - b).abs() <= bound), "{name}: {a:?} {b:?}");
            }
            (Values::F32(a), Values::F32(b)) if name.starts_with("sequential") => {
                let bound = 64.0 * f32::EPSILON * magnitude as f32;
                assert!(a.iter().zip(&**b).all(|(a, b)| (a - b).abs() <= bound), "{name}");
            }
            _ => assert_eq!(a, b, "{name}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn merging_any_parts_in_any_order_is_gathering_the_whole(
        values in proptest::collection::vec(-30f32..30.0, 60),
        copies in proptest::collection::vec(0usize..20, 6),
        labels in proptest::collection::vec(-1i64..3, 26),
        cuts in proptest::collection::vec(0usize..=26, 3),
        rotate in 0usize..4,
    ) {
        // Some rows stand more than once.
        let mut rows = values.clone();
        copies.iter().for_each(|row| rows.extend_from_slice(&values[row * 3..row * 3 + 3]));
        let mut cuts = cuts;
        cuts.sort_unstable();
        let ends = [vec![0], cuts, vec![26]].concat();
        let mut parts: Vec<Statistics> =
            ends.windows(2).map(|part| gathered(&rows[part[0] * 3..part[1] * 3], &labels[part[0]..part[1]])).collect();
        parts.rotate_left(rotate);
        let mut merged = parts.remove(0);
        parts.iter().for_each(|part| merged.merge(part).unwrap());
        // 26 rows: squares of values below 30, and of coordinates of the sphere.
        assert_same(&merged, &gathered(&rows, &labels), 26.0 * 900.0);
    }

    #[test]
    fn what_is_saved_is_read_back_the_same(
        values in proptest::collection::vec(-30f32..30.0, 60),
        labels in proptest::collection::vec(-1i64..3, 20),
    ) {
        let whole = gathered(&values, &labels);
        let mut state = whole.state();
        let loaded = Statistics::take(&mut state).unwrap();
        state.finish().unwrap();
        assert_eq!(loaded.state(), whole.state());
        assert_eq!(loaded, whole);
    }
}

#[test]
fn the_bank_is_a_sample_that_keeps_count_and_all_rows_where_they_fit() {
    let rows: Vec<f32> = (0..300).map(|i| (i % 30) as f32).collect();
    let features = ArrayView2::from_shape((100, 3), &rows).unwrap();
    let gather = |most| {
        let mut statistics = Statistics::new(3, &Needs::bank(most));
        statistics.update(features).unwrap();
        statistics.bank().unwrap().as_ref().clone()
    };
    let all = gather(1000);
    assert!(all.complete && all.labels.is_none());
    assert_eq!((all.counts.len(), all.counts.iter().sum::<u64>()), (10, 100));
    let some = gather(4);
    assert_eq!(some.counts, all.first(4).counts);
    assert_eq!(some.features, all.first(4).features);
    assert!(!some.complete && some.counts.iter().all(|count| *count == 10));
}

#[test]
fn second_moments_and_templates_are_their_definitions() {
    let rows: Vec<f32> = (0..60).map(|i| ((i * 37) % 19) as f32 - 6.0).collect();
    let labels: Vec<i64> = (0..20).map(|row| row % 3).collect();
    let statistics = gathered(&rows, &labels);
    let moment = statistics.second_moment(Space::Features).unwrap();
    let expected: f64 = rows.chunks(3).map(|row| f64::from(row[0]) * f64::from(row[2])).sum();
    assert_eq!((moment[(0, 2)], moment[(2, 0)]), (expected, expected));
    assert!((statistics.second_moment(Space::Sphere).unwrap().diag().sum() - 20.0).abs() < 1e-5);
    let classes = statistics.class_means(By::Label, Space::Sphere).unwrap();
    let members = rows.chunks(3).zip(&labels).filter(|(_, label)| **label == 1);
    let expected: f64 = members.map(|(row, _)| f64::from(row[2]) / norm(row)).sum();
    assert!((classes[1].mean[2] * classes[1].rows as f64 - expected).abs() < 1e-5);
    let templates = statistics.templates().unwrap();
    assert!(templates.chunks(3).all(|template| (template.iter().sum::<f64>() - 1.0).abs() < 1e-12));
    let predicted: u64 =
        statistics.class_means(By::Prediction, Space::Features).unwrap().iter().map(|class| class.rows).sum();
    let correct: u64 =
        statistics.class_means(By::Correct, Space::Features).unwrap().iter().map(|class| class.rows).sum();
    assert_eq!(predicted, 20);
    let agree = |row: &[f32], label: i64| {
        let head = head(3);
        let logit = |class: usize| head.bias()[class] + (0..3).map(|u| head.weight()[(class, u)] * row[u]).sum::<f32>();
        (0..3).all(|class| logit(label as usize) >= logit(class))
    };
    let expected = rows.chunks(3).zip(&labels).filter(|(row, label)| agree(row, **label)).count();
    assert_eq!(correct, expected as u64);
}

#[test]
fn counts_that_do_not_add_up_are_refused() {
    let values: Vec<f32> = (0..60).map(|i| i as f32).collect();
    let whole = gathered(&values, &[1; 20]);
    for rows in [0, 19, u64::MAX] {
        let mut state = whole.state();
        state.put("rows", &[1], vec![rows]);
        assert_eq!(Statistics::take(&mut state).unwrap_err().kind(), ErrorKind::Malformed, "{rows} rows");
    }
}

#[test]
fn the_mean_does_not_depend_on_blocks_or_threads() {
    let features = Array2::from_shape_fn((3000, 200), |(row, unit)| ((row * 31 + unit * 17) % 1009) as f32 * 1.1e-3);
    let whole = {
        let mut statistics = Statistics::new(200, &Needs::marginals());
        statistics.update(features.view()).unwrap();
        statistics
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let blocks = pool.install(|| {
        let mut statistics = Statistics::new(200, &Needs::marginals());
        for block in features.axis_chunks_iter(ndarray::Axis(0), 7) {
            statistics.update(block).unwrap();
        }
        statistics
    });
    assert_eq!(whole, blocks);
}

#[test]
fn a_nan_is_named_and_nothing_is_added() {
    let mut features = Array2::zeros((4, 3));
    features[(2, 1)] = f32::NAN;
    let mut statistics = Statistics::new(3, &Needs::default());
    let error = statistics.update(features.view()).unwrap_err();
    assert!(error.to_string().contains("row 2, column 1"), "{error}");
    assert_eq!(statistics.rows(), 0);
}

#[test]
fn a_published_mean_has_no_percentiles() {
    let statistics = Statistics::from_mean_activation(Array1::from(vec![0.5, 0.0])).unwrap();
    assert_eq!(statistics.mean_activation(), Array1::from(vec![0.5, 0.0]));
    assert_eq!(statistics.activation_quantile(0.9).unwrap_err().kind(), ErrorKind::Missing);
    assert!(Statistics::from_mean_activation(Array1::from(vec![f64::NAN])).is_err());
    let mut merged = statistics.clone();
    assert_eq!(merged.merge(&statistics).unwrap_err().kind(), ErrorKind::Missing);
    assert_eq!(merged, statistics, "a refused merge adds nothing");
}

#[test]
fn class_means_are_those_of_each_class_and_merge() {
    let features = Array2::from_shape_fn((500, 150), |(row, unit)| ((row * 31 + unit * 17) % 101) as f32 * 0.1);
    let labels: Vec<i64> = (0..500).map(|row| [7, -1, 3][row * row % 3]).collect();
    let gather = Needs::of([Need::Classes(By::Label, Space::Features)]);
    let mut whole = Statistics::new(150, &gather);
    whole.update_labelled(features.view(), &labels).unwrap();
    let means = whole.class_means(By::Label, Space::Features).unwrap();
    assert_eq!(means.iter().map(|mean| mean.class).collect::<Vec<_>>(), [-1, 7]);
    for ClassMean { class: label, rows, mean } in &means {
        let members: Vec<usize> = (0..500).filter(|row| labels[*row] == *label).collect();
        assert_eq!(*rows, members.len() as u64);
        let sum: f64 = members.iter().map(|row| f64::from(features[(*row, 70)])).sum();
        assert_eq!(mean[70], sum / members.len() as f64);
    }
    let mut parts = Statistics::new(150, &gather);
    parts.update_labelled(features.slice(ndarray::s![..200, ..]), &labels[..200]).unwrap();
    let mut other = Statistics::new(150, &gather);
    other.update_labelled(features.slice(ndarray::s![200.., ..]), &labels[200..]).unwrap();
    parts.merge(&other).unwrap();
    for (ClassMean { rows, mean: a, .. }, ClassMean { rows: expected, mean: b, .. }) in
        parts.class_means(By::Label, Space::Features).unwrap().iter().zip(&means)
    {
        assert_eq!(rows, expected);
        assert!((a - b).iter().all(|difference| difference.abs() < 1e-12));
    }
    assert_eq!(whole.update(features.view()).unwrap_err().kind(), ErrorKind::Missing);
    assert_eq!(whole.update_labelled(features.view(), &labels[1..]).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(whole.rows(), 500, "a refused update adds nothing");
    assert!(parts.merge(&Statistics::new(150, &Needs::default())).is_err());
}
