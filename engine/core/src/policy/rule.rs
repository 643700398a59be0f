//! Validates one rule.

use engine_common::{Action, Protocol};

use super::{
    AddressSet,
    diagnostic::{Code, Reporter, quoted},
    family,
    fields::{self, Fields},
    model::{PortRange, Rule, Service, Services, Subject},
    name, process, service,
    set::{Selector, Sets},
    source::Span,
    unix,
    yaml_node::{Node, Value},
};

const FIELDS: [&str; 10] = [
    "name",
    "action",
    "to",
    "except",
    "ports",
    "protocols",
    "families",
    "unix",
    "process",
    "reason",
];

/// Names of actions.
pub(super) const ACTIONS: [(&str, Action); 4] = [
    ("allow", Action::Allow),
    ("audit", Action::Audit),
    ("block", Action::Block),
    ("kill", Action::Kill),
];

/// The name of a rule; `None` if it is missing or invalid.
pub(super) fn name_of<'n>(node: &'n Node, reporter: &mut Reporter<'_>) -> Option<fields::Text<'n>> {
    let Value::Map(entries) = &node.value else {
        return None;
    };
    let name = entries.iter().find(|e| e.key == "name")?;
    let text = fields::text(&name.value, "the name of a rule", reporter)?;
    name::check(text.text, "a rule", text.span, reporter).then_some(text)
}

/// Reads a rule whose name was read by [`name_of`]. `None` if an error was reported.
pub(super) fn read(
    node: &Node,
    name: Option<fields::Text<'_>>,
    default: Option<Action>,
    sets: &mut Sets<'_>,
    reporter: &mut Reporter<'_>,
) -> Option<Rule> {
    let fields = Fields::of(node, "a rule", &FIELDS, reporter)?;
    fields.require("name", "`name: database`", reporter);
    let action = fields
        .require("action", "`action: allow` (or audit, block, kill)", reporter)
        .and_then(|n| fields::choice(n, "action", &ACTIONS, reporter));
    if let Some(node) = fields.get("unix") {
        return unix_rule(node, &fields, name, action, reporter);
    }
    let to = fields
        .require("to", "`to: [10.0.0.0/8]`, or `to: any`", reporter)
        .and_then(|n| Some((n.span, destinations(n, sets, reporter)?)));
    let except = fields.get("except").map(|n| exceptions(n, sets, reporter));
    let families = fields.get("families");
    let services = match families {
        Some(node) => family::read(node, &fields, reporter),
        None => service::read(fields.get("ports"), fields.get("protocols"), reporter),
    };
    let (subject, reason) = subject_and_reason(&fields, reporter);

    let to = match except {
        None => to,
        Some(except) => to.and_then(|(span, to)| Some((span, without(span, to, except?, reporter)?))),
    };
    let (span, to) = to?;
    if families.is_some() {
        family::check_destinations(&to, span, reporter)?;
    }
    let (action, services) = (action?, services?);
    check_family(
        &services,
        &to,
        fields.get("protocols").map_or(span, |n| n.span),
        reporter,
    )?;
    let protocols = fields.get("protocols").map(|n| n.span);
    if let Some(span) = protocols.or_else(|| fields.get("ports").map(|n| n.span)) {
        let named = protocols.is_some();
        warn_if_evaluated_at_socket(action, default, &services, &to, (span, named), reporter);
    }
    Some(Rule {
        name: name?.text.to_owned(),
        action,
        to,
        services,
        unix: None,
        subject: subject?,
        reason,
    })
}

/// The values of `process` and `reason`.
fn subject_and_reason(fields: &Fields<'_>, reporter: &mut Reporter<'_>) -> (Option<Subject>, Option<String>) {
    let subject = match fields.get("process") {
        None => Some(Subject::default()),
        Some(node) => process::read(node, reporter),
    };
    let reason = fields
        .get("reason")
        .and_then(|n| fields::text(n, "a reason", reporter));
    (subject, reason.map(|reason| reason.text.to_owned()))
}

/// A rule for unix sockets.
fn unix_rule(
    node: &Node,
    fields: &Fields<'_>,
    name: Option<fields::Text<'_>>,
    action: Option<Action>,
    reporter: &mut Reporter<'_>,
) -> Option<Rule> {
    let sockets = unix::read(node, fields, reporter);
    let (subject, reason) = subject_and_reason(fields, reporter);
    Some(Rule {
        name: name?.text.to_owned(),
        action: action?,
        to: AddressSet::default(),
        services: Services::Only(Vec::new()),
        unix: Some(sockets?),
        subject: subject?,
        reason,
    })
}

/// The value of `to`.
fn destinations(node: &Node, sets: &mut Sets<'_>, reporter: &mut Reporter<'_>) -> Option<AddressSet> {
    match &node.value {
        Value::Scalar(s) if s.text == "any" => return Some(AddressSet::everything()),
        Value::Scalar(s) if s.text == "*" || s.text == "all" => {
            reporter.error(
                Code::WrongValue,
                node.span,
                format!("invalid destination {}", quoted(&s.text)),
                "write `to: any` for every destination",
            );
            return None;
        }
        _ => {}
    }
    let items = fields::list(
        node,
        "destinations",
        "write `to: any` for every destination",
        reporter,
    )?;
    sets.selector(items, reporter).map(|s| s.addresses)
}

fn exceptions(node: &Node, sets: &mut Sets<'_>, reporter: &mut Reporter<'_>) -> Option<Selector> {
    let items = fields::list(
        node,
        "exceptions",
        "add an exception, or remove `except`",
        reporter,
    )?;
    sets.selector(items, reporter)
}

/// Removes the exceptions. If nothing is left, reports an error and returns `None`.
fn without(span: Span, to: AddressSet, except: Selector, reporter: &mut Reporter<'_>) -> Option<AddressSet> {
    for (span, item) in &except.items {
        if !item.overlaps(&to) {
            reporter.warn(
                Code::ExceptWithoutEffect,
                *span,
                "exception without effect: it does not overlap `to`",
                "remove it, or check `to`",
            );
        }
    }
    let left = to.without(&except.addresses);
    if left.is_empty() {
        reporter.error(
            Code::EmptySelector,
            span,
            "`except` removes all addresses of `to`",
            "remove the rule, or check `except`",
        );
        return None;
    }
    Some(left)
}

/// Refuses ICMP of one address family with destinations of the other family only.
fn check_family(services: &Services, to: &AddressSet, span: Span, reporter: &mut Reporter<'_>) -> Option<()> {
    let Services::Only(services) = services else {
        return Some(());
    };
    let all_are = |protocol| services.iter().all(|s| s.protocol == protocol);
    let (protocol, other, own) = if all_are(Protocol::ICMPV6) && to.v6().is_empty() {
        ("icmpv6", "IPv4", "icmp")
    } else if all_are(Protocol::ICMP) && to.v4().is_empty() {
        ("protocol 1 (ICMP of IPv4)", "IPv6", "icmpv6")
    } else {
        return Some(());
    };
    reporter.error(
        Code::FamilyMismatch,
        span,
        format!("{protocol} with {other} destinations only"),
        format!("write {own}, or add destinations of the other address family"),
    );
    None
}

/// Warns about allow rules without effect: a protocol without an address hook is evaluated when the socket is
/// created, and gets the strictest verdict of any destination. `named`: the rule lists its protocols. Ports
/// without a protocol apply to all protocols with ports; there is no warning for those.
fn warn_if_evaluated_at_socket(
    action: Action,
    default: Option<Action>,
    services: &Services,
    to: &AddressSet,
    (span, named): (Span, bool),
    reporter: &mut Reporter<'_>,
) {
    let Services::Only(services) = services else {
        return;
    };
    if default.is_none_or(|d| d <= action) {
        return;
    }
    let narrow = |ports: PortRange, protocol: Protocol| protocol.has_ports() && ports != PortRange::EVERY;
    let is_meant = |service: &Service| {
        named
            || !services.contains(&Service {
                protocol: Protocol::TCP,
                ..*service
            })
    };
    let unseen = services
        .iter()
        .filter(|s| is_meant(s))
        .find(|s| !s.protocol.has_address_hook() && (!to.has_every_v4() || narrow(s.ports, s.protocol)));
    if let Some(service) = unseen {
        reporter.warn(
            Code::EvaluatedAtSocket,
            span,
            format!(
                "no hook sees the destination of {}: the policy is evaluated when the socket is created, and the strictest rule for any destination applies",
                service.protocol
            ),
            "to allow it, add a rule with `to: any` and without `ports`",
        );
    }
}
