//! Repeats of what is reported: counted within a window, told with the next record, and counted exactly by
//! the rules in any case.

use std::{ffi::OsString, net::IpAddr};

use integration::{
    attached::{Stand, in_cgroup},
    cgroup::TestCgroup,
    egress_method::Family,
    exec::Gate,
    namespace::Namespace,
    report::Event,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn near() -> IpAddr {
    Namespace::near(Family::V4)
}

/// So many connects of UDP sockets, which send nothing, to a port of an address.
fn flood(cgroup: &TestCgroup, to: IpAddr, port: u16, times: u64) {
    let to = match to {
        IpAddr::V4(_) => format!("{to}:{port}"),
        IpAddr::V6(_) => format!("[{to}]:{port}"),
    };
    let ended = in_cgroup(cgroup, &test_client().task("flood", &[&to, &times.to_string()]));
    ended.expect_code(0);
    assert!(
        ended.stdout.contains(&format!("\"attempts\":{times}")),
        "{}",
        ended.stdout
    );
}

fn repeats(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.repeats).collect()
}

/// What was folded, and what of it is to be told, since something stood there first.
struct Folds(u64, u64);

impl Folds {
    fn of(stand: &Stand) -> Folds {
        let status = stand.status();
        Folds(status.number("repeats_folded"), status.number("repeats_untold"))
    }

    #[track_caller]
    fn expect(&self, stand: &Stand, folded: u64, untold: u64) {
        let now = Folds::of(stand);
        assert_eq!((now.0 - self.0, now.1 - self.1), (folded, untold));
    }
}

/// One event, then silence; another version is reported at once, and tells how many there were.
#[test]
fn duplicates_are_counted_in_the_next_event() {
    if !met("duplicates_are_counted_in_the_next_event", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        let version = |port: u16| {
            format!(
                "{{default: allow, fold: {{audit: 1h}}, rules: [{{name: seen, action: audit, to: [{}], ports: [9, {port}]}}]}}",
                near()
            )
        };
        stand.attach(&cgroup, "shop", &version(10));
        let before = Folds::of(&stand);
        flood(&cgroup, near(), 9, 5);
        flood(&cgroup, near(), 9, 2);
        let events = stand.events();
        assert_eq!(repeats(&events), [0]);
        assert_eq!(
            (events[0].outcome.as_str(), events[0].rule.as_deref()),
            ("audited", Some("seen"))
        );
        before.expect(&stand, 6, 6);
        assert_eq!(stand.status().policy("shop")["rules"][0]["attempts"], 7);
        let text = stand.done(["status"]);
        let (folded, untold) = (before.0 + 6, before.1 + 6);
        let said = format!("{folded} repeats folded, {untold} of them still to be told");
        assert!(text.contains(&said), "{text}");

        stand.apply("shop", &version(11));
        flood(&cgroup, near(), 9, 3);
        let events = stand.events();
        assert_eq!((repeats(&events), events[0].generation), (vec![6], 2));
        before.expect(&stand, 8, 2);

        // Nothing but the mode, and it is another version.
        stand.done(["set-mode", "shop", "audit"]);
        flood(&cgroup, near(), 9, 1);
        let events = stand.events();
        assert_eq!((repeats(&events), events[0].generation), (vec![2], 3));
        before.expect(&stand, 8, 0);
        assert_eq!(stand.status().total("shop", "audited"), 11, "over all versions");
    });
}

/// The window ends: the next attempt is told with all before it. In any case events and repeats are attempts.
#[test]
fn default_window() {
    if !met("default_window", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        stand.attach(&cgroup, "shop", "{default: audit}");
        let before = Folds::of(&stand);
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.succeeds("udp4");
        let (mut attempts, mut told, mut events) = (0, 0, 0);
        // Until an event tells of attempts that were folded before it.
        while events < 2 || told == events {
            process.succeeds(&format!("connect 0 {}:9", near()));
            attempts += 1;
            let new = stand.events();
            events += new.len() as u64;
            told += new.iter().map(|event| 1 + event.repeats).sum::<u64>();
            assert!(attempts < 10_000, "the window ends");
        }
        process.goes_home();
        assert_eq!(told, attempts);
        before.expect(&stand, attempts - events, 0);
        assert_eq!(stand.status().total("shop", "audited"), attempts);
    });
}

#[test]
fn different_attempts_are_not_duplicates() {
    if !met(
        "different_attempts_are_not_duplicates",
        &[Need::Root, Need::Program("setpriv")],
    ) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup, other) = (Stand::open(), TestCgroup::create(), TestCgroup::create());
        let spec = "{default: audit, fold: {audit: 1h, block: 1h}, rules: [{name: user, action: block, to: any, process: {uids: [65534]}}]}";
        stand.attach(&cgroup, "shop", spec);
        stand.attach(&other, "shop", spec);
        let before = Folds::of(&stand);
        let program = stand.folder().copy_program(test_client().path(), "another");
        let to = format!("{}:9", near());
        let go = |program: &std::path::Path, way: &str| -> Vec<OsString> {
            vec![program.into(), "go".into(), way.into(), to.clone().into()]
        };
        let mut as_user: Vec<OsString> = ["setpriv", "--reuid=65534", "--"].map(OsString::from).to_vec();
        as_user.extend(go(&program, "udp-connect-send"));
        for _ in 0..2 {
            flood(&cgroup, near(), 9, 1);
            flood(&cgroup, near(), 10, 1);
            flood(&cgroup, Namespace::far(Family::V4), 9, 1);
            flood(&cgroup, Namespace::near(Family::V6), 9, 1);
            flood(&other, near(), 9, 1);
            in_cgroup(&cgroup, &go(test_client().path(), "tcp-connect"));
            in_cgroup(&cgroup, &go(&program, "udp-connect-send"));
            in_cgroup(&cgroup, &as_user);
            in_cgroup(&cgroup, &go(test_client().path(), "mapped-tcp-connect"));
        }
        let events = stand.events();
        assert_eq!(repeats(&events), [0; 9], "{events:#?}");
        before.expect(&stand, 9, 9);
        let status = stand.status();
        assert_eq!(
            (status.total("shop", "audited"), status.total("shop", "blocked")),
            (16, 2)
        );
    });
}

#[test]
fn events_without_deduplication() {
    if !met("events_without_deduplication", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        for (spec, events, outcome) in [
            ("{default: audit, fold: {audit: off}}", 4, "audited"),
            ("{default: block}", 4, "blocked"),
            ("{mode: audit, default: block}", 4, "would_block"),
            ("{default: block, fold: {audit: 1h}}", 4, "blocked"),
            ("{default: block, fold: {block: 1h}}", 1, "blocked"),
            ("{mode: audit, default: kill, fold: {kill: 1h}}", 1, "would_kill"),
            ("{default: audit, fold: {audit: 1h}}", 1, "audited"),
        ] {
            if stand.status().names().is_empty() {
                stand.attach(&cgroup, "shop", spec);
            } else {
                stand.apply("shop", spec);
            }
            let before = stand.status();
            flood(&cgroup, near(), 9, 4);
            let told = stand.events();
            assert_eq!(told.len(), events, "{spec}");
            assert!(
                told.iter()
                    .all(|event| event.outcome == outcome && event.repeats == 0),
                "{spec}"
            );
            let folded = stand.status().number("repeats_folded") - before.number("repeats_folded");
            assert_eq!(folded, 4 - events as u64, "{spec}");
            assert_eq!(stand.status().policy("shop")["default"]["attempts"], 4, "{spec}");
        }
    });
}

/// `exec` has a report to write: it folds what its policy says, and nothing else.
#[test]
fn exec_with_deduplication() {
    if !met("exec_with_deduplication", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let to = format!("{}:9", near());
        for (spec, events, told) in [
            ("{default: audit}", 40, ""),
            ("{default: audit, fold: {audit: 1h}}", 1, "and 39 more repeats"),
            ("{default: block, fold: {block: 1h}}", 1, "and 39 more repeats"),
        ] {
            let gate = Gate::with(spec);
            let ended = gate.run(test_client().task("flood", &[&to, "40"]));
            ended.expect_code(0);
            let report = gate.report();
            assert_eq!(report.events.len(), events, "{spec}");
            assert_eq!(report.summary.policies[0].default.attempts, 40, "{spec}");
            let heading = format!("tidegate: {events} ");
            assert!(ended.stderr.contains(&heading), "{spec}: {}", ended.stderr);
            assert_eq!(
                !told.is_empty(),
                ended.stderr.contains("more repeats"),
                "{spec}: {}",
                ended.stderr
            );
            assert!(ended.stderr.contains(told), "{spec}: {}", ended.stderr);
        }
    });
}

/// What an event tells of is in the table.
#[test]
fn exec_table_counts_duplicates() {
    if !met("exec_table_counts_duplicates", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let gate = Gate::with("{default: audit, fold: {audit: 1ms}}");
        // More than fit into one window.
        let to = format!("{}:9", near());
        let ended = gate.run(test_client().task("flood", &[&to, "5000"]));
        ended.expect_code(0);
        let report = gate.report();
        let told: u64 = report.events.iter().map(|event| 1 + event.repeats).sum();
        assert!(
            report.events.len() > 1 && told > report.events.len() as u64,
            "some were folded"
        );
        assert_eq!(told + report.summary.repeats_untold, 5000);
        let row = ended
            .stderr
            .lines()
            .find(|line| line.trim_start().starts_with("audited"));
        let count = row.unwrap().split_whitespace().nth(1).unwrap().replace(',', "");
        assert_eq!(count, told.to_string(), "{}", ended.stderr);
    });
}
