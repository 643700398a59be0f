//! Modules may only use the modules that this table allows, so that dependencies go one way.

#![expect(clippy::unwrap_used, reason = "a test panics")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each module of the library, and the other modules that it may use.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("policy", &[]),
    ("compile", &["policy"]),
    ("datapath", &["compile", "policy", "procfs"]),
    ("cgroup", &["procfs"]),
    ("sockets", &[]),
    ("control", &["policy", "compile", "datapath", "cgroup", "sockets"]),
    ("events", &[]),
    ("launch", &["cgroup", "procfs"]),
    ("probe", &["datapath", "cgroup", "launch", "procfs"]),
    (
        "selftest",
        &["policy", "compile", "datapath", "events", "cgroup", "launch"],
    ),
    (
        "cli",
        &[
            "policy", "compile", "datapath", "cgroup", "sockets", "control", "events", "launch", "probe",
            "selftest",
        ],
    ),
];

/// Libraries that only one module may use.
const OWNED: [(&str, &str); 2] = [("aya", "datapath"), ("clap", "cli")];

fn sources(module: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(module)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "the module {module} is empty");
    found
}

/// The text without line comments.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether the code uses `crate::module`, also inside `use crate::{...}`.
fn uses_module(code: &str, module: &str) -> bool {
    let grouped = code.split("use crate::{").skip(1).any(|rest| {
        let mut depth = 1;
        let mut word = String::new();
        for c in rest.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return word == module;
            }
            if depth == 1 && (c.is_alphanumeric() || c == '_') {
                word.push(c);
            } else if word == module && depth >= 1 {
                return true;
            } else if depth == 1 {
                word.clear();
            }
        }
        false
    });
    grouped || code.contains(&format!("crate::{module}::")) || code.contains(&format!("crate::{module};"))
}

#[test]
fn dependencies_go_one_way() {
    let mut faults = Vec::new();
    for (module, allowed) in ALLOWED {
        for (path, text) in sources(module) {
            let code = code(&text);
            for (other, _) in ALLOWED {
                if other != module && !allowed.contains(&other) && uses_module(&code, other) {
                    faults.push(format!("{} names crate::{other}", path.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn libraries_are_used_in_one_module() {
    let mut faults = Vec::new();
    for (library, owner) in OWNED {
        for (module, _) in ALLOWED.iter().filter(|(module, _)| *module != owner) {
            for (path, text) in sources(module) {
                if code(&text).contains(&format!("{library}::")) {
                    faults.push(format!("{} names {library}", path.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_check_finds_uses() {
    assert!(uses_module("use crate::policy::Policy;", "policy"));
    assert!(uses_module(
        "use crate::{events::Event, policy::{Policy, Rule}};",
        "policy"
    ));
    assert!(uses_module(
        "use crate::{\n    launch,\n    policy,\n};",
        "launch"
    ));
    assert!(!uses_module(
        "use crate::{events::{policy_names, Event}};",
        "policy"
    ));
    assert!(!uses_module("use super::policy;", "policy"));
}
