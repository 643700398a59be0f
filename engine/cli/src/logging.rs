//! Diagnostic messages on standard error, for debugging tidegate itself.

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
};

/// Environment variable with the log filter: a level such as `debug`, or directives such as
/// `tidegate_core::launch=trace,info`. It takes precedence over `--verbose`.
pub const VARIABLE: &str = "TIDEGATE_LOG";

/// Crates that emit messages. A directive without a level must start with one of them: any other word is a
/// misspelled level.
const CRATES: [&str; 5] = ["tidegate", "tidegate_core", "tidegate_selftest", "aya", "aya_obj"];

/// Starts logging. `verbose` counts the `-v` flags: 0 shows warnings and errors, 3 or more everything.
///
/// # Errors
/// When [`VARIABLE`] is set and is not a valid filter.
pub fn start(verbose: u8) -> Result<(), String> {
    let filter = match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => {
            parse(&text).map_err(|error| format!("invalid log filter {VARIABLE}={text}: {error}"))?
        }
        _ => Targets::new().with_default(level(verbose)),
    };
    let messages = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // These would go to standard error too, and panic when that is closed.
        .log_internal_errors(false);
    let subscriber = tracing_subscriber::registry().with(filter).with(messages);
    // Fails only when a subscriber is set already; that one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn parse(text: &str) -> Result<Targets, String> {
    for directive in text.split(',').map(str::trim) {
        let (target, level) = match directive.split_once('=') {
            Some((target, level)) => (target, Some(level)),
            None if is_level(directive) => continue,
            None => (directive, None),
        };
        if let Some(level) = level
            && !is_level(level)
        {
            return Err(format!("`{level}` is not a level"));
        }
        let name = target.split("::").next().unwrap_or_default();
        if level.is_none() && !CRATES.contains(&name) {
            return Err(format!(
                "`{directive}` is neither a level nor a module of tidegate"
            ));
        }
    }
    text.parse().map_err(|error| format!("{error}"))
}

/// The parser accepts an empty level as `error`.
fn is_level(text: &str) -> bool {
    !text.is_empty() && text.parse::<LevelFilter>().is_ok()
}

fn level(verbose: u8) -> LevelFilter {
    match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn filters_choose_a_level_per_module() {
        let filter = parse("info,tidegate_core::launch=trace").unwrap();
        assert!(filter.would_enable("tidegate_core::launch::spawn", &Level::TRACE));
        assert!(filter.would_enable("tidegate::cli", &Level::INFO));
        assert!(!filter.would_enable("tidegate::cli", &Level::DEBUG));
        assert!(parse("debug").unwrap().would_enable("aya", &Level::DEBUG));
        assert!(parse("tidegate").unwrap().would_enable("tidegate", &Level::TRACE));
        assert!(!parse("off").unwrap().would_enable("tidegate", &Level::ERROR));
    }

    #[test]
    fn misspelled_filters_are_errors() {
        assert_eq!(parse("tidegate=loud").unwrap_err(), "`loud` is not a level");
        for wrong in ["debgu", "tidegate=", "info,", "tidegate[span]=info=debug"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
