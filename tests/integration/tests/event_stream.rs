//! `tidegate events`: each event once, for one reader at a time, until the reader ends.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::AsRawFd,
    process::Stdio,
};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::Family,
    kernel::cgroup_hooks_choose_errno,
    namespace::Namespace,
    report::Report,
    requirement::{Need, met},
    running_command::{CommandOutput, RunningCommand},
    test_client::TestClient,
};
use nix::sys::signal::Signal;

const BLOCKING: &str = "{default: block}";

/// Makes denied attempts from a cgroup, one for each port.
fn attempts(fixture: &AttachFixture, cgroup: &TestCgroup, ports: impl IntoIterator<Item = u16>) {
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    for port in ports {
        let to = format!("{}:{port}", Namespace::near(Family::V4));
        let result = fixture.run_client(cgroup, &test_client.task("run", &["udp-connect-send", &to]));
        assert_eq!(result.errno.as_deref(), Some("EPERM"));
    }
}

fn ports(text: &str) -> Vec<u16> {
    let (events, _) = Report::stream(text);
    events
        .iter()
        .map(|event| event.destination.unwrap().port.unwrap())
        .collect()
}

fn unread(fixture: &AttachFixture) -> Vec<u16> {
    ports(&fixture.run_ok(["events", "--output", "json"]))
}

#[test]
fn each_event_once_with_names_and_generation() {
    if !met("each_event_once_with_names_and_generation", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
        assert_eq!(fixture.run_ok(["events"]), "", "no policies attached");
        fixture.run_fails(
            1,
            &["no policies attached, so there are no events to wait for"],
            ["events", "--follow"],
        );
        fixture.attach(&cgroup, "shop", "{default: block, errno: EACCES, rules: [{name: one, action: block, to: [198.51.100.1], reason: for a reason}]}");
        let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        fixture.run_client(
            &cgroup,
            &test_client.task("run", &["udp-sendto", "198.51.100.1:9"]),
        );
        let text = format!(
            "{{default: block, rules: [{{name: two, action: kill, to: [203.0.113.1]}}, {{name: three, action: block, to: [{}]}}]}}",
            Namespace::near(Family::V4)
        );
        fixture.apply("shop", &text);
        fixture.run_client(
            &cgroup,
            &test_client.task("run", &["udp-sendto", "198.51.100.1:9"]),
        );

        let events = fixture.events();
        assert_eq!(events.len(), 2, "{events:#?}");
        // Where a cgroup hook can only return EPERM, an LSM program denies with this errno.
        let by = if cgroup_hooks_choose_errno() {
            "sendmsg4"
        } else {
            "lsm_sendmsg"
        };
        for (event, (generation, rule, errno, hook)) in events
            .iter()
            .zip([(1, "one", "EACCES", by), (2, "three", "EPERM", "sendmsg4")])
        {
            assert_eq!(event.policy.as_deref(), Some("shop"));
            assert_eq!(event.scope.as_deref(), Some(cgroup.cgroup_path().as_str()));
            assert_eq!(
                (event.generation, event.rule.as_deref()),
                (generation, Some(rule))
            );
            assert_eq!(
                (event.outcome.as_str(), event.errno.as_deref()),
                ("blocked", Some(errno))
            );
            assert_eq!((event.hook.as_str(), event.mode.as_str()), (hook, "enforce"));
        }
        assert!(fixture.events().is_empty(), "each event is read once");
        assert_eq!(fixture.run_ok(["events"]), "");
    });
}

/// Events of a policy that has been detached still have its name.
#[test]
fn events_of_a_detached_policy_keep_its_name() {
    if !met("events_of_a_detached_policy_keep_its_name", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "first", BLOCKING);
        attempts(&fixture, &cgroup, [1]);
        fixture.run_ok(["detach", "first"]);
        fixture.attach(&cgroup, "second", BLOCKING);
        attempts(&fixture, &cgroup, [2]);
        let reported: Vec<_> = fixture
            .events()
            .into_iter()
            .map(|event| event.policy.unwrap())
            .collect();
        assert_eq!(reported, ["first", "second"]);
    });
}

#[test]
fn one_reader_at_a_time() {
    if !met("one_reader_at_a_time", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", BLOCKING);
        attempts(&fixture, &cgroup, [1]);
        let follower =
            RunningCommand::spawn(&mut fixture.command(["events", "--follow", "--output", "json"]));
        follower.wait_for_stdout("\"port\":1}");
        let reported = [
            &format!("process {} ", follower.pid()),
            "(tidegate events --follow)",
        ];
        for args in [&["events"][..], &["events", "--follow"]] {
            fixture.run_fails(1, &reported, args);
        }
        // The reader learns about policies attached in the meantime.
        fixture.attach(&cgroup, "late", BLOCKING);
        attempts(&fixture, &cgroup, [2]);
        let output = follower.wait_for_stdout("\"late\"");
        assert!(!output.contains("\"policy\":null"), "{output}");
        follower.wait_for_stdout("\"port\":2}");
        follower.signal(Signal::SIGINT);
        let output = follower.finish();
        assert_eq!(output.stderr, "");
        assert_eq!(ports(&output.stdout), [1, 2, 2]);
        assert!(unread(&fixture).is_empty());
    });
}

/// A follower that writes to a pipe, and the read end of the pipe.
fn follow(fixture: &AttachFixture) -> (RunningCommand, BufReader<File>) {
    let (read_end, write_end) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut command = fixture.command(["events", "--follow", "--output", "json"]);
    let fd = write_end.as_raw_fd();
    // SAFETY: between fork and exec only dup2(2) is called; the pipe is open until after the start.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, move || match libc::dup2(fd, 1) {
            1 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let follower = RunningCommand::spawn(&mut command);
    drop(write_end);
    (follower, BufReader::new(File::from(read_end)))
}

fn expect_quiet(output: &CommandOutput) {
    output.expect_code(0);
    assert_eq!(output.stderr, "");
}

/// `tidegate events --follow | head -1`: it ends when the pipe is closed, and does not consume the next event.
#[test]
fn closed_output_pipe_ends_the_reader() {
    if !met("closed_output_pipe_ends_the_reader", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", BLOCKING);
        let (follower, mut pipe) = follow(&fixture);
        attempts(&fixture, &cgroup, [1]);
        let mut line = String::new();
        pipe.read_line(&mut line).unwrap();
        assert_eq!(ports(&line), [1]);
        drop(pipe);
        expect_quiet(&follower.finish());
        attempts(&fixture, &cgroup, [2]);
        assert_eq!(unread(&fixture), [2]);
    });
}

/// Events that a reader could not write go to the next reader.
#[test]
fn unwritten_events_go_to_the_next_reader() {
    if !met("unwritten_events_go_to_the_next_reader", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", BLOCKING);
        attempts(&fixture, &cgroup, 1..=5);
        let (read_end, write_end) = nix::unistd::pipe().unwrap();
        drop(read_end);
        let mut command = fixture.command(["events"]);
        let status = command.stdin(Stdio::null()).stdout(write_end).status().unwrap();
        assert_eq!(status.code(), Some(0));
        assert_eq!(unread(&fixture), [1, 2, 3, 4, 5]);
    });
}

/// `detach --all` ends a follower; a policy attached later has no reader.
#[test]
fn detach_all_ends_the_reader() {
    if !met("detach_all_ends_the_reader", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", BLOCKING);
        let (follower, mut pipe) = follow(&fixture);
        attempts(&fixture, &cgroup, [1]);
        let mut line = String::new();
        pipe.read_line(&mut line).unwrap();
        fixture.run_ok(["detach", "--all"]);
        expect_quiet(&follower.finish());
        let mut rest = String::new();
        pipe.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");

        fixture.attach(&cgroup, "shop", BLOCKING);
        attempts(&fixture, &cgroup, [2]);
        assert_eq!(unread(&fixture), [2]);
    });
}

/// A full ring buffer loses events, which are counted and reported. Verdicts do not change.
#[test]
fn lost_events_are_reported() {
    if !met("lost_events_are_reported", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let fixture = AttachFixture::open().variable("TIDEGATE_EVENT_RING_BYTES", "4096");
        let cgroup = TestCgroup::create();
        fixture.attach(&cgroup, "shop", BLOCKING);
        let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        let flood = |times: u64| {
            let output = integration::attached::in_cgroup(
                &cgroup,
                &test_client.task("flood", &["198.51.100.1:9", &times.to_string()]),
            );
            assert!(
                output.stdout.contains(&format!("\"refused\":{times}")),
                "{}",
                output.stdout
            );
        };
        flood(300);
        let total = fixture.status().counter("events_lost");
        let (events, lost) = Report::stream(&fixture.run_ok(["events", "--output", "json"]));
        assert_eq!(events.len() as u64 + total, 300);
        assert!(
            total > 0 && lost.is_empty(),
            "the loss is reported before the next event"
        );
        flood(1);
        let (events, lost) = Report::stream(&fixture.run_ok(["events", "--output", "json"]));
        assert_eq!((events.len(), lost.len()), (1, 1));
        assert_eq!((lost[0].lost, lost[0].cause.as_str()), (total, "ring_full"));
        flood(1);
        assert_eq!(fixture.events().len(), 1, "a loss is reported once");
        assert_eq!(fixture.status().total("shop", "blocked"), 302);
    });
}
