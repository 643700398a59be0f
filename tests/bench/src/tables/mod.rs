//! The measurements, one table each.

pub(crate) mod attached;
pub(crate) mod calls;
pub(crate) mod commands;
pub(crate) mod compiling;
pub(crate) mod events;

use crate::statistics::Spread;

/// Formats milliseconds.
fn ms(value: f64) -> String {
    format!("{value:.1}")
}

/// Formats a spread of milliseconds.
fn ms_spread(spread: Spread) -> String {
    format!("{:.1}..{:.1}", spread.p10, spread.p90)
}

/// Milliseconds since a start.
fn since(start: std::time::Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1000.0
}

/// Prints what is measured next.
pub(crate) fn progress(what: &str) {
    eprintln!("bench: {what}");
}
