//! Every method at once: fitted, evaluated, ranked, explained, measured, by the real binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "../../dice-ood/tests/common/npy.rs"]
mod npy;

use std::fs;

use common::{Desk, failed, stderr, stdout, succeeded};
use serde_json::Value;

const FIT: &str =
    "fit --features train.safetensors --head head.safetensors --calibration calibration.safetensors -o d.safetensors";
const EVAL: &str = "eval d.safetensors --id test.safetensors --bootstrap 0";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn names(detectors: &Value) -> Vec<String> {
    detectors.as_array().unwrap().iter().map(|one| one["detector"].as_str().unwrap().to_owned()).collect()
}

/// The demo's head is right on all training rows, so that what is fitted to its mistakes or its confidence may not be possible.
#[test]
fn all_methods_are_fitted_evaluated_and_scored() {
    let desk = Desk::new();
    let output = desk.line(&format!("{FIT} -d all --format json"));
    let told = json(&succeeded(&output));
    let (kept, left_out) = (names(&told["detectors"]), names(&told["left_out"]));
    assert!(kept.len() > 35 && kept[0] == "dice(0.9) | energy", "{kept:?}");
    for name in ["react(0.99) | energy", "knn", "vim", "mds++", "evidence(lts, nci, mds, vim, core, caref)"] {
        assert!(kept.iter().any(|one| one == name), "{name} is not in {kept:?}");
    }
    for (name, line) in left_out.iter().zip(told["left_out"].as_array().unwrap()) {
        let reason = line["reason"].as_str().unwrap();
        assert!(stderr(&output).lines().any(|line| line.starts_with("Left out: ") && line.contains(name)), "{name}");
        assert!(!reason.is_empty() && stderr(&output).contains(reason), "{name}");
    }
    let quiet = desk.line(&format!("{FIT} -d all --quiet"));
    assert!(succeeded(&quiet).is_empty() && !stderr(&quiet).contains("Left out"), "{}", stderr(&quiet));

    let report = succeeded(&desk.line(&format!("{EVAL} -d all --ood letters=letters.safetensors --format json")));
    assert_eq!(names(&json(&report)["detectors"]), kept);
    // Beside a named one the others follow, once each.
    let report = desk.line(&format!("{EVAL} -d energy -d all --ood letters=letters.safetensors --format json"));
    let mut beside = names(&json(&succeeded(&report))["detectors"]);
    assert_eq!(beside.remove(0), "energy");
    assert_eq!(beside, kept.iter().filter(|name| *name != "energy").cloned().collect::<Vec<_>>());
    let scores = succeeded(&desk.run(&["score", "d.safetensors", "photos.safetensors", "-d", "knn"]));
    assert_eq!(scores.lines().count(), 301);
}

#[test]
fn what_needs_labels_is_left_out_without_them_and_strict_where_named() {
    let desk = Desk::new();
    let values: Vec<u8> = fs::read(desk.path("train.safetensors")).unwrap();
    let header = u64::from_le_bytes(values[..8].try_into().unwrap()) as usize;
    let described = json(std::str::from_utf8(&values[8..8 + header]).unwrap());
    let [start, end] = [0, 1].map(|place| described["features"]["data_offsets"][place].as_u64().unwrap() as usize);
    let kind = if described["features"]["dtype"] == "F16" { "<f2" } else { "<f4" };
    fs::write(desk.path("x.npy"), npy::npy(kind, false, "1100, 256", &values[8 + header + start..8 + header + end]))
        .unwrap();
    let fit = "fit --features x.npy --head head.safetensors --calibration calibration.safetensors -o d.safetensors";
    let output = desk.line(&format!("{fit} -d all"));
    succeeded(&output);
    let said = stderr(&output);
    let line = said.lines().find(|line| line.starts_with("Left out: ") && line.contains("labels")).unwrap();
    for name in ["mds", "temp-scale", "evidence(lts, nci, mds, vim, core, caref)"] {
        assert!(line.contains(name), "{line}");
    }
    assert!(!line.contains("energy"), "{line}");
    let message = failed(&desk.line(&format!("{fit} -d all -d mds")), 1);
    assert!(message.contains("labels") && message.contains("--labels FILE"), "{message}");
    assert!(failed(&desk.line(&format!("{fit} -d all -d all")), 1).contains("'all' twice"));
    let message = failed(&desk.line(&format!("{fit} -d al")), 2);
    assert!(message.contains("unknown step `al`"), "{message}");
}

#[test]
fn a_folder_gets_a_file_for_each_detector_that_was_fitted() {
    let desk = Desk::new();
    fs::create_dir(desk.path("fitted")).unwrap();
    let fit = FIT.replace("-o d.safetensors", "-o fitted");
    let told = json(&succeeded(&desk.line(&format!("{fit} -d energy -d all --format json"))));
    let files: Vec<&str> =
        told["detectors"].as_array().unwrap().iter().map(|one| one["file"].as_str().unwrap()).collect();
    assert_eq!(files[0], "fitted/energy.safetensors");
    assert_eq!(fs::read_dir(desk.path("fitted")).unwrap().count(), files.len());
    for (file, name) in files.iter().zip(names(&told["detectors"])) {
        assert!(succeeded(&desk.run(&["inspect", file])).contains(&name), "{file}");
    }
}

/// Near and far averages, and tables of every format in the order that was asked for.
#[test]
fn sets_are_tagged_and_detectors_ranked() {
    let desk = Desk::fitted(&["energy", "dice(0.9) | energy", "msp", "mds"]);
    let sets =
        "--ood near:letters=letters.safetensors --ood far:photos=photos.safetensors --ood a:b=letters.safetensors";
    let told = |sort: &str| json(&succeeded(&desk.line(&format!("{EVAL} {sets} --format json{sort}"))));
    let plain = told("");
    assert_eq!(names(&plain["detectors"]), ["energy", "dice(0.9) | energy", "msp", "mds"]);
    let first = &plain["detectors"][0];
    assert_eq!(first["near"]["auroc"], first["sets"][0]["auroc"]);
    assert_eq!(first["far"]["fpr_at_tpr"], first["sets"][1]["fpr_at_tpr"]);
    assert_eq!((first["sets"][2]["ood"].as_str(), first["sets"][2]["distance"].is_null()), (Some("a:b"), true));
    let rankings: [(&str, &str, &str, f64); 6] = [
        ("fpr95", "average", "fpr_at_tpr", 1.0),
        ("auroc", "average", "auroc", -1.0),
        ("near", "near", "auroc", -1.0),
        ("far-fpr95", "far", "fpr_at_tpr", 1.0),
        ("aupr-in", "average", "aupr_in", -1.0),
        ("near-aupr-out", "near", "aupr_out", -1.0),
    ];
    for (sort, over, metric, sign) in rankings {
        let report = told(&format!(" --sort {sort}"));
        let losses: Vec<f64> = report["detectors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| sign * one[over][metric].as_f64().unwrap())
            .collect();
        assert!(losses.is_sorted(), "{sort}: {losses:?}");
        let order = names(&report["detectors"]);
        for format in ["table", "markdown", "latex", "csv"] {
            let text = succeeded(&desk.line(&format!("{EVAL} {sets} --sort {sort} --format {format}")));
            let shown = |name: &String| {
                let escaped = match format {
                    "markdown" => name.replace('|', "\\|"),
                    "latex" => name.replace('|', "\\textbar{}"),
                    _ => name.clone(),
                };
                let starts = |line: &str| {
                    line.trim_start_matches("| ")
                        .starts_with(&format!("{escaped}{}", if format == "csv" { "," } else { " " }))
                };
                text.lines().position(starts).unwrap_or_else(|| panic!("{name} in {text}"))
            };
            let places: Vec<usize> = order.iter().map(shown).collect();
            assert!(places.is_sorted(), "{sort} {format}: {text}");
            if format != "csv" {
                let averages = ["near average", "far average", " average"].map(|name| text.matches(name).count());
                assert_eq!(averages, [4, 4, 12], "{text}");
            }
        }
    }
    let csv = succeeded(&desk.line(&format!("{EVAL} {sets} --format csv")));
    let column = |line: &str, name: &str| {
        let place = csv.lines().next().unwrap().split(',').position(|known| known == name).unwrap();
        line.split(',').nth(place).unwrap().to_owned()
    };
    let near = csv.lines().nth(1).unwrap();
    assert_eq!((column(near, "distance"), column(near, "near_auroc")), ("near".into(), column(near, "auroc")));
    assert_eq!(column(csv.lines().nth(3).unwrap(), "distance"), "");
}

#[test]
fn rankings_that_cannot_be_are_refused_before_anything_is_read() {
    let desk = Desk::fitted(&["energy"]);
    let message = failed(&desk.line(&format!("{EVAL} --ood a=letters.safetensors --sort fpr59")), 2);
    for known in ["fpr95", "auroc", "aupr-in", "aupr-out", "near-fpr95", "near-auroc", "far-auroc", "far-aupr-out"] {
        assert!(message.contains(known), "{known} is not in {message}");
    }
    failed(&desk.line(&format!("{EVAL} --sort auroc")), 2);
    let message = failed(&desk.line("eval none.safetensors --id none.npy --ood far:a=none.npy --sort near"), 1);
    assert!(message.contains("--sort") && message.contains("--ood near:NAME=FILE"), "{message}");
    for set in ["near:=letters.safetensors", "near:a=", "=a", "near:a"] {
        assert!(failed(&desk.line(&format!("{EVAL} --ood {set}")), 2).contains("NAME=FILE"), "{set}");
    }
    // A name that begins like a tag without being one.
    let report = succeeded(&desk.line(&format!("{EVAL} --ood nearby:a=letters.safetensors --format json")));
    assert_eq!(json(&report)["detectors"][0]["sets"][0]["ood"], "nearby:a");
    let scores =
        "eval --scores --id a.csv#score --ood near:n=b.csv#score --ood f=b.csv#score --format json --bootstrap 0";
    for (set, file) in [("test", "a.csv"), ("letters", "b.csv")] {
        succeeded(&desk.line(&format!("score d.safetensors {set}.safetensors -o {file}")));
    }
    let report = json(&succeeded(&desk.line(scores)));
    assert_eq!(report["detectors"][0]["near"]["auroc"], report["detectors"][0]["sets"][1]["auroc"]);
}

/// Members say their part of the score, in every format.
#[test]
fn a_combination_says_what_its_members_say() {
    let desk = Desk::fitted(&["evidence(energy, dice(0.9) | energy, knn(5)*2)", "energy"]);
    let csv = succeeded(&desk.line("score d.safetensors photos.safetensors letters.safetensors --explain"));
    let mut lines = csv.lines();
    assert_eq!(
        lines.next(),
        Some("id,score,p_value,decision,prediction,evidence.energy,evidence.dice(0.9) | energy,evidence.knn(5)")
    );
    let mut told = 0;
    for line in lines {
        let fields: Vec<&str> = line.split(',').collect();
        let number = |place: usize| fields[place].parse::<f64>().unwrap();
        let sum = number(5) + number(6) + number(7);
        assert!((sum - number(1)).abs() <= 1e-12 * sum.abs().max(1.0), "{line}");
        told += 1;
    }
    assert_eq!(told, 612);
    let jsonl =
        succeeded(&desk.line("score d.safetensors photos.safetensors --explain --format jsonl --no-prediction"));
    let first = json(jsonl.lines().next().unwrap());
    assert_eq!(
        first["evidence.energy"].as_f64().unwrap().to_string(),
        csv.lines().nth(1).unwrap().split(',').nth(5).unwrap()
    );
    succeeded(&desk.line("score d.safetensors photos.safetensors --explain -o s.parquet"));
    let shown = desk.line("score d.safetensors photos.safetensors --explain --orientation outlier");
    let turned = succeeded(&shown);
    let field = |text: &str| text.lines().nth(1).unwrap().split(',').nth(7).unwrap().parse::<f64>().unwrap();
    assert_eq!(field(&turned), -field(&csv));
    let message = failed(&desk.line("score d.safetensors photos.safetensors -d energy --explain"), 1);
    assert!(message.contains("--explain") && message.contains("'energy', which has no members"), "{message}");
    let message = failed(&desk.line("score d.safetensors photos.safetensors --explain -o s.npy"), 1);
    assert!(message.contains("--explain") && message.contains(".parquet"), "{message}");
    assert!(!desk.path("s.npy").exists());
}

#[test]
fn methods_are_measured_on_given_features() {
    let desk = Desk::new();
    let measure = "methods --measure train.safetensors --head head.safetensors";
    let told = json(&succeeded(&desk.line(&format!("{measure} --rows 400 --format json"))));
    assert_eq!(
        (told["rows"].as_u64(), told["of_rows"].as_u64(), told["units"].as_u64()),
        (Some(400), Some(1100), Some(256))
    );
    let lines = told["detectors"].as_array().unwrap();
    let methods = json(&succeeded(&desk.line("methods --format json")));
    let here = methods.as_array().unwrap().iter().filter(|method| method["role"] != "absent");
    assert_eq!(lines.len(), here.count());
    for line in lines {
        let measured = line["score_microseconds"].as_f64().is_some_and(|time| time > 0.0);
        assert_eq!(measured, line["left_out"].is_null(), "{line}");
    }
    let knn = lines.iter().find(|line| line["detector"] == "knn").unwrap();
    assert!(knn["bytes"].as_u64().unwrap() >= 400 * 256 * 4, "{knn}");
    let one = desk.line(&format!("{}{}", "methods vim ", &measure["methods ".len()..]));
    let table = succeeded(&one);
    assert!(table.contains("1,100 of 1,100 rows of 256 units, 10 classes") && table.lines().count() == 4, "{table}");
    let page = stdout(&desk.line(&format!("{measure} --rows 100 --format markdown")));
    assert!(page.contains("| energy | ") && page.contains("| detector | fit, s |"), "{page}");
    assert!(failed(&desk.line("methods --measure train.safetensors"), 2).contains("--head"));
    assert!(failed(&desk.line("methods --rows 5"), 2).contains("--measure"));
    failed(&desk.line(&format!("{measure} --rows 0")), 2);
    assert!(succeeded(&desk.line("methods temp-scale")).contains("labels"));
    assert!(succeeded(&desk.line("methods openmax")).contains("labels"));
    assert!(!succeeded(&desk.line("methods knn")).contains("labels"));
}

#[test]
fn a_chosen_detector_is_one_like_any_other() {
    let desk = Desk::new();
    let output = desk.line(&format!("{FIT} -d energy -d auto --format json"));
    let told = json(&succeeded(&output));
    let chosen = told["choice"]["detector"].as_str().unwrap().to_owned();
    assert_eq!(names(&told["detectors"]), ["energy", &chosen]);
    assert!(chosen.starts_with("evidence(lts, nci, mds, vim"), "{chosen}");
    assert!(stderr(&output).contains(&format!("Chosen (auto-2): {chosen}")), "{}", stderr(&output));
    let report = json(&succeeded(&desk.line(&format!("{EVAL} --ood letters=letters.safetensors --format json"))));
    let fpr = |place: usize| report["detectors"][place]["sets"][0]["fpr_at_tpr"].as_f64().unwrap();
    assert!(fpr(1) < 0.02 && fpr(0) > 0.1, "chosen {}, energy {}", fpr(1), fpr(0));
    let scores =
        succeeded(&desk.run(&["score", "d.safetensors", "photos.safetensors", "-d", &chosen, "--only", "ood"]));
    assert!(scores.lines().count() > 295, "{}", scores.lines().count());

    // The same again, byte for byte.
    let first = fs::read(desk.path("d.safetensors")).unwrap();
    succeeded(&desk.line(&format!("{FIT} -d energy -d auto")));
    assert_eq!(fs::read(desk.path("d.safetensors")).unwrap(), first);
}

#[test]
fn weights_rest_on_validation_sets_and_print_back() {
    let desk = Desk::new();
    let output = desk.line(&format!("{FIT} -d auto --validation-ood letters=letters.safetensors"));
    succeeded(&output);
    let account = stderr(&output);
    assert!(account.contains("Weights fitted to half of the validation sets were"), "{account}");
    let inspected = succeeded(&desk.run(&["inspect", "d.safetensors"]));
    assert!(inspected.contains("evidence("), "{inspected}");
}

#[test]
fn what_cannot_be_chosen_is_refused_by_name() {
    let desk = Desk::new();
    for (line, parts) in [
        (
            "fit --features train.safetensors --head head.safetensors --calibration-fraction 0 -d auto -o d.safetensors",
            "auto",
        ),
        ("fit --features train.safetensors --head head.safetensors -d auto -d auto -o d.safetensors", "'auto' twice"),
        (
            "fit --features train.safetensors --head head.safetensors -d energy --validation-ood a=letters.safetensors -o d.safetensors",
            "--validation-ood",
        ),
        // Weights are asked for by name: the default does not go on without.
        (
            "fit --features train.safetensors --head head.safetensors --calibration-fraction 0 --validation-ood a=letters.safetensors -o d.safetensors",
            "auto",
        ),
        (
            "fit --features train.safetensors --head head.safetensors -d auto --validation-ood letters -o d.safetensors",
            "NAME=FILE",
        ),
    ] {
        let output = desk.line(line);
        assert!(!output.status.success() && stderr(&output).contains(parts), "{line}: {}", stderr(&output));
    }
}

const DEFAULT: [&str; 3] = ["evidence(lts, nci, mds, vim, core, caref)", "dice(0.9) | energy", "energy"];

#[test]
fn a_fit_that_names_no_detector_chooses_one_and_says_why() {
    let desk = Desk::new();
    let output = desk.line(&format!("{FIT} --format json"));
    let told = json(&succeeded(&output));
    assert_eq!(names(&told["detectors"]), DEFAULT);
    let account = stderr(&output);
    let lines: Vec<&str> = account.lines().skip_while(|line| !line.starts_with("Chosen (auto-2): ")).take(3).collect();
    assert!(lines[0].ends_with("evidence(lts, nci, mds, vim, core, caref)."), "{account}");
    assert!(lines[1].contains("(core)") && lines[2].contains("docs/CHOOSE.md"), "{account}");
    assert_eq!(told["choice"]["members"].as_array().unwrap().len(), 6);
    assert!(told["choice"]["measured"]["panel"].as_f64() < told["choice"]["measured"]["best_single"].as_f64());
    assert!(told["stand_ins"].is_null());
    // The choice decides.
    let decided = succeeded(&desk.line("score d.safetensors photos.safetensors --only ood"));
    let named =
        succeeded(&desk.run(&["score", "d.safetensors", "photos.safetensors", "-d", DEFAULT[0], "--only", "ood"]));
    assert!(decided == named && decided.lines().count() > 295);
    // Validation sets weigh the default, too.
    let weighed = desk.line(&format!("{FIT} --validation-ood letters=letters.safetensors"));
    assert!(stderr(&weighed).contains("Weights fitted to half of the validation sets"), "{}", stderr(&weighed));
}

#[test]
fn in_a_folder_the_choice_has_a_file_of_its_own() {
    let desk = Desk::new();
    fs::create_dir(desk.path("out")).unwrap();
    let told = json(&succeeded(&desk.line(&format!("{} --format json", FIT.replace("-o d.safetensors", "-o out")))));
    let files: Vec<&str> =
        told["detectors"].as_array().unwrap().iter().map(|one| one["file"].as_str().unwrap()).collect();
    assert_eq!(files, ["out/auto.safetensors", "out/dice-0.9-energy.safetensors", "out/energy.safetensors"]);
    for (file, name) in files.iter().zip(DEFAULT) {
        assert!(succeeded(&desk.run(&["inspect", file])).contains(name), "{file}");
    }
    // No input is overwritten, the file of the choice neither.
    let message = failed(
        &desk.line(
            "fit --features out/auto.safetensors --head head.safetensors --calibration calibration.safetensors -o out",
        ),
        1,
    );
    assert!(message.contains("out/auto.safetensors"), "{message}");
}

/// Where nothing can be chosen the default is as before, and says so.
#[test]
fn without_what_a_choice_takes_the_default_goes_on_without_it() {
    let desk = Desk::new();
    for (line, reason) in [
        ("fit --features train.safetensors --calibration-fraction 0", "no calibration inputs"),
        ("fit --features train.safetensors --calibration few.npy", "at least 19"),
        ("fit --statistics mean.npy --calibration calibration.safetensors", "of 6 members"),
    ] {
        let short: Vec<u8> = (0..20 * 256).flat_map(|at| (1.0 + (at as f32).sin()).to_le_bytes()).collect();
        fs::write(desk.path("few.npy"), npy::npy("<f4", false, "20, 256", &short)).unwrap();
        fs::write(desk.path("mean.npy"), npy::npy("<f4", false, "256,", &short[..4 * 256])).unwrap();
        let output = desk.line(&format!("{line} --head head.safetensors --format json -o d.safetensors"));
        let told = json(&succeeded(&output));
        assert_eq!(names(&told["detectors"]), DEFAULT[1..], "{line}");
        assert_eq!((told["choice"].is_null(), names(&told["left_out"])), (true, vec![DEFAULT[0].to_owned()]));
        let said = stderr(&output);
        let left_out =
            said.lines().find(|line| line.starts_with("Left out: evidence(lts, nci, mds, vim, core, caref)"));
        assert!(left_out.is_some_and(|line| line.contains(reason)), "{line}: {said}");
    }
}
