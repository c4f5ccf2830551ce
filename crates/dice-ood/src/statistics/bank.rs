//! A uniform sample of training rows that does not depend on their order.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::error::{Error, ErrorKind, Missing, Result};
use crate::random::SplitMix64;
use crate::state::{State, check_finite};

/// Part of every hash, so that the sample is a fixed function of the rows.
const SEED: u64 = 0x6469_6365_2d6f_6f64;
/// Stands for the label of a row that has none.
const UNLABELLED: i64 = i64::MIN;

/// The distinct rows with the smallest hash of their bytes and label, at most `most` of them, each with the number of times
/// that it was seen.
///
/// Hashes do not depend on order, blocks, threads or parts, so merging is exact; where all distinct rows fit, the bank is
/// the training set. A row that is there many times takes one place and keeps its count: copies neither crowd out other
/// rows nor vanish.
#[derive(Debug, Clone)]
pub(crate) struct Bank {
    most: usize,
    /// Whether what it is gathered for takes labels.
    labelled: bool,
    units: usize,
    rows: BTreeMap<Key, u64>,
    flat: OnceLock<Arc<BankRows>>,
}

/// Ascending by hash; bytes settle what the hash cannot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    hash: u64,
    label: i64,
    row: Box<[u32]>,
}

/// The rows of a bank, in the order of their hashes: any beginning is a uniform sample too.
#[derive(Debug, Clone, PartialEq)]
pub struct BankRows {
    /// Distinct features `[M, D]`.
    pub features: Arc<[f32]>,
    /// D.
    pub units: usize,
    /// How often each was seen `[M]`.
    pub counts: Arc<[u64]>,
    /// Their labels `[M]`, where every row had one.
    pub labels: Option<Arc<[i64]>>,
    /// Whether every row that was seen is among these.
    pub complete: bool,
}

impl BankRows {
    /// The first `most` rows: what a bank of that size would hold.
    pub fn first(&self, most: usize) -> Self {
        let rows = self.counts.len();
        if rows <= most {
            return self.clone();
        }
        Self {
            features: self.features[..most * self.units].into(),
            units: self.units,
            counts: self.counts[..most].into(),
            labels: self.labels.as_ref().map(|labels| labels[..most].into()),
            complete: false,
        }
    }

    /// The class of each row, for `method`.
    ///
    /// # Errors
    /// [`Missing::Labels`] where rows have none, [`ErrorKind::Argument`] for one that is not below `classes`.
    pub(crate) fn labels_of(&self, method: &str, classes: usize) -> Result<Vec<usize>> {
        let Some(labels) = &self.labels else {
            return Err(Error::lacking(Missing::Labels, "training rows without labels")
                .tensor("labels")
                .expected(format!("a class for each row, for `{method}`")));
        };
        let class = |label: &i64| usize::try_from(*label).ok().filter(|class| *class < classes);
        let outside = |label: &i64| {
            Error::new(ErrorKind::Argument, label.to_string())
                .tensor("labels")
                .expected(format!("classes of the head, 0 to {}, for `{method}`", classes - 1))
        };
        labels.iter().map(|label| class(label).ok_or_else(|| outside(label))).collect()
    }
}

impl PartialEq for Bank {
    fn eq(&self, other: &Self) -> bool {
        self.most == other.most && self.rows == other.rows
    }
}

impl Bank {
    pub(super) fn new(units: usize, most: usize, labelled: bool) -> Self {
        Self { most, labelled, units, rows: BTreeMap::new(), flat: OnceLock::new() }
    }

    pub(super) fn add(&mut self, features: &[f32], labels: Option<&[i64]>) {
        self.flat = OnceLock::new();
        for (index, row) in features.chunks_exact(self.units).enumerate() {
            let label = labels.map_or(UNLABELLED, |labels| labels[index]);
            let hash = hash_of(row, label);
            let full = self.rows.len() >= self.most;
            if full && self.rows.last_key_value().is_none_or(|(last, _)| hash > last.hash) {
                continue;
            }
            self.insert(Key { hash, label, row: row.iter().map(|value| bits_of(*value)).collect() }, 1);
        }
    }

    fn insert(&mut self, key: Key, count: u64) {
        let slot = self.rows.entry(key).or_insert(0);
        *slot = slot.saturating_add(count);
        if self.rows.len() > self.most {
            self.rows.pop_last();
        }
    }

    pub(super) fn takes_labels(&self) -> bool {
        self.labelled
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.flat = OnceLock::new();
        self.most = self.most.min(other.most);
        for (key, count) in &other.rows {
            self.insert(key.clone(), *count);
        }
        while self.rows.len() > self.most {
            self.rows.pop_last();
        }
    }

    /// How many rows the counts add up to.
    pub(super) fn total(&self) -> u64 {
        self.rows.values().fold(0, |total, count| total.saturating_add(*count))
    }

    /// The rows; `seen` is how many rows there were in all.
    pub(super) fn rows(&self, seen: u64) -> &Arc<BankRows> {
        self.flat.get_or_init(|| {
            let keys = || self.rows.keys();
            Arc::new(BankRows {
                features: keys().flat_map(|key| key.row.iter().map(|bits| f32::from_bits(*bits))).collect(),
                units: self.units,
                counts: self.rows.values().copied().collect(),
                labels: keys().all(|key| key.label != UNLABELLED).then(|| keys().map(|key| key.label).collect()),
                complete: self.total() == seen,
            })
        })
    }

    pub(super) fn save(&self, to: &mut State, seen: u64) {
        let rows = self.rows(seen);
        let count = rows.counts.len();
        to.put("features", &[count, self.units], Arc::clone(&rows.features));
        to.put("counts", &[count], Arc::clone(&rows.counts));
        let labels: Vec<i64> = self.rows.keys().map(|key| key.label).collect();
        to.put("labels", &[count], labels);
        to.put("most", &[1], vec![self.most as u64]);
    }

    pub(super) fn load(state: &mut State, units: usize, seen: u64) -> Result<Self> {
        let (shape, features) = state.take_shaped::<f32>("features", &[None, Some(units)])?;
        let counts = state.take::<u64>("counts", &[Some(shape[0])])?;
        let labels = state.take::<i64>("labels", &[Some(shape[0])])?;
        let most = state.take::<u64>("most", &[Some(1)])?[0];
        check_finite("features", &features)?;
        let mut bank = Self::new(units, usize::try_from(most).unwrap_or(usize::MAX), false);
        for ((row, label), count) in features.chunks_exact(units.max(1)).zip(&*labels).zip(&*counts) {
            let key = Key { hash: hash_of(row, *label), label: *label, row: row.iter().map(|v| bits_of(*v)).collect() };
            let ascends = bank.rows.last_key_value().is_none_or(|(last, _)| *last < key);
            if !ascends || *count == 0 || bank.rows.len() >= bank.most {
                return Err(Error::new(ErrorKind::Malformed, "a row out of place")
                    .tensor("bank")
                    .expected("distinct rows in the order of their hashes, and no more than the bank holds"));
            }
            bank.rows.insert(key, *count);
        }
        // Shared with what was read, so that the file's bank is in memory once for all that rest on it.
        let shared = BankRows { features, counts, ..(**bank.rows(seen)).clone() };
        bank.flat = OnceLock::from(Arc::new(shared));
        Ok(bank)
    }
}

/// Negative zero is zero.
fn bits_of(value: f32) -> u32 {
    (value + 0.0).to_bits()
}

fn hash_of(row: &[f32], label: i64) -> u64 {
    row.iter().fold(SplitMix64::mix(SEED ^ label as u64), |hash, value| {
        SplitMix64::mix(hash.rotate_left(5) ^ u64::from(bits_of(*value)))
    })
}
