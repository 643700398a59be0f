//! What is asked wrongly changes nothing, and says what is wrong.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use integration::{
    attached::Stand,
    captured::Captured,
    cgroup::TestCgroup,
    mount_table::mount_of,
    requirement::{Need, met, tidegate_bin},
};
use nix::fcntl::{Flock, FlockArg};

/// What could do no harm wherever it stood.
const HARMLESS: &str = "{mode: audit, default: allow}";

/// Nothing was pinned, nothing was written down.
#[track_caller]
fn expect_nothing(stand: &Stand) {
    assert!(stand.status().names().is_empty());
    let gate = fs::read_dir(stand.pins().join("tidegate")).unwrap().flatten();
    let pinned: Vec<_> = gate.map(|entry| entry.path().join("links")).collect();
    for links in pinned.iter().filter(|links| links.is_dir()) {
        assert_eq!(fs::read_dir(links).unwrap().count(), 0, "{}", links.display());
    }
}

/// The root cgroup is every process of the machine: not by any spelling without --host.
#[test]
fn root_cgroup_needs_the_host_flag() {
    if !met("root_cgroup_needs_the_host_flag", &[Need::Root]) {
        return;
    }
    let stand = Stand::open().of_its_own();
    let file = stand.policy("shop", HARMLESS);
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
        stand.refused(
            2,
            &["root cgroup", "--host"],
            ["attach", "--policy", &file, "--cgroup", root],
        );
    }
    let batch = stand.folder().write("batch", &format!("{file} /\n"));
    stand.refused(
        2,
        &["root cgroup"],
        ["attach", "--batch", batch.to_str().unwrap()],
    );
    expect_nothing(&stand);
}

#[test]
fn invalid_cgroups() {
    if !met("invalid_cgroups", &[Need::Root]) {
        return;
    }
    let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
    let file = stand.policy("shop", HARMLESS);
    let own = cgroup.spelled();
    let members = format!("{own}/cgroup.procs");
    let folder = stand.folder().path().to_str().unwrap();
    let full = cgroup.path().to_str().unwrap();
    let cases = [
        (format!("{own}/missing"), "there is no cgroup"),
        (format!("{own}/../.."), "is not in the cgroup2 hierarchy"),
        (format!("{full}/../../.."), "is not in the cgroup2 hierarchy"),
        (members, "is not in the cgroup2 hierarchy"),
        (folder.to_owned(), "there is no cgroup"),
    ];
    for (path, said) in cases {
        stand.refused(1, &[said], ["attach", "--policy", &file, "--cgroup", &path]);
    }
    stand.refused(2, &["--cgroup"], ["attach", "--policy", &file, "--cgroup", ""]);
    expect_nothing(&stand);
    // In full, as the file system shows it, it is one.
    stand.done(["attach", "--policy", &file, "--cgroup", full]);
    assert_eq!(stand.status().policy("shop")["attachments"][0]["cgroup"], own);
}

#[test]
fn too_many_policies() {
    if !met("too_many_policies", &[Need::Root]) {
        return;
    }
    let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
    let files: Vec<String> = (0..9).map(|i| stand.policy(&format!("p{i}"), HARMLESS)).collect();
    let own = cgroup.spelled();
    let words = |files: &[String]| {
        let mut words = vec!["attach".to_owned(), "--cgroup".into(), own.clone()];
        words.extend(
            files
                .iter()
                .flat_map(|file| ["--policy".to_owned(), file.clone()]),
        );
        words
    };
    stand.refused(1, &["carries 8 policies already"], words(&files));
    expect_nothing(&stand);
    stand.done(words(&files[..8]));
    stand.refused(1, &["carries 8 policies already"], words(&files[8..]));
    assert_eq!(stand.status().names().len(), 8);
    // Those that are there already are no more.
    stand.done(words(&files[..8]));
    stand.done(["detach", "p3"]);
    stand.done(words(&files[8..]));
    assert_eq!(stand.status().states("p8"), ["in force"]);
}

/// All lines, or none.
#[test]
fn batch_with_an_invalid_line() {
    if !met("batch_with_an_invalid_line", &[Need::Root]) {
        return;
    }
    let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
    let (file, own) = (stand.policy("shop", HARMLESS), cgroup.spelled());
    let wrong = stand.policy("wrong", "{default: perhaps}");
    let run = |lines: &str| {
        let batch = stand.folder().write("batch", lines);
        stand.run(["attach", "--batch", batch.to_str().unwrap()])
    };
    let good = format!("# policy cgroup name\n\n{file} {own} one\n");
    for (line, code, said) in [
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
        (format!("{file} {own} a/b"), 2, "cannot be the name of a policy"),
    ] {
        let ended = run(&format!("{good}{line}\n"));
        ended.expect_code(code);
        assert!(ended.stderr.contains(said), "no `{said}` in\n{}", ended.stderr);
        expect_nothing(&stand);
    }
    run(&format!("{good}{file} {own} two\n")).expect_code(0);
    assert_eq!(stand.status().names(), ["one", "two"]);
}

/// Keeps others from the journal, as a command does while it works.
fn hold_lock(stand: &Stand) -> Flock<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(stand.journal().join("lock"));
    Flock::lock(file.unwrap(), FlockArg::LockExclusive).unwrap()
}

/// The same when it turns out only amid the work: here a cgroup goes away after it was found.
#[test]
fn batch_that_fails_halfway() {
    if !met("batch_that_fails_halfway", &[Need::Root]) {
        return;
    }
    let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
    let (first, second, third) = (
        cgroup.child("first"),
        cgroup.child("second"),
        cgroup.child("third"),
    );
    let file = stand.policy("shop", HARMLESS);
    stand.attach(&third, "before", HARMLESS);
    let lines = [
        (&third, "one"),
        (&first, "two"),
        (&second, "three"),
        (&third, "four"),
    ];
    let lines = lines.map(|(cgroup, name)| format!("{file} {} {name}\n", cgroup.spelled()));
    let batch = stand.folder().write("batch", &lines.concat());
    let lock = hold_lock(&stand);
    let attaching = Captured::spawn(&mut stand.command(["attach", "--batch", batch.to_str().unwrap()]));
    attaching.wait_for_stderr("waiting for process");
    second.remove();
    drop(lock);
    let ended = attaching.finish();
    ended.expect_code(1);
    assert!(ended.stderr.contains(&second.spelled()), "{}", ended.stderr);
    let status = stand.status();
    assert_eq!(status.names(), ["before"], "nothing was changed");
    assert_eq!(status.states("before"), ["in force"]);
    assert!(status.0["unknown_cgroups"].as_array().unwrap().is_empty());
}

/// Many at a time wait for one another, and all of them stand.
#[test]
fn concurrent_commands() {
    if !met("concurrent_commands", &[Need::Root]) {
        return;
    }
    let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
    let names = ["a", "b", "c", "d", "e", "f"];
    let own = cgroup.spelled();
    let running = names.map(|name| {
        let file = stand.policy(name, HARMLESS);
        Captured::spawn(&mut stand.command(["attach", "--policy", &file, "--cgroup", &own]))
    });
    for attaching in running {
        attaching.finish().expect_code(0);
    }
    let status = stand.status();
    assert_eq!(status.names(), names);
    assert!(names.iter().all(|name| status.states(name) == ["in force"]));
}

/// One sentence, and nothing of what stands can be seen.
#[test]
fn unprivileged_user() {
    if !met("unprivileged_user", &[Need::Root, Need::Program("setpriv")]) {
        return;
    }
    let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
    stand.attach(&cgroup, "shop", HARMLESS);
    let file = stand.policy("shop", HARMLESS);
    let program = stand.folder().copy_program(&tidegate_bin(), "tidegate");
    let own = cgroup.spelled();
    let lines: [&[&str]; 9] = [
        &["attach", "--policy", &file, "--cgroup", &own],
        &["detach", "--all"],
        &["detach", "shop"],
        &["status"],
        &["events"],
        &["set-mode", "shop", "audit"],
        &["policy", "apply", "-f", &file],
        &["policy", "list"],
        &["policy", "stats"],
    ];
    for words in lines {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&program)
            .args(words)
            .env("TIDEGATE_RUN", stand.journal())
            .env("TIDEGATE_BPFFS", stand.pins());
        let ended = Captured::run(&mut command);
        ended.expect_code(1);
        assert_eq!(ended.stdout, "");
        assert!(ended.stderr.contains("needs root"), "{words:?}: {}", ended.stderr);
        assert!(ended.stderr.lines().count() <= 2, "{words:?}: {}", ended.stderr);
    }
    assert_eq!(stand.status().states("shop"), ["in force"]);
}

/// A journal that somebody else could write to, or that is none, is not used.
#[test]
fn unsafe_journal_permissions() {
    if !met("unsafe_journal_permissions", &[Need::Root]) {
        return;
    }
    let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
    stand.attach(&cgroup, "shop", HARMLESS);
    let other = stand.folder().path().join("journal");
    fs::create_dir(&other).unwrap();
    let status = |folder: &std::path::Path| {
        let mut command = stand.command(["status"]);
        Captured::run(command.env("TIDEGATE_RUN", folder).stdin(Stdio::null()))
    };
    fs::set_permissions(&other, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(status(&other).code(), Some(1));
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::chown(&other, Some(65534), None).unwrap();
    assert_eq!(status(&other).code(), Some(1));
    std::os::unix::fs::symlink(stand.journal(), stand.folder().path().join("link")).unwrap();
    assert_eq!(status(&stand.folder().path().join("link")).code(), Some(1));
}
