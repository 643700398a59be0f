//! `cargo xtask setup`: finds what development needs, and installs what is missing.

mod component;
mod install;

use std::fmt::Write as _;

use anyhow::{Result, bail};
use component::Component;
pub(crate) use component::Purpose;

use crate::step::Outcome;

/// Looks at everything, prints a table, and installs what is missing unless `check` is set.
///
/// # Errors
/// When something is still missing at the end: the error says what to type.
pub(crate) fn run(check: bool) -> Result<()> {
    let components = component::survey(&Purpose::ALL);
    print!("{}", table(&components));
    if components.iter().all(Component::is_there) {
        println!("everything is there");
        return Ok(());
    }
    if check {
        bail!("{}", missing(&components, "run `cargo xtask setup`, or type"));
    }
    install::install(&Purpose::ALL);
    let components = component::survey(&Purpose::ALL);
    print!("\n{}", table(&components));
    settled(&components)?;
    println!("everything is there");
    Ok(())
}

/// Makes sure that what these purposes need is there; installs and prints only what is missing.
///
/// # Errors
/// As [`run`].
pub(crate) fn ensure(purposes: &[Purpose]) -> Result<()> {
    if component::survey(purposes).iter().all(Component::is_there) {
        return Ok(());
    }
    install::install(purposes);
    settled(&component::survey(purposes))
}

/// The step of `cargo xtask test`: like [`run`], but what only some integration tests use may be missing;
/// these say themselves what they leave out.
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
    settled(&needed)?;
    let reasons: Vec<String> = clients
        .iter()
        .filter(|component| !component.is_there())
        .map(|component| {
            format!(
                "{} is not there: the integration tests that use it",
                component.name
            )
        })
        .collect();
    Ok(if reasons.is_empty() {
        Outcome::Passed
    } else {
        Outcome::LeftOut(reasons)
    })
}

fn settled(components: &[Component]) -> Result<()> {
    if components.iter().all(Component::is_there) {
        return Ok(());
    }
    bail!("{}", missing(components, "type"));
}

fn missing(components: &[Component], lead: &str) -> String {
    let absent: Vec<&Component> = components
        .iter()
        .filter(|component| !component.is_there())
        .collect();
    let names: Vec<&str> = absent.iter().map(|component| component.name).collect();
    let mut text = format!("missing: {}; {lead}", names.join(", "));
    for line in install::by_hand(&absent) {
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
            component.remedy.as_str(),
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
