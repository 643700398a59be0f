//! Validates the tree of a policy file into a [`Policy`] and reports all errors.

use std::{collections::HashMap, path::Path};

use engine_common::{
    Action, Mode,
    destination::Nat64Prefix,
    limits::{MAX_NAT64_PREFIXES, MAX_RULES},
    scope::HookSet,
};
use ipnet::IpNet;

use super::{
    dedup,
    diagnostic::{Code, Problem, Reporter, quoted},
    fields::{self, Fields},
    hooks,
    load_context::LoadContext,
    model::{Dedup, Errno, Hooks, Policy, Rule},
    name, network, rule,
    set::Sets,
    shadow,
    source::Span,
    yaml_node::{Node, Value},
};

/// Version of the language.
pub(super) const API_VERSION: &str = "tidegate.io/v1";
/// Kind of document.
pub(super) const KIND: &str = "EgressPolicy";

/// The result of validating a document.
pub(super) struct ValidationResult {
    /// `None` if an error was reported.
    pub(super) policy: Option<Policy>,
    /// Number of addresses and networks.
    pub(super) cidrs: usize,
}

/// Validates the whole document.
pub(super) fn validate(
    root: &Node,
    base: &Path,
    context: &LoadContext,
    reporter: &mut Reporter<'_>,
) -> ValidationResult {
    let mut cidrs = 0;
    let policy = document(root, base, context, &mut cidrs, reporter);
    ValidationResult {
        policy: policy.filter(|_| reporter.errors() == 0),
        cidrs,
    }
}

fn document(
    root: &Node,
    base: &Path,
    context: &LoadContext,
    cidrs: &mut usize,
    reporter: &mut Reporter<'_>,
) -> Option<Policy> {
    let top = Fields::of(
        root,
        "a policy",
        &["apiVersion", "kind", "metadata", "spec"],
        reporter,
    )?;
    for (field, value) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        let example = format!("`{field}: {value}`");
        if let Some(node) = top.require(field, &example, reporter) {
            fields::choice(node, field, &[(value, ())], reporter);
        }
    }
    let name = top
        .require("metadata", "`metadata: {name: payments}`", reporter)
        .and_then(|n| metadata(n, reporter));
    let spec = top.require("spec", "`spec:` with `default` and `rules`", reporter)?;
    let known = [
        "mode",
        "default",
        "errno",
        "sets",
        "rules",
        "nat64",
        "deduplicate",
        "strict",
        "hooks",
    ];
    let spec = Fields::of(spec, "`spec`", &known, reporter)?;

    let mode = match spec.get("mode") {
        None => Some(Mode::Enforce),
        Some(node) => {
            let modes = [("enforce", Mode::Enforce), ("audit", Mode::Audit)];
            fields::choice(node, "mode", &modes, reporter)
        }
    };
    let default = spec
        .require("default", "`default: block` (or allow, audit, kill)", reporter)
        .and_then(|n| fields::choice(n, "action", &rule::ACTIONS, reporter));
    let errno = match spec.get("errno") {
        None => Some(Errno::default()),
        Some(node) => fields::choice(node, "errno", &Errno::ALL.map(|e| (e.as_str(), e)), reporter),
    };
    let nat64 = spec.get("nat64").map_or(Some(Vec::new()), |n| nat64(n, reporter));
    let dedup = match spec.get("deduplicate") {
        None => Some(Dedup::default()),
        Some(node) => dedup::read(node, reporter),
    };
    let strict = match spec.get("strict") {
        None => Some(false),
        Some(node) => {
            let switch = [("true", true), ("false", false)];
            fields::choice(node, "boolean", &switch, reporter)
        }
    };
    if let (Some(true), Some(rules)) = (strict, spec.get("rules")) {
        refuse_processes(rules, reporter);
    }
    let hooks = match spec.get("hooks") {
        None => Some(Hooks::default()),
        Some(node) => hooks::read(node, mode, reporter),
    };
    let mut sets = Sets::read(spec.get("sets"), base, context, reporter);
    let rules = spec
        .get("rules")
        .map_or(Some(Vec::new()), |n| rules(n, default, &mut sets, reporter));
    if let (Some(Hooks::Only(kinds)), Some(true), Some(node)) = (hooks, strict, spec.get("strict"))
        && !kinds.contains(HookSet::CGROUP)
    {
        reporter.error(
            Code::WrongValue,
            node.span,
            "`strict: true` needs the cgroup hooks, which `hooks` does not list",
            "add `cgroup` to `hooks`, or remove `strict`",
        );
    }
    if let (Some(Hooks::Only(kinds)), Some(rules), Some(node)) = (hooks, &rules, spec.get("hooks"))
        && !kinds.contains(HookSet::LSM)
        && let Some(rule) = rules
            .iter()
            .find(|rule| rule.selects_other_families() || rule.selects_unix_sockets())
    {
        let field = if rule.selects_unix_sockets() {
            "unix"
        } else {
            "families"
        };
        reporter.error(
            Code::WrongValue,
            node.span,
            format!(
                "rule {} uses `{field}`, which needs the LSM hooks",
                quoted(&rule.name)
            ),
            "add `lsm` to `hooks`, or remove the rule",
        );
    }
    sets.report_unused(spec.get("sets"), reporter);
    *cidrs = sets.cidrs();
    Some(Policy {
        name: name?,
        mode: mode?,
        default: default?,
        errno: errno?,
        rules: rules?,
        nat64: nat64?,
        dedup: dedup?,
        strict: strict?,
        hooks: hooks?,
    })
}

/// Reports rules with `process`. Packets have no process: the kernel can send them from any context.
fn refuse_processes(rules: &Node, reporter: &mut Reporter<'_>) {
    let Value::List(rules) = &rules.value else {
        return;
    };
    for rule in rules {
        let Value::Map(fields) = &rule.value else {
            continue;
        };
        for field in fields.iter().filter(|field| field.key == "process") {
            reporter.error(
                Code::StrictProcess,
                field.key_span,
                "`process` cannot be combined with `strict: true`: packets have no process",
                "remove `strict`, or move the rules with `process` into a second policy: of several policies the \
                 strictest verdict applies",
            );
        }
    }
}

fn metadata(node: &Node, reporter: &mut Reporter<'_>) -> Option<String> {
    let fields = Fields::of(node, "`metadata`", &["name"], reporter)?;
    let node = fields.require("name", "`name: payments`", reporter)?;
    let text = fields::text(node, "the name of the policy", reporter)?;
    name::check(text.text, "a policy", text.span, reporter).then(|| text.text.to_owned())
}

/// `None` if an error was reported. Invalid rules do not stop the validation of the others.
fn rules(
    node: &Node,
    default: Option<Action>,
    sets: &mut Sets<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Vec<Rule>> {
    let items = match &node.value {
        Value::List(items) => items,
        Value::Null => return Some(Vec::new()),
        _ => fields::list(node, "rules", "start each rule with `- `", reporter)?,
    };
    if items.len() > MAX_RULES {
        reporter.error(
            Code::TooLarge,
            items[MAX_RULES].span,
            format!("too many rules: {}, the maximum is {MAX_RULES}", items.len()),
            "merge rules with the same action, or split the policy",
        );
        return None;
    }
    let mut read: Vec<(Rule, Span)> = Vec::with_capacity(items.len());
    let mut first_of: HashMap<&str, Span> = HashMap::new();
    for item in items {
        let name = rule::name_of(item, reporter);
        if let Some(name) = name {
            if let Some(first) = first_of.get(name.text) {
                let line = reporter.source().line(first.start);
                reporter.error(
                    Code::DuplicateName,
                    name.span,
                    format!("duplicate rule name {}", quoted(name.text)),
                    format!("rename this rule; the first one is on line {line}"),
                );
            } else {
                first_of.insert(name.text, name.span);
            }
        }
        if let Some(rule) = rule::read(item, name, default, sets, reporter) {
            read.push((rule, name.map_or(item.span, |n| n.span)));
        }
    }
    // If a rule is missing, the check for shadowed rules could report wrong rules.
    if read.len() == items.len() {
        shadow::report(&read, reporter);
    }
    (read.len() == items.len()).then(|| read.into_iter().map(|(rule, _)| rule).collect())
}

fn nat64(node: &Node, reporter: &mut Reporter<'_>) -> Option<Vec<Nat64Prefix>> {
    let items = fields::list(
        node,
        "NAT64 prefixes",
        "add a prefix, or remove `nat64`",
        reporter,
    )?;
    let before = reporter.errors();
    let mut prefixes = Vec::new();
    for text in fields::words(items, "a NAT64 prefix", reporter) {
        match nat64_prefix(text.text) {
            Ok(prefix) if prefixes.contains(&prefix) => {}
            Ok(prefix) => prefixes.push(prefix),
            Err(problem) => reporter.report(text.span, *problem),
        }
    }
    if prefixes.len() > MAX_NAT64_PREFIXES {
        reporter.error(
            Code::TooLarge,
            node.span,
            format!(
                "too many NAT64 prefixes: {}, the maximum is {MAX_NAT64_PREFIXES}",
                prefixes.len()
            ),
            "remove some; 64:ff9b::/96 and 64:ff9b:1::/48 are built in",
        );
    }
    let invalid = reporter.errors() != before || items.iter().any(|i| matches!(i.value, Value::Invalid));
    (!invalid).then_some(prefixes)
}

fn nat64_prefix(text: &str) -> Result<Nat64Prefix, Box<Problem>> {
    match network::parse(text)? {
        IpNet::V6(net) if Nat64Prefix::length_is_valid(net.prefix_len()) => {
            let bits = u128::from(net.network());
            Ok(Nat64Prefix {
                high: (bits >> 64) as u64,
                low: bits as u64,
                length: net.prefix_len(),
            })
        }
        _ => Err(Box::new(Problem::new(
            Code::BadNat64,
            format!("invalid NAT64 prefix {}", quoted(text)),
            "write an IPv6 network with a prefix length of 32, 40, 48, 56, 64 or 96 (RFC 6052, 2.2)",
        ))),
    }
}
