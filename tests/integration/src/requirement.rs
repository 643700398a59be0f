//! What a test needs from the machine. A missing requirement skips the test with a message, or fails it where tests must
//! not be skipped.

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
        "{} does not exist: run `cargo build`, or set TIDEGATE_BIN",
        path.display()
    );
    path
}

fn debug_build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    target.join("debug/tidegate")
}

/// A requirement of a test.
#[derive(Clone, Copy, Debug)]
pub enum Need<'a> {
    /// Root, with namespaces and a writable cgroup2.
    Root,
    /// A program on the PATH.
    Program(&'a str),
    /// A condition that the test checked; the text says what is missing.
    Condition(bool, &'a str),
    /// A feature of the running kernel; the text says what is missing. Only a run for a known kernel
    /// (`TIDEGATE_REQUIRE_KERNEL`) fails without it.
    Kernel(bool, &'a str),
}

/// Whether all requirements are met. If not, prints `SKIPPED: ...` or `NOT IN THIS KERNEL: ...`, and the test must
/// return.
///
/// # Panics
/// When a requirement is missing that must be met: root with `TIDEGATE_REQUIRE_ROOT=1`, kernel features with
/// `TIDEGATE_REQUIRE_KERNEL=1`, everything else with `CI`.
pub fn met(test: &str, needs: &[Need<'_>]) -> bool {
    for need in needs {
        let Some(missing) = need.missing() else { continue };
        let (required, mark) = match need {
            Need::Root => (is_set("CI") || is_set("TIDEGATE_REQUIRE_ROOT"), "SKIPPED"),
            Need::Program(_) | Need::Condition(..) => (is_set("CI"), "SKIPPED"),
            Need::Kernel(..) => (is_set("TIDEGATE_REQUIRE_KERNEL"), "NOT IN THIS KERNEL"),
        };
        assert!(!required, "{test} must not be skipped here: {missing}");
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
            Need::Condition(is_met, what) | Need::Kernel(is_met, what) => (!is_met).then(|| what.to_owned()),
        }
    }
}

/// The path of a program on the PATH.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file())
}
