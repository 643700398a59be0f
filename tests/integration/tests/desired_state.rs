//! The desired state of attached policies: text, variables and origin in the state directory, kept in step with what is
//! live, and read back by `policy show` and `explain --live`.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Stdio, thread, time::Duration};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{EgressMethod, Family},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met, tidegate_bin},
    test_client::TestClient,
};
use serde_json::{Value, json};

/// Comments, blank lines and a missing line feed at the end: nothing of the text may change.
const TEXT: &str = "# the shop\napiVersion: tidegate.io/v1\nkind: EgressPolicy\nmetadata: {name: shop}\n\nspec:\n  default: \
                    allow\n  errno: EACCES\n  rules:\n    - {name: closed, action: block, to: [\"${CLOSED}\", \
                    \"${OTHER:-192.0.2.0/24}\"]}   # \u{fc}";

/// Writes the policy and attaches it, with the near address of the namespace denied.
fn attach(fixture: &AttachFixture, cgroup: &TestCgroup) -> String {
    let file = fixture.dir().write("shop.yaml", TEXT).display().to_string();
    let closed = format!("CLOSED={}", Namespace::near(Family::V4));
    let own = cgroup.cgroup_path();
    let args = [
        "attach",
        "--policy",
        &file,
        "--cgroup",
        &own,
        "--set",
        &closed,
        "--set",
        "UNUSED=secret",
    ];
    fixture.run_ok(args);
    file
}

fn state_file(fixture: &AttachFixture) -> std::path::PathBuf {
    fixture.state().join("policies/shop.json")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn show(fixture: &AttachFixture) -> Value {
    let printed = fixture.run_ok(["policy", "show", "shop", "--output", "json"]);
    let document: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(document["schema_version"], 1);
    document["policy"].clone()
}

#[test]
fn text_and_variables_are_read_back() {
    if !met("text_and_variables_are_read_back", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
    let file = attach(&fixture, &cgroup);
    fs::remove_file(&file).unwrap();
    assert_eq!(fixture.run_ok(["policy", "show", "shop", "--text"]), TEXT);

    let near = Namespace::near(Family::V4).to_string();
    let shown = show(&fixture);
    assert_eq!(shown["text"], TEXT);
    assert_eq!(shown["variables"], json!({"CLOSED": near}));
    assert_eq!(
        (&shown["origin"], &shown["mode"], &shown["generation"]),
        (&json!("cli"), &json!("enforce"), &json!(1))
    );
    assert_eq!(shown["attachments"][0]["cgroup"], cgroup.cgroup_path());
    assert_eq!(shown["rules"][0]["name"], "closed");

    let text = fixture.run_ok(["policy", "show", "shop"]);
    let variable = format!("variable     CLOSED={near}");
    for part in ["  origin       cli\n", "\nspec:\n  default: allow\n", &variable] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
}

#[test]
fn state_follows_every_change() {
    if !met("state_follows_every_change", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup, other) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
    let file = attach(&fixture, &cgroup);
    let path = state_file(&fixture);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&fixture.state()), 0o700);
    assert_eq!(mode(&fixture.state().join("policies")), 0o700);

    let first = read(&path);
    let near = Namespace::near(Family::V4).to_string();
    let (own, second) = (cgroup.cgroup_path(), other.cgroup_path());
    for (key, value) in [
        ("version", json!(1)),
        ("name", json!("shop")),
        ("text", json!(TEXT)),
        ("variables", json!({"CLOSED": near})),
        ("origin", json!("cli")),
        ("mode", json!("enforce")),
        ("attachments", json!([own])),
    ] {
        assert_eq!(first[key], value, "{key}");
    }
    assert!(!fs::read_to_string(&path).unwrap().contains("secret"));

    let closed = format!("CLOSED={near}");
    fixture.run_ok(["attach", "--policy", &file, "--cgroup", &second, "--set", &closed]);
    assert_eq!(read(&path)["attachments"], json!([own, second]));

    fixture.run_ok(["set-mode", "shop", "audit"]);
    let audited = read(&path);
    assert_eq!(
        (&audited["mode"], &audited["text"]),
        (&json!("audit"), &json!(TEXT))
    );

    let changed = TEXT.replace("default: allow", "default: block");
    fixture.dir().write("shop.yaml", &changed);
    fixture.run_ok([
        "apply",
        "-f",
        &file,
        "--set",
        "CLOSED=198.51.100.0/24",
        "--dry-run",
    ]);
    assert_eq!(read(&path), audited);
    fixture.run_ok(["apply", "-f", &file, "--set", "CLOSED=198.51.100.0/24"]);
    let applied = read(&path);
    assert_eq!(applied["text"], changed);
    assert_eq!(applied["variables"], json!({"CLOSED": "198.51.100.0/24"}));
    assert_eq!(applied["mode"], "enforce");
    assert_eq!(fixture.run_ok(["policy", "show", "shop", "--text"]), changed);

    fixture.run_ok(["detach", "shop", "--cgroup", &own]);
    assert_eq!(read(&path)["attachments"], json!([second]));
    fixture.run_ok(["detach", "shop"]);
    assert!(!path.exists());

    attach(&fixture, &cgroup);
    assert!(path.exists());
    fixture.run_ok(["detach", "--all"]);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

/// What `explain --live` says is what the kernel does, by the same rule; and it reports when the text no longer compiles to
/// the live image.
#[test]
fn explain_live_agrees_with_the_kernel() {
    if !met("explain_live_agrees_with_the_kernel", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let program = fixture.dir().copy_program(&tidegate_bin(), "program");
        let rule =
            "- {name: program, action: audit, to: [203.0.113.1], process: {binaries: [\"${PROGRAM}\"]}}";
        let text = format!("{TEXT}\n    {rule}\n");
        let file = fixture.dir().write("shop.yaml", &text).display().to_string();
        let closed = format!("CLOSED={}", Namespace::near(Family::V4));
        let binary = format!("PROGRAM={}", program.display());
        let own = cgroup.cgroup_path();
        fixture.run_ok([
            "attach", "--policy", &file, "--cgroup", &own, "--set", &closed, "--set", &binary,
        ]);
        fs::remove_file(&file).unwrap();

        let client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        for (to, is_denied) in [
            (Namespace::near(Family::V4), true),
            (Namespace::far(Family::V4), false),
        ] {
            let method = EgressMethod::TcpConnect;
            let receiver = Receiver::listen(method.transport(), to);
            let result = fixture.run_client(&cgroup, &client.args(method, receiver.address(), None));
            assert_eq!(!result.ok, is_denied, "{result:?}");
            let to = receiver.address().to_string();
            let output = fixture.run(["explain", "--live", "shop", "--to", &to, "--output", "json"]);
            output.expect_code(if is_denied { 4 } else { 0 });
            let explained: Value = serde_json::from_str(&output.stdout).unwrap();
            assert_eq!(explained["denied"], is_denied);
            assert_eq!(explained["live"][0]["equals_live"], true, "{explained:#}");
            let by = if is_denied { json!("closed") } else { Value::Null };
            assert_eq!(explained["policies"][0]["rule"], by);
        }
        assert_eq!(fixture.status().policy("shop")["totals"]["rules"]["closed"], 1);

        // Together with a file, and with the strictest verdict of both.
        let open = fixture.policy("open", "{default: allow}");
        let near = format!("{}:80", Namespace::near(Family::V4));
        let both = fixture.run(["explain", "--live", "shop", "--policy", &open, "--to", &near]);
        both.expect_code(4);
        assert!(
            both.stdout.contains("the strictest verdict is enforced"),
            "{}",
            both.stdout
        );
        assert!(!both.stdout.contains("note:"), "{}", both.stdout);

        let replaced = fixture.dir().path().join("replaced");
        fs::copy(&program, &replaced).unwrap();
        fs::rename(&replaced, &program).unwrap();
        let output = fixture.run(["explain", "--live", "shop", "--to", &near]);
        output.expect_code(4);
        assert!(
            output
                .stdout
                .contains("compiles to another image than the live one"),
            "{}",
            output.stdout
        );
    });
}

#[test]
fn unknown_versions_are_refused() {
    if !met("unknown_versions_are_refused", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    attach(&fixture, &cgroup);
    let path = state_file(&fixture);
    let newer = r#"{"version": 2, "policy": {}}"#;
    fs::write(&path, newer).unwrap();
    let message = format!("{} has format version 2", path.display());
    fixture.run_fails(
        1,
        &[&message, "supports format version 1", "detach --all"],
        ["set-mode", "shop", "audit"],
    );
    let status = fixture.status();
    assert_eq!(status.policy("shop")["mode"], "enforce");
    assert_eq!(status.policy("shop")["generation"], 1);
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);

    let record = fixture.journal().join("policies/shop.json");
    let mut changed = read(&record);
    changed["version"] = json!(9);
    fs::write(&record, changed.to_string()).unwrap();
    let message = format!("{} has format version 9", record.display());
    fixture.run_fails(1, &[&message, "supports format version 1"], ["status"]);
    fixture.run_ok(["detach", "--all"]);
    assert!(!path.exists());
}

/// State from an earlier boot: nothing is live, and `detach --all` removes it.
#[test]
fn state_of_an_earlier_boot_is_kept_until_detach_all() {
    if !met("state_of_an_earlier_boot_is_kept_until_detach_all", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    attach(&fixture, &cgroup);
    let path = state_file(&fixture);
    let before = fs::read(&path).unwrap();
    fixture.run_ok(["detach", "--all"]);
    fs::write(&path, &before).unwrap();
    assert!(fixture.run_ok(["status"]).contains("no policies attached"));
    fixture.attach(&cgroup, "other", "{default: allow}");
    fixture.run_ok(["detach", "other"]);
    assert_eq!(fs::read(&path).unwrap(), before);
    fixture.run_ok(["detach", "--all"]);
    assert!(!path.exists());
}

/// A state file is complete at any time, and the next command brings it up to date.
#[test]
fn state_is_complete_after_a_kill() {
    if !met("state_is_complete_after_a_kill", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
    attach(&fixture, &cgroup);
    let path = state_file(&fixture);
    for round in 0..40_u64 {
        let mode = ["audit", "enforce"][usize::try_from(round % 2).unwrap()];
        let mut child = fixture
            .command(["set-mode", "shop", mode])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(round));
        let _ = child.kill();
        child.wait().unwrap();
        assert_eq!(read(&path)["text"], TEXT, "round {round}");
        let status = fixture.status();
        let live = status.policy("shop");
        let state = read(&path);
        assert_eq!((&state["mode"], &state["since"]), (&live["mode"], &live["since"]));
    }
}
