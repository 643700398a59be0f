//! Sockets of other address families: LSM programs check their creation.

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{Family, MARKER, Transport},
    kernel::{cgroup_hooks_choose_errno, has_lsm},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

const PACKET: &str = "socket 17 2 8";
const VSOCK: &str = "socket 40 1 0";
const NETLINK: &str = "socket 16 3 0";
const UNIX: &str = "socket 1 1 0";

/// Runs a test with a process in a cgroup under the policy, and one outside.
fn with_policy(
    test: &str,
    spec: &str,
    act: impl Fn(&AttachFixture, &mut ScriptedClient, &mut ScriptedClient) + Send + Sync,
) {
    let needs = [Need::Root, Need::Kernel(has_lsm(), "LSM programs do not run")];
    if !met(test, &needs) {
        return;
    }
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    Namespace::run(|_| {
        let (fixture, inside, outside) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
        fixture.attach(&inside, "test", spec);
        let mut inside = ScriptedClient::start(&test_client, &inside);
        let mut free = ScriptedClient::start(&test_client, &outside);
        act(&fixture, &mut inside, &mut free);
        inside.quit();
        free.quit();
    });
}

#[test]
fn denied_by_default() {
    let spec = "{default: block, errno: EACCES, rules: [{name: web, action: allow, to: any, ports: [443]}]}";
    with_policy("denied_by_default", spec, |fixture, inside, free| {
        for family in [PACKET, VSOCK] {
            free.succeeds(family);
            inside.fails(family, "EACCES");
        }
        // Local sockets (unix, netlink) are not checked.
        for family in [NETLINK, UNIX] {
            inside.succeeds(family);
        }
        let events = fixture.events();
        let events: Vec<_> = events
            .iter()
            .map(|event| {
                (
                    event.hook.as_str(),
                    event.protocol.as_str(),
                    event.outcome.as_str(),
                )
            })
            .collect();
        assert_eq!(
            events,
            [
                ("lsm_create", "packet", "blocked"),
                ("lsm_create", "vsock", "blocked")
            ]
        );
        assert_eq!(fixture.status().total("test", "blocked"), 2);
    });
}

#[test]
fn one_rule_allows_one_family() {
    let spec = "{default: block, rules: [{name: guest, action: allow, to: any, families: [vsock]}]}";
    with_policy("one_rule_allows_one_family", spec, |fixture, inside, _| {
        inside.succeeds(VSOCK);
        inside.fails(PACKET, "EPERM");
        assert_eq!(fixture.status().total("test", "allowed"), 1);
    });
}

/// Each socket is reported once, and what it sends arrives.
#[test]
fn audit_mode_reports_them() {
    let spec = "{mode: audit, default: block}";
    with_policy("audit_mode_reports_them", spec, |fixture, inside, _| {
        let receiver = Receiver::listen(Transport::Raw, Namespace::near(Family::V4));
        inside.succeeds(&format!("run packet {}", receiver.address()));
        assert_eq!(receiver.arrived(), [MARKER]);
        let events = fixture.events();
        let events: Vec<_> = events
            .iter()
            .map(|event| (event.protocol.as_str(), event.outcome.as_str()))
            .collect();
        assert_eq!(events, [("packet", "would_block")]);
    });
}

#[test]
fn kill_at_socket_creation() {
    let needs = [Need::Root, Need::Kernel(has_lsm(), "LSM programs do not run")];
    if !met("kill_at_socket_creation", &needs) {
        return;
    }
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    Namespace::run(|_| {
        let (fixture, inside) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&inside, "test", "{default: kill}");
        let mut inside = ScriptedClient::start(&test_client, &inside);
        inside.start_step(PACKET);
        assert_eq!(inside.finish().signal(), Some(libc::SIGKILL));
        let events = fixture.events();
        assert_eq!(
            events
                .iter()
                .map(|event| event.outcome.as_str())
                .collect::<Vec<_>>(),
            ["killed"]
        );
    });
}

/// The programs are attached only while a policy is.
#[test]
fn attached_only_while_needed() {
    with_policy(
        "attached_only_while_needed",
        "{default: block}",
        |fixture, inside, _| {
            let states = |fixture: &AttachFixture| {
                let status = fixture.status().0;
                let all = status["lsm"].as_array().expect("a list").clone();
                all.iter()
                    .map(|hook| hook["state"].as_str().expect("a string").to_owned())
                    .collect::<Vec<_>>()
            };
            assert_eq!(states(fixture), ["attached"; 4]);
            let other = TestCgroup::create();
            fixture.attach(&other, "second", "{default: block}");
            fixture.run_ok(["detach", "test"]);
            inside.succeeds(PACKET);
            assert_eq!(states(fixture), ["attached"; 4]);
            fixture.run_ok(["detach", "second"]);
            // Old kernels can attach a program only once, so it stays attached without effect.
            let left = if cgroup_hooks_choose_errno() {
                "missing"
            } else {
                "attached"
            };
            assert_eq!(states(fixture), [left; 4]);
            inside.succeeds(PACKET);
            fixture.attach(&other, "third", "{default: block}");
            assert_eq!(states(fixture), ["attached"; 4]);
        },
    );
}
