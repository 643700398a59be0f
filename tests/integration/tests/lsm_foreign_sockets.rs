//! A task under a policy uses sockets of other cgroups: connected and unconnected ones.

use std::{io::Read, net::TcpStream};

use integration::{
    attached::{AttachFixture, in_cgroup},
    cgroup::TestCgroup,
    egress_method::{Family, MARKER, Transport},
    kernel::has_lsm,
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

const BLOCKING: &str = "{default: block, errno: EACCES}";

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn with_lsm(test: &str, act: impl Fn(AttachFixture, TestCgroup, TestCgroup) + Send + Sync) {
    let needs = [Need::Root, Need::Kernel(has_lsm(), "LSM programs do not run")];
    if met(test, &needs) {
        Namespace::run(|_| act(AttachFixture::open(), TestCgroup::create(), TestCgroup::create()));
    }
}

/// A process migrates into a cgroup with a policy: nothing more is sent over its connected sockets.
#[test]
fn connected_before_migration() {
    with_lsm("connected_before_migration", |fixture, outside, inside| {
        fixture.attach(&inside, "test", BLOCKING);
        for family in Family::ALL {
            let udp = Receiver::listen(Transport::Udp, Namespace::near(family));
            let tcp = Receiver::listen(Transport::Tcp, Namespace::near(family));
            let (datagram, stream) = match family {
                Family::V4 => ("udp4", "tcp4"),
                Family::V6 => ("udp6", "tcp6"),
            };
            let mut process = ScriptedClient::start(&test_client(), &outside);
            process.succeeds(datagram);
            process.succeeds(stream);
            process.succeeds(&format!("connect 0 {}", udp.address()));
            process.succeeds(&format!("connect 1 {}", tcp.address()));
            process.succeeds("send 0");
            inside.add_process(process.pid());
            process.fails("send 0", "EACCES");
            process.fails("send 1", "EACCES");
            process.quit();
            assert_eq!(udp.arrived(), [MARKER], "{family:?}");
            assert_eq!(
                tcp.arrived(),
                [b""],
                "connected before the migration, no data after it"
            );
            let events = fixture.events();
            for (event, receiver) in events.iter().zip([&udp, &tcp]) {
                assert!(event.foreign_socket, "{event:?}");
                assert_eq!(
                    (event.hook.as_str(), event.outcome.as_str()),
                    ("lsm_sendmsg", "blocked")
                );
                let destination = event.destination.as_ref().expect("the peer");
                assert_eq!(
                    (destination.address, destination.port),
                    (receiver.address().ip(), Some(receiver.address().port()))
                );
            }
            assert_eq!(events.len(), 2);
        }
    });
}

/// Inbound connections can still be answered: the process has not opened them.
#[test]
fn accepted_before_migration() {
    with_lsm("accepted_before_migration", |fixture, outside, inside| {
        fixture.attach(&inside, "test", BLOCKING);
        let mut process = ScriptedClient::start(&test_client(), &outside);
        let here = "198.51.100.1:4711";
        process.succeeds("tcp4");
        process.succeeds(&format!("bind 0 {here}"));
        process.succeeds("listen 0 1");
        let mut client = TcpStream::connect(here).expect("it listens");
        process.succeeds("accept 0");
        inside.add_process(process.pid());
        process.succeeds("send 1");
        process.quit();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an answer");
        assert_eq!(answer, MARKER);
        assert!(fixture.events().is_empty());
    });
}

/// Sockets of protocols without an address hook, created before the migration.
#[test]
fn raw_sockets_created_before_migration() {
    with_lsm(
        "raw_sockets_created_before_migration",
        |fixture, outside, inside| {
            fixture.attach(&inside, "test", BLOCKING);
            let receiver = Receiver::listen(Transport::Raw, Namespace::near(Family::V4));
            let mut process = ScriptedClient::start(&test_client(), &outside);
            process.succeeds("socket 2 3 253");
            process.succeeds("socket 17 2 8");
            let to = receiver.address();
            process.succeeds(&format!("sendto 0 {to}"));
            inside.add_process(process.pid());
            process.fails(&format!("sendto 0 {to}"), "EACCES");
            // Denied by family, for every address.
            process.fails(&format!("sendto 1 {to}"), "EACCES");
            process.quit();
            assert_eq!(receiver.arrived(), [MARKER]);
            let events = fixture.events();
            let events: Vec<_> = events.iter().map(|event| event.protocol.as_str()).collect();
            assert_eq!(events, ["raw", "packet"]);
        },
    );
}

/// Both policies are evaluated, that of the task first; the strictest verdict is enforced.
#[test]
fn both_policies_are_checked() {
    with_lsm("both_policies_are_checked", |fixture, outside, inside| {
        fixture.attach(&inside, "task", "{default: audit, deduplicate: {audit: off}}");
        fixture.attach(&outside, "socket", "{default: audit, deduplicate: {audit: off}}");
        let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        let mut process = ScriptedClient::start(&test_client(), &outside);
        process.succeeds("udp4");
        inside.add_process(process.pid());
        let step = format!("sendto 0 {}", receiver.address());
        process.succeeds(&step);
        fixture.apply("socket", "{default: block, errno: EACCES}");
        process.fails(&step, "EACCES");
        process.quit();
        assert_eq!(receiver.arrived(), [MARKER]);
        let events = fixture.events();
        let events: Vec<_> = events
            .iter()
            .map(|event| {
                (
                    event.policy.as_deref(),
                    event.hook.as_str(),
                    event.outcome.as_str(),
                )
            })
            .collect();
        let (task, socket) = (Some("task"), Some("socket"));
        assert_eq!(
            events,
            [
                (task, "lsm_sendmsg", "audited"),
                (socket, "sendmsg4", "audited"),
                (task, "lsm_sendmsg", "audited"),
                (socket, "sendmsg4", "blocked"),
            ]
        );
    });
}

/// Tasks without a policy, or in a sibling cgroup, are not checked.
#[test]
fn tasks_outside_the_scope_are_not_checked() {
    with_lsm(
        "tasks_outside_the_scope_are_not_checked",
        |fixture, outside, inside| {
            fixture.attach(&inside, "test", BLOCKING);
            let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
            let mut process = ScriptedClient::start(&test_client(), &outside);
            process.succeeds("udp4");
            process.succeeds("socket 17 2 8");
            process.succeeds(&format!("sendto 0 {}", receiver.address()));
            process.quit();
            assert_eq!(receiver.arrived(), [MARKER]);
            assert!(fixture.events().is_empty());
        },
    );
}

/// No other hook sees an SCTP association that a socket option creates.
#[test]
fn sctp_association_by_socket_option() {
    const TRY: &str = r"
import errno, socket, struct, sys
made_outside = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)
with open(sys.argv[1], 'w') as processes:
    processes.write('0')
port = int(sys.argv[3])
name = struct.pack('=H', socket.AF_INET) + struct.pack('!H', port) + socket.inet_aton(sys.argv[2]) + bytes(8)
try:
    made_outside.setsockopt(132, 110, name)  # SCTP_SOCKOPT_CONNECTX
    print('done')
except OSError as error:
    print(errno.errorcode[error.errno])
";
    with_lsm("sctp_association_by_socket_option", |fixture, outside, inside| {
        let receiver = Receiver::try_listen(Transport::Sctp, Namespace::near(Family::V4));
        let needs = [
            Need::Kernel(receiver.is_some(), "SCTP is not in this kernel"),
            Need::Program("python3"),
        ];
        if !met("sctp_association_by_socket_option", &needs) {
            return;
        }
        let receiver = receiver.expect("a receiver");
        let (to, port) = (
            receiver.address().ip().to_string(),
            receiver.address().port().to_string(),
        );
        let into = |cgroup: &TestCgroup| {
            let processes = cgroup.path().join("cgroup.procs").display().to_string();
            let args = ["python3", "-c", TRY, &processes, &to, &port].map(Into::into);
            in_cgroup(&outside, &args).stdout.trim().to_owned()
        };
        fixture.attach(&inside, "test", BLOCKING);
        assert_eq!(into(&inside), "EACCES");
        assert!(receiver.arrived().is_empty(), "no association is made");
        let events = fixture.events();
        assert_eq!(events.len(), 1, "{events:#?}");
        assert_eq!(
            (
                events[0].hook.as_str(),
                events[0].outcome.as_str(),
                events[0].protocol.as_str()
            ),
            ("lsm_sctp", "blocked", "sctp")
        );
        assert!(events[0].foreign_socket);
        // It is the policy that denies the association.
        assert_eq!(into(&outside), "done");
    });
}
