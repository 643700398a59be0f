//! Compiles engine-ebpf into one eBPF object.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::toolchain::Compiler;

/// The result of a build.
pub(crate) struct Built {
    /// Path of the object.
    pub(crate) object: PathBuf,
    /// Rendered compiler warnings; may be empty.
    pub(crate) warnings: String,
}

/// Builds the package engine-ebpf of `workspace` below `target_dir`. `machine` is the target architecture of user space
/// (`CARGO_CFG_TARGET_ARCH`): the registers of a traced function depend on it.
///
/// # Errors
/// With the output of cargo when the build fails.
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
    // The outer cargo sets variables that would change this build: flags, the wrapper of clippy, the toolchain of
    // rustup.
    for (name, _) in env::vars_os() {
        if is_from_outer_cargo(&name) {
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
        // Allows -Z with a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        // The verifier accepts only optimised code, so the profile of user space does not apply.
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

    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(messages);
    }
    let object = target_dir.join(target).join("release/engine-ebpf");
    Ok(Built {
        object,
        warnings: messages,
    })
}

fn is_from_outer_cargo(name: &OsStr) -> bool {
    // Registries and the job server.
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
