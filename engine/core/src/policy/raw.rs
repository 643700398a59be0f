//! The syntax of the policy language as types, before validation. The JSON schema is generated from them, and
//! [`to_yaml`](super::to_yaml) writes them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Tidegate egress policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "Tidegate EgressPolicy")]
pub struct RawPolicy {
    /// Version of the policy language.
    pub api_version: RawApiVersion,
    /// Kind of document.
    pub kind: RawKind,
    /// Name of the policy.
    pub metadata: RawMetadata,
    /// Content of the policy.
    pub spec: RawSpec,
}

/// Version of the policy language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RawApiVersion {
    /// The first version.
    #[serde(rename = "tidegate.io/v1")]
    V1,
}

/// Kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RawKind {
    /// A policy for outgoing connections.
    EgressPolicy,
}

/// Name of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawMetadata {
    /// Name of the policy in events and reports: 1 to 63 letters, digits, `.`, `-`, `_`.
    #[schemars(regex(pattern = r"^([A-Za-z0-9._-]{1,63}|.*\$\{.*)$"))]
    pub name: String,
}

/// Content of the policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawSpec {
    /// `enforce` (the default) carries out block and kill; `audit` only reports them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RawWord<RawMode>>,
    /// The action if no rule matches.
    pub default: RawWord<RawAction>,
    /// The errno that a denied call returns. The default is EPERM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<RawWord<RawErrno>>,
    /// Named sets of addresses. Rules refer to a set as "@NAME".
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, RawSet>,
    /// The rules in order: the first matching rule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub rules: Option<Vec<RawRule>>,
    /// NAT64 prefixes in addition to 64:ff9b::/96 and 64:ff9b:1::/48: IPv6 networks with a prefix length of 32, 40,
    /// 48, 56, 64 or 96 (RFC 6052).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4))]
    pub nat64: Option<Vec<String>>,
    /// Windows of event deduplication. Within a window, repeats of an event (same executable, destination and
    /// verdict) are counted instead of reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deduplicate: Option<RawDedup>,
    /// `true` also checks packets, not only calls. This covers sockets that were connected before the policy was
    /// attached, source routes and raw sockets. Rules cannot have `process` then. The default is `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<RawSwitch>,
    /// The hooks that the policy is attached to: `auto` (the default: the cgroup hooks, and LSM and kprobe if the
    /// kernel supports them), or a list. `[kprobe]` alone only observes TCP connections and needs mode audit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<RawHooks>,
}

/// A boolean.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawSwitch {
    /// The value.
    Value(bool),
    /// A variable whose value is `true` or `false`.
    Variable(RawVariable),
}

/// The hooks of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawHooks {
    /// All hooks that the kernel supports.
    Auto(RawWord<RawAuto>),
    /// These hooks.
    List(#[schemars(length(min = 1))] Vec<RawWord<RawHook>>),
}

/// The keyword `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawAuto {
    /// All hooks that the kernel supports.
    Auto,
}

/// A kind of hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawHook {
    /// The cgroup hooks: apply by the cgroup in which a socket was created.
    Cgroup,
    /// The LSM hooks: apply by the task that uses a socket.
    Lsm,
    /// A kprobe on tcp_connect: adds the local address to events.
    Kprobe,
}

/// Windows of event deduplication, by verdict.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct RawDedup {
    /// Window for the verdict audit. The default is 1s for attached policies, and off for `exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<RawWindow>,
    /// Window for the verdict block. The default is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<RawWindow>,
    /// Window for the verdict kill. The default is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill: Option<RawWindow>,
}

/// A time from 1ms to 1h, such as 500ms, 10s or 5m; or `off`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct RawWindow(#[schemars(regex(pattern = r"^(off|[0-9]+(ms|s|m|h)|.*\$\{.*)$"))] pub String);

/// A keyword, or a variable whose value is one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawWord<T> {
    /// The keyword.
    Word(T),
    /// The variable.
    Variable(RawVariable),
}

/// A string with a variable: `${NAME}` or `${NAME:-default}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String")]
pub struct RawVariable(#[schemars(regex(pattern = r"\$\{"))] String);

/// A string without a variable where a keyword or a variable is expected.
#[derive(Debug, thiserror::Error)]
#[error("invalid value `{0}`")]
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

/// Mode of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawMode {
    /// Block and kill are carried out.
    Enforce,
    /// Block and kill are only reported.
    Audit,
}

/// Action of a rule, or the default action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawAction {
    /// Allow without a report.
    Allow,
    /// Allow and report.
    Audit,
    /// Deny with the errno of the policy and report.
    Block,
    /// Deny, kill the process with SIGKILL, and report.
    Kill,
}

/// The errno of a denied call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawSet {
    /// Addresses, networks, and other sets: 192.0.2.7, 10.0.0.0/8, "2001:db8::/32", "@private".
    List(#[schemars(length(min = 1))] Vec<String>),
    /// A file of addresses.
    File(RawFile),
}

/// A file of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawFile {
    /// Path, relative to the directory of the policy. The file has one address or network on each line; `#` starts
    /// a comment.
    #[schemars(length(min = 1))]
    pub file: String,
}

/// One rule. All of its selectors must match.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["to"]}, {"required": ["unix"]}]))]
pub struct RawRule {
    /// Name of the rule, unique in the policy.
    #[schemars(regex(pattern = r"^([A-Za-z0-9._-]{1,63}|.*\$\{.*)$"))]
    pub name: String,
    /// The action if the rule matches.
    pub action: RawWord<RawAction>,
    /// Destinations: `any`, or a list of addresses, networks and sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<RawDestinations>,
    /// Destinations that are removed from `to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub except: Option<Vec<String>>,
    /// Ports: 443, "443/tcp", "6000-6010", "6000-6010/udp". A port without a protocol applies to all protocols with
    /// ports (tcp, udp, udplite, sctp, dccp). The default is every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<RawPorts>,
    /// Protocols: tcp (also MPTCP), udp, udplite, sctp, dccp, icmp (ICMP of IPv4 and IPv6), icmpv6, raw (any raw
    /// socket), or a protocol number. The default is every protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<RawProtocols>,
    /// Address families other than IPv4 and IPv6 (packet, vsock, bluetooth, ...), or `any` for all of them. The rule
    /// is evaluated when a socket is created. Needs `to: any`, and no `ports` and `protocols`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub families: Option<RawFamilies>,
    /// Unix sockets, instead of `to`: absolute paths, abstract names after an `@`, or `any`. A socket is identified by
    /// the file it is bound to, not by the path that a process uses. The default action of the policy does not apply:
    /// a unix socket that no rule selects is allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unix: Option<RawUnixSockets>,
    /// The processes that the rule applies to. The default is every process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<RawProcess>,
    /// Free text, shown by `explain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The keyword `any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RawAny {
    /// Everything.
    Any,
}

/// Destinations of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawDestinations {
    /// Every destination.
    Any(RawAny),
    /// These.
    List(#[schemars(length(min = 1))] Vec<String>),
}

/// Ports of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawPorts {
    /// Every port.
    Any(RawAny),
    /// These.
    List(#[schemars(length(min = 1))] Vec<RawPort>),
}

/// A port, or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawPort {
    /// One port.
    Number(u16),
    /// A port or range, with or without a protocol.
    Text(
        #[schemars(regex(pattern = r"^([0-9]+(-[0-9]+)?(/(tcp|udp|udplite|sctp|dccp|[0-9]+))?|.*\$\{.*)$"))]
        String,
    ),
}

/// Protocols of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawProtocols {
    /// Every protocol.
    Any(RawAny),
    /// These.
    List(#[schemars(length(min = 1))] Vec<RawProtocol>),
}

/// A protocol.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawProtocol {
    /// IP protocol number.
    Number(u8),
    /// Name of a protocol.
    Name(
        #[schemars(regex(pattern = r"^(tcp|udp|udplite|sctp|dccp|icmp|icmpv6|raw|[0-9]+|.*\$\{.*)$"))] String,
    ),
}

/// Address families of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawFamilies {
    /// All except IPv4 and IPv6.
    Any(RawAny),
    /// These.
    List(#[schemars(length(min = 1))] Vec<String>),
}

/// Unix sockets of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawUnixSockets {
    /// Every bound socket.
    Any(RawAny),
    /// These.
    List(#[schemars(length(min = 1))] Vec<RawUnixName>),
}

/// An absolute path, or an abstract name after an `@`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct RawUnixName(#[schemars(regex(pattern = r"^([/@].+|.*\$\{.*)$"))] pub String);

/// The processes that a rule applies to. Both fields must match.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct RawProcess {
    /// Numeric user ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub uids: Option<Vec<RawUid>>,
    /// Absolute paths of executables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub binaries: Option<Vec<String>>,
}

/// A numeric user id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RawUid {
    /// The id.
    Number(u32),
    /// The id as a string, or a variable.
    Text(#[schemars(regex(pattern = r"^([0-9]+|.*\$\{.*)$"))] String),
}

/// The JSON schema of the policy language.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(RawPolicy)
}
