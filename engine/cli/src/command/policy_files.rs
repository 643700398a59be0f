//! Loads the policy files of a command.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{Exit, Failure, Output, output::line};
use tidegate_core::policy::{self, LoadContext, LoadResult, Policy, PolicyDefinition};

/// A policy and the file that it came from.
#[derive(Clone, Debug)]
pub struct SourcedPolicy {
    /// The policy.
    pub policy: Policy,
    /// The file, or `<stdin>`.
    pub source: String,
    /// What it was loaded from.
    pub definition: PolicyDefinition,
}

/// Loads a policy file; `-` is standard input.
pub fn load(file: &Path, context: &LoadContext) -> LoadResult {
    if file == Path::new("-") {
        return policy::load_stream("<stdin>", io::stdin().lock(), Path::new(""), context);
    }
    policy::load(file, context)
}

/// Loads all files and prints their errors and warnings to standard error. `unreadable` is the exit code for a
/// file that cannot be read.
///
/// # Errors
/// When a file is not a valid policy; all files are read first.
pub fn load_all(
    files: &[PathBuf],
    context: &LoadContext,
    output: Output,
    unreadable: Exit,
) -> Result<Vec<SourcedPolicy>, Failure> {
    let mut policies = Vec::new();
    let mut failure: Option<Failure> = None;
    for file in files {
        let loaded = load(file, context);
        if !loaded.diagnostics.is_empty() {
            // When standard error is closed, only the exit code is left.
            let _ = match output {
                Output::Text => writeln!(anstream::stderr(), "{}", loaded.render(true)),
                Output::Json => writeln!(
                    anstream::stderr(),
                    "{}",
                    line(&serde_json::json!({"file": loaded.file, "diagnostics": loaded.to_json()}))
                ),
            };
        }
        let source = loaded.file;
        match loaded.policy {
            Some(policy) => policies.push(SourcedPolicy {
                policy,
                source,
                definition: absolute(loaded.definition),
            }),
            None if loaded.unreadable => {
                failure.get_or_insert(Failure::of(unreadable, format!("cannot read policy {source}")));
            }
            None => {
                let invalid = Failure::of(Exit::PolicyInvalid, format!("policy {source} is not valid"));
                failure.get_or_insert(invalid.hint(format!(
                    "fix the errors above; `tidegate check {source}` checks the file again"
                )));
            }
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(policies),
    }
}

/// With an absolute directory: the policy is loaded again later, from other working directories.
fn absolute(mut definition: PolicyDefinition) -> PolicyDefinition {
    let directory = Path::new(&definition.base_dir);
    let full = match definition.base_dir.as_str() {
        "" => std::env::current_dir(),
        _ => std::path::absolute(directory),
    };
    if let Ok(full) = full {
        definition.base_dir = full.display().to_string();
    }
    definition
}
