//! Mounts, security modules, capabilities and namespaces: what is there before anything is tried.

use std::{fs, path::Path};

use nix::{
    fcntl::AtFlags,
    sys::utsname::uname,
    unistd::{AccessFlags, faccessat, geteuid},
};
use serde::Serialize;

use super::finding::{Answer, Finding};
use crate::{
    cgroup::Hierarchy,
    datapath::Btf,
    launch::{Capability, CapabilitySet},
    procfs::MountTable,
};

/// The security modules that are active, in the order they are asked.
const MODULES: &str = "/sys/kernel/security/lsm";
/// What the kernel keeps even root from doing.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// Inode numbers of the initial namespaces, the same on every machine (include/linux/proc_ns.h).
const INITIAL_USER: &str = "user:[4026531837]";
const INITIAL_CGROUP: &str = "cgroup:[4026531835]";

/// The running kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    /// As `uname -m` says it.
    pub machine: String,
}

/// Where this process is.
pub(super) struct Surroundings {
    pub(super) kernel: Kernel,
    pub(super) hierarchy: Result<Hierarchy, String>,
    /// The security modules; `None` where securityfs does not show them.
    pub(super) modules: Option<String>,
    capabilities: CapabilitySet,
    btf: Result<(), String>,
}

impl Surroundings {
    pub(super) fn look() -> Surroundings {
        let names = uname().ok();
        let name = |field: Option<&std::ffi::OsStr>| field.unwrap_or_default().to_string_lossy().into_owned();
        let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        Surroundings {
            kernel: Kernel {
                release: name(names.as_ref().map(|names| names.release())),
                machine: name(names.as_ref().map(|names| names.machine())),
            },
            hierarchy: Hierarchy::find().map_err(|error| error.to_string()),
            modules: read(MODULES),
            capabilities: CapabilitySet::effective().unwrap_or_default(),
            btf: Btf::of_running_kernel().map(drop).map_err(|error| {
                match std::error::Error::source(&error) {
                    Some(cause) => format!("{error}: {cause}"),
                    None => error.to_string(),
                }
            }),
        }
    }

    /// The capabilities that loading and attaching want and that are not held.
    pub(super) fn missing(&self) -> Vec<Capability> {
        // Since Linux 5.8 the three stand for what SYS_ADMIN alone allowed before, and still does.
        if self.capabilities.contains(Capability::SYS_ADMIN) {
            return Vec::new();
        }
        let mut wanted = vec![Capability::BPF, Capability::NET_ADMIN, Capability::PERFMON];
        wanted.retain(|&one| !self.capabilities.contains(one));
        wanted
    }

    pub(super) fn in_initial_user_namespace(&self) -> bool {
        is_namespace("/proc/self/ns/user", INITIAL_USER)
    }

    /// Whether `bpf` is one of the active security modules, where that can be read.
    pub(super) fn has_bpf_module(&self) -> Option<bool> {
        let modules = self.modules.as_ref()?;
        Some(modules.split(',').any(|module| module == "bpf"))
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        vec![
            self.rights(),
            namespace(
                "user namespace",
                self.in_initial_user_namespace(),
                "capabilities of a user namespace of its own do not count for BPF",
            ),
            namespace(
                "cgroup namespace",
                is_namespace("/proc/self/ns/cgroup", INITIAL_CGROUP),
                "the depth of cgroups is hidden: a policy by --cgroup cannot be attached",
            ),
            self.cgroup2(),
            self.own_cgroup(),
            mount(
                "bpffs",
                "bpf",
                "keeps programs in force when tidegate ends",
                "mount -t bpf -o mode=700 bpf /sys/fs/bpf",
            ),
            self.security_modules(),
            lockdown(),
            self.type_information(),
        ]
    }

    fn rights(&self) -> Finding {
        let missing = self.missing();
        let finding = |answer| Finding::new("capabilities", "to load and attach programs", answer);
        if missing.is_empty() {
            return finding(Answer::Yes).because(if geteuid().is_root() {
                "root"
            } else {
                "by capabilities"
            });
        }
        let names: Vec<String> = missing.iter().map(Capability::to_string).collect();
        finding(Answer::No)
            .because(format!("without {}", names.join(", ")))
            .remedy("run it as root, for instance with sudo")
    }

    fn cgroup2(&self) -> Finding {
        let purpose = "the hierarchy of cgroups that policies stand on";
        match &self.hierarchy {
            Ok(hierarchy) => Finding::new("cgroup2", purpose, Answer::Yes)
                .because(format!("mounted at {}", hierarchy.mount_point().display())),
            Err(error) => {
                let (reason, remedy) = error.split_once("; ").unwrap_or((error, "mount cgroup2"));
                Finding::new("cgroup2", purpose, Answer::No)
                    .because(reason)
                    .remedy(remedy)
            }
        }
    }

    fn own_cgroup(&self) -> Finding {
        let finding = |answer| Finding::new("own cgroup", "`exec` makes a cgroup in it", answer);
        let Ok(hierarchy) = &self.hierarchy else {
            return finding(Answer::Unknown).because("no cgroup2");
        };
        let own = hierarchy.own_cgroup();
        let shown = own.display().to_string();
        let shown = shown.trim_end_matches('/');
        match faccessat(nix::fcntl::AT_FDCWD, &own, AccessFlags::W_OK, AtFlags::AT_EACCESS) {
            Ok(()) => finding(Answer::Yes).because(format!("{shown} can be written")),
            Err(errno) => finding(Answer::No)
                .because(format!("{shown} cannot be written: {errno}"))
                .remedy(match errno {
                    nix::errno::Errno::EROFS => "run it outside the container, or mount cgroup2 writable",
                    _ => "run it as root, for instance with sudo",
                }),
        }
    }

    fn security_modules(&self) -> Finding {
        let purpose = "whether LSM programs are called";
        let finding = |answer| Finding::new("bpf among the LSMs", purpose, answer);
        match (&self.modules, self.has_bpf_module()) {
            (Some(modules), Some(true)) => finding(Answer::Yes).because(modules.clone()),
            (Some(modules), _) => finding(Answer::No)
                .because(format!("active are {modules}"))
                .remedy(boot_with_bpf(modules)),
            (None, _) => finding(Answer::Unknown)
                .because(format!("{MODULES} cannot be read"))
                .remedy("mount -t securityfs none /sys/kernel/security"),
        }
    }

    fn type_information(&self) -> Finding {
        let purpose = "offsets in the kernel's structures";
        match &self.btf {
            Ok(()) => Finding::new("BTF", purpose, Answer::Yes),
            Err(error) => Finding::new("BTF", purpose, Answer::No)
                .because(error.clone())
                .remedy("a kernel built with CONFIG_DEBUG_INFO_BTF, and sysfs mounted at /sys"),
        }
    }
}

/// The boot parameter that adds `bpf` to the modules there are. `capability` is always there and not
/// to be named.
pub(super) fn boot_with_bpf(modules: &str) -> String {
    let named: Vec<&str> = modules
        .split(',')
        .filter(|module| !module.is_empty() && *module != "capability")
        .collect();
    match named.as_slice() {
        [] => "boot with lsm=bpf".to_owned(),
        named => format!("boot with lsm={},bpf", named.join(",")),
    }
}

fn lockdown() -> Finding {
    let purpose = "whether the kernel keeps programs from reading it";
    let finding = |answer| Finding::new("no lockdown", purpose, answer);
    let Ok(text) = fs::read_to_string(LOCKDOWN) else {
        // Without the module there is no lockdown; without securityfs it is not known.
        return match Path::new(MODULES).exists() {
            true => finding(Answer::Yes).because("there is none"),
            false => finding(Answer::Unknown).because(format!("{LOCKDOWN} cannot be read")),
        };
    };
    let active = text.split(['[', ']']).nth(1).unwrap_or("none").to_owned();
    if active == "confidentiality" {
        return finding(Answer::No)
            .because(active)
            .remedy("boot with lockdown=integrity, or without");
    }
    finding(Answer::Yes).because(active)
}

fn mount(name: &'static str, kind: &'static str, purpose: &'static str, remedy: &str) -> Finding {
    match MountTable::read() {
        Err(error) => Finding::new(name, purpose, Answer::Unknown)
            .because(format!("cannot read /proc/self/mountinfo: {error}")),
        Ok(table) => match table.reachable(kind).next() {
            Some(mount) => Finding::new(name, purpose, Answer::Yes)
                .because(format!("mounted at {}", mount.mount_point.display())),
            None => Finding::new(name, purpose, Answer::No)
                .because("not mounted; tidegate mounts it where it may")
                .remedy(remedy),
        },
    }
}

fn namespace(name: &'static str, is_initial: bool, consequence: &str) -> Finding {
    let purpose = "whether this is the machine's own";
    match is_initial {
        true => Finding::new(name, purpose, Answer::Yes).because("the initial one"),
        false => Finding::new(name, purpose, Answer::No)
            .because(format!("one of its own: {consequence}"))
            .remedy("run it outside the container"),
    }
}

/// A kernel without such namespaces has only the initial one.
fn is_namespace(link: &str, initial: &str) -> bool {
    fs::read_link(link).map_or(true, |name| name == Path::new(initial))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_parameter_keeps_what_is_there() {
        for (modules, parameter) in [
            ("lockdown,capability,yama", "boot with lsm=lockdown,yama,bpf"),
            ("capability", "boot with lsm=bpf"),
            ("", "boot with lsm=bpf"),
        ] {
            assert_eq!(boot_with_bpf(modules), parameter);
        }
    }
}
