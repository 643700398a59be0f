//! Compiles engine-ebpf into one eBPF object.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::toolchain::Compiler;

/// What a build gave.
pub(crate) struct Built {
    /// The object.
    pub(crate) object: PathBuf,
    /// The compiler's warnings about our crates, rendered; empty when there are none.
    pub(crate) warnings: String,
}

/// Builds the package engine-ebpf of `workspace` below `target_dir`. `machine` is the processor of the
/// kernel that will run the programs, as Rust calls it: registers of a traced function differ.
///
/// # Errors
/// What cargo said.
pub(crate) fn build(
    compiler: &Compiler,
    linker: &Path,
    workspace: &Path,
    target_dir: &Path,
    machine: &str,
    big_endian: bool,
) -> Result<Built, String> {
    let target = if big_endian {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    };
    let flags = [
        format!("--cfg=bpf_target_arch=\"{machine}\""),
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", linker.display()),
        "-Clink-arg=--btf".to_owned(),
    ];

    let mut cargo = Command::new(&compiler.cargo);
    // The surrounding cargo speaks to us through the environment; hardly any of it is for this build:
    // other flags, clippy's wrapper or rustup's choice of a toolchain would spoil it.
    for (name, _) in env::vars_os() {
        if leaks(&name) {
            cargo.env_remove(name);
        }
    }
    let output = cargo
        .args([
            "build",
            "--locked",
            "--release",
            "--quiet",
            "--package",
            "engine-ebpf",
        ])
        .args(["-Z", "build-std=core", "--target", target])
        .arg("--target-dir")
        .arg(target_dir)
        .current_dir(workspace)
        .env("RUSTC", &compiler.rustc)
        // The stable compiler takes -Z then; nightly does anyway.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // The verifier takes optimised code only, whatever the profile of the user space is.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        // The loader needs the symbols and BTF that the program's own release profile strips.
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} does not start: {error}", compiler.cargo.display()))?;

    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(said);
    }
    let object = target_dir.join(target).join("release/engine-ebpf");
    Ok(Built {
        object,
        warnings: said,
    })
}

fn leaks(name: &OsStr) -> bool {
    // Where crates come from, and how many jobs may run, stay.
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_MAKEFLAGS",
    ];
    const REMOVED: [&str; 5] = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];
    let name = name.to_string_lossy();
    REMOVED.iter().any(|prefix| name.starts_with(prefix))
        && !KEPT.iter().any(|prefix| name.starts_with(prefix))
}
