//! The policy language as types: what a file may hold, before anything in it is judged. The JSON schema
//! is made from them, for editors and other programs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Tidegate egress policy.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "Tidegate EgressPolicy")]
pub struct RawPolicy {
    /// Version of the language.
    pub api_version: RawApiVersion,
    /// Kind of document.
    pub kind: RawKind,
    /// What the policy is called.
    pub metadata: RawMetadata,
    /// What it says.
    pub spec: RawSpec,
}

/// Version of the language.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
pub enum RawApiVersion {
    /// The first one.
    #[serde(rename = "tidegate.io/v1")]
    V1,
}

/// Kind of document.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
pub enum RawKind {
    /// Where processes may connect to.
    EgressPolicy,
}

/// What the policy is called.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawMetadata {
    /// Name of the policy, as events and reports show it.
    #[schemars(regex(pattern = r"^([A-Za-z0-9._-]{1,63}|.*\$\{.*)$"))]
    pub name: String,
}

/// What the policy says.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSpec {
    /// Whether the policy acts (enforce, the default) or only reports what it would do (audit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RawWord<RawMode>>,
    /// What holds where no rule matches.
    pub default: RawWord<RawAction>,
    /// What a blocked caller sees; EPERM unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<RawWord<RawErrno>>,
    /// Named sets of addresses; rules name them with an `@`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, RawSet>,
    /// The rules, in their order: the first that matches decides.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub rules: Option<Vec<RawRule>>,
    /// NAT64 prefixes beside 64:ff9b::/96 and 64:ff9b:1::/48: IPv6 networks of 32, 40, 48, 56, 64 or 96
    /// bits with an IPv4 address behind them (RFC 6052).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    pub nat64: Option<Vec<String>>,
    /// Windows within which repeats of an attempt (same executable, destination, verdict) are counted instead
    /// of reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<RawDedup>,
    /// Whether packets are judged too, not only calls: of sockets connected before, of source routes, of raw
    /// sockets. Rules cannot have `process` then. false unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<RawSwitch>,
    /// Which hooks the policy is for: `auto` (those of the cgroup, and LSM and the probe where the kernel has
    /// them; this unless given), or a list. A probe alone only watches TCP connections: the mode must be audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<RawHooks>,
}

/// A switch.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawSwitch {
    /// On or off.
    Set(bool),
    /// A variable that has one of them as its value.
    Variable(RawVariable),
}

/// Hooks of a policy.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawHooks {
    /// What the kernel has.
    Auto(RawWord<RawAuto>),
    /// These.
    List(#[schemars(length(min = 1))] Vec<RawWord<RawHook>>),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawAuto {
    /// What the kernel has.
    Auto,
}

/// A kind of hook.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawHook {
    /// The hooks of the cgroup: by the cgroup that a socket was made in.
    Cgroup,
    /// The hooks of the security modules: by the task that uses a socket.
    Lsm,
    /// The probe on TCP connections: tells where they send from.
    Kprobe,
}

/// Windows within which repeats are folded, by what the policy says about the attempt.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct RawDedup {
    /// Of attempts to audit; 1s unless given for standing policies, off for `exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<RawWindow>,
    /// Of attempts to block; off unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<RawWindow>,
    /// Of attempts to kill; off unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<RawWindow>,
}

/// A time from a millisecond to an hour, such as 500ms, 10s or 5m; or `off`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct RawWindow(#[schemars(regex(pattern = r"^(off|[0-9]+(ms|s|m|h)|.*\$\{.*)$"))] pub String);

/// One of a few words, or a variable that has one of them as its value.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawWord<T> {
    /// The word.
    Word(T),
    /// The variable.
    Variable(RawVariable),
}

/// A text with a variable in it: `${NAME}` or `${NAME:-default}`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct RawVariable(#[schemars(regex(pattern = r"\$\{"))] String);

/// A text without a variable where only a variable may stand.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is none of the words that may stand here")]
pub struct NotAVariable(String);

impl TryFrom<String> for RawVariable {
    type Error = NotAVariable;

    fn try_from(text: String) -> Result<RawVariable, NotAVariable> {
        if text.contains("${") {
            Ok(RawVariable(text))
        } else {
            Err(NotAVariable(text))
        }
    }
}

/// Whether a policy acts or only watches.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawMode {
    /// Block and kill are carried out.
    Enforce,
    /// Block and kill are only reported.
    Audit,
}

/// What a rule or a default says.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawAction {
    /// Let it pass and say nothing.
    Allow,
    /// Let it pass and report it.
    Audit,
    /// Deny it with the policy's errno and report it.
    Block,
    /// Deny it, kill the process, and report it.
    Kill,
}

/// Errno of a denial.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RawErrno {
    /// Operation not permitted.
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

/// A set of addresses.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawSet {
    /// Addresses, networks, and other sets: 192.0.2.7, 10.0.0.0/8, "2001:db8::/32", "@private".
    List(#[schemars(length(min = 1))] Vec<String>),
    /// A file of them.
    File(RawFile),
}

/// A file of addresses.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawFile {
    /// Path, relative to the folder of the policy: one address or network a line, `#` starts a comment.
    #[schemars(length(min = 1))]
    pub file: String,
}

/// One rule. All of its selectors must match.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["to"]}, {"required": ["unix"]}]))]
pub struct RawRule {
    /// Name of the rule, unique in the policy.
    #[schemars(regex(pattern = r"^([A-Za-z0-9._-]{1,63}|.*\$\{.*)$"))]
    pub name: String,
    /// What it says.
    pub action: RawWord<RawAction>,
    /// Destinations: `any`, or a list of addresses, networks and sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<RawDestinations>,
    /// Destinations taken out of `to` again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub except: Option<Vec<String>>,
    /// Ports: 443, "443/tcp", "6000-6010", "6000-6010/udp". Without a protocol: of every protocol that has
    /// ports (tcp, udp, udplite, sctp, dccp). Every port unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<RawPorts>,
    /// Protocols: tcp (and MPTCP), udp, udplite, sctp, dccp, icmp (ping of IPv4 and IPv6), icmpv6, raw (any raw
    /// socket), or a number. Every protocol unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<RawProtocols>,
    /// Sockets of other address families (packet, vsock, bluetooth, ...), judged when they are made; `any` is all of
    /// them. With `to: any`, and without ports and protocols.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub families: Option<RawFamilies>,
    /// Unix sockets, in place of destinations: paths, or abstract names after an `@`; `any` is all of them. Whatever a
    /// process calls it, a socket is known by where it is bound. The policy's default does not hold for them: what no
    /// rule names passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix: Option<RawUnixSockets>,
    /// Who is bound. Everybody unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<RawProcess>,
    /// Why the rule is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The word `any`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawAny {
    /// Everything.
    Any,
}

/// Destinations of a rule.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawDestinations {
    /// Every destination.
    Any(RawAny),
    /// These.
    List(#[schemars(length(min = 1))] Vec<String>),
}

/// Ports of a rule.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawPorts {
    /// Every port.
    Any(RawAny),
    /// These.
    List(#[schemars(length(min = 1))] Vec<RawPort>),
}

/// A port, or a range of ports.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawPort {
    /// One port.
    Number(u16),
    /// A port or range, with a protocol or without.
    Text(
        #[schemars(regex(pattern = r"^([0-9]+(-[0-9]+)?(/(tcp|udp|udplite|sctp|dccp|[0-9]+))?|.*\$\{.*)$"))]
        String,
    ),
}

/// Protocols of a rule.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawProtocols {
    /// Every protocol.
    Any(RawAny),
    /// These.
    List(#[schemars(length(min = 1))] Vec<RawProtocol>),
}

/// A protocol.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawProtocol {
    /// Number of an IP protocol.
    Number(u8),
    /// Name of a protocol.
    Name(
        #[schemars(regex(pattern = r"^(tcp|udp|udplite|sctp|dccp|icmp|icmpv6|raw|[0-9]+|.*\$\{.*)$"))] String,
    ),
}

/// Address families of a rule.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawFamilies {
    /// All that are neither IPv4 nor IPv6.
    Any(RawAny),
    /// These.
    List(#[schemars(length(min = 1))] Vec<String>),
}

/// Unix sockets of a rule.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawUnixSockets {
    /// All of them.
    Any(RawAny),
    /// These.
    List(#[schemars(length(min = 1))] Vec<RawUnixName>),
}

/// A path from the root on, or an abstract name after an `@`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct RawUnixName(#[schemars(regex(pattern = r"^([/@].+|.*\$\{.*)$"))] pub String);

/// Who a rule binds: both parts must match.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct RawProcess {
    /// Numbers of users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub uids: Option<Vec<RawUid>>,
    /// Absolute paths of executables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub binaries: Option<Vec<String>>,
}

/// Number of a user.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawUid {
    /// The number.
    Number(u32),
    /// The number as text, or a variable.
    Text(#[schemars(regex(pattern = r"^([0-9]+|.*\$\{.*)$"))] String),
}

/// The JSON schema of the policy language.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(RawPolicy)
}
