//! The first file system: one part for all kernels, and a small one for each, one after the other in a file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    clients,
    modules::{self, Module},
    programs::{self, Built},
    tree::{Entry, Tree},
};

const MODULES: &str = "/vm-modules";

/// A program that is to be run.
pub(crate) struct Task<'a> {
    /// Its name on the console.
    pub(crate) name: &'a str,
    /// Where it is.
    pub(crate) path: &'a Path,
    /// Its arguments.
    pub(crate) words: Vec<&'a str>,
}

/// Writes the part that is the same for all kernels, under this name, and says where it is. What else belongs
/// into it is put there by `more`.
///
/// # Errors
/// When something that belongs into it is missing.
pub(crate) fn base(
    folder: &Path,
    name: &str,
    init: &Path,
    tidegate: &Path,
    built: &Built,
    more: impl FnOnce(&mut Tree) -> Result<()>,
) -> Result<PathBuf> {
    let mut tree = Tree::default();
    let stripped = folder.join("stripped");
    tree.put(
        Path::new("/init"),
        Entry::Copy(programs::stripped(init, &stripped)?),
    );
    let programs = built.programs.iter().map(|program| program.path.as_path());
    let others = built.others.iter().map(PathBuf::as_path);
    for program in programs.chain(others).chain([tidegate]) {
        // Where it is here: paths are compiled into the tests.
        tree.program(&programs::stripped(program, &stripped)?, program)?;
    }
    clients::add(&mut tree)?;
    more(&mut tree)?;
    let path = folder.join(format!("{name}.cpio"));
    if path.exists() {
        fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    tree.append_to(&path)?;
    Ok(path)
}

/// Adds what one kernel needs and is to do, and says where the whole is.
///
/// # Errors
/// When its modules cannot be read or the file not written.
pub(crate) fn whole(
    base: &Path,
    name: &str,
    folder: &Path,
    module_folder: &Path,
    orders: impl Fn(&[String]) -> String,
    wanted: &[String],
) -> Result<PathBuf> {
    let mut tree = Tree::default();
    let mut paths = Vec::new();
    for Module { name, bytes } in modules::collect(module_folder, wanted)? {
        let path = format!("{MODULES}/{name}.ko");
        tree.put(Path::new(&path), Entry::Text(bytes));
        paths.push(path);
    }
    tree.put(Path::new("/vm-orders"), Entry::Text(orders(&paths).into_bytes()));
    let path = folder.join(format!("initramfs-{name}.cpio"));
    fs::copy(base, &path).with_context(|| path.display().to_string())?;
    tree.append_to(&path)?;
    Ok(path)
}

/// What init is to do, in its own words.
pub(crate) fn orders(
    modules: &[String],
    variables: &[(&str, String)],
    folder: &Path,
    seconds: u64,
    tasks: &[Task<'_>],
) -> String {
    let mut text = String::new();
    let mut say = |fields: &[&str]| {
        text.push_str(&fields.join("\t"));
        text.push('\n');
    };
    for module in modules {
        say(&["module", module]);
    }
    for (name, value) in variables {
        say(&["variable", name, value]);
    }
    say(&["folder", &folder.display().to_string()]);
    let seconds = seconds.to_string();
    for task in tasks {
        let path = task.path.display().to_string();
        let mut fields = vec!["test", task.name, &seconds, &path];
        fields.extend(&task.words);
        say(&fields);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_a_line_each() {
        let task = Task {
            name: "kill",
            path: Path::new("/t/kill"),
            words: vec!["--exact", "a", "b"],
        };
        let variables = [("A", "1".to_owned())];
        let text = orders(&["/m.ko".into()], &variables, Path::new("/w"), 60, &[task]);
        assert_eq!(
            text,
            "module\t/m.ko\nvariable\tA\t1\nfolder\t/w\ntest\tkill\t60\t/t/kill\t--exact\ta\tb\n"
        );
    }
}
