//! `cargo xtask setup`: finds the components that development needs, and installs missing ones.

mod component;
mod install;

use std::fmt::Write as _;

use anyhow::{Result, bail};
use component::Component;
pub(crate) use component::Purpose;

use crate::step::Outcome;

/// Prints a table of all components, and installs missing ones unless `check` is set.
///
/// # Errors
/// When a component is still missing at the end; the error has the commands to run.
pub(crate) fn run(check: bool) -> Result<()> {
    let components = component::survey(&Purpose::ALL);
    print!("{}", table(&components));
    if components.iter().all(Component::is_installed) {
        println!("all components are installed");
        return Ok(());
    }
    if check {
        bail!(
            "{}",
            missing(&components, "run `cargo xtask setup`, or these commands")
        );
    }
    install::install(&Purpose::ALL);
    let components = component::survey(&Purpose::ALL);
    print!("\n{}", table(&components));
    require_all(&components)?;
    println!("all components are installed");
    Ok(())
}

/// Installs the missing components of these purposes; prints nothing if there are none.
///
/// # Errors
/// As [`run`].
pub(crate) fn ensure(purposes: &[Purpose]) -> Result<()> {
    if component::survey(purposes).iter().all(Component::is_installed) {
        return Ok(());
    }
    install::install(purposes);
    require_all(&component::survey(purposes))
}

/// The step of `cargo xtask test`: like [`run`], but clients that only some integration tests use may be missing; those
/// tests are skipped.
///
/// # Errors
/// As [`run`].
pub(crate) fn step() -> Result<Outcome> {
    if let Err(error) = ensure(&Purpose::OF_TESTS) {
        println!("    {error:#}");
    }
    let components = component::survey(&Purpose::OF_TESTS);
    print!("{}", table(&components));
    let (clients, needed): (Vec<Component>, Vec<Component>) = components
        .into_iter()
        .partition(|component| component.purpose == Purpose::Integration);
    require_all(&needed)?;
    let reasons: Vec<String> = clients
        .iter()
        .filter(|component| !component.is_installed())
        .map(|component| format!("{} is missing: the integration tests that use it", component.name))
        .collect();
    Ok(if reasons.is_empty() {
        Outcome::Passed
    } else {
        Outcome::Skipped(reasons)
    })
}

fn require_all(components: &[Component]) -> Result<()> {
    if components.iter().all(Component::is_installed) {
        return Ok(());
    }
    bail!("{}", missing(components, "run"));
}

fn missing(components: &[Component], lead: &str) -> String {
    let absent: Vec<&Component> = components
        .iter()
        .filter(|component| !component.is_installed())
        .collect();
    let names: Vec<&str> = absent.iter().map(|component| component.name).collect();
    let mut text = format!("missing: {}; {lead}", names.join(", "));
    for line in install::manual_commands(&absent) {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n    {line}");
    }
    text
}

fn table(components: &[Component]) -> String {
    let rows = components.iter().map(|component| match &component.found {
        Ok(found) => [component.name, component.purpose.as_str(), found, "none"],
        Err(why) => [
            component.name,
            component.purpose.as_str(),
            why,
            component.method.as_str(),
        ],
    });
    let rows: Vec<[&str; 4]> = [["component", "for", "found", "action"]]
        .into_iter()
        .chain(rows)
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let (first, second, third) = (width(0), width(1), width(2).min(64));
    let mut text = String::new();
    for [name, purpose, found, action] in rows {
        let _ = writeln!(
            text,
            "{name:<first$}  {purpose:<second$}  {found:<third$}  {action}"
        );
    }
    text
}
