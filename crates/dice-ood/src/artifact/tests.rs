use super::*;
use crate::statistics::Gather;

fn artifact() -> (Artifact, Array2<f32>) {
    let features = Array2::from_shape_fn((400, 9), |(row, unit)| ((row * 13 + unit * 29) % 31) as f32 / 10.0);
    let weight = (0..27).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
    let head = Arc::new(LinearHead::from_rows(weight, vec![0.5, -0.25, 0.0], 9).unwrap());
    let mut statistics = Statistics::new(9, Gather::ALL);
    statistics.update(features.view()).unwrap();
    let detectors = ["react(0.9) | dice(0.5) | energy", "msp", "dice(0.4, preset=openood) | energy"]
        .iter()
        .map(|spec| {
            let detector = spec.parse::<Spec>().unwrap().fit(&head, &statistics).unwrap();
            let scores = detector.score(features.view()).unwrap();
            Calibrated::new(detector, Calibration::new(scores).unwrap(), 0.9).unwrap()
        })
        .collect();
    let provenance = BTreeMap::from([("features".into(), "a test".into())]);
    (Artifact { head, statistics, detectors, provenance }, features)
}

#[test]
fn save_load_score_is_bit_equal() {
    let (artifact, features) = artifact();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("detector.safetensors");
    artifact.save(&path).unwrap();
    let loaded = Artifact::load(&path).unwrap();
    assert_eq!(loaded.statistics, artifact.statistics);
    assert_eq!(loaded.provenance, artifact.provenance);
    for (loaded, saved) in loaded.detectors.iter().zip(&artifact.detectors) {
        assert_eq!(loaded.detector.score(features.view()).unwrap(), saved.detector.score(features.view()).unwrap());
        assert_eq!(loaded.threshold, saved.threshold);
        assert_eq!(loaded.detector.spec(), saved.detector.spec());
    }
    // What was gathered is enough to fit anew.
    let refitted = loaded.detectors[0].detector.spec().fit(&loaded.head, &read_statistics(&path).unwrap()).unwrap();
    assert_eq!(refitted.mask(), artifact.detectors[0].detector.mask());
    assert_eq!(refitted.clip(), artifact.detectors[0].detector.clip());
    artifact.statistics.save(&path).unwrap();
    assert_eq!(read_statistics(&path).unwrap(), artifact.statistics);
    assert!(Artifact::load(&path).is_err(), "statistics alone are no detector");

    let mut with_classes = Statistics::new(9, Gather { class_means: true, ..Gather::default() });
    let labels: Vec<i64> = (0..features.nrows() as i64).map(|row| row % 3 - 1).collect();
    with_classes.update_labelled(features.view(), &labels).unwrap();
    with_classes.save(&path).unwrap();
    assert_eq!(read_statistics(&path).unwrap(), with_classes);
}

#[test]
fn other_files_newer_schemas_and_contradictions_are_refused() {
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
    assert!(replaced("dice_ood_schema\":\"1", "dice_ood_schema\":\"9").to_string().contains("update dice-ood"));
    assert_eq!(replaced("dice_ood_schema", "dice_ood_scheme").kind(), ErrorKind::Unsupported);
    assert_eq!(replaced("react(0.9)", "react(2.9)").kind(), ErrorKind::Malformed);
    assert_eq!(replaced("detector.1.calibration", "detector.1.calibratiom").kind(), ErrorKind::Malformed);
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    assert_eq!(Artifact::load(&path).unwrap_err().kind(), ErrorKind::Malformed);
}

#[test]
fn any_flipped_byte_loads_or_is_an_error() {
    let (artifact, features) = artifact();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("detector.safetensors");
    artifact.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for place in (0..bytes.len()).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[place] ^= 1 << (place % 8);
        std::fs::write(&path, flipped).unwrap();
        if let Ok(loaded) = Artifact::load(&path) {
            for calibrated in &loaded.detectors {
                let _ = calibrated.detector.score(features.view());
                let mask = calibrated.detector.mask();
                crate::Salience::measure(&loaded.head, &loaded.statistics, mask);
            }
        }
    }
}
