//! The number of rows and the sum of their features, by class.

use std::collections::BTreeMap;

use ndarray::Array1;
use rayon::prelude::*;

use crate::error::{Error, ErrorKind, Result};
use crate::state::{State, check_finite};

/// By class the number of rows and their sum `[D]`; grows with the classes that are there.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Classes(BTreeMap<i64, (u64, Vec<f64>)>);

/// A class: its number, how many rows it has, and their mean `[D]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassMean {
    /// Its number.
    pub class: i64,
    /// How many rows it has.
    pub rows: u64,
    /// The mean of their features, or of these on the unit sphere `[D]`.
    pub mean: Array1<f64>,
}

impl Classes {
    /// Adds rows in order, but those of class `None`; columns are split over threads, never rows.
    pub(super) fn add(&mut self, features: &[f32], classes: &[Option<i64>], units: usize) {
        for class in classes.iter().flatten() {
            self.0.entry(*class).or_insert_with(|| (0, vec![0.0; units])).0 += 1;
        }
        let places: BTreeMap<i64, usize> = self.0.keys().enumerate().map(|(place, class)| (*class, place)).collect();
        let share = units.div_ceil(rayon::current_num_threads()).max(64);
        let mut shares: Vec<Vec<&mut [f64]>> = (0..units.div_ceil(share)).map(|_| Vec::new()).collect();
        for (_, sums) in self.0.values_mut() {
            for (share, sums) in shares.iter_mut().zip(sums.chunks_mut(share)) {
                share.push(sums);
            }
        }
        shares.into_par_iter().enumerate().for_each(|(index, mut sums)| {
            for (row, class) in features.chunks_exact(units).zip(classes) {
                let Some(class) = class else { continue };
                for (sum, value) in sums[places[class]].iter_mut().zip(&row[index * share..]) {
                    *sum += f64::from(*value);
                }
            }
        });
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (class, (rows, sum)) in &other.0 {
            let mine = self.0.entry(*class).or_insert_with(|| (0, vec![0.0; sum.len()]));
            mine.0 = mine.0.saturating_add(*rows);
            for (mine, theirs) in mine.1.iter_mut().zip(sum) {
                *mine += theirs;
            }
        }
    }

    /// Rows of all classes.
    pub(super) fn total(&self) -> u64 {
        self.0.values().fold(0, |total, (rows, _)| total.saturating_add(*rows))
    }

    pub(super) fn means(&self) -> Vec<ClassMean> {
        let mean = |(class, (rows, sum)): (&i64, &(u64, Vec<f64>))| ClassMean {
            class: *class,
            rows: *rows,
            mean: sum.iter().map(|sum| sum / (*rows).max(1) as f64).collect(),
        };
        self.0.iter().map(mean).collect()
    }

    pub(super) fn save(&self, to: &mut State, units: usize) {
        let count = self.0.len();
        to.put("classes", &[count], self.0.keys().copied().collect::<Vec<i64>>());
        to.put("rows", &[count], self.0.values().map(|(rows, _)| *rows).collect::<Vec<u64>>());
        let sums: Vec<f64> = self.0.values().flat_map(|(_, sums)| sums.iter().copied()).collect();
        to.put("sums", &[count, units], sums);
    }

    pub(super) fn load(state: &mut State, units: usize) -> Result<Self> {
        let classes = state.take::<i64>("classes", &[None])?;
        let rows = state.take::<u64>("rows", &[Some(classes.len())])?;
        let sums = state.take::<f64>("sums", &[Some(classes.len()), Some(units)])?;
        check_finite("sums", &sums)?;
        if classes.windows(2).any(|pair| pair[0] >= pair[1]) || rows.contains(&0) {
            return Err(Error::new(ErrorKind::Malformed, "classes out of order, or without rows")
                .tensor("classes")
                .expected("ascending classes of at least one row"));
        }
        let parts = rows.iter().zip(sums.chunks_exact(units.max(1)));
        Ok(Self(classes.iter().zip(parts).map(|(class, (rows, sum))| (*class, (*rows, sum.to_vec()))).collect()))
    }
}
