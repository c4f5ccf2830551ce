//! Against torch: `golden/make_geometry.py` wrote what the published formulas give.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::sync::Arc;

use dice_ood::io::{Dataset, Location, read_head, read_vector};
use dice_ood::{Block, Spec, Statistics};

const INPUTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/geometry_inputs.safetensors");
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/geometry.safetensors");

fn inputs() -> Block {
    let mut source = Dataset::new(&[INPUTS.to_owned()]).unwrap().open().unwrap();
    let mut block = Block::default();
    source.read(&mut block, 1000).unwrap();
    block
}

#[test]
fn scores_and_shapings_are_those_of_torch() {
    let head = Arc::new(read_head(Location::parse(FILE), None).unwrap());
    let inputs = inputs();
    for text in [
        "nci",
        "fdbd",
        "fdbd(normalizer=length)",
        "she",
        "she(similarity=euclidean)",
        "she(similarity=cosine)",
        "max-cosine",
        "caref",
        "cadref(base=energy)",
        "cadref(base=max-logit)",
        "cadref(base=msp)",
        "ora",
        "ora(over=max)",
        "ash-p(0.6) | energy",
        "ash-b(0.65) | energy",
        "scale | energy",
        "ras | energy",
    ] {
        let spec: Spec = text.parse().unwrap();
        let mut source = Dataset::new(&[FILE.to_owned()]).unwrap().open().unwrap();
        let statistics = Statistics::gather(&mut *source, Some(&head), &spec.needs()).unwrap();
        let found = spec.fit(&head, &statistics).unwrap().score(inputs.view()).unwrap();
        let name = Some(text.to_owned());
        let expected = read_vector(Location { path: Path::new(FILE).into(), name }, &[]).unwrap();
        for (found, expected) in found.iter().zip(&expected) {
            // Torch computes in f32: some hundred operations on values that are 20 times as large at most.
            assert!((found - expected).abs() <= 2e-5 * expected.abs().max(1.0), "{text}: {found} for {expected}");
        }
    }
}
