//! What a test needs of the machine. What is not there is said aloud and, where nothing may be left
//! out, a failure.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The built binary: `TIDEGATE_BIN`, or the debug build of this workspace.
///
/// # Panics
/// When it has not been built.
pub fn tidegate_bin() -> PathBuf {
    let path = env::var_os("TIDEGATE_BIN").map_or_else(debug_build, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: build it with `cargo build`, or name it by TIDEGATE_BIN",
        path.display()
    );
    path
}

fn debug_build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    target.join("debug/tidegate")
}

/// Something a test needs.
#[derive(Clone, Copy, Debug)]
pub enum Need<'a> {
    /// The superuser, with namespaces and a writable cgroup2.
    Root,
    /// A program on the PATH.
    Program(&'a str),
    /// Whatever the test found out; the text says what is missing.
    Met(bool, &'a str),
    /// Something of the running kernel; the text says what it lacks. What a kernel does not have,
    /// nobody can install: only a run that knows its kernel (`TIDEGATE_REQUIRE_KERNEL`) fails for it.
    Kernel(bool, &'a str),
}

/// Whether all of it is there. What is not is printed as `SKIPPED: ...` (`NOT IN THIS KERNEL: ...`), and
/// the test is to return.
///
/// # Panics
/// When something is missing although nothing may be left out: `TIDEGATE_REQUIRE_ROOT=1` for
/// root, `TIDEGATE_REQUIRE_KERNEL=1` for what the kernel must have, `CI` for everything else.
pub fn met(test: &str, needs: &[Need<'_>]) -> bool {
    for need in needs {
        let Some(missing) = need.missing() else { continue };
        let (required, mark) = match need {
            Need::Root => (is_set("CI") || is_set("TIDEGATE_REQUIRE_ROOT"), "SKIPPED"),
            Need::Program(_) | Need::Met(..) => (is_set("CI"), "SKIPPED"),
            Need::Kernel(..) => (is_set("TIDEGATE_REQUIRE_KERNEL"), "NOT IN THIS KERNEL"),
        };
        assert!(!required, "{test} cannot be left out here: {missing}");
        eprintln!("{mark}: {test}: {missing}");
        return false;
    }
    true
}

fn is_set(name: &str) -> bool {
    env::var(name).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
}

impl Need<'_> {
    fn missing(self) -> Option<String> {
        match self {
            Need::Root => (!nix::unistd::geteuid().is_root()).then(|| "needs root".to_owned()),
            Need::Program(name) => program(name)
                .is_none()
                .then(|| format!("needs the program `{name}`")),
            Need::Met(there, what) | Need::Kernel(there, what) => (!there).then(|| what.to_owned()),
        }
    }
}

/// Where a program is on the PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file())
}
