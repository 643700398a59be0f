//! Checks the paths of files that rules select.

use std::path::{Component, Path, PathBuf};

/// Maximum length of a path (PATH_MAX without the terminating NUL). Not that of `sun_path`, because a process can bind a
/// unix socket to a relative path.
const MAX_PATH: usize = 4095;

/// The path, which must be absolute and without `.`, `..` and a trailing `/`.
///
/// # Errors
/// The help text for an invalid path; `file` and `example` complete it.
pub(super) fn absolute(text: &str, file: &str, example: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!("write an absolute path: {example}"));
    }
    if text.len() > MAX_PATH {
        return Err(format!("a path has at most {MAX_PATH} bytes"));
    }
    if path.components().any(|c| c == Component::ParentDir) || text.split('/').any(|part| part == ".") {
        return Err("write the path without `.` and `..`".to_owned());
    }
    if text.ends_with('/') {
        return Err(format!(
            "write the path of {file}, without a trailing `/`: {example}"
        ));
    }
    Ok(path.components().collect())
}
