//! `cargo xtask schema`: writes the JSON schema of the policy language.

use anyhow::{Context, Result, bail};

use crate::command::{cargo, workspace};

/// Generates policies/schema.json from the types.
///
/// # Errors
/// When the generator fails or the file cannot be written.
pub(crate) fn write() -> Result<()> {
    let output = cargo([
        "run",
        "--quiet",
        "--package",
        "tidegate-core",
        "--example",
        "schema",
    ])
    .stderr(std::process::Stdio::inherit())
    .output()
    .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("the example `schema` failed: {}", output.status);
    }
    let path = workspace().join("policies/schema.json");
    std::fs::write(&path, output.stdout).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote policies/schema.json");
    Ok(())
}
