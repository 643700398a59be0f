//! Finds a Rust compiler that can build for eBPF, and bpf-linker. Standard library only: the build
//! script of `tidegate` and `cargo xtask setup` both compile this file and find the same toolchain.
//!
//! Building for eBPF includes building `core`, which needs the library source in the sysroot (rust-src) and unstable
//! options of cargo. Two toolchains have them: rustup's nightly with the component rust-src, and Debian's packages
//! rustc-web, cargo-web and rust-web-src.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Environment variable with the toolchain to use: a rustup toolchain (`nightly-2026-05-20`) or the directory that
/// contains `bin/rustc` (`/opt/rust`). Without it, the usual places are searched.
pub(crate) const OVERRIDE: &str = "TIDEGATE_EBPF_TOOLCHAIN";

/// The oldest compiler that builds the kernel programs: 1.MINOR.
const OLDEST_MINOR: u32 = 88;

/// A compiler with the library's source.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    /// Name for messages.
    pub(crate) origin: String,
    /// Path of its cargo.
    pub(crate) cargo: PathBuf,
    /// Path of its rustc.
    pub(crate) rustc: PathBuf,
    /// Major version of its LLVM; that of bpf-linker must not be older.
    pub(crate) llvm: u32,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, LLVM {}", self.origin, self.llvm)
    }
}

/// The compiler to build the kernel programs with.
///
/// # Errors
/// With one reason for each place that was searched.
pub(crate) fn compiler() -> Result<Compiler, Vec<String>> {
    if let Some(wanted) = env::var_os(OVERRIDE).filter(|wanted| !wanted.is_empty()) {
        let shown = format!("{OVERRIDE}={}", wanted.display());
        let found = if Path::new(&wanted).is_dir() {
            find_at_prefix(Path::new(&wanted), &shown)
        } else {
            find_in_rustup(&wanted)
        };
        return found.map_err(|reason| vec![format!("{shown}: {reason}")]);
    }
    let nightly = match find_in_rustup(OsStr::new("nightly")) {
        Ok(compiler) => return Ok(compiler),
        Err(reason) => reason,
    };
    match find_at_prefix(Path::new("/usr"), "system") {
        Ok(compiler) => Ok(compiler),
        Err(system) => Err(vec![nightly, system]),
    }
}

/// The path of bpf-linker: on PATH, or where `cargo install` puts it.
pub(crate) fn linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    env::split_paths(&path)
        .chain(cargo_home.map(|home| home.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .find(|candidate| candidate.is_file())
}

/// The rustup toolchain of this name, if it is installed.
fn find_in_rustup(name: &OsStr) -> Result<Compiler, String> {
    let shown = name.display();
    let result = Command::new("rustup")
        .args([
            OsStr::new("which"),
            OsStr::new("--toolchain"),
            name,
            OsStr::new("rustc"),
        ])
        .env("RUSTUP_AUTO_INSTALL", "0")
        .env_remove("RUSTUP_TOOLCHAIN")
        .stdin(Stdio::null())
        .output();
    let output = match result {
        Ok(output) => output,
        Err(_) => return Err("rustup is not installed".to_owned()),
    };
    if !output.status.success() {
        return Err(format!("rustup has no toolchain {shown}"));
    }
    let rustc = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let prefix = rustc.parent().and_then(Path::parent);
    let prefix = prefix.ok_or_else(|| format!("unexpected path of rustc in rustup {shown}"))?;
    find_at_prefix(prefix, &format!("rustup {shown}"))
}

/// The toolchain in a directory: `bin/cargo`, `bin/rustc`, and the library source.
fn find_at_prefix(prefix: &Path, name: &str) -> Result<Compiler, String> {
    let rustc = prefix.join("bin/rustc");
    let cargo = prefix.join("bin/cargo");
    for program in [&rustc, &cargo] {
        if !program.is_file() {
            return Err(format!("{} does not exist", program.display()));
        }
    }
    let version = run(&rustc, &["--version", "--verbose"])?;
    let field = |key: &str| {
        version
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::trim)
    };
    let release = field("release:").unwrap_or_default();
    let minor = release
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < OLDEST_MINOR) {
        return Err(format!("{name} is Rust {release}, older than 1.{OLDEST_MINOR}"));
    }
    let llvm = field("LLVM version:").and_then(|llvm| llvm.split('.').next()?.parse().ok());
    let llvm = llvm.ok_or_else(|| format!("{name} does not report its LLVM version"))?;
    let sysroot = PathBuf::from(run(&rustc, &["--print", "sysroot"])?.trim());
    if !sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .is_file()
    {
        return Err(format!("{name} ({release}) has no rust-src"));
    }
    let origin = format!("{name} ({release})");
    Ok(Compiler {
        origin,
        cargo,
        rustc,
        llvm,
    })
}

fn run(rustc: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(rustc)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} does not start: {error}", rustc.display()))?;
    if !output.status.success() {
        let messages = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} fails: {}", rustc.display(), messages.trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
