//! Migrations out of a cgroup with attached policies are reported, once for each such cgroup. They are compared with
//! `/proc/PID/cgroup`. The programs run for the whole machine, so these tests need a dedicated machine.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, process};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    kernel::{cgroup_hooks_choose_errno, is_dedicated_machine},
    report::{CgroupMigration, Report},
    requirement::{Need, met},
    running_command::RunningCommand,
    scripted_client::ScriptedClient,
    test_client::TestClient,
};
use nix::{
    mount::{MsFlags, mount, umount},
    sys::signal::Signal,
    unistd::Pid,
};

const POLICY: &str = "{default: block}";

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn ready(test: &str) -> bool {
    let alone = Need::Kernel(
        is_dedicated_machine(),
        "the machine is not dedicated to the tests",
    );
    met(test, &[Need::Root, alone])
}

/// Whether a program can be attached again (Linux 5.14), detected as Tidegate does.
fn attaches_again() -> bool {
    cgroup_hooks_choose_errno()
}

fn id(cgroup: &TestCgroup) -> u64 {
    fs::metadata(cgroup.path()).unwrap().ino()
}

#[track_caller]
fn expect_in(pid: Pid, cgroup: &TestCgroup) {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"));
    assert_eq!(path, Some(cgroup.cgroup_path().as_str()));
}

/// Migrates a process as root.
#[track_caller]
fn migrate(process: &ScriptedClient, cgroup: &TestCgroup) {
    cgroup.add_process(process.pid());
    expect_in(process.pid(), cgroup);
}

/// Scope, old cgroup, new cgroup and policies of a migration.
fn summary(migration: &CgroupMigration) -> (String, String, String, Vec<&str>) {
    let text = |path: &Option<String>| path.clone().unwrap_or_default();
    let policies = migration.policies.iter().flatten().map(String::as_str).collect();
    (
        text(&migration.scope),
        text(&migration.from),
        text(&migration.to),
        policies,
    )
}

fn expected<'a>(
    scope: &TestCgroup,
    from: &TestCgroup,
    to: &TestCgroup,
    policies: &[&'a str],
) -> (String, String, String, Vec<&'a str>) {
    (
        scope.cgroup_path(),
        from.cgroup_path(),
        to.cgroup_path(),
        policies.to_vec(),
    )
}

/// The directory of the pinned links, if there is one.
fn links(fixture: &AttachFixture) -> Option<PathBuf> {
    let datapaths = fs::read_dir(fixture.pins().join("tidegate")).ok()?;
    let mut dirs = datapaths.map(|datapath| datapath.unwrap().path().join("links/migration"));
    dirs.find(|dir| dir.is_dir())
}

#[test]
fn migration_by_root() {
    if !ready("migration_by_root") {
        return;
    }
    let (fixture, cgroup, other) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
    fixture.attach(&cgroup, "shop", POLICY);
    fixture.attach(&cgroup, "watch", "{default: audit}");
    // Migrating in is not reported.
    let process = ScriptedClient::start(&test_client(), &cgroup);
    expect_in(process.pid(), &cgroup);
    assert!(fixture.migrations().is_empty());

    migrate(&process, &other);
    let migrations = fixture.migrations();
    let [migrations] = migrations.as_slice() else {
        panic!("one migration, not {migrations:#?}");
    };
    assert_eq!(
        summary(migrations),
        expected(&cgroup, &cgroup, &other, &["shop", "watch"])
    );
    assert_eq!(
        (migrations.scope_id, migrations.from_id, migrations.to_id),
        (id(&cgroup), id(&cgroup), id(&other))
    );
    let pid = process.pid().as_raw();
    assert_eq!(
        (migrations.pid, migrations.tid, migrations.comm.as_str()),
        (pid, pid, "test-client")
    );
    assert!(
        migrations.whole_process && !migrations.clone_into_cgroup,
        "{migrations:?}"
    );
    let us = fs::read_to_string("/proc/thread-self/comm").unwrap();
    let us = us.trim_end();
    assert_eq!(
        (
            migrations.migrated_by.pid,
            migrations.migrated_by.uid,
            migrations.migrated_by.comm.as_str()
        ),
        (process::id() as i32, 0, us)
    );

    // It is under no policy now, so further migrations are not reported.
    let third = TestCgroup::create();
    migrate(&process, &third);
    migrate(&process, &cgroup);
    assert!(fixture.migrations().is_empty());

    // As text, with the name of a policy that has been detached in the meantime.
    migrate(&process, &other);
    fixture.run_ok(["detach", "watch"]);
    let text = fixture.run_ok(["events"]);
    let line = format!(
        "MIGRATED test-client[{pid}] from {} to {} by {us}[{}] uid=0  shop, watch\n",
        cgroup.cgroup_path(),
        other.cgroup_path(),
        process::id()
    );
    assert!(text.ends_with(&line) && text.lines().count() == 1, "{text}");

    // To a follower.
    migrate(&process, &cgroup);
    let follower = RunningCommand::spawn(&mut fixture.command(["events", "--follow", "--output", "json"]));
    migrate(&process, &other);
    let output = follower.wait_for_stdout("\"type\":\"cgroup_migration\"");
    follower.signal(Signal::SIGINT);
    follower.finish();
    assert_eq!(
        summary(&Report::migrations(&output)[0]),
        expected(&cgroup, &cgroup, &other, &["shop"])
    );
    process.quit();
}

/// Migrations within the subtree, into it, and of processes without a policy.
#[test]
fn migrations_that_are_not_reported() {
    if !ready("migrations_that_are_not_reported") {
        return;
    }
    let (fixture, cgroup, other) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
    let (left, right, elsewhere) = (cgroup.child("left"), cgroup.child("right"), other.child("below"));
    fixture.attach(&cgroup, "shop", POLICY);
    let process = ScriptedClient::start(&test_client(), &left);
    for target in [&right, &cgroup, &left, &left] {
        migrate(&process, target);
    }
    let outsider = ScriptedClient::start(&test_client(), &other);
    migrate(&outsider, &elsewhere);
    migrate(&outsider, &right);
    assert!(fixture.migrations().is_empty());

    migrate(&process, &elsewhere);
    migrate(&outsider, &other);
    let migrations: Vec<_> = fixture.migrations();
    assert_eq!(
        migrations.iter().map(summary).collect::<Vec<_>>(),
        [
            expected(&cgroup, &left, &elsewhere, &["shop"]),
            expected(&cgroup, &right, &other, &["shop"])
        ]
    );
    assert_eq!(
        migrations
            .iter()
            .map(|migrations| migrations.pid)
            .collect::<Vec<_>>(),
        [process.pid().as_raw(), outsider.pid().as_raw()]
    );
    process.quit();
    outsider.quit();
}

/// A cgroup v1 hierarchy is independent of cgroup2.
#[test]
fn cgroup_v1_migration_is_not_reported() {
    if !ready("cgroup_v1_migration_is_not_reported") {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
    fixture.attach(&cgroup, "shop", POLICY);
    let process = ScriptedClient::start(&test_client(), &cgroup);
    let pid = process.pid();
    let mounted = tempfile::tempdir().unwrap();
    let (name, options) = ("tidegate-leave", "none,name=tidegate-leave");
    mount(
        Some(name),
        mounted.path(),
        Some("cgroup"),
        MsFlags::empty(),
        Some(options),
    )
    .unwrap();
    let other = mounted.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("cgroup.procs"), pid.to_string()).unwrap();
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(
        memberships.contains(":name=tidegate-leave:/other\n"),
        "{memberships}"
    );
    expect_in(pid, &cgroup);
    assert!(fixture.migrations().is_empty());
    process.quit();
    fs::remove_dir(&other).unwrap();
    umount(mounted.path()).unwrap();
}

/// One event for each cgroup with policies that the process leaves.
#[test]
fn one_event_for_each_nested_cgroup() {
    if !ready("one_event_for_each_nested_cgroup") {
        return;
    }
    let (fixture, outer, other) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
    let middle = outer.child("middle");
    let inner = middle.child("inner");
    fixture.attach(&outer, "above", POLICY);
    fixture.attach(&inner, "below", POLICY);
    let process = ScriptedClient::start(&test_client(), &inner);
    let migrate_to = |to: &TestCgroup| {
        migrate(&process, to);
        fixture.migrations()
    };
    let inner_left = migrate_to(&middle);
    assert_eq!(
        inner_left.iter().map(summary).collect::<Vec<_>>(),
        [expected(&inner, &inner, &middle, &["below"])]
    );
    assert!(migrate_to(&inner).is_empty());
    let both_left = migrate_to(&other);
    assert_eq!(
        both_left.iter().map(summary).collect::<Vec<_>>(),
        [
            expected(&outer, &inner, &other, &["above"]),
            expected(&inner, &inner, &other, &["below"])
        ]
    );
    process.quit();
}

/// In a threaded cgroup single threads can migrate.
#[test]
fn migration_of_one_thread() {
    if !ready("migration_of_one_thread") {
        return;
    }
    let (fixture, whole) = (AttachFixture::open(), TestCgroup::create());
    let (one, other) = (whole.child("one"), whole.child("other"));
    for cgroup in [&one, &other] {
        fs::write(cgroup.path().join("cgroup.type"), "threaded").unwrap();
    }
    fixture.attach(&one, "shop", POLICY);
    let process = ScriptedClient::start(&test_client(), &whole);
    let pid = process.pid();
    for cgroup in [&one, &other] {
        fs::write(cgroup.path().join("cgroup.threads"), pid.to_string()).unwrap();
        expect_in(pid, cgroup);
    }
    let migrations = fixture.migrations();
    assert_eq!(
        migrations.iter().map(summary).collect::<Vec<_>>(),
        [expected(&one, &one, &other, &["shop"])]
    );
    assert!(
        !migrations[0].whole_process && !migrations[0].clone_into_cgroup,
        "{migrations:?}"
    );
    process.quit();
}

/// clone3(2) can create a process in another cgroup.
#[test]
fn clone_into_cgroup() {
    if !ready("clone_into_cgroup") {
        return;
    }
    let (fixture, cgroup, other) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
    let below = cgroup.child("below");
    fixture.attach(&cgroup, "shop", POLICY);
    let mut parent = ScriptedClient::start(&test_client(), &cgroup);
    let clone_into = |parent: &mut ScriptedClient, target: &TestCgroup| {
        parent.succeeds(&format!("clone-into {}", target.path().display()));
        let found = target.processes();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    };
    clone_into(&mut parent, &below);
    assert!(fixture.migrations().is_empty(), "it stays below");

    let child = clone_into(&mut parent, &other);
    let migrations = fixture.migrations();
    assert_eq!(
        migrations.iter().map(summary).collect::<Vec<_>>(),
        [expected(&cgroup, &cgroup, &other, &["shop"])]
    );
    assert_eq!((migrations[0].pid, migrations[0].tid), (child, child));
    assert!(
        migrations[0].clone_into_cgroup && migrations[0].whole_process,
        "{migrations:?}"
    );
    assert_eq!(
        (
            migrations[0].migrated_by.pid,
            migrations[0].migrated_by.comm.as_str()
        ),
        (parent.pid().as_raw(), "test-client")
    );
    parent.quit();

    // Into the scope, and between cgroups without policies.
    let mut outsider = ScriptedClient::start(&test_client(), &other);
    below.wait_until_empty();
    clone_into(&mut outsider, &below);
    let third = TestCgroup::create();
    clone_into(&mut outsider, &third);
    assert!(fixture.migrations().is_empty());
    outsider.quit();
}

/// The programs are attached only while a policy is attached, and restored if they were removed.
#[test]
fn programs_attached_only_while_needed() {
    if !ready("programs_attached_only_while_needed") {
        return;
    }
    let (fixture, cgroup, other) = (
        AttachFixture::open().with_own_programs(),
        TestCgroup::create(),
        TestCgroup::create(),
    );
    fixture.attach(&cgroup, "shop", POLICY);
    fixture.attach(&other, "second", POLICY);
    let status = fixture.status();
    assert_eq!(
        status.0["migration"],
        serde_json::json!([
            {"hook": "cgroup_move", "state": "attached"},
            {"hook": "cgroup_clone", "state": "attached"},
        ])
    );
    assert!(
        status.0["migration_unavailable_reason"].is_null(),
        "{:#}",
        status.0
    );
    assert!(!fixture.run_ok(["status"]).contains("not reported"));

    fixture.run_ok(["detach", "second"]);
    assert!(links(&fixture).is_some(), "the other policy needs the programs");
    let nowhere = TestCgroup::create();
    let migrations_after_leaving = || {
        let process = ScriptedClient::start(&test_client(), &cgroup);
        migrate(&process, &nowhere);
        process.quit();
        fixture.migrations().len()
    };
    fixture.run_ok(["detach", "shop"]);
    assert_eq!(links(&fixture).is_some(), !attaches_again());
    assert_eq!(migrations_after_leaving(), 0);
    fixture.attach(&cgroup, "shop", POLICY);
    assert_eq!(migrations_after_leaving(), 1);

    fs::remove_file(links(&fixture).unwrap().join("cgroup_move")).unwrap();
    let status = fixture.status();
    let why = status.0["migration_unavailable_reason"].as_str().unwrap();
    assert!(why.contains("not attached: cgroup_move"), "{why}");
    assert_eq!(status.policy("shop")["enforcement"], "full");
    let text = fixture.run_ok(["status"]);
    assert!(
        text.contains("cgroup migrations are not reported: not attached: cgroup_move"),
        "{text}"
    );
    // Where a program can be attached only once, the link is not restored, and the policy stays attached.
    fixture.attach(&cgroup, "shop", POLICY);
    assert_eq!(
        fixture.status().0["migration_unavailable_reason"].is_null(),
        attaches_again()
    );
    if attaches_again() {
        assert_eq!(migrations_after_leaving(), 1);
    }
}

/// Without the programs everything else works, and status reports it.
#[test]
fn without_the_migration_programs() {
    if !met("without_the_migration_programs", &[Need::Root]) {
        return;
    }
    let fixture = AttachFixture::open().variable("TIDEGATE_DISABLE", "migration");
    let (cgroup, other) = (TestCgroup::create(), TestCgroup::create());
    fixture.attach(&cgroup, "shop", POLICY);
    let process = ScriptedClient::start(&test_client(), &cgroup);
    migrate(&process, &other);
    assert!(fixture.migrations().is_empty());
    process.quit();
    let status = fixture.status();
    assert_eq!(status.policy("shop")["enforcement"], "full");
    assert_eq!(status.0["migration"], serde_json::json!([]));
    assert_eq!(
        status.0["migration_unavailable_reason"],
        "disabled by TIDEGATE_DISABLE"
    );
    let text = fixture.run_ok(["status"]);
    assert!(
        text.contains("cgroup migrations are not reported: disabled by TIDEGATE_DISABLE"),
        "{text}"
    );
    assert!(links(&fixture).is_none());
}
