//! Verdicts of compiled policies on sockets.

use std::path::Path;

use engine_common::{Action, ExecutableId, Fault, Protocol, Reason, image::Revision};

use super::policy_check::{Executable, LivePolicy, strictest};
use crate::{
    compile::{Identities, compile},
    policy::{LoadContext, load_text},
    sockets::Socket,
};

/// The executable that policies of these tests name.
const NAMED: ExecutableId = ExecutableId { device: 8, inode: 15 };
const OTHER: ExecutableId = ExecutableId { device: 8, inode: 16 };

fn live(name: &str, spec: &str) -> LivePolicy {
    let text =
        format!("apiVersion: tidegate.io/v1\nkind: EgressPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n");
    let loaded = load_text(name, &text, Path::new("/"), &LoadContext::default());
    let policy = loaded.policy.unwrap();
    let mut executables = Identities::default();
    executables.insert("/bin/named".into(), NAMED);
    let life = Revision {
        generation: 1,
        mode: policy.mode,
    };
    LivePolicy {
        name: name.to_owned(),
        image: compile(&policy, &executables, life).unwrap(),
        rules: policy.rules.iter().map(|rule| rule.name.clone()).collect(),
    }
}

fn socket(protocol: Protocol, peer: &str) -> Socket {
    Socket::sample(protocol, peer.parse().unwrap(), 1000)
}

/// Policy, action, rule, and whether it denies.
fn asked(
    policies: &[LivePolicy],
    socket: &Socket,
    who: &[Executable],
) -> (String, Action, Option<String>, bool) {
    let answer = strictest(policies, socket, who).unwrap();
    let policy = answer.policy.name.clone();
    (policy, answer.verdict.action, answer.rule(), answer.denied)
}

const BY_ADDRESS: &str =
    "{default: block, rules: [{name: web, action: allow, to: [198.51.100.1], ports: [\"443/tcp\"]}]}";

#[test]
fn by_the_peer_in_every_spelling() {
    let policies = [live("shop", BY_ADDRESS)];
    for (protocol, peer, action) in [
        (Protocol::TCP, "198.51.100.1:443", Action::Allow),
        (Protocol::TCP, "[::ffff:198.51.100.1]:443", Action::Allow),
        (Protocol::TCP, "198.51.100.1:80", Action::Block),
        (Protocol::UDP, "198.51.100.1:443", Action::Block),
        (Protocol::TCP, "198.51.100.2:443", Action::Block),
    ] {
        let answer = asked(&policies, &socket(protocol, peer), &[Executable::Unknown]);
        assert_eq!(answer.1, action, "{protocol:?} {peer}");
    }
}

/// Protocols without an address hook are checked as when their sockets are created.
#[test]
fn by_the_protocol() {
    let to_one = "{default: block, rules: [{name: it, action: allow, to: [198.51.100.1], protocols: [raw]}]}";
    let to_any = "{default: block, rules: [{name: it, action: allow, to: any, protocols: [raw]}]}";
    let raw = socket(Protocol::RAW, "198.51.100.1:253");
    let who = [Executable::Unknown];
    assert_eq!(asked(&[live("shop", to_one)], &raw, &who).1, Action::Block);
    assert_eq!(asked(&[live("shop", to_any)], &raw, &who).1, Action::Allow);
}

#[test]
fn by_the_user_and_the_executable() {
    let tcp = socket(Protocol::TCP, "198.51.100.1:443");
    let by_uid = |uid: u32| {
        let spec = format!(
            "{{default: block, rules: [{{name: it, action: allow, to: any, process: {{uids: [{uid}]}}}}]}}"
        );
        asked(&[live("shop", &spec)], &tcp, &[Executable::Unknown]).1
    };
    assert_eq!((by_uid(1000), by_uid(0)), (Action::Allow, Action::Block));

    let spec =
        "{default: block, rules: [{name: it, action: allow, to: any, process: {binaries: [/bin/named]}}]}";
    let policies = [live("shop", spec)];
    let (named, other) = (Executable::Known(NAMED), Executable::Known(OTHER));
    for (who, action) in [
        (&[named][..], Action::Allow),
        (&[other], Action::Block),
        (&[Executable::Nameless], Action::Block),
        // Several hold it: the strictest answer.
        (&[named, other], Action::Block),
    ] {
        let answer = asked(&policies, &tcp, who);
        assert_eq!((answer.1, answer.3), (action, action == Action::Block), "{who:?}");
    }
}

/// Who cannot be known is not let pass, whatever the default.
#[test]
fn what_is_not_known_denies() {
    let tcp = socket(Protocol::TCP, "198.51.100.1:443");
    let spec =
        "{default: allow, rules: [{name: it, action: block, to: any, process: {binaries: [/bin/named]}}]}";
    let policies = [live("shop", spec)];
    for (who, reason) in [
        (Executable::Unknown, Reason::Fault(Fault::NoExecutable)),
        (Executable::Nameless, Reason::Default),
        (Executable::Known(OTHER), Reason::Default),
    ] {
        let answer = strictest(&policies, &tcp, &[who]).unwrap();
        assert_eq!(answer.verdict.reason, reason, "{who:?}");
        assert_eq!(answer.denied, who == Executable::Unknown, "{who:?}");
    }
}

#[test]
fn the_strictest_of_several() {
    let policies = [
        live("mild", "{default: audit}"),
        live("watching", "{mode: audit, default: kill}"),
        live("shop", BY_ADDRESS),
        live("again", "{default: block}"),
    ];
    let who = [Executable::Unknown];
    let denied = asked(&policies, &socket(Protocol::TCP, "198.51.100.9:443"), &who);
    // What is denied is stricter than what only would be killed for.
    assert_eq!(denied, ("shop".to_owned(), Action::Block, None, true));
    let web = socket(Protocol::TCP, "198.51.100.1:443");
    assert_eq!(asked(&policies, &web, &who).0, "again");
    assert_eq!(
        asked(&policies[..3], &web, &who),
        ("watching".to_owned(), Action::Kill, None, false)
    );
    assert_eq!(asked(&policies[2..3], &web, &who).2, Some("web".to_owned()));
}
