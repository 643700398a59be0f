//! Reads `families` of a rule: address families other than IPv4 and IPv6.

use engine_common::Protocol;

use super::{
    AddressSet,
    diagnostic::{Code, Problem, Reporter, quoted},
    fields::{self, Fields},
    model::{PortRange, Service, Services},
    nearest::nearest,
    yaml_node::{Node, Value},
};

/// Reads the field. `None` if an error was reported.
pub(super) fn read(node: &Node, rule: &Fields<'_>, reporter: &mut Reporter<'_>) -> Option<Services> {
    let before = reporter.errors();
    for other in ["ports", "protocols"] {
        if let Some(conflicting) = rule.get(other) {
            reporter.error(
                Code::FamiliesConflict,
                conflicting.span,
                format!("`{other}` cannot be combined with `families`"),
                "split the rule into two",
            );
        }
    }
    let protocols = match &node.value {
        Value::Scalar(s) if s.text == "any" => (0..Protocol::FAMILIES).map(Protocol::of_family).collect(),
        _ => listed(node, reporter)?,
    };
    let of = |protocol| Service {
        protocol,
        ports: PortRange::EVERY,
    };
    (reporter.errors() == before).then(|| Services::Only(protocols.into_iter().map(of).collect()))
}

fn listed(node: &Node, reporter: &mut Reporter<'_>) -> Option<Vec<Protocol>> {
    let items = fields::list(
        node,
        "families",
        "write `families: any` for all families",
        reporter,
    )?;
    let mut protocols = Vec::new();
    for text in fields::words(items, "a family", reporter) {
        match parse(text.text) {
            Ok(protocol) => protocols.push(protocol),
            Err(problem) => reporter.report(text.span, *problem),
        }
    }
    protocols.sort_unstable();
    protocols.dedup();
    if protocols.is_empty() {
        return None;
    }
    Some(protocols)
}

fn parse(text: &str) -> Result<Protocol, Box<Problem>> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_prefix("af_").unwrap_or(&lower);
    if let Some((number, _)) = Protocol::FAMILY_NAMES.iter().find(|(_, known)| *known == name) {
        return Ok(Protocol::of_family(*number));
    }
    let names = Protocol::FAMILY_NAMES.iter().map(|(_, known)| *known);
    let help = match name {
        "inet" | "inet6" | "ipv4" | "ipv6" => {
            "every rule applies to IPv4 and IPv6: select them with `to` and `protocols`".to_owned()
        }
        "unix" | "local" => "select unix sockets by name: `unix: [/run/docker.sock]`".to_owned(),
        "netlink" | "alg" => "remove it: policies do not apply to this local address family".to_owned(),
        _ => match nearest(name, names.clone()) {
            Some(near) => format!("write {near}"),
            None => format!("valid families: {}", names.collect::<Vec<_>>().join(", ")),
        },
    };
    Err(Box::new(Problem::new(
        Code::BadFamily,
        format!("invalid address family {}", quoted(text)),
        help,
    )))
}

/// Refuses destinations in a rule with `families`, because sockets of other families have no IP destination.
pub(super) fn check_destinations(
    to: &AddressSet,
    span: super::source::Span,
    reporter: &mut Reporter<'_>,
) -> Option<()> {
    if to.has_every_v4() && to.has_every_v6() {
        return Some(());
    }
    reporter.error(
        Code::FamiliesConflict,
        span,
        "destinations cannot be combined with `families`: other address families have no IP addresses",
        "write `to: any` without `except`",
    );
    None
}
