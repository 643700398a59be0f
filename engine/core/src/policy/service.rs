//! Combines `ports` and `protocols` of a rule.

use engine_common::Protocol;

use super::{
    diagnostic::{Code, Reporter, quoted},
    fields::{self, Text},
    model::{PortRange, Service, Services},
    port::{self, PortSpec},
    yaml_node::{Node, Value},
};

/// A protocol name and the protocols that it covers.
type Named<'n> = (Text<'n>, &'static [Protocol]);

/// Reads both fields. `None` if an error was reported.
pub(super) fn read(
    ports: Option<&Node>,
    protocols: Option<&Node>,
    reporter: &mut Reporter<'_>,
) -> Option<Services> {
    let before = reporter.errors();
    let ports = restriction(ports, "ports", reporter, port::parse);
    let protocols = restriction(protocols, "protocols", reporter, port::protocols);
    let services = match (ports?, protocols?) {
        (None, None) => return Some(Services::Any),
        (None, Some(protocols)) => every_port(&protocols),
        (Some(ports), None) => {
            let of = |spec: &PortSpec| spec.protocol.map_or(port::WITH_PORTS.to_vec(), |p| vec![p]);
            let pairs = ports.iter().map(|(_, spec)| (spec, of(spec)));
            pairs
                .flat_map(|(spec, of)| of.into_iter().map(|protocol| service(protocol, spec.ports)))
                .collect()
        }
        (Some(ports), Some(protocols)) => both(&ports, &protocols, reporter),
    };
    (reporter.errors() == before).then(|| Services::Only(port::merged(services)))
}

fn service(protocol: Protocol, ports: PortRange) -> Service {
    Service { protocol, ports }
}

fn every_port(protocols: &[Named<'_>]) -> Vec<Service> {
    let all = protocols.iter().flat_map(|(_, of)| of.iter());
    all.map(|&protocol| service(protocol, PortRange::EVERY)).collect()
}

/// The ports, restricted to these protocols.
fn both(
    ports: &[(Text<'_>, PortSpec)],
    protocols: &[Named<'_>],
    reporter: &mut Reporter<'_>,
) -> Vec<Service> {
    let mut services = Vec::new();
    for (text, of) in protocols {
        if of.iter().any(|p| !p.has_ports()) {
            reporter.report(text.span, port::no_ports(text.text));
            continue;
        }
        let before = services.len();
        for &protocol in *of {
            let named = ports
                .iter()
                .filter(|(_, s)| s.protocol.is_none_or(|p| p == protocol));
            services.extend(named.map(|(_, spec)| service(protocol, spec.ports)));
        }
        if services.len() == before {
            reporter.error(
                Code::PortsConflict,
                text.span,
                format!("`ports` has no port for protocol {}", quoted(text.text)),
                format!("remove the protocol, or add a port: \"443/{}\"", text.text),
            );
        }
    }
    for (text, spec) in ports {
        if let Some(protocol) = spec.protocol
            && !protocols.iter().any(|(_, of)| of.contains(&protocol))
        {
            reporter.error(
                Code::PortsConflict,
                text.span,
                format!("`protocols` does not list the protocol of {}", quoted(text.text)),
                format!("add {protocol} to `protocols`, or remove `protocols`"),
            );
        }
    }
    services
}

/// Reads a list that restricts a rule. The inner `None` means no restriction: the field is missing or `any`.
/// The outer `None` means that an error was reported.
fn restriction<'n, T>(
    node: Option<&'n Node>,
    what: &str,
    reporter: &mut Reporter<'_>,
    read: impl Fn(&str) -> Result<T, Box<super::diagnostic::Problem>>,
) -> Option<Option<Vec<(Text<'n>, T)>>> {
    let Some(node) = node else {
        return Some(None);
    };
    match &node.value {
        Value::Scalar(s) if s.text == "any" => return Some(None),
        Value::Invalid => return None,
        _ => {}
    }
    let help = format!("remove `{what}`, or write `{what}: any`");
    let items = fields::list(node, what, &help, reporter)?;
    let one = if what == "ports" {
        "a port or range of ports"
    } else {
        "a protocol"
    };
    let words = fields::words(items, one, reporter);
    if words.is_empty() {
        // Items that are not scalars were reported before.
        if items.iter().all(|i| matches!(i.value, Value::Scalar(_))) {
            reporter.error(
                Code::EmptySelector,
                node.span,
                format!("expected {what}, but all variables in the list are empty"),
                help,
            );
        }
        return None;
    }
    let mut invalid = items.iter().any(|i| matches!(i.value, Value::Invalid));
    let mut out = Vec::with_capacity(words.len());
    for text in words {
        match read(text.text) {
            Ok(value) => out.push((text, value)),
            Err(problem) => {
                reporter.report(text.span, *problem);
                invalid = true;
            }
        }
    }
    (!invalid).then_some(Some(out))
}
