//! `dice methods` and the documentation page that it makes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::path::Path;

use common::{Desk, succeeded};

fn printed(arguments: &[&str]) -> String {
    let output = Desk::new().run(arguments);
    succeeded(&output);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_documentation_page_is_the_current_one() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/METHODS.md");
    let written = std::fs::read_to_string(page).unwrap();
    assert!(printed(&["methods", "--format", "markdown"]) == written, "make methods writes it again");
}

#[test]
fn every_method_is_told_in_every_format() {
    let json: serde_json::Value = serde_json::from_str(&printed(&["methods", "--format", "json"])).unwrap();
    let methods = json.as_array().unwrap();
    let (table, fit) = (printed(&["methods"]), printed(&["fit", "--help"]));
    let here = || methods.iter().filter(|method| method["role"] != "absent");
    assert!(here().count() >= 14);
    for method in here() {
        let name = method["name"].as_str().unwrap();
        assert!(table.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}");
        assert!(fit.contains(name), "{name}");
        let account = printed(&["methods", name]);
        for part in ["formula", "source", "needs", "cost", "example"] {
            assert!(account.contains(part), "{name}: {part}");
        }
        for parameter in method["parameters"].as_array().unwrap() {
            assert!(account.contains(parameter["name"].as_str().unwrap()), "{name}");
        }
    }
    for method in methods.iter().filter(|method| method["role"] == "absent") {
        let (name, reason) = (method["name"].as_str().unwrap(), method["reason"].as_str().unwrap());
        assert!(table.lines().any(|line| line.trim_start().starts_with(name) && line.ends_with(reason)), "{name}");
        assert!(printed(&["methods", name]).contains(reason), "{name}");
    }
    let unknown = Desk::new().run(&["methods", "enrgy"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("energy"));
}
