//! `dice report`, by the real binary.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;

use common::{Desk, colours, succeeded};

const SETS: &str =
    "--id test.safetensors --ood far:letters=letters.safetensors --ood photos=photos.safetensors --bootstrap 20";

/// What stands in a page between `from` and the next `to`, each time.
fn between<'a>(page: &'a str, from: &'a str, to: &'a str) -> Vec<&'a str> {
    page.split(from).skip(1).filter_map(|rest| rest.split(to).next()).collect()
}

/// The table of methods of a page on these sets, whose first columns are these averages.
fn methods_are_those_of_eval(desk: &Desk, sets: &str, averages: &[&str]) {
    let page = succeeded(&desk.line(&format!("report d.safetensors {sets} --no-ablations --quiet")));
    let told = succeeded(&desk.line(&format!("eval d.safetensors {sets} --sort fpr95 --format json --quiet")));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let table = between(&page, "<table class=\"sorts\">", "</table>")[0];
    let rows: Vec<Vec<f64>> = between(table, "<tr><th scope=\"row\">", "</tr>")
        .into_iter()
        .map(|row| between(row, "data-v=\"", "\"").into_iter().map(|value| value.parse().unwrap()).collect())
        .collect();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let expected = told["detectors"].as_array().unwrap().iter().map(|one| {
        let averages = averages.iter().flat_map(|of| [&one[of]["fpr_at_tpr"], &one[of]["auroc"]]);
        let sets = one["sets"].as_array().unwrap().iter();
        let sets = sets.flat_map(|set| [&set["fpr_at_tpr"], &set["auroc"], &set["aupr_in"]]);
        averages.chain(sets).map(number).collect()
    });
    assert_eq!(rows, expected.collect::<Vec<Vec<f64>>>());
}

#[test]
fn the_numbers_of_the_page_are_those_of_eval() {
    let desk = Desk::fitted(&["energy", "dice(0.9) | energy", "msp"]);
    succeeded(&desk.line(&format!("report d.safetensors {SETS} -o r.html --quiet")));
    let page = fs::read_to_string(desk.path("r.html")).unwrap();
    methods_are_those_of_eval(&desk, SETS, &["average"]);
    // The average of one near set is that set.
    let three = SETS.replace("--ood photos", "--ood near:digits=calibration.safetensors --ood far:photos");
    methods_are_those_of_eval(&desk, &three, &["average", "far"]);
    // Two p-value figures, two detectors on two sets, three figures of curves a set; contributions before and after on three sets,
    // their variances, the pattern of the head, its sweep, four ablations.
    assert_eq!(between(&page, "<svg ", "</svg>").len(), (2 + 4 + 6) + (6 + 3 + 1 + 1 + 4));
    assert_eq!(between(&page, "aria-label=\"Methods and sets\"", "</table>")[0].matches("<small>").count(), 3 * 2 * 3);
    assert!(page.len() < 400_000, "{}", page.len());
    assert!(
        between(&page, "<svg ", "</svg>").iter().all(|svg| svg.contains("role=\"img\"") && svg.contains("<title>"))
    );
    assert!(["http:", "https:", "src=", "url("].iter().all(|part| !page.contains(part)), "the page asks for nothing");
    let again = desk.line(&format!("report d.safetensors {SETS} -o again.html --quiet"));
    succeeded(&again);
    assert_eq!(fs::read_to_string(desk.path("again.html")).unwrap(), page, "the same inputs give the same bytes");
    let command = between(&page, "with <code>", "</code>")[0].replace("&#39;", "'");
    assert!(
        command.starts_with("dice report d.safetensors --id test.safetensors --ood far:letters=letters.safetensors"),
        "{command}"
    );
}

#[test]
fn differences_and_curves_of_the_page_are_those_of_eval() {
    let desk = Desk::fitted(&["energy", "dice(0.9) | energy", "msp"]);
    let json = |line: &str| -> serde_json::Value { serde_json::from_str(&succeeded(&desk.line(line))).unwrap() };
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    for sort in ["fpr95", "near-auroc"] {
        let sets = match sort {
            "fpr95" => SETS.to_owned(),
            _ => SETS.replace("--ood photos", "--ood near:photos"),
        };
        let page = succeeded(&desk.line(&format!("report d.safetensors {sets} --sort {sort} --quiet --no-ablations")));
        let advice = json(&format!("eval d.safetensors {sets} --sort {sort} --format json --quiet"))["advice"].clone();
        let standings: Vec<&serde_json::Value> =
            std::iter::once(&advice["overall"]).chain(advice["groups"].as_array().unwrap()).collect();
        let table = between(&page, "aria-label=\"Differences to energy\"", "</table>")[0];
        let rows = between(table, "<tr><th scope=\"row\">", "</tr>");
        assert_eq!(rows.len(), 2, "energy has no row");
        for (place, row) in rows.iter().enumerate() {
            let cells = between(row, "data-v=\"", "</td>");
            assert_eq!(cells.len(), standings.len());
            for (cell, standing) in cells.iter().zip(&standings) {
                let told = &standing["comparisons"][place];
                assert!(row.starts_with(told["detector"].as_str().unwrap()));
                assert_eq!(cell.split('"').next().unwrap().parse::<f64>().unwrap(), number(&told["difference"]));
                let ends = ["low", "high"].map(|end| format!("{:.1}", 100.0 * number(&told["interval"][end])));
                assert!(cell.contains(&format!("<small>{} to {}<br>p ", ends[0], ends[1])), "{cell}");
                let verdict = ["better", "worse"].iter().any(|verdict| cell.contains(verdict));
                assert_eq!(verdict, told["beyond_noise"].as_bool().unwrap(), "{cell}");
            }
        }
        assert_eq!(table.contains("near sets") && table.contains("far sets"), sort == "near-auroc");
    }
    let page = succeeded(&desk.line(&format!("report d.safetensors {SETS} --quiet --no-ablations")));
    let told = ["0.9", "0.95", "0.99"]
        .map(|tpr| json(&format!("eval d.safetensors {SETS} --at-tpr {tpr} --sort fpr95 --format json --quiet")));
    for set in 0..2 {
        let name = told[1]["detectors"][0]["detector"].as_str().unwrap();
        let fpr = told.iter().map(|told| {
            let one = told["detectors"].as_array().unwrap().iter().find(|one| one["detector"] == name).unwrap();
            format!("{:.2}", 100.0 * number(&one["sets"][set]["fpr_at_tpr"]))
        });
        let sentence = format!("FPR at 90, 95 and 99 % TPR: {name} {}", fpr.collect::<Vec<_>>().join(", "));
        assert!(page.contains(&sentence), "{sentence}");
    }
}

/// The cells of the table of this name, row by row, without what stands behind a line break in them.
fn cells(page: &str, name: &str) -> Vec<Vec<String>> {
    let from = format!("aria-label=\"{name}\"");
    let table = between(page, &from, "</table>")[0];
    let rows = between(table, "<th scope=\"row\">", "</tr>").into_iter();
    let cells =
        |row| between(row, "<td>", "</td>").into_iter().map(|cell| cell.split("<br>").next().unwrap().to_owned());
    rows.map(|row| cells(row).collect()).collect()
}

#[test]
fn what_pruning_does_is_what_diagnose_and_eval_say() {
    let desk = Desk::fitted(&["energy", "dice(0.9) | energy"]);
    succeeded(&desk.line(&format!("report d.safetensors {SETS} -o r.html --quiet")));
    let page = fs::read_to_string(desk.path("r.html")).unwrap();
    let json = |line: &str| -> serde_json::Value { serde_json::from_str(&succeeded(&desk.line(line))).unwrap() };
    let sets = SETS.trim_end_matches(" --bootstrap 20");
    let found = json(&format!("diagnose train.safetensors --head head.safetensors {sets} --format json --quiet"));
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let three = |value: &serde_json::Value| format!("{:.3}", number(value));
    let expected: Vec<Vec<String>> = found["sets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|set| {
            let outputs = &set["outputs"];
            let names = ["variance_kept", "variance_kept_if_independent", "covariance_over_dropped"];
            let mut row: Vec<String> = names.iter().map(|name| three(&outputs[name]["value"])).collect();
            row.push(format!("{} of {}", outputs["classes_lower"], outputs["classes"].as_array().unwrap().len()));
            row.push(three(&outputs["mean_shift"]["value"]));
            row
        })
        .collect();
    assert_eq!(cells(&page, "Output variance"), expected);
    let levels = found["sensitivity"].as_array().unwrap();
    let rows = cells(&page, "Other sparsities");
    assert_eq!(rows.len(), levels.len());
    let told = json(&format!("eval d.safetensors {SETS} --format json --quiet"));
    let percent = |value: f64| format!("{:.2}", 100.0 * value);
    for (row, level) in rows.iter().zip(levels) {
        assert_eq!(row[1], percent(number(&level["contribution_kept"])));
        assert_eq!(row[6], three(&level["variance_kept"]));
        // The dense head and the detector's own p are detectors of the evaluation.
        let name = match number(&level["p"]) {
            0.0 => "energy",
            0.9 => "dice(0.9) | energy",
            _ => continue,
        };
        let one = told["detectors"].as_array().unwrap().iter().find(|one| one["detector"] == name).unwrap();
        let rates = [&one["average"]["fpr_at_tpr"], &one["average"]["auroc"], &one["accuracy"]];
        assert_eq!(row[3..6], rates.map(|rate| percent(number(rate))), "{name}");
    }
    let ablations = cells(&page, "Ablations");
    assert_eq!(
        (ablations.len(), &ablations[0]),
        (5, &rows[levels.iter().position(|one| one["p"] == 0.9).unwrap()][3..6].to_vec())
    );
    let without = succeeded(&desk.line(&format!("report d.safetensors {SETS} -d energy --quiet")));
    assert!(without.contains("None of these detectors drops weights") && !without.contains("Ablations"));
}

#[test]
fn figures_and_tables_are_files_of_their_own() {
    let desk = Desk::fitted(&["energy", "dice(0.9) | energy"]);
    let line = format!("report d.safetensors {SETS} -o r.html --figures f --tables t --quiet");
    succeeded(&desk.line(&line));
    let names = |folder: &str| -> Vec<String> {
        let files = fs::read_dir(desk.path(folder)).unwrap();
        let mut names: Vec<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let page = fs::read_to_string(desk.path("r.html")).unwrap();
    let figures = names("f");
    let svgs: Vec<&String> = figures.iter().filter(|name| name.ends_with(".svg")).collect();
    assert_eq!(svgs.len(), between(&page, "<svg ", "</svg>").len());
    for name in svgs {
        let svg = fs::read_to_string(desk.path(&format!("f/{name}"))).unwrap();
        assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.contains("<title>"), "{name}");
        assert!(!svg.contains("var("), "{name}: colours are there");
    }
    let tables = ["ablations", "accuracies", "decisions", "methods", "sparsities", "variance"];
    let mut expected: Vec<String> =
        tables.iter().flat_map(|name| ["csv", "md", "tex"].map(|end| format!("{name}.{end}"))).collect();
    expected.push("report.json".into());
    expected.sort();
    assert_eq!(names("t"), expected);
    let numbers: serde_json::Value = serde_json::from_slice(&fs::read(desk.path("t/report.json")).unwrap()).unwrap();
    let told = succeeded(&desk.line(&format!("eval d.safetensors {SETS} --sort fpr95 --format json --quiet")));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    for (here, there) in numbers["detectors"].as_array().unwrap().iter().zip(told["detectors"].as_array().unwrap()) {
        assert_eq!(here["average"], there["average"]);
    }
    assert_eq!(numbers["pruning"]["sets"].as_array().unwrap().len(), 3);
    let variance = fs::read_to_string(desk.path("t/variance.md")).unwrap();
    assert!(cells(&page, "Output variance").iter().all(|row| variance.contains(&format!("| {} |", row[0]))));
    // Again into the same folders: what was there is replaced.
    let before = fs::read(desk.path("f/scores-1.svg")).unwrap();
    succeeded(&desk.line(&line));
    assert_eq!((fs::read(desk.path("f/scores-1.svg")).unwrap(), names("f")), (before, figures));
}

#[test]
fn inputs_worth_a_look_have_their_scores_and_pictures() {
    let desk = Desk::fitted(&["energy"]);
    let page = succeeded(&desk.line(&format!("report d.safetensors {SETS} --quiet")));
    succeeded(&desk.line("score d.safetensors letters.safetensors -o letters.csv --quiet"));
    let scores = fs::read_to_string(desk.path("letters.csv")).unwrap();
    let header: Vec<&str> = scores.lines().next().unwrap().split(',').collect();
    let place = header.iter().position(|name| *name == "score").unwrap();
    let score =
        |row: usize| scores.lines().nth(row + 1).unwrap().split(',').nth(place).unwrap().parse::<f64>().unwrap();
    let table = between(&page, "aria-label=\"Inputs worth a look\"", "</table>")[0];
    let rows = between(table, "<th scope=\"row\"><bdi>letters</bdi>, ", "</tr>");
    assert_eq!(rows.len(), 9);
    for row in rows {
        let id: usize = between(row, "<bdi>", "</bdi>")[0].parse().unwrap();
        assert_eq!(between(row, "<td>", "</td>")[0], format!("{:.4}", score(id)));
    }
    // The highest score of the letters is their worst mistake.
    let highest = (0..312).map(score).fold(f64::NEG_INFINITY, f64::max);
    assert!(table.contains(&format!("<td>{highest:.4}</td>")));

    let desk = colours();
    succeeded(&desk.line("fit --model apart.onnx --images train --preprocess plain.json --calibration-fraction 0.25 -d energy -o n.safetensors --quiet"));
    let line = "report n.safetensors --model apart.onnx --id test --ood grey=grey --bootstrap 0 --quiet";
    let page = succeeded(&desk.line(line));
    assert!(page.contains("<bdi>grey/") && page.matches("src=\"data:image/png;base64,").count() >= 6);
    assert!(page.contains("img-src data:;"));
}

#[test]
fn hostile_names_are_shown_and_not_executed() {
    let desk = Desk::fitted(&["energy", "dice(0.9) | energy"]);
    let name = "]]>&amp;\u{1}\u{ffff}<script>alert(1)</script>\"'\u{202e}".repeat(100) + "\n";
    let set = format!("{name}=letters.safetensors");
    let made = desk.run(&[
        "report",
        "d.safetensors",
        "--id",
        "test.safetensors",
        "--ood",
        &set,
        "--quiet",
        "--bootstrap",
        "20",
        "-o",
        "r.html",
        "--figures",
        "f",
        "--tables",
        "t",
    ]);
    succeeded(&made);
    for file in fs::read_dir(desk.path("f")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "svg") {
            let svg = fs::read_to_string(&path).unwrap();
            let parsed = roxmltree::Document::parse(&svg).unwrap();
            assert!(parsed.descendants().all(|node| !node.has_tag_name("script")), "{}", path.display());
        }
    }
    for file in ["f/scores-1.svg", "f/contributions-3.svg", "t/methods.md", "t/variance.tex"] {
        let text = fs::read_to_string(desk.path(file)).unwrap();
        let runs = file.ends_with("svg") && text.contains("<script>");
        assert!(!text.contains('\u{202e}') && !runs, "{file}");
    }
    let page = fs::read_to_string(desk.path("r.html")).unwrap();
    let columns: Vec<String> = (0..256).map(|unit| format!("f{unit}")).collect();
    let row = |id: &str| format!("\"{id}\"{}\n", ",0.5".repeat(256));
    let rows = [row("<img src=x onerror=alert(1)>"), row("a\u{202e}b"), row(&"<b>".repeat(4000))].concat();
    fs::write(desk.path("ids.csv"), format!("id,{}\n{rows}", columns.join(","))).unwrap();
    let ids = succeeded(&desk.line("report d.safetensors --id test.safetensors --ood x=ids.csv --bootstrap 0 --quiet"));
    assert!(ids.contains("&lt;img src=x") && ids.contains("a\\u{202e}b"), "names of inputs are shown");
    assert!(!ids.contains("<img") && !ids.contains("<b>") && !ids.contains('\u{202e}') && ids.len() < 400_000);
    assert_eq!(page.matches("<script>").count(), 1, "the page's own");
    assert!(page.contains("<h2>Advice</h2>"), "whose sentences hold names too");
    let text = succeeded(&desk.run(&[
        "eval",
        "d.safetensors",
        "--id",
        "test.safetensors",
        "--ood",
        &set,
        "--bootstrap",
        "20",
    ]));
    assert!(text.contains("Advice") && !text.contains('\u{202e}'));
    assert!(!page.contains('\u{202e}') && page.contains("&lt;script&gt;"));
    assert!(page.contains("default-src 'none'"));
}

#[test]
fn scores_are_drawn_in_a_terminal() {
    let desk = Desk::fitted(&["energy"]);
    for set in ["test", "letters"] {
        succeeded(&desk.line(&format!("score d.safetensors {set}.safetensors -o {set}.csv --quiet")));
    }
    let draw = |locale: &str| {
        let mut command = desk.command();
        let plot = command.args(["plot", "id=test.csv", "letters.csv", "--bins", "20"]).env("LC_ALL", locale);
        succeeded(&plot.output().unwrap())
    };
    let lines = draw("C.UTF-8");
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[2].starts_with("id ") && lines[2].contains(" 349 ") && lines[3].starts_with("letters.csv"));
    assert!(
        lines[2..]
            .iter()
            .all(|line| line.contains('█') && line.chars().filter(|c| ('▁'..='█').contains(c)).count() == 20)
    );
    assert!(draw("C").is_ascii());
    let refused = desk.line("plot nowhere.csv");
    assert_eq!(refused.status.code(), Some(1));
    fs::write(desk.path("nan.csv"), "score\nnan\n").unwrap();
    assert_eq!(desk.line("plot nan.csv").status.code(), Some(1));
}

#[test]
fn scores_of_any_tool_and_no_set_make_pages() {
    let desk = Desk::fitted(&["energy"]);
    succeeded(&desk.line("score d.safetensors test.safetensors -o id.csv --quiet"));
    succeeded(&desk.line("score d.safetensors letters.safetensors -o ood.csv --quiet"));
    let page = succeeded(&desk.line("report --scores --id id.csv#score --ood letters=ood.csv#score --quiet"));
    assert!(page.starts_with("<!doctype html>") && page.contains("None of these detectors has a threshold"));
    let alone = succeeded(&desk.line("report d.safetensors --id test.safetensors --quiet"));
    assert!(alone.contains("on in-distribution inputs alone") && alone.contains("<h2>Decisions</h2>"));
    let refused = desk.line("report d.safetensors --id nowhere.npy -o r.html");
    assert_eq!(refused.status.code(), Some(1));
    assert!(!desk.path("r.html").exists());
}
