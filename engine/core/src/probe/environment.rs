//! Mounts, security modules, capabilities and namespaces: what can be read before anything is tried.

use std::{fs, path::Path};

use nix::{
    fcntl::AtFlags,
    sys::utsname::uname,
    unistd::{AccessFlags, faccessat, geteuid},
};
use serde::Serialize;

use super::{
    finding::{Finding, Support},
    refused::RUN_AS_ROOT,
};
use crate::{
    cgroup::Hierarchy,
    datapath::Btf,
    launch::{Capability, CapabilitySet},
    procfs::MountTable,
};

/// The active security modules, in the order in which the kernel calls them.
const MODULES: &str = "/sys/kernel/security/lsm";
/// Restrictions that apply to root too (kernel_lockdown(7)).
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// Inode numbers of the initial namespaces, the same on every machine (include/linux/proc_ns.h).
const INITIAL_USER: &str = "user:[4026531837]";
const INITIAL_CGROUP: &str = "cgroup:[4026531835]";

/// The running kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Kernel {
    /// As in `uname -r`.
    pub release: String,
    /// As in `uname -m`.
    pub machine: String,
}

/// The environment of this process.
pub(super) struct HostEnvironment {
    pub(super) kernel: Kernel,
    pub(super) hierarchy: Result<Hierarchy, String>,
    /// The active security modules, separated by commas; `None` when securityfs cannot be read.
    pub(super) modules: Option<String>,
    capabilities: CapabilitySet,
    btf: Result<(), String>,
}

impl HostEnvironment {
    pub(super) fn detect() -> HostEnvironment {
        let names = uname().ok();
        let name = |field: Option<&std::ffi::OsStr>| field.unwrap_or_default().to_string_lossy().into_owned();
        let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        HostEnvironment {
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

    /// The capabilities needed to load and attach programs that this process does not have.
    pub(super) fn missing_capabilities(&self) -> Vec<Capability> {
        // Since Linux 5.8 the three together allow this; CAP_SYS_ADMIN alone still does.
        if self.capabilities.contains(Capability::SYS_ADMIN) {
            return Vec::new();
        }
        let mut missing = vec![Capability::BPF, Capability::NET_ADMIN, Capability::PERFMON];
        missing.retain(|&one| !self.capabilities.contains(one));
        missing
    }

    pub(super) fn in_initial_user_namespace(&self) -> bool {
        is_namespace("/proc/self/ns/user", INITIAL_USER)
    }

    /// Whether `bpf` is an active security module; `None` when securityfs cannot be read.
    pub(super) fn has_bpf_module(&self) -> Option<bool> {
        let modules = self.modules.as_ref()?;
        Some(modules.split(',').any(|module| module == "bpf"))
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        vec![
            self.capabilities(),
            namespace(
                "user namespace",
                self.in_initial_user_namespace(),
                "capabilities in it do not allow loading eBPF programs",
            ),
            namespace(
                "cgroup namespace",
                is_namespace("/proc/self/ns/cgroup", INITIAL_CGROUP),
                "it hides the depth of cgroups, so a policy cannot be attached with --cgroup",
            ),
            self.cgroup2(),
            self.own_cgroup(),
            mount(
                "bpffs",
                "bpf",
                "attached policies stay active after tidegate exits",
                "mount -t bpf -o mode=700 bpf /sys/fs/bpf",
            ),
            self.security_modules(),
            lockdown(),
            self.type_information(),
        ]
    }

    fn capabilities(&self) -> Finding {
        let missing = self.missing_capabilities();
        let finding = |support| Finding::new("capabilities", "load and attach programs", support);
        if missing.is_empty() {
            return finding(Support::Yes).reason(if geteuid().is_root() {
                "root"
            } else {
                "has the capabilities"
            });
        }
        let names: Vec<String> = missing.iter().map(Capability::to_string).collect();
        finding(Support::No)
            .reason(format!("{} missing", names.join(", ")))
            .hint(RUN_AS_ROOT)
    }

    fn cgroup2(&self) -> Finding {
        let purpose = "the cgroup hierarchy that policies are attached to";
        match &self.hierarchy {
            Ok(hierarchy) => Finding::new("cgroup2", purpose, Support::Yes)
                .reason(format!("mounted at {}", hierarchy.mount_point().display())),
            Err(error) => {
                let (reason, hint) = error.split_once("; ").unwrap_or((error, "mount cgroup2"));
                Finding::new("cgroup2", purpose, Support::No)
                    .reason(reason)
                    .hint(hint)
            }
        }
    }

    fn own_cgroup(&self) -> Finding {
        let finding = |support| Finding::new("own cgroup", "`exec` creates a cgroup in it", support);
        let Ok(hierarchy) = &self.hierarchy else {
            return finding(Support::Unknown).reason("no cgroup2");
        };
        let own = hierarchy.own_cgroup();
        let shown = own.display().to_string();
        let shown = shown.trim_end_matches('/');
        match faccessat(nix::fcntl::AT_FDCWD, &own, AccessFlags::W_OK, AtFlags::AT_EACCESS) {
            Ok(()) => finding(Support::Yes).reason(format!("{shown} is writable")),
            Err(errno) => finding(Support::No)
                .reason(format!("{shown} is not writable: {errno}"))
                .hint(match errno {
                    nix::errno::Errno::EROFS => "run it outside the container, or mount cgroup2 writable",
                    _ => RUN_AS_ROOT,
                }),
        }
    }

    fn security_modules(&self) -> Finding {
        let purpose = "the kernel calls LSM programs";
        let finding = |support| Finding::new("bpf security module", purpose, support);
        match (&self.modules, self.has_bpf_module()) {
            (Some(modules), Some(true)) => finding(Support::Yes).reason(modules.clone()),
            (Some(modules), _) => finding(Support::No)
                .reason(format!("the active modules are {modules}"))
                .hint(boot_with_bpf(modules)),
            (None, _) => finding(Support::Unknown)
                .reason(format!("{MODULES} cannot be read"))
                .hint("mount -t securityfs none /sys/kernel/security"),
        }
    }

    fn type_information(&self) -> Finding {
        let purpose = "offsets in kernel structures";
        match &self.btf {
            Ok(()) => Finding::new("BTF", purpose, Support::Yes),
            Err(error) => Finding::new("BTF", purpose, Support::No)
                .reason(error.clone())
                .hint("use a kernel built with CONFIG_DEBUG_INFO_BTF, and mount sysfs at /sys"),
        }
    }
}

/// The boot parameter that adds `bpf` to the active modules. `capability` is always active and cannot be named in it.
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
    let purpose = "programs may read kernel memory";
    let finding = |support| Finding::new("no lockdown", purpose, support);
    let Ok(text) = fs::read_to_string(LOCKDOWN) else {
        // Without the module there is no lockdown; without securityfs it is unknown.
        return match Path::new(MODULES).exists() {
            true => finding(Support::Yes).reason("lockdown is not active"),
            false => finding(Support::Unknown).reason(format!("{LOCKDOWN} cannot be read")),
        };
    };
    let active = text.split(['[', ']']).nth(1).unwrap_or("none").to_owned();
    if active == "confidentiality" {
        return finding(Support::No)
            .reason(format!("lockdown mode: {active}"))
            .hint("boot with lockdown=integrity or lockdown=none");
    }
    finding(Support::Yes).reason(format!("lockdown mode: {active}"))
}

fn mount(name: &'static str, kind: &'static str, purpose: &'static str, hint: &str) -> Finding {
    match MountTable::read() {
        Err(error) => Finding::new(name, purpose, Support::Unknown)
            .reason(format!("cannot read /proc/self/mountinfo: {error}")),
        Ok(table) => match table.reachable(kind).next() {
            Some(mount) => Finding::new(name, purpose, Support::Yes)
                .reason(format!("mounted at {}", mount.mount_point.display())),
            None => Finding::new(name, purpose, Support::No)
                .reason("not mounted; tidegate mounts it if it has the privileges")
                .hint(hint),
        },
    }
}

fn namespace(name: &'static str, is_initial: bool, consequence: &str) -> Finding {
    let purpose = "is the initial namespace of the host";
    match is_initial {
        true => Finding::new(name, purpose, Support::Yes).reason("initial namespace"),
        false => Finding::new(name, purpose, Support::No)
            .reason(format!("not the initial namespace: {consequence}"))
            .hint("run it outside the container"),
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
    fn the_boot_parameter_keeps_the_active_modules() {
        for (modules, parameter) in [
            ("lockdown,capability,yama", "boot with lsm=lockdown,yama,bpf"),
            ("capability", "boot with lsm=bpf"),
            ("", "boot with lsm=bpf"),
        ] {
            assert_eq!(boot_with_bpf(modules), parameter);
        }
    }
}
