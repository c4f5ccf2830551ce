//! An account as one HTML page: no script, no other file, names from files escaped.

use std::fmt::Write;

use dice_ood::explanation::{Decided, Neighbour};

use super::Account;
use super::text::name;
use super::words::LISTED;
use crate::html::{COLOURS, Pictures, escaped, named};

/// Pixels of a side of a small picture.
const SIDE: u32 = 96;
/// Bytes of all pictures of a page together.
const MOST_BYTES: usize = 256 << 10;

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>dice explain</title>
<style>
"#;

const STYLE: &str = r#"* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 54rem; padding: 1.25rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.45rem; line-height: 1.3; margin: .2rem 0 .8rem; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p { margin: .4rem 0; }
.soft { color: var(--soft); font-size: .9rem; }
.rejected { color: var(--low); }
.accepted { color: var(--high); }
.scale { position: relative; height: .7rem; border-radius: .35rem; background: var(--panel); border: 1px solid var(--line); margin: .9rem 0 .3rem; overflow: hidden; }
.scale i { position: absolute; top: 0; bottom: 0; left: 0; background: var(--high); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; overflow-wrap: break-word; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; min-width: 4rem; }
td.bar { width: 30%; min-width: 5.5rem; padding-right: 0; }
td.bar i { display: block; height: .7rem; border-radius: .15rem; }
.low { background: var(--low); }
.high { background: var(--high); }
@media (max-width: 34rem) { th, td { padding: .3rem .25rem; font-size: .82rem; } td.bar { min-width: 2.5rem; width: 15%; } }
ul.cards { list-style: none; margin: 0; padding: 0; display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
ul.cards li { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem; font-size: .85rem; }
img { display: block; width: 96px; height: 96px; object-fit: contain; margin-bottom: .4rem; }
</style>
</head>
<body>
<main>
"#;

pub(super) fn page(account: &Account) -> String {
    let mut pictures = Pictures::new(SIDE, MOST_BYTES);
    let mut page = [HEAD, COLOURS, STYLE].concat();
    header(&mut page, account, &mut pictures);
    units(&mut page, account);
    classes(&mut page, account);
    members(&mut page, account);
    if let Some(pruning) = account.pruning() {
        let _ = writeln!(page, "<h2>What pruning removed</h2>\n<p>{}</p>", escaped(&pruning));
    }
    neighbours(&mut page, account, &mut pictures);
    page + "</main>\n</body>\n</html>\n"
}

fn header(page: &mut String, account: &Account, pictures: &mut Pictures) {
    let input = &account.input;
    let of = if input.file.is_empty() { String::new() } else { format!(" of {}", named(&input.file)) };
    let detector = escaped(&account.why.detector);
    let _ = writeln!(page, "<p class=\"soft\">{} · row {}{of} · by {detector}</p>", named(&input.id), input.row);
    let kind = match &account.why.decided {
        Some(decided) if decided.accepted => "accepted",
        Some(_) => "rejected",
        None => "soft",
    };
    let verdict = account.verdict();
    let mut letters = verdict.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let _ = writeln!(page, "<h1 class=\"{kind}\">{first}{}</h1>", escaped(letters.as_str()));
    page.push_str(&pictures.of(&input.id));
    if let Some(decided) = &account.why.decided {
        scale(page, decided);
    }
    let sentences =
        [Some(account.score()), account.because(), Some(account.prediction()), account.members(), account.company()];
    for sentence in sentences.into_iter().flatten() {
        let _ = writeln!(page, "<p>{}</p>", escaped(&sentence));
    }
}

/// Where the score lies among those of the calibration inputs.
fn scale(page: &mut String, decided: &Decided) {
    let width = 100.0 * decided.percentile;
    let _ = write!(
        page,
        "<div class=\"scale\" role=\"img\" aria-label=\"{width:.1} % of calibration inputs score at most this\"><i style=\"width:{width:.2}%\"></i></div>\n\
         <p class=\"soft\">Higher than {width:.1} % of the {} calibration inputs, or equal</p>\n",
        decided.calibration_inputs
    );
}

fn units(page: &mut String, account: &Account) {
    let (lowering, raising) = (account.lowering(), account.raising());
    let most = account.why.units.iter().map(|unit| unit.share.abs()).fold(f64::MIN_POSITIVE, f64::max);
    let pruned = account.why.pruning.is_some();
    *page += "<h2>Units</h2>\n<p class=\"soft\">Share: the score less what it is with that unit at its mean over the training inputs, and all others \
              as they are. Shares need not add up.</p>\n";
    let kept = if pruned { "<th>kept</th>" } else { "" };
    let _ = writeln!(
        page,
        "<div class=\"wide\"><table>\n<tr><th>unit</th><th>activation</th><th>mean</th><th>share</th>{kept}<td></td></tr>"
    );
    for unit in lowering.iter().take(LISTED).chain(raising.iter().take(LISTED).rev()) {
        let kept = match (pruned, unit.kept) {
            (true, Some(true)) => "<td>yes</td>",
            (true, _) => "<td>no</td>",
            (false, _) => "",
        };
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{:.3}</td><td>{:.3}</td><td>{:+.3}</td>{kept}{}</tr>",
            escaped(&account.unit(unit.unit)),
            unit.activation,
            unit.mean,
            unit.share,
            bar(unit.share.abs() / most, unit.share < 0.0)
        );
    }
    *page += "</table></div>\n";
}

fn classes(page: &mut String, account: &Account) {
    let changed = account.why.classes.iter().any(|class| class.logit != class.dense_logit);
    let of = if changed {
        format!("Logits of <bdi>{}</bdi> beside those of the whole head. ", escaped(&account.why.pipeline))
    } else {
        String::new()
    };
    let _ = writeln!(
        page,
        "<h2>Classes</h2>\n<p class=\"soft\">{of}Share: in the sum of exponentials whose log is the energy.</p>"
    );
    let dense = if changed { "<th>dense logit</th><th>dense share</th>" } else { "" };
    let _ = writeln!(
        page,
        "<div class=\"wide\"><table>\n<tr><th>class</th><th>logit</th><th>share</th>{dense}<td></td></tr>"
    );
    for class in account.classes_by_logit().into_iter().take(LISTED).map(|class| &account.why.classes[class]) {
        let dense = match changed {
            true => format!("<td>{:.3}</td><td>{:.3}</td>", class.dense_logit, class.dense_share),
            false => String::new(),
        };
        let _ = writeln!(
            page,
            "<tr><td>class {}</td><td>{:.3}</td><td>{:.3}</td>{dense}{}</tr>",
            escaped(&account.class_names.show(class.class)),
            class.logit,
            class.share,
            bar(class.share, false)
        );
    }
    *page += "</table></div>\n";
}

fn members(page: &mut String, account: &Account) {
    if account.why.members.is_empty() {
        return;
    }
    *page += "<h2>Members</h2>\n<p class=\"soft\">The lower a vote, the more the member speaks against the input; usual: the median over \
              in-distribution inputs.</p>\n<div class=\"wide\"><table>\n\
              <tr><th>member</th><th>weight</th><th>score</th><th>p-value</th><th>vote</th><th>usual</th></tr>\n";
    for member in &account.why.members {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{:.4}</td><td>{:.4}</td><td>{:.3}</td><td>{:.3}</td></tr>",
            escaped(&member.detector),
            member.weight,
            member.score,
            member.p_value,
            member.vote,
            member.usual_vote
        );
    }
    *page += "</table></div>\n";
}

fn neighbours(page: &mut String, account: &Account, pictures: &mut Pictures) {
    if account.neighbours().is_empty() {
        return;
    }
    *page += "<h2>Nearest training inputs</h2>\n<ul class=\"cards\">\n";
    for one in account.neighbours() {
        let picture = one.id.as_deref().map(|id| pictures.of(id)).unwrap_or_default();
        let Neighbour { cosine, distance, .. } = one;
        let label = one.label.map_or(String::new(), |label| format!("label {label}<br>"));
        let _ = writeln!(
            page,
            "<li>{picture}{}<br>{label}cosine {cosine:.4}<br>distance {distance:.4}</li>",
            named(&name(one))
        );
    }
    *page += "</ul>\n";
}

/// A bar of a share of the width, of the colour of what lowers a score or raises it.
fn bar(share: f64, lowers: bool) -> String {
    let kind = if lowers { "low" } else { "high" };
    format!("<td class=\"bar\"><i class=\"{kind}\" style=\"width:{:.1}%\"></i></td>", 100.0 * share.clamp(0.0, 1.0))
}
