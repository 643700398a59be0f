//! Diagnostic messages on standard error, for those who look for a fault of ours.

use tracing_subscriber::EnvFilter;

/// The variable that chooses what is logged, such as `debug` or `tidegate::launch=trace`. It wins over
/// `--verbose`.
pub const VARIABLE: &str = "TIDEGATE_LOG";

/// Starts logging. `verbose` is how often `-v` was given: warnings, then more with each.
///
/// # Errors
/// What is wrong with the value of [`VARIABLE`].
pub fn start(verbose: u8) -> Result<(), String> {
    let filter = match std::env::var(VARIABLE) {
        Ok(wanted) if !wanted.is_empty() => EnvFilter::builder()
            .parse(&wanted)
            .map_err(|error| format!("cannot understand {VARIABLE}={wanted}: {error}"))?,
        _ => EnvFilter::new(level(verbose)),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would print them to standard error, and panic where that is gone.
        .log_internal_errors(false)
        .finish();
    // Fails only when somebody set another before us: then that one stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn level(verbose: u8) -> &'static str {
    match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    }
}
