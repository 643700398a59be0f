//! Raw sockets under `strict: true`: a rule for `raw` decides; if only the default matches, the protocol in the IP header
//! is checked too.

use std::net::SocketAddr;

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::{Family, MARKER, Transport},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

/// Sends a packet with an own IP header over a socket created before the policy; whether it arrived.
#[track_caller]
fn arrives(spec: &str, rule: Option<&str>) -> bool {
    let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
    let receiver = Receiver::listen(Transport::Raw, Namespace::near(Family::V4));
    let to = SocketAddr::new(Namespace::near(Family::V4), 0);
    let mut process = ScriptedClient::start(&TestClient::at(env!("CARGO_BIN_EXE_test-client")), &cgroup);
    process.succeeds("header4");
    fixture.attach(&cgroup, "shop", spec);
    // The destination in the IP header counts, not that of the call.
    let call_address = SocketAddr::new(Namespace::far(Family::V4), 0);
    let result = process.run_step(&format!("packet 0 {call_address} {to}"));
    process.quit();
    let arrived = receiver.arrived();
    let events = fixture.events();
    if result.ok {
        assert_eq!(arrived, [MARKER], "{spec}");
        assert!(events.is_empty(), "{spec}: {events:#?}");
    } else {
        assert!(arrived.is_empty(), "{spec}");
        assert_eq!(result.errno.as_deref(), Some("EPERM"), "{spec}: {result:?}");
        assert_eq!(events.len(), 1, "{spec}: {events:#?}");
        assert_eq!(
            (events[0].hook.as_str(), events[0].rule.as_deref()),
            ("egress", rule),
            "{spec}"
        );
        let destination = events[0].destination.as_ref().map(|there| there.address);
        assert_eq!(destination, Some(to.ip()), "{spec}");
    }
    result.ok
}

#[test]
fn own_ip_headers() {
    if !met("own_ip_headers", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for (rules, default, passes, rule) in [
            ("", "block", false, None),
            ("", "allow", true, None),
            (
                "{name: r, action: allow, to: any, protocols: [raw]}",
                "block",
                true,
                None,
            ),
            (
                "{name: r, action: allow, to: [198.51.100.1], protocols: [raw]}",
                "block",
                true,
                None,
            ),
            // The address of the call does not matter.
            (
                "{name: r, action: allow, to: [198.51.100.2], protocols: [raw]}",
                "block",
                false,
                None,
            ),
            (
                "{name: r, action: block, to: [198.51.100.1]}",
                "allow",
                false,
                Some("r"),
            ),
            (
                "{name: r, action: block, to: [198.51.100.2]}",
                "allow",
                true,
                None,
            ),
            // No rule for raw: the protocol in the header counts.
            (
                "{name: r, action: block, to: any, protocols: [253]}",
                "allow",
                false,
                Some("r"),
            ),
            (
                "{name: r, action: allow, to: any, protocols: [253]}",
                "block",
                false,
                None,
            ),
            // A rule for raw decides.
            (
                "{name: r, action: allow, to: any, protocols: [raw]}, {name: s, action: block, to: any, protocols: [253]}",
                "allow",
                true,
                None,
            ),
        ] {
            let spec = format!("{{default: {default}, strict: true, rules: [{rules}]}}");
            assert_eq!(arrives(&spec, rule), passes, "{spec}");
        }
    });
}
