//! The initramfs: an archive for all kernels, followed by a small one for each kernel.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    clients,
    fetch::Fetched,
    modules::{self, Module},
    programs::{self, Built},
    tree::{Entry, Tree},
};

const MODULES: &str = "/vm-modules";

/// A program to run in the virtual machine.
pub(crate) struct Task<'a> {
    /// Its name on the console.
    pub(crate) name: &'a str,
    /// Its path.
    pub(crate) path: &'a Path,
    /// Its arguments.
    pub(crate) arguments: Vec<&'a str>,
}

/// Writes the archive for all kernels and returns its path. `more` adds further files.
///
/// # Errors
/// When a file is missing.
pub(crate) fn base(
    directory: &Path,
    name: &str,
    init: &Path,
    tidegate: &Path,
    built: &Built,
    more: impl FnOnce(&mut Tree) -> Result<()>,
) -> Result<PathBuf> {
    let mut tree = Tree::default();
    let stripped = directory.join("stripped");
    tree.put(
        Path::new("/init"),
        Entry::Copy(programs::stripped(init, &stripped)?),
    );
    let programs = built.programs.iter().map(|program| program.path.as_path());
    let others = built.others.iter().map(PathBuf::as_path);
    for program in programs.chain(others).chain([tidegate]) {
        // At the same path as here: paths are compiled into the tests.
        tree.program(&programs::stripped(program, &stripped)?, program)?;
    }
    clients::add(&mut tree)?;
    more(&mut tree)?;
    let path = directory.join(format!("{name}.cpio"));
    if path.exists() {
        fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    tree.append_to(&path)?;
    Ok(path)
}

/// Appends the modules of one kernel, its systemd and its orders to a copy of `base` and returns its path.
///
/// # Errors
/// When a module cannot be read or the file cannot be written.
pub(crate) fn with_orders(
    base: &Path,
    name: &str,
    directory: &Path,
    fetched: &Fetched,
    orders: impl Fn(&[String]) -> String,
    wanted: &[String],
) -> Result<PathBuf> {
    let mut tree = Tree::default();
    let mut paths = Vec::new();
    for Module { name, bytes } in modules::collect(&fetched.modules, wanted)? {
        let path = format!("{MODULES}/{name}.ko");
        tree.put(Path::new(&path), Entry::Text(bytes));
        paths.push(path);
    }
    if let Some(systemd) = &fetched.systemd {
        systemd.add_to(&mut tree)?;
    }
    tree.put(Path::new("/vm-orders"), Entry::Text(orders(&paths).into_bytes()));
    let path = directory.join(format!("initramfs-{name}.cpio"));
    fs::copy(base, &path).with_context(|| path.display().to_string())?;
    tree.append_to(&path)?;
    Ok(path)
}

/// The file of orders for init: one line each, fields separated by tabs.
pub(crate) fn orders(
    modules: &[String],
    variables: &[(&str, String)],
    directory: &Path,
    seconds: u64,
    tasks: &[Task<'_>],
) -> String {
    let mut text = String::new();
    let mut add = |fields: &[&str]| {
        text.push_str(&fields.join("\t"));
        text.push('\n');
    };
    for module in modules {
        add(&["module", module]);
    }
    for (name, value) in variables {
        add(&["variable", name, value]);
    }
    add(&["directory", &directory.display().to_string()]);
    let seconds = seconds.to_string();
    for task in tasks {
        let path = task.path.display().to_string();
        let mut fields = vec!["test", task.name, &seconds, &path];
        fields.extend(&task.arguments);
        add(&fields);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_is_a_line() {
        let task = Task {
            name: "kill",
            path: Path::new("/t/kill"),
            arguments: vec!["--exact", "a", "b"],
        };
        let variables = [("A", "1".to_owned())];
        let text = orders(&["/m.ko".into()], &variables, Path::new("/w"), 60, &[task]);
        assert_eq!(
            text,
            "module\t/m.ko\nvariable\tA\t1\ndirectory\t/w\ntest\tkill\t60\t/t/kill\t--exact\ta\tb\n"
        );
    }
}
