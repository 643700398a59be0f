//! Invalid requests change nothing and say what is wrong.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    mount_table::mount_of,
    requirement::{Need, met, tidegate_bin},
    running_command::RunningCommand,
};
use nix::fcntl::{Flock, FlockArg};

/// A policy that denies nothing.
const HARMLESS: &str = "{mode: audit, default: allow}";

/// Nothing is pinned, nothing is recorded.
#[track_caller]
fn expect_nothing(fixture: &AttachFixture) {
    assert!(fixture.status().names().is_empty());
    // A refused first attach does not even create the directory.
    let datapaths = fs::read_dir(fixture.pins().join("tidegate"))
        .into_iter()
        .flatten()
        .flatten();
    let pinned: Vec<_> = datapaths.map(|entry| entry.path().join("links")).collect();
    for links in pinned.iter().filter(|links| links.is_dir()) {
        assert_eq!(fs::read_dir(links).unwrap().count(), 0, "{}", links.display());
    }
}

/// The root cgroup contains all processes of the machine: it is refused without --host, in every form of its path.
#[test]
fn root_cgroup_needs_the_host_flag() {
    if !met("root_cgroup_needs_the_host_flag", &[Need::Root]) {
        return;
    }
    let fixture = AttachFixture::open().with_own_programs();
    let file = fixture.policy("shop", HARMLESS);
    let mount = mount_of("cgroup2").unwrap();
    let mount = mount.to_str().unwrap();
    for root in [
        "/",
        "//",
        "/.",
        mount,
        &format!("{mount}/"),
        &format!("{mount}/."),
    ] {
        fixture.run_fails(
            2,
            &["root cgroup", "--host"],
            ["attach", "--policy", &file, "--cgroup", root],
        );
    }
    let batch = fixture.dir().write("batch", &format!("{file} /\n"));
    fixture.run_fails(
        2,
        &["root cgroup"],
        ["attach", "--batch", batch.to_str().unwrap()],
    );
    expect_nothing(&fixture);
}

#[test]
fn invalid_cgroups() {
    if !met("invalid_cgroups", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    let file = fixture.policy("shop", HARMLESS);
    let own = cgroup.cgroup_path();
    let procs_file = format!("{own}/cgroup.procs");
    let dir = fixture.dir().path().to_str().unwrap();
    let full = cgroup.path().to_str().unwrap();
    let cases = [
        (format!("{own}/missing"), "there is no cgroup"),
        (format!("{own}/../.."), "is not in the cgroup2 hierarchy"),
        (format!("{full}/../../.."), "is not in the cgroup2 hierarchy"),
        (procs_file, "is not in the cgroup2 hierarchy"),
        (dir.to_owned(), "there is no cgroup"),
    ];
    for (path, message) in cases {
        fixture.run_fails(1, &[message], ["attach", "--policy", &file, "--cgroup", &path]);
    }
    fixture.run_fails(2, &["--cgroup"], ["attach", "--policy", &file, "--cgroup", ""]);
    expect_nothing(&fixture);
    // The full path below the mount point is accepted.
    fixture.run_ok(["attach", "--policy", &file, "--cgroup", full]);
    assert_eq!(fixture.status().policy("shop")["attachments"][0]["cgroup"], own);
}

#[test]
fn too_many_policies() {
    if !met("too_many_policies", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    let files: Vec<String> = (0..9)
        .map(|i| fixture.policy(&format!("p{i}"), HARMLESS))
        .collect();
    let own = cgroup.cgroup_path();
    let args = |files: &[String]| {
        let mut args = vec!["attach".to_owned(), "--cgroup".into(), own.clone()];
        args.extend(
            files
                .iter()
                .flat_map(|file| ["--policy".to_owned(), file.clone()]),
        );
        args
    };
    fixture.run_fails(1, &["already has 8 policies"], args(&files));
    expect_nothing(&fixture);
    fixture.run_ok(args(&files[..8]));
    fixture.run_fails(1, &["already has 8 policies"], args(&files[8..]));
    assert_eq!(fixture.status().names().len(), 8);
    // Policies that are already attached do not count again.
    fixture.run_ok(args(&files[..8]));
    fixture.run_ok(["detach", "p3"]);
    fixture.run_ok(args(&files[8..]));
    assert_eq!(fixture.status().states("p8"), ["active"]);
}

/// All lines are attached, or none.
#[test]
fn batch_with_an_invalid_line() {
    if !met("batch_with_an_invalid_line", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    let (file, own) = (fixture.policy("shop", HARMLESS), cgroup.cgroup_path());
    let wrong = fixture.policy("wrong", "{default: perhaps}");
    let run = |lines: &str| {
        let batch = fixture.dir().write("batch", lines);
        fixture.run(["attach", "--batch", batch.to_str().unwrap()])
    };
    let good = format!("# policy cgroup name\n\n{file} {own} one\n");
    for (line, code, message) in [
        (file.clone(), 2, "batch:4: "),
        (format!("{file} {own} two three"), 2, "batch:4: "),
        (format!("{file} {own}/missing two"), 1, "there is no cgroup"),
        (format!("{file}x {own} two"), 1, ".yamlx"),
        (format!("{wrong} {own} two"), 3, "perhaps"),
        (
            format!("{file} {own} one"),
            2,
            "two of the policies are named one",
        ),
        (format!("{file} {own} a/b"), 2, "invalid policy name"),
    ] {
        let output = run(&format!("{good}{line}\n"));
        output.expect_code(code);
        assert!(
            output.stderr.contains(message),
            "no `{message}` in\n{}",
            output.stderr
        );
        expect_nothing(&fixture);
    }
    run(&format!("{good}{file} {own} two\n")).expect_code(0);
    assert_eq!(fixture.status().names(), ["one", "two"]);
}

/// Holds the lock that a command holds while it changes the journal.
fn hold_lock(fixture: &AttachFixture) -> Flock<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(fixture.journal().join("lock"));
    Flock::lock(file.unwrap(), FlockArg::LockExclusive).unwrap()
}

/// A failure after some lines were attached: a cgroup is removed after the command has found it.
#[test]
fn batch_that_fails_halfway() {
    if !met("batch_that_fails_halfway", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    let (first, second, third) = (
        cgroup.child("first"),
        cgroup.child("second"),
        cgroup.child("third"),
    );
    let file = fixture.policy("shop", HARMLESS);
    fixture.attach(&third, "before", HARMLESS);
    let lines = [
        (&third, "one"),
        (&first, "two"),
        (&second, "three"),
        (&third, "four"),
    ];
    let lines = lines.map(|(cgroup, name)| format!("{file} {} {name}\n", cgroup.cgroup_path()));
    let batch = fixture.dir().write("batch", &lines.concat());
    let lock = hold_lock(&fixture);
    let attaching =
        RunningCommand::spawn(&mut fixture.command(["attach", "--batch", batch.to_str().unwrap()]));
    attaching.wait_for_stderr("waiting for process");
    second.remove();
    drop(lock);
    let output = attaching.finish();
    output.expect_code(1);
    assert!(output.stderr.contains(&second.cgroup_path()), "{}", output.stderr);
    let status = fixture.status();
    assert_eq!(status.names(), ["before"], "nothing was changed");
    assert_eq!(status.states("before"), ["active"]);
    assert!(status.0["unknown_cgroups"].as_array().unwrap().is_empty());
}

/// Concurrent commands wait for each other, and all succeed.
#[test]
fn concurrent_commands() {
    if !met("concurrent_commands", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    let names = ["a", "b", "c", "d", "e", "f"];
    let own = cgroup.cgroup_path();
    let running = names.map(|name| {
        let file = fixture.policy(name, HARMLESS);
        RunningCommand::spawn(&mut fixture.command(["attach", "--policy", &file, "--cgroup", &own]))
    });
    for attaching in running {
        attaching.finish().expect_code(0);
    }
    let status = fixture.status();
    assert_eq!(status.names(), names);
    assert!(names.iter().all(|name| status.states(name) == ["active"]));
}

/// Every command fails with a short message and shows nothing about attached policies.
#[test]
fn unprivileged_user() {
    if !met("unprivileged_user", &[Need::Root, Need::Program("setpriv")]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    fixture.attach(&cgroup, "shop", HARMLESS);
    let file = fixture.policy("shop", HARMLESS);
    let program = fixture.dir().copy_program(&tidegate_bin(), "tidegate");
    let own = cgroup.cgroup_path();
    let lines: [&[&str]; 9] = [
        &["attach", "--policy", &file, "--cgroup", &own],
        &["detach", "--all"],
        &["detach", "shop"],
        &["status"],
        &["events"],
        &["set-mode", "shop", "audit"],
        &["apply", "-f", &file],
        &["policy", "show", "shop"],
        &["status", "--rules"],
    ];
    for args in lines {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&program)
            .args(args)
            .env("TIDEGATE_RUN", fixture.journal())
            .env("TIDEGATE_STATE", fixture.state())
            .env("TIDEGATE_BPFFS", fixture.pins());
        let output = RunningCommand::run(&mut command);
        output.expect_code(1);
        assert_eq!(output.stdout, "");
        assert!(
            output.stderr.contains("needs root"),
            "{args:?}: {}",
            output.stderr
        );
        assert!(output.stderr.lines().count() <= 2, "{args:?}: {}", output.stderr);
    }
    assert_eq!(fixture.status().states("shop"), ["active"]);
}

/// A state directory that another user can write to, or a symbolic link, is refused.
#[test]
fn unsafe_journal_permissions() {
    if !met("unsafe_journal_permissions", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    fixture.attach(&cgroup, "shop", HARMLESS);
    let other = fixture.dir().path().join("journal");
    fs::create_dir(&other).unwrap();
    let status = |dir: &std::path::Path| {
        let mut command = fixture.command(["status"]);
        RunningCommand::run(command.env("TIDEGATE_RUN", dir).stdin(Stdio::null()))
    };
    fs::set_permissions(&other, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(status(&other).code(), Some(1));
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&other, Some(65534), None).unwrap();
    assert_eq!(status(&other).code(), Some(1));
    std::os::unix::fs::symlink(fixture.journal(), fixture.dir().path().join("link")).unwrap();
    assert_eq!(status(&fixture.dir().path().join("link")).code(), Some(1));
}
