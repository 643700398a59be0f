//! Capabilities: which a command may not have, and which it is to keep.

use std::{fmt, io, str::FromStr};

/// One capability, by its number in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

/// All names, in the order of their numbers (linux/capability.h of Linux 6.12).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

impl Capability {
    /// Open files by handle, past every directory and mount.
    pub const DAC_READ_SEARCH: Capability = Capability(2);
    /// Change the group.
    pub const SETGID: Capability = Capability(6);
    /// Change the user.
    pub const SETUID: Capability = Capability(7);
    /// Take capabilities out of the bounding set.
    pub const SETPCAP: Capability = Capability(8);
    /// Administer the network.
    pub const NET_ADMIN: Capability = Capability(12);
    /// Raw and packet sockets.
    pub const NET_RAW: Capability = Capability(13);
    /// Load kernel modules.
    pub const SYS_MODULE: Capability = Capability(16);
    /// Ports and physical memory.
    pub const SYS_RAWIO: Capability = Capability(17);
    /// Trace any process.
    pub const SYS_PTRACE: Capability = Capability(19);
    /// Mounts, namespaces, and much else.
    pub const SYS_ADMIN: Capability = Capability(21);
    /// Reboot and kexec.
    pub const SYS_BOOT: Capability = Capability(22);
    /// Performance events and what programs may read of the kernel.
    pub const PERFMON: Capability = Capability(38);
    /// Load programs and reach maps.
    pub const BPF: Capability = Capability(39);

    /// The name without `CAP_`.
    pub fn name(self) -> &'static str {
        NAMES.get(usize::from(self.0)).copied().unwrap_or("?")
    }

    /// The number in linux/capability.h.
    pub fn number(self) -> u8 {
        self.0
    }

    const fn bit(self) -> u64 {
        1 << self.0
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{}", self.name())
    }
}

/// What a command loses unless it is told to keep it, each with the way round the gate it closes.
/// They leave the bounding set too, whoever the command runs as: a program that is setuid root
/// (sudo, say) gets its capabilities from there.
///
/// Not in the list, because they open no such way by themselves: MKNOD (device files help only
/// with SYS_RAWIO or with what root's file permissions allow anyway), SYS_CHROOT, DAC_OVERRIDE,
/// SETUID and SETGID (package managers change to users of their own).
pub const DANGEROUS: [(Capability, &str); 10] = [
    (
        Capability::SYS_ADMIN,
        "undo the private mounts, enter the namespaces of others, load programs",
    ),
    (Capability::BPF, "load programs, write the tables of the gate"),
    (
        Capability::NET_ADMIN,
        "detach programs, rewrite addresses with netfilter, open tunnels",
    ),
    (Capability::NET_RAW, "send packets that no address hook sees"),
    (
        Capability::SYS_PTRACE,
        "make a process outside the cgroup connect in its place",
    ),
    (Capability::SYS_MODULE, "load code into the kernel"),
    (Capability::SYS_RAWIO, "write the memory of the kernel"),
    (Capability::SYS_BOOT, "start another kernel"),
    (
        Capability::PERFMON,
        "read the memory of the kernel, attach probes",
    ),
    (
        Capability::DAC_READ_SEARCH,
        "open files by handle, past the private mounts",
    ),
];

/// A set of capabilities.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CapabilitySet(u64);

/// A name that is no capability.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a capability; write `all` or names from: {}", NAMES.join(", ").to_lowercase())]
pub struct UnknownCapability {
    name: String,
}

impl CapabilitySet {
    /// No capability.
    pub const NONE: CapabilitySet = CapabilitySet(0);
    /// Every capability, also those newer than this program.
    pub const ALL: CapabilitySet = CapabilitySet(u64::MAX);

    /// One capability alone.
    pub const fn of(capability: Capability) -> CapabilitySet {
        CapabilitySet(capability.bit())
    }

    /// Whether it is in the set.
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// With another set added.
    #[must_use]
    pub fn union(self, other: CapabilitySet) -> CapabilitySet {
        CapabilitySet(self.0 | other.0)
    }

    /// The effective set of the calling thread.
    ///
    /// # Errors
    /// What capget(2) says; it does not fail in practice.
    pub fn effective() -> io::Result<CapabilitySet> {
        let mut data = [CapabilityData::default(); 2];
        // SAFETY: version 3 wants exactly two data elements, which live across the call.
        let result = unsafe { libc::syscall(libc::SYS_capget, &CapabilityHeader::OWN, &mut data) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let [low, high] = data;
        Ok(CapabilitySet(
            u64::from(high.effective) << 32 | u64::from(low.effective),
        ))
    }

    /// What of [`DANGEROUS`] remains when this set is kept: what to take from the command.
    pub(super) fn to_drop(self) -> CapabilitySet {
        CapabilitySet(DANGEROUS.iter().fold(0, |bits, (one, _)| bits | one.bit()) & !self.0)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Capability> {
        (0..NAMES.len() as u8)
            .map(Capability)
            .filter(move |&one| self.contains(one))
    }

    /// The lower and the upper word, as capset(2) wants them.
    pub(super) fn words(self) -> [u32; 2] {
        [self.0 as u32, (self.0 >> 32) as u32]
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
                NAMES
                    .iter()
                    .position(|known| *known == bare)
                    .map(|number| CapabilitySet(set.0 | 1 << number))
                    .ok_or_else(|| UnknownCapability {
                        name: name.to_owned(),
                    })
            })
    }
}

impl fmt::Debug for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Capability::name)).finish()
    }
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
pub(super) struct CapabilityHeader {
    version: u32,
    pid: i32,
}

impl CapabilityHeader {
    /// Version 3 (`_LINUX_CAPABILITY_VERSION_3`), the calling thread.
    pub(super) const OWN: CapabilityHeader = CapabilityHeader {
        version: 0x2008_0522,
        pid: 0,
    };
}

/// `struct __user_cap_data_struct`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct CapabilityData {
    pub(super) effective: u32,
    pub(super) permitted: u32,
    pub(super) inheritable: u32,
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
    fn an_unknown_name_is_told_with_the_known_ones() {
        for text in ["net_row", "", "net_raw,", "CAP_"] {
            let error = text.parse::<CapabilitySet>().unwrap_err();
            assert!(error.to_string().contains("net_raw, ipc_lock"), "{error}");
        }
    }

    #[test]
    fn numbers_are_those_of_the_kernel() {
        // From linux/capability.h, where the names are easy to shift by one.
        for (name, number) in [
            ("CHOWN", 0),
            ("SYS_ADMIN", 21),
            ("AUDIT_READ", 37),
            ("CHECKPOINT_RESTORE", 40),
        ] {
            assert_eq!(Capability(number).name(), name);
        }
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
    }

    #[test]
    fn what_is_kept_is_not_dropped() {
        assert_eq!(CapabilitySet::ALL.to_drop(), CapabilitySet::NONE);
        assert_eq!(CapabilitySet::NONE.to_drop().iter().count(), DANGEROUS.len());
        let kept: CapabilitySet = "bpf,chown".parse().unwrap();
        assert!(!kept.to_drop().contains(Capability::BPF));
        assert!(kept.to_drop().contains(Capability::SYS_ADMIN));
        assert_eq!(kept.to_drop().iter().count(), DANGEROUS.len() - 1);
    }
}
