//! Cgroup names from users of delegated subtrees are escaped in the output; pins and journal are readable by root only.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::Family,
    namespace::Namespace,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

/// Escape sequences for colour (7-bit and 8-bit) and window title, and a bidirectional override.
const EVIL: &str = "\u{1b}[45m\u{1b}]0;evil\u{7}\u{9b}45m\u{202e}";

#[test]
fn cgroup_names_are_escaped() {
    if !met("cgroup_names_are_escaped", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let evil = cgroup.child(EVIL);
        let unit = format!("tgtest-{}.service", std::process::id());
        let (_one, _two) = (evil.child(&unit), cgroup.child(&unit));
        let mut process = ScriptedClient::start(&TestClient::at(env!("CARGO_BIN_EXE_test-client")), &evil);
        let (file, pid) = (
            fixture.policy("shop", "{default: block}"),
            process.pid().to_string(),
        );
        let clean = |args: &[&str]| {
            // Without a terminal, colours would be stripped.
            let args = [args, &["--color", "always"]].concat();
            let output = fixture.run(&args);
            for text in [&output.stdout, &output.stderr] {
                let raw = ["\u{1b}[45m", "\u{7}", "\u{9b}", "\u{202e}"]
                    .iter()
                    .any(|raw| text.contains(raw));
                assert!(!raw, "{args:?}: {text:?}");
            }
            (output.stdout, output.stderr)
        };
        clean(&["attach", "--policy", &file, "--unit", &unit]);
        let (printed, _) = clean(&["attach", "--policy", &file, "--pid", &pid]);
        assert!(printed.contains("attached policy shop to"), "{printed}");
        process.fails(
            &format!("run udp-sendto {}:9", Namespace::near(Family::V4)),
            "EPERM",
        );
        process.fails(
            &format!("run udp-sendto {}:9", Namespace::far(Family::V4)),
            "EPERM",
        );
        let (events, _) = clean(&["events"]);
        assert!(events.contains("198.51.100.1:9"), "{events}");
        for args in [
            &["status"][..],
            &["status", "--output", "json"],
            &["events", "--output", "json"],
            &["status", "--rules"],
            &["policy", "show", "shop", "--output", "json"],
            &["detach", "shop", "--cgroup", "/missing"],
            &["detach", "shop", "--cgroup", &cgroup.cgroup_path()],
            &["detach", "shop", "--pid", &pid],
        ] {
            clean(args);
        }
        assert!(fixture.status().names().is_empty());
        process.quit();
    });
}

/// Other users cannot read the directories of pins and journal, nor write their files.
#[test]
fn pins_and_journal_are_private() {
    if !met("pins_and_journal_are_private", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
    fixture.attach(&cgroup, "shop", "{default: block}");
    fixture.run_ok(["detach", "shop"]);
    fixture.attach(&cgroup, "shop", "{default: block}");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut left = vec![fixture.pins().join("tidegate"), fixture.journal().to_owned()];
    let mut seen = 0;
    while let Some(dir) = left.pop() {
        assert_eq!(mode(&dir), 0o700, "{}", dir.display());
        for entry in fs::read_dir(&dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else {
                assert_eq!(mode(&path) & 0o022, 0, "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "programs, maps, links and records");
}
