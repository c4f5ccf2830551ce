//! From text to a [`Spec`], over the cards of [`METHODS`]: a recursive descent whose errors point at a character.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use super::{MemberSpec, PipelineSpec, Spec, StemSpec};
use crate::absent::Absent;
use crate::card::{Arguments, Card, Otherwise, Parameter, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::methods::{Combination, Entry, METHODS, Make, Score};

/// Combinations within combinations, at most: text from outside must not exhaust the stack.
const DEEPEST: usize = 8;
/// Pipelines of a combination, at most.
const MOST_MEMBERS: usize = 64;

impl FromStr for Spec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0 };
        let spec = parser.spec(0)?;
        match parser.peek() {
            None => Ok(spec),
            Some(_) => Err(parser.error(parser.at, 1, "nothing comes after the score")),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// A word of the text and where it stands.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn spec(&mut self, depth: usize) -> Result<Spec> {
        let mut stem = StemSpec::default();
        let mut last = None;
        loop {
            let name = self.word();
            let entry = self.entry(name)?;
            match entry.make {
                Make::Combination(make) => {
                    if last.is_some() {
                        return Err(self.wrong(name, "a combination stands alone: shape and prune within its members"));
                    }
                    return self.combination(name, entry.card, make, depth);
                }
                Make::Shaping(make) => {
                    if last.is_some() {
                        return Err(self.wrong(name, "shaping comes first, and once"));
                    }
                    let given = self.arguments(name, entry.card)?;
                    stem.shaping = Some(make(&given).map_err(|message| self.wrong(name, message))?);
                }
                Make::Sparsity(make) => {
                    if stem.sparsity.is_some() {
                        return Err(self.wrong(name, "only one sparsity step, after any shaping"));
                    }
                    let given = self.arguments(name, entry.card)?;
                    let sparsity = make(&given).map_err(|message| self.wrong(name, message))?;
                    if sparsity.takes_shaped_mean() && stem.shaping.is_none() {
                        let message =
                            "`mean=shaped` is the mean of shaped features: put a shaping before it, as in `ras | ";
                        return Err(self.wrong(name, format!("{message}{}(0.9, mean=shaped)`", name.text)));
                    }
                    stem.sparsity = Some(sparsity);
                }
                Make::Score(make) => {
                    let given = self.arguments(name, entry.card)?;
                    let score = make(&given).map_err(|message| self.wrong(name, message))?;
                    self.check_reads(name, &*score, last)?;
                    return Ok(Spec::Pipeline(PipelineSpec { stem, score }));
                }
            }
            last = Some(name);
            if !self.eat('|') {
                return Err(self.error(self.at, 1, "a spec ends with a score: add `| energy`, say"));
            }
        }
    }

    /// A score that reads no logits does not see what is done to the features or the weights of the head.
    fn check_reads(&self, name: Word<'_>, score: &dyn Score, before: Option<Word<'_>>) -> Result<()> {
        match before {
            Some(before) if !score.takes().reads_logits() => Err(self.wrong(
                before,
                format!("`{}` reads features as they are: `{}` would change nothing", name.text, before.text),
            )),
            _ => Ok(()),
        }
    }

    fn combination(
        &mut self,
        name: Word<'a>,
        card: &'static Card,
        make: fn(&Arguments) -> std::result::Result<Arc<dyn Combination>, String>,
        depth: usize,
    ) -> Result<Spec> {
        if depth == DEEPEST {
            return Err(self.wrong(name, format!("combinations are at most {DEEPEST} deep")));
        }
        if !self.eat('(') {
            return Err(self.error(self.at, 1, format!("`{0}` of what? As in {1}", name.text, card.example)));
        }
        let (mut members, mut given) = (Vec::new(), vec![None; card.parameters.len()]);
        loop {
            // Members come first: what is named with `=` is a parameter of the rule.
            let start = self.at;
            let word = self.word();
            if self.eat('=') {
                let value = self.word();
                self.set(card, &mut given, name, Some(word), value)?;
            } else {
                self.at = start;
                members.push(self.member(depth)?);
            }
            if !self.eat(',') {
                break;
            }
        }
        self.close()?;
        let spec = |members| -> Result<Spec> {
            let rule = make(&self.complete(name, card, given)?).map_err(|message| self.wrong(name, message))?;
            Ok(Spec::Combined { rule, members })
        };
        let spec = spec(members)?;
        match spec.pipelines().len() {
            0 => Err(self.wrong(name, format!("`{}` of nothing", name.text))),
            1..=MOST_MEMBERS => Ok(spec),
            many => Err(self.wrong(name, format!("{many} members, expected at most {MOST_MEMBERS}"))),
        }
    }

    fn member(&mut self, depth: usize) -> Result<MemberSpec> {
        let spec = self.spec(depth + 1)?;
        if !self.eat('*') {
            return Ok(MemberSpec { spec, weight: 1.0 });
        }
        let word = self.word();
        match word.text.parse::<f64>() {
            Ok(weight) if weight.is_finite() && weight > 0.0 => Ok(MemberSpec { spec, weight }),
            _ => Err(self.wrong(word, "expected a weight above 0, as in energy*0.5")),
        }
    }

    /// The method called `name`.
    fn entry(&self, name: Word<'_>) -> Result<&'static Entry> {
        if name.text.is_empty() {
            return Err(self.error(name.at, 1, format!("a step is missing here; there are {}", names())));
        }
        Entry::find(name.text).ok_or_else(|| {
            let message = match (Absent::find(name.text), nearest(name.text)) {
                (Some(absent), _) => absent.to_string(),
                (None, Some(near)) => format!("unknown step `{}`, did you mean `{near}`?", name.text),
                (None, None) => format!("unknown step `{}`; there are {}", name.text, names()),
            };
            self.wrong(name, message)
        })
    }

    fn arguments(&mut self, name: Word<'a>, card: &'static Card) -> Result<Arguments> {
        let mut given = vec![None; card.parameters.len()];
        if self.eat('(') {
            loop {
                let word = self.word();
                match self.eat('=') {
                    true => {
                        let value = self.word();
                        self.set(card, &mut given, name, Some(word), value)?;
                    }
                    false => self.set(card, &mut given, name, None, word)?,
                }
                if !self.eat(',') {
                    break;
                }
            }
            self.close()?;
        }
        self.complete(name, card, given)
    }

    /// Takes one argument: `value`, of the parameter that `key` names or of the bare one.
    fn set(
        &self,
        card: &'static Card,
        given: &mut [Option<Value>],
        name: Word<'_>,
        key: Option<Word<'_>>,
        value: Word<'_>,
    ) -> Result<()> {
        if value.text.is_empty() {
            return Err(self.error(value.at, 1, "a value is missing here"));
        }
        let place = match key {
            None => card.parameters.iter().position(|parameter| parameter.bare),
            Some(key) => named(card, key.text),
        };
        let Some(place) = place else {
            return Err(match key {
                Some(key) => self.wrong(key, format!("`{}` has no argument `{}`", name.text, key.text)),
                None => self.wrong(value, format!("`{}` takes no such bare number", name.text)),
            });
        };
        let parameter = &card.parameters[place];
        if given[place].is_some() {
            return Err(self.wrong(value, format!("`{}` is given twice", parameter.name)));
        }
        let read = parameter.kind.read(value.text);
        given[place] = Some(read.map_err(|expected| {
            self.wrong(value, format!("`{}` of {} ({}) is {expected}", parameter.name, card.name, parameter.about))
        })?);
        Ok(())
    }

    /// What was given, and defaults for the rest.
    fn complete(&self, name: Word<'_>, card: &'static Card, given: Vec<Option<Value>>) -> Result<Arguments> {
        let complete = |(parameter, given): (&Parameter, Option<Value>)| match (given, parameter.otherwise) {
            (Some(value), _) | (None, Otherwise::Default(value)) => Ok(Some(value)),
            (None, Otherwise::Absent) => Ok(None),
            (None, Otherwise::Required) => {
                Err(self.wrong(name, format!("`{}` needs its {}, as in {}", card.name, parameter.about, card.example)))
            }
        };
        let values = card.parameters.iter().zip(given).map(complete).collect::<Result<Vec<_>>>()?;
        Ok(Arguments::new(card, values))
    }

    /// The next character that is not white space, without taking it.
    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn close(&mut self) -> Result<()> {
        if self.eat(')') { Ok(()) } else { Err(self.error(self.at, 1, "expected `,` or `)`")) }
    }

    fn word(&mut self) -> Word<'a> {
        self.peek();
        let rest = &self.text[self.at..];
        let length = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '_' | '.')))
            .unwrap_or(rest.len());
        let word = Word { text: &rest[..length], at: self.at };
        self.at += length;
        word
    }

    /// An error that points at `word`.
    fn wrong(&self, word: Word<'_>, message: impl Display) -> Error {
        self.error(word.at, word.text.len(), message)
    }

    /// An error that shows the spec and points at `length` bytes from `at`.
    fn error(&self, at: usize, length: usize, message: impl Display) -> Error {
        // The indent counts characters, so that the pointer stands right under any text.
        let indent = self.text[..at].chars().count();
        let shown: String = self.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let pointer = "^".repeat(length.max(1));
        Error::new(ErrorKind::Spec, format!("{message}\n  {shown}\n  {}{pointer}", " ".repeat(indent)))
            .argument("detector spec")
    }
}

/// The parameter that `key` names: by its name, or by a beginning of it that no other has.
fn named(card: &Card, key: &str) -> Option<usize> {
    let key = key.to_ascii_lowercase();
    if let Some(place) = card.parameters.iter().position(|parameter| parameter.name == key) {
        return Some(place);
    }
    let mut begin = (0..card.parameters.len()).filter(|place| card.parameters[*place].name.starts_with(&key));
    let first = begin.next().filter(|_| !key.is_empty());
    if begin.next().is_none() { first } else { None }
}

fn names() -> String {
    let names: Vec<&str> = METHODS.iter().map(|entry| entry.card.name).collect();
    names.join(", ")
}

/// The method whose name is at most two edits (with swaps) away.
fn nearest(name: &str) -> Option<&'static str> {
    let name: String = name.chars().take(32).collect::<String>().to_ascii_lowercase();
    METHODS
        .iter()
        .map(|entry| (strsim::damerau_levenshtein(&name, entry.card.name), entry.card.name))
        .min()
        .filter(|(edits, _)| *edits <= 2.min(name.chars().count() / 2))
        .map(|(_, known)| known)
}
