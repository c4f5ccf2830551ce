//! `dice explain` and the advice of `dice eval`, by the real binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;

use common::{Desk, colours, failed, stderr, stdout, succeeded};

const PANEL: &str = "evidence(energy, knn(5), dice(0.9) | energy)";

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_input_is_explained_as_it_is_scored() {
    let desk = Desk::fitted(&["dice(0.9) | energy", PANEL, "energy"]);
    let scores = succeeded(&desk.line("score d.safetensors letters.safetensors --quiet"));
    let line = scores.lines().nth(1 + 16).unwrap().split(',').map(str::to_owned).collect::<Vec<_>>();
    let text = succeeded(&desk.line("explain d.safetensors letters.safetensors --row 16"));
    let verdict = if line[3] == "ood" { "rejected: " } else { "accepted: " };
    let expected = [
        verdict,
        "of in-distribution inputs score this low",
        "training mean",
        "Dropping the others takes",
        "row 16, id 16",
    ];
    for part in expected {
        assert!(text.contains(part), "`{part}` is missing from:\n{text}");
    }
    assert!(text.lines().count() <= 40, "{text}");
    let told = json(&succeeded(&desk.line("explain d.safetensors letters.safetensors --id 16 --format json")));
    assert_eq!(told["score"].as_f64().unwrap(), line[1].parse::<f64>().unwrap());
    assert_eq!(told["decided"]["p_value"].as_f64().unwrap(), line[2].parse::<f64>().unwrap());
    assert_eq!(told["prediction"].to_string(), line[4]);
    assert_eq!((told["units"].as_array().unwrap().len(), told["classes"].as_array().unwrap().len()), (256, 10));
    assert_eq!(told["training"], serde_json::Value::Null);
}

#[test]
fn members_and_neighbours_are_told() {
    let desk = Desk::fitted(&["energy", PANEL]);
    let told = desk.run(&[
        "explain",
        "d.safetensors",
        "photos.safetensors",
        "--row",
        "3",
        "-d",
        PANEL,
        "--training",
        "train.safetensors",
        "--format",
        "json",
    ]);
    let told = json(&succeeded(&told));
    let votes: Vec<f64> = told["members"].as_array().unwrap().iter().map(|one| one["vote"].as_f64().unwrap()).collect();
    assert!(votes.len() == 3 && (votes.iter().sum::<f64>() - told["score"].as_f64().unwrap()).abs() < 1e-9);
    assert_eq!(told["pipeline"], "dice(0.9) | energy");
    let [bank, files] = ["nearest", "training"].map(|key| told[key].as_array().unwrap().clone());
    assert_eq!((bank.len(), files.len()), (5, 5));
    // The bank is the whole of so small a training set, so that both find the same rows.
    for (a, b) in bank.iter().zip(&files) {
        assert_eq!((&a["distance"], &a["cosine"]), (&b["distance"], &b["cosine"]));
        assert!(b["row"].is_u64() && b["label"].is_i64());
    }
    let page = desk.line("explain d.safetensors photos.safetensors --row 3 -o why.html --training train.safetensors");
    assert_eq!(succeeded(&page), "");
    let page = fs::read_to_string(desk.path("why.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("default-src 'none'") && !page.contains("<script"));
    assert!(page.contains("Nearest training inputs") && page.ends_with("</html>\n"));
}

#[test]
fn what_cannot_be_explained_is_told_by_name() {
    let desk = Desk::fitted(&["energy"]);
    fs::write(desk.path("ids.csv"), ids(&["a-1", "a-2", "b", "b"])).unwrap();
    fs::write(desk.path("narrow.csv"), "id,f0,f1\nx,1,2\n").unwrap();
    fs::write(desk.path("one.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    for (arguments, parts) in [
        ("letters.safetensors --row 312", &["a row from 0 to 311, as there are 312 inputs"][..]),
        ("letters.safetensors", &["several inputs", "--row N, or --id ID", "letters.safetensors"]),
        ("ids.csv --id a-3", &["none of 4 inputs", "'a-1'"]),
        ("ids.csv --id b", &["rows 2 and 3"]),
        ("narrow.csv --row 0", &["narrow.csv", "256"]),
        ("one.png", &["one.png", "--model"]),
        ("letters.safetensors --row 0 -d msp", &["one of the fitted detectors"]),
        ("absent.npy --row 0", &["absent.npy"]),
    ] {
        let message = failed(&desk.line(&format!("explain d.safetensors {arguments}")), 1);
        for part in parts {
            assert!(message.contains(part), "`{part}` is missing from: {message}");
        }
    }
    assert!(
        failed(&desk.line("explain letters.safetensors d.safetensors --row 0"), 1).contains("the detector comes first")
    );
    failed(&desk.line("explain d.safetensors letters.safetensors --row 0 --id 0"), 2);
    assert!(succeeded(&desk.line("explain d.safetensors ids.csv --id a-2")).contains("row 1, id a-2"));
}

/// A table of 256 units whose rows have these names.
fn ids(names: &[&str]) -> String {
    let header: Vec<String> = (0..256).map(|unit| format!("f{unit}")).collect();
    let row = |name: &&str| format!("{name},{}\n", vec!["0.5"; 256].join(","));
    format!("id,{}\n{}", header.join(","), names.iter().map(row).collect::<String>())
}

#[test]
fn images_are_explained_with_pictures() {
    let desk = colours();
    let fit =
        "fit --model colours.onnx --images train --preprocess plain.json --calibration test -d energy -o d.safetensors";
    succeeded(&desk.line(fit));
    let explained = "explain d.safetensors --model colours.onnx grey --row 4 --training train -o why.html";
    succeeded(&desk.line(explained));
    let page = fs::read_to_string(desk.path("why.html")).unwrap();
    // The input and five neighbours.
    assert_eq!(page.matches("src=\"data:image/png;base64,").count(), 6, "{page}");
    let text = succeeded(&desk.line("explain d.safetensors --model colours.onnx grey/04.bmp"));
    assert!(text.contains("grey/04.bmp"), "{text}");
    let scores = succeeded(&desk.line("score d.safetensors --model colours.onnx grey --quiet"));
    let score: f64 = scores.lines().nth(5).unwrap().split(',').nth(1).unwrap().parse().unwrap();
    let told = json(&succeeded(&desk.line("explain d.safetensors --model colours.onnx grey --row 4 --format json")));
    assert_eq!(told["score"].as_f64(), Some(score));
    let message = failed(&desk.line("explain d.safetensors --model colours.onnx grey --id grey/4.bmp"), 1);
    assert!(message.contains("grey/04.bmp"), "{message}");
}

const EVAL: &str =
    "eval d.safetensors --id test.safetensors --ood letters=letters.safetensors --ood photos=photos.safetensors";

#[test]
fn an_evaluation_ends_with_advice_unless_it_is_not_wanted() {
    let desk = Desk::fitted(&["dice(0.9) | energy", "energy", "msp"]);
    let report = succeeded(&desk.line(EVAL));
    let advice = report.split("Advice\n").nth(1).unwrap();
    for part in [
        "Best by FPR at 95 % TPR, mean of all sets (2 sets): msp with 16.24 %: 5.96 points lower than energy [",
        "]: no difference that these data can show.",
        "Next best: energy, 5.96 points higher than msp [",
        "\nletters: best is ",
        "$ dice fit --features train.safetensors --head head.safetensors --calibration calibration.safetensors -d auto -d msp",
    ] {
        assert!(advice.contains(part), "`{part}` is missing from:\n{advice}");
    }
    for quiet in ["--quiet", "--format csv", "--format latex", "--bootstrap 0"] {
        let output = desk.line(&format!("{EVAL} {quiet}"));
        assert!(!succeeded(&output).contains("Advice") && !stderr(&output).contains("Advice"), "{quiet}");
    }
    let data = json(&stdout(&desk.line(&format!("{EVAL} --format json --quiet --sort auroc"))));
    assert_eq!(
        (data["advice"]["metric"].as_str(), data["advice"]["baseline"].as_str()),
        (Some("auroc"), Some("energy"))
    );
    let lead = &data["advice"]["overall"]["comparisons"][0];
    assert_eq!((lead["detector"].as_str(), lead["against"].as_str()), (Some("dice(0.9) | energy"), Some("energy")));
    let auroc = |detector: &str| {
        let all = data["detectors"].as_array().unwrap();
        all.iter().find(|one| one["detector"] == detector).unwrap()["average"]["auroc"].as_f64().unwrap()
    };
    let difference = auroc("dice(0.9) | energy") - auroc("energy");
    assert!((lead["difference"].as_f64().unwrap() - difference).abs() < 1e-12);
    assert!(data["advice_commands"][0]["command"].as_str().unwrap().starts_with("dice "));
}

/// The command that advice names works as it stands.
#[test]
fn the_panel_that_is_advised_can_be_fitted() {
    let desk = Desk::fitted(&["energy"]);
    let data = json(&stdout(&desk.line(&format!("{EVAL} --format json"))));
    let commands = data["advice_commands"].as_array().unwrap();
    let panel = commands.iter().filter_map(|one| one["command"].as_str()).find(|one| one.contains("-d auto")).unwrap();
    let words = panel.split('\'').enumerate().flat_map(|(place, part)| match place % 2 {
        0 => part.split_whitespace().collect::<Vec<_>>(),
        _ => vec![part],
    });
    let words: Vec<&str> = words.skip(1).collect();
    succeeded(&desk.run(&words));
    assert!(
        succeeded(&desk.line("eval next.safetensors --id test.safetensors --ood photos=photos.safetensors"))
            .contains("Best by")
    );
}
