//! What commands print on a terminal, by the real binary behind a pseudo-terminal of `script`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::process::Command;

use common::{Desk, succeeded};

/// What `dice` and these words print on a terminal of so many columns; nothing where there is no `script`.
fn on_terminal(desk: &Desk, words: &str, settings: &[(&str, &str)]) -> Option<String> {
    let line = format!("{} {words}", env!("CARGO_BIN_EXE_dice"));
    let mut command = Command::new("script");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(desk.path(""));
    command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR").env_remove("COLUMNS");
    command.envs(settings.iter().copied());
    let Ok(output) = command.output() else {
        println!("skipped: terminal: there is no `script` to make one with");
        return None;
    };
    Some(succeeded(&output).replace('\r', ""))
}

/// Without what only a terminal shows: colours and progress.
fn lines(text: &str) -> Vec<String> {
    let text = anstream::adapter::strip_str(text).to_string();
    text.lines().map(str::to_owned).collect()
}

const EVAL: &str = "eval d.safetensors --id test.safetensors --ood near:letters=letters.safetensors --ood far:photos=photos.safetensors \
                    --bootstrap 20 --quiet";

#[test]
fn tables_fit_the_terminal_and_say_what_they_leave_out() {
    let desk = Desk::fitted(&["react(0.9) | dice(0.9) | energy", "energy"]);
    let commands = [
        EVAL,
        "sweep d.safetensors -d 'dice(P) | energy' --grid P=0.5,0.9 --id test.safetensors --ood letters=letters.safetensors --quiet",
        "methods",
        "explain d.safetensors photos.safetensors --row 3",
        "plot test.csv letters.csv",
    ];
    for set in ["test", "letters"] {
        succeeded(&desk.line(&format!("score d.safetensors {set}.safetensors -o {set}.csv --quiet")));
    }
    for words in commands {
        for columns in ["60", "100", "400"] {
            let Some(text) = on_terminal(&desk, words, &[("COLUMNS", columns)]) else { return };
            let wide: usize = columns.parse().unwrap();
            // Sentences are the terminal's own to break; a table ends where an empty line or text does.
            let rules = |line: &&String| line.starts_with("-----");
            let lines = lines(&text);
            assert!(lines.iter().any(|line| rules(&line)), "{words}: {text}");
            assert!(lines.iter().filter(rules).all(|line| line.len() <= wide), "{words} at {columns}: {text}");
            for (place, _) in lines.iter().enumerate().filter(|(_, line)| rules(line)) {
                let table = lines[place - 1..].iter().take_while(|line| !line.is_empty());
                assert!(table.clone().take(3).all(|line| line.chars().count() <= wide), "{words} at {columns}: {text}");
            }
            assert_eq!(
                wide < 400 && text.contains("Too wide to be shown"),
                lines.join(" ").contains("| cat"),
                "{words}: {text}"
            );
        }
    }
}

#[test]
fn eval_leaves_out_intervals_first_and_a_pipe_nothing() {
    let desk = Desk::fitted(&["react(0.9) | dice(0.9) | energy", "energy"]);
    let Some(narrow) = on_terminal(&desk, EVAL, &[("COLUMNS", "80")]) else { return };
    let told = lines(&narrow).join(" ");
    assert!(
        told.contains("Too wide to be shown:") && told.contains("OOD scores;") && told.contains("FPR@95TPR"),
        "{narrow}"
    );
    assert!(lines(&narrow).iter().any(|line| line == "energy"), "names are wrapped: {narrow}");
    let wide = on_terminal(&desk, EVAL, &[("COLUMNS", "300")]).unwrap();
    assert!(!wide.contains("Too wide") && wide.contains("ID scores") && wide.contains('█'), "{wide}");
    let ascii = on_terminal(&desk, EVAL, &[("COLUMNS", "300"), ("LC_ALL", "C")]).unwrap();
    assert!(!ascii.contains("ID scores") && !ascii.contains('█'), "{ascii}");
    let piped =
        desk.command().args(EVAL.split_whitespace()).env("COLUMNS", "20").env("LC_ALL", "C.UTF-8").output().unwrap();
    let piped = succeeded(&piped);
    assert!(
        !piped.contains("Too wide")
            && !piped.contains("ID scores")
            && piped.contains("AUPR-out")
            && !piped.contains('\x1b')
    );
    on_terminal(&desk, &format!("{EVAL} -o t.txt"), &[("COLUMNS", "40")]).unwrap();
    assert_eq!(std::fs::read_to_string(desk.path("t.txt")).unwrap(), piped, "a file has no width");
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    let desk = Desk::fitted(&["energy"]);
    let Some(coloured) = on_terminal(&desk, EVAL, &[]) else { return };
    assert!(coloured.contains('\x1b'));
    let plain = on_terminal(&desk, EVAL, &[("NO_COLOR", "1")]).unwrap();
    assert!(!plain.contains('\x1b'), "{plain}");
}
