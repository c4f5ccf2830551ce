//! An account as text of one screen.

use std::fmt::Write;

use dice_ood::explanation::Neighbour;

use super::Account;
use super::words::LISTED;
use crate::names::shown;
use crate::report::{Table, count};

/// Tables are fitted to a width where one is given.
pub(super) fn text(account: &Account, width: Option<usize>) -> String {
    let input = &account.input;
    let place = if input.file.is_empty() { String::new() } else { format!("{}, ", shown(&input.file)) };
    let mut text =
        format!("\x1b[1m{place}row {}, id {}, by {}\x1b[0m\n", input.row, shown(&input.id), account.why.detector);
    let sentences = [Some(account.verdict()), Some(account.score()), account.because(), Some(account.prediction())];
    for sentence in sentences.into_iter().flatten().chain(account.members()).chain(account.company()) {
        let _ = writeln!(text, "{sentence}");
    }
    for table in [units(account), classes(account), members(account), neighbours(account)].into_iter().flatten() {
        let _ = write!(text, "\n{}", table.fitted(width));
    }
    if let Some(pruning) = account.pruning() {
        let _ = writeln!(text, "\n{pruning}");
    }
    text
}

fn units(account: &Account) -> Option<Table> {
    let (lowering, raising) = (account.lowering(), account.raising());
    let listed = lowering.iter().take(LISTED).chain(raising.iter().take(LISTED).rev());
    let pruned = account.why.pruning.is_some();
    let mut header = vec!["unit", "activation", "training mean", "share of score"];
    if pruned {
        header.push("kept");
    }
    let kept = if pruned {
        format!("; kept: the weight for class {}", account.class_names.show(account.why.prediction))
    } else {
        String::new()
    };
    let title = format!("Units (share: the score less what it is with that unit at its mean{kept})");
    let mut table = Table::new(title, &header, 1);
    for unit in listed {
        let mut row = vec![
            account.unit(unit.unit),
            format!("{:.4}", unit.activation),
            format!("{:.4}", unit.mean),
            format!("{:+.4}", unit.share),
        ];
        if pruned {
            row.push(if unit.kept == Some(true) { "yes" } else { "no" }.into());
        }
        table.rows.push(row);
    }
    (!table.rows.is_empty()).then_some(table)
}

fn classes(account: &Account) -> Option<Table> {
    let changed = account.why.classes.iter().any(|class| class.logit != class.dense_logit);
    let title = match changed {
        true => format!(
            "Classes (share in the sum of exponentials; logits of `{}` beside the dense ones)",
            account.why.pipeline
        ),
        false => "Classes (share in the sum of exponentials)".into(),
    };
    let header: &[&str] =
        if changed { &["class", "logit", "share", "dense logit", "dense share"] } else { &["class", "logit", "share"] };
    let mut table = Table::new(title, header, 1);
    for class in account.classes_by_logit().into_iter().take(LISTED).map(|class| &account.why.classes[class]) {
        let mut row =
            vec![account.class_names.show(class.class), format!("{:.4}", class.logit), format!("{:.4}", class.share)];
        if changed {
            row.extend([format!("{:.4}", class.dense_logit), format!("{:.4}", class.dense_share)]);
        }
        table.rows.push(row);
    }
    Some(table)
}

fn members(account: &Account) -> Option<Table> {
    let header = ["member", "weight", "score", "p-value", "vote", "usual vote"];
    let mut table = Table::new("Members (the lower a vote, the more it speaks against the input)", &header, 1);
    for member in &account.why.members {
        table.rows.push(vec![
            member.detector.clone(),
            member.weight.to_string(),
            format!("{:.4}", member.score),
            format!("{:.4}", member.p_value),
            format!("{:.3}", member.vote),
            format!("{:.3}", member.usual_vote),
        ]);
    }
    (!table.rows.is_empty()).then_some(table)
}

fn neighbours(account: &Account) -> Option<Table> {
    let title = match (&account.training, account.training_inputs) {
        (Some(_), _) => "Nearest training inputs".to_owned(),
        (None, Some(rows)) => format!("Nearest rows of the bank, of {} training inputs", count(rows as usize)),
        (None, None) => "Nearest rows of the bank".into(),
    };
    let mut table = Table::new(title, &["training input", "label", "cosine", "distance"], 1);
    for one in account.neighbours() {
        let label = one.label.map_or("-".into(), |label| label.to_string());
        table.rows.push(vec![name(one), label, format!("{:.4}", one.cosine), format!("{:.4}", one.distance)]);
    }
    (!table.rows.is_empty()).then_some(table)
}

/// What a training input is called: its id, else its row.
pub(super) fn name(one: &Neighbour) -> String {
    match (&one.id, one.row, one.times) {
        (Some(id), ..) => shown(id),
        (None, Some(row), _) => match &one.file {
            Some(file) => format!("{} row {row}", shown(file)),
            None => format!("row {row}"),
        },
        (None, None, 1) => "a row of the bank".into(),
        (None, None, times) => format!("a row of the bank, seen {times} times"),
    }
}
