//! Writes the files in docs/benchmarks.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Report;

/// Writes `<date>.json` and `<date>.md` to docs/benchmarks of the workspace, and returns their paths.
pub(crate) fn save(report: &Report) -> Result<Vec<PathBuf>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let owner = fs::metadata(&workspace)?;
    let dir = workspace.join("docs/benchmarks");
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let json = serde_json::to_string_pretty(&report.json())? + "\n";
    let mut written = Vec::new();
    for (extension, text) in [("json", json), ("md", report.markdown())] {
        let path = dir.join(format!("{}.{extension}", report.machine.date));
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        written.push(path);
    }
    // The benchmark runs as root; the files belong to the owner of the workspace.
    for path in written.iter().chain([&dir, &workspace.join("docs")]) {
        chown(path, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(written)
}
