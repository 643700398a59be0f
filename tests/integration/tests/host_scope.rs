//! A policy on the root cgroup, for all egress of the machine. Needs a dedicated machine.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    process::Command,
    sync::Mutex,
};

use integration::{
    attached::{AttachFixture, in_cgroup},
    cgroup::TestCgroup,
    egress_method::{EgressMethod, Family},
    kernel::{is_dedicated_machine, tracer_hook},
    namespace::Namespace,
    report::Event,
    requirement::{Need, met},
    running_command::RunningCommand,
    test_client::TestClient,
};

/// One test at a time: there is only one root cgroup.
static HOST: Mutex<()> = Mutex::new(());

fn ready(test: &str) -> bool {
    let alone = Need::Kernel(
        is_dedicated_machine(),
        "the machine is not dedicated to the tests",
    );
    met(test, &[Need::Root, alone])
}

/// Audits everything except the networks that the rules exclude.
fn spec(hooks: &str) -> String {
    format!(
        "{{mode: audit, default: audit, hooks: {hooks}, rules: [{{name: excluded, action: allow, to: [127.0.0.0/8, \
         198.51.100.0/24, \"2001:db8::/64\"]}}]}}"
    )
}

fn listener(address: IpAddr) -> TcpListener {
    TcpListener::bind((address, 0)).unwrap()
}

/// Connects from a cgroup, or from that of the test, and returns the address that the listener saw.
fn connect(listener: &TcpListener, cgroup: Option<&TestCgroup>) -> SocketAddr {
    let to = listener.local_addr().unwrap();
    let args = TestClient::at(env!("CARGO_BIN_EXE_test-client")).args(EgressMethod::TcpConnect, to, None);
    match cgroup {
        Some(cgroup) => in_cgroup(cgroup, &args),
        None => RunningCommand::run(Command::new(&args[0]).args(&args[1..])),
    }
    .expect_code(0);
    let (_, peer) = listener.accept().unwrap();
    peer
}

fn from_to(event: &Event) -> (SocketAddr, SocketAddr) {
    let [local, destination] = [event.local_address, event.destination].map(Option::unwrap);
    (
        SocketAddr::new(local.address, local.port.unwrap()),
        SocketAddr::new(destination.address, destination.port.unwrap()),
    )
}

/// Excluded traffic makes no event; all other traffic does, from every cgroup, with its local address.
fn audits_the_host(hooks: &str, hook: fn(Family) -> &'static str) {
    let _host = HOST.lock().unwrap_or_else(|broken| broken.into_inner());
    Namespace::run(|_| {
        let fixture = AttachFixture::open();
        let file = fixture.policy("external", &spec(hooks));
        fixture.run_ok(["attach", "--policy", &file, "--host"]);
        let cgroup = TestCgroup::create();
        let status = fixture.status();
        assert_eq!(status.policy("external")["attachments"][0]["cgroup"], "/");
        assert_eq!(status.policy("external")["enforcement"], "full");

        let mut expected = Vec::new();
        for family in Family::ALL {
            for cgroup in [Some(&cgroup), None] {
                connect(&listener(Namespace::near(family)), cgroup);
                let outside = listener(Namespace::elsewhere(family));
                let peer = connect(&outside, cgroup);
                expected.push((peer, outside.local_addr().unwrap()));
            }
        }
        connect(&listener(IpAddr::from([127, 0, 0, 1])), Some(&cgroup));
        let events = fixture.events();
        assert_eq!(events.iter().map(from_to).collect::<Vec<_>>(), expected);
        for event in &events {
            let family = if event.destination.unwrap().address.is_ipv4() {
                Family::V4
            } else {
                Family::V6
            };
            assert_eq!(
                (event.hook.as_str(), event.scope.as_deref()),
                (hook(family), Some("/"))
            );
            assert!(!event.foreign_socket);
        }

        let outside = listener(Namespace::elsewhere(Family::V4));
        let peer = connect(&outside, None);
        let text = fixture.run_ok(["events"]);
        let line = format!(
            " {peer} -> {}/tcp  external/(default)",
            outside.local_addr().unwrap()
        );
        assert!(text.contains(&line), "{text}");

        fixture.run_ok(["detach", "external"]);
        connect(&listener(Namespace::elsewhere(Family::V4)), None);
        fixture.run_ok(["attach", "--policy", &file, "--host"]);
        assert!(fixture.events().is_empty(), "no policy was attached in between");
    });
}

#[test]
fn cgroup_hooks_on_the_root_cgroup() {
    if ready("cgroup_hooks_on_the_root_cgroup") {
        audits_the_host("auto", |family| match family {
            Family::V4 => "connect4",
            Family::V6 => "connect6",
        });
    }
}

#[test]
fn tracer_on_the_root_cgroup() {
    if ready("tracer_on_the_root_cgroup") {
        audits_the_host("[kprobe]", |_| tracer_hook());
    }
}
