//! Events of what stands: each once, to one reader at a time, until he has heard enough.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::AsRawFd,
    process::Stdio,
};

use integration::{
    attached::Stand,
    captured::{Captured, Ended},
    cgroup::TestCgroup,
    egress_method::Family,
    kernel::cgroup_hooks_choose_errno,
    namespace::Namespace,
    report::Report,
    requirement::{Need, met},
    test_client::TestClient,
};
use nix::sys::signal::Signal;

const BLOCKING: &str = "{default: block}";

/// Denied attempts from a cgroup, one a port.
fn attempts(stand: &Stand, cgroup: &TestCgroup, ports: impl IntoIterator<Item = u16>) {
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    for port in ports {
        let to = format!("{}:{port}", Namespace::near(Family::V4));
        let result = stand.run_client(cgroup, &test_client.task("go", &["udp-connect-send", &to]));
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

fn unread(stand: &Stand) -> Vec<u16> {
    ports(&stand.done(["events", "--output", "json"]))
}

#[test]
fn each_event_once_with_names_and_generation() {
    if !met("each_event_once_with_names_and_generation", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
        assert_eq!(stand.done(["events"]), "", "nothing stands");
        stand.refused(1, &["nothing stands"], ["events", "--follow"]);
        stand.attach(&cgroup, "shop", "{default: block, errno: EACCES, rules: [{name: one, action: block, to: [198.51.100.1], reason: for a reason}]}");
        let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        stand.run_client(
            &cgroup,
            &test_client.task("go", &["udp-sendto", "198.51.100.1:9"]),
        );
        let text = format!(
            "{{default: block, rules: [{{name: two, action: kill, to: [203.0.113.1]}}, {{name: three, action: block, to: [{}]}}]}}",
            Namespace::near(Family::V4)
        );
        stand.apply("shop", &text);
        stand.run_client(
            &cgroup,
            &test_client.task("go", &["udp-sendto", "198.51.100.1:9"]),
        );

        let events = stand.events();
        assert_eq!(events.len(), 2, "{events:#?}");
        // Where a cgroup hook has no errno but EPERM, an LSM program denies with this one.
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
            assert_eq!(event.scope.as_deref(), Some(cgroup.spelled().as_str()));
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
        assert!(stand.events().is_empty(), "each is told once");
        assert_eq!(stand.done(["events"]), "");
    });
}

/// Events of a policy that was taken away meanwhile are still told by its name.
#[test]
fn events_of_a_detached_policy_keep_its_name() {
    if !met("events_of_a_detached_policy_keep_its_name", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        stand.attach(&cgroup, "first", BLOCKING);
        attempts(&stand, &cgroup, [1]);
        stand.done(["detach", "first"]);
        stand.attach(&cgroup, "second", BLOCKING);
        attempts(&stand, &cgroup, [2]);
        let told: Vec<_> = stand
            .events()
            .into_iter()
            .map(|event| event.policy.unwrap())
            .collect();
        assert_eq!(told, ["first", "second"]);
    });
}

#[test]
fn one_reader_at_a_time() {
    if !met("one_reader_at_a_time", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        stand.attach(&cgroup, "shop", BLOCKING);
        attempts(&stand, &cgroup, [1]);
        let follower = Captured::spawn(&mut stand.command(["events", "--follow", "--output", "json"]));
        follower.wait_for_stdout("\"port\":1}");
        let told = [
            &format!("process {} ", follower.pid()),
            "(tidegate events --follow)",
        ];
        for words in [&["events"][..], &["events", "--follow"]] {
            stand.refused(1, &told, words);
        }
        // What is changed meanwhile he learns.
        stand.attach(&cgroup, "late", BLOCKING);
        attempts(&stand, &cgroup, [2]);
        let heard = follower.wait_for_stdout("\"late\"");
        assert!(!heard.contains("\"policy\":null"), "{heard}");
        follower.wait_for_stdout("\"port\":2}");
        follower.signal(Signal::SIGINT);
        let ended = follower.finish();
        assert_eq!(ended.stderr, "");
        assert_eq!(ports(&ended.stdout), [1, 2, 2]);
        assert!(unread(&stand).is_empty());
    });
}

/// A follower with a pipe of ours, and the end that we read.
fn follow(stand: &Stand) -> (Captured, BufReader<File>) {
    let (ours, theirs) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut command = stand.command(["events", "--follow", "--output", "json"]);
    let place = theirs.as_raw_fd();
    // SAFETY: between fork and exec only dup2(2) is called; the pipe is open until after the start.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, move || match libc::dup2(place, 1) {
            1 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let follower = Captured::spawn(&mut command);
    drop(theirs);
    (follower, BufReader::new(File::from(ours)))
}

fn expect_quiet(ended: &Ended) {
    ended.expect_code(0);
    assert_eq!(ended.stderr, "");
}

/// `tidegate events --follow | head -1`: it ends when nobody listens, not at the next event, which
/// is left for the next reader.
#[test]
fn closed_output_pipe_ends_the_reader() {
    if !met("closed_output_pipe_ends_the_reader", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        stand.attach(&cgroup, "shop", BLOCKING);
        let (follower, mut pipe) = follow(&stand);
        attempts(&stand, &cgroup, [1]);
        let mut line = String::new();
        pipe.read_line(&mut line).unwrap();
        assert_eq!(ports(&line), [1]);
        drop(pipe);
        expect_quiet(&follower.finish());
        attempts(&stand, &cgroup, [2]);
        assert_eq!(unread(&stand), [2]);
    });
}

/// What a reader that has gone already did not hear is for the next one.
#[test]
fn unwritten_events_go_to_the_next_reader() {
    if !met("unwritten_events_go_to_the_next_reader", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        stand.attach(&cgroup, "shop", BLOCKING);
        attempts(&stand, &cgroup, 1..=5);
        let (ours, theirs) = nix::unistd::pipe().unwrap();
        drop(ours);
        let mut command = stand.command(["events"]);
        let status = command.stdin(Stdio::null()).stdout(theirs).status().unwrap();
        assert_eq!(status.code(), Some(0));
        assert_eq!(unread(&stand), [1, 2, 3, 4, 5]);
    });
}

/// With everything taken away there is nothing more to wait for, and a new start finds no reader.
#[test]
fn detach_all_ends_the_reader() {
    if !met("detach_all_ends_the_reader", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        stand.attach(&cgroup, "shop", BLOCKING);
        let (follower, mut pipe) = follow(&stand);
        attempts(&stand, &cgroup, [1]);
        let mut line = String::new();
        pipe.read_line(&mut line).unwrap();
        stand.done(["detach", "--all"]);
        expect_quiet(&follower.finish());
        let mut rest = String::new();
        pipe.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");

        stand.attach(&cgroup, "shop", BLOCKING);
        attempts(&stand, &cgroup, [2]);
        assert_eq!(unread(&stand), [2]);
    });
}

/// A ring that is full costs events, which are counted and told as a gap, and no verdict.
#[test]
fn lost_events_are_reported() {
    if !met("lost_events_are_reported", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let stand = Stand::open().variable("TIDEGATE_EVENT_RING_BYTES", "4096");
        let cgroup = TestCgroup::create();
        stand.attach(&cgroup, "shop", BLOCKING);
        let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        let flood = |times: u64| {
            let ended = integration::attached::in_cgroup(
                &cgroup,
                &test_client.task("flood", &["198.51.100.1:9", &times.to_string()]),
            );
            assert!(
                ended.stdout.contains(&format!("\"refused\":{times}")),
                "{}",
                ended.stdout
            );
        };
        flood(300);
        let lost = stand.status().number("events_lost");
        let (events, gaps) = Report::stream(&stand.done(["events", "--output", "json"]));
        assert_eq!(events.len() as u64 + lost, 300);
        assert!(lost > 0 && gaps.is_empty(), "the gap comes before the next event");
        flood(1);
        let (events, gaps) = Report::stream(&stand.done(["events", "--output", "json"]));
        assert_eq!((events.len(), gaps.len()), (1, 1));
        assert_eq!(gaps[0].lost, lost);
        flood(1);
        assert_eq!(stand.events().len(), 1, "a gap is told once");
        assert_eq!(stand.status().total("shop", "blocked"), 302);
    });
}
