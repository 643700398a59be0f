//! `process` of a rule: who is bound.

use std::path::{Component, Path, PathBuf};

use super::{
    diagnostic::{Code, Reporter, quoted},
    fields::{self, Fields},
    model::{Binary, Subject},
    node::{Node, Value},
};

/// Longest path the kernel takes (PATH_MAX, with its closing NUL).
const MAX_PATH: usize = 4095;

/// The value of `process`.
pub(super) fn read(node: &Node, reporter: &mut Reporter<'_>) -> Option<Subject> {
    let help = "name `uids` or `binaries`, or leave `process` out";
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
    let items = fields::list(node, "user ids", "write the ids, or leave `uids` out", reporter)?;
    let before = reporter.errors();
    let mut uids = Vec::new();
    for text in fields::words(items, "a user id", reporter) {
        // With a zero in front it could be meant as octal.
        let octal = text.text.len() > 1 && text.text.starts_with('0');
        let digits = !octal && !text.text.is_empty() && text.text.bytes().all(|b| b.is_ascii_digit());
        match text.text.parse::<u32>() {
            // The greatest number means "no user" to the kernel.
            Ok(uid) if digits && uid != u32::MAX => uids.push(uid),
            _ => {
                let help = if octal {
                    "write the number without leading zeros".to_owned()
                } else if digits {
                    "user ids are 0 to 4294967294".to_owned()
                } else if super::variable::is_variable_name(text.text) {
                    format!("write the number: `id -u {}` prints it", text.text)
                } else {
                    "write the number of each user: 1000".to_owned()
                };
                reporter.error(
                    Code::BadUid,
                    text.span,
                    format!("{} is not a user id", quoted(text.text)),
                    help,
                );
            }
        }
    }
    let faulty = reporter.errors() != before || items.iter().any(|i| matches!(i.value, Value::Faulty));
    if !faulty && uids.is_empty() {
        reporter.error(
            Code::EmptySelector,
            node.span,
            "a list without user ids: the variables in it are empty",
            "give them values, or leave `uids` out",
        );
        return None;
    }
    uids.sort_unstable();
    uids.dedup();
    (!faulty).then_some(uids)
}

fn binaries(node: &Node, reporter: &mut Reporter<'_>) -> Option<Vec<Binary>> {
    let items = fields::list(
        node,
        "paths of executables",
        "write the paths, or leave `binaries` out",
        reporter,
    )?;
    let mut binaries = Vec::new();
    let mut faulty = false;
    for item in items {
        // A path may have spaces: a variable here is one path.
        let Some(text) = fields::text(item, "the path of an executable", reporter) else {
            faulty = true;
            continue;
        };
        match binary(text.text) {
            Ok(path) => binaries.push(Binary { path }),
            Err(help) => {
                faulty = true;
                reporter.error(
                    Code::BadBinary,
                    text.span,
                    format!("{} is not the path of an executable", quoted(text.text)),
                    help,
                );
            }
        }
    }
    binaries.sort_unstable();
    binaries.dedup();
    (!faulty).then_some(binaries)
}

/// Checks the path of an executable: absolute, and without parts that mean another folder.
fn binary(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(if text.contains('/') || !super::name::is_name(text) {
            "write the path from the root on: /usr/bin/curl".to_owned()
        } else {
            format!("write the path from the root on: `command -v {text}` prints it")
        });
    }
    if text.len() > MAX_PATH {
        return Err(format!("a path has at most {MAX_PATH} bytes"));
    }
    if path.components().any(|c| c == Component::ParentDir) || text.split('/').any(|part| part == ".") {
        return Err("write the path without `.` and `..`".to_owned());
    }
    if text.ends_with('/') {
        return Err("write the path of a file: /usr/bin/curl".to_owned());
    }
    Ok(path.components().collect())
}
