//! `families` of a rule: sockets of other address families than the two inet ones.

use engine_common::Protocol;

use super::{
    AddressSet,
    diagnostic::{Code, Fault, Reporter, quoted},
    fields::{self, Fields},
    model::{PortRange, Service, Services},
    nearest::nearest,
    node::{Node, Value},
};

/// Reads the field. `None` when something was reported.
pub(super) fn read(node: &Node, rule: &Fields<'_>, reporter: &mut Reporter<'_>) -> Option<Services> {
    let before = reporter.errors();
    for other in ["ports", "protocols"] {
        if let Some(there) = rule.get(other) {
            reporter.error(
                Code::FamiliesConflict,
                there.span,
                format!(
                    "`{other}` beside `families`: sockets of other families have none that a rule could name"
                ),
                "make two rules of it",
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
        "write `families: any` for all of them",
        reporter,
    )?;
    let mut protocols = Vec::new();
    for text in fields::words(items, "a family", reporter) {
        match parse(text.text) {
            Ok(protocol) => protocols.push(protocol),
            Err(fault) => reporter.fault(text.span, *fault),
        }
    }
    protocols.sort_unstable();
    protocols.dedup();
    if protocols.is_empty() {
        return None;
    }
    Some(protocols)
}

fn parse(text: &str) -> Result<Protocol, Box<Fault>> {
    let lower = text.to_ascii_lowercase();
    let name = lower.strip_prefix("af_").unwrap_or(&lower);
    if let Some((number, _)) = Protocol::FAMILY_NAMES.iter().find(|(_, known)| *known == name) {
        return Ok(Protocol::of_family(*number));
    }
    let names = Protocol::FAMILY_NAMES.iter().map(|(_, known)| *known);
    let help = match name {
        "inet" | "inet6" | "ipv4" | "ipv6" => {
            "rules are about both inet families by themselves: select by `to` and `protocols`".to_owned()
        }
        "unix" | "local" => "rules name unix sockets one by one: `unix: [/run/docker.sock]`".to_owned(),
        "netlink" | "alg" => "it stays on this machine, and no policy judges it".to_owned(),
        _ => match nearest(name, names.clone()) {
            Some(near) => format!("write {near}"),
            None => format!("there are: {}", names.collect::<Vec<_>>().join(", ")),
        },
    };
    Err(Box::new(Fault::new(
        Code::BadFamily,
        format!("{} is not a family that rules can name", quoted(text)),
        help,
    )))
}

/// Refuses destinations beside families: what a socket of another family reaches has no address that could be
/// compared.
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
        "destinations beside `families`: sockets of other families do not go to IP addresses",
        "write `to: any` without `except`",
    );
    None
}
