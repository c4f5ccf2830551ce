//! Inputs that are worth a look: mistakes, and those nearest to the threshold.

use std::fmt::Write;

use dice_ood::explanation::{Reason, UnitShare};

use super::Contents;
use super::parts::opened;
use crate::eval::Look;
use crate::html::{Pictures, escaped, named};

/// Pixels of a side of a small picture.
const SIDE: u32 = 48;
/// Bytes of all pictures of the page together.
const MOST_BYTES: usize = 128 << 10;
/// Units that are named of an input, on either side.
const LISTED: usize = 3;

pub(super) fn inputs(page: &Contents<'_>) -> String {
    let Some(first) = page.first().filter(|_| !page.looks.is_empty()) else { return String::new() };
    let threshold = first.decision.as_ref().map_or(0.0, |decision| decision.threshold);
    let mut text = format!(
        "<h2>Inputs worth a look</h2>\n<p class=\"soft\">By {}, whose threshold is {threshold:.4}: the mistakes furthest from it, and the inputs nearest \
         to it on both sides, three of a set. Units: by how much a unit's activation, in place of its mean over the training inputs, moves the \
         score.{}</p>\n",
        escaped(&first.detector),
        if page.looks.iter().all(|look| look.units.is_empty()) {
            " <code>dice explain</code> tells them of one input."
        } else {
            ""
        }
    );
    let columns = ["input", "score", "units that lower it", "units that raise it"].map(String::from);
    text += &opened("Inputs worth a look", "why", columns.into_iter());
    let mut pictures = Pictures::new(SIDE, MOST_BYTES);
    page.looks.iter().for_each(|look| text += &row(look, &mut pictures));
    text + "</tbody></table></div>\n"
}

fn row(Look { input, units }: &Look, pictures: &mut Pictures) -> String {
    let why = match input.reason {
        Reason::Mistake => "mistake",
        Reason::JustAccepted => "just accepted",
        Reason::JustRejected => "just rejected",
    };
    let mut sorted: Vec<&UnitShare> = units.iter().filter(|unit| unit.share != 0.0).collect();
    sorted.sort_by(|a, b| a.share.total_cmp(&b.share));
    let listed = |units: &mut dyn Iterator<Item = &&UnitShare>| {
        let units: Vec<String> = units.take(LISTED).map(|unit| format!("{} ({:+.3})", unit.unit, unit.share)).collect();
        if units.is_empty() { "-".to_owned() } else { units.join(", ") }
    };
    let mut text = format!("<tr><th scope=\"row\">{}, {why}</th>", named(&input.set));
    let _ = writeln!(
        text,
        "<td class=\"words\">{}{}</td><td>{:.4}</td><td class=\"words\">{}</td><td class=\"words\">{}</td></tr>",
        pictures.of(&input.id),
        named(&input.id),
        input.score,
        listed(&mut sorted.iter().filter(|unit| unit.share < 0.0)),
        listed(&mut sorted.iter().rev().filter(|unit| unit.share > 0.0))
    );
    text
}
