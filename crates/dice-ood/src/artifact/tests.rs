use super::*;
use crate::statistics::{By, Need, Needs, Space};
use ndarray::Array2;

const SPECS: [&str; 8] = [
    "react(0.9) | dice(0.5) | energy",
    "msp",
    "dice(0.4, preset=openood) | energy",
    "knn(3)",
    "ash-s(0.4) | energy",
    "fisher(knn(3), react(0.9) | dice(0.5) | energy*2, fisher(entropy, msp))",
    "react(0.9) | dice(0.5, mean=shaped) | energy",
    "weiper(repeats=3, bins=8, s1=2, s2=5)",
];

fn artifact() -> (Artifact, Array2<f32>) {
    let features = Array2::from_shape_fn((400, 9), |(row, unit)| ((row * 13 + unit * 29) % 31) as f32 / 10.0);
    let weight = (0..27).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
    let head = Arc::new(LinearHead::from_rows(weight, vec![0.5, -0.25, 0.0], 9).unwrap());
    let specs: Vec<Spec> = SPECS.iter().map(|spec| spec.parse().unwrap()).collect();
    let needs = specs.iter().fold(Needs::marginals(), |needs, spec| needs.and(spec.needs()));
    let mut statistics = Statistics::new(9, &needs);
    statistics.update(features.view()).unwrap();
    let fitting = Fitting::new(&head, &statistics).unwrap();
    let calibrated = |spec: &Spec| {
        let prepared = spec.prepare(&fitting).unwrap();
        let scores = |one: &Detector| one.score(features.view()).unwrap();
        let reference: Vec<Vec<f64>> = prepared.pipelines().iter().map(scores).collect();
        let detector = prepared.finish(&reference).unwrap();
        let calibration = Calibration::new(scores(&detector)).unwrap();
        Calibrated::new(detector, calibration, 0.9).unwrap()
    };
    let detectors = specs.iter().map(calibrated).collect();
    let provenance = BTreeMap::from([("features".into(), "a test".into())]);
    (Artifact::new(Arc::clone(&head), statistics.clone(), detectors, provenance).unwrap(), features)
}

#[test]
fn save_load_score_is_bit_equal() {
    let (artifact, features) = artifact();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("detector.safetensors");
    artifact.save(&path).unwrap();
    let loaded = Artifact::load(&path).unwrap();
    assert_eq!(loaded.statistics, artifact.statistics);
    let again = directory.path().join("again.safetensors");
    loaded.save(&again).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(std::fs::read(&again).unwrap() == bytes && artifact.to_bytes().unwrap() == bytes, "other bytes");
    assert!(Artifact::from_bytes(&bytes).unwrap().to_bytes().unwrap() == bytes, "other bytes by way of memory");
    let sent = artifact.statistics.to_bytes().unwrap();
    assert_eq!(Statistics::from_bytes(&sent).unwrap(), artifact.statistics);
    for cut in [0, 7, 8, sent.len() / 2, sent.len() - 1] {
        assert_eq!(Statistics::from_bytes(&sent[..cut]).unwrap_err().kind(), ErrorKind::Malformed, "{cut} bytes");
    }
    assert_eq!(loaded.provenance, artifact.provenance);
    for (loaded, saved) in loaded.detectors.iter().zip(&artifact.detectors) {
        assert_eq!(loaded.detector.score(features.view()).unwrap(), saved.detector.score(features.view()).unwrap());
        assert_eq!(loaded.threshold(), saved.threshold());
        assert_eq!(loaded.detector.spec(), saved.detector.spec());
    }
    // What was gathered is enough to fit anew.
    let refitted = loaded.detectors[0].detector.spec().fit(&loaded.head, &read_statistics(&path).unwrap()).unwrap();
    assert_eq!(refitted.mask(), artifact.detectors[0].detector.mask());
    assert_eq!(refitted.clip(), artifact.detectors[0].detector.clip());
    artifact.statistics.save(&path).unwrap();
    assert_eq!(read_statistics(&path).unwrap(), artifact.statistics);
    assert!(Artifact::load(&path).is_err(), "statistics alone are no detector");

    let mut with_classes = Statistics::new(9, &Needs::of([Need::Classes(By::Label, Space::Features)]));
    let labels: Vec<i64> = (0..features.nrows() as i64).map(|row| row % 3 - 1).collect();
    with_classes.update_labelled(features.view(), &labels).unwrap();
    with_classes.save(&path).unwrap();
    assert_eq!(read_statistics(&path).unwrap(), with_classes);
}

/// Writes a changed copy of a file's tensors and description, its checksum made to fit, and loads it.
fn load_changed(path: &Path, change: impl FnOnce(&mut State, &mut Description)) -> Result<Artifact> {
    let (mut state, mut description) = read(path)?;
    change(&mut state, &mut description);
    let changed = path.with_extension("changed.safetensors");
    let metadata = described(&mut state, description.detectors, description.provenance)?;
    write_state(&changed, &state, &metadata)?;
    Artifact::load(&changed)
}

#[test]
fn other_files_newer_schemas_and_damage_are_refused() {
    let (artifact, _) = artifact();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("detector.safetensors");
    artifact.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let replaced = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let start = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[start..start + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&path, changed).unwrap();
        Artifact::load(&path).unwrap_err()
    };
    assert!(replaced("dice_ood_schema\":\"2", "dice_ood_schema\":\"9").to_string().contains("update dice-ood"));
    assert_eq!(replaced("dice_ood_schema", "dice_ood_scheme").kind(), ErrorKind::Unsupported);
    assert!(replaced("react(0.9)", "react(0.8)").to_string().contains("checksum"));
    assert!(replaced("detector.1.calibration", "detector.1.calibratiom").to_string().contains("checksum"));
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    assert_eq!(Artifact::load(&path).unwrap_err().kind(), ErrorKind::Malformed);
}

/// A file that someone wrote on purpose has the right checksum: its parts must still agree.
#[test]
fn parts_that_contradict_each_other_are_refused() {
    let (artifact, _) = artifact();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("detector.safetensors");
    artifact.save(&path).unwrap();
    assert!(load_changed(&path, |_, _| ()).is_ok());
    let refused = |what: &str, change: &dyn Fn(&mut State, &mut Description)| {
        let error = load_changed(&path, change).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Argument), "{what}: {error}");
    };
    refused("another mask", &|state, _| {
        let (shape, mask) = state.take_shaped::<u8>("stem.0.mask", &[None, None]).unwrap();
        state.put("stem.0.mask", &shape, mask.iter().map(|kept| 1 - kept).collect::<Vec<u8>>());
    });
    for clip in [0.0, -1.0, 1e300, f64::NAN, 1.5] {
        refused("a clip", &|state, _| state.put("stem.0.shaping.clip", &[1], vec![clip]));
    }
    for rows in [0, 1, u64::MAX] {
        refused("rows", &|state, _| state.put("statistics.rows", &[1], vec![rows]));
    }
    refused("another threshold", &|_, description| description.detectors[0].threshold = Some(0.5));
    refused("another promise", &|_, description| description.detectors[0].tpr = Some(0.5));
    refused("another spec", &|_, description| description.detectors[0].spec = "react(0.9) | dice(0.4) | energy".into());
    refused("two alike", &|_, description| description.detectors[0].spec = "msp".into());
    refused("a spec that does not parse", &|_, description| description.detectors[1].spec = "mspp".into());
    refused("a tensor too many", &|state, _| state.put("detector.9.calibration", &[1], vec![1.0]));
    refused("a tensor too few", &|state, _| drop(state.take_any("pipeline.3.score.bank")));
    for mean in [-1.0, f64::NAN] {
        refused("another mean of shaped features", &|state, _| state.put("stem.4.shaped_mean", &[9], vec![mean; 9]));
    }
    refused("no mean of shaped features", &|state, _| drop(state.take_any("stem.4.shaped_mean")));
    for edge in [f32::NAN, 1.0] {
        refused("edges", &|state, _| state.put("pipeline.7.score.features.edges", &[9], vec![edge; 9]));
    }
    for share in [f64::NAN, -0.5, 1.5] {
        refused("shares", &|state, _| state.put("pipeline.7.score.perturbed.shares", &[8], vec![share; 8]));
    }
    refused("no reference", &|state, _| drop(state.take_any("pipeline.3.reference")));
    refused("not a number", &|state, _| state.put("pipeline.3.reference", &[1], vec![f64::NAN]));
    refused("an order", &|state, _| {
        let (shape, scores) = state.take_shaped::<f64>("pipeline.3.reference", &[None]).unwrap();
        state.put("pipeline.3.reference", &[shape[0] - 1], scores[1..].to_vec());
    });
}

#[test]
fn any_flipped_bit_is_an_error() {
    let (artifact, _) = artifact();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("detector.safetensors");
    artifact.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (mut accepted, head) = (Vec::new(), artifact.head().clone());
    for place in (0..bytes.len()).step_by(41) {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        std::fs::write(&path, flipped).unwrap();
        if Artifact::load(&path).is_ok_and(|loaded| *loaded.head() == head) {
            accepted.push(place);
        }
    }
    // White space that JSON ignores, at the end of the header, may change into other white space, and nothing else.
    assert!(accepted.is_empty(), "{accepted:?}");
}

/// Written by version 0.1.0 with `react(0.9) | dice(0.5) | energy`, `energy` and `dice(0.4, preset=openood) | msp`.
#[test]
fn files_of_schema_1_are_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/schema-1.safetensors");
    let artifact = Artifact::load(&path).unwrap();
    let scores = crate::io::read_vector(
        crate::io::Location::parse(&format!("{}", path.with_file_name("schema-1-scores.npy").display())),
        &[],
    );
    let features = Array2::from_shape_fn((8, 9), |(row, unit)| ((row * 13 + unit * 29) % 31) as f32 / 10.0);
    // Recorded with portable instructions: levels differ in the order of additions.
    let found = artifact.detectors()[0].detector().score(features.view()).unwrap();
    assert!(found.iter().zip(scores.unwrap()).all(|(found, recorded)| (found - recorded).abs() < 2e-5));
    assert_eq!(artifact.detectors().len(), 3);
    assert!(artifact.detectors()[0].threshold().is_some());
}
