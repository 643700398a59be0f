//! What there has to be, and where it was found.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{answer, cargo, on_path};
use crate::toolchain;
use crate::vm::fetch::KEYRING;

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
    /// Integration tests alone.
    Integration,
    /// What `cargo xtask bench` holds the gate against.
    Bench,
    /// `cargo xtask vm`, beside what the demonstration and integration tests need.
    Vm,
}

/// The emulator of the kernel matrix: where it cannot be installed, it is unpacked.
pub(crate) const QEMU: &str = "qemu";

impl Purpose {
    /// All of them.
    pub(crate) const ALL: [Purpose; 7] = [
        Purpose::Build,
        Purpose::Lint,
        Purpose::Fuzz,
        Purpose::Demo,
        Purpose::Integration,
        Purpose::Bench,
        Purpose::Vm,
    ];

    /// Those of `cargo xtask test`: it measures nothing, and boots nothing unless asked to.
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

/// How a component comes to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Debian packages.
    Apt(Vec<String>),
    /// A compiler with the library's source: Debian packages, or rustup.
    EbpfCompiler,
    /// A component of rustup's toolchain, or the Debian package of the same where there is no rustup.
    RustComponent(&'static str, &'static str),
    /// bpf-linker from its source, with this LLVM.
    BpfLinker(u32),
    /// A program that `cargo install` builds.
    CargoInstall(&'static str, &'static str),
}

impl Remedy {
    /// In a word, for the table.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Remedy::Apt(_) => "install by apt-get",
            Remedy::EbpfCompiler => "install by apt-get or rustup",
            Remedy::RustComponent(..) => "install by rustup or apt-get",
            Remedy::BpfLinker(_) | Remedy::CargoInstall(..) => "install by cargo",
        }
    }
}

/// Something that development needs.
#[derive(Clone, Debug)]
pub(crate) struct Component {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// What needs it.
    pub(crate) purpose: Purpose,
    /// Where it was found, or why it does not count as found.
    pub(crate) found: Result<String, String>,
    /// What to do when it is not there.
    pub(crate) remedy: Remedy,
}

impl Component {
    /// Whether it was found.
    pub(crate) const fn is_there(&self) -> bool {
        self.found.is_ok()
    }
}

/// The LLVM of Debian's rustc-web, assumed while no compiler is there to ask.
const USUAL_LLVM: u32 = 22;

/// Looks at everything these purposes need.
pub(crate) fn survey(purposes: &[Purpose]) -> Vec<Component> {
    let mut components = Vec::new();
    for purpose in Purpose::ALL {
        if purposes.contains(&purpose) {
            look(purpose, &mut components);
        }
    }
    components
}

fn look(purpose: Purpose, components: &mut Vec<Component>) {
    let mut add = |name, found, remedy| {
        components.push(Component {
            name,
            purpose,
            found,
            remedy,
        })
    };
    let apt = |package: &str| Remedy::Apt(vec![package.to_owned()]);
    match purpose {
        Purpose::Build => {
            let compiler = toolchain::compiler();
            let llvm = compiler.as_ref().map_or(USUAL_LLVM, |compiler| compiler.llvm);
            let found = compiler
                .map(|compiler| compiler.to_string())
                .map_err(|why| why.join("; "));
            add("eBPF compiler", found, Remedy::EbpfCompiler);
            add("bpf-linker", bpf_linker(), Remedy::BpfLinker(llvm));
        }
        Purpose::Lint => {
            let version = |tool: &str| answer(cargo([tool]).arg("--version")).ok_or_else(none);
            add(
                "rustfmt",
                version("fmt"),
                Remedy::RustComponent("rustfmt", "rustfmt-web"),
            );
            add(
                "clippy",
                version("clippy"),
                Remedy::RustComponent("clippy", "rust-web-clippy"),
            );
            add(
                "cargo-deny",
                version("deny"),
                Remedy::CargoInstall("cargo-deny", "0.20.2"),
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
            add("CPython's tests", found, Remedy::Apt(vec![package]));
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
            add("Debian's keys", file(KEYRING), apt("debian-archive-keyring"));
        }
    }
}

fn none() -> String {
    "no".to_owned()
}

fn file(path: &str) -> Result<String, String> {
    Path::new(path)
        .is_file()
        .then(|| path.to_owned())
        .ok_or_else(none)
}

fn program(name: &str) -> Result<String, String> {
    on_path(name)
        .map(|path| path.display().to_string())
        .ok_or_else(none)
}

fn emulator() -> Result<String, String> {
    let found = crate::vm::qemu::found();
    found.map(|path| path.display().to_string()).ok_or_else(none)
}

fn bpf_linker() -> Result<String, String> {
    let path = toolchain::linker().ok_or_else(none)?;
    match answer(Command::new(&path).arg("--version")) {
        Some(version) => Ok(format!("{version}, {}", path.display())),
        None => Err(format!("{} does not run (its LLVM is gone?)", path.display())),
    }
}

/// CPython's own test_socket: of the python3 on PATH, or of the system's. The Debian package carries
/// Python's version in its name.
fn python_tests() -> (Result<String, String>, String) {
    const FIND: &str = "import importlib.util, sys; \
        spec = importlib.util.find_spec('test.test_socket'); \
        print('%d.%d' % sys.version_info[:2], spec.origin if spec else '')";
    let mut package = "libpython3-testsuite".to_owned();
    for python in ["python3", "/usr/bin/python3"].map(PathBuf::from) {
        let Some(said) = answer(Command::new(&python).arg("-c").arg(FIND)) else {
            continue;
        };
        match said.split_once(' ') {
            Some((_, origin)) if Path::new(origin).is_file() => return (Ok(origin.to_owned()), package),
            Some((version, _)) => package = format!("libpython{version}-testsuite"),
            None => package = format!("libpython{said}-testsuite"),
        }
    }
    (Err(none()), package)
}
