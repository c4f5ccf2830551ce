//! `dice paper`, by the real binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::path::Path;

use common::{Desk, failed, stderr, succeeded};

fn network(desk: &Desk, folder: &str) {
    fs::create_dir_all(desk.path(folder)).unwrap();
    for (file, name) in [("head", "head"), ("train", "id_train"), ("test", "id_test"), ("letters", "letters")] {
        let to = desk.path(&format!("{folder}/{name}.safetensors"));
        fs::copy(desk.path(&format!("{file}.safetensors")), to).unwrap();
    }
}

#[test]
fn a_folder_of_features_becomes_pages_figures_and_tables() {
    let desk = Desk::new();
    network(&desk, "nets/one");
    fs::write(desk.path("nets/one/odd.npy"), "no array").unwrap();
    fs::create_dir(desk.path("nets/two")).unwrap();
    fs::copy(desk.path("head.safetensors"), desk.path("nets/two/head.safetensors")).unwrap();
    let made = desk.line("paper nets -o out");
    succeeded(&made);
    let told = stderr(&made);
    for part in [
        "dice fit --features nets/one/id_train.safetensors",
        "ODIN",
        "nets/one/odd.npy: no features",
        "nets/two: no head.*",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let page = fs::read_to_string(desk.path("out/one/report.html")).unwrap();
    assert!(page.contains("There are none of this network") && page.contains("react(0.9) | dice(0.9) | energy"));
    let numbers: serde_json::Value =
        serde_json::from_slice(&fs::read(desk.path("out/one/tables/report.json")).unwrap()).unwrap();
    let provenance = &numbers["provenance"];
    let roles: Vec<&str> =
        provenance["sources"].as_array().unwrap().iter().map(|one| one["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["detectors", "in-distribution", "out-of-distribution", "training features", "head"]);
    assert!(provenance["commands"][0].as_str().unwrap().starts_with("dice fit --features nets/one/id_train"));
    assert!(page.contains("and then <code>dice report"));
    for file in [
        "detector.safetensors",
        "figures/contributions-1.svg",
        "tables/methods.tex",
        "tables/ablations.csv",
        "tables/published.md",
    ] {
        assert!(desk.path("out/one").join(file).is_file(), "{file}");
    }
    assert!(told.contains("no id_val.*") && !page.contains("Inputs worth a look"));
    // Again, over what is there, and the same.
    succeeded(&desk.line("paper nets -o out --quiet"));
    assert_eq!(fs::read_to_string(desk.path("out/one/report.html")).unwrap(), page);
    let message = failed(&desk.line("paper out -o again"), 1);
    assert!(message.contains("id_train"), "{message}");
    failed(&desk.line("paper nowhere -o again"), 1);
    assert!(!desk.path("again").exists());
}

#[test]
fn images_beside_the_training_set_give_thresholds_and_inputs() {
    let desk = Desk::new();
    network(&desk, "net");
    succeeded(&desk.line("paper net -o without --quiet"));
    fs::copy(desk.path("calibration.safetensors"), desk.path("net/id_val.safetensors")).unwrap();
    let made = desk.line("paper net -o with");
    succeeded(&made);
    let told = stderr(&made);
    assert!(told.contains("--calibration net/id_val.safetensors") && !told.contains("no id_val.*"), "{told}");
    let page = fs::read_to_string(desk.path("with/report.html")).unwrap();
    for part in ["aria-label=\"Inputs worth a look\"", "Are p-values what they say?", "Calibration: <bdi>net/id_val"] {
        assert!(page.contains(part), "{part}");
    }
    // It is no set of its own, and metrics are what they are without it.
    let table = |folder: &str| fs::read_to_string(desk.path(folder).join("tables/methods.csv")).unwrap();
    assert!(table("with") == table("without") && !table("with").contains("id_val"));
}

/// The paper's CIFAR-10 network on two of its sets.
#[test]
fn published_numbers_stand_beside_ours() {
    let Some(data) = std::env::var_os("DICE_DATA").map(|data| Path::new(&data).join("cifar10-densenet101")) else {
        println!("skipped: DICE_DATA names no folder of real features");
        return;
    };
    if !data.is_dir() {
        println!("skipped: there is no {}", data.display());
        return;
    }
    let desk = Desk::new();
    succeeded(&desk.run(&["paper", data.to_str().unwrap(), "-o", "out", "--quiet"]));
    let table = fs::read_to_string(desk.path("out/tables/published.md")).unwrap();
    let row = |from: &str| table.lines().find(|line| line.starts_with(from)).unwrap().to_owned();
    // The whole SVHN was scored there, its first 10,000 here: energy differs by more than the noise of ours or not, DICE agrees.
    assert!(row("| dice(0.9) \\| energy | svhn | 25.99").contains("| = "), "{table}");
    assert!(row("| energy | textures | 56.12").contains("| = 54.83 |"), "{table}");
    let page = fs::read_to_string(desk.path("out/report.html")).unwrap();
    assert!(page.contains("lsunc, lsunr, isun, places") && page.contains("class=\"inside\""));
}
