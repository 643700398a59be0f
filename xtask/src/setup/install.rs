//! Installs missing components: Debian packages, rustup components, programs that cargo builds.

use std::path::Path;
use std::process::Command;

use super::component::{self, Component, Purpose, QEMU, Remedy};
use crate::command::{cargo, on_path, run, shown, succeeds};
use crate::privilege::Privilege;
use crate::vm::qemu;

/// Debian's compiler with its library's source.
const COMPILER_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// Newer versions want a newer LLVM than Debian has.
const BPF_LINKER: &str = "0.13.0";

/// Installs what is missing for these purposes as far as this user may and the network lets it. What remains
/// missing is for the caller to find and report: one failure does not keep the others from being installed.
pub(crate) fn install(purposes: &[Purpose]) {
    let apt = Apt::of_this_machine();
    let only_cargo = |component: &Component| matches!(component.remedy, Remedy::CargoInstall(..));
    if let Some(apt) = &apt
        && !absent(purposes).iter().all(only_cargo)
    {
        // Before anything asks what apt knows: a fresh machine has no lists.
        attempt(&mut apt.command(&["update"]));
    }
    // Twice: which LLVM bpf-linker needs is known once the compiler is there.
    for with_programs in [false, true] {
        let absent = absent(purposes);
        if let Some(apt) = &apt {
            let packages = absent.iter().map(|component| packages_for(component, true));
            apt.install_each(packages.filter(|packages| !packages.is_empty()).collect());
        }
        for component in &absent {
            match &component.remedy {
                Remedy::RustComponent(name, _) if has_rustup() => {
                    attempt(Command::new("rustup").args(["component", "add", name]));
                }
                Remedy::EbpfCompiler if has_rustup() && !compiler_packages_known() => {
                    attempt(&mut rustup_nightly());
                }
                Remedy::BpfLinker(llvm) if with_programs && llvm_prefix(*llvm).is_some() => {
                    attempt(&mut install_bpf_linker(*llvm));
                }
                Remedy::CargoInstall(name, version) if with_programs => {
                    attempt(&mut install_program(name, version));
                }
                Remedy::Apt(_) if with_programs && component.name == QEMU && on_path("apt-get").is_some() => {
                    if let Err(error) = qemu::unpack() {
                        println!("    {error:#}");
                    }
                }
                _ => {}
            }
        }
    }
}

/// Runs a command; a failure is shown and no more. Whether it succeeded.
fn attempt(command: &mut Command) -> bool {
    match run(command) {
        Ok(()) => true,
        Err(error) => {
            println!("    {error:#}");
            false
        }
    }
}

/// What a person has to type to get these components.
pub(crate) fn by_hand(absent: &[&Component]) -> Vec<String> {
    let debian = on_path("apt-get").is_some();
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
        lines.push(format!("(your package manager) {}", packages.join(" ")));
    }
    for component in absent {
        match &component.remedy {
            Remedy::RustComponent(name, _) if has_rustup() => {
                lines.push(format!("rustup component add {name}"));
            }
            Remedy::EbpfCompiler if !debian || !compiler_packages_known() => {
                lines.push(shown(&rustup_nightly()));
            }
            Remedy::BpfLinker(llvm) => {
                lines.push(format!(
                    "LLVM_PREFIX=/usr/lib/llvm-{llvm} {}",
                    shown(&install_bpf_linker(*llvm))
                ));
            }
            Remedy::CargoInstall(name, version) => lines.push(shown(&install_program(name, version))),
            _ => {}
        }
    }
    lines
}

fn absent(purposes: &[Purpose]) -> Vec<Component> {
    component::survey(purposes)
        .into_iter()
        .filter(|component| !component.is_there())
        .collect()
}

/// The Debian packages that a missing component wants.
fn packages_for(component: &Component, debian: bool) -> Vec<String> {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    match &component.remedy {
        Remedy::Apt(packages) => packages.clone(),
        Remedy::EbpfCompiler if debian && compiler_packages_known() => owned(&COMPILER_PACKAGES),
        Remedy::RustComponent(_, package) if !has_rustup() => owned(&[package]),
        Remedy::BpfLinker(llvm) if llvm_prefix(*llvm).is_none() => {
            let mut packages = owned(&["zlib1g-dev", "libzstd-dev", "libxml2-dev"]);
            packages.extend([format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]);
            packages
        }
        _ => Vec::new(),
    }
}

fn has_rustup() -> bool {
    on_path("rustup").is_some()
}

/// Whether apt knows Debian's compiler; Ubuntu and older releases have none.
fn compiler_packages_known() -> bool {
    COMPILER_PACKAGES.iter().all(|package| known(package))
}

fn known(package: &str) -> bool {
    succeeds(Command::new("apt-cache").args(["show", "--quiet=2", "--no-all-versions", package]))
}

/// Debian's folder of an LLVM with its development files.
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

/// apt-get, and the right to use it.
struct Apt {
    privilege: Privilege,
}

impl Apt {
    fn of_this_machine() -> Option<Apt> {
        on_path("apt-get")?;
        let apt = Apt {
            privilege: Privilege::of_this_process(),
        };
        if apt.privilege == Privilege::None {
            println!("    neither root nor sudo without a password: no packages are installed");
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

    /// Installs the packages of components: all at once, which is faster, or, where apt refuses that for the sake of one of
    /// them, those of each component by themselves.
    fn install_each(&self, of_components: Vec<Vec<String>>) {
        if self.install(&of_components.concat()) || of_components.len() < 2 {
            return;
        }
        for packages in of_components {
            self.install(&packages);
        }
    }

    /// Whether nothing was refused.
    fn install(&self, packages: &[String]) -> bool {
        let (known, unknown): (Vec<&String>, Vec<&String>) =
            packages.iter().partition(|package| known(package));
        if !unknown.is_empty() {
            println!("    apt has no package named {unknown:?}");
        }
        if known.is_empty() {
            return true;
        }
        // Never at the price of something that is there: what conflicts is for a person to decide.
        attempt(
            self.command(&["install", "--no-install-recommends", "--no-remove"])
                .args(known),
        )
    }
}
