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
    captured::{Captured, Ended},
    cgroup::TestCgroup,
    egress_method::{EgressMethod, Family, Gatekeeper},
    exec::{enter, policy, tidegate},
    kernel::{errno_seen, has_lsm, hook_that_blocks, outcome_of_kill},
    mount_table::mount_of,
    requirement::{Need, met},
    shared_file::SharedFolder,
};
use serde_json::Value;

fn selftest<W: AsRef<OsStr>>(cgroup: &TestCgroup, words: impl IntoIterator<Item = W>) -> Ended {
    let mut all = vec![OsStr::new("selftest").to_owned()];
    all.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
    let mut command = tidegate(all);
    enter(&mut command, cgroup);
    Captured::run(&mut command)
}

/// What it ends with where nothing is open but what must be.
fn open_code() -> i32 {
    if has_lsm() { 0 } else { 5 }
}

fn under(spec: &str) -> (Ended, Value) {
    let folder = SharedFolder::create();
    let file = folder.write("policy.yaml", &policy("strict", spec));
    let words: [&OsStr; 4] = [
        "--output".as_ref(),
        "json".as_ref(),
        "--policy".as_ref(),
        file.as_ref(),
    ];
    let ended = selftest(&TestCgroup::create(), words);
    let report = document(&ended);
    (ended, report)
}

fn document(ended: &Ended) -> Value {
    let read = serde_json::from_str(&ended.stdout);
    read.unwrap_or_else(|error| panic!("{error}\n{}\n{}", ended.stdout, ended.stderr))
}

fn lines(report: &Value) -> &Vec<Value> {
    report["ways"].as_array().unwrap()
}

/// Those that this kernel has, by sockets that are made inside.
fn tried(report: &Value) -> Vec<&Value> {
    let there = |line: &&Value| line["status"] != "not_here" && line["way"] != "older-socket";
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
    let ended = selftest(&TestCgroup::create(), ["--output", "json"]);
    // Sockets from outside are a way that is known to be open where no LSM programs run.
    ended.expect_code(open_code());
    let report = document(&ended);
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
        let way: EgressMethod = line["way"].as_str().unwrap().parse().unwrap();
        let family = match line["destination"].as_str().unwrap() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            // Another spelling: the hook is that of the caller's.
            "0.0.0.0" | "127.0.0.2" | "metadata service" => Family::V4,
            _ => Family::V6,
        };
        let (hook, errno) = match way.gatekeeper() {
            Gatekeeper::Capability if has_lsm() => (way.lsm_hook(), "EHOSTUNREACH"),
            Gatekeeper::Capability => (None, "EPERM"),
            _ => (
                hook_that_blocks(way, family, "EHOSTUNREACH"),
                errno_seen("EHOSTUNREACH"),
            ),
        };
        assert_eq!(line["hook"].as_str(), hook, "{line:#}");
        assert_eq!(line["errno"], errno, "{line:#}");
    }
    let older: Vec<&Value> = lines(&report)
        .iter()
        .filter(|line| line["way"] == "older-socket")
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
        .filter_map(|line| line["way"].as_str())
        .collect();
    for way in EgressMethod::all() {
        assert!(named.contains(way.name()), "{way:?} is not tried");
    }
}

#[test]
fn custom_policy() {
    if !met("custom_policy", &[Need::Root]) {
        return;
    }
    // What it denies by default does not arrive; loopback it allows.
    let (ended, report) =
        under("{default: block, rules: [{name: home, action: allow, to: [127.0.0.0/8, \"::1\"]}]}");
    ended.expect_code(open_code());
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
    let (ended, report) = under("{default: block, hooks: [cgroup]}");
    ended.expect_code(if has_lsm() { 6 } else { 5 });
    for line in lines(&report).iter().filter(|line| line["way"] == "older-socket") {
        assert_eq!(line["status"], "open", "{line:#}");
        assert!(line["arrived"].as_u64().unwrap() > 0, "{line:#}");
    }
    for line in tried(&report).iter().filter(|line| line["way"] != "packet") {
        assert_eq!(line["status"], "blocked", "{line:#}");
    }
}

#[test]
fn policy_that_kills() {
    if !met("policy_that_kills", &[Need::Root]) {
        return;
    }
    let (ended, report) = under("{default: kill}");
    ended.expect_code(open_code());
    for line in tried(&report) {
        assert_eq!(line["status"], "blocked", "{line:#}");
        if line["way"] != "packet" {
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
    let (ended, report) = under("{mode: audit, default: block}");
    ended.expect_code(0);
    for line in tried(&report) {
        assert_eq!(line["forbidden"], false, "{line:#}");
        if line["way"] != "packet" {
            assert_eq!(line["status"], "reported", "{line:#}");
            assert!(line["arrived"].as_u64().unwrap() > 0, "{line:#}");
        }
    }
    let older = lines(&report)
        .iter()
        .find(|line| line["way"] == "older-socket")
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
        let names = |folder: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect()
        };
        let own = mount_of("bpf")
            .map(|bpffs| bpffs.join("tidegate"))
            .unwrap_or_default();
        let loaded = names(&own)
            .into_iter()
            .flat_map(|gate| names(&gate.join("links")));
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
    let ended = selftest(&cgroup, [""; 0]);
    ended.expect_code(open_code());
    assert_eq!(cgroup.children(), Vec::<PathBuf>::new());
    assert!(cgroup.processes().is_empty());
    assert!(links().is_empty(), "{:?}", links());
    // In words, too.
    assert!(
        ended.stdout.contains(" blocked") && ended.stdout.contains("blocked, 2 OPEN") != has_lsm(),
        "{}",
        ended.stdout
    );
    assert_eq!(ended.stderr, "", "no progress where nobody watches");
}

#[test]
fn invalid_arguments() {
    let mut command = tidegate(["selftest", "--policy", "/nowhere.yaml"]);
    if met("invalid_arguments", &[Need::Root]) {
        Captured::run(&mut command).expect_code(1);
        let folder = SharedFolder::create();
        let file = folder.write("policy.yaml", "spec: {}");
        let words = ["selftest".as_ref(), "--policy".as_ref(), file.as_os_str()];
        Captured::run(&mut tidegate(words)).expect_code(3);
    }
    // The hidden command takes no descriptor that it was not given.
    let ended = Captured::run(&mut tidegate([
        "selftest-client",
        "--tell=99",
        "go",
        "tcp-connect",
        "127.0.0.1:9",
    ]));
    ended.expect_code(2);
    assert!(ended.stderr.contains("99"), "{}", ended.stderr);
}
