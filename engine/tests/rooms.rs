//! Data flows one way: a room knows those above it in this list, and only what is granted to it.

#![expect(clippy::unwrap_used, reason = "a test panics")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Rooms, and which other rooms their files may name.
const MAY_KNOW: [(&str, &[&str]); 12] = [
    ("procfs", &[]),
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

/// Libraries that only one room may name.
const OWNED: [(&str, &str); 2] = [("aya", "datapath"), ("clap", "cli")];

fn sources(room: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "the room {room} is empty");
    found
}

/// The text without comments: those may speak of anybody.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether the code names a path that starts with `first::`, also inside `use crate::{...}`.
fn names_room(code: &str, room: &str) -> bool {
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
                return word == room;
            }
            if depth == 1 && (c.is_alphanumeric() || c == '_') {
                word.push(c);
            } else if word == room && depth >= 1 {
                return true;
            } else if depth == 1 {
                word.clear();
            }
        }
        false
    });
    grouped || code.contains(&format!("crate::{room}::")) || code.contains(&format!("crate::{room};"))
}

#[test]
fn nothing_points_backwards() {
    let mut faults = Vec::new();
    for (room, may_know) in MAY_KNOW {
        for (path, text) in sources(room) {
            let code = code(&text);
            for (other, _) in MAY_KNOW {
                if other != room && !may_know.contains(&other) && names_room(&code, other) {
                    faults.push(format!("{} names crate::{other}", path.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn libraries_have_one_room() {
    let mut faults = Vec::new();
    for (library, owner) in OWNED {
        for (room, _) in MAY_KNOW.iter().filter(|(room, _)| *room != owner) {
            for (path, text) in sources(room) {
                if code(&text).contains(&format!("{library}::")) {
                    faults.push(format!("{} names {library}", path.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_check_sees_what_it_looks_for() {
    assert!(names_room("use crate::policy::Policy;", "policy"));
    assert!(names_room(
        "use crate::{events::Event, policy::{Policy, Rule}};",
        "policy"
    ));
    assert!(names_room("use crate::{\n    launch,\n    policy,\n};", "launch"));
    assert!(!names_room(
        "use crate::{events::{policy_names, Event}};",
        "policy"
    ));
    assert!(!names_room("use super::policy;", "policy"));
}
