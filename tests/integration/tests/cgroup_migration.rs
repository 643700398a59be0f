//! Processes that leave a cgroup which carries policies are told, once for each cgroup that they leave. The kernel's
//! own word on where a process is (`/proc/PID/cgroup`, `cgroup.procs`) is the truth. The programs run for the whole
//! machine, so these tests are for machines of their own.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf, process};

use integration::{
    attached::Stand,
    captured::Captured,
    cgroup::TestCgroup,
    kernel::{cgroup_hooks_choose_errno, is_whole_machine},
    report::{Move, Report},
    requirement::{Need, met},
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
    let alone = Need::Kernel(is_whole_machine(), "the machine is not the tests' alone");
    met(test, &[Need::Root, alone])
}

/// Before Linux 5.14 a program attaches once in its life; told as Tidegate does.
fn attaches_again() -> bool {
    cgroup_hooks_choose_errno()
}

fn id(cgroup: &TestCgroup) -> u64 {
    fs::metadata(cgroup.path()).unwrap().ino()
}

#[track_caller]
fn expect_in(pid: Pid, cgroup: &TestCgroup) {
    let told = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = told.lines().find_map(|line| line.strip_prefix("0::"));
    assert_eq!(path, Some(cgroup.spelled().as_str()));
}

/// Moves a process as root, and looks whether it is there.
#[track_caller]
fn put(process: &ScriptedClient, cgroup: &TestCgroup) {
    cgroup.take_in(process.pid());
    expect_in(process.pid(), cgroup);
}

/// What was told, in short: the cgroup with the policies, where it was, where it is, and the policies.
fn paths(told: &Move) -> (String, String, String, Vec<&str>) {
    let text = |path: &Option<String>| path.clone().unwrap_or_default();
    let policies = told.policies.iter().flatten().map(String::as_str).collect();
    (text(&told.scope), text(&told.from), text(&told.to), policies)
}

fn expected<'a>(
    scope: &TestCgroup,
    from: &TestCgroup,
    to: &TestCgroup,
    policies: &[&'a str],
) -> (String, String, String, Vec<&'a str>) {
    (scope.spelled(), from.spelled(), to.spelled(), policies.to_vec())
}

/// The folder of the pinned links, if there is one.
fn links(stand: &Stand) -> Option<PathBuf> {
    let gates = fs::read_dir(stand.pins().join("tidegate")).ok()?;
    let mut folders = gates.map(|gate| gate.unwrap().path().join("links/moves"));
    folders.find(|folder| folder.is_dir())
}

#[test]
fn migration_by_root() {
    if !ready("migration_by_root") {
        return;
    }
    let (stand, cgroup, other) = (Stand::open(), TestCgroup::create(), TestCgroup::create());
    stand.attach(&cgroup, "shop", POLICY);
    stand.attach(&cgroup, "watch", "{default: audit}");
    // It moves in, which is nothing to tell.
    let process = ScriptedClient::start(&test_client(), &cgroup);
    expect_in(process.pid(), &cgroup);
    assert!(stand.moves().is_empty());

    put(&process, &other);
    let told = stand.moves();
    let [told] = told.as_slice() else {
        panic!("one move, not {told:#?}");
    };
    assert_eq!(
        paths(told),
        expected(&cgroup, &cgroup, &other, &["shop", "watch"])
    );
    assert_eq!(
        (told.scope_id, told.from_id, told.to_id),
        (id(&cgroup), id(&cgroup), id(&other))
    );
    let pid = process.pid().as_raw();
    assert_eq!(
        (told.pid, told.tid, told.comm.as_str()),
        (pid, pid, "test-client")
    );
    assert!(told.whole_process && !told.born, "{told:?}");
    let us = fs::read_to_string("/proc/thread-self/comm").unwrap();
    let us = us.trim_end();
    assert_eq!(
        (told.by.pid, told.by.uid, told.by.comm.as_str()),
        (process::id() as i32, 0, us)
    );

    // It is under no policy any more, so what it does is nobody's business; nor does it leave a second time.
    let third = TestCgroup::create();
    put(&process, &third);
    put(&process, &cgroup);
    assert!(stand.moves().is_empty());

    // As text, once more, with the names of what was taken away meanwhile.
    put(&process, &other);
    stand.done(["detach", "watch"]);
    let text = stand.done(["events"]);
    let line = format!(
        "MOVED test_client[{pid}] left {} for {}, by {us}[{}] uid 0  shop, watch\n",
        cgroup.spelled(),
        other.spelled(),
        process::id()
    );
    assert!(text.ends_with(&line) && text.lines().count() == 1, "{text}");

    // To a reader who waits, among attempts.
    put(&process, &cgroup);
    let follower = Captured::spawn(&mut stand.command(["events", "--follow", "--output", "json"]));
    put(&process, &other);
    let told = follower.wait_for_stdout("\"type\":\"move\"");
    follower.signal(Signal::SIGINT);
    follower.finish();
    assert_eq!(
        paths(&Report::moves(&told)[0]),
        expected(&cgroup, &cgroup, &other, &["shop"])
    );
    process.goes_home();
}

/// Neither is it told when a process stays below, comes in, or has nothing to do with any policy.
#[test]
fn migrations_that_are_not_reported() {
    if !ready("migrations_that_are_not_reported") {
        return;
    }
    let (stand, cgroup, other) = (Stand::open(), TestCgroup::create(), TestCgroup::create());
    let (left, right, elsewhere) = (cgroup.child("left"), cgroup.child("right"), other.child("below"));
    stand.attach(&cgroup, "shop", POLICY);
    let process = ScriptedClient::start(&test_client(), &left);
    for place in [&right, &cgroup, &left, &left] {
        put(&process, place);
    }
    let stranger = ScriptedClient::start(&test_client(), &other);
    put(&stranger, &elsewhere);
    put(&stranger, &right);
    assert!(stand.moves().is_empty());

    put(&process, &elsewhere);
    put(&stranger, &other);
    let told: Vec<_> = stand.moves();
    assert_eq!(
        told.iter().map(paths).collect::<Vec<_>>(),
        [
            expected(&cgroup, &left, &elsewhere, &["shop"]),
            expected(&cgroup, &right, &other, &["shop"])
        ]
    );
    assert_eq!(
        told.iter().map(|told| told.pid).collect::<Vec<_>>(),
        [process.pid().as_raw(), stranger.pid().as_raw()]
    );
    process.goes_home();
    stranger.goes_home();
}

/// A hierarchy of the first version has cgroups of its own: a process is in one of each.
#[test]
fn cgroup_v1_migration_is_not_reported() {
    if !ready("cgroup_v1_migration_is_not_reported") {
        return;
    }
    let (stand, cgroup) = (Stand::open(), TestCgroup::create());
    stand.attach(&cgroup, "shop", POLICY);
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
    let places = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(places.contains(":name=tidegate-leave:/other\n"), "{places}");
    expect_in(pid, &cgroup);
    assert!(stand.moves().is_empty());
    process.goes_home();
    fs::remove_dir(&other).unwrap();
    umount(mounted.path()).unwrap();
}

/// One line for each cgroup with policies that is left.
#[test]
fn one_event_for_each_nested_cgroup() {
    if !ready("one_event_for_each_nested_cgroup") {
        return;
    }
    let (stand, outer, other) = (Stand::open(), TestCgroup::create(), TestCgroup::create());
    let middle = outer.child("middle");
    let inner = middle.child("inner");
    stand.attach(&outer, "above", POLICY);
    stand.attach(&inner, "below", POLICY);
    let process = ScriptedClient::start(&test_client(), &inner);
    let told = |to: &TestCgroup| {
        put(&process, to);
        stand.moves()
    };
    let inner_left = told(&middle);
    assert_eq!(
        inner_left.iter().map(paths).collect::<Vec<_>>(),
        [expected(&inner, &inner, &middle, &["below"])]
    );
    assert!(told(&inner).is_empty());
    let both_left = told(&other);
    assert_eq!(
        both_left.iter().map(paths).collect::<Vec<_>>(),
        [
            expected(&outer, &inner, &other, &["above"]),
            expected(&inner, &inner, &other, &["below"])
        ]
    );
    process.goes_home();
}

/// In a threaded cgroup threads move one at a time.
#[test]
fn migration_of_one_thread() {
    if !ready("migration_of_one_thread") {
        return;
    }
    let (stand, whole) = (Stand::open(), TestCgroup::create());
    let (one, other) = (whole.child("one"), whole.child("other"));
    for cgroup in [&one, &other] {
        fs::write(cgroup.path().join("cgroup.type"), "threaded").unwrap();
    }
    stand.attach(&one, "shop", POLICY);
    let process = ScriptedClient::start(&test_client(), &whole);
    let pid = process.pid();
    for cgroup in [&one, &other] {
        fs::write(cgroup.path().join("cgroup.threads"), pid.to_string()).unwrap();
        expect_in(pid, cgroup);
    }
    let told = stand.moves();
    assert_eq!(
        told.iter().map(paths).collect::<Vec<_>>(),
        [expected(&one, &one, &other, &["shop"])]
    );
    assert!(!told[0].whole_process && !told[0].born, "{told:?}");
    process.goes_home();
}

/// clone3(2) puts a process elsewhere from its beginning.
#[test]
fn clone_into_cgroup() {
    if !ready("clone_into_cgroup") {
        return;
    }
    let (stand, cgroup, other) = (Stand::open(), TestCgroup::create(), TestCgroup::create());
    let below = cgroup.child("below");
    stand.attach(&cgroup, "shop", POLICY);
    let mut parent = ScriptedClient::start(&test_client(), &cgroup);
    let born = |parent: &mut ScriptedClient, place: &TestCgroup| {
        parent.succeeds(&format!("born {}", place.path().display()));
        let found = place.processes();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]
    };
    born(&mut parent, &below);
    assert!(stand.moves().is_empty(), "it stays below");

    let child = born(&mut parent, &other);
    let told = stand.moves();
    assert_eq!(
        told.iter().map(paths).collect::<Vec<_>>(),
        [expected(&cgroup, &cgroup, &other, &["shop"])]
    );
    assert_eq!((told[0].pid, told[0].tid), (child, child));
    assert!(told[0].born && told[0].whole_process, "{told:?}");
    assert_eq!(
        (told[0].by.pid, told[0].by.comm.as_str()),
        (parent.pid().as_raw(), "test-client")
    );
    parent.goes_home();

    // From outside to the inside, and from nowhere to nowhere.
    let mut stranger = ScriptedClient::start(&test_client(), &other);
    below.wait_until_empty();
    born(&mut stranger, &below);
    let third = TestCgroup::create();
    born(&mut stranger, &third);
    assert!(stand.moves().is_empty());
    stranger.goes_home();
}

/// The programs are attached while some policy stands, and are put back where somebody has taken them away.
#[test]
fn programs_attached_only_while_needed() {
    if !ready("programs_attached_only_while_needed") {
        return;
    }
    let (stand, cgroup, other) = (
        Stand::open().of_its_own(),
        TestCgroup::create(),
        TestCgroup::create(),
    );
    stand.attach(&cgroup, "shop", POLICY);
    stand.attach(&other, "second", POLICY);
    let status = stand.status();
    assert_eq!(
        status.0["moves"],
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
    assert!(!stand.done(["status"]).contains("not reported"));

    stand.done(["detach", "second"]);
    assert!(links(&stand).is_some(), "the other needs them");
    let nowhere = TestCgroup::create();
    let leaves = || {
        let process = ScriptedClient::start(&test_client(), &cgroup);
        put(&process, &nowhere);
        process.goes_home();
        stand.moves().len()
    };
    stand.done(["detach", "shop"]);
    assert_eq!(links(&stand).is_some(), !attaches_again());
    assert_eq!(leaves(), 0);
    stand.attach(&cgroup, "shop", POLICY);
    assert_eq!(leaves(), 1);

    fs::remove_file(links(&stand).unwrap().join("cgroup_move")).unwrap();
    let status = stand.status();
    let why = status.0["migration_unavailable_reason"].as_str().unwrap();
    assert!(why.contains("not attached: cgroup_move"), "{why}");
    assert_eq!(status.policy("shop")["enforcement"], "full");
    let text = stand.done(["status"]);
    assert!(
        text.contains("not reported here: not attached: cgroup_move"),
        "{text}"
    );
    // A kernel that attaches a program once in its life leaves it at that, and the policy stands.
    stand.attach(&cgroup, "shop", POLICY);
    assert_eq!(
        stand.status().0["migration_unavailable_reason"].is_null(),
        attaches_again()
    );
    if attaches_again() {
        assert_eq!(leaves(), 1);
    }
}

/// Without the programs all else is as it was, and it is said.
#[test]
fn without_the_migration_programs() {
    if !met("without_the_migration_programs", &[Need::Root]) {
        return;
    }
    let stand = Stand::open().variable("TIDEGATE_DISABLE", "moves");
    let (cgroup, other) = (TestCgroup::create(), TestCgroup::create());
    stand.attach(&cgroup, "shop", POLICY);
    let process = ScriptedClient::start(&test_client(), &cgroup);
    put(&process, &other);
    assert!(stand.moves().is_empty());
    process.goes_home();
    let status = stand.status();
    assert_eq!(status.policy("shop")["enforcement"], "full");
    assert_eq!(status.0["moves"], serde_json::json!([]));
    assert_eq!(
        status.0["migration_unavailable_reason"],
        "TIDEGATE_DISABLE takes them away"
    );
    let text = stand.done(["status"]);
    assert!(
        text.contains("processes that leave a cgroup are not reported here: TIDEGATE_DISABLE"),
        "{text}"
    );
    assert!(links(&stand).is_none());
}
