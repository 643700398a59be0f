//! `cargo xtask docs`: writes what README.md and docs/ say that is known from elsewhere. Tests hold them in step.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{command::workspace, verifier::Record, vm};

/// Writes the kernels in README.md and the table of docs/verifier.md.
///
/// # Errors
/// When a file is not as it should be or cannot be written.
pub(crate) fn write() -> Result<()> {
    let path = readme();
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let text = with_kernels(&text)?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote the kernels in README.md");
    Record::read()?.write()
}

fn readme() -> PathBuf {
    workspace().join("README.md")
}

/// README.md with what vm-tests/kernels.toml says between its marks.
fn with_kernels(readme: &str) -> Result<String> {
    between_marks(readme, "kernels", &vm::kernels_in_words()?)
}

/// The text with something else between `<!-- name: ... -->` and `<!-- end of name -->`.
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
    fn the_readme_names_the_kernels_of_the_matrix() {
        let there = std::fs::read_to_string(readme()).unwrap();
        assert!(
            there == with_kernels(&there).unwrap(),
            "README.md is behind vm-tests/kernels.toml: run `cargo xtask docs`"
        );
    }

    #[test]
    fn only_what_is_between_the_marks_changes() {
        let text = "a\n<!-- x: written by `cargo xtask docs` -->\nold\n<!-- end of x -->\nb\n";
        let new = between_marks(text, "x", "new\n").unwrap();
        assert_eq!(new, text.replace("old", "new"));
        assert!(between_marks(text, "y", "").is_err());
    }
}
