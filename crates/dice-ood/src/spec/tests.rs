use super::*;
use crate::error::ErrorKind;
use crate::methods::METHODS;
use proptest::prelude::*;

fn any_pipeline() -> impl Strategy<Value = String> {
    let p = || (0.0f64..1.0).prop_map(|p| p.to_string());
    let shaping = prop_oneof![
        Just(String::new()),
        (0.001f64..=1.0).prop_map(|q| format!("react({q}) | ")),
        (0.001f64..10.0).prop_map(|c| format!("react(c={c}) | ")),
        p().prop_map(|p| format!("ash-s({p}) | ")),
    ];
    let sparsity = prop_oneof![
        Just(String::new()),
        (p(), prop_oneof![Just("official"), Just("openood"), Just("pytorch-ood"), Just("paper")])
            .prop_map(|(p, preset)| format!("dice({p}, preset={preset}) | ")),
        (p(), prop_oneof![Just("signed"), Just("absolute"), Just("absolute-mean")])
            .prop_map(|(p, ranked)| format!("dice({p}, contribution={ranked}, scope=per-class) | ")),
        (p(), any::<u64>()).prop_map(|(p, seed)| format!("weight-drop({p}, seed={seed}) | ")),
        (p(), any::<u64>()).prop_map(|(p, seed)| format!("unit-drop({p}, seed={seed}) | ")),
        p().prop_map(|p| format!("weight-prune({p}) | ")),
        p().prop_map(|p| format!("unit-prune({p}) | ")),
    ];
    let score = prop_oneof![
        (0.01f64..100.0).prop_map(|t| format!("energy(temperature={t})")),
        (0.01f64..100.0).prop_map(|t| format!("msp(T={t})")),
        Just("max-logit".to_owned()),
    ];
    (shaping, sparsity, score).prop_map(|(shaping, sparsity, score)| shaping + &sparsity + &score)
}

fn any_spec() -> impl Strategy<Value = String> {
    any_pipeline().prop_recursive(2, 8, 3, |inner| {
        prop::collection::vec((inner, 0.1f64..4.0), 1..3).prop_map(|members| {
            let members: Vec<String> = members.into_iter().map(|(spec, weight)| format!("{spec}*{weight}")).collect();
            format!("fisher({})", members.join(", "))
        })
    })
}

proptest! {
    #[test]
    fn prints_back_what_it_parsed(text in any_spec()) {
        let spec: Spec = text.parse().unwrap();
        let printed = spec.to_string();
        let again: Spec = printed.parse().unwrap();
        prop_assert_eq!(&again, &spec);
        prop_assert_eq!(again.to_string(), printed);
        prop_assert!(!spec.pipelines().is_empty());
    }

    #[test]
    fn any_text_parses_or_is_refused(text in "[a-z0-9(),=|*. é\n-]{0,40}") {
        if let Err(error) = text.parse::<Spec>() {
            prop_assert_eq!(error.kind(), ErrorKind::Spec);
        }
    }
}

fn message(text: &str) -> String {
    text.parse::<Spec>().unwrap_err().to_string()
}

#[test]
fn errors_point_at_the_character() {
    assert_eq!(
        message("dice(0.9) | enrgy"),
        "detector spec: unknown step `enrgy`, did you mean `energy`?\n  dice(0.9) | enrgy\n              ^^^^^"
    );
    for (text, expected) in [
        ("dice(90) | energy", "for 90 percent write 0.9"),
        ("dice(0.9)", "add `| energy`"),
        ("dice | energy", "needs its fraction of weights dropped, as in dice(0.9)"),
        ("energy | dice(0.9)", "nothing comes after the score"),
        ("dice(0.9) | react(0.9) | energy", "shaping comes first"),
        ("dice(0.9) | dice(0.8) | energy", "only one sparsity"),
        ("dice(0.9, preset=official, scope=per-class) | energy", "a preset copies a peer"),
        ("dice(0.9, preset=offical) | energy", "one of paper, official"),
        ("react | energy", "react(c=1)"),
        ("react(0.9, c=1) | energy", "one of the two"),
        ("react(c=0) | energy", "above 0"),
        ("energy(0.9)", "takes no such bare number"),
        ("energy(temperature=0)", "between 0.001 and 1000"),
        ("energy(z=1)", "has no argument `z`"),
        ("", "a step is missing"),
        ("dice(0.9", "expected `,` or `)`"),
        ("dice(p=0.9, p=0.8) | msp", "given twice"),
        ("dice(0.9) | knn(50)", "would change nothing"),
        ("fisher", "`fisher` of what"),
        ("fisher()", "a step is missing"),
        ("dice(0.9) | fisher(energy)", "stands alone"),
        ("fisher(energy*0)", "a weight above 0"),
        ("fisher(energy, knn(5)", "expected `,` or `)`"),
        ("knn(0)", "a whole number between 1"),
        ("odin", "`odin` (Liang, Li and Srikant, ICLR, 2018) is not here: "),
        ("fisher(energy, RankFeat)", "`rankfeat` (Song, Sebe and Wang, NeurIPS, 2022) is not here: "),
        ("dice(0.9, mean=shaped) | energy", "as in `ras | dice(0.9, mean=shaped)`"),
        ("unit-prune(0.9, mean=shaped) | energy", "as in `ras | unit-prune(0.9, mean=shaped)`"),
        ("ras | dice(0.9, mean=shaped, preset=official) | energy", "a preset copies a peer"),
        ("ras | line", "would change nothing"),
        ("weiper(bins=10, s1=11)", "at most `bins`"),
    ] {
        assert!(message(text).contains(expected), "{text}: {}", message(text));
    }
    let deep = "fisher(".repeat(100_000) + "energy";
    assert!(message(&deep).contains("deep"));
}

#[test]
fn defaults_are_not_printed() {
    let printed = |text: &str| text.parse::<Spec>().unwrap().to_string();
    assert_eq!(printed("dice( p=0.90,preset=paper )|energy(T=1)"), "dice(0.9) | energy");
    assert_eq!(printed("react(c=1.0)|max-logit"), "react(c=1) | max-logit");
    assert_eq!(printed("unit-drop(.5, seed=0)|msp"), "unit-drop(0.5) | msp");
    assert_eq!(printed("fisher(energy*1,knn(k=5)*2)"), "fisher(energy, knn(5)*2)");
}

#[test]
fn every_card_has_an_example_that_uses_it() {
    for entry in METHODS {
        let spec: Spec = entry.card.example.parse().unwrap();
        assert!(spec.to_string().contains(entry.card.name), "{}", entry.card.name);
    }
}
