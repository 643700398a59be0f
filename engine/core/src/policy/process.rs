//! Reads `process` of a rule: the users and executables that it applies to.

use std::path::PathBuf;

use super::{
    diagnostic::{Code, Reporter, quoted},
    fields::{self, Fields},
    model::{Binary, Subject},
    name::is_name,
    path,
    yaml_node::{Node, Value},
};

/// The value of `process`.
pub(super) fn read(node: &Node, reporter: &mut Reporter<'_>) -> Option<Subject> {
    let help = "add `uids` or `binaries`, or remove `process`";
    if matches!(node.value, Value::Null) {
        reporter.error(Code::EmptySelector, node.span, "`process` selects nothing", help);
        return None;
    }
    let fields = Fields::of(node, "`process`", &["uids", "binaries"], reporter)?;
    let uids = fields.get("uids").map(|n| uids(n, reporter));
    let binaries = fields.get("binaries").map(|n| binaries(n, reporter));
    match (uids, binaries) {
        (None, None) => {
            reporter.error(Code::EmptySelector, node.span, "`process` selects nothing", help);
            None
        }
        (Some(None), _) | (_, Some(None)) => None,
        (uids, binaries) => Some(Subject {
            uids: uids.flatten(),
            binaries: binaries.flatten(),
        }),
    }
}

fn uids(node: &Node, reporter: &mut Reporter<'_>) -> Option<Vec<u32>> {
    let items = fields::list(node, "user ids", "add user ids, or remove `uids`", reporter)?;
    let before = reporter.errors();
    let mut uids = Vec::new();
    for text in fields::words(items, "a user id", reporter) {
        // A leading zero can mean octal.
        let octal = text.text.len() > 1 && text.text.starts_with('0');
        let digits = !octal && !text.text.is_empty() && text.text.bytes().all(|b| b.is_ascii_digit());
        match text.text.parse::<u32>() {
            // The kernel uses the largest value as "no user".
            Ok(uid) if digits && uid != u32::MAX => uids.push(uid),
            _ => {
                let help = if octal {
                    "remove the leading zeros".to_owned()
                } else if digits {
                    "user ids are 0 to 4294967294".to_owned()
                } else if super::variable::is_variable_name(text.text) {
                    format!("write the numeric id: `id -u {}` prints it", text.text)
                } else {
                    "write the numeric id of each user: 1000".to_owned()
                };
                reporter.error(
                    Code::BadUid,
                    text.span,
                    format!("invalid user id {}", quoted(text.text)),
                    help,
                );
            }
        }
    }
    let invalid = reporter.errors() != before || items.iter().any(|i| matches!(i.value, Value::Invalid));
    if !invalid && uids.is_empty() {
        reporter.error(
            Code::EmptySelector,
            node.span,
            "expected user ids, but all variables in the list are empty",
            "set one of the variables, or remove `uids`",
        );
        return None;
    }
    uids.sort_unstable();
    uids.dedup();
    (!invalid).then_some(uids)
}

fn binaries(node: &Node, reporter: &mut Reporter<'_>) -> Option<Vec<Binary>> {
    let items = fields::list(
        node,
        "executable paths",
        "add paths, or remove `binaries`",
        reporter,
    )?;
    let mut binaries = Vec::new();
    let mut invalid = false;
    for item in items {
        // A path can have spaces, so the value of a variable is not split here.
        let Some(text) = fields::text(item, "an executable path", reporter) else {
            invalid = true;
            continue;
        };
        match binary(text.text) {
            Ok(path) => binaries.push(Binary { path }),
            Err(help) => {
                invalid = true;
                reporter.error(
                    Code::BadBinary,
                    text.span,
                    format!("invalid executable path {}", quoted(text.text)),
                    help,
                );
            }
        }
    }
    binaries.sort_unstable();
    binaries.dedup();
    (!invalid).then_some(binaries)
}

/// The path of an executable.
///
/// # Errors
/// The help text for an invalid path.
fn binary(text: &str) -> Result<PathBuf, String> {
    if is_name(text) {
        return Err(format!("write an absolute path: `command -v {text}` prints it"));
    }
    path::absolute(text, "a file", "/usr/bin/curl")
}
