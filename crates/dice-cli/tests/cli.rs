//! The real binary, end to end, in a temporary folder of the demo's data.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "../../dice-ood/tests/common/npy.rs"]
mod npy;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Desk, failed, stderr, succeeded};

#[test]
fn the_demo_shows_every_step() {
    let desk = Desk::new();
    let text = succeeded(&desk.run(&["demo"]));
    for part in [
        "1. Fit",
        "2. How well",
        "3. What",
        "4. Which",
        "5. Decide",
        "dice(0.9) | energy",
        "near-silent",
        "-> ood",
        "-> id",
    ] {
        assert!(text.contains(part), "{part} is missing from:\n{text}");
    }
    // What demo/README.md has: the panel rejects all, DICE and the energy do not, and one of its members hardly any.
    assert!(text.contains("it accepts 0.00 % of the letters and photos"), "{text}");
    assert!(text.contains("dice(0.9) | energy 38.29 %") && text.contains("energy 22.21 %"), "{text}");
    assert!(
        text.contains("Chosen (auto-2)") && text.contains("by evidence(lts, nci, mds, vim, core, caref)"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "colour in a pipe");
    succeeded(&desk.run(&["demo", "--extract", "extracted"]));
    assert!(desk.path("extracted/detector.safetensors").exists());
    failed(&desk.run(&["demo", "--extract", "extracted"]), 1);
}

#[test]
fn fit_score_eval_inspect() {
    let desk = Desk::fitted(&["dice(0.9) | energy", "msp"]);
    let csv = succeeded(&desk.line("score d.safetensors test.safetensors letters.safetensors"));
    assert_eq!(csv.lines().next(), Some("id,score,p_value,decision,prediction"));
    assert_eq!(csv.lines().count(), 1 + 349 + 312);
    assert!(csv.contains("letters.safetensors:311,"));
    let only = succeeded(&desk.line("score d.safetensors letters.safetensors --only ood"));
    let rejected = only.lines().skip(1).collect::<Vec<_>>();
    assert!(!rejected.is_empty() && rejected.len() < 312 && rejected.iter().all(|line| line.contains(",ood,")));

    let jsonl = succeeded(&desk.line("score d.safetensors photos.safetensors --format jsonl"));
    let first: serde_json::Value = serde_json::from_str(jsonl.lines().next().unwrap()).unwrap();
    assert!(first["score"].is_f64() && first["p_value"].is_f64() && first["decision"].is_string());

    let report = succeeded(&desk.run(&[
        "eval",
        "d.safetensors",
        "--id",
        "test.safetensors",
        "--ood",
        "letters=letters.safetensors",
        "--ood",
        "photos=photos.safetensors",
        "--format",
        "json",
        "-d",
        "msp",
        "-d",
        "energy",
        "-d",
        "dice(0.5, preset=openood) | energy",
    ]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["dense_accuracy"], 1.0);
    let detectors = report["detectors"].as_array().unwrap();
    assert_eq!(detectors.len(), 3);
    assert!(detectors[0]["decision"]["threshold"].is_f64(), "msp is in the file, with its threshold");
    assert!(detectors[1]["decision"].is_null(), "energy was fitted for this evaluation");
    // As demo/README.md and its training script have it.
    let energy_on_photos = detectors[1]["sets"][1]["auroc"].as_f64().unwrap();
    assert!((energy_on_photos - 0.9105).abs() < 5e-5, "{energy_on_photos}");
    for format in ["table", "markdown", "latex", "csv"] {
        let text = succeeded(&desk.line(&format!(
            "eval d.safetensors --id test.safetensors --ood letters=letters.safetensors --format {format} --bootstrap 0"
        )));
        assert!(text.contains("letters"), "{text}");
    }
    let text = succeeded(&desk.line("inspect d.safetensors"));
    assert!(text.contains("256 of 2,560 weights") && text.contains("Weights kept by class"), "{text}");
    let text = succeeded(&desk.line("inspect train.safetensors"));
    assert!(text.contains("Features: 1,100 rows of 256 units, with labels"), "{text}");
    let text = succeeded(&desk.line("inspect head.safetensors"));
    assert!(text.contains("Head: 10 classes, 256 units."), "{text}");
}

#[test]
fn every_output_format_holds_the_same_scores() {
    let desk = Desk::fitted(&["energy"]);
    for file in ["a.csv", "a.jsonl", "a.npy", "a.parquet"] {
        succeeded(&desk.line(&format!("score d.safetensors test.safetensors -o {file}")));
    }
    let eval = |file: &str| {
        succeeded(&desk.line(&format!("eval --scores --id {file} --ood x={file} --format csv --bootstrap 0")))
    };
    assert_eq!(eval("a.csv"), eval("a.npy"));
    assert_eq!(eval("a.csv"), eval("a.parquet"));
    let lines = fs::read_to_string(desk.path("a.jsonl")).unwrap();
    let csv = fs::read_to_string(desk.path("a.csv")).unwrap();
    for (line, record) in lines.lines().zip(csv.lines().skip(1)) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let fields: Vec<&str> = record.split(',').collect();
        assert_eq!(line["score"].as_f64().unwrap(), fields[1].parse::<f64>().unwrap());
        assert_eq!(line["decision"], fields[3]);
    }
}

#[test]
fn results_do_not_depend_on_threads_or_on_loading() {
    let desk = Desk::fitted(&["react(0.95) | dice(0.7) | energy"]);
    let one = succeeded(&desk.line("score d.safetensors test.safetensors --threads 1"));
    let three = succeeded(&desk.line("score d.safetensors test.safetensors --threads 3"));
    assert_eq!(one, three);
    let portable = desk
        .command()
        .args(["score", "d.safetensors", "test.safetensors"])
        .env("DICE_SIMD", "portable")
        .output()
        .unwrap();
    assert_eq!(succeeded(&portable).lines().count(), one.lines().count());
    let unknown =
        desk.command().args(["score", "d.safetensors", "test.safetensors"]).env("DICE_SIMD", "neon9").output().unwrap();
    assert!(failed(&unknown, 1).contains("DICE_SIMD"));
}

#[test]
fn pipes_in_and_out() {
    let desk = Desk::fitted(&["energy"]);
    let expected = succeeded(&desk.line("score d.safetensors photos.safetensors"));
    // safetensors cannot be streamed and is copied; npy and CSV stream.
    let piped = |bytes: Vec<u8>| {
        let mut child = desk
            .command()
            .args(["score", "d.safetensors", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &bytes));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        output
    };
    assert_eq!(succeeded(&piped(fs::read(desk.path("photos.safetensors")).unwrap())), expected);
    failed(&piped(Vec::new()), 1);

    // A pipe may hand out its bytes one by one, and may have a name.
    #[cfg(unix)]
    {
        let slowly =
            "(head -c 1 photos.safetensors; sleep 0.2; tail -c +2 photos.safetensors) | $DICE score d.safetensors";
        for source in ["-", "/dev/stdin"] {
            let mut shell = Command::new("sh");
            shell.current_dir(desk.folder.path()).env("DICE", env!("CARGO_BIN_EXE_dice"));
            let output = shell.args(["-c", &format!("{slowly} {source}")]).output().unwrap();
            assert_eq!(succeeded(&output), expected, "{source}");
        }
    }

    // A reader that has seen enough is no failure.
    let mut child = desk
        .command()
        .args([
            "score",
            "d.safetensors",
            "train.safetensors",
            "train.safetensors",
            "train.safetensors",
            "train.safetensors",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn several_detectors_into_a_folder_and_from_statistics() {
    let desk = Desk::new();
    fs::create_dir(desk.path("out")).unwrap();
    succeeded(&desk.run(&[
        "fit",
        "--features",
        "train.safetensors",
        "--head",
        "head.safetensors",
        "-d",
        "energy",
        "-d",
        "dice(0.9) | energy",
        "-o",
        "out",
    ]));
    let names: Vec<bool> = ["energy.safetensors", "dice-0.9-energy.safetensors"]
        .iter()
        .map(|name| desk.path("out").join(name).exists())
        .collect();
    assert_eq!(names, [true, true]);
    // A detector carries its statistics, and is enough to fit from.
    succeeded(&desk.run(&[
        "fit",
        "--statistics",
        "out/energy.safetensors",
        "--head",
        "head.safetensors",
        "--calibration",
        "calibration.safetensors",
        "-d",
        "react(0.9) | dice(0.9) | energy",
        "-o",
        "again.safetensors",
    ]));
    let text = succeeded(&desk.line("inspect again.safetensors"));
    assert!(text.contains("Features are clipped at"), "{text}");
    // Statistics of parts merge to those of the whole: the same weights are kept.
    for part in ["calibration", "test"] {
        let parts = format!(
            "fit --features {part}.safetensors --calibration-fraction 0 --head head.safetensors -o p.safetensors --save-statistics {part}-s.safetensors"
        );
        succeeded(&desk.line(&parts));
    }
    succeeded(&desk.line(
        "fit --statistics calibration-s.safetensors test-s.safetensors --head head.safetensors -o m.safetensors",
    ));
    let whole = "fit --features calibration.safetensors test.safetensors --calibration-fraction 0 --head head.safetensors -o w.safetensors";
    succeeded(&desk.line(whole));
    let scores = |file: &str| succeeded(&desk.line(&format!("score {file} photos.safetensors")));
    assert_eq!(scores("m.safetensors"), scores("w.safetensors"));
    assert!(succeeded(&desk.line("inspect m.safetensors")).contains("fitted to: 697 inputs"));
    // Without calibration there are scores, and no decisions.
    succeeded(&desk.line("fit --statistics again.safetensors --head head.safetensors -o bare.safetensors"));
    let csv = succeeded(&desk.line("score bare.safetensors test.safetensors"));
    assert!(csv.lines().nth(1).unwrap().contains(",,,"), "{csv}");
    failed(&desk.line("score bare.safetensors test.safetensors --only ood"), 1);
}

#[test]
fn bad_usage_is_exit_code_two() {
    let desk = Desk::new();
    for arguments in [
        "",
        "fitt",
        "fit",
        "fit --features train.safetensors --head head.safetensors -o d.safetensors -d dcie(0.9)",
        "fit --features train.safetensors --head head.safetensors -o d.safetensors --tpr many",
        "fit --features train.safetensors --head head.safetensors -o d.safetensors --tpr 95",
        "fit --features train.safetensors --head head.safetensors -o d.safetensors --tpr -1",
        "fit --features train.safetensors --head head.safetensors -o d.safetensors --calibration-fraction 2",
        "fit --features train.safetensors --head head.safetensors -o -",
        "eval --id x.npy --ood y.npy",
        "eval d.safetensors --id x.npy --ood y.npy",
        "eval d.safetensors --ood x=y.npy",
        "eval --scores --id x.npy --check",
        "score d.safetensors x.npy --tpr 95",
        "score d.safetensors",
        "demo --threads 0",
    ] {
        let output = desk.line(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {}", stderr(&output));
    }
    let message =
        failed(&desk.run(&["fit", "--features", "x", "--head", "y", "-o", "z", "-d", "dice(0.9) | enery"]), 2);
    assert!(message.contains("did you mean `energy`") && message.contains("^^^^^"), "{message}");
}

#[test]
fn failures_are_one_clear_message_and_leave_nothing_behind() {
    let desk = Desk::fitted(&["energy"]);
    let npy = |name: &str, rows: usize, units: usize, value: f32| {
        let data: Vec<u8> = (0..rows * units).flat_map(|_| value.to_le_bytes()).collect();
        fs::write(desk.path(name), npy::npy("<f4", false, &format!("{rows}, {units}"), &data)).unwrap();
    };
    npy("narrow.npy", 5, 255, 1.0);
    npy("none.npy", 0, 256, 1.0);
    npy("nan.npy", 3, 256, f32::NAN);
    npy("huge.npy", 3, 256, f32::MAX);
    npy("one.npy", 1, 256, 0.5);
    fs::write(desk.path("page.safetensors"), "<html>not here</html>").unwrap();
    let before = desk.listing();
    let fit = "fit --head head.safetensors -o out.safetensors --features";
    for (arguments, parts) in [
        (format!("{fit} narrow.npy"), &["narrow.npy", "[N, 255]", "[N, 256]"][..]),
        (format!("{fit} none.npy"), &["at least one row"]),
        (format!("{fit} nan.npy"), &["nan.npy", "NaN at row", "column 0"]),
        (format!("{fit} one.npy"), &["no calibration inputs", "at least 19"]),
        (format!("{fit} missing.npy"), &["missing.npy", "No such file"]),
        (format!("{fit} train.safetensors --tpr 0.9999"), &["add ", "promise at most"]),
        (
            "fit --features train.safetensors --head page.safetensors -o out.safetensors".into(),
            &["page.safetensors", "safetensors header"],
        ),
        (
            "fit --features train.safetensors --head head.safetensors -o no/such/folder/out.safetensors".into(),
            &["no such directory"],
        ),
        ("score d.safetensors narrow.npy -o out.csv".into(), &["narrow.npy", "[N, 256]"]),
        ("score d.safetensors none.npy -o out.csv".into(), &["none.npy", "no rows"]),
        ("score d.safetensors nan.npy -o out.parquet".into(), &["nan.npy", "NaN at row 0, column 0", "--non-finite"]),
        ("score d.safetensors huge.npy -o out.npy".into(), &["huge.npy", "logits fit f32"]),
        ("score d.safetensors one.npy -o out.xlsx".into(), &["xlsx", ".csv, .jsonl, .npy or .parquet"]),
        ("score head.safetensors one.npy".into(), &["a detector, or statistics"]),
        ("score d.safetensors one.npy -d msp".into(), &["'energy'", "one of the fitted detectors"]),
        ("eval d.safetensors --id test.safetensors --ood x=nan.npy".into(), &["nan.npy", "NaN"]),
        ("eval d.safetensors --id test.safetensors --ood x=one.npy --id-labels one.npy".into(), &["one.npy", "labels"]),
        (
            "eval d.safetensors --id test.safetensors --ood x=one.npy --id-labels nan.npy".into(),
            &["nan.npy", "vector [N]"],
        ),
        ("eval --scores --id missing.csv --ood x=missing.csv".into(), &["missing.csv"]),
        ("inspect .".into(), &["directory"]),
        ("score d.safetensors d.safetensors".into(), &["d.safetensors", "features"]),
        ("score d.safetensors one.npy -o one.npy".into(), &["one.npy", "another file to write"]),
        (format!("{fit} train.safetensors -d energy -d energy"), &["'energy' twice"]),
        ("fit --features train.safetensors --head - -o out.safetensors".into(), &["standard input"]),
    ] {
        let message = failed(&desk.line(&arguments), 1);
        for part in parts {
            assert!(message.contains(part), "{arguments}: `{part}` is missing from: {message}");
        }
        assert_eq!(desk.listing(), before, "{arguments} left something behind");
    }
    // Asked to, rows that are not finite are out-of-distribution.
    let csv = succeeded(&desk.line("score d.safetensors nan.npy --non-finite ood"));
    assert_eq!(csv.matches("-inf,").count(), 3);
    assert_eq!(csv.matches(",ood,").count(), 3);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_reported() {
    let desk = Desk::fitted(&["energy"]);
    let output = desk
        .command()
        .args(["score", "d.safetensors", "train.safetensors"])
        .stdout(fs::File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    assert!(failed(&output, 1).contains("standard output"));
}

#[test]
fn quiet_is_quiet_and_pages_are_made() {
    let desk = Desk::fitted(&["energy"]);
    let output = desk.line("score d.safetensors test.safetensors --quiet -o s.csv");
    assert_eq!((succeeded(&output).as_str(), stderr(&output).as_str()), ("", ""));
    for shell in ["bash", "zsh", "fish"] {
        assert!(succeeded(&desk.line(&format!("completions {shell}"))).contains("inspect"));
    }
    assert!(succeeded(&desk.line("man")).contains(".TH dice"));
    assert!(succeeded(&desk.line("man fit")).contains("calibration"));
    failed(&desk.line("man fitt"), 1);
}

/// Every command and flag that the README shows is one that the binary has.
#[test]
fn the_readme_tells_the_truth() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let desk = Desk::new();
    for (given, name) in [("train", "train.safetensors"), ("val", "val.npy"), ("test", "test.npz")] {
        assert!(readme.contains(name), "{given}");
    }
    for command in ["fit", "score", "eval", "inspect", "demo"] {
        assert!(readme.contains(&format!("dice {command}")) || readme.contains(&format!("-- {command}")));
        let help = succeeded(&desk.run(&[command, "--help"]));
        let used = readme.lines().filter(|line| line.starts_with(&format!("dice {command}")));
        for flag in used.flat_map(|line| line.split_whitespace().filter(|word| word.starts_with("--"))) {
            assert!(help.contains(flag), "dice {command} has no {flag}");
        }
    }
}

/// The demo's features as a table of one column a unit, in the order that `order` gives, with more columns before and behind.
fn table(desk: &Desk, from: &str, to: &str, order: impl Fn(usize) -> usize, id: &str, ids: impl Fn(usize) -> String) {
    let path = desk.path(from).to_string_lossy().into_owned();
    let mut source = dice_ood::io::Dataset::new(&[path]).unwrap().open().unwrap();
    let units = source.units();
    let mut header: Vec<String> = (0..units).map(|place| format!("f{}", order(place))).collect();
    if !id.is_empty() {
        header.insert(0, id.to_owned());
    }
    let mut lines = vec![header.join(",")];
    dice_ood::for_each_block(&mut *source, |block| {
        for row in block.view().rows() {
            let mut fields: Vec<String> = (0..units).map(|place| format!("{:?}", row[order(place)])).collect();
            if !id.is_empty() {
                fields.insert(0, ids(lines.len() - 1));
            }
            lines.push(fields.join(","));
        }
        Ok(())
    })
    .unwrap();
    fs::write(desk.path(to), lines.join("\n") + "\n").unwrap();
}

#[test]
fn features_are_known_by_their_column_names() {
    let desk = Desk::new();
    let number = |row: usize| (row * 3 + 1000).to_string();
    table(&desk, "train.safetensors", "train.csv", |place| place, "", number);
    table(&desk, "calibration.safetensors", "val.csv", |place| 255 - place, "", number);
    table(&desk, "test.safetensors", "sorted.csv", |place| (place * 77) % 256, "user_id", number);
    table(&desk, "test.safetensors", "plain.csv", |place| place, "", number);
    table(&desk, "letters.safetensors", "letters.csv", |place| (place * 3) % 256, "uuid", |row| format!("a-{row}"));
    let fit = |output: &str, more: &str| {
        desk.line(&format!(
            "fit --features train.csv --head head.safetensors --calibration val.csv -o {output} -d energy{more}"
        ))
    };
    succeeded(&fit("d.safetensors", ""));
    assert!(succeeded(&desk.line("inspect d.safetensors")).contains("columns: f0, f1, ... f255 (256)"));

    // Statistics know them too: sums over columns in another order do not merge.
    table(&desk, "train.safetensors", "turned.csv", |place| 255 - place, "", number);
    succeeded(&fit("d.safetensors", " --save-statistics a.safetensors"));
    let turned = "fit --features turned.csv --head head.safetensors --calibration val.csv -d energy -o e.safetensors";
    succeeded(&desk.line(&format!("{turned} --save-statistics b.safetensors")));
    let merged = |parts: &str| {
        desk.line(&format!(
            "fit --statistics {parts} --head head.safetensors --calibration val.csv -d energy -o m.safetensors"
        ))
    };
    succeeded(&merged("a.safetensors a.safetensors"));
    let refused = merged("a.safetensors b.safetensors");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("in another order"));

    // The same scores whatever the order, and those of the features without columns.
    let scores = |output: &std::process::Output| -> Vec<String> {
        succeeded(output).lines().skip(1).map(|line| line.split(',').nth(1).unwrap().to_owned()).collect()
    };
    let shuffled = scores(&desk.line("score d.safetensors sorted.csv"));
    assert_eq!(shuffled.len(), 349);
    assert_eq!(shuffled, scores(&desk.line("score d.safetensors plain.csv")));
    assert_eq!(shuffled, scores(&desk.line("score d.safetensors test.safetensors")));
    let report = |id: &str, ood: &str| {
        succeeded(
            &desk.line(&format!("eval d.safetensors --id {id} --ood letters={ood} --format csv --bootstrap 0 --quiet")),
        )
    };
    assert_eq!(
        report("sorted.csv", "letters.csv").lines().count(),
        report("plain.csv", "letters.safetensors").lines().count()
    );
    assert_eq!(report("sorted.csv", "letters.csv"), report("plain.csv", "letters.safetensors"));

    // Ids are numbers where they are numbers, and are missed aloud.
    let jsonl = succeeded(&desk.line("score d.safetensors sorted.csv --format jsonl"));
    let second: serde_json::Value = serde_json::from_str(jsonl.lines().nth(1).unwrap()).unwrap();
    assert_eq!(second["id"], 1003);
    let words = succeeded(&desk.line("score d.safetensors letters.csv --format jsonl"));
    assert!(words.starts_with("{\"decision\"") && words.contains("\"id\":\"a-0\""), "{words}");
    succeeded(&desk.line("score d.safetensors sorted.csv -o s.parquet"));
    succeeded(&desk.line("score d.safetensors letters.csv -o t.parquet"));
    let ids_of = |file: &str| {
        let columns = dice_ood::io::Columns { features: vec!["score".into()], ..Default::default() };
        let data = dice_ood::io::Dataset::new(&[desk.path(file).to_string_lossy().into_owned()]).unwrap();
        let mut block = dice_ood::Block::default();
        data.with_columns(&columns).open().unwrap().read(&mut block, 2).unwrap();
        block.ids
    };
    assert_eq!(ids_of("s.parquet"), Some(dice_ood::Ids::Integer(vec![1000, 1003])));
    assert_eq!(ids_of("t.parquet"), Some(dice_ood::Ids::Text(vec!["a-0".into(), "a-1".into()])));
    let missed = stderr(&desk.line("score d.safetensors plain.csv"));
    assert!(missed.contains("plain.csv: no column of ids") && missed.contains("--id-column"), "{missed}");
    assert!(stderr(&desk.line("score d.safetensors plain.csv -o x.npy")).contains("scores alone"));

    // A mismatch is told by name, with the flag that mends it.
    let csv = fs::read_to_string(desk.path("sorted.csv")).unwrap();
    fs::write(desk.path("renamed.csv"), csv.replacen(",f77,", ",g77,", 1)).unwrap();
    let message = failed(&desk.line("score d.safetensors renamed.csv"), 1);
    assert!(["`f77`", "the new `g77`", "--drop-column"].iter().all(|part| message.contains(part)), "{message}");
    fs::write(desk.path("extra.csv"), csv.replacen("user_id,", "member,", 1)).unwrap();
    let message = failed(&desk.line("score d.safetensors extra.csv"), 1);
    assert!(message.contains("the new `member`"), "{message}");
    for flag in ["--drop-column member", "--id-column member", "--features-column f*"] {
        assert_eq!(shuffled, scores(&desk.line(&format!("score d.safetensors extra.csv {flag}"))), "{flag}");
    }
    // At a fit the head knows that there is one too many.
    let train = fs::read_to_string(desk.path("train.csv")).unwrap();
    let numbered = train.lines().enumerate().map(|(row, line)| match row {
        0 => format!("position,{line}\n"),
        _ => format!("{row},{line}\n"),
    });
    fs::write(desk.path("train.csv"), numbered.collect::<String>()).unwrap();
    let message = failed(&fit("e.safetensors", ""), 1);
    assert!(message.contains("`position`") && message.contains("--drop-column"), "{message}");
    succeeded(&fit("e.safetensors", " --drop-column position"));
    assert_eq!(shuffled, scores(&desk.line("score e.safetensors sorted.csv")));
}
