//! From the tree of a policy file to a [`Policy`], with all faults on the way.

use std::{collections::HashMap, path::Path};

use engine_common::{
    Action, Mode,
    destination::Nat64Prefix,
    limits::{MAX_NAT64_PREFIXES, MAX_RULES},
    scope::HookSet,
};
use ipnet::IpNet;

use super::{
    context::LoadContext,
    dedup,
    diagnostic::{Code, Fault, Reporter, quoted},
    fields::{self, Fields},
    hooks,
    model::{Errno, Fold, Hooks, Policy, Rule},
    name, network,
    node::{Node, Value},
    rule,
    set::Sets,
    shadow,
    source::Span,
};

/// Version of the language.
pub(super) const API_VERSION: &str = "tidegate.io/v1";
/// Kind of document.
pub(super) const KIND: &str = "EgressPolicy";

/// A policy as far as it could be read.
pub(super) struct Validated {
    /// `None` when an error was reported.
    pub(super) policy: Option<Policy>,
    /// Addresses and networks in it.
    pub(super) cidrs: usize,
}

/// Reads the whole document.
pub(super) fn validate(
    root: &Node,
    base: &Path,
    context: &LoadContext,
    reporter: &mut Reporter<'_>,
) -> Validated {
    let mut cidrs = 0;
    let policy = document(root, base, context, &mut cidrs, reporter);
    Validated {
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
            fields::choice(node, &format!("a known {field}"), &[(value, ())], reporter);
        }
    }
    let name = top
        .require("metadata", "`metadata: {name: payments}`", reporter)
        .and_then(|n| metadata(n, reporter));
    let spec = top.require("spec", "`spec:` with `default` and `rules`", reporter)?;
    let known = [
        "mode", "default", "errno", "sets", "rules", "nat64", "fold", "strict", "hooks",
    ];
    let spec = Fields::of(spec, "`spec`", &known, reporter)?;

    let mode = match spec.get("mode") {
        None => Some(Mode::Enforce),
        Some(node) => {
            let modes = [("enforce", Mode::Enforce), ("audit", Mode::Audit)];
            fields::choice(node, "a mode", &modes, reporter)
        }
    };
    let default = spec
        .require("default", "`default: block` (or allow, audit, kill)", reporter)
        .and_then(|n| fields::choice(n, "an action", &rule::ACTIONS, reporter));
    let errno = match spec.get("errno") {
        None => Some(Errno::default()),
        Some(node) => fields::choice(
            node,
            "an errno of a denial",
            &Errno::ALL.map(|e| (e.as_str(), e)),
            reporter,
        ),
    };
    let nat64 = spec.get("nat64").map_or(Some(Vec::new()), |n| nat64(n, reporter));
    let fold = match spec.get("fold") {
        None => Some(Fold::default()),
        Some(node) => dedup::read(node, reporter),
    };
    let strict = match spec.get("strict") {
        None => Some(false),
        Some(node) => {
            let switch = [("true", true), ("false", false)];
            fields::choice(node, "true or false", &switch, reporter)
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
            "packets are judged by a hook of the cgroup, which the policy is not for",
            "add `cgroup` to the hooks, or take `strict` out",
        );
    }
    if let (Some(Hooks::Only(kinds)), Some(rules), Some(node)) = (hooks, &rules, spec.get("hooks"))
        && !kinds.contains(HookSet::LSM)
        && let Some(rule) = rules
            .iter()
            .find(|rule| rule.is_about_families() || rule.is_about_unix())
    {
        let field = if rule.is_about_unix() { "unix" } else { "families" };
        reporter.error(
            Code::WrongValue,
            node.span,
            format!(
                "the rule {} is about `{field}`, which only the hooks of the security modules see",
                quoted(&rule.name)
            ),
            "add `lsm` to the hooks, or take the rule out",
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
        fold: fold?,
        strict: strict?,
        hooks: hooks?,
    })
}

/// A packet has no process: it leaves when the kernel says so, whoever runs then.
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
                "`process` in a policy with `strict: true`, which judges packets, and a packet has no process",
                "leave `strict` out, or put the rules about processes into a policy of their own beside this one: \
                 of several the strictest answer holds",
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

/// `None` when a rule was reported; the others are read all the same.
fn rules(
    node: &Node,
    default: Option<Action>,
    sets: &mut Sets<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Vec<Rule>> {
    let items = match &node.value {
        Value::List(items) => items,
        Value::Null => return Some(Vec::new()),
        _ => fields::list(node, "rules", "write each rule after a `- `", reporter)?,
    };
    if items.len() > MAX_RULES {
        reporter.error(
            Code::TooLarge,
            items[MAX_RULES].span,
            format!("{} rules: a policy has at most {MAX_RULES}", items.len()),
            "merge rules of one action into one with more destinations or ports, or split the policy",
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
                    format!("two rules have the name {}", quoted(name.text)),
                    format!("give this one another name: the first is at line {line}"),
                );
            } else {
                first_of.insert(name.text, name.span);
            }
        }
        if let Some(rule) = rule::read(item, name, default, sets, reporter) {
            read.push((rule, name.map_or(item.span, |n| n.span)));
        }
    }
    // With a rule missing, an earlier one could seem to take what is not its own.
    if read.len() == items.len() {
        shadow::report(&read, reporter);
    }
    (read.len() == items.len()).then(|| read.into_iter().map(|(rule, _)| rule).collect())
}

fn nat64(node: &Node, reporter: &mut Reporter<'_>) -> Option<Vec<Nat64Prefix>> {
    let items = fields::list(node, "NAT64 prefixes", "leave `nat64` out", reporter)?;
    let before = reporter.errors();
    let mut prefixes = Vec::new();
    for text in fields::words(items, "a NAT64 prefix", reporter) {
        match nat64_prefix(text.text) {
            Ok(prefix) if prefixes.contains(&prefix) => {}
            Ok(prefix) => prefixes.push(prefix),
            Err(fault) => reporter.fault(text.span, *fault),
        }
    }
    if prefixes.len() > MAX_NAT64_PREFIXES {
        reporter.error(
            Code::TooLarge,
            node.span,
            format!(
                "{} NAT64 prefixes: a policy has at most {MAX_NAT64_PREFIXES}",
                prefixes.len()
            ),
            "64:ff9b::/96 and 64:ff9b:1::/48 are known already and need not be listed",
        );
    }
    let faulty = reporter.errors() != before || items.iter().any(|i| matches!(i.value, Value::Faulty));
    (!faulty).then_some(prefixes)
}

fn nat64_prefix(text: &str) -> Result<Nat64Prefix, Box<Fault>> {
    match network::parse(text)? {
        IpNet::V6(net) if Nat64Prefix::length_is_valid(net.prefix_len()) => {
            let bits = u128::from(net.network());
            Ok(Nat64Prefix {
                high: (bits >> 64) as u64,
                low: bits as u64,
                length: net.prefix_len(),
            })
        }
        _ => Err(Box::new(Fault::new(
            Code::BadNat64,
            format!("{} is not a NAT64 prefix", quoted(text)),
            "write an IPv6 network of 32, 40, 48, 56, 64 or 96 bits (RFC 6052, 2.2)",
        ))),
    }
}
