//! `tidegate probe`: its findings are compared with other sources, and it leaves nothing behind. On a machine with other
//! users it does not attach programs that the whole machine calls.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

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

/// One probe at a time: programs of another one would look like leftovers.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the machine is dedicated to the tests (virtual).
fn is_dedicated() -> bool {
    env::var("TIDEGATE_OWN_MACHINE").is_ok_and(|value| value == "1")
}

fn command(cgroup: &TestCgroup, args: &[&str]) -> Command {
    let mut all = vec!["probe"];
    if !is_dedicated() {
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
    ["environment", "hooks", "helpers", "maps", "sockets"]
        .iter()
        .flat_map(|group| report[group].as_array().unwrap())
        .collect()
}

#[track_caller]
fn finding<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = all(report).into_iter().find(|finding| finding["name"] == name);
    found.unwrap_or_else(|| panic!("no finding {name}"))
}

#[track_caller]
fn expect_support(report: &Value, name: &str, expected: bool) {
    let finding = finding(report, name);
    assert_eq!(
        finding["support"],
        if expected { "yes" } else { "no" },
        "{finding:#}"
    );
    // An unsupported feature has a reason and a hint.
    if !expected {
        assert!(
            finding["reason"].is_string() && finding["hint"].is_string(),
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
    expect_support(&report, "bpf_send_signal", cgroup_hooks_kill());
    expect_support(&report, "bpf_set_retval", cgroup_hooks_choose_errno());
    for (name, works) in [
        ("bpf_send_signal", cgroup_hooks_kill()),
        ("bpf_set_retval", cgroup_hooks_choose_errno()),
    ] {
        let finding = finding(&report, name);
        // The line of the verifier log about the helper, not the statistics.
        let log = finding["verifier_log"].as_str();
        assert_eq!(log.is_none(), works, "{finding:#}");
        assert!(
            log.is_none_or(|log| log.contains("func") || log.contains("helper")),
            "{finding:#}"
        );
    }
    let plan = &report["plan"];
    assert_eq!(plan["enforcement"], "full");
    assert_eq!(
        plan["block_errno"],
        if chooses_errno() { "policy" } else { "eperm" }
    );
    if cgroup_hooks_kill() {
        assert_eq!(plan["kill"]["when"], "before_return");
        assert_eq!(plan["kill"]["by"], "cgroup_hook");
    } else {
        // LSM programs can kill if they are called and used.
        let lsm = finding(&report, "lsm/socket_connect");
        let by_lsm = lsm["support"] == "yes" && lsm["used"] == true;
        assert_eq!(
            plan["kill"]["when"],
            if by_lsm { "before_return" } else { "after_return" }
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
        expect_support(&report, name, true);
    }
    for name in [
        "ring buffer",
        "maps of different size in a map",
        "cgroup storage by cgroup id",
    ] {
        expect_support(&report, name, true);
    }
}

/// A program that loads and attaches while `bpf` is not an active module is never called: not supported.
#[test]
fn lsm_hooks_are_called() {
    if !met("lsm_hooks_are_called", &[Need::Root]) {
        return;
    }
    let _alone = alone();
    let report = report(probe(&TestCgroup::create(), &["--output", "json"]).expect_code(0));
    let modules = fs::read_to_string(MODULES).ok();
    match modules {
        Some(modules) if is_dedicated() => {
            let active = modules.trim().split(',').any(|module| module == "bpf");
            for name in LSM_HOOKS {
                expect_support(&report, name, active);
                let finding = finding(&report, name);
                assert_eq!(
                    finding["reached"],
                    if active { "called" } else { "attached" },
                    "{finding:#}"
                );
                if !active {
                    let hint = finding["hint"].as_str().unwrap();
                    assert!(
                        hint.starts_with("boot with lsm=") && hint.ends_with("bpf"),
                        "{hint}"
                    );
                }
            }
            expect_support(&report, "bpf security module", active);
        }
        _ => {
            // At most loaded, never called.
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
    if is_dedicated() {
        expect_support(&report, "kprobe/tcp_connect", Path::new(KPROBES).exists());
        for name in tracepoints {
            assert_eq!(finding(&report, name)["reached"], "called", "{name}");
        }
        if kprobe["support"] == "yes" {
            assert_eq!(kprobe["reached"], "called", "{kprobe:#}");
        }
    } else {
        for name in tracepoints {
            let finding = finding(&report, name);
            // A refused program is unsupported; otherwise it is not attached here, so unknown.
            let is_refused = name.starts_with("fentry/") && finding["support"] == "no";
            assert!(is_refused || finding["support"] == "unknown", "{finding:#}");
        }
        assert_eq!(kprobe["support"], "unknown", "{kprobe:#}");
        assert_eq!(report["attach_scope"], "own_cgroup");
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
    expect_support(&report, "BTF", Path::new("/sys/kernel/btf/vmlinux").exists());
    expect_support(&report, "bpffs", mount_of("bpf").is_some());
    expect_support(&report, "cgroup2", true);
    expect_support(&report, "capabilities", true);
    let mount = mount_of("cgroup2").unwrap();
    let reason = finding(&report, "cgroup2")["reason"].as_str().unwrap();
    assert!(reason.ends_with(mount.to_str().unwrap()), "{reason}");
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
    expect_support(&report, "cgroup namespace", false);
    expect_support(&report, "user namespace", true);
}

/// No program, cgroup or pin is left.
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
    // The kernel frees programs asynchronously after the last descriptor is closed.
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
    // No child cgroup may be created here.
    fs::write(cgroup.path().join("cgroup.max.descendants"), "0").unwrap();
    let report = report(probe(&cgroup, &["--no-attach", "--output", "json"]).expect_code(0));
    assert_eq!(report["attach_scope"], "none");
    for hook in report["hooks"].as_array().unwrap() {
        assert!(
            hook["reached"].is_null() || hook["reached"] == "loaded",
            "{hook:#}"
        );
    }
    assert_eq!(finding(&report, "destroying TCP sockets")["support"], "unknown");
    assert_eq!(report["plan"]["destroy_sockets"], Value::Null);
    // With attaching, the failure to create a cgroup is reported, and the hook does not count as called.
    let output = probe(&cgroup, &["--output", "json"]);
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let connect4 = finding(&report, "cgroup/connect4");
    assert!(
        connect4["reason"]
            .as_str()
            .unwrap()
            .contains("cannot create a cgroup"),
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
    const UNPRIVILEGED_UID: u32 = 65_534;
    let run = |args: &[&str]| {
        let mut command = tidegate(["probe"].iter().chain(args));
        command.uid(UNPRIVILEGED_UID).gid(UNPRIVILEGED_UID);
        RunningCommand::run(&mut command)
    };
    let output = run(&["--output", "json"]);
    output.expect_code(1);
    let report = report(&output);
    expect_support(&report, "capabilities", false);
    for hook in report["hooks"].as_array().unwrap() {
        assert_eq!(hook["support"], "unknown", "{hook:#}");
        assert!(hook["hint"].as_str().unwrap().contains("sudo"), "{hook:#}");
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
    let run = |args: &[&str]| {
        let mut command = command(&cgroup, args);
        command.env("TIDEGATE_DISABLE", "send_signal,set_retval,lsm");
        RunningCommand::run(&mut command)
    };
    let output = run(&["--output", "json"]);
    // Nothing can kill before the call returns.
    output.expect_code(0);
    let report = report(&output);
    expect_support(&report, "bpf_send_signal", false);
    assert_eq!(report["plan"]["block_errno"], "eperm");
    assert_eq!(report["plan"]["kill"]["by"], "user_space");
    let unmet = report["plan"]["unmet"].as_array().unwrap();
    for feature in ["lsm_hooks", "families", "unix_sockets", "kill", "errno"] {
        assert!(unmet.iter().any(|one| one["feature"] == feature), "{unmet:#?}");
    }
    // In the form in which `attach` and `exec` refuse such a policy.
    let text = run(&["--color", "never"]);
    for one in unmet {
        let [feature, reason, effect] = ["feature", "reason", "effect"].map(|key| one[key].as_str().unwrap());
        let line = format!("  {feature}: {reason}; {effect}\n      hint: ");
        assert!(text.stdout.contains(&line), "{line}\n{}", text.stdout);
    }
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
    // For the console log of a virtual machine.
    println!("{}", text.stdout);
    let report = report(probe(&cgroup, &["--output", "json"]).expect_code(0));
    for finding in all(&report) {
        let (name, support) = (
            finding["name"].as_str().unwrap(),
            finding["support"].as_str().unwrap(),
        );
        let support = if support == "unknown" { "?" } else { support };
        let is_shown = text.stdout.lines().any(|line| {
            line.strip_prefix("  ")
                .and_then(|line| line.strip_prefix(name))
                .is_some_and(|rest| rest.split_whitespace().next() == Some(support))
        });
        assert!(is_shown, "{name} {support}\n{}", text.stdout);
        if let Some(hint) = finding["hint"].as_str() {
            assert!(text.stdout.contains(hint), "{hint}\n{}", text.stdout);
        }
    }
    let kill = match report["plan"]["kill"]["when"].as_str().unwrap() {
        "before_return" => "before the call returns",
        _ => "after the call returns",
    };
    let line = text
        .stdout
        .lines()
        .find(|line| line.starts_with("  kill"))
        .unwrap();
    assert!(line.contains(kill), "{line}");
}

/// Fields of the document may be added, not removed.
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
            "schema_version",
            "attach_scope",
            "environment",
            "hooks",
            "helpers",
            "maps",
            "sockets",
            "plan",
        ],
    );
    has(&report["kernel"], &["release", "machine"]);
    has(
        &report["plan"],
        &[
            "enforcement",
            "missing",
            "audit_local_port",
            "block_errno",
            "kill",
            "other_families",
            "unix_sockets",
            "egress_filter",
            "cgroup_migrations",
            "destroy_sockets",
            "unmet",
            "unused_hooks",
        ],
    );
    for finding in all(&report) {
        has(
            finding,
            &[
                "name",
                "purpose",
                "support",
                "used",
                "reached",
                "reason",
                "errno",
                "verifier_log",
                "hint",
            ],
        );
        assert!(
            ["yes", "no", "unknown"]
                .iter()
                .any(|support| finding["support"] == *support),
            "{finding:#}"
        );
    }
    let names: BTreeSet<&str> = all(&report)
        .iter()
        .filter_map(|finding| finding["name"].as_str())
        .collect();
    assert_eq!(names.len(), all(&report).len(), "names are unique");
    for name in CGROUP_HOOKS
        .iter()
        .chain(&LSM_HOOKS)
        .chain(&["kprobe/tcp_connect", "destroying UDP sockets"])
    {
        assert!(names.contains(name), "{name}");
    }
}
