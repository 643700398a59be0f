//! Reads `unix` of a rule: the unix sockets that it applies to.

use engine_common::unix_socket_id::UnixSocketId;

use super::{
    diagnostic::{Code, Reporter, quoted},
    fields::{self, Fields},
    model::{UnixName, UnixSockets},
    path,
    yaml_node::{Node, Value},
};

/// Selectors of network destinations, which cannot be combined with `unix`.
const NETWORK_SELECTORS: [&str; 5] = ["to", "except", "ports", "protocols", "families"];

/// Reads the field. `None` if an error was reported.
pub(super) fn read(node: &Node, rule: &Fields<'_>, reporter: &mut Reporter<'_>) -> Option<UnixSockets> {
    let before = reporter.errors();
    for other in NETWORK_SELECTORS {
        if let Some(conflicting) = rule.get(other) {
            reporter.error(
                Code::UnixConflict,
                conflicting.span,
                format!("`{other}` cannot be combined with `unix`"),
                "split the rule into one for network destinations and one for unix sockets",
            );
        }
    }
    let sockets = match &node.value {
        Value::Scalar(s) if s.text == "any" => Some(UnixSockets::Any),
        _ => listed(node, reporter).map(UnixSockets::Only),
    };
    sockets.filter(|_| reporter.errors() == before)
}

fn listed(node: &Node, reporter: &mut Reporter<'_>) -> Option<Vec<UnixName>> {
    let items = fields::list(
        node,
        "unix sockets",
        "write `unix: any` for all sockets",
        reporter,
    )?;
    let mut names = Vec::new();
    for item in items {
        // A path can have spaces, so the value of a variable is not split here.
        let Some(text) = fields::text(item, "a unix socket", reporter) else {
            continue;
        };
        match name(text.text) {
            Ok(name) => names.push(name),
            Err(help) => reporter.error(
                Code::BadUnixSocket,
                text.span,
                format!("invalid unix socket {}", quoted(text.text)),
                help,
            ),
        }
    }
    names.sort_unstable();
    names.dedup();
    Some(names)
}

/// Parses a path, or `@` and an abstract name.
///
/// # Errors
/// The help text for an invalid name.
pub(super) fn name(text: &str) -> Result<UnixName, String> {
    if let Some(name) = text.strip_prefix('@') {
        let limit = UnixSocketId::MAX_ABSTRACT;
        return match name.len() {
            0 => Err("write the abstract name after the `@`: \"@/tmp/.X11-unix/X0\"".to_owned()),
            length if length > limit => Err(format!("an abstract name has at most {limit} bytes")),
            _ => Ok(UnixName::Abstract(name.as_bytes().to_vec())),
        };
    }
    if !text.starts_with('/') {
        return Err("write an absolute path, /run/docker.sock, or an abstract name after an `@`".to_owned());
    }
    let path = path::absolute(text, "the socket", "/run/docker.sock")?;
    let depth = path.components().count() - 1;
    if depth > UnixSocketId::MAX_DEPTH {
        return Err(format!(
            "a socket path has at most {} components",
            UnixSocketId::MAX_DEPTH
        ));
    }
    Ok(UnixName::Path(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_paths_or_abstract() {
        assert_eq!(
            name("/run//docker.sock"),
            Ok(UnixName::Path("/run/docker.sock".into()))
        );
        assert_eq!(name("@x"), Ok(UnixName::Abstract(b"x".to_vec())));
        for wrong in [
            "",
            "@",
            "docker.sock",
            "/",
            "/run/",
            "/run/../a",
            "/run/./a",
            "unix:/run/a",
        ] {
            assert!(name(wrong).is_err(), "{wrong}");
        }
        assert!(name(&format!("@{}", "x".repeat(107))).is_ok());
        assert!(name(&format!("@{}", "x".repeat(108))).is_err());
        assert!(name(&"/a".repeat(24)).is_ok());
        assert!(name(&"/a".repeat(25)).is_err());
    }
}
