//! `tidegate explain`, from the outside: the verdict as an exit code, the rule that decides, and why
//! the rules before it do not match. Needs no root.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use std::path::PathBuf;

use integration::{
    captured::{Captured, Ended},
    exec::{policy, tidegate},
    shared_file::SharedFolder,
};

const SPEC: &str = r#"{default: block, errno: EACCES, rules: [
    {name: metadata, action: kill, to: ["@cloud-metadata"]},
    {name: database, action: allow, to: [10.20.0.0/16], except: [10.20.9.0/24], ports: ["5432/tcp"]},
    {name: builders, action: audit, process: {uids: [1000], binaries: [/usr/bin/curl]}, to: any},
]}"#;

struct Case {
    folder: SharedFolder,
    file: PathBuf,
}

impl Case {
    fn new() -> Case {
        let folder = SharedFolder::create();
        let file = folder.write("policy.yaml", &policy("payments", SPEC));
        Case { folder, file }
    }

    fn explain(&self, words: &[&str]) -> Ended {
        let mut all = vec!["explain", "--policy", self.file.to_str().unwrap()];
        all.extend(words);
        Captured::run(&mut tidegate(all))
    }
}

#[test]
fn exit_code_is_the_verdict() {
    let case = Case::new();
    for (words, code) in [
        (&["--to", "10.20.0.5:5432"][..], 0),
        (&["--to", "10.20.0.5:5432/udp"], 4),
        (&["--to", "10.20.0.5:5433"], 4),
        (&["--to", "10.20.9.5:5432"], 4),
        (&["--to", "169.254.169.254:80"], 4),
        (&["--to", "[::ffff:10.20.0.5]:5432"], 0),
        (&["--to", "[2001:db8::1]:443"], 4),
        (&["--to", "192.0.2.1/icmp"], 4),
        (
            &[
                "--to",
                "192.0.2.1:443",
                "--uid",
                "1000",
                "--binary",
                "/usr/bin/curl",
            ],
            0,
        ),
        (
            &[
                "--to",
                "192.0.2.1:443",
                "--uid",
                "1001",
                "--binary",
                "/usr/bin/curl",
            ],
            4,
        ),
        (&["--to", "192.0.2.1:443", "--uid", "1000"], 4),
    ] {
        let ended = case.explain(words);
        assert_eq!(
            ended.code(),
            Some(code),
            "{words:?}\n{}{}",
            ended.stdout,
            ended.stderr
        );
        assert!(ended.stdout.contains("payments"), "{}", ended.stdout);
    }
}

#[test]
fn deciding_rule_and_why_others_do_not_match() {
    let case = Case::new();
    let ended = case.explain(&["--to", "10.20.0.5:5433", "--uid", "7"]);
    ended.expect_code(4);
    let line_of = |rule: &str| {
        let line = ended.stdout.lines().find(|line| line.contains(rule));
        line.unwrap_or_else(|| panic!("no {rule} in\n{}", ended.stdout))
    };
    assert!(line_of("metadata").contains("destination"));
    assert!(line_of("database").contains("port"));
    assert!(line_of("builders").contains("user"));
    assert!(ended.stdout.contains("default") && ended.stdout.contains("EACCES"));
}

#[test]
fn as_json() {
    let case = Case::new();
    let ended = case.explain(&["--to", "169.254.169.254:80", "--output", "json"]);
    ended.expect_code(4);
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (&document["denied"], &document["verdict"]),
        (&true.into(), &"kill".into())
    );
    assert_eq!(document["policies"][0]["rule"], "metadata");
}

/// Audit mode denies nothing.
#[test]
fn audit_mode_does_not_deny() {
    let case = Case::new();
    let watching = case.folder.write(
        "watching.yaml",
        &policy("watching", "{mode: audit, default: kill}"),
    );
    let words = [
        "explain",
        "--to",
        "192.0.2.1:1",
        "--policy",
        watching.to_str().unwrap(),
    ];
    let ended = Captured::run(&mut tidegate(words));
    ended.expect_code(0);
    assert!(ended.stdout.contains("would kill"), "{}", ended.stdout);
    // With one beside it that denies, the attempt is denied.
    let ended = case.explain(&["--to", "192.0.2.1:1", "--policy", watching.to_str().unwrap()]);
    ended.expect_code(4);
}

#[test]
fn invalid_arguments() {
    let case = Case::new();
    case.explain(&["--to", "example.org:80"]).expect_code(2);
    case.explain(&["--to", "192.0.2.1"]).expect_code(2);
    case.explain(&["--to", "192.0.2.1:99999"]).expect_code(2);
    case.explain(&[]).expect_code(2);
    Captured::run(&mut tidegate([
        "explain",
        "--policy",
        "/no/such.yaml",
        "--to",
        "192.0.2.1:1",
    ]))
    .expect_code(1);
    let invalid = case.folder.write("invalid.yaml", "kind: Nonsense\n");
    Captured::run(&mut tidegate([
        "explain",
        "--policy",
        invalid.to_str().unwrap(),
        "--to",
        "192.0.2.1:1",
    ]))
    .expect_code(3);
}
