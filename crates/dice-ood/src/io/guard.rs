//! Decoders of other crates, which may panic on bytes that their authors did not foresee.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs the work of another crate: a panic is an error like any other, and of either only the first line is kept.
///
/// # Errors
/// The first line of what `work` says, or of its panic.
pub fn guard<T, E: Display>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| first_line(&error.to_string())),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(format!("the decoder gave up: {}", first_line(said.unwrap_or("no reason given"))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_one_line() {
        assert_eq!(guard(|| Ok::<_, String>(1)), Ok(1));
        assert_eq!(guard(|| Err::<(), _>("first\nsecond")), Err("first".to_owned()));
        let panicked = guard(|| -> Result<(), String> { panic!("index {} is out\nof bounds", 7) });
        assert_eq!(panicked, Err("the decoder gave up: index 7 is out".to_owned()));
    }
}
