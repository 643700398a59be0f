//! A socket is checked against the policies of the cgroup that created it, wherever the task that uses it is; with LSM
//! programs also against those of this task (SECURITY.md).

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{Family, Transport},
    kernel::has_lsm,
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

/// A policy that denies one destination.
fn denying(action: &str, addresses: &str) -> String {
    format!("{{default: allow, errno: EACCES, rules: [{{name: it, action: {action}, to: [{addresses}]}}]}}")
}

const NEAR: &str = r#"198.51.100.1, "2001:db8::1""#;
const FAR: &str = r#"198.51.100.2, "2001:db8::2""#;

/// Receivers at both destinations.
struct Receivers {
    near: Receiver,
    far: Receiver,
}

impl Receivers {
    fn listen(transport: Transport, family: Family) -> Receivers {
        Receivers {
            near: Receiver::listen(transport, Namespace::near(family)),
            far: Receiver::listen(transport, Namespace::far(family)),
        }
    }

    #[track_caller]
    fn expect(&self, near: usize, far: usize) {
        assert_eq!((self.near.arrived().len(), self.far.arrived().len()), (near, far));
    }
}

#[test]
fn process_migration() {
    if !met("process_migration", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, first, second) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
        fixture.attach(&first, "first", &denying("block", NEAR));
        fixture.attach(&second, "second", &denying("block", FAR));
        for (family, udp, tcp) in [(Family::V4, "udp4", "tcp4"), (Family::V6, "udp6", "tcp6")] {
            let udps = Receivers::listen(Transport::Udp, family);
            let tcps = Receivers::listen(Transport::Tcp, family);
            let (near, far) = (udps.near.address(), udps.far.address());
            let mut process = ScriptedClient::start(&test_client(), &first);
            process.succeeds(udp);
            process.succeeds(tcp);
            process.fails(&format!("sendto 0 {near}"), "EACCES");
            second.add_process(process.pid());

            // Sockets created before the migration: the first policy, and with LSM programs also the second one, because
            // the process is now in that cgroup.
            process.fails(&format!("sendto 0 {near}"), "EACCES");
            process.fails(&format!("connect 0 {near}"), "EACCES");
            process.fails(&format!("connect 1 {}", tcps.near.address()), "EACCES");
            let (sendto, connect) = (
                format!("sendto 0 {far}"),
                format!("connect 1 {}", tcps.far.address()),
            );
            if has_lsm() {
                process.fails(&sendto, "EACCES");
                process.fails(&connect, "EACCES");
            } else {
                process.succeeds(&sendto);
                process.succeeds(&connect);
                process.succeeds("send 1");
            }
            // Sockets created after it: only the second policy.
            process.succeeds(udp);
            process.succeeds(tcp);
            process.fails(&format!("sendto 2 {far}"), "EACCES");
            process.succeeds(&format!("sendto 2 {near}"));
            process.fails(&format!("connect 3 {}", tcps.far.address()), "EACCES");
            process.succeeds(&format!("connect 3 {}", tcps.near.address()));
            process.succeeds("send 3");
            process.quit();
            let by_older = usize::from(!has_lsm());
            udps.expect(1, by_older);
            tcps.expect(1, by_older);
            let events = fixture.events();
            let events: Vec<_> = events
                .iter()
                .map(|event| (event.policy.as_deref().unwrap(), event.foreign_socket))
                .collect();
            let by_second = [("second", true), ("second", true)];
            let by_second = if has_lsm() { &by_second[..] } else { &[] };
            let expected = [
                &[
                    ("first", false),
                    ("first", true),
                    ("first", true),
                    ("first", true),
                ],
                by_second,
                &[("second", false), ("second", false)],
            ];
            assert_eq!(events, expected.concat());
        }
    });
}

/// A task that uses a socket of a cgroup that it has left is denied, not killed.
#[test]
fn no_kill_for_a_socket_of_another_cgroup() {
    if !met("no_kill_for_a_socket_of_another_cgroup", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, first, second) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
        fixture.attach(&first, "first", &denying("kill", NEAR));
        let receivers = Receivers::listen(Transport::Udp, Family::V4);
        let mut process = ScriptedClient::start(&test_client(), &first);
        process.succeeds("udp4");
        second.add_process(process.pid());
        process.fails(&format!("sendto 0 {}", receivers.near.address()), "EACCES");
        process.succeeds("udp4");
        process.succeeds(&format!("sendto 1 {}", receivers.near.address()));
        first.add_process(process.pid());
        process.start_step(&format!("sendto 0 {}", receivers.near.address()));
        assert_eq!(process.finish().signal(), Some(libc::SIGKILL));
        receivers.expect(1, 0);
        let outcomes: Vec<_> = fixture.events().into_iter().map(|event| event.outcome).collect();
        assert_eq!(outcomes, ["blocked", "killed"]);
    });
}

/// Sockets created before the policy: new destinations are checked, established connections survive.
#[test]
fn sockets_created_before_the_policy() {
    if !met("sockets_created_before_the_policy", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for (family, udp, tcp) in [(Family::V4, "udp4", "tcp4"), (Family::V6, "udp6", "tcp6")] {
            let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
            let udps = Receivers::listen(Transport::Udp, family);
            let tcps = Receivers::listen(Transport::Tcp, family);
            let (near, far) = (udps.near.address(), udps.far.address());
            let mut process = ScriptedClient::start(&test_client(), &cgroup);
            for socket in [udp, udp, tcp, tcp] {
                process.succeeds(socket);
            }
            process.succeeds(&format!("connect 1 {near}"));
            process.succeeds(&format!("connect 3 {}", tcps.near.address()));
            fixture.attach(&cgroup, "shop", "{default: block, errno: EACCES}");

            process.fails(&format!("sendto 0 {near}"), "EACCES");
            process.fails(&format!("connect 0 {near}"), "EACCES");
            process.fails(&format!("connect 2 {}", tcps.near.address()), "EACCES");
            udps.expect(0, 0);
            // Connected sockets are checked only for another destination.
            process.succeeds("send 1");
            process.succeeds("send 3");
            process.fails(&format!("sendto 1 {far}"), "EACCES");
            process.fails(&format!("connect 1 {far}"), "EACCES");
            process.quit();
            udps.expect(1, 0);
            tcps.expect(1, 0);
            assert_eq!(fixture.status().total("shop", "blocked"), 5);
        }
    });
}

/// The same for an update: connections that an earlier version allowed survive.
#[test]
fn sockets_connected_under_an_earlier_version() {
    if !met("sockets_connected_under_an_earlier_version", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let receivers = Receivers::listen(Transport::Udp, Family::V4);
        fixture.attach(&cgroup, "shop", "{default: allow}");
        let mut process = ScriptedClient::start(&test_client(), &cgroup);
        process.succeeds("udp4");
        process.succeeds(&format!("connect 0 {}", receivers.near.address()));
        fixture.apply("shop", &denying("block", NEAR));
        process.succeeds("send 0");
        process.fails(&format!("sendto 0 {}", receivers.near.address()), "EACCES");
        process.quit();
        receivers.expect(1, 0);
    });
}

/// The cgroup is removed while a process that has left it still has one of its sockets: the policy still applies.
#[test]
fn socket_outlives_its_cgroup() {
    if !met("socket_outlives_its_cgroup", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup, other) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
        let inner = cgroup.child("inner");
        let receivers = Receivers::listen(Transport::Udp, Family::V4);
        fixture.attach(&inner, "shop", &denying("block", NEAR));
        let mut process = ScriptedClient::start(&test_client(), &inner);
        process.succeeds("udp4");
        other.add_process(process.pid());
        inner.remove();
        assert_eq!(fixture.status().states("shop"), ["cgroup_removed"]);
        process.fails(&format!("sendto 0 {}", receivers.near.address()), "EACCES");
        fixture.apply("shop", &denying("block", FAR));
        process.succeeds(&format!("sendto 0 {}", receivers.near.address()));
        process.fails(&format!("sendto 0 {}", receivers.far.address()), "EACCES");
        fixture.run_ok(["detach", "shop"]);
        process.succeeds(&format!("sendto 0 {}", receivers.far.address()));
        process.quit();
        receivers.expect(1, 1);
    });
}
