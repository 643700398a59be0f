//! The policies that a command is given by files.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    cli::{Exit, Failure, Output},
    policy::{self, LoadContext, LoadResult, Policy},
};

/// A policy with its origin.
#[derive(Clone, Debug)]
pub struct SourcedPolicy {
    /// The policy.
    pub policy: Policy,
    /// The file it was read from, or `command line`.
    pub source: String,
}

/// Loads a policy file; `-` is standard input.
pub fn load(file: &Path, context: &LoadContext) -> LoadResult {
    if file == Path::new("-") {
        return policy::load_stream("<stdin>", io::stdin().lock(), Path::new(""), context);
    }
    policy::load(file, context)
}

/// Loads all files. What there is to say about them goes to standard error, errors and warnings.
///
/// # Errors
/// When one of them is no valid policy, after all have been read. `unreadable` is the exit code
/// for a file that cannot be read.
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
            // Where a reader is gone, the exit code still tells.
            let _ = match output {
                Output::Text => writeln!(anstream::stderr(), "{}", loaded.render(true)),
                Output::Json => writeln!(
                    anstream::stderr(),
                    "{}",
                    serde_json::json!({"file": loaded.file, "diagnostics": loaded.to_json()})
                ),
            };
        }
        let source = loaded.file;
        match loaded.policy {
            Some(policy) => policies.push(SourcedPolicy { policy, source }),
            None if loaded.unreadable => {
                failure.get_or_insert(Failure::of(
                    unreadable,
                    format!("cannot read the policy {source}"),
                ));
            }
            None => {
                let invalid = Failure::of(Exit::PolicyInvalid, format!("the policy {source} is not valid"));
                failure.get_or_insert(invalid.hint(format!("see above, and `tidegate check {source}`")));
            }
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(policies),
    }
}
