//! What users can do about an error.

use std::error::Error;

/// An error that commands print. Every error that reaches the user implements it: the message says what is wrong, the hint what
/// to do.
pub trait Hint: Error {
    /// What to do about it, as a sentence without its full stop; `None` where nothing helps, or the message says it.
    fn hint(&self) -> Option<String> {
        None
    }
}
