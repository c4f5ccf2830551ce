//! Decoders of other crates, which may panic on bytes that their authors did not foresee.

#[cfg(any(feature = "columns", feature = "torch"))]
use std::error::Error as StdError;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[cfg(any(feature = "columns", feature = "torch"))]
use crate::error::Error;

/// Runs a decoder of another crate. `wrong` makes the error, of the first line of what the decoder says or of its panic.
///
/// # Errors
/// What `wrong` makes; the decoder's own error is its source.
#[cfg(any(feature = "columns", feature = "torch"))]
pub(crate) fn decode<T, E: StdError + Send + Sync + 'static>(
    work: impl FnOnce() -> Result<T, E>,
    wrong: impl FnOnce(&str) -> Error,
) -> Result<T, Error> {
    match caught(work) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(cause)) => Err(wrong(&first_line(&cause)).because(cause)),
        Err(panicked) => Err(wrong(&panicked)),
    }
}

/// Runs the work of another crate: a panic is an error like any other, and of either only the first line is kept.
///
/// # Errors
/// The first line of what `work` says, or of its panic.
pub fn guard<T, E: Display>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    caught(work)?.map_err(|error| first_line(&error))
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        format!("the decoder gave up: {}", first_line(&said.unwrap_or("no reason given")))
    })
}

fn first_line(text: &impl Display) -> String {
    text.to_string().lines().next().unwrap_or_default().to_owned()
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
