//! The validated policy. Values of these types can only be made whole: whoever holds a [`Policy`]
//! need not check it again.

use std::path::PathBuf;

pub use engine_common::dedup::DedupWindows;
pub use engine_common::destination::Nat64Prefix;
pub use engine_common::scope::HookSet;
pub use engine_common::{Action, Mode, Protocol};

use super::AddressSet;

/// A validated policy: what `policy::validate` makes of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `metadata.name`: letters, digits, `.`, `-`, `_`; 1 to 63 characters.
    pub name: String,
    /// Whether it acts or only watches.
    pub mode: Mode,
    /// What holds where no rule matches.
    pub default: Action,
    /// What a blocked caller sees.
    pub errno: Errno,
    /// The rules, in their order: the first match decides. At most
    /// [`MAX_RULES`](engine_common::limits::MAX_RULES).
    pub rules: Vec<Rule>,
    /// NAT64 prefixes beside the well-known one.
    pub nat64: Vec<Nat64Prefix>,
    /// Within which windows repeats are folded.
    pub fold: Fold,
    /// Whether packets are judged too, not only calls. No rule has a subject then: a packet has no process.
    pub strict: bool,
    /// Which hooks it is for.
    pub hooks: Hooks,
}

impl Policy {
    /// The hooks that it has a use for, those of the cgroup and of the security modules always.
    pub fn uses(&self) -> HookSet {
        Hooks::used(self.watches(), self.rules.iter().any(Rule::is_about_unix))
    }

    /// Whether it ever reports what it lets through.
    fn watches(&self) -> bool {
        let actions = self.rules.iter().map(|rule| rule.action);
        self.mode == Mode::Audit
            || actions
                .chain([self.default])
                .any(|action| action == Action::Audit)
    }
}

/// Which hooks a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hooks {
    /// Those of the cgroup, and what the kernel has beside.
    #[default]
    Auto,
    /// These. Never none, never those of the security modules with the probe alone.
    Only(HookSet),
}

impl Hooks {
    /// The names they have in a policy.
    pub const NAMES: [(&str, HookSet); 3] = [
        ("cgroup", HookSet::CGROUP),
        ("lsm", HookSet::LSM),
        ("kprobe", HookSet::TRACER),
    ];

    /// The hooks of a name.
    pub fn named(name: &str) -> Option<HookSet> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, hooks)| *hooks)
    }

    /// The hooks that a policy has a use for. `watches` is whether it ever reports what it lets through: of nothing else
    /// the probe could tell more. `names_unix` is whether it has rules about unix sockets.
    pub fn used(watches: bool, names_unix: bool) -> HookSet {
        let mut hooks = HookSet::CGROUP.union(HookSet::LSM);
        if watches {
            hooks = hooks.union(HookSet::TRACER);
        }
        if names_unix {
            hooks = hooks.union(HookSet::UNIX);
        }
        hooks
    }

    /// The hooks that are to be attached, of those there are, for a policy that has a use for `used`.
    pub fn wanted(self, there: HookSet, used: HookSet) -> HookSet {
        match self {
            Hooks::Auto => there.intersect(used),
            Hooks::Only(hooks) if hooks.contains(HookSet::LSM) => {
                hooks.union(used.intersect(HookSet::UNIX)).intersect(there)
            }
            Hooks::Only(hooks) => hooks.intersect(there),
        }
    }

    /// Names of those that are asked for and not there.
    pub fn lacking(self, there: HookSet) -> Vec<&'static str> {
        let Hooks::Only(hooks) = self else {
            return Vec::new();
        };
        let lacking = |(_, kind): &(&str, HookSet)| hooks.contains(*kind) && !there.contains(*kind);
        let names = Self::NAMES.into_iter().filter(lacking);
        names.map(|(name, _)| name).collect()
    }

    /// Whether a policy in this mode can be for them: a probe alone denies nothing.
    pub fn allow(self, mode: Mode) -> bool {
        mode == Mode::Audit || self != Hooks::Only(HookSet::TRACER)
    }

    /// Their names, in a fixed order; none for [`Hooks::Auto`].
    pub fn names(self) -> Vec<&'static str> {
        self.lacking(HookSet::NONE)
    }

    /// What [`Hooks::names`] gave. Names of other versions are passed over.
    pub fn of_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Hooks {
        let named = names.into_iter().filter_map(Hooks::named);
        match named.fold(HookSet::NONE, HookSet::union) {
            HookSet::NONE => Hooks::Auto,
            hooks => Hooks::Only(hooks),
        }
    }
}

/// Windows within which repeats are folded, as the policy gives them. `None` where it says nothing:
/// that depends on whether somebody reads along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fold {
    /// Of attempts to audit, milliseconds; 0 is off.
    pub audit_ms: Option<u32>,
    /// Of attempts to block.
    pub block_ms: Option<u32>,
    /// Of attempts to kill.
    pub kill_ms: Option<u32>,
}

impl Fold {
    /// Window of attempts to audit under a standing policy: a second.
    pub const STANDING_AUDIT_MS: u32 = 1000;

    /// With the windows of a policy that stands for long, nobody reading along, where the policy says
    /// nothing: what is only audited is folded.
    #[must_use]
    pub fn standing(self) -> Fold {
        Fold {
            audit_ms: self.audit_ms.or(Some(Self::STANDING_AUDIT_MS)),
            ..self
        }
    }

    /// The windows; nothing is folded where the policy does not say so.
    pub fn windows(self) -> DedupWindows {
        DedupWindows {
            audit_ms: self.audit_ms.unwrap_or(0),
            block_ms: self.block_ms.unwrap_or(0),
            kill_ms: self.kill_ms.unwrap_or(0),
        }
    }
}

/// One rule. All of its selectors must match.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique in the policy.
    pub name: String,
    /// What it says.
    pub action: Action,
    /// Destinations, `except` taken out already. Empty only where the rule is about unix sockets.
    pub to: AddressSet,
    /// Protocols and ports; none where the rule is about unix sockets.
    pub services: Services,
    /// Unix sockets. `None` where the rule is about destinations.
    pub unix: Option<UnixSockets>,
    /// Who is bound.
    pub subject: Subject,
    /// Why the rule is there, in the author's words.
    pub reason: Option<String>,
}

impl Rule {
    /// Whether the rule is about unix sockets, which only LSM programs see.
    pub fn is_about_unix(&self) -> bool {
        self.unix.is_some()
    }

    /// Whether the rule is about sockets of other address families, which only LSM programs see.
    pub fn is_about_families(&self) -> bool {
        match &self.services {
            Services::Any => false,
            Services::Only(services) => services.iter().any(|service| service.protocol.family().is_some()),
        }
    }
}

/// Unix sockets that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixSockets {
    /// All that are bound to something.
    Any,
    /// Those bound to these names. Sorted, never empty.
    Only(Vec<UnixName>),
}

/// Name of a unix socket, as a policy has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnixName {
    /// Absolute path, without `.` and `..`. What lies there is looked up when the policy is compiled for this machine.
    Path(PathBuf),
    /// Abstract name, without the NUL that it begins with.
    Abstract(Vec<u8>),
}

impl std::fmt::Display for UnixName {
    /// As a policy writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UnixName::Path(path) => write!(f, "{}", path.display()),
            UnixName::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

/// Which protocols and ports a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Services {
    /// Every protocol, every port.
    Any,
    /// These. Empty only where the rule is about unix sockets.
    Only(Vec<Service>),
}

/// Some ports of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The protocol.
    pub protocol: Protocol,
    /// Its ports; [`PortRange::EVERY`] for protocols without ports.
    pub ports: PortRange,
}

/// A range of ports that is never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// All ports.
    pub const EVERY: PortRange = PortRange {
        first: 0,
        last: u16::MAX,
    };

    /// From `first` to `last`, both included; `None` when reversed.
    pub const fn new(first: u16, last: u16) -> Option<PortRange> {
        if first <= last {
            Some(PortRange { first, last })
        } else {
            None
        }
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether the port is in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// Who a rule binds. Both parts must match; `None` means anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// User ids. Never `Some` of an empty list.
    pub uids: Option<Vec<u32>>,
    /// Executables. Never `Some` of an empty list.
    pub binaries: Option<Vec<Binary>>,
}

/// An executable as a policy names it. Its identity is looked up when the policy is compiled for
/// this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binary {
    /// Absolute path.
    pub path: PathBuf,
}

/// Errno of a denial: those that a caller of connect(2) can expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Errno {
    /// Operation not permitted.
    #[default]
    Eperm,
    /// Permission denied.
    Eacces,
    /// Connection refused.
    Econnrefused,
    /// Network is unreachable.
    Enetunreach,
    /// No route to host.
    Ehostunreach,
    /// Connection timed out.
    Etimedout,
}

impl Errno {
    /// All of them.
    pub const ALL: [Errno; 6] = [
        Errno::Eperm,
        Errno::Eacces,
        Errno::Econnrefused,
        Errno::Enetunreach,
        Errno::Ehostunreach,
        Errno::Etimedout,
    ];

    /// The kernel's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Errno::Eperm => "EPERM",
            Errno::Eacces => "EACCES",
            Errno::Econnrefused => "ECONNREFUSED",
            Errno::Enetunreach => "ENETUNREACH",
            Errno::Ehostunreach => "EHOSTUNREACH",
            Errno::Etimedout => "ETIMEDOUT",
        }
    }

    /// The kernel's number, positive.
    pub const fn number(self) -> u16 {
        let n = match self {
            Errno::Eperm => libc::EPERM,
            Errno::Eacces => libc::EACCES,
            Errno::Econnrefused => libc::ECONNREFUSED,
            Errno::Enetunreach => libc::ENETUNREACH,
            Errno::Ehostunreach => libc::EHOSTUNREACH,
            Errno::Etimedout => libc::ETIMEDOUT,
        };
        n as u16
    }
}
