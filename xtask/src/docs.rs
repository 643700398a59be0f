//! `cargo xtask docs`: writes the generated parts of README.md and docs/. Tests fail when they are out of date.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{command::workspace, verifier::Record, vm};

/// Writes the kernels in README.md and the table of docs/verifier.md.
///
/// # Errors
/// When a file lacks its marks or cannot be written.
pub(crate) fn write() -> Result<()> {
    let path = readme();
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let text = with_kernels(&text)?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote the table of kernels in README.md");
    Record::read()?.write()
}

fn readme() -> PathBuf {
    workspace().join("README.md")
}

/// README.md with the table of vm-tests/kernels.toml between its marks.
fn with_kernels(readme: &str) -> Result<String> {
    between_marks(readme, "kernels", &vm::kernel_table()?)
}

/// The text with `inner` between `<!-- name: ... -->` and `<!-- end of name -->`.
fn between_marks(text: &str, name: &str, inner: &str) -> Result<String> {
    let (first, last) = (
        format!("<!-- {name}: written by `cargo xtask docs` -->"),
        format!("<!-- end of {name} -->"),
    );
    let (head, rest) = text
        .split_once(&first)
        .with_context(|| format!("README.md has no line {first}"))?;
    let (_, tail) = rest
        .split_once(&last)
        .with_context(|| format!("README.md has no line {last}"))?;
    Ok(format!("{head}{first}\n{inner}{last}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_has_the_kernels_of_the_matrix() {
        let text = std::fs::read_to_string(readme()).unwrap();
        assert!(
            text == with_kernels(&text).unwrap(),
            "README.md is older than vm-tests/kernels.toml: run `cargo xtask docs`"
        );
    }

    #[test]
    fn only_the_text_between_the_marks_changes() {
        let text = "a\n<!-- x: written by `cargo xtask docs` -->\nold\n<!-- end of x -->\nb\n";
        let new = between_marks(text, "x", "new\n").unwrap();
        assert_eq!(new, text.replace("old", "new"));
        assert!(between_marks(text, "y", "").is_err());
    }
}
