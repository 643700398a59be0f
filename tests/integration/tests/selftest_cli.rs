//! `tidegate selftest`: its report for each egress method is what the tests expect, and it leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use integration::{
    cgroup::TestCgroup,
    egress_method::{EgressMethod, EnforcedBy, Family},
    exec::{enter, policy, tidegate},
    kernel::{errno_seen, has_lsm, hook_that_blocks, outcome_of_kill},
    mount_table::mount_of,
    requirement::{Need, met},
    running_command::{CommandOutput, RunningCommand},
    shared_dir::SharedDir,
};
use serde_json::Value;

fn selftest<W: AsRef<OsStr>>(cgroup: &TestCgroup, args: impl IntoIterator<Item = W>) -> CommandOutput {
    let mut all = vec![OsStr::new("selftest").to_owned()];
    all.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
    let mut command = tidegate(all);
    enter(&mut command, cgroup);
    RunningCommand::run(&mut command)
}

/// The exit code when only documented limitations are bypasses.
fn expected_code() -> i32 {
    if has_lsm() { 0 } else { 5 }
}

fn under(spec: &str) -> (CommandOutput, Value) {
    let dir = SharedDir::create();
    let file = dir.write("policy.yaml", &policy("strict", spec));
    let args: [&OsStr; 4] = [
        "--output".as_ref(),
        "json".as_ref(),
        "--policy".as_ref(),
        file.as_ref(),
    ];
    let output = selftest(&TestCgroup::create(), args);
    let report = document(&output);
    (output, report)
}

fn document(output: &CommandOutput) -> Value {
    let read = serde_json::from_str(&output.stdout);
    read.unwrap_or_else(|error| panic!("{error}\n{}\n{}", output.stdout, output.stderr))
}

fn cases(report: &Value) -> &Vec<Value> {
    report["cases"].as_array().unwrap()
}

/// The cases that the kernel supports, without those of an inherited socket.
fn tried(report: &Value) -> Vec<&Value> {
    let is_tried = |case: &&Value| case["result"] != "unsupported" && case["method"] != "inherited-socket";
    let tried: Vec<&Value> = cases(report).iter().filter(is_tried).collect();
    // Supported kernels lack at most MPTCP or UDP-Lite.
    assert!(tried.len() > 50, "{report:#}");
    tried
}

#[test]
fn every_method_is_blocked_by_its_hook() {
    if !met("every_method_is_blocked_by_its_hook", &[Need::Root]) {
        return;
    }
    let output = selftest(&TestCgroup::create(), ["--output", "json"]);
    // Without LSM programs an inherited socket is a documented bypass.
    output.expect_code(expected_code());
    let report = document(&output);
    // `cargo xtask vm --selftest` reads these lines and writes docs/egress-paths.md.
    for case in cases(&report) {
        println!("SELFTEST {case}");
    }
    for case in tried(&report) {
        assert_eq!(case["result"], "blocked", "{case:#}");
        assert_eq!(
            (&case["arrived"], &case["forbidden"]),
            (&0.into(), &true.into()),
            "{case:#}"
        );
        let method: EgressMethod = case["method"].as_str().unwrap().parse().unwrap();
        let family = match case["destination"].as_str().unwrap() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            // Another form of the address: the hook is that of the family that the caller uses.
            "0.0.0.0" | "127.0.0.2" | "metadata service" => Family::V4,
            _ => Family::V6,
        };
        let (hook, errno) = match method.enforced_by() {
            EnforcedBy::Capability if has_lsm() => (method.lsm_hook(), "EHOSTUNREACH"),
            EnforcedBy::Capability => (None, "EPERM"),
            _ => (
                hook_that_blocks(method, family, "EHOSTUNREACH"),
                errno_seen("EHOSTUNREACH"),
            ),
        };
        assert_eq!(case["hook"].as_str(), hook, "{case:#}");
        assert_eq!(case["errno"], errno, "{case:#}");
    }
    let inherited: Vec<&Value> = cases(&report)
        .iter()
        .filter(|case| case["method"] == "inherited-socket")
        .collect();
    assert_eq!(inherited.len(), 2);
    for case in inherited {
        if has_lsm() {
            assert_eq!(
                (case["result"].as_str(), case["hook"].as_str()),
                (Some("blocked"), Some("lsm_sendmsg")),
                "{case:#}"
            );
            continue;
        }
        assert_eq!(
            (case["result"].as_str(), case["known_limitation"].as_bool()),
            (Some("bypass"), Some(true)),
            "{case:#}"
        );
        assert!(
            case["reason"].as_str().unwrap().contains("SECURITY.md"),
            "{case:#}"
        );
    }
    // Every egress method is tested.
    let named: BTreeSet<&str> = cases(&report)
        .iter()
        .filter_map(|case| case["method"].as_str())
        .collect();
    for method in EgressMethod::all() {
        assert!(named.contains(method.name()), "{method:?} is not tried");
    }
}

#[test]
fn custom_policy() {
    if !met("custom_policy", &[Need::Root]) {
        return;
    }
    // The default blocks; a rule allows loopback.
    let (output, report) =
        under("{default: block, rules: [{name: home, action: allow, to: [127.0.0.0/8, \"::1\"]}]}");
    output.expect_code(expected_code());
    assert_eq!(
        (&report["policy"], &report["schema_version"]),
        (&"strict".into(), &1.into())
    );
    for case in tried(&report) {
        let expected = match case["destination"].as_str().unwrap() {
            "0.0.0.0" | "::" | "127.0.0.2" => "allowed",
            _ => "blocked",
        };
        assert_eq!(case["result"], expected, "{case:#}");
    }
}

/// With only the cgroup hooks, an inherited socket is a bypass.
#[test]
fn policy_for_some_hooks() {
    if !met("policy_for_some_hooks", &[Need::Root]) {
        return;
    }
    let (output, report) = under("{default: block, hooks: [cgroup]}");
    output.expect_code(if has_lsm() { 6 } else { 5 });
    for case in cases(&report)
        .iter()
        .filter(|case| case["method"] == "inherited-socket")
    {
        assert_eq!(case["result"], "bypass", "{case:#}");
        assert!(case["arrived"].as_u64().unwrap() > 0, "{case:#}");
    }
    for case in tried(&report).iter().filter(|case| case["method"] != "packet") {
        assert_eq!(case["result"], "blocked", "{case:#}");
    }
}

#[test]
fn policy_that_kills() {
    if !met("policy_that_kills", &[Need::Root]) {
        return;
    }
    let (output, report) = under("{default: kill}");
    output.expect_code(expected_code());
    for case in tried(&report) {
        assert_eq!(case["result"], "blocked", "{case:#}");
        if case["method"] != "packet" {
            assert_eq!(case["outcome"].as_str().unwrap(), outcome_of_kill(), "{case:#}");
        }
    }
}

/// The policy denies nothing, so there is no bypass; everything arrives and is reported.
#[test]
fn audit_policy() {
    if !met("audit_policy", &[Need::Root]) {
        return;
    }
    let (output, report) = under("{mode: audit, default: block}");
    output.expect_code(0);
    for case in tried(&report) {
        assert_eq!(case["forbidden"], false, "{case:#}");
        if case["method"] != "packet" {
            assert_eq!(case["result"], "reported", "{case:#}");
            assert!(case["arrived"].as_u64().unwrap() > 0, "{case:#}");
        }
    }
    let inherited = cases(&report)
        .iter()
        .find(|case| case["method"] == "inherited-socket")
        .unwrap();
    let expected = if has_lsm() { "reported" } else { "allowed" };
    assert_eq!(inherited["result"], expected, "{inherited:#}");
}

#[test]
fn leaves_nothing_behind() {
    if !met("leaves_nothing_behind", &[Need::Root]) {
        return;
    }
    // Pins of its own: the other tests of this program run at the same time.
    let bpffs = mount_of("bpf").unwrap_or_else(|| {
        let mounted = std::process::Command::new("mount")
            .args(["-t", "bpf", "bpf", "/sys/fs/bpf"])
            .status();
        assert!(mounted.unwrap().success());
        "/sys/fs/bpf".into()
    });
    let own = bpffs.join(format!("tidegate-selftest-{}", std::process::id()));
    fs::create_dir(&own).unwrap();
    // The pinned links of any cgroup, by its id.
    let links = || -> BTreeSet<PathBuf> {
        let names = |dir: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let loaded = names(&own.join("tidegate"))
            .into_iter()
            .flat_map(|datapath| names(&datapath.join("links")));
        let is_cgroup = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.parse::<u64>().is_ok())
        };
        loaded.filter(is_cgroup).collect()
    };
    let cgroup = TestCgroup::create();
    let mut command = tidegate(["selftest"]);
    command.env("TIDEGATE_BPFFS", &own);
    enter(&mut command, &cgroup);
    let output = RunningCommand::run(&mut command);
    let left = links();
    let pinned = fs::read_dir(own.join("tidegate")).is_ok_and(|entries| entries.count() > 0);
    fs::remove_dir_all(&own).unwrap();
    output.expect_code(expected_code());
    assert_eq!(cgroup.children(), Vec::<PathBuf>::new());
    assert!(cgroup.processes().is_empty());
    assert!(pinned, "the programs were not pinned where the test looks");
    assert!(left.is_empty(), "{left:?}");
    // The text output.
    assert!(
        output.stdout.contains(" BLOCKED") && output.stdout.contains("BLOCKED, 2 BYPASS") != has_lsm(),
        "{}",
        output.stdout
    );
    assert_eq!(output.stderr, "", "no progress output without a terminal");
}

#[test]
fn invalid_arguments() {
    let mut command = tidegate(["selftest", "--policy", "/nowhere.yaml"]);
    if met("invalid_arguments", &[Need::Root]) {
        RunningCommand::run(&mut command).expect_code(1);
        let dir = SharedDir::create();
        let file = dir.write("policy.yaml", "spec: {}");
        let args = ["selftest".as_ref(), "--policy".as_ref(), file.as_os_str()];
        RunningCommand::run(&mut tidegate(args)).expect_code(3);
    }
    // The hidden command refuses a descriptor that is not open.
    let output = RunningCommand::run(&mut tidegate([
        "selftest-client",
        "--result-fd=99",
        "run",
        "tcp-connect",
        "127.0.0.1:9",
    ]));
    output.expect_code(2);
    assert!(output.stderr.contains("99"), "{}", output.stderr);
}
