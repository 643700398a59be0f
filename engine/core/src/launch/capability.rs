//! Capabilities (capabilities(7)): which of them a command loses, and which it keeps on request.

use std::{fmt, io, str::FromStr};

use rustix::thread::{CapabilitySet as Bits, capabilities};

use crate::hint::Hint;

/// One capability: a set of one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability(Bits);

impl Capability {
    /// Open files by handle, past every directory and mount.
    pub const DAC_READ_SEARCH: Capability = Capability(Bits::DAC_READ_SEARCH);
    /// Change the group.
    pub const SETGID: Capability = Capability(Bits::SETGID);
    /// Change the user.
    pub const SETUID: Capability = Capability(Bits::SETUID);
    /// Remove capabilities from the bounding set.
    pub const SETPCAP: Capability = Capability(Bits::SETPCAP);
    /// Administer the network.
    pub const NET_ADMIN: Capability = Capability(Bits::NET_ADMIN);
    /// Raw and packet sockets.
    pub const NET_RAW: Capability = Capability(Bits::NET_RAW);
    /// Load kernel modules.
    pub const SYS_MODULE: Capability = Capability(Bits::SYS_MODULE);
    /// I/O ports and physical memory.
    pub const SYS_RAWIO: Capability = Capability(Bits::SYS_RAWIO);
    /// Trace any process.
    pub const SYS_PTRACE: Capability = Capability(Bits::SYS_PTRACE);
    /// Mounts, namespaces, and much else.
    pub const SYS_ADMIN: Capability = Capability(Bits::SYS_ADMIN);
    /// Reboot and kexec.
    pub const SYS_BOOT: Capability = Capability(Bits::SYS_BOOT);
    /// Performance events, and kernel memory reads in eBPF programs.
    pub const PERFMON: Capability = Capability(Bits::PERFMON);
    /// Load eBPF programs and access maps.
    pub const BPF: Capability = Capability(Bits::BPF);

    /// The name without `CAP_`.
    pub fn name(self) -> &'static str {
        self.0.iter_names().next().map_or("?", |(name, _)| name)
    }

    /// Its bit, as in `CapEff` of `/proc/<pid>/status`.
    pub fn bits(self) -> u64 {
        self.0.bits()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{}", self.name())
    }
}

/// What a command loses unless it keeps it on request, each with the bypass that it allows. They are removed from the
/// bounding set too, whatever user the command runs as: a setuid root program (sudo, for example) gets its
/// capabilities from there.
///
/// Not in the list, because they allow no bypass by themselves: MKNOD (device files help only with SYS_RAWIO or where
/// root's file permissions give access anyway), SYS_CHROOT, DAC_OVERRIDE, SETUID and SETGID (package managers change
/// to their own users).
pub const DANGEROUS: [(Capability, &str); 10] = [
    (
        Capability::SYS_ADMIN,
        "undo the private mounts, enter other namespaces, load programs",
    ),
    (Capability::BPF, "load programs, write the maps of the datapath"),
    (
        Capability::NET_ADMIN,
        "detach programs, rewrite addresses with netfilter, open tunnels",
    ),
    (Capability::NET_RAW, "send packets that no address hook sees"),
    (
        Capability::SYS_PTRACE,
        "make a process outside the cgroup connect on its behalf",
    ),
    (Capability::SYS_MODULE, "load code into the kernel"),
    (Capability::SYS_RAWIO, "write kernel memory"),
    (Capability::SYS_BOOT, "start another kernel"),
    (Capability::PERFMON, "read kernel memory, attach probes"),
    (
        Capability::DAC_READ_SEARCH,
        "open files by handle, past the private mounts",
    ),
];

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySet(Bits);

/// A name that is not that of a capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a capability; write `all` or names from: {}", known_names())]
pub struct UnknownCapability {
    name: String,
}

impl Hint for UnknownCapability {}

fn known_names() -> String {
    let names: Vec<&str> = Bits::all().iter_names().map(|(name, _)| name).collect();
    names.join(", ").to_lowercase()
}

impl CapabilitySet {
    /// No capability.
    pub const NONE: CapabilitySet = CapabilitySet(Bits::empty());
    /// Every capability, also those newer than this program.
    pub const ALL: CapabilitySet = CapabilitySet(Bits::all());

    /// A set of one capability.
    pub const fn of(capability: Capability) -> CapabilitySet {
        CapabilitySet(capability.0)
    }

    /// Whether the capability is in the set.
    pub fn contains(self, capability: Capability) -> bool {
        self.0.contains(capability.0)
    }

    /// The capabilities that are in this set or in the other.
    #[must_use]
    pub fn union(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 | other.0)
    }

    /// The effective set of the calling thread.
    ///
    /// # Errors
    /// That of capget(2), which does not fail in practice.
    pub fn effective() -> io::Result<CapabilitySet> {
        Ok(CapabilitySet(capabilities(None)?.effective))
    }

    /// What a command that keeps this set loses: the rest of [`DANGEROUS`].
    pub(super) fn to_drop(self) -> CapabilitySet {
        let dangerous = DANGEROUS.iter().fold(Bits::empty(), |set, (one, _)| set | one.0);
        CapabilitySet(dangerous & !self.0)
    }

    /// The capabilities with a name, in the order of their kernel ids. Does not allocate.
    #[cfg(test)]
    fn iter(self) -> impl Iterator<Item = Capability> {
        self.0.iter_names().map(|(_, bit)| Capability(bit))
    }

    pub(super) fn bits(self) -> Bits {
        self.0
    }
}

impl Default for CapabilitySet {
    fn default() -> CapabilitySet {
        CapabilitySet::NONE
    }
}

/// One name or several, separated by commas: `net_raw`, `CAP_NET_RAW,sys_ptrace`, `all`.
impl FromStr for CapabilitySet {
    type Err = UnknownCapability;

    fn from_str(text: &str) -> Result<CapabilitySet, UnknownCapability> {
        text.split(',')
            .map(str::trim)
            .try_fold(CapabilitySet::NONE, |set, name| {
                let upper = name.to_ascii_uppercase();
                if upper == "ALL" {
                    return Ok(CapabilitySet::ALL);
                }
                let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
                Bits::from_name(bare)
                    .map(|bit| CapabilitySet(set.0 | bit))
                    .ok_or_else(|| UnknownCapability {
                        name: name.to_owned(),
                    })
            })
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.0.iter_names().map(|(name, _)| name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_and_without_prefix_in_any_case() {
        let set: CapabilitySet = "net_raw, CAP_SYS_PTRACE".parse().unwrap();
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Capability::NET_RAW, Capability::SYS_PTRACE]
        );
        assert_eq!("All".parse(), Ok(CapabilitySet::ALL));
        assert_eq!("all,net_raw".parse(), Ok(CapabilitySet::ALL));
    }

    #[test]
    fn an_unknown_name_is_reported_with_the_known_ones() {
        for text in ["net_row", "", "net_raw,", "CAP_"] {
            let error = text.parse::<CapabilitySet>().unwrap_err();
            assert!(error.to_string().contains("net_raw, ipc_lock"), "{error}");
        }
    }

    #[test]
    fn names_are_those_of_the_kernel() {
        for (capability, name) in [
            (Capability::NET_ADMIN, "CAP_NET_ADMIN"),
            (Capability::SYS_PTRACE, "CAP_SYS_PTRACE"),
            (Capability::PERFMON, "CAP_PERFMON"),
            (Capability::BPF, "CAP_BPF"),
            (Capability::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"),
            (Capability::SETPCAP, "CAP_SETPCAP"),
        ] {
            assert_eq!(capability.to_string(), name);
        }
        assert_eq!(Capability::SYS_ADMIN.bits(), 1 << 21);
        assert_eq!(Bits::all().iter_names().count(), 41);
    }

    #[test]
    fn kept_capabilities_are_not_dropped() {
        assert_eq!(CapabilitySet::ALL.to_drop(), CapabilitySet::NONE);
        assert_eq!(CapabilitySet::NONE.to_drop().iter().count(), DANGEROUS.len());
        let kept: CapabilitySet = "bpf,chown".parse().unwrap();
        assert!(!kept.to_drop().contains(Capability::BPF));
        assert!(kept.to_drop().contains(Capability::SYS_ADMIN));
        assert_eq!(kept.to_drop().iter().count(), DANGEROUS.len() - 1);
    }
}
