//! `tidegate selftest`, from the outside: what it says of each way is what the tests know of it, and nothing
//! stays.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

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
    all.extend(args.into_iter().map(|word| word.as_ref().to_owned()));
    let mut command = tidegate(all);
    enter(&mut command, cgroup);
    RunningCommand::run(&mut command)
}

/// What it ends with where nothing is open but what must be.
fn open_code() -> i32 {
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

fn lines(report: &Value) -> &Vec<Value> {
    report["ways"].as_array().unwrap()
}

/// Those that this kernel has, by sockets that are made inside.
fn tried(report: &Value) -> Vec<&Value> {
    let there = |line: &&Value| line["status"] != "not_here" && line["method"] != "older-socket";
    let tried: Vec<&Value> = lines(report).iter().filter(there).collect();
    // No kernel of ours lacks more than MPTCP or UDP-Lite.
    assert!(tried.len() > 50, "{report:#}");
    tried
}

#[test]
fn every_method_is_blocked_by_its_hook() {
    if !met("every_method_is_blocked_by_its_hook", &[Need::Root]) {
        return;
    }
    let output = selftest(&TestCgroup::create(), ["--output", "json"]);
    // Sockets from outside are a way that is known to be open where no LSM programs run.
    output.expect_code(open_code());
    let report = document(&output);
    // `cargo xtask vm --selftest` makes docs/egress-paths.md of these.
    for line in lines(&report) {
        println!("SELFTEST {line}");
    }
    for line in tried(&report) {
        assert_eq!(line["status"], "blocked", "{line:#}");
        assert_eq!(
            (&line["arrived"], &line["forbidden"]),
            (&0.into(), &true.into()),
            "{line:#}"
        );
        let method: EgressMethod = line["method"].as_str().unwrap().parse().unwrap();
        let family = match line["destination"].as_str().unwrap() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            // Another spelling: the hook is that of the caller's.
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
        assert_eq!(line["hook"].as_str(), hook, "{line:#}");
        assert_eq!(line["errno"], errno, "{line:#}");
    }
    let older: Vec<&Value> = lines(&report)
        .iter()
        .filter(|line| line["method"] == "older-socket")
        .collect();
    assert_eq!(older.len(), 2);
    for line in older {
        if has_lsm() {
            assert_eq!(
                (line["status"].as_str(), line["hook"].as_str()),
                (Some("blocked"), Some("lsm_sendmsg")),
                "{line:#}"
            );
            continue;
        }
        assert_eq!(
            (line["status"].as_str(), line["known"].as_bool()),
            (Some("open"), Some(true)),
            "{line:#}"
        );
        assert!(line["why"].as_str().unwrap().contains("SECURITY.md"), "{line:#}");
    }
    // Every way that there is.
    let named: BTreeSet<&str> = lines(&report)
        .iter()
        .filter_map(|line| line["method"].as_str())
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
    // What it denies by default does not arrive; loopback it allows.
    let (output, report) =
        under("{default: block, rules: [{name: home, action: allow, to: [127.0.0.0/8, \"::1\"]}]}");
    output.expect_code(open_code());
    assert_eq!(report["policy"], "strict");
    for line in tried(&report) {
        let expected = match line["destination"].as_str().unwrap() {
            "0.0.0.0" | "::" | "127.0.0.2" => "allowed",
            _ => "blocked",
        };
        assert_eq!(line["status"], expected, "{line:#}");
    }
}

/// What the policy leaves to the hooks of the cgroup is not tried by others: a socket from outside is open then.
#[test]
fn policy_for_some_hooks() {
    if !met("policy_for_some_hooks", &[Need::Root]) {
        return;
    }
    let (output, report) = under("{default: block, hooks: [cgroup]}");
    output.expect_code(if has_lsm() { 6 } else { 5 });
    for line in lines(&report)
        .iter()
        .filter(|line| line["method"] == "older-socket")
    {
        assert_eq!(line["status"], "open", "{line:#}");
        assert!(line["arrived"].as_u64().unwrap() > 0, "{line:#}");
    }
    for line in tried(&report).iter().filter(|line| line["method"] != "packet") {
        assert_eq!(line["status"], "blocked", "{line:#}");
    }
}

#[test]
fn policy_that_kills() {
    if !met("policy_that_kills", &[Need::Root]) {
        return;
    }
    let (output, report) = under("{default: kill}");
    output.expect_code(open_code());
    for line in tried(&report) {
        assert_eq!(line["status"], "blocked", "{line:#}");
        if line["method"] != "packet" {
            assert_eq!(
                line["outcome"].as_str().unwrap().replace(' ', "_"),
                outcome_of_kill(),
                "{line:#}"
            );
        }
    }
}

/// Nothing is forbidden, so nothing is open; what is reported arrived.
#[test]
fn audit_policy() {
    if !met("audit_policy", &[Need::Root]) {
        return;
    }
    let (output, report) = under("{mode: audit, default: block}");
    output.expect_code(0);
    for line in tried(&report) {
        assert_eq!(line["forbidden"], false, "{line:#}");
        if line["method"] != "packet" {
            assert_eq!(line["status"], "reported", "{line:#}");
            assert!(line["arrived"].as_u64().unwrap() > 0, "{line:#}");
        }
    }
    let older = lines(&report)
        .iter()
        .find(|line| line["method"] == "older-socket")
        .unwrap();
    let expected = if has_lsm() { "reported" } else { "allowed" };
    assert_eq!(older["status"], expected, "{older:#}");
}

#[test]
fn leaves_nothing_behind() {
    if !met("leaves_nothing_behind", &[Need::Root]) {
        return;
    }
    // Links to a cgroup, by its id, of programs of one run and of those that stay loaded.
    let links = || -> BTreeSet<PathBuf> {
        let names = |dir: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let own = mount_of("bpf")
            .map(|bpffs| bpffs.join("tidegate"))
            .unwrap_or_default();
        let loaded = names(&own)
            .into_iter()
            .flat_map(|datapath| names(&datapath.join("links")));
        let is_cgroup = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.parse::<u64>().is_ok())
        };
        names(&own.join("exec"))
            .into_iter()
            .chain(loaded.filter(is_cgroup))
            .collect()
    };
    let cgroup = TestCgroup::create();
    let output = selftest(&cgroup, [""; 0]);
    output.expect_code(open_code());
    assert_eq!(cgroup.children(), Vec::<PathBuf>::new());
    assert!(cgroup.processes().is_empty());
    assert!(links().is_empty(), "{:?}", links());
    // In words, too.
    assert!(
        output.stdout.contains(" blocked") && output.stdout.contains("blocked, 2 OPEN") != has_lsm(),
        "{}",
        output.stdout
    );
    assert_eq!(output.stderr, "", "no progress where nobody watches");
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
    // The hidden command takes no descriptor that it was not given.
    let output = RunningCommand::run(&mut tidegate([
        "selftest-client",
        "--tell=99",
        "run",
        "tcp-connect",
        "127.0.0.1:9",
    ]));
    output.expect_code(2);
    assert!(output.stderr.contains("99"), "{}", output.stderr);
}
