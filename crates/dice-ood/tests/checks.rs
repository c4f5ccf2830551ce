//! What a fit says of features, heads, labels and calibration inputs that do not belong together: every mistake on every
//! network, and nothing where all is right.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;
use std::sync::Arc;

use dice_ood::io::{Dataset, Location, read_head};
use dice_ood::{ArraySource, Error, ErrorKind, Finding, Fit, Fitted, HoldOut, LinearHead, for_each_block};
use ndarray::{Array1, Array2, Axis, concatenate, s};

/// A trained network: its head and what it makes of its data.
#[derive(Clone)]
struct Network {
    name: String,
    head: LinearHead,
    training: Array2<f32>,
    labels: Option<Vec<i64>>,
    calibration: Array2<f32>,
    /// Another data set, far from the network's own.
    other: Array2<f32>,
}

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../dice-cli/demo");

fn read(path: &Path) -> (Array2<f32>, Option<Vec<i64>>) {
    let data = Dataset::new(&[path.to_string_lossy().into_owned()]).unwrap();
    let (mut values, mut labels, mut units) = (Vec::new(), Vec::new(), 0);
    for_each_block(&mut *data.open().unwrap(), |block| {
        units = block.units;
        values.extend_from_slice(&block.features);
        labels.extend(block.labels.iter().flatten());
        Ok(())
    })
    .unwrap();
    let rows = values.len() / units;
    (Array2::from_shape_vec((rows, units), values).unwrap(), (labels.len() == rows).then_some(labels))
}

impl Network {
    fn demo() -> Self {
        Self::open("demo", Path::new(DEMO), ["train", "calibration", "photos"])
    }

    fn open(name: &str, folder: &Path, [training, calibration, other]: [&str; 3]) -> Self {
        let file = |name: &str| folder.join(format!("{name}.safetensors"));
        let head = read_head(Location::parse(&file("head").to_string_lossy()), None).unwrap();
        let (training, labels) = read(&file(training));
        // Every test runs dozens of fits: some thousand rows say enough.
        let step = training.nrows().div_ceil(4000);
        let training = training.slice(s![..;step, ..]).to_owned();
        let labels = labels.map(|labels| labels.into_iter().step_by(step).collect::<Vec<_>>());
        let other = read(&file(other)).0;
        if calibration != "id" {
            return Self { name: name.into(), head, training, labels, calibration: read(&file(calibration)).0, other };
        }
        // Of one set, every second row.
        let labels = (head.classes() == 1000).then(|| (0..1000).step_by(2).collect());
        let calibration = training.slice(s![1..;2, ..]).to_owned();
        Self { name: name.into(), head, training: training.slice(s![..;2, ..]).to_owned(), labels, calibration, other }
    }

    /// The networks at hand: the demo's always.
    fn all() -> Vec<Self> {
        let mut all = vec![Self::demo()];
        if let Some(folder) = common::data("cifar10-densenet101") {
            all.push(Self::open("c10", &folder, ["id_train", "id_test", "svhn"]));
        }
        let Some(folder) = common::data("networks") else { return all };
        for name in ["r20", "vit"] {
            all.push(Self::open(name, &folder.join(name), ["id_train", "id_test", "svhn"]));
        }
        for name in ["mbv1", "mbv2", "dia", "sqb", "mn8", "mnt", "mno"] {
            all.push(Self::open(name, &folder.join(name), ["id", "id", "svhn"]));
        }
        all
    }

    fn fit(&self) -> Result<Fitted, Error> {
        let labels = self.labels.clone().unwrap_or_default();
        let source = match self.labels.is_some() {
            true => ArraySource::with_labels(self.training.view(), &labels)?,
            false => ArraySource::new(self.training.view()),
        };
        Fit::new(Arc::new(self.head.clone()))
            .detector("energy".parse()?)
            .calibrate_on(|| Ok(ArraySource::new(self.calibration.view())))
            .features(source)
    }

    fn map(&mut self, change: impl Fn(Array2<f32>) -> Array2<f32>) {
        self.training = change(std::mem::take(&mut self.training));
        self.calibration = change(std::mem::take(&mut self.calibration));
    }

    fn map_labels(&mut self, change: impl Fn(usize, i64) -> i64) {
        let labels = self.labels.iter_mut().flatten().enumerate();
        labels.for_each(|(row, label)| *label = change(row, *label));
    }

    fn logits(&self, features: &Array2<f32>) -> Array2<f32> {
        features.dot(&self.head.weight().t()) + self.head.bias()
    }
}

/// An order of `0..count` without a pattern.
fn disorder(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|place| (*place as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
    order
}

fn softmax(mut rows: Array2<f32>) -> Array2<f32> {
    for mut row in rows.rows_mut() {
        let most = row.iter().copied().fold(f32::MIN, f32::max);
        row.mapv_inplace(|value| (value - most).exp());
        let sum = row.sum();
        row.mapv_inplace(|value| value / sum);
    }
    rows
}

fn log_softmax(mut rows: Array2<f32>) -> Array2<f32> {
    for mut row in rows.rows_mut() {
        let most = row.iter().copied().fold(f32::MIN, f32::max);
        let sum = row.iter().map(|value| (value - most).exp()).sum::<f32>().ln() + most;
        row.mapv_inplace(|value| value - sum);
    }
    rows
}

/// One way of getting it wrong, and the findings that may say so; `refused` stands for an error.
struct Mistake {
    name: &'static str,
    labelled: bool,
    make: fn(&mut Network),
    found_as: &'static [&'static str],
}

const fn mistake(name: &'static str, make: fn(&mut Network), found_as: &'static [&'static str]) -> Mistake {
    Mistake { name, labelled: false, make, found_as }
}

const fn labels(name: &'static str, make: fn(&mut Network), found_as: &'static [&'static str]) -> Mistake {
    Mistake { name, labelled: true, make, found_as }
}

const MISTAKES: [Mistake; 21] = [
    mistake("units permuted", |n| n.map(|x| x.select(Axis(1), &disorder(x.ncols()))), &["head-does-not-fit"]),
    mistake(
        "another matrix as head",
        |n| {
            let (classes, units) = (n.head.classes(), n.head.units());
            let weight: Vec<f32> = n.head.weight().iter().copied().collect();
            let weight = disorder(weight.len()).into_iter().map(|place| weight[place]).collect();
            n.head = LinearHead::from_rows(weight, vec![0.0; classes], units).unwrap();
        },
        &["head-does-not-fit"],
    ),
    mistake("features x 255", |n| n.map(|x| x * 255.0), &["large-margins"]),
    mistake("features / 255", |n| n.map(|x| x / 255.0), &["flat-predictions"]),
    mistake("softmax of features", |n| n.map(softmax), &["probabilities"]),
    mistake("log-softmax of features", |n| n.map(log_softmax), &["log-probabilities"]),
    mistake("quantised", |n| n.map(|x| (x * 20.0).round()), &["whole-numbers"]),
    mistake(
        "padded",
        |n| {
            let (classes, units) = (n.head.classes(), n.head.units());
            let head = concatenate![Axis(1), n.head.weight(), Array2::ones((classes, units + 1))];
            n.head = LinearHead::new(head, n.head.bias().to_owned()).unwrap();
            n.map(|x| concatenate![Axis(1), x, Array2::zeros((x.nrows(), x.ncols() + 1))]);
        },
        &["constant-units"],
    ),
    mistake(
        "one input over and over",
        |n| n.map(|x| x.slice(s![..1, ..]).broadcast(x.dim()).unwrap().to_owned()),
        &["refused"],
    ),
    labels("labels + 1", |n| n.map_labels(|_, label| label + 1), &["labels-shifted"]),
    labels("labels - 1", |n| n.map_labels(|_, label| label - 1), &["labels-shifted"]),
    labels(
        "labels shuffled",
        |n| {
            let labels = n.labels.clone().unwrap();
            let order = disorder(labels.len());
            n.map_labels(|row, _| labels[order[row]]);
        },
        &["accuracy-near-chance"],
    ),
    // With few rows a class, the order cannot be told from a shuffle.
    labels(
        "classes in another order",
        |n| {
            let classes = n.head.classes() as i64;
            n.map_labels(|_, label| (label + classes / 2) % classes);
        },
        &["labels-in-another-order", "accuracy-near-chance"],
    ),
    labels("labels out of range", |n| n.map_labels(|_, label| label + 5000), &["labels-out-of-range"]),
    labels(
        "logits as features",
        |n| {
            let classes = n.head.classes().min(n.head.units());
            let head = n.head.clone();
            let outputs =
                |x: Array2<f32>| (x.dot(&head.weight().t()) + head.bias()).slice(s![.., ..classes]).to_owned();
            n.map(outputs);
            let weight = n.head.weight().slice(s![..classes, ..classes]).to_owned();
            n.head = LinearHead::new(weight, Array1::zeros(classes)).unwrap();
        },
        &["logits", "head-does-not-fit", "large-margins"],
    ),
    mistake("calibration = training", |n| n.calibration = n.training.clone(), &["refused"]),
    mistake(
        "calibration overlaps",
        |n| {
            let shared = n.calibration.nrows().min(n.training.nrows()) / 4;
            n.calibration.slice_mut(s![..shared, ..]).assign(&n.training.slice(s![..shared, ..]));
        },
        &["calibration-overlaps-training"],
    ),
    mistake(
        "calibration of equal rows",
        |n| n.calibration.outer_iter_mut().for_each(|mut row| row.fill(0.5)),
        &["refused"],
    ),
    mistake(
        "calibration of 20 rows repeated",
        |n| {
            let few = n.calibration.slice(s![..20, ..]).to_owned();
            n.calibration = concatenate(Axis(0), &vec![few.view(); 10]).unwrap();
        },
        &["calibration-repeats"],
    ),
    mistake("calibration is other data", |n| n.calibration = n.other.clone(), &["calibration-unlike-training"]),
    mistake("calibration x 2", |n| n.calibration *= 2.0, &["calibration-unlike-training"]),
];

fn kinds(findings: &[Finding]) -> Vec<String> {
    let kind = |finding: &Finding| serde_json::to_value(finding).unwrap()["kind"].as_str().unwrap().to_owned();
    findings.iter().map(kind).collect()
}

fn outcome(network: &Network) -> Vec<String> {
    match network.fit() {
        Ok(fitted) => kinds(&fitted.findings),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Calibration, "{}: {error}", network.name);
            vec!["refused".into()]
        }
    }
}

#[test]
fn every_mistake_is_found_on_every_network_and_nothing_where_there_is_none() {
    let networks = Network::all();
    let names: Vec<&str> = networks.iter().map(|network| &*network.name).collect();
    let mut table = vec![format!("{:32}{}", "", names.join("  "))];
    let mut missed = Vec::new();
    let mut line = format!("{:32}", "nothing wrong");
    for network in &networks {
        let found = outcome(network);
        if !found.is_empty() {
            missed.push(format!("{}: a false alarm: {found:?}", network.name));
        }
        line += &format!("{:w$}  ", if found.is_empty() { "ok" } else { "ALARM" }, w = network.name.len());
    }
    table.push(line);
    for mistake in &MISTAKES {
        let mut line = format!("{:32}", mistake.name);
        for network in &networks {
            let applies = !mistake.labelled || network.labels.is_some();
            let mut cell = "-";
            if applies {
                let mut wrong = network.clone();
                (mistake.make)(&mut wrong);
                let found = outcome(&wrong);
                cell = "yes";
                if !found.iter().any(|kind| mistake.found_as.contains(&kind.as_str())) {
                    cell = "NO";
                    missed.push(format!("{}, {}: {found:?}", network.name, mistake.name));
                }
            }
            line += &format!("{cell:w$}  ", w = network.name.len());
        }
        table.push(line);
    }
    println!("{}", table.join("\n"));
    assert!(missed.is_empty(), "{}\n{}", missed.join("\n"), table.join("\n"));
}

#[test]
fn accuracy_is_that_of_the_head() {
    let network = Network::demo();
    let fitted = network.fit().unwrap();
    let accuracy = fitted.accuracy.unwrap();
    let labels = network.labels.as_ref().unwrap();
    let logits = network.logits(&network.training);
    let right = logits.outer_iter().zip(labels).filter(|(logits, label)| {
        let largest = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        largest as i64 == **label
    });
    assert_eq!(accuracy.rows, network.training.nrows());
    assert_eq!(accuracy.share, right.count() as f64 / accuracy.rows as f64);
    let unlabelled = Network { labels: None, ..network };
    assert_eq!(unlabelled.fit().unwrap().accuracy, None);
}

#[test]
fn findings_carry_the_figures() {
    let mut network = Network::demo();
    network.map_labels(|_, label| label + 1);
    let fitted = network.fit().unwrap();
    let shifted = fitted.findings.iter().find_map(|finding| match finding {
        Finding::LabelsShifted { add, accuracy, shifted } => Some((*add, *accuracy, *shifted)),
        _ => None,
    });
    assert_eq!(shifted, Some((-1, 0.0, 1.0)));
    let text = fitted.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.contains("labels run from 1 to 10, classes from 0 to 9"), "{text}");
    assert!(text.contains("100.0 % with -1 added to each"), "{text}");
    let json = serde_json::to_value(fitted.findings[0]).unwrap();
    assert_eq!((json["kind"].as_str(), json["highest"].as_i64()), (Some("labels-out-of-range"), Some(10)));
}

/// Copies that real data have are no mistake, and those of training data are not the user's confusion of two files.
#[test]
fn a_few_copies_are_nothing_and_held_out_copies_are_not_refused() {
    let mut network = Network::demo();
    let few = network.calibration.nrows() / 30;
    network.calibration.slice_mut(s![..few, ..]).assign(&network.training.slice(s![..few, ..]));
    let again = network.calibration.slice(s![few..2 * few, ..]).to_owned();
    network.calibration.slice_mut(s![2 * few..3 * few, ..]).assign(&again);
    assert_eq!(network.fit().unwrap().findings, []);
    let twice = concatenate![Axis(0), network.training, network.training];
    let fitted = Fit::new(Arc::new(network.head.clone()))
        .detector("energy".parse().unwrap())
        .hold_out(HoldOut::new(0.1, 0).unwrap(), || Ok(ArraySource::new(twice.view())))
        .features(ArraySource::new(twice.view()))
        .unwrap();
    assert_eq!(kinds(&fitted.findings), ["calibration-overlaps-training"]);
}
