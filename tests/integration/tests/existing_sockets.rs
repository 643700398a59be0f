//! Sockets that are connected before a policy is attached: `attach --existing`.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{Family, MARKER, Transport},
    kernel::{has_lsm, lists_sockets},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    running_command::CommandOutput,
    scripted_client::ScriptedClient,
    test_client::TestClient,
};
use serde_json::Value;

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn can_destroy_sockets(test: &str) -> bool {
    let both = lists_sockets(libc::IPPROTO_TCP) && lists_sockets(libc::IPPROTO_UDP);
    met(test, &[Need::Root, Need::Kernel(both, "cannot list sockets")])
}

/// A policy that blocks one destination.
const NOT_NEAR: &str =
    r#"{default: allow, rules: [{name: it, action: block, to: [198.51.100.1, "2001:db8::1"]}]}"#;

/// Four connections of a process in the cgroup, each used once: TCP and UDP, to near and to far.
struct Four {
    process: ScriptedClient,
    receivers: [Receiver; 4],
}

const TCP_NEAR: usize = 0;
const TCP_FAR: usize = 1;
const UDP_NEAR: usize = 2;
const UDP_FAR: usize = 3;

impl Four {
    fn start(cgroup: &TestCgroup, family: Family, kinds: [&str; 2], is_mapped: bool) -> Four {
        let (near, far) = (Namespace::near(family), Namespace::far(family));
        let receivers = [
            Receiver::listen(Transport::Tcp, near),
            Receiver::listen(Transport::Tcp, far),
            Receiver::listen(Transport::Udp, near),
            Receiver::listen(Transport::Udp, far),
        ];
        let mut process = ScriptedClient::start(&test_client(), cgroup);
        for (index, receiver) in receivers.iter().enumerate() {
            process.succeeds(kinds[index / 2]);
            let to = mapped_if(receiver.address(), is_mapped);
            process.succeeds(&format!("connect {index} {to}"));
            process.succeeds(&format!("send {index}"));
        }
        Four { process, receivers }
    }

    /// Ends the process and checks how often the marker arrived at each receiver.
    #[track_caller]
    fn arrived(self, expected: [usize; 4]) {
        self.process.quit();
        let counts = self.receivers.map(|receiver| {
            let all = receiver.arrived().concat();
            assert_eq!(all.len() % MARKER.len(), 0);
            all.len() / MARKER.len()
        });
        assert_eq!(counts, expected);
    }
}

fn mapped_if(address: SocketAddr, is_mapped: bool) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(v4) if is_mapped => SocketAddr::new(v4.to_ipv6_mapped().into(), address.port()),
        _ => address,
    }
}

/// Attaches a policy and returns its report about existing sockets.
fn attach(
    fixture: &AttachFixture,
    cgroup: &TestCgroup,
    name: &str,
    spec: &str,
    more: &[&str],
) -> (CommandOutput, Value) {
    let (file, own) = (fixture.policy(name, spec), cgroup.cgroup_path());
    let args = ["attach", "--policy", &file, "--cgroup", &own, "--output", "json"];
    let output = fixture.run([&args[..], more].concat());
    let report: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr));
    let existing = report["existing"].clone();
    (output, existing)
}

/// Protocol, verdict, rule and fate of the reported sockets, sorted.
fn reported(existing: &Value) -> Vec<[&str; 4]> {
    let sockets = existing["sockets"].as_array().map_or(&[][..], Vec::as_slice);
    let mut reported: Vec<[&str; 4]> = sockets
        .iter()
        .map(|socket| {
            ["protocol", "verdict", "rule", "fate"].map(|field| socket[field].as_str().unwrap_or("-"))
        })
        .collect();
    reported.sort_unstable();
    reported
}

const DESTROY: [&str; 2] = ["--existing", "destroy"];

#[test]
fn denied_connections_are_destroyed() {
    if !can_destroy_sockets("denied_connections_are_destroyed") {
        return;
    }
    Namespace::run(|_| {
        for (family, kinds, is_mapped) in [
            (Family::V4, ["tcp4", "udp4"], false),
            (Family::V6, ["tcp6", "udp6"], false),
            (Family::V4, ["tcp6", "udp6"], true),
        ] {
            let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
            let mut four = Four::start(&cgroup, family, kinds, is_mapped);
            let (output, existing) = attach(&fixture, &cgroup, "shop", NOT_NEAR, &DESTROY);
            output.expect_code(0);
            assert_eq!(
                reported(&existing),
                [
                    ["tcp", "block", "it", "destroyed"],
                    ["udp", "block", "it", "destroyed"]
                ],
                "{existing:#}"
            );
            assert_eq!(
                (&existing["allowed"], &existing["inbound"]),
                (&2.into(), &0.into())
            );

            four.process.fails(&format!("receive {TCP_NEAR}"), "ECONNABORTED");
            four.process.fails(&format!("send {TCP_NEAR}"), "EPIPE");
            four.process.fails(&format!("receive {UDP_NEAR}"), "ECONNABORTED");
            four.process.fails(&format!("send {UDP_NEAR}"), "EDESTADDRREQ");
            for index in [TCP_FAR, UDP_FAR] {
                four.process.succeeds(&format!("send {index}"));
            }
            // The process still has the sockets and can use them for allowed destinations.
            let near = mapped_if(four.receivers[UDP_NEAR].address(), is_mapped);
            four.process.fails(&format!("connect {UDP_NEAR} {near}"), "EPERM");
            four.arrived([1, 2, 1, 2]);
        }
    });
}

#[test]
fn audit_destroys_nothing() {
    if !can_destroy_sockets("audit_destroys_nothing") {
        return;
    }
    Namespace::run(|_| {
        for (more, fate) in [
            (&["--existing", "audit"][..], "left"),
            (&["--existing", "audit", "--mode", "audit"], "left"),
            (&["--existing", "destroy", "--mode", "audit"], "would_destroy"),
        ] {
            let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
            let mut four = Four::start(&cgroup, Family::V4, ["tcp4", "udp4"], false);
            let (output, existing) = attach(&fixture, &cgroup, "shop", NOT_NEAR, more);
            output.expect_code(0);
            assert_eq!(
                reported(&existing),
                [["tcp", "block", "it", fate], ["udp", "block", "it", fate]]
            );
            let first = &existing["sockets"][0];
            assert_eq!(first["processes"][0]["pid"], four.process.pid().as_raw());
            assert_eq!(first["processes"][0]["comm"], "test-client");
            assert_eq!(
                (&first["cgroup"], &first["policy"], &first["uid"]),
                (&cgroup.cgroup_path().into(), &"shop".into(), &0.into())
            );
            assert_eq!(first["peer"], four.receivers[TCP_NEAR].address().to_string());
            for index in [TCP_NEAR, TCP_FAR, UDP_NEAR, UDP_FAR] {
                four.process.succeeds(&format!("send {index}"));
            }
            four.arrived([2, 2, 2, 2]);
        }
    });
}

/// Without --existing no socket is listed; audited sockets are reported and survive.
#[test]
fn allowed_and_audited_connections_survive() {
    if !can_destroy_sockets("allowed_and_audited_connections_survive") {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let mut four = Four::start(&cgroup, Family::V4, ["tcp4", "udp4"], false);
        let (output, existing) = attach(&fixture, &cgroup, "first", NOT_NEAR, &[]);
        output.expect_code(0);
        assert_eq!(existing, Value::Null);
        let audit = "{default: audit, rules: [{name: udp, action: allow, to: any, protocols: [udp]}]}";
        let (output, existing) = attach(&fixture, &cgroup, "second", audit, &DESTROY);
        output.expect_code(0);
        assert_eq!(
            reported(&existing),
            [["tcp", "audit", "-", "left"], ["tcp", "audit", "-", "left"]]
        );
        for index in [TCP_NEAR, TCP_FAR, UDP_NEAR, UDP_FAR] {
            four.process.succeeds(&format!("send {index}"));
        }
        four.arrived([2, 2, 2, 2]);
    });
}

#[test]
fn connections_outside_the_cgroup_survive() {
    if !can_destroy_sockets("connections_outside_the_cgroup_survive") {
        return;
    }
    Namespace::run(|_| {
        for (family, kind) in [(Family::V4, "tcp4"), (Family::V6, "tcp6")] {
            let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
            let at = SocketAddr::new(Namespace::far(family), 8080);
            let near = Receiver::listen(Transport::Tcp, Namespace::near(family));
            let mut process = ScriptedClient::start(&test_client(), &cgroup);
            for step in [kind, &format!("bind 0 {at}"), "listen 0 8"] {
                process.succeeds(step);
            }
            let mut quiet = TcpStream::connect(at).expect("a listener");
            let mut busy = TcpStream::connect(at).expect("a listener");
            process.succeeds("accept 0");
            process.succeeds("accept 0");
            busy.write_all(MARKER).expect("sent");
            process.succeeds("receive 2");
            process.succeeds("send 2");
            busy.read_exact(&mut [0; MARKER.len()]).expect("received");
            // An outbound connection from the same port, which looks like the inbound ones.
            process.succeeds(kind);
            process.succeeds(&format!(
                "bind 3 {}",
                SocketAddr::new(Namespace::elsewhere(family), 8081)
            ));
            process.succeeds(&format!("connect 3 {}", near.address()));
            process.succeeds(kind);
            process.succeeds(&format!(
                "bind 4 {}",
                SocketAddr::new(Namespace::elsewhere(family), 8081)
            ));
            process.succeeds("listen 4 8");

            let (output, existing) = attach(&fixture, &cgroup, "shop", "{default: block}", &DESTROY);
            output.expect_code(0);
            assert_eq!(
                reported(&existing),
                [
                    ["tcp", "-", "-", "left"],
                    ["tcp", "-", "-", "left"],
                    ["tcp", "block", "-", "destroyed"],
                ],
                "{existing:#}"
            );
            assert_eq!(existing["inbound"], 2);
            process.fails("receive 3", "ECONNABORTED");
            for (stream, index) in [(&mut quiet, 1), (&mut busy, 2)] {
                process.succeeds(&format!("send {index}"));
                stream.read_exact(&mut [0; MARKER.len()]).expect("received");
                stream.write_all(MARKER).expect("sent");
                process.succeeds(&format!("receive {index}"));
            }
            process.quit();
            assert_eq!(near.arrived().concat(), b"");
        }
    });
}

/// A connection that is not established yet, because the backlog of the listener is full.
#[test]
fn connection_in_syn_sent() {
    if !can_destroy_sockets("connection_in_syn_sent") {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup, elsewhere) =
            (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
        let at = SocketAddr::new(Namespace::near(Family::V4), 8080);
        let mut full = ScriptedClient::start(&test_client(), &elsewhere);
        for step in ["tcp4", &format!("bind 0 {at}"), "listen 0 0"] {
            full.succeeds(step);
        }
        let first = TcpStream::connect(at).expect("the backlog has one free entry");
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.succeeds("tcp4");
        process.succeeds(&format!("begin 0 {at}"));
        let (output, existing) = attach(&fixture, &cgroup, "shop", "{default: block}", &DESTROY);
        output.expect_code(0);
        assert_eq!(reported(&existing), [["tcp", "block", "-", "destroyed"]]);
        assert_eq!(existing["sockets"][0]["state"], "syn-sent");
        process.fails("receive 0", "ECONNABORTED");
        drop(first);
        process.quit();
        full.quit();
    });
}

/// The scope is the cgroup with its descendants, in any network namespace, also after the process or its cgroup is gone.
/// Sibling cgroups are not affected.
#[test]
fn child_cgroups_and_other_namespaces() {
    if !can_destroy_sockets("child_cgroups_and_other_namespaces") {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup, other) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
        let (inner, passing) = (cgroup.child("inner"), cgroup.child("passing"));
        let mut below = Four::start(&inner, Family::V4, ["tcp4", "udp4"], false);
        let mut beside = Four::start(&other, Family::V4, ["tcp4", "udp4"], false);
        let mut came = Four::start(&other, Family::V4, ["tcp4", "udp4"], false);
        cgroup.add_process(came.process.pid());
        let mut left = Four::start(&inner, Family::V4, ["tcp4", "udp4"], false);
        other.add_process(left.process.pid());
        let mut orphaned = Four::start(&passing, Family::V4, ["tcp4", "udp4"], false);
        cgroup.add_process(orphaned.process.pid());
        passing.remove();

        let mut report = None;
        // In another network namespace than that of the sockets.
        Namespace::run(|_| report = Some(attach(&fixture, &cgroup, "shop", NOT_NEAR, &DESTROY)));
        let (output, existing) = report.expect("an answer");
        output.expect_code(0);
        assert_eq!(reported(&existing).len(), 6, "{existing:#}");
        assert_eq!(existing["networks"], 2);
        for four in [&mut below, &mut left, &mut orphaned] {
            four.process.fails(&format!("receive {TCP_NEAR}"), "ECONNABORTED");
            four.process.fails(&format!("receive {UDP_NEAR}"), "ECONNABORTED");
        }
        for send in [format!("send {TCP_NEAR}"), format!("send {UDP_NEAR}")] {
            beside.process.succeeds(&send);
            // Its sockets belong to another cgroup and survive; LSM programs check the task that uses them.
            if has_lsm() {
                came.process.fails(&send, "EPERM");
            } else {
                came.process.succeeds(&send);
            }
        }
        let gone = existing["sockets"].as_array().expect("sockets").iter();
        assert_eq!(gone.filter(|socket| socket["cgroup"].is_null()).count(), 2);
        below.arrived([1, 1, 1, 1]);
        left.arrived([1, 1, 1, 1]);
        orphaned.arrived([1, 1, 1, 1]);
        beside.arrived([2, 1, 2, 1]);
        let more = if has_lsm() { 1 } else { 2 };
        came.arrived([more, 1, more, 1]);
    });
}

/// The strictest of several policies decides, also on different cgroups, and the report names it.
#[test]
fn several_policies_in_a_batch() {
    if !can_destroy_sockets("several_policies_in_a_batch") {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let inner = cgroup.child("inner");
        let mut four = Four::start(&inner, Family::V4, ["tcp4", "udp4"], false);
        let watching = "{mode: audit, default: kill}";
        let batch = format!(
            "{} {}\n{} {}\n{} {}\n",
            fixture.policy("watching", watching),
            inner.cgroup_path(),
            fixture.policy("outer", NOT_NEAR),
            cgroup.cgroup_path(),
            fixture.policy("idle", "{default: allow}"),
            inner.cgroup_path(),
        );
        let file = fixture.dir().write("batch", &batch);
        let file = file.display().to_string();
        let output = fixture.run(["attach", "--batch", &file, "--existing", "destroy"]);
        output.expect_code(0);
        let rows = |text: &str| output.stdout.lines().filter(|line| line.contains(text)).count();
        assert_eq!(rows("outer/it"), 2, "{}", output.stdout);
        assert_eq!(rows("watching/(default)"), 2, "{}", output.stdout);
        assert_eq!(rows("test-client["), 4, "{}", output.stdout);
        let sum = "existing sockets: 0 allowed, 4 reported, 2 destroyed, 2 would be destroyed, 0 inbound, unchanged";
        assert!(output.stdout.contains(sum), "no `{sum}` in\n{}", output.stdout);
        four.process.fails(&format!("receive {TCP_NEAR}"), "ECONNABORTED");
        four.process.succeeds(&format!("send {TCP_FAR}"));
        four.arrived([1, 2, 1, 1]);
    });
}

/// Rules with executables match the process that holds the socket.
#[test]
fn executable_rules_use_the_socket_holder() {
    if !can_destroy_sockets("executable_rules_use_the_socket_holder") {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let copied = |name: &str| fixture.dir().copy_program(test_client().path(), name);
        let (own, other) = (copied("test-client"), copied("other"));
        let spec = |file: &std::path::Path| {
            format!(
                "{{default: block, rules: [{{name: it, action: allow, to: any, process: {{binaries: [{}]}}}}]}}",
                file.display()
            )
        };
        let mut process = ScriptedClient::start(&TestClient::at(&own), &cgroup);
        let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        process.succeeds("udp4");
        process.succeeds(&format!("connect 0 {}", receiver.address()));
        let (output, existing) = attach(&fixture, &cgroup, "own", &spec(&own), &DESTROY);
        output.expect_code(0);
        assert_eq!((reported(&existing).len(), &existing["allowed"]), (0, &1.into()));
        process.succeeds("send 0");
        let (output, existing) = attach(&fixture, &cgroup, "other", &spec(&other), &DESTROY);
        output.expect_code(0);
        assert_eq!(reported(&existing), [["udp", "block", "-", "destroyed"]]);
        process.fails("receive 0", "ECONNABORTED");
        process.quit();
        assert_eq!(receiver.arrived().len(), 1);
    });
}

/// A raw socket can only be disconnected: its process can still send. This is reported as a failure.
#[test]
fn sockets_that_cannot_be_destroyed_are_reported() {
    if !can_destroy_sockets("sockets_that_cannot_be_destroyed_are_reported")
        || !met(
            "sockets_that_cannot_be_destroyed_are_reported",
            &[Need::Kernel(
                lists_sockets(libc::IPPROTO_RAW),
                "cannot list raw sockets",
            )],
        )
    {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        let receiver = Receiver::listen(Transport::Raw, Namespace::near(Family::V4));
        process.succeeds("raw4");
        process.succeeds(&format!("connect 0 {}", receiver.address()));
        let (output, existing) = attach(&fixture, &cgroup, "shop", "{default: block}", &DESTROY);
        output.expect_code(5);
        assert_eq!(reported(&existing), [["raw", "block", "-", "disconnected"]]);
        assert_eq!(
            existing["sockets"][0]["peer"],
            receiver.address().ip().to_string()
        );
        process.fails("receive 0", "ECONNABORTED");
        process.fails("send 0", "EDESTADDRREQ");
        // It can still send.
        process.succeeds(&format!("sendto 0 {}", receiver.address()));
        process.quit();
        assert_eq!(receiver.arrived().len(), 1);
    });
}
