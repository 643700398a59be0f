//! Installs missing components: Debian packages, rustup components, programs that cargo builds.

use std::path::Path;
use std::process::Command;

use super::component::{self, Component, InstallMethod, Purpose, QEMU};
use crate::command::{cargo, command_line, find_on_path, run, succeeds};
use crate::privilege::Privilege;
use crate::vm::qemu;

/// Debian's compiler, with the source of the standard library.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// Newer versions need a newer LLVM than Debian has.
const BPF_LINKER: &str = "0.13.0";

/// Installs missing components for these purposes. A failure is printed, and the other components are still installed;
/// the caller checks again what is missing.
pub(crate) fn install(purposes: &[Purpose]) {
    let apt = Apt::detect();
    let only_cargo = |component: &Component| matches!(component.method, InstallMethod::CargoInstall(..));
    if let Some(apt) = &apt
        && !absent(purposes).iter().all(only_cargo)
    {
        // A fresh machine has no package lists.
        try_run(&mut apt.command(&["update"]));
    }
    // In two passes: the compiler decides which LLVM bpf-linker needs.
    for with_programs in [false, true] {
        let absent = absent(purposes);
        if let Some(apt) = &apt {
            let packages = absent.iter().map(|component| packages_for(component, true));
            apt.install_each(packages.filter(|packages| !packages.is_empty()).collect());
        }
        for component in &absent {
            match &component.method {
                InstallMethod::RustComponent(name, _) if has_rustup() => {
                    try_run(Command::new("rustup").args(["component", "add", name]));
                }
                InstallMethod::EbpfCompiler if has_rustup() && !compiler_packages_known() => {
                    try_run(&mut rustup_nightly());
                }
                InstallMethod::BpfLinker(llvm) if with_programs && llvm_prefix(*llvm).is_some() => {
                    try_run(&mut install_bpf_linker(*llvm));
                }
                InstallMethod::CargoInstall(name, version) if with_programs => {
                    try_run(&mut install_program(name, version));
                }
                InstallMethod::Apt(_)
                    if with_programs && component.name == QEMU && find_on_path("apt-get").is_some() =>
                {
                    if let Err(error) = qemu::unpack() {
                        println!("    {error:#}");
                    }
                }
                _ => {}
            }
        }
    }
}

/// Runs a command and prints a failure. Returns whether it succeeded.
fn try_run(command: &mut Command) -> bool {
    match run(command) {
        Ok(()) => true,
        Err(error) => {
            println!("    {error:#}");
            false
        }
    }
}

/// The commands that install these components.
pub(crate) fn manual_commands(absent: &[&Component]) -> Vec<String> {
    let debian = find_on_path("apt-get").is_some();
    let packages: Vec<String> = absent
        .iter()
        .flat_map(|component| packages_for(component, debian))
        .collect();
    let mut lines = Vec::new();
    if !packages.is_empty() && debian {
        let packages = packages.join(" ");
        lines.push(format!(
            "sudo apt-get update && sudo apt-get install --no-install-recommends {packages}"
        ));
    } else if !packages.is_empty() {
        lines.push(format!("(with your package manager) {}", packages.join(" ")));
    }
    for component in absent {
        match &component.method {
            InstallMethod::RustComponent(name, _) if has_rustup() => {
                lines.push(format!("rustup component add {name}"));
            }
            InstallMethod::EbpfCompiler if !debian || !compiler_packages_known() => {
                lines.push(command_line(&rustup_nightly()));
            }
            InstallMethod::BpfLinker(llvm) => {
                lines.push(format!(
                    "LLVM_PREFIX=/usr/lib/llvm-{llvm} {}",
                    command_line(&install_bpf_linker(*llvm))
                ));
            }
            InstallMethod::CargoInstall(name, version) => {
                lines.push(command_line(&install_program(name, version)))
            }
            _ => {}
        }
    }
    lines
}

fn absent(purposes: &[Purpose]) -> Vec<Component> {
    component::survey(purposes)
        .into_iter()
        .filter(|component| !component.is_installed())
        .collect()
}

/// The Debian packages of a missing component.
fn packages_for(component: &Component, debian: bool) -> Vec<String> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    match &component.method {
        InstallMethod::Apt(packages) => packages.clone(),
        InstallMethod::EbpfCompiler if debian && compiler_packages_known() => owned(&COMPILER_PACKAGES),
        InstallMethod::RustComponent(_, package) if !has_rustup() => owned(&[package]),
        InstallMethod::BpfLinker(llvm) if llvm_prefix(*llvm).is_none() => {
            let mut packages = owned(&["zlib1g-dev", "libzstd-dev", "libxml2-dev"]);
            packages.extend([format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]);
            packages
        }
        _ => Vec::new(),
    }
}

fn has_rustup() -> bool {
    find_on_path("rustup").is_some()
}

/// Whether apt has Debian's compiler packages; Ubuntu and older releases do not.
fn compiler_packages_known() -> bool {
    COMPILER_PACKAGES.iter().all(|package| known(package))
}

fn known(package: &str) -> bool {
    succeeds(Command::new("apt-cache").args(["show", "--quiet=2", "--no-all-versions", package]))
}

/// The directory of Debian's LLVM packages, if the development files are installed.
fn llvm_prefix(llvm: u32) -> Option<String> {
    let prefix = format!("/usr/lib/llvm-{llvm}");
    Path::new(&prefix)
        .join("include/llvm-c/Core.h")
        .is_file()
        .then_some(prefix)
}

fn rustup_nightly() -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args([
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ]);
    rustup
}

fn install_bpf_linker(llvm: u32) -> Command {
    let llvm = format!("llvm-{llvm}");
    let mut install = cargo([
        "install",
        "bpf-linker",
        "--version",
        BPF_LINKER,
        "--locked",
        "--force",
    ]);
    install.args(["--no-default-features", "--features", &llvm]);
    install.env("LLVM_PREFIX", format!("/usr/lib/{llvm}"));
    install
}

fn install_program(name: &str, version: &str) -> Command {
    cargo(["install", name, "--version", version, "--locked"])
}

/// apt-get, and how to run it as root.
struct Apt {
    privilege: Privilege,
}

impl Apt {
    fn detect() -> Option<Apt> {
        find_on_path("apt-get")?;
        let apt = Apt {
            privilege: Privilege::detect(),
        };
        if apt.privilege == Privilege::None {
            println!("    no root, and sudo asks for a password: packages are not installed");
            return None;
        }
        Some(apt)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let words = [
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "--quiet",
            "--yes",
        ];
        let mut command = if self.privilege == Privilege::Sudo {
            let mut sudo = Command::new("sudo");
            sudo.arg("-n").args(words);
            sudo
        } else {
            let mut env = Command::new(words[0]);
            env.args(&words[1..]);
            env
        };
        command.args(arguments);
        command
    }

    /// Installs the packages of several components: all at once, which is faster; if apt refuses that, one component after
    /// the other.
    fn install_each(&self, of_components: Vec<Vec<String>>) {
        if self.install(&of_components.concat()) || of_components.len() < 2 {
            return;
        }
        for packages in of_components {
            self.install(&packages);
        }
    }

    /// Installs packages. Returns whether apt accepted it.
    fn install(&self, packages: &[String]) -> bool {
        let (known, unknown): (Vec<&String>, Vec<&String>) =
            packages.iter().partition(|package| known(package));
        if !unknown.is_empty() {
            println!("    apt has no package {unknown:?}");
        }
        if known.is_empty() {
            return true;
        }
        // Never remove an installed package: the user decides about conflicts.
        try_run(
            self.command(&["install", "--no-install-recommends", "--no-remove"])
                .args(known),
        )
    }
}
