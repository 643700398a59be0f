//! The validated policy. A [`Policy`] needs no further checks.

use std::path::PathBuf;

pub use engine_common::dedup::DedupWindows;
pub use engine_common::destination::Nat64Prefix;
pub use engine_common::scope::HookSet;
pub use engine_common::{Action, Mode, Protocol};

use super::AddressSet;

/// A validated policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// `metadata.name`: letters, digits, `.`, `-`, `_`; 1 to 63 characters.
    pub name: String,
    /// Whether block and kill are enforced or only reported.
    pub mode: Mode,
    /// The action if no rule matches.
    pub default: Action,
    /// The errno that a denied call returns.
    pub errno: Errno,
    /// The rules in order: the first match decides. At most
    /// [`MAX_RULES`](engine_common::limits::MAX_RULES).
    pub rules: Vec<Rule>,
    /// NAT64 prefixes in addition to the well-known ones.
    pub nat64: Vec<Nat64Prefix>,
    /// The windows of event deduplication.
    pub dedup: Dedup,
    /// Whether packets are checked in addition to calls. If so, no rule has a subject, because packets have no
    /// process.
    pub strict: bool,
    /// The hooks that the policy is attached to.
    pub hooks: Hooks,
}

impl Policy {
    /// The hooks that the policy can make use of. Always includes the cgroup and LSM hooks.
    pub fn needed_hooks(&self) -> HookSet {
        Hooks::needed(
            self.reports_allowed(),
            self.rules.iter().any(Rule::selects_unix_sockets),
        )
    }

    /// Whether the policy reports connections that it allows.
    fn reports_allowed(&self) -> bool {
        let actions = self.rules.iter().map(|rule| rule.action);
        self.mode == Mode::Audit
            || actions
                .chain([self.default])
                .any(|action| action == Action::Audit)
    }
}

/// The hooks that a policy is attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Hooks {
    /// The cgroup hooks, and the others that the kernel supports and the policy needs.
    #[default]
    Auto,
    /// Exactly these. Never empty, and never LSM with the kprobe but without cgroup.
    Only(HookSet),
}

impl Hooks {
    /// The names of the hooks in a policy.
    pub const NAMES: [(&str, HookSet); 3] = [
        ("cgroup", HookSet::CGROUP),
        ("lsm", HookSet::LSM),
        ("kprobe", HookSet::TRACER),
    ];

    /// The hooks with a name; `None` if the name is unknown.
    pub fn from_name(name: &str) -> Option<HookSet> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, hooks)| *hooks)
    }

    /// The hooks that a policy can make use of. `reports_allowed`: it reports connections that it allows; only
    /// for these the kprobe adds information. `selects_unix`: it has rules for unix sockets.
    pub fn needed(reports_allowed: bool, selects_unix: bool) -> HookSet {
        let mut hooks = HookSet::CGROUP.union(HookSet::LSM);
        if reports_allowed {
            hooks = hooks.union(HookSet::TRACER);
        }
        if selects_unix {
            hooks = hooks.union(HookSet::UNIX);
        }
        hooks
    }

    /// The hooks to attach: `supported` is what the kernel supports, `needed` what the policy can make use of.
    pub fn select(self, supported: HookSet, needed: HookSet) -> HookSet {
        match self {
            Hooks::Auto => supported.intersect(needed),
            Hooks::Only(hooks) if hooks.contains(HookSet::LSM) => {
                hooks.union(needed.intersect(HookSet::UNIX)).intersect(supported)
            }
            Hooks::Only(hooks) => hooks.intersect(supported),
        }
    }

    /// Names of the requested hooks that are not in `supported`.
    pub fn unsupported(self, supported: HookSet) -> Vec<&'static str> {
        let Hooks::Only(hooks) = self else {
            return Vec::new();
        };
        let is_unsupported =
            |(_, kind): &(&str, HookSet)| hooks.contains(*kind) && !supported.contains(*kind);
        let names = Self::NAMES.into_iter().filter(is_unsupported);
        names.map(|(name, _)| name).collect()
    }

    /// Whether a policy in this mode can use these hooks. A kprobe alone cannot enforce.
    pub fn supports_mode(self, mode: Mode) -> bool {
        mode == Mode::Audit || self != Hooks::Only(HookSet::TRACER)
    }

    /// The names of the hooks, in a fixed order; empty for [`Hooks::Auto`].
    pub fn names(self) -> Vec<&'static str> {
        self.unsupported(HookSet::NONE)
    }

    /// The inverse of [`Hooks::names`]. Unknown names, such as those of later versions, are ignored.
    pub fn from_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Hooks {
        let named = names.into_iter().filter_map(Hooks::from_name);
        match named.fold(HookSet::NONE, HookSet::union) {
            HookSet::NONE => Hooks::Auto,
            hooks => Hooks::Only(hooks),
        }
    }
}

/// The windows of event deduplication, in milliseconds. Within a window, repeats of an event (same
/// executable, destination and verdict) are counted instead of reported. 0 is off; `None` is not set, and
/// the default depends on how the policy is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dedup {
    /// Window for the verdict audit.
    pub audit_ms: Option<u32>,
    /// Window for the verdict block.
    pub block_ms: Option<u32>,
    /// Window for the verdict kill.
    pub kill_ms: Option<u32>,
}

impl Dedup {
    /// Default window for the verdict audit of an attached policy.
    pub const ATTACHED_AUDIT_MS: u32 = 1000;

    /// Fills in the defaults of an attached policy, which can run for a long time without a reader of its
    /// events: audit events are deduplicated.
    #[must_use]
    pub fn with_attached_defaults(self) -> Dedup {
        Dedup {
            audit_ms: self.audit_ms.or(Some(Self::ATTACHED_AUDIT_MS)),
            ..self
        }
    }

    /// The windows; those that are not set are off.
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
    /// The action if the rule matches.
    pub action: Action,
    /// Destinations: `to` without `except`. Empty only in a rule for unix sockets.
    pub to: AddressSet,
    /// Protocols and ports. Empty only in a rule for unix sockets.
    pub services: Services,
    /// Unix sockets; `None` in a rule for network destinations.
    pub unix: Option<UnixSockets>,
    /// The users and executables that the rule applies to.
    pub subject: Subject,
    /// Free text of the author.
    pub reason: Option<String>,
}

impl Rule {
    /// Whether the rule is for unix sockets, which needs the LSM hooks.
    pub fn selects_unix_sockets(&self) -> bool {
        self.unix.is_some()
    }

    /// Whether the rule is for address families other than IPv4 and IPv6, which needs the LSM hooks.
    pub fn selects_other_families(&self) -> bool {
        match &self.services {
            Services::Any => false,
            Services::Only(services) => services.iter().any(|service| service.protocol.family().is_some()),
        }
    }
}

/// The unix sockets of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixSockets {
    /// Every bound socket.
    Any,
    /// The sockets bound to these names. Sorted, never empty.
    Only(Vec<UnixName>),
}

/// Name of a unix socket in a policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnixName {
    /// Absolute path without `.` and `..`. The socket is looked up when the policy is attached.
    Path(PathBuf),
    /// Abstract name without the leading NUL.
    Abstract(Vec<u8>),
}

impl std::fmt::Display for UnixName {
    /// In policy syntax.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            UnixName::Path(path) => write!(f, "{}", path.display()),
            UnixName::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

/// The protocols and ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Services {
    /// Every protocol, every port.
    Any,
    /// These. Empty only in a rule for unix sockets.
    Only(Vec<Service>),
}

/// A port range of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// IP protocol, or an address family other than IPv4 and IPv6.
    pub protocol: Protocol,
    /// Ports; [`PortRange::EVERY`] for protocols without ports.
    pub ports: PortRange,
}

/// A nonempty range of ports.
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

    /// The ports from `first` to `last`, both inclusive; `None` if `first` is greater than `last`.
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

/// The processes that a rule applies to. Both fields must match; `None` matches every process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// User ids. Never `Some` of an empty list.
    pub uids: Option<Vec<u32>>,
    /// Executables. Never `Some` of an empty list.
    pub binaries: Option<Vec<Binary>>,
}

/// An executable of a policy. Its identity is looked up when the policy is attached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binary {
    /// Absolute path.
    pub path: PathBuf,
}

/// The errno of a denied call. All of them are documented for connect(2).
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
    /// All values.
    pub const ALL: [Errno; 6] = [
        Errno::Eperm,
        Errno::Eacces,
        Errno::Econnrefused,
        Errno::Enetunreach,
        Errno::Ehostunreach,
        Errno::Etimedout,
    ];

    /// The symbolic name, such as `EPERM`.
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

    /// The value of this architecture, positive.
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
