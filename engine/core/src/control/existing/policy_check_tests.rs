//! Verdicts of compiled policies on sockets.

use std::path::Path;

use engine_common::{Action, ExecutableId, Fault, Protocol, Reason, image::Revision};

use super::policy_check::{Executable, LivePolicy, strictest};
use crate::{
    compile::{Identities, compile},
    policy::{LoadContext, load_text},
    sockets::Socket,
};

/// The executable that the policies of these tests select.
const NAMED: ExecutableId = ExecutableId { device: 8, inode: 15 };
const OTHER: ExecutableId = ExecutableId { device: 8, inode: 16 };

fn live(name: &str, spec: &str) -> LivePolicy {
    let text =
        format!("apiVersion: tidegate.io/v1\nkind: EgressPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n");
    let loaded = load_text(name, &text, Path::new("/"), &LoadContext::default());
    let policy = loaded.policy.unwrap();
    let mut executables = Identities::default();
    executables.insert("/bin/named".into(), NAMED);
    let revision = Revision {
        generation: 1,
        mode: policy.mode,
    };
    LivePolicy {
        name: name.to_owned(),
        image: compile(&policy, &executables, revision).unwrap(),
        rules: policy.rules.iter().map(|rule| rule.name.clone()).collect(),
    }
}

fn socket(protocol: Protocol, peer: &str) -> Socket {
    Socket::sample(protocol, peer.parse().unwrap(), 1000)
}

/// Policy, action, rule, and whether it denies.
fn verdict_of(
    policies: &[LivePolicy],
    socket: &Socket,
    executables: &[Executable],
) -> (String, Action, Option<String>, bool) {
    let found = strictest(policies, socket, executables).unwrap();
    let policy = found.policy.name.clone();
    (policy, found.verdict.action, found.rule(), found.denied)
}

const BY_ADDRESS: &str =
    "{default: block, rules: [{name: web, action: allow, to: [198.51.100.1], ports: [\"443/tcp\"]}]}";

#[test]
fn by_peer_in_each_representation() {
    let policies = [live("shop", BY_ADDRESS)];
    for (protocol, peer, action) in [
        (Protocol::TCP, "198.51.100.1:443", Action::Allow),
        (Protocol::TCP, "[::ffff:198.51.100.1]:443", Action::Allow),
        (Protocol::TCP, "198.51.100.1:80", Action::Block),
        (Protocol::UDP, "198.51.100.1:443", Action::Block),
        (Protocol::TCP, "198.51.100.2:443", Action::Block),
    ] {
        let found = verdict_of(&policies, &socket(protocol, peer), &[Executable::Unknown]);
        assert_eq!(found.1, action, "{protocol:?} {peer}");
    }
}

/// Protocols without an address hook get the verdict of the creation of the socket.
#[test]
fn by_protocol() {
    let to_one = "{default: block, rules: [{name: it, action: allow, to: [198.51.100.1], protocols: [raw]}]}";
    let to_any = "{default: block, rules: [{name: it, action: allow, to: any, protocols: [raw]}]}";
    let raw = socket(Protocol::RAW, "198.51.100.1:253");
    let executables = [Executable::Unknown];
    assert_eq!(
        verdict_of(&[live("shop", to_one)], &raw, &executables).1,
        Action::Block
    );
    assert_eq!(
        verdict_of(&[live("shop", to_any)], &raw, &executables).1,
        Action::Allow
    );
}

#[test]
fn by_user_and_executable() {
    let tcp = socket(Protocol::TCP, "198.51.100.1:443");
    let by_uid = |uid: u32| {
        let spec = format!(
            "{{default: block, rules: [{{name: it, action: allow, to: any, process: {{uids: [{uid}]}}}}]}}"
        );
        verdict_of(&[live("shop", &spec)], &tcp, &[Executable::Unknown]).1
    };
    assert_eq!((by_uid(1000), by_uid(0)), (Action::Allow, Action::Block));

    let spec =
        "{default: block, rules: [{name: it, action: allow, to: any, process: {binaries: [/bin/named]}}]}";
    let policies = [live("shop", spec)];
    let (named, other) = (Executable::Known(NAMED), Executable::Known(OTHER));
    for (executables, action) in [
        (&[named][..], Action::Allow),
        (&[other], Action::Block),
        (&[Executable::Nameless], Action::Block),
        // Held by several processes: the strictest verdict.
        (&[named, other], Action::Block),
    ] {
        let found = verdict_of(&policies, &tcp, executables);
        assert_eq!(
            (found.1, found.3),
            (action, action == Action::Block),
            "{executables:?}"
        );
    }
}

/// An unknown executable is a fault, which denies even if the default is allow.
#[test]
fn unknown_executables_are_denied() {
    let tcp = socket(Protocol::TCP, "198.51.100.1:443");
    let spec =
        "{default: allow, rules: [{name: it, action: block, to: any, process: {binaries: [/bin/named]}}]}";
    let policies = [live("shop", spec)];
    for (executable, reason) in [
        (Executable::Unknown, Reason::Fault(Fault::NoExecutable)),
        (Executable::Nameless, Reason::Default),
        (Executable::Known(OTHER), Reason::Default),
    ] {
        let found = strictest(&policies, &tcp, &[executable]).unwrap();
        assert_eq!(found.verdict.reason, reason, "{executable:?}");
        assert_eq!(found.denied, executable == Executable::Unknown, "{executable:?}");
    }
}

#[test]
fn strictest_of_several_policies() {
    let policies = [
        live("mild", "{default: audit}"),
        live("watching", "{mode: audit, default: kill}"),
        live("shop", BY_ADDRESS),
        live("again", "{default: block}"),
    ];
    let executables = [Executable::Unknown];
    let denied = verdict_of(
        &policies,
        &socket(Protocol::TCP, "198.51.100.9:443"),
        &executables,
    );
    // A denial is stricter than a kill in audit mode.
    assert_eq!(denied, ("shop".to_owned(), Action::Block, None, true));
    let web = socket(Protocol::TCP, "198.51.100.1:443");
    assert_eq!(verdict_of(&policies, &web, &executables).0, "again");
    assert_eq!(
        verdict_of(&policies[..3], &web, &executables),
        ("watching".to_owned(), Action::Kill, None, false)
    );
    assert_eq!(
        verdict_of(&policies[2..3], &web, &executables).2,
        Some("web".to_owned())
    );
}
