//! What is known of the inputs before anything is fitted: how many there are, which labels they have, and whether they overlap.

use std::collections::BTreeMap;

use super::split::{self, Part};
use super::{Open, Options, Validation};
use crate::calibration::Calibration;
use crate::checks::{FEWEST, Witness, refuse_few};
use crate::error::{Error, ErrorKind, Missing, Result};
use crate::features::{Block, for_each_block};
use crate::head::LinearHead;
use crate::progress::Progress;
use crate::random::shuffle;

/// What is known of the inputs before anything is fitted.
pub(super) struct Survey {
    pub(super) id_rows: u64,
    /// How many inputs have each label; `None` where there are inputs without.
    labels: Option<BTreeMap<i64, u64>>,
    /// Name, rows and fingerprint of each set.
    pub(super) sets: Vec<(String, u64)>,
    pub(super) fingerprint: u64,
}

impl Survey {
    pub(super) fn of(
        head: &LinearHead,
        id: &Open<'_>,
        validation: &Validation<'_>,
        options: &Options,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let mut labels = Some(BTreeMap::new());
        let mut see = |block: &Block| match (&mut labels, &block.labels) {
            (Some(counts), Some(labels)) => labels.iter().for_each(|label| *counts.entry(*label).or_default() += 1),
            _ => labels = None,
        };
        let (mut witness, id_rows) = watched(head, id, "in-distribution inputs", &mut see, progress)?;
        let needed = Calibration::inputs_needed(options.tpr) as u64;
        let calibrating =
            (0..id_rows).filter(|row| split::part(split::ID, options.seed, *row) == Part::Calibration).count() as u64;
        if calibrating < needed {
            return Err(Error::new(ErrorKind::Calibration, format!("{id_rows} in-distribution inputs"))
                .expected(format!("at least {}: two of ten set the threshold, which takes {needed}", 5 * needed))
                .fix("give more in-distribution inputs"));
        }
        let mut survey = Self { id_rows, labels, sets: Vec::new(), fingerprint: witness.fingerprint() };
        // A distortion may leave what the network sees as it was: such stand-ins are dropped later, where no candidate tells them apart.
        let stand_ins = matches!(validation, Validation::StandIns(_));
        if let Validation::Sets(sets) | Validation::StandIns(sets) = validation {
            if sets.is_empty() {
                return Err(Error::new(ErrorKind::Argument, "none")
                    .argument("validation sets")
                    .expected("at least one"));
            }
            for (name, open) in sets {
                survey.add(head, (name, open), &mut witness, stand_ins, progress)?;
            }
        }
        Ok(survey)
    }

    fn add(
        &mut self,
        head: &LinearHead,
        (name, open): (&str, &Open<'_>),
        id: &mut Witness,
        stand_ins: bool,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        if self.sets.iter().any(|(known, _)| known == name) {
            return Err(Error::new(ErrorKind::Argument, format!("'{name}' twice"))
                .argument("validation sets")
                .expected("different names"));
        }
        let (mut witness, rows) = watched(head, open, name, &mut |_| (), progress)?;
        let named = |error: Error| error.argument(format!("validation set '{name}'"));
        refuse_few(rows, "half of them choose, the others report").map_err(named)?;
        match stand_ins {
            true => witness.refuse_alike().map_err(named)?,
            false => witness.refuse_shared(id).map_err(named)?,
        }
        self.fingerprint = self.fingerprint.rotate_left(7).wrapping_add(witness.fingerprint());
        self.sets.push((name.to_owned(), rows));
        Ok(())
    }

    /// Classes to hold out: chosen by seed from those that have enough inputs. Each becomes a set.
    pub(super) fn classes_to_hold_out(&mut self, head: &LinearHead, folds: usize, seed: u64) -> Result<Vec<i64>> {
        let wrong = |found: String, expected: &str| {
            Err(Error::new(ErrorKind::Argument, found).argument("held-out classes").expected(expected))
        };
        let Some(labels) = &self.labels else {
            return Err(Error::lacking(Missing::Labels, "in-distribution inputs without labels")
                .argument("held-out classes")
                .expected("the class of each input"));
        };
        let fit = |(label, rows): (&i64, &u64)| {
            ((0..head.classes() as i64).contains(label) && *rows >= FEWEST).then_some(*label)
        };
        let usable: Vec<i64> = labels.iter().filter_map(fit).collect();
        match (head.classes(), usable.len()) {
            (classes, _) if classes < 3 => {
                return wrong(format!("a head of {classes} classes"), "at least three: two are left without one");
            }
            (_, 0 | 1) => {
                let found = format!("inputs of {} class{}", usable.len(), if usable.len() == 1 { "" } else { "es" });
                return wrong(found, "at least ten inputs of each of two classes of the head");
            }
            _ => {}
        }
        let order = shuffle(usable.len(), seed);
        let mut chosen: Vec<i64> = order.into_iter().take(folds.max(1)).map(|place| usable[place]).collect();
        chosen.sort_unstable();
        self.sets.extend(chosen.iter().map(|class| (set_of_class(*class), labels[class])));
        Ok(chosen)
    }
}

/// The name of the set that a class is where it is held out.
pub(super) fn set_of_class(class: i64) -> String {
    format!("class {class}")
}

/// Reads a source once: what is needed to know of its rows, and how many there are.
fn watched(
    head: &LinearHead,
    open: &Open<'_>,
    name: &str,
    see: &mut dyn FnMut(&Block),
    progress: &mut dyn Progress,
) -> Result<(Witness, u64)> {
    let mut source = open()?;
    head.check_features(source.units())?;
    let (total, mut rows, mut witness) = (source.rows(), 0, Witness::new(head.classes()));
    for_each_block(&mut *source, |block| {
        witness.see(block);
        see(block);
        rows += block.rows() as u64;
        progress.advance(&format!("looking at {name}"), rows, total);
        Ok(())
    })?;
    Ok((witness, rows))
}
