//! `tidegate probe`: what it says is held against what the kernel shows by other means, and nothing of it
//! stays. On a machine that others use, nothing is attached that the whole machine calls.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use integration::{
    cgroup::TestCgroup,
    exec::{enter, tidegate},
    kernel::{TRIAL_PROGRAM, cgroup_hooks_choose_errno, cgroup_hooks_kill, chooses_errno, programs_named},
    mount_table::mount_of,
    requirement::{Need, met},
    running_command::{CommandOutput, RunningCommand},
};
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

const MODULES: &str = "/sys/kernel/security/lsm";
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";
const CGROUP_HOOKS: [&str; 7] = [
    "cgroup/connect4",
    "cgroup/connect6",
    "cgroup/sendmsg4",
    "cgroup/sendmsg6",
    "cgroup/sock_create",
    "cgroup/sock_release",
    "cgroup_skb/egress",
];
const LSM_HOOKS: [&str; 5] = [
    "lsm/socket_connect",
    "lsm/socket_sendmsg",
    "lsm/socket_create",
    "lsm/unix_stream_connect",
    "lsm/unix_may_send",
];

/// One probe at a time: another's programs would be taken for left behind.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the machine is the test's own, a virtual one.
fn own_machine() -> bool {
    env::var("TIDEGATE_OWN_MACHINE").is_ok_and(|value| value == "1")
}

fn command(cgroup: &TestCgroup, args: &[&str]) -> Command {
    let mut all = vec!["probe"];
    if !own_machine() {
        all.push("--no-global");
    }
    all.extend(args);
    let mut command = tidegate(all);
    enter(&mut command, cgroup);
    command
}

fn probe(cgroup: &TestCgroup, args: &[&str]) -> CommandOutput {
    RunningCommand::run(&mut command(cgroup, args))
}

fn report(output: &CommandOutput) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
}

fn all(report: &Value) -> Vec<&Value> {
    ["surroundings", "hooks", "helpers", "tables"]
        .iter()
        .flat_map(|group| report[group].as_array().unwrap())
        .collect()
}

#[track_caller]
fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = all(report).into_iter().find(|finding| finding["name"] == name);
    found.unwrap_or_else(|| panic!("nothing is said of {name}"))
}

#[track_caller]
fn expect_answer(report: &Value, name: &str, expected: bool) {
    let finding = finding(report, name);
    assert_eq!(
        finding["answer"],
        if expected { "yes" } else { "no" },
        "{finding:#}"
    );
    // What is refused says why, and what to do.
    if !expected {
        assert!(
            finding["reason"].is_string() && finding["remedy"].is_string(),
            "{finding:#}"
        );
    }
}

#[test]
fn helpers_match_the_kernel() {
    if !met("helpers_match_the_kernel", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let report = report(probe(&TestCgroup::create(), &["--output", "json"]).expect_code(0));
    expect_answer(&report, "bpf_send_signal", cgroup_hooks_kill());
    expect_answer(&report, "bpf_set_retval", cgroup_hooks_choose_errno());
    for (name, works) in [
        ("bpf_send_signal", cgroup_hooks_kill()),
        ("bpf_set_retval", cgroup_hooks_choose_errno()),
    ] {
        let finding = finding(&report, name);
        // The verifier's own words about the helper, not those about how long it took.
        let args = finding["words"].as_str();
        assert_eq!(args.is_none(), works, "{finding:#}");
        assert!(
            args.is_none_or(|args| args.contains("func") || args.contains("helper")),
            "{finding:#}"
        );
    }
    let plan = &report["plan"];
    assert_eq!(plan["enforcement"], "full");
    assert_eq!(
        plan["block_errno"],
        if chooses_errno() { "policy" } else { "EPERM" }
    );
    if cgroup_hooks_kill() {
        assert_eq!(plan["kill"]["when"], "before_return");
        assert_eq!(plan["kill"]["by"], "cgroup_hook");
    } else {
        // The LSM hooks may, where they are called and used.
        let lsm = finding(&report, "lsm/socket_connect");
        let by_lsm = lsm["answer"] == "yes" && lsm["used"] == true;
        assert_eq!(
            plan["kill"]["when"],
            if by_lsm { "before_return" } else { "later" }
        );
    }
}

#[test]
fn cgroup_hooks_are_called() {
    if !met("cgroup_hooks_are_called", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let report = report(probe(&TestCgroup::create(), &["--output", "json"]).expect_code(0));
    for name in CGROUP_HOOKS {
        assert_eq!(finding(&report, name)["reached"], "called", "{name}");
        expect_answer(&report, name, true);
    }
    for name in [
        "ring buffer",
        "maps of different size in a map",
        "cgroup storage by cgroup id",
    ] {
        expect_answer(&report, name, true);
    }
}

/// A program that loads and attaches while `bpf` is no active module is never called: that is no yes.
#[test]
fn lsm_hooks_are_called() {
    if !met("lsm_hooks_are_called", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let report = report(probe(&TestCgroup::create(), &["--output", "json"]).expect_code(0));
    let modules = fs::read_to_string(MODULES).ok();
    match modules {
        Some(modules) if own_machine() => {
            let active = modules.trim().split(',').any(|module| module == "bpf");
            for name in LSM_HOOKS {
                expect_answer(&report, name, active);
                let finding = finding(&report, name);
                assert_eq!(
                    finding["reached"],
                    if active { "called" } else { "attached" },
                    "{finding:#}"
                );
                if !active {
                    let remedy = finding["remedy"].as_str().unwrap();
                    assert!(
                        remedy.starts_with("boot with lsm=") && remedy.ends_with("bpf"),
                        "{remedy}"
                    );
                }
            }
            expect_answer(&report, "bpf among the LSMs", active);
        }
        _ => {
            // Loaded at most, or refused: never told as called.
            for name in LSM_HOOKS {
                let finding = finding(&report, name);
                assert!(
                    finding["reached"] != "called" && finding["reached"] != "attached",
                    "{finding:#}"
                );
            }
        }
    }
}

#[test]
fn global_hooks() {
    if !met("global_hooks", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let report = report(probe(&TestCgroup::create(), &["--output", "json"]).expect_code(0));
    let kprobe = finding(&report, "kprobe/tcp_connect");
    let tracepoints = [
        "raw_tp/inet_sock_set_state",
        "raw_tp/cgroup_mkdir",
        "fentry/cgroup_attach_task",
        "fentry/cgroup_post_fork",
    ];
    if own_machine() {
        expect_answer(&report, "kprobe/tcp_connect", Path::new(KPROBES).exists());
        for name in tracepoints {
            assert_eq!(finding(&report, name)["reached"], "called", "{name}");
        }
        if kprobe["answer"] == "yes" {
            assert_eq!(kprobe["reached"], "called", "{kprobe:#}");
        }
    } else {
        for name in tracepoints {
            let finding = finding(&report, name);
            // A kernel that refuses it says so; that it would work is not tried here.
            let is_refused = name.starts_with("fentry/") && finding["answer"] == "no";
            assert!(is_refused || finding["answer"] == "unknown", "{finding:#}");
        }
        assert_eq!(kprobe["answer"], "unknown", "{kprobe:#}");
        assert_eq!(report["attached"], "own_cgroup");
    }
}

#[test]
fn environment_matches_the_machine() {
    if !met("environment_matches_the_machine", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let report = report(probe(&TestCgroup::create(), &["--output", "json"]).expect_code(0));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(report["kernel"]["release"], release.trim());
    expect_answer(&report, "BTF", Path::new("/sys/kernel/btf/vmlinux").exists());
    expect_answer(&report, "bpffs", mount_of("bpf").is_some());
    expect_answer(&report, "cgroup2", true);
    expect_answer(&report, "capabilities", true);
    let mount = mount_of("cgroup2").unwrap();
    let said = finding(&report, "cgroup2")["reason"].as_str().unwrap();
    assert!(said.ends_with(mount.to_str().unwrap()), "{said}");
}

#[test]
fn cgroup_namespace_is_reported() {
    if !met("cgroup_namespace_is_reported", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let cgroup = TestCgroup::create();
    let mut command = command(&cgroup, &["--output", "json"]);
    // SAFETY: between fork and exec only unshare(2) is called. It comes after the move into the cgroup.
    unsafe { command.pre_exec(|| Ok(unshare(CloneFlags::CLONE_NEWCGROUP)?)) };
    let output = RunningCommand::run(&mut command);
    let report = report(&output);
    expect_answer(&report, "cgroup namespace", false);
    expect_answer(&report, "user namespace", true);
}

/// No program, cgroup or pin.
#[test]
fn leaves_nothing_behind() {
    if !met("leaves_nothing_behind", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let pins = || -> BTreeSet<_> {
        let dir = mount_of("bpf").and_then(|bpffs| fs::read_dir(bpffs.join("tidegate")).ok());
        dir.into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect()
    };
    let before = pins();
    let cgroup = TestCgroup::create();
    probe(&cgroup, &[]).expect_code(0);
    assert_eq!(cgroup.children(), Vec::<std::path::PathBuf>::new());
    assert_eq!(pins(), before);
    // The kernel frees programs some time after the last descriptor is closed, and tells nobody.
    let end = Instant::now() + Duration::from_secs(20);
    while programs_named(TRIAL_PROGRAM) > 0 && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(programs_named(TRIAL_PROGRAM), 0, "programs left");
}

#[test]
fn no_attach_creates_nothing() {
    if !met("no_attach_creates_nothing", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let cgroup = TestCgroup::create();
    // No cgroup may be made in this one at all.
    fs::write(cgroup.path().join("cgroup.max.descendants"), "0").unwrap();
    let report = report(probe(&cgroup, &["--no-attach", "--output", "json"]).expect_code(0));
    assert_eq!(report["attached"], "nothing");
    for hook in report["hooks"].as_array().unwrap() {
        assert!(
            hook["reached"].is_null() || hook["reached"] == "loaded",
            "{hook:#}"
        );
    }
    assert_eq!(finding(&report, "cutting TCP sockets")["answer"], "unknown");
    assert_eq!(report["plan"]["existing_sockets"], Value::Null);
    // With attaching, that the cgroup cannot be made is told, and is no yes of a hook that was called.
    let output = probe(&cgroup, &["--output", "json"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let connect4 = finding(&report, "cgroup/connect4");
    assert!(
        connect4["reason"]
            .as_str()
            .unwrap()
            .contains("cannot make a cgroup"),
        "{connect4:#}"
    );
    assert_eq!(connect4["reached"], "loaded", "{connect4:#}");
}

#[test]
fn unprivileged_user_sees_what_was_not_tried() {
    if !met("unprivileged_user_sees_what_was_not_tried", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    const NOBODY: u32 = 65_534;
    let run = |args: &[&str]| {
        let mut command = tidegate(["probe"].iter().chain(args));
        command.uid(NOBODY).gid(NOBODY);
        RunningCommand::run(&mut command)
    };
    let output = run(&["--output", "json"]);
    output.expect_code(1);
    let report = report(&output);
    expect_answer(&report, "capabilities", false);
    for hook in report["hooks"].as_array().unwrap() {
        assert_eq!(hook["answer"], "unknown", "{hook:#}");
        assert!(hook["remedy"].as_str().unwrap().contains("sudo"), "{hook:#}");
    }
    assert_eq!(report["plan"]["enforcement"], "none");
    let text = run(&[]);
    text.expect_code(1);
    assert!(text.stdout.contains("run it as root"), "{}", text.stdout);
}

#[test]
fn disabled_features_change_the_plan() {
    if !met("disabled_features_change_the_plan", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let cgroup = TestCgroup::create();
    let mut command = command(&cgroup, &["--output", "json"]);
    command.env("TIDEGATE_DISABLE", "send_signal,set_retval,lsm");
    let output = RunningCommand::run(&mut command);
    // Nothing is left that could kill before the call returns.
    output.expect_code(0);
    let report = report(&output);
    expect_answer(&report, "bpf_send_signal", false);
    assert_eq!(report["plan"]["block_errno"], "EPERM");
    assert_eq!(report["plan"]["kill"]["by"], "user_space");
}

#[test]
fn text_matches_json() {
    if !met("text_matches_json", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let cgroup = TestCgroup::create();
    let text = probe(&cgroup, &["--color", "never"]);
    text.expect_code(0);
    // For whoever reads the console of a kernel.
    println!("{}", text.stdout);
    let report = report(probe(&cgroup, &["--output", "json"]).expect_code(0));
    for finding in all(&report) {
        let (name, answer) = (
            finding["name"].as_str().unwrap(),
            finding["answer"].as_str().unwrap(),
        );
        let answer = if answer == "unknown" { "?" } else { answer };
        let reported = text.stdout.lines().any(|line| {
            line.strip_prefix("  ")
                .and_then(|line| line.strip_prefix(name))
                .is_some_and(|rest| rest.split_whitespace().next() == Some(answer))
        });
        assert!(reported, "{name} {answer}\n{}", text.stdout);
        if let Some(remedy) = finding["remedy"].as_str() {
            assert!(text.stdout.contains(remedy), "{remedy}\n{}", text.stdout);
        }
    }
    let kill = match report["plan"]["kill"]["when"].as_str().unwrap() {
        "before_return" => "before the call returns",
        _ => "a moment later",
    };
    let line = text
        .stdout
        .lines()
        .find(|line| line.starts_with("  kill"))
        .unwrap();
    assert!(line.contains(kill), "{line}");
}

/// Programs read it: fields are only ever added.
#[test]
fn json_fields() {
    if !met("json_fields", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let report = report(probe(&TestCgroup::create(), &["--output", "json"]).expect_code(0));
    let has = |value: &Value, fields: &[&str]| {
        for field in fields {
            assert!(value.get(field).is_some(), "{field}: {value:#}");
        }
    };
    has(
        &report,
        &[
            "kernel",
            "attached",
            "surroundings",
            "hooks",
            "helpers",
            "tables",
            "plan",
        ],
    );
    has(&report["kernel"], &["release", "machine"]);
    has(
        &report["plan"],
        &[
            "enforcement",
            "missing",
            "audit_source_port",
            "block_errno",
            "kill",
            "other_families",
            "unix_sockets",
            "packets",
            "moves",
            "existing_sockets",
            "not_used",
        ],
    );
    for finding in all(&report) {
        has(
            finding,
            &[
                "name", "purpose", "answer", "used", "reached", "reason", "errno", "words", "remedy",
            ],
        );
        assert!(
            ["yes", "no", "unknown"]
                .iter()
                .any(|answer| finding["answer"] == *answer),
            "{finding:#}"
        );
    }
    let names: BTreeSet<&str> = all(&report)
        .iter()
        .filter_map(|finding| finding["name"].as_str())
        .collect();
    assert_eq!(names.len(), all(&report).len(), "each thing is told once");
    for name in CGROUP_HOOKS
        .iter()
        .chain(&LSM_HOOKS)
        .chain(&["kprobe/tcp_connect", "cutting UDP sockets"])
    {
        assert!(names.contains(name), "{name}");
    }
}
