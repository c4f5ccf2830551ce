//! The head of any model: found, asked for by every name there is, and exported with a detector behind it.
//!
//!     cargo +nightly fuzz run -D -s none head fuzz/corpus/head fuzz/seeds -- -rss_limit_mb=1024 -max_len=65536
#![no_main]

use std::path::Path;
use std::sync::Arc;

use dice_onnx::{Exporter, HeadOptions, Model};
use dice_ood::{Calibrated, Calibration, Needs, Spec, Statistics};
use libfuzzer_sys::fuzz_target;
use ndarray::Array2;

const PATH: &str = "no-such-folder/model.onnx";

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = Model::from_bytes(bytes.to_vec(), Path::new(PATH)) else { return };
    let outputs =
        model.outputs().into_iter().take(4).map(|output| HeadOptions { head: Some(output.name), features: None });
    for options in [HeadOptions::default()].into_iter().chain(outputs) {
        let Ok(found) = model.find_head(&options) else { continue };
        let again = HeadOptions { head: Some(found.node.clone()), features: Some(found.features.clone()) };
        let _ = model.find_head(&again);
        let mut statistics = Statistics::new(found.units(), &Needs::marginals());
        let features = Array2::from_elem((1, found.units()), 1.0);
        if statistics.update(features.view()).is_err() {
            continue;
        }
        let head = Arc::new(found.head.clone());
        let Ok(Ok(detector)) =
            "react(0.9) | dice(0.5) | energy".parse::<Spec>().map(|spec| spec.fit(&head, &statistics))
        else {
            continue;
        };
        let Ok(calibration) = Calibration::new(vec![0.0; 20]) else { continue };
        let Ok(calibrated) = Calibrated::new(detector, calibration, 0.9) else { continue };
        if let Ok(export) = Exporter::new(&calibrated).and_then(|exporter| exporter.in_model_with_features(&model, &found)) {
            // What is written can be read.
            let exported = Model::from_bytes(export.bytes().to_vec(), Path::new(PATH));
            assert!(exported.is_ok(), "{:?}", exported.err());
        }
    }
});
