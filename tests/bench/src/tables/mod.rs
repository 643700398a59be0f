//! The tables of the report.

pub(crate) mod attached;
pub(crate) mod calls;
pub(crate) mod commands;
pub(crate) mod compiling;
pub(crate) mod events;

use crate::statistics::Spread;

/// Milliseconds for people.
fn ms(value: f64) -> String {
    format!("{value:.1}")
}

/// A spread of milliseconds for people.
fn ms_spread(spread: Spread) -> String {
    format!("{:.1}..{:.1}", spread.p10, spread.p90)
}

/// Milliseconds since a start.
fn since(start: std::time::Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

/// Shows what is being measured.
pub(crate) fn progress(what: &str) {
    eprintln!("bench: {what}");
}
