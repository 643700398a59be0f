//! Unspecified destinations (`0.0.0.0`, `::`, `::ffff:0.0.0.0`): the kernel sends to an address that source and device
//! of the socket decide. What a policy evaluates is what is sent. What the receivers get is the reference.
#![expect(clippy::expect_used, reason = "a fixture that does not work fails the test")]

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    process::Command,
};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    client_result::ClientResult,
    egress_method::Transport,
    kernel::has_lsm,
    namespace::Namespace,
    receiver::Receiver,
    report::Event,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};

/// Addresses of the machine with receivers on one port. The last one of each family is on the device `tg0`.
const ADDRESSES: [&str; 8] = [
    "127.0.0.1",
    "127.0.0.6",
    "198.51.100.1",
    "203.0.113.1",
    "203.0.113.129",
    "::1",
    "2001:db8::1",
    "2001:db8:1::1",
];

/// What a call to an unspecified destination is evaluated as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Evaluated {
    /// This address. The flag: bind(2) has fixed it, so that a program that cannot replace the destination knows it too.
    As(&'static str, bool),
    /// The strictest verdict of any destination: it depends on a device. The destination as it was given.
    Any(&'static str),
}

use Evaluated::{Any, As};

const FIXED: bool = true;
const NOT_FIXED: bool = false;

/// A way to send to an unspecified destination, as steps of the test client. `PORT` is the port of the receivers.
struct Variant {
    transport: Transport,
    setup: &'static [&'static str],
    attempt: &'static [&'static str],
    evaluated: Evaluated,
}

const fn tcp(
    setup: &'static [&'static str],
    attempt: &'static [&'static str],
    evaluated: Evaluated,
) -> Variant {
    Variant {
        transport: Transport::Tcp,
        setup,
        attempt,
        evaluated,
    }
}

const fn udp(
    setup: &'static [&'static str],
    attempt: &'static [&'static str],
    evaluated: Evaluated,
) -> Variant {
    Variant {
        transport: Transport::Udp,
        setup,
        attempt,
        evaluated,
    }
}

const BIND: &str = "bind 0 198.51.100.1:0";
const BIND_MAPPED: &str = "bind 0 [::ffff:198.51.100.1]:0";
const BIND_V6: &str = "bind 0 [2001:db8::1]:0";
const DEVICE: &str = "device 0 tg0";
const UNICAST: &str = "unicast-if4 0 tg0";
const BEGIN: &[&str] = &["begin 0 0.0.0.0:PORT"];
const BEGIN_V6: &[&str] = &["begin 0 [::]:PORT"];
const BEGIN_MAPPED: &[&str] = &["begin 0 [::ffff:0.0.0.0]:PORT"];
const SENDTO: &[&str] = &["sendto 0 0.0.0.0:PORT"];
const SENDTO_V6: &[&str] = &["sendto 0 [::]:PORT"];
const SENDTO_MAPPED: &[&str] = &["sendto 0 [::ffff:0.0.0.0]:PORT"];
const CONNECT: &[&str] = &["connect 0 0.0.0.0:PORT", "send 0"];
const CONNECT_V6: &[&str] = &["connect 0 [::]:PORT", "send 0"];
const CONNECT_MAPPED: &[&str] = &["connect 0 [::ffff:0.0.0.0]:PORT", "send 0"];

const LO: Evaluated = As("127.0.0.1", NOT_FIXED);
const LO_V6: Evaluated = As("::1", NOT_FIXED);
const BOUND: Evaluated = As("198.51.100.1", FIXED);
const UNKNOWN: Evaluated = Any("0.0.0.0");

const VARIANTS: &[Variant] = &[
    tcp(&["tcp4"], BEGIN, LO),
    tcp(&["tcp4", BIND], BEGIN, BOUND),
    tcp(&["tcp4", DEVICE], BEGIN, UNKNOWN),
    // The kernel looks for the bound address on the device, and finds nobody there.
    tcp(&["tcp4", BIND, DEVICE], BEGIN, BOUND),
    tcp(
        &["tcp4", "bind 0 203.0.113.129:0", DEVICE],
        BEGIN,
        As("203.0.113.129", FIXED),
    ),
    tcp(&["tcp4", UNICAST], BEGIN, LO),
    tcp(&["tcp4", "bind 0 224.0.0.1:0"], BEGIN, LO),
    tcp(&["tcp4", "bind 0 224.0.0.1:0", DEVICE], BEGIN, UNKNOWN),
    tcp(&["tcp4", BIND], &["fast-open 0 0.0.0.0:PORT"], BOUND),
    tcp(&["tcp4", DEVICE], &["fast-open 0 0.0.0.0:PORT"], UNKNOWN),
    tcp(&["tcp4", BIND], &["uring-connect 0 0.0.0.0:PORT"], BOUND),
    tcp(&["tcp6"], BEGIN_V6, LO_V6),
    tcp(&["tcp6"], BEGIN_MAPPED, LO),
    tcp(&["tcp6", BIND_MAPPED], BEGIN_V6, As("127.0.0.1", FIXED)),
    tcp(&["tcp6", BIND_MAPPED], BEGIN_MAPPED, BOUND),
    tcp(
        &["tcp6", BIND_MAPPED],
        &["fast-open 0 [::]:PORT"],
        As("127.0.0.1", FIXED),
    ),
    tcp(&["tcp6", BIND_V6], BEGIN_V6, As("::1", FIXED)),
    tcp(&["tcp6", DEVICE], BEGIN_V6, LO_V6),
    tcp(&["tcp6", DEVICE], BEGIN_MAPPED, UNKNOWN),
    udp(&["udp4"], SENDTO, LO),
    udp(&["udp4", BIND], SENDTO, BOUND),
    udp(&["udp4", DEVICE], SENDTO, UNKNOWN),
    udp(&["udp4", BIND, DEVICE], SENDTO, BOUND),
    udp(&["udp4", UNICAST], SENDTO, LO),
    udp(&["udp4", BIND, UNICAST], SENDTO, BOUND),
    udp(&["udp4", "bind 0 224.0.0.1:0"], SENDTO, LO),
    udp(&["udp4", "bind 0 198.51.100.255:0"], SENDTO, LO),
    udp(
        &["udp4"],
        &["message 0 0.0.0.0:PORT 198.51.100.1 -"],
        As("198.51.100.1", NOT_FIXED),
    ),
    udp(&["udp4"], &["message 0 0.0.0.0:PORT 0.0.0.0 tg0"], LO),
    udp(
        &["udp4"],
        &["message 0 0.0.0.0:PORT 198.51.100.1 tg0"],
        As("198.51.100.1", NOT_FIXED),
    ),
    udp(&["udp4"], &["message 0 0.0.0.0:PORT 127.0.0.1 tg0"], LO),
    udp(
        &["udp4", BIND],
        &["message 0 0.0.0.0:PORT 203.0.113.1 -"],
        As("203.0.113.1", NOT_FIXED),
    ),
    udp(
        &["udp4", "connect 0 203.0.113.1:9"],
        SENDTO,
        As("203.0.113.1", NOT_FIXED),
    ),
    udp(
        &["udp4", "connect 0 203.0.113.1:9"],
        CONNECT,
        As("203.0.113.1", NOT_FIXED),
    ),
    udp(&["udp4", "connect 0 203.0.113.1:9", "disconnect 0"], SENDTO, LO),
    udp(&["udp4"], CONNECT, LO),
    udp(&["udp4", BIND], CONNECT, BOUND),
    udp(&["udp4", DEVICE], CONNECT, UNKNOWN),
    udp(&["udp4", UNICAST], CONNECT, LO),
    udp(&["udp4", "bind 0 224.0.0.1:0"], CONNECT, LO),
    udp(&["udp6"], SENDTO_V6, LO_V6),
    udp(&["udp6"], SENDTO_MAPPED, LO),
    udp(&["udp6"], SENDTO, LO),
    udp(&["udp6", BIND_MAPPED], SENDTO_V6, As("127.0.0.1", FIXED)),
    udp(&["udp6", BIND_MAPPED], SENDTO_MAPPED, BOUND),
    udp(&["udp6", BIND_MAPPED], SENDTO, BOUND),
    udp(&["udp6", BIND_V6], SENDTO_V6, As("::1", FIXED)),
    udp(&["udp6", DEVICE], SENDTO_V6, LO_V6),
    udp(&["udp6", DEVICE], SENDTO_MAPPED, UNKNOWN),
    udp(&["udp6", UNICAST], SENDTO_MAPPED, LO),
    udp(&["udp6", "unicast-if6 0 tg0"], SENDTO_V6, LO_V6),
    udp(&["udp6"], &["message 0 [::]:PORT 2001:db8::1 -"], LO_V6),
    udp(&["udp6"], &["message 0 [::]:PORT :: tg0"], LO_V6),
    udp(
        &["udp6"],
        &["message 0 [::ffff:0.0.0.0]:PORT ::ffff:198.51.100.1 -"],
        As("198.51.100.1", NOT_FIXED),
    ),
    udp(&["udp6"], CONNECT_V6, LO_V6),
    udp(&["udp6"], CONNECT_MAPPED, LO),
    udp(&["udp6", BIND_MAPPED], CONNECT_V6, As("127.0.0.1", FIXED)),
    udp(&["udp6", BIND_MAPPED], CONNECT_MAPPED, BOUND),
    udp(&["udp6", BIND_MAPPED], CONNECT, BOUND),
    udp(&["udp6", BIND_V6], CONNECT_V6, As("::1", FIXED)),
    udp(&["udp6", DEVICE], CONNECT_MAPPED, UNKNOWN),
    udp(&["udp6", DEVICE], CONNECT, UNKNOWN),
    udp(&["udp6", "connect 0 [2001:db8::1]:9"], CONNECT_V6, LO_V6),
    udp(&["udp6", "connect 0 [2001:db8::1]:9"], SENDTO_MAPPED, LO),
    udp(&["udp6", "connect 0 [2001:db8::1]:9"], CONNECT_MAPPED, LO),
];

impl Variant {
    fn name(&self) -> String {
        let steps = self.setup.iter().chain(self.attempt);
        steps.copied().collect::<Vec<_>>().join("; ")
    }

    /// What a program that cannot replace the destination evaluates.
    fn evaluated_without_replacement(&self) -> Evaluated {
        match self.evaluated {
            As(_, FIXED) | Any(_) => self.evaluated,
            As(..) if self.attempt[0].contains("[::]") => Any("::"),
            As(..) => Any("0.0.0.0"),
        }
    }
}

/// What a run did.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    /// The errno of the step that failed.
    errno: Option<String>,
    /// The addresses whose receiver got something.
    reached: Vec<IpAddr>,
}

/// The receivers, in the namespace of the test.
struct Machine {
    port: u16,
    receivers: Vec<(Transport, Receiver)>,
    test_client: TestClient,
}

impl Machine {
    fn set_up() -> Machine {
        for line in [
            "link add tg0 type veth peer name tg1",
            "link set tg0 up",
            "link set tg1 up",
            "addr add 203.0.113.129/32 dev tg0",
            "addr add 2001:db8:1::1/128 dev tg0 nodad",
        ] {
            let status = Command::new("ip").args(line.split(' ')).status();
            assert!(status.expect("ip").success(), "ip {line}");
        }
        let first = Receiver::listen(Transport::Tcp, address("127.0.0.1"));
        let port = first.address().port();
        let mut receivers = vec![(Transport::Tcp, first)];
        for transport in [Transport::Tcp, Transport::Udp] {
            let missing = if transport == Transport::Tcp { 1 } else { 0 };
            receivers.extend(ADDRESSES[missing..].iter().map(|at| {
                let receiver = Receiver::listen_at(transport, SocketAddr::new(address(at), port));
                (transport, receiver.expect("a protocol of every kernel"))
            }));
        }
        Machine {
            port,
            receivers,
            test_client: TestClient::at(env!("CARGO_BIN_EXE_test-client")),
        }
    }

    /// Runs a variant in a cgroup; its attempt in another one, if that is given. Returns the process id too.
    fn run(&self, variant: &Variant, cgroup: &TestCgroup, then: Option<&TestCgroup>) -> (Run, i32) {
        let mut process = ScriptedClient::start(&self.test_client, cgroup);
        for step in variant.setup {
            process.succeeds(step);
        }
        let pid = process.pid();
        if let Some(cgroup) = then {
            cgroup.add_process(pid);
        }
        let mut errno = None;
        for step in variant.attempt {
            let result: ClientResult = process.run_step(&step.replace("PORT", &self.port.to_string()));
            // A TCP socket does not wait for the other end.
            errno = result.errno.filter(|errno| errno != "EINPROGRESS");
            if errno.is_some() {
                break;
            }
        }
        process.quit();
        let of_transport = self
            .receivers
            .iter()
            .filter(|(transport, _)| *transport == variant.transport);
        let reached = of_transport.flat_map(|(_, receiver)| {
            let at = receiver.address().ip();
            receiver.arrived().into_iter().map(move |_| at)
        });
        let run = Run {
            errno,
            reached: reached.collect(),
        };
        (run, pid.as_raw())
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Runs a test in a namespace with receivers.
fn in_namespace(test: &str, needs: &[Need<'_>], check: impl Fn(&Machine, &AttachFixture) + Send + Sync) {
    if met(test, &[Need::Root, Need::Program("ip")]) && met(test, needs) {
        Namespace::run(|_| check(&Machine::set_up(), &AttachFixture::open()));
    }
}

/// Runs every variant without a policy.
fn without_policy(machine: &Machine) -> Vec<Run> {
    let cgroup = TestCgroup::create();
    VARIANTS
        .iter()
        .map(|variant| machine.run(variant, &cgroup, None).0)
        .collect()
}

/// The variants really differ from loopback; otherwise the other tests would show nothing.
#[test]
fn the_kernel_sends_to_other_addresses() {
    const TEST: &str = "the_kernel_sends_to_other_addresses";
    in_namespace(TEST, &[], |machine, _| {
        let runs = without_policy(machine);
        let is_elsewhere = |run: &&Run| run.reached.iter().any(|at| !at.to_canonical().is_loopback());
        let elsewhere = runs.iter().filter(is_elsewhere).count();
        assert!(elsewhere >= 24, "{elsewhere} of {}: {runs:#?}", runs.len());
        for (variant, run) in VARIANTS.iter().zip(runs) {
            let known = match variant.evaluated {
                As(at, FIXED) => vec![address(at)],
                _ => continue,
            };
            assert!(
                run.reached.is_empty() || run.reached == known,
                "{}: {run:?}",
                variant.name()
            );
        }
    });
}

#[test]
fn policy_that_allows_everything_changes_nothing() {
    const TEST: &str = "policy_that_allows_everything_changes_nothing";
    in_namespace(TEST, &[], |machine, fixture| {
        let plain = without_policy(machine);
        let cgroup = TestCgroup::create();
        fixture.attach(&cgroup, "test", "{default: allow}");
        for (variant, plain) in VARIANTS.iter().zip(plain) {
            let (run, _) = machine.run(variant, &cgroup, None);
            assert_eq!(run, plain, "{}", variant.name());
        }
        assert!(fixture.events().is_empty());
    });
}

/// Groups events by the process.
fn by_process(events: Vec<Event>) -> BTreeMap<i32, Vec<Event>> {
    let mut groups: BTreeMap<i32, Vec<Event>> = BTreeMap::new();
    for event in events {
        groups.entry(event.pid).or_default().push(event);
    }
    groups
}

/// How the attempts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Socket {
    /// In the cgroup in which the socket was created; cgroup hooks replace the destination.
    Own,
    /// The same, but no cgroup hook evaluates the policy.
    OwnWithoutCgroupHooks,
    /// In another cgroup than the one in which the socket was created.
    Foreign,
}

/// Runs every variant under a policy that allows some addresses and blocks all others.
fn check(machine: &Machine, fixture: &AttachFixture, socket: Socket, allowed: &[&str]) {
    let plain = without_policy(machine);
    let (cgroup, outside) = (TestCgroup::create(), TestCgroup::create());
    let to: Vec<String> = allowed.iter().map(|at| format!("\"{at}\"")).collect();
    let hooks = match socket {
        Socket::OwnWithoutCgroupHooks => "hooks: [lsm], ",
        Socket::Own | Socket::Foreign => "",
    };
    // Port 9: connections of the setup.
    let spec = format!(
        "{{{hooks}default: block, errno: EACCES, rules: [
            {{name: here, action: allow, to: [{}]}},
            {{name: setup, action: allow, to: any, ports: [9]}},
        ]}}",
        to.join(", ")
    );
    fixture.attach(&cgroup, "test", &spec);
    let mut failures = Vec::new();
    let mut runs = Vec::new();
    for variant in VARIANTS {
        runs.push(match socket {
            Socket::Foreign => machine.run(variant, &outside, Some(&cgroup)),
            Socket::Own | Socket::OwnWithoutCgroupHooks => machine.run(variant, &cgroup, None),
        });
    }
    let mut events = by_process(fixture.events());
    for ((variant, plain), (run, pid)) in VARIANTS.iter().zip(&plain).zip(&runs) {
        let events = events.remove(pid).unwrap_or_default();
        let evaluated = match socket {
            Socket::Own => variant.evaluated,
            Socket::Foreign | Socket::OwnWithoutCgroupHooks => variant.evaluated_without_replacement(),
        };
        if let Err(why) = expect(evaluated, allowed, plain, run, &events) {
            failures.push(format!(
                "{}: {why}\n  without a policy: {plain:?}\n  under it: {run:?}\n  events: {events:?}",
                variant.name()
            ));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        VARIANTS.len(),
        failures.join("\n")
    );
}

fn expect(
    evaluated: Evaluated,
    allowed: &[&str],
    plain: &Run,
    run: &Run,
    events: &[Event],
) -> Result<(), &'static str> {
    let that = |holds: bool, why| if holds { Ok(()) } else { Err(why) };
    if !plain.reached.is_empty() || plain.errno.is_none() {
        match evaluated {
            As(at, _) if allowed.contains(&at) => {
                let at = address(at);
                that(events.is_empty(), "an event for what is allowed")?;
                that(
                    run.reached.iter().all(|&reached| reached == at),
                    "another address was reached",
                )?;
                return that(
                    plain.reached != [at] || run == plain,
                    "what is allowed does not arrive",
                );
            }
            As(at, _) | Any(at) => {
                that(run.reached.is_empty(), "what is denied arrives")?;
                let [event] = events else {
                    return Err("not exactly one event");
                };
                that(event.outcome == "blocked", "not blocked")?;
                that(run.errno == event.errno, "another errno than in the event")?;
                let destination = event.destination.map(|to| to.address);
                return that(
                    destination == Some(address(at)),
                    "the event has another destination",
                );
            }
        }
    }
    // The kernel refuses it anyway, before or after the hook.
    that(run.reached.is_empty(), "it arrives only under the policy")
}

/// A policy that allows only loopback.
const LOOPBACK: [&str; 3] = ["127.0.0.1", "127.0.0.6", "::1"];

#[test]
fn only_loopback_is_allowed() {
    in_namespace("only_loopback_is_allowed", &[], |machine, fixture| {
        check(machine, fixture, Socket::Own, &LOOPBACK);
    });
}

#[test]
fn only_the_bound_address_is_allowed() {
    in_namespace("only_the_bound_address_is_allowed", &[], |machine, fixture| {
        check(machine, fixture, Socket::Own, &["198.51.100.1"]);
    });
}

#[test]
fn foreign_sockets() {
    let needs = [Need::Kernel(has_lsm(), "LSM programs do not run")];
    in_namespace("foreign_sockets", &needs, |machine, fixture| {
        check(machine, fixture, Socket::Foreign, &LOOPBACK);
    });
}

#[test]
fn policy_without_cgroup_hooks() {
    let needs = [Need::Kernel(has_lsm(), "LSM programs do not run")];
    in_namespace("policy_without_cgroup_hooks", &needs, |machine, fixture| {
        check(machine, fixture, Socket::OwnWithoutCgroupHooks, &LOOPBACK);
    });
}

/// Everything is reported and nothing denied: an event names what was reached, and what the caller gave.
#[test]
fn event_names_what_is_reached() {
    in_namespace("event_names_what_is_reached", &[], |machine, fixture| {
        let plain = without_policy(machine);
        let cgroup = TestCgroup::create();
        fixture.attach(&cgroup, "test", "{default: audit, deduplicate: {audit: off}}");
        let runs = VARIANTS.iter().map(|variant| machine.run(variant, &cgroup, None));
        let runs: Vec<_> = runs.collect();
        let mut events = by_process(fixture.events());
        for ((variant, plain), (run, pid)) in VARIANTS.iter().zip(&plain).zip(runs) {
            let what = format!("{}: {plain:?} {run:?}", variant.name());
            let events = events.remove(&pid).unwrap_or_default();
            // Without the connections of the setup. A later `send` may be reported as well.
            let port = Some(machine.port);
            let is_attempt = |event: &&Event| event.destination.is_some_and(|to| to.port == port);
            let Some(event) = events.iter().find(is_attempt) else {
                assert!(plain.errno.is_some(), "{what}: no event");
                continue;
            };
            let destination = event.destination.expect("a destination").address;
            match variant.evaluated {
                As(at, _) => {
                    assert_eq!(destination, address(at), "{what}");
                    assert!(run.reached.iter().all(|&at| at == destination), "{what}");
                }
                Any(given) => {
                    assert_eq!(destination, address(given), "{what}");
                    assert_eq!(run.reached, plain.reached, "{what}");
                }
            }
            let given = event.original.map_or(destination, |original| original.address);
            // For `::` on a socket that is bound to an IPv4-mapped address the kernel calls `sendmsg4` with 127.0.0.1.
            let is_replaced = event.hook == "sendmsg4" && variant.attempt == SENDTO_V6;
            assert!(
                given.to_canonical().is_unspecified() || is_replaced,
                "{what}: {event:?}"
            );
        }
    });
}
