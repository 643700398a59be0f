//! Duplicate events: suppressed within a window and counted in the next event. The counters of rules stay exact.

use std::{ffi::OsString, net::IpAddr};

use integration::{
    attached::{AttachFixture, in_cgroup},
    cgroup::TestCgroup,
    egress_method::Family,
    exec::Exec,
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

/// Connects UDP sockets this many times to a port (which sends nothing).
fn flood(cgroup: &TestCgroup, to: IpAddr, port: u16, times: u64) {
    let to = match to {
        IpAddr::V4(_) => format!("{to}:{port}"),
        IpAddr::V6(_) => format!("[{to}]:{port}"),
    };
    let output = in_cgroup(cgroup, &test_client().task("flood", &[&to, &times.to_string()]));
    output.expect_code(0);
    assert!(
        output.stdout.contains(&format!("\"attempts\":{times}")),
        "{}",
        output.stdout
    );
}

fn repeats(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.repeats).collect()
}

/// The counters of suppressed and of pending duplicates, before a test.
struct Suppressed(u64, u64);

impl Suppressed {
    fn of(fixture: &AttachFixture) -> Suppressed {
        let status = fixture.status();
        Suppressed(status.counter("suppressed"), status.counter("suppressed_pending"))
    }

    #[track_caller]
    fn expect(&self, fixture: &AttachFixture, suppressed: u64, pending: u64) {
        let now = Suppressed::of(fixture);
        assert_eq!((now.0 - self.0, now.1 - self.1), (suppressed, pending));
    }
}

/// One event, then none; the first event of the next version contains the number of duplicates.
#[test]
fn duplicates_are_counted_in_the_next_event() {
    if !met("duplicates_are_counted_in_the_next_event", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let version = |port: u16| {
            format!(
                "{{default: allow, deduplicate: {{audit: 1h}}, rules: [{{name: seen, action: audit, to: [{}], ports: [9, {port}]}}]}}",
                near()
            )
        };
        fixture.attach(&cgroup, "shop", &version(10));
        let before = Suppressed::of(&fixture);
        flood(&cgroup, near(), 9, 5);
        flood(&cgroup, near(), 9, 2);
        let events = fixture.events();
        assert_eq!(repeats(&events), [0]);
        assert_eq!(
            (events[0].outcome.as_str(), events[0].rule.as_deref()),
            ("audited", Some("seen"))
        );
        before.expect(&fixture, 6, 6);
        assert_eq!(fixture.status().policy("shop")["rules"][0]["attempts"], 7);
        let text = fixture.run_ok(["status"]);
        let (suppressed, pending) = (before.0 + 6, before.1 + 6);
        let expected =
            format!("{suppressed} duplicates suppressed, of which {pending} are not yet in an event");
        assert!(text.contains(&expected), "{text}");

        fixture.apply("shop", &version(11));
        flood(&cgroup, near(), 9, 3);
        let events = fixture.events();
        assert_eq!((repeats(&events), events[0].generation), (vec![6], 2));
        before.expect(&fixture, 8, 2);

        // A change of mode is a new generation.
        fixture.run_ok(["set-mode", "shop", "audit"]);
        flood(&cgroup, near(), 9, 1);
        let events = fixture.events();
        assert_eq!((repeats(&events), events[0].generation), (vec![2], 3));
        before.expect(&fixture, 8, 0);
        assert_eq!(fixture.status().total("shop", "audited"), 11, "over all versions");
    });
}

/// After the window the next event contains the number of duplicates. Events plus duplicates are all attempts.
#[test]
fn default_window() {
    if !met("default_window", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", "{default: audit}");
        let before = Suppressed::of(&fixture);
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.succeeds("udp4");
        let (mut attempts, mut reported, mut events) = (0, 0, 0);
        // Until an event reports suppressed duplicates.
        while events < 2 || reported == events {
            process.succeeds(&format!("connect 0 {}:9", near()));
            attempts += 1;
            let new = fixture.events();
            events += new.len() as u64;
            reported += new.iter().map(|event| 1 + event.repeats).sum::<u64>();
            assert!(attempts < 10_000, "the window ends");
        }
        process.quit();
        assert_eq!(reported, attempts);
        before.expect(&fixture, attempts - events, 0);
        assert_eq!(fixture.status().total("shop", "audited"), attempts);
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
        let (fixture, cgroup, other) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
        let spec = "{default: audit, deduplicate: {audit: 1h, block: 1h}, rules: [{name: user, action: block, to: any, process: {uids: [65534]}}]}";
        fixture.attach(&cgroup, "shop", spec);
        fixture.attach(&other, "shop", spec);
        let before = Suppressed::of(&fixture);
        let program = fixture.dir().copy_program(test_client().path(), "another");
        let to = format!("{}:9", near());
        let run_method = |program: &std::path::Path, method: &str| -> Vec<OsString> {
            vec![program.into(), "run".into(), method.into(), to.clone().into()]
        };
        let mut as_user: Vec<OsString> = ["setpriv", "--reuid=65534", "--"].map(OsString::from).to_vec();
        as_user.extend(run_method(&program, "udp-connect-send"));
        for _ in 0..2 {
            flood(&cgroup, near(), 9, 1);
            flood(&cgroup, near(), 10, 1);
            flood(&cgroup, Namespace::far(Family::V4), 9, 1);
            flood(&cgroup, Namespace::near(Family::V6), 9, 1);
            flood(&other, near(), 9, 1);
            in_cgroup(&cgroup, &run_method(test_client().path(), "tcp-connect"));
            in_cgroup(&cgroup, &run_method(&program, "udp-connect-send"));
            in_cgroup(&cgroup, &as_user);
            in_cgroup(&cgroup, &run_method(test_client().path(), "mapped-tcp-connect"));
        }
        let events = fixture.events();
        assert_eq!(repeats(&events), [0; 9], "{events:#?}");
        before.expect(&fixture, 9, 9);
        let status = fixture.status();
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
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        for (spec, events, outcome) in [
            ("{default: audit, deduplicate: {audit: off}}", 4, "audited"),
            ("{default: block}", 4, "blocked"),
            ("{mode: audit, default: block}", 4, "would_block"),
            ("{default: block, deduplicate: {audit: 1h}}", 4, "blocked"),
            ("{default: block, deduplicate: {block: 1h}}", 1, "blocked"),
            (
                "{mode: audit, default: kill, deduplicate: {kill: 1h}}",
                1,
                "would_kill",
            ),
            ("{default: audit, deduplicate: {audit: 1h}}", 1, "audited"),
        ] {
            if fixture.status().names().is_empty() {
                fixture.attach(&cgroup, "shop", spec);
            } else {
                fixture.apply("shop", spec);
            }
            let before = fixture.status();
            flood(&cgroup, near(), 9, 4);
            let reported = fixture.events();
            assert_eq!(reported.len(), events, "{spec}");
            assert!(
                reported
                    .iter()
                    .all(|event| event.outcome == outcome && event.repeats == 0),
                "{spec}"
            );
            let suppressed = fixture.status().counter("suppressed") - before.counter("suppressed");
            assert_eq!(suppressed, 4 - events as u64, "{spec}");
            assert_eq!(
                fixture.status().policy("shop")["default"]["attempts"],
                4,
                "{spec}"
            );
        }
    });
}

/// `exec` writes a report: it only suppresses duplicates if its policy says so.
#[test]
fn exec_with_deduplication() {
    if !met("exec_with_deduplication", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let to = format!("{}:9", near());
        for (spec, events, reported) in [
            ("{default: audit}", 40, ""),
            (
                "{default: audit, deduplicate: {audit: 1h}}",
                1,
                "39 duplicates suppressed",
            ),
            (
                "{default: block, deduplicate: {block: 1h}}",
                1,
                "39 duplicates suppressed",
            ),
        ] {
            let exec = Exec::with(spec);
            let output = exec.run(test_client().task("flood", &[&to, "40"]));
            output.expect_code(0);
            let report = exec.report();
            assert_eq!(report.events.len(), events, "{spec}");
            assert_eq!(report.summary.policies[0].default.attempts, 40, "{spec}");
            let heading = format!("tidegate: {events} ");
            assert!(output.stderr.contains(&heading), "{spec}: {}", output.stderr);
            assert_eq!(
                !reported.is_empty(),
                output.stderr.contains("duplicates suppressed"),
                "{spec}: {}",
                output.stderr
            );
            assert!(output.stderr.contains(reported), "{spec}: {}", output.stderr);
        }
    });
}

/// The summary table counts the duplicates that events report.
#[test]
fn exec_table_counts_duplicates() {
    if !met("exec_table_counts_duplicates", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let exec = Exec::with("{default: audit, deduplicate: {audit: 1ms}}");
        // More than one window.
        let to = format!("{}:9", near());
        let output = exec.run(test_client().task("flood", &[&to, "5000"]));
        output.expect_code(0);
        let report = exec.report();
        let reported: u64 = report.events.iter().map(|event| 1 + event.repeats).sum();
        assert!(
            report.events.len() > 1 && reported > report.events.len() as u64,
            "some duplicates were suppressed"
        );
        assert_eq!(reported + report.summary.suppressed_pending, 5000);
        let row = output
            .stderr
            .lines()
            .find(|line| line.trim_start().starts_with("AUDIT"));
        let count = row.unwrap().split_whitespace().nth(1).unwrap().replace(',', "");
        assert_eq!(count, reported.to_string(), "{}", output.stderr);
    });
}
