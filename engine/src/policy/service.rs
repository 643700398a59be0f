//! `ports` and `protocols` of a rule, put together.

use engine_common::Protocol;

use super::{
    diagnostic::{Code, Reporter, quoted},
    fields::{self, Text},
    model::{PortRange, Service, Services},
    node::{Node, Value},
    port::{self, PortSpec},
};

/// A protocol as it was written, with what it covers.
type Named<'n> = (Text<'n>, &'static [Protocol]);

/// Reads both fields. `None` when something was reported.
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

/// The ports, of these protocols only.
fn both(
    ports: &[(Text<'_>, PortSpec)],
    protocols: &[Named<'_>],
    reporter: &mut Reporter<'_>,
) -> Vec<Service> {
    let mut services = Vec::new();
    for (text, of) in protocols {
        if of.iter().any(|p| !p.has_ports()) {
            reporter.fault(text.span, port::no_ports(text.text));
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
                format!("none of `ports` is for {}", quoted(text.text)),
                format!(
                    "remove it from `protocols`, or add its ports: \"443/{}\"",
                    text.text
                ),
            );
        }
    }
    for (text, spec) in ports {
        if let Some(protocol) = spec.protocol
            && !protocols.iter().any(|(_, of)| of.contains(&protocol))
        {
            let name = port::protocol_name(protocol);
            reporter.error(
                Code::PortsConflict,
                text.span,
                format!("{} is not among `protocols`", quoted(text.text)),
                format!("add {name} to `protocols`, or remove `protocols`: the port says it already"),
            );
        }
    }
    services
}

/// A list of things that restricts a rule; missing and `any` mean that it does not. The outer `None`: not
/// a list.
fn restriction<'n, T>(
    node: Option<&'n Node>,
    what: &str,
    reporter: &mut Reporter<'_>,
    read: impl Fn(&str) -> Result<T, Box<super::diagnostic::Fault>>,
) -> Option<Option<Vec<(Text<'n>, T)>>> {
    let Some(node) = node else {
        return Some(None);
    };
    match &node.value {
        Value::Scalar(s) if s.text == "any" => return Some(None),
        Value::Faulty => return None,
        _ => {}
    }
    let help = format!("leave `{what}` out, or write `{what}: any`");
    let items = fields::list(node, what, &help, reporter)?;
    let one = if what == "ports" {
        "a port or range of ports"
    } else {
        "a protocol"
    };
    let words = fields::words(items, one, reporter);
    if words.is_empty() {
        // Items that are no text were reported already.
        if items.iter().all(|i| matches!(i.value, Value::Scalar(_))) {
            reporter.error(
                Code::EmptySelector,
                node.span,
                format!("a list without {what}: the variables in it are empty"),
                help,
            );
        }
        return None;
    }
    let mut faulty = items.iter().any(|i| matches!(i.value, Value::Faulty));
    let mut out = Vec::with_capacity(words.len());
    for text in words {
        match read(text.text) {
            Ok(value) => out.push((text, value)),
            Err(fault) => {
                reporter.fault(text.span, *fault);
                faulty = true;
            }
        }
    }
    (!faulty).then_some(Some(out))
}
