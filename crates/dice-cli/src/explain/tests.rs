//! Accounts of made-up inputs with names that try to be more than names.

use dice_ood::explanation::{ClassShare, Decided, Explanation, MemberVote, Neighbour, Pruning, Removed, UnitShare};

use super::*;

fn neighbour(id: &str) -> Neighbour {
    Neighbour { id: Some(id.into()), file: None, row: Some(3), label: Some(1), times: 1, cosine: 0.9, distance: 2.0 }
}

/// An account in which everything that comes from a file is `name`.
fn account(name: &str) -> Account {
    let unit = |unit, share| UnitShare { unit, activation: 0.5, mean: 1.5, share, kept: Some(unit == 0) };
    let class = |class, logit: f64| ClassShare { class, dense_logit: logit + 0.5, dense_share: 0.5, logit, share: 0.5 };
    let member =
        MemberVote { detector: "energy".into(), weight: 2.0, score: 1.0, p_value: 0.01, vote: -9.2, usual_vote: -1.4 };
    Account {
        class_names: Classes::from(vec![name.to_owned(), name.to_owned()]),
        input: Input { file: name.into(), row: 7, id: name.into(), label: Some(1) },
        why: Explanation {
            detector: "dice(0.9) | energy".into(),
            score: 1.25,
            decided: Some(Decided {
                accepted: false,
                threshold: 2.5,
                promised_tpr: 0.95,
                p_value: 0.003,
                calibration_inputs: 999,
                calibration_at_most: 2,
                percentile: 2.0 / 999.0,
            }),
            prediction: 1,
            pipeline: "dice(0.9) | energy".into(),
            units: vec![unit(0, -0.75), unit(1, 0.25)],
            classes: vec![class(0, 0.5), class(1, 1.0)],
            pruning: Some(Pruning {
                weights: 4,
                weights_kept: 1,
                class_weights_kept: 1,
                dense_energy: 3.0,
                shaped_energy: 3.0,
                energy: 1.25,
                removed: 1.75,
                removed_positive: 2.0,
                removed_negative: -0.25,
                largest: vec![Removed { unit: 1, contribution: 2.0 }],
            }),
            members: vec![member],
            nearest: Vec::new(),
        },
        unit_names: vec![name.into(), name.into()],
        training_inputs: Some(100),
        training: Some(vec![neighbour(name), neighbour("plain.png")]),
    }
}

const HOSTILE: [&str; 6] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "&lt;b&gt; &amp; <b>",
    "\u{202e}gpj.exe\u{2066}\u{200f}",
    "first\nsecond\r\tthird\x1b[31m\u{2028}",
];

#[test]
fn names_from_files_stay_names_in_a_page() {
    let tags = |page: &str| page.matches('<').count();
    let plain = html::page(&account("plain"));
    for name in HOSTILE {
        let page = html::page(&account(name));
        // Every `<` is one of ours, so that no name opens a tag, and no attribute ends early.
        assert_eq!(tags(&page), tags(&plain), "{name}");
        assert_eq!(page.matches('"').count(), plain.matches('"').count(), "{name}");
        assert!(!page.contains("<script") && !page.contains("<img src=x"), "{name}");
        assert!(!page.contains(['\u{202e}', '\u{2066}', '\u{200f}', '\u{2028}', '\x1b', '\r', '\t']), "{name}");
    }
    let long = "x".repeat(10_000);
    assert!(html::page(&account(&long)).len() < plain.len() + 2_000);
    assert!(plain.contains("default-src 'none'") && !plain.contains("<script") && !plain.contains("http:"));
    assert!(plain.contains("prefers-color-scheme: dark") && plain.contains("width=device-width"));
}

#[test]
fn names_from_files_stay_on_their_line_in_text() {
    let lines = text::text(&account("plain"), None).lines().count();
    for name in HOSTILE {
        let told = anstream::adapter::strip_str(&text::text(&account(name), None)).to_string();
        assert_eq!(told.lines().count(), lines, "{name}");
        assert!(!told.contains(['\u{202e}', '\x1b', '\r', '\t', '\u{2028}']), "{name}");
    }
    assert!(lines <= 40, "{lines} lines are more than a screen");
}

#[test]
fn the_account_says_in_words_what_decided() {
    let named = text::text(&account("photo"), None);
    assert!(named.contains("takes it for class 1 (photo) (softmax 0.500), then class 0 (photo) (0.500);"), "{named}");
    let told = text::text(&Account { class_names: Classes::default(), ..account("photo") }, None);
    for part in [
        "rejected: 0.20 % of in-distribution inputs score this low or lower (2 of 999 calibration inputs).",
        "Mostly against it: unit 0 (photo) is 0.500 where training inputs have 1.500 on average (-0.750 of the score).",
        "The network takes it for class 1 (softmax 0.500), then class 0 (0.500); its label is 1.",
        "`energy` speaks most against the input: -9.200",
        "2 of the 2 nearest training inputs are of class 1.",
        "Dropping the others takes 1.7500 from the energy",
    ] {
        assert!(told.contains(part), "`{part}` is missing from:\n{told}");
    }
    let mut low = account("photo");
    low.why.score = -20.0;
    assert!(
        text::text(&low, None)
            .contains("No single unit explains it: the strongest, unit 0 (photo), takes 0.750 of the 22.500")
    );
    let mut accepted = account("photo");
    accepted.why.decided = accepted.why.decided.map(|decided| Decided { accepted: true, ..decided });
    assert!(text::text(&accepted, None).contains("Mostly for it: unit 1"));
    accepted.why.decided = None;
    assert!(text::text(&accepted, None).contains("not calibrated"));
}
