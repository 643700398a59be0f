//! `tidegate exec` in a cgroup with an attached policy: both are enforced independently.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{ffi::OsString, io::Write, process::Stdio};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    client_result::ClientResult,
    egress_method::{EgressMethod, Family, Transport},
    exec::enter,
    namespace::Namespace,
    receiver::Receiver,
    report::Report,
    requirement::{Need, met},
    running_command::RunningCommand,
    test_client::TestClient,
};

fn to_near(receiver: &Receiver) -> Vec<OsString> {
    TestClient::at(env!("CARGO_BIN_EXE_test-client")).args(EgressMethod::TcpConnect, receiver.address(), None)
}

fn listen() -> Receiver {
    Receiver::listen(Transport::Tcp, Namespace::near(Family::V4))
}

fn exec(
    fixture: &AttachFixture,
    cgroup: &TestCgroup,
    spec: &str,
    args: Vec<OsString>,
) -> (RunningCommand, std::path::PathBuf) {
    let report = fixture.dir().path().join("report.jsonl");
    let file = fixture.policy("inner", spec);
    let own = [
        "exec",
        "--policy",
        &file,
        "--report",
        report.to_str().unwrap(),
        "--",
    ];
    let mut command = fixture.command(own.into_iter().map(OsString::from).chain(args));
    command.stdin(Stdio::piped());
    enter(&mut command, cgroup);
    (RunningCommand::spawn(&mut command), report)
}

/// Both policies are enforced, and each reports its own events.
#[test]
fn exec_in_a_cgroup_with_a_policy() {
    if !met("exec_in_a_cgroup_with_a_policy", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup, receiver) = (AttachFixture::open(), TestCgroup::create(), listen());
        fixture.attach(&cgroup, "shop", "{default: block, errno: EACCES}");
        let (running, report) = exec(&fixture, &cgroup, "{default: allow}", to_near(&receiver));
        let reported = ClientResult::read(&running.finish().expect_code(0).stdout);
        assert_eq!(reported[0].errno.as_deref(), Some("EACCES"));
        assert!(Report::read(&report).events.is_empty());
        let reported = fixture.events();
        assert_eq!((reported.len(), reported[0].policy.as_deref()), (1, Some("shop")));

        fixture.apply("shop", "{default: allow}");
        let (running, report) = exec(&fixture, &cgroup, "{default: block}", to_near(&receiver));
        let reported = ClientResult::read(&running.finish().expect_code(0).stdout);
        assert_eq!(reported[0].errno.as_deref(), Some("EPERM"));
        assert_eq!(
            Report::read(&report).only_event().policy.as_deref(),
            Some("inner")
        );
        assert!(fixture.events().is_empty());
        receiver.expect_nothing("one of the policies denies it");
    });
}

/// `detach --all` does not affect a run of `exec`.
#[test]
fn detach_all_does_not_affect_exec() {
    if !met("detach_all_does_not_affect_exec", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup, receiver) = (AttachFixture::open(), TestCgroup::create(), listen());
        fixture.attach(&cgroup, "shop", "{default: allow}");
        let mut args: Vec<OsString> = ["/bin/sh", "-c", "echo ready; read go; exec \"$@\"", "sh"]
            .map(OsString::from)
            .to_vec();
        args.extend(to_near(&receiver));
        let (mut running, _) = exec(&fixture, &cgroup, "{default: block}", args);
        running.wait_for_stdout("ready");
        fixture.run_ok(["detach", "--all"]);
        running.take_stdin().write_all(b"go\n").unwrap();
        let reported = ClientResult::read(&running.finish().expect_code(0).stdout);
        assert_eq!(reported[0].errno.as_deref(), Some("EPERM"));
        receiver.expect_nothing("the run's own policy");
    });
}
