//! Bounds on memory. They hold for the process, however many threads decode.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// The most units that a row of features may have: a row of 16 MiB.
pub(crate) const MOST_UNITS: usize = 1 << 22;
/// The most bytes in the id of an input.
pub(crate) const LONGEST_ID: usize = 1 << 16;
/// Bytes of ids after which a block ends.
pub(crate) const BLOCK_IDS: usize = 16 << 20;

/// Refuses rows wider than [`MOST_UNITS`].
pub(crate) fn check_units(units: usize) -> Result<()> {
    if units <= MOST_UNITS {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Shape, format!("rows of {units} units"))
        .tensor("features")
        .expected(format!("at most {MOST_UNITS}"))
        .fix("are these the features that enter the head?"))
}

/// `id`, which is that of the input at `row`; refused where it is longer than [`LONGEST_ID`].
pub(crate) fn checked_id<T: AsRef<str>>(id: T, row: u64) -> Result<T> {
    let length = id.as_ref().len();
    if length <= LONGEST_ID {
        return Ok(id);
    }
    Err(Error::new(ErrorKind::Unsupported, format!("an id of {length} bytes at row {row}"))
        .tensor("ids")
        .expected(format!("at most {LONGEST_ID} bytes"))
        .fix("name inputs by something shorter, such as their path"))
}

/// Memory that threads share: who takes a part waits until others have given back enough.
///
/// ```
/// # use dice_ood::io::Budget;
/// static MEGABYTE: Budget = Budget::new(1 << 20);
/// let mut half = MEGABYTE.take(1 << 19);
/// assert!(half.grow(1 << 19) && !half.grow(1), "all of it is taken");
/// ```
#[derive(Debug)]
pub struct Budget {
    most: u64,
    taken: Mutex<u64>,
    returned: Condvar,
}

/// A part of a [`Budget`], given back when it is dropped.
#[derive(Debug)]
pub struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    /// A budget of `most` bytes.
    pub const fn new(most: u64) -> Self {
        Self { most, taken: Mutex::new(0), returned: Condvar::new() }
    }

    /// Waits for `bytes`. More than the whole budget counts as the whole: it is then used alone.
    ///
    /// A thread that holds a share must not wait for another: the two would wait for each other.
    pub fn take(&self, bytes: u64) -> Share<'_> {
        let bytes = bytes.min(self.most);
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let too_much = |taken: &mut u64| *taken + bytes > self.most;
        let mut taken = self.returned.wait_while(taken, too_much).unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
        Share { budget: self, bytes }
    }
}

impl Share<'_> {
    /// Takes `more` bytes without waiting; whether they were there.
    pub fn grow(&mut self, more: u64) -> bool {
        let budget = self.budget;
        let mut taken = budget.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = taken.saturating_add(more) <= budget.most;
        if fits {
            *taken += more;
            self.bytes += more;
        }
        fits
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.returned.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn threads_together_hold_no_more_than_the_budget() {
        let (budget, held, most) = (Budget::new(100), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (budget, held, most) = (&budget, &held, &most);
                scope.spawn(move || {
                    for step in 0..200 {
                        let bytes = 1 + (thread * 37 + step * 11) % 90;
                        let mut share = budget.take(bytes);
                        let bytes = bytes + if share.grow(10) { 10 } else { 0 };
                        most.fetch_max(held.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                        held.fetch_sub(bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!((1..=100).contains(&most), "{most}");
        assert_eq!(*budget.taken.lock().unwrap(), 0);
    }

    #[test]
    fn more_than_there_is_is_all_of_it() {
        let budget = Budget::new(100);
        let mut all = budget.take(u64::MAX);
        assert!(!all.grow(1));
        drop(all);
        let mut half = budget.take(50);
        assert!(half.grow(50) && !half.grow(u64::MAX));
    }
}
