//! Builds the kernel programs into `OUT_DIR/engine-ebpf.o`, which the datapath embeds. The object is always
//! optimised.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

// `object` is the crate that reads and writes ELF files.
#[path = "build/object.rs"]
mod ebpf_object;
#[path = "build/strip.rs"]
mod strip;
#[path = "build/toolchain.rs"]
mod toolchain;

/// Inputs of the object, relative to the workspace. It is rebuilt when one of them changes.
const SOURCES: [&str; 6] = [
    "Cargo.lock",
    "Cargo.toml",
    "engine-common/Cargo.toml",
    "engine-common/src",
    "engine-ebpf/Cargo.toml",
    "engine-ebpf/src",
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Message(message)) => {
            println!("cargo::error={message}");
            // cargo::error fails the build without the output of this script.
            ExitCode::SUCCESS
        }
        Err(Failure::Compiler { toolchain, output }) => {
            for line in output.lines().filter(|line| !line.trim().is_empty()) {
                println!("cargo::error={line}");
            }
            println!(
                "cargo::error=the kernel programs (engine-ebpf) do not build with {toolchain}; see above"
            );
            ExitCode::SUCCESS
        }
    }
}

enum Failure {
    Message(String),
    Compiler { toolchain: String, output: String },
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::Message(message)
    }
}

fn run() -> Result<(), Failure> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let workspace = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = workspace
        .parent()
        .and_then(Path::parent)
        .ok_or_else(|| "the directory engine has no parent".to_owned())?;
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }
    println!("cargo::rerun-if-env-changed={}", toolchain::OVERRIDE);

    let (compiler, linker) = match (toolchain::compiler(), toolchain::linker()) {
        (Ok(compiler), Some(linker)) => (compiler, linker),
        (compiler, linker) => {
            let mut missing = compiler.err().unwrap_or_default();
            if linker.is_none() {
                missing.push("bpf-linker is not on PATH".to_owned());
            }
            let missing = missing.join("; ");
            return Err(format!("the eBPF toolchain is missing ({missing}): run `cargo xtask setup`").into());
        }
    };
    println!("cargo::rerun-if-changed={}", compiler.rustc.display());
    println!("cargo::rerun-if-changed={}", linker.display());
    println!(
        "kernel programs: built with {compiler}, linked by {}",
        linker.display()
    );

    let big_endian = variable("CARGO_CFG_TARGET_ENDIAN")? == "big";
    let machine = variable("CARGO_CFG_TARGET_ARCH")?;
    let target_dir = shared_directory(&out_dir).join(format!("engine-ebpf-{machine}"));
    let built = ebpf_object::build(&compiler, &linker, workspace, &target_dir, &machine, big_endian)
        .map_err(|output| Failure::Compiler {
            toolchain: compiler.to_string(),
            output,
        })?;
    for line in built.warnings.lines() {
        println!("cargo::warning={line}");
    }
    let embedded = out_dir.join("engine-ebpf.o");
    let bytes = fs::read(&built.object)
        .map_err(|error| format!("cannot read {}: {error}", built.object.display()))?;
    let bytes = strip::without_dwarf(&bytes)
        .map_err(|error| format!("cannot strip {}: {error}", built.object.display()))?;
    fs::write(&embedded, &bytes).map_err(|error| format!("cannot write {}: {error}", embedded.display()))?;
    // Identifies the programs; computed at build time to keep the start of tidegate short.
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    println!("cargo::rustc-env=TIDEGATE_OBJECT_HASH={:016x}", hasher.finish());
    Ok(())
}

/// Where the kernel programs are compiled: cargo's target directory, so that check, clippy, debug and release
/// builds, which have different `OUT_DIR`s, compile `core` once. Cargo marks the directory with CACHEDIR.TAG.
fn shared_directory(out_dir: &Path) -> &Path {
    out_dir
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").is_file())
        .unwrap_or(out_dir)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|_| format!("{name} is not set: only cargo runs this build script"))
}
