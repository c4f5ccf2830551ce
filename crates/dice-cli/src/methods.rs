//! `dice methods`: what detectors are made of.

use std::fmt::Write;

use dice_ood::card::{Otherwise, Parameter};
use dice_ood::listing::{Listed, needs};
use dice_ood::methods::{Entry, METHODS};
use dice_ood::{ABSENT, Absent, Result, Spec};

use crate::measure::Measure;
use crate::report::{Format, Table};
use crate::said::{Context, print};

/// List the steps that detectors are made of, or tell all about one; known methods that are not here are told with the reason.
///
/// A detector is a pipeline, [SHAPING |] [SPARSITY |] SCORE, as in 'react(0.99) | dice(0.9) | energy', or a combination of
/// several, as in 'fisher(energy, knn(50))'. Scores are higher = more in-distribution.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Methods {
    /// The method to tell about; all by default.
    #[arg(value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    name: Option<String>,
    /// How to print.
    #[arg(long, default_value = "table")]
    format: MethodsFormat,
    #[command(flatten)]
    measure: Measure,
}

const EXAMPLES: &str = "Examples:
  dice methods
  dice methods knn
  dice methods --measure train.safetensors --head head.safetensors
  dice methods vim --measure train.safetensors --head head.safetensors --rows 50000 --format json";

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum MethodsFormat {
    /// For a terminal.
    Table,
    /// The documentation page.
    Markdown,
    /// Everything, for programs.
    Json,
}

impl From<MethodsFormat> for Format {
    fn from(format: MethodsFormat) -> Self {
        match format {
            MethodsFormat::Table => Self::Table,
            MethodsFormat::Markdown => Self::Markdown,
            MethodsFormat::Json => Self::Json,
        }
    }
}

/// Steps in the order in which a spec has them.
const ROLES: [(&str, &str); 4] = [
    ("shaping", "What is done to features before the head reads them"),
    ("sparsity", "Which weights of the head are kept"),
    ("score", "One number for an input"),
    ("combination", "One score of several"),
];

impl Methods {
    pub(crate) fn run(&self, context: &Context) -> Result<()> {
        let wanted = |name: &str| self.name.as_ref().is_none_or(|wanted| wanted == name);
        let entries: Vec<&Entry> = METHODS.iter().filter(|entry| wanted(entry.card.name)).collect();
        let absent: Vec<&Absent> = ABSENT.iter().filter(|absent| wanted(absent.name)).collect();
        if self.measure.is_wanted() {
            let specs: Vec<Spec> = entries.iter().map(|entry| Spec::of_method(entry)).collect::<Result<_>>()?;
            return print(&self.measure.tell(&specs, self.format.into(), context)?);
        }
        print(&match (self.format, entries.as_slice(), absent.as_slice()) {
            (MethodsFormat::Json, _, _) => json(&entries, &absent)?,
            (MethodsFormat::Markdown, _, _) => markdown(&entries, &absent),
            (MethodsFormat::Table, [entry], []) => account(entry),
            (MethodsFormat::Table, [], [absent]) => format!("{absent}\n"),
            (MethodsFormat::Table, _, _) => table(&entries, &absent),
        })
    }
}

/// Of all methods, here or not.
fn names() -> impl Iterator<Item = &'static str> {
    METHODS.iter().map(|entry| entry.card.name).chain(ABSENT.iter().map(|absent| absent.name))
}

fn table(entries: &[&Entry], absent: &[&Absent]) -> String {
    let mut table = Table::new("", &["method", "is a", "what it does", "example"], 4);
    for (role, _) in ROLES {
        for entry in entries.iter().filter(|entry| entry.role() == role) {
            let card = entry.card;
            table.rows.push([card.name, role, card.about, card.example].map(str::to_owned).to_vec());
        }
    }
    let mut text = table.on_terminal();
    text += "\nNot here, because:\n";
    absent.iter().for_each(|absent| text += &format!("  {:10}{}\n", absent.name, absent.reason));
    text + "\n`dice methods NAME` tells formula, source, parameters, needs and cost.\n"
}

fn account(entry: &Entry) -> String {
    let card = entry.card;
    let mut text = format!("{} ({}): {}\n", card.name, entry.role(), card.about);
    let _ = writeln!(text, "  formula     {}", card.formula);
    let _ = writeln!(text, "  source      {}, {}", card.paper, card.year);
    for parameter in card.parameters {
        let _ = writeln!(text, "  {:11} {}; {}", parameter.name, parameter.about, range(parameter));
    }
    let _ = writeln!(text, "  needs       {}", needs(entry).join("; "));
    let _ = writeln!(text, "  cost        {}", card.cost);
    let _ = writeln!(text, "  ONNX export {}", if card.exports { "yes" } else { "no" });
    let _ = writeln!(text, "  example     {}", card.example);
    text
}

fn markdown(entries: &[&Entry], absent: &[&Absent]) -> String {
    let mut text = "# Methods\n\nMade by `dice methods --format markdown`. A detector is a pipeline, `[shaping |] [sparsity |] \
                    score`, or a combination of several; scores are higher = more in-distribution. In formulae `h` are the \
                    penultimate features `[D]`, `f` the logits `[C]`, `P` their softmax and `y` the predicted class.\n"
        .to_owned();
    for (role, title) in ROLES {
        let of_role: Vec<&&Entry> = entries.iter().filter(|entry| entry.role() == role).collect();
        if !of_role.is_empty() {
            let _ = writeln!(text, "\n## {title}");
        }
        for entry in of_role {
            let card = entry.card;
            let _ = writeln!(text, "\n### `{}`\n\n{}: `{}`\n", card.name, capital(card.about), card.formula);
            let _ = writeln!(text, "- Source: {}, {}.", card.paper, card.year);
            for parameter in card.parameters {
                let bare = if parameter.bare { ", written without its name" } else { "" };
                let _ = writeln!(text, "- `{}`{bare}: {}; {}.", parameter.name, parameter.about, range(parameter));
            }
            let _ = writeln!(text, "- Needs: {}.", needs(entry).join("; "));
            let _ = writeln!(text, "- Cost: {}.", card.cost);
            let _ = writeln!(text, "- ONNX export: {}.", if card.exports { "yes" } else { "no" });
            let _ = writeln!(text, "- Example: `{}`.", card.example);
        }
    }
    if !absent.is_empty() {
        text += "\n## Not here, because\n\n";
    }
    for Absent { name, paper, year, reason } in absent {
        let _ = writeln!(text, "- `{name}` ({paper}, {year}): {reason}.");
    }
    text
}

fn json(entries: &[&Entry], absent: &[&Absent]) -> Result<String> {
    let here = entries.iter().map(|entry| Listed::Here((*entry).into()));
    let listed: Vec<Listed> = here.chain(absent.iter().map(|absent| Listed::Absent((*absent).into()))).collect();
    crate::report::json(&listed)
}

fn range(parameter: &Parameter) -> String {
    let range = parameter.kind;
    match parameter.otherwise {
        Otherwise::Required => range.to_string(),
        Otherwise::Absent => format!("{range}; may be left out"),
        Otherwise::Default(value) => format!("{range}; {value} by default"),
    }
}

/// The steps of each role, for help texts.
pub(crate) fn steps() -> String {
    ROLES.iter().fold(String::new(), |mut text, (role, _)| {
        let of_role = METHODS.iter().filter(|entry| entry.role() == *role);
        let names: Vec<&str> = of_role.map(|entry| entry.card.name).collect();
        let _ = write!(text, "\n  {role:12}{}", names.join(", "));
        text
    })
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
