//! Tables in LaTeX, by the real binary and a real pdfTeX.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::fs;
use std::process::Command;

use common::{Desk, succeeded};

/// Names of sets with all that LaTeX takes for something else, or does not know.
const NAMES: [&str; 8] = [
    "a_b & 5 % #1 {x} $y$",
    "\\input{x} ^2 ~ <b> | \"it's\" `?",
    "[0.5] is no option",
    "*star",
    "a -- dash---",
    "é ß ł Ą « »",
    "漢字 ไทย",
    "\u{1}\u{202e}\n\nnot plain",
];
/// What a table needs of its document, on a sheet that the widest one fits.
const BEFORE: &str = "\\documentclass{article}\n\\usepackage{booktabs}\n\\usepackage[margin=1cm,paperwidth=200cm,paperheight=60cm]{geometry}\n\
                      \\setlength{\\parindent}{0pt}\n\\begin{document}\n";

/// The files that end in `.tex` in a folder of the desk.
fn tables(desk: &Desk, folder: &str) -> Vec<String> {
    let files = fs::read_dir(desk.path(folder)).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut tables: Vec<String> =
        files.filter(|name| name.ends_with(".tex")).map(|name| format!("{folder}/{name}")).collect();
    tables.sort();
    tables
}

#[test]
fn tables_typeset() {
    if Command::new("pdflatex").arg("--version").output().is_err() {
        println!(
            "skipped: LaTeX: there is no pdflatex, so that tables were not typeset (Debian: texlive-latex-base, texlive-latex-recommended)"
        );
        return;
    }
    let desk = Desk::fitted(&["energy", "dice(0.9) | energy"]);
    let sets: Vec<String> = NAMES.iter().map(|name| format!("{name}=letters.safetensors")).collect();
    let named = |command: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--ood", set]);
        let line: Vec<&str> = command.iter().copied().chain(sets).collect();
        succeeded(&desk.run(&line));
    };
    let compared = ["d.safetensors", "--id", "test.safetensors", "--bootstrap", "0", "--quiet"];
    named(&[&["report"], &compared[..], &["--no-ablations", "-o", "r.html", "--tables", "hostile"]].concat());
    named(&[&["eval"], &compared[..], &["--all-metrics", "-o", "hostile/eval.tex"]].concat());
    fs::create_dir(desk.path("net")).unwrap();
    for (file, name) in [("head", "head"), ("train", "id_train"), ("test", "id_test"), ("letters", "letters_a&b")] {
        let from = desk.path(&format!("{file}.safetensors"));
        fs::copy(from, desk.path(&format!("net/{name}.safetensors"))).unwrap();
    }
    succeeded(&desk.line("paper net -o out --quiet"));
    let tables = [tables(&desk, "hostile"), tables(&desk, "out/tables")].concat();
    assert!(tables.len() >= 12, "{tables:?}");
    let inputs: String = tables.iter().map(|table| format!("\\input{{{table}}}\n\n\\bigskip\n")).collect();
    fs::write(desk.path("all.tex"), format!("{BEFORE}{inputs}\\end{{document}}\n")).unwrap();
    let ran = Command::new("pdflatex")
        .args(["-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"])
        .current_dir(desk.folder.path())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && desk.path("all.pdf").is_file(), "{log}");
    let log = String::from_utf8_lossy(&fs::read(desk.path("all.log")).unwrap()).into_owned();
    for trouble in ["Missing character", "Overfull", "undefined"] {
        assert!(!log.contains(trouble), "{trouble}: {log}");
    }
}
