//! The components that development needs, and whether they are installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{cargo, find_on_path, stdout_of};
use crate::toolchain;
use crate::vm::suite::KEYRING;

/// What a component is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `cargo build`.
    Build,
    /// `cargo xtask lint`.
    Lint,
    /// `cargo xtask fuzz`.
    Fuzz,
    /// `cargo xtask demo`, and integration tests.
    Demo,
    /// Integration tests only.
    Integration,
    /// Tools that `cargo xtask bench` compares with.
    Bench,
    /// `cargo xtask vm`, in addition to `Demo` and `Integration`.
    Vm,
}

/// Name of the emulator. If it cannot be installed, its packages are unpacked in the target directory.
pub(crate) const QEMU: &str = "qemu";

impl Purpose {
    /// All purposes.
    pub(crate) const ALL: [Purpose; 7] = [
        Purpose::Build,
        Purpose::Lint,
        Purpose::Fuzz,
        Purpose::Demo,
        Purpose::Integration,
        Purpose::Bench,
        Purpose::Vm,
    ];

    /// The purposes of the step `setup` of `cargo xtask test`; the step `vm` installs its own components.
    pub(crate) const OF_TESTS: [Purpose; 5] = [
        Purpose::Build,
        Purpose::Lint,
        Purpose::Fuzz,
        Purpose::Demo,
        Purpose::Integration,
    ];

    /// Its name in the table.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Purpose::Build => "build",
            Purpose::Lint => "lint",
            Purpose::Fuzz => "fuzz",
            Purpose::Demo => "demo, test",
            Purpose::Integration => "test",
            Purpose::Bench => "bench",
            Purpose::Vm => "vm, test",
        }
    }
}

/// How to install a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InstallMethod {
    /// Debian packages.
    Apt(Vec<String>),
    /// A compiler with the source of the standard library: Debian packages, or rustup.
    EbpfCompiler,
    /// A rustup component, or a Debian package where rustup is not installed.
    RustComponent(&'static str, &'static str),
    /// bpf-linker, built with this major version of LLVM.
    BpfLinker(u32),
    /// A program that `cargo install` builds, and its version.
    CargoInstall(&'static str, &'static str),
}

impl InstallMethod {
    /// The text for the table.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            InstallMethod::Apt(_) => "install by apt-get",
            InstallMethod::EbpfCompiler => "install by apt-get or rustup",
            InstallMethod::RustComponent(..) => "install by rustup or apt-get",
            InstallMethod::BpfLinker(_) | InstallMethod::CargoInstall(..) => "install by cargo",
        }
    }
}

/// A component.
#[derive(Clone, Debug)]
pub(crate) struct Component {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// What it is needed for.
    pub(crate) purpose: Purpose,
    /// Its path or version, or why it counts as missing.
    pub(crate) found: Result<String, String>,
    /// How to install it.
    pub(crate) method: InstallMethod,
}

impl Component {
    /// Whether it is installed.
    pub(crate) const fn is_installed(&self) -> bool {
        self.found.is_ok()
    }
}

/// The LLVM version of Debian's rustc-web, assumed while no compiler is installed.
const USUAL_LLVM: u32 = 22;

/// Looks for all components of these purposes.
pub(crate) fn survey(purposes: &[Purpose]) -> Vec<Component> {
    let mut components = Vec::new();
    for purpose in Purpose::ALL {
        if purposes.contains(&purpose) {
            add_components(purpose, &mut components);
        }
    }
    components
}

fn add_components(purpose: Purpose, components: &mut Vec<Component>) {
    let mut add = |name, found, method| {
        components.push(Component {
            name,
            purpose,
            found,
            method,
        })
    };
    let apt = |package: &str| InstallMethod::Apt(vec![package.to_owned()]);
    match purpose {
        Purpose::Build => {
            let compiler = toolchain::compiler();
            let llvm = compiler.as_ref().map_or(USUAL_LLVM, |compiler| compiler.llvm);
            let found = compiler
                .map(|compiler| compiler.to_string())
                .map_err(|why| why.join("; "));
            add("eBPF compiler", found, InstallMethod::EbpfCompiler);
            add("bpf-linker", bpf_linker(), InstallMethod::BpfLinker(llvm));
        }
        Purpose::Lint => {
            let version = |tool: &str| stdout_of(cargo([tool]).arg("--version")).ok_or_else(missing);
            add(
                "rustfmt",
                version("fmt"),
                InstallMethod::RustComponent("rustfmt", "rustfmt-web"),
            );
            add(
                "clippy",
                version("clippy"),
                InstallMethod::RustComponent("clippy", "rust-web-clippy"),
            );
            add(
                "cargo-deny",
                version("deny"),
                InstallMethod::CargoInstall("cargo-deny", "0.20.2"),
            );
        }
        Purpose::Fuzz => add("C++ compiler", program("c++"), apt("g++")),
        Purpose::Demo => {
            add("curl", program("curl"), apt("curl"));
            add("ip", program("ip"), apt("iproute2"));
            add("python3", program("python3"), apt("python3"));
        }
        Purpose::Integration => {
            add("git", program("git"), apt("git"));
            add("ssh", program("ssh"), apt("openssh-client"));
            let (found, package) = python_tests();
            add("CPython's tests", found, InstallMethod::Apt(vec![package]));
        }
        Purpose::Bench => {
            add("nft", program("nft"), apt("nftables"));
            add("bwrap", program("bwrap"), apt("bubblewrap"));
        }
        Purpose::Vm => {
            add(QEMU, emulator(), apt("qemu-system-x86"));
            add("busybox", program("busybox"), apt("busybox-static"));
            add("bash", program("bash"), apt("bash"));
            add("git", program("git"), apt("git"));
            add("ssh", program("ssh"), apt("openssh-client"));
            add("strip", program("strip"), apt("binutils"));
            add("xz", program("xz"), apt("xz-utils"));
            add(
                "Debian archive keys",
                file(KEYRING),
                apt("debian-archive-keyring"),
            );
        }
    }
}

fn missing() -> String {
    "not found".to_owned()
}

fn file(path: &str) -> Result<String, String> {
    Path::new(path)
        .is_file()
        .then(|| path.to_owned())
        .ok_or_else(missing)
}

fn program(name: &str) -> Result<String, String> {
    find_on_path(name)
        .map(|path| path.display().to_string())
        .ok_or_else(missing)
}

fn emulator() -> Result<String, String> {
    let found = crate::vm::qemu::found();
    found.map(|path| path.display().to_string()).ok_or_else(missing)
}

fn bpf_linker() -> Result<String, String> {
    let path = toolchain::linker().ok_or_else(missing)?;
    match stdout_of(Command::new(&path).arg("--version")) {
        Some(version) => Ok(format!("{version}, {}", path.display())),
        None => Err(format!(
            "{} does not run (is its LLVM installed?)",
            path.display()
        )),
    }
}

/// CPython's test_socket, of the python3 on PATH or in /usr/bin, and the Debian package that has it: the name contains Python's
/// version.
fn python_tests() -> (Result<String, String>, String) {
    const FIND: &str = "import importlib.util, sys; \
        spec = importlib.util.find_spec('test.test_socket'); \
        print('%d.%d' % sys.version_info[:2], spec.origin if spec else '')";
    let mut package = "libpython3-testsuite".to_owned();
    for python in ["python3", "/usr/bin/python3"].map(PathBuf::from) {
        let Some(output) = stdout_of(Command::new(&python).arg("-c").arg(FIND)) else {
            continue;
        };
        match output.split_once(' ') {
            Some((_, origin)) if Path::new(origin).is_file() => return (Ok(origin.to_owned()), package),
            Some((version, _)) => package = format!("libpython{version}-testsuite"),
            None => package = format!("libpython{output}-testsuite"),
        }
    }
    (Err(missing()), package)
}
