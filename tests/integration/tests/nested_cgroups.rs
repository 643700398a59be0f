//! Nested cgroups, two policies on one cgroup, a delegated subtree: the strictest verdict is enforced, and each policy
//! reports its own events.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{ffi::OsString, fs};

use integration::{
    attached::{AttachFixture, in_cgroup},
    cgroup::TestCgroup,
    client_result::ClientResult,
    egress_method::{EgressMethod, Family, Transport},
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    running_command::CommandOutput,
    test_client::TestClient,
};

const UNPRIVILEGED_UID: u32 = 65534;

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn to_near(receiver: &Receiver) -> Vec<OsString> {
    test_client().args(EgressMethod::TcpConnect, receiver.address(), None)
}

fn listen() -> Receiver {
    Receiver::listen(Transport::Tcp, Namespace::near(Family::V4))
}

/// Policies and outcomes of the unread events, sorted by policy name.
fn outcomes(fixture: &AttachFixture) -> Vec<(String, String)> {
    let events = fixture.events().into_iter();
    let mut outcomes: Vec<_> = events
        .map(|event| (event.policy.unwrap(), event.outcome))
        .collect();
    outcomes.sort();
    outcomes
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected
        .iter()
        .map(|(name, outcome)| ((*name).to_owned(), (*outcome).to_owned()))
        .collect()
}

#[test]
fn parent_and_child_in_all_modes() {
    if !met("parent_and_child_in_all_modes", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, parent, receiver) = (AttachFixture::open(), TestCgroup::create(), listen());
        let child = parent.child("child");
        fixture.attach(&parent, "above", "{default: block, errno: EACCES}");
        fixture.attach(&child, "below", "{default: block, errno: ENETUNREACH}");
        for (above, below, errno) in [
            ("enforce", "enforce", Some("ENETUNREACH")),
            ("enforce", "audit", Some("EACCES")),
            ("audit", "enforce", Some("ENETUNREACH")),
            ("audit", "audit", None),
        ] {
            fixture.run_ok(["set-mode", "above", above]);
            fixture.run_ok(["set-mode", "below", below]);
            let result = fixture.run_client(&child, &to_near(&receiver));
            assert_eq!(result.errno.as_deref(), errno, "{above} above {below}");
            assert_eq!(
                receiver.arrived().len(),
                usize::from(errno.is_none()),
                "{above} above {below}"
            );
            let outcome = |mode| {
                if mode == "enforce" {
                    "blocked"
                } else {
                    "would_block"
                }
            };
            assert_eq!(
                outcomes(&fixture),
                pairs(&[("above", outcome(above)), ("below", outcome(below))])
            );

            // In the parent only its own policy applies.
            let result = fixture.run_client(&parent, &to_near(&receiver));
            assert_eq!(result.ok, above == "audit");
            assert_eq!(receiver.arrived().len(), usize::from(result.ok));
            assert_eq!(outcomes(&fixture), pairs(&[("above", outcome(above))]));
        }
        let status = fixture.status();
        for (name, denied, would) in [("above", 4, 4), ("below", 2, 2)] {
            assert_eq!(status.total(name, "blocked"), denied, "{name}");
            assert_eq!(status.total(name, "would_block"), would, "{name}");
        }
    });
}

/// The parent can deny what the child allows, and the other way round.
#[test]
fn parent_and_child_deny_independently() {
    if !met("parent_and_child_deny_independently", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, parent, receiver) = (AttachFixture::open(), TestCgroup::create(), listen());
        let child = parent.child("child");
        fixture.attach(&parent, "above", "{default: allow}");
        fixture.attach(&child, "below", "{default: allow}");
        // Consecutive pairs do not both audit: the second event would be a duplicate.
        let versions = [
            ("block", "allow"),
            ("allow", "block"),
            ("kill", "audit"),
            ("audit", "kill"),
            ("allow", "audit"),
        ];
        for (above, below) in versions {
            fixture.apply("above", &format!("{{default: {above}}}"));
            fixture.apply("below", &format!("{{default: {below}}}"));
            let output = in_cgroup(&child, &to_near(&receiver));
            let killed = [above, below].contains(&"kill");
            assert_eq!(
                output.signal(),
                killed.then_some(libc::SIGKILL),
                "{above} above {below}"
            );
            let denied = killed || [above, below].contains(&"block");
            assert_eq!(
                receiver.arrived().len(),
                usize::from(!denied),
                "{above} above {below}"
            );
            let outcome_of = [
                ("allow", ""),
                ("audit", "audited"),
                ("block", "blocked"),
                ("kill", "killed"),
            ];
            let outcome = |action| outcome_of.iter().find(|(name, _)| *name == action).unwrap().1;
            let mut expected = vec![("above", outcome(above)), ("below", outcome(below))];
            expected.retain(|(_, outcome)| !outcome.is_empty());
            assert_eq!(outcomes(&fixture), pairs(&expected), "{above} above {below}");
        }
    });
}

#[test]
fn two_policies_on_one_cgroup() {
    if !met("two_policies_on_one_cgroup", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup, receiver) = (AttachFixture::open(), TestCgroup::create(), listen());
        fixture.attach(&cgroup, "one", "{default: audit}");
        fixture.attach(&cgroup, "two", "{default: block, errno: EACCES}");
        let result = fixture.run_client(&cgroup, &to_near(&receiver));
        assert_eq!(result.errno.as_deref(), Some("EACCES"));
        assert_eq!(
            outcomes(&fixture),
            pairs(&[("one", "audited"), ("two", "blocked")])
        );
        fixture.apply("one", "{default: block, errno: ENETUNREACH}");
        let result = fixture.run_client(&cgroup, &to_near(&receiver));
        assert_eq!(
            result.errno.as_deref(),
            Some("ENETUNREACH"),
            "that of the first that denies"
        );
        fixture.apply("two", "{default: kill}");
        assert_eq!(
            in_cgroup(&cgroup, &to_near(&receiver)).signal(),
            Some(libc::SIGKILL)
        );
        receiver.expect_nothing("denied by one or both");
        fixture.events();
        // One is detached, the other stays active.
        fixture.run_ok(["detach", "one"]);
        fixture.apply("two", "{default: block, errno: EACCES}");
        assert_eq!(
            fixture.run_client(&cgroup, &to_near(&receiver)).errno.as_deref(),
            Some("EACCES")
        );
        assert_eq!(outcomes(&fixture), pairs(&[("two", "blocked")]));
    });
}

/// A user creates cgroups in a delegated subtree and starts processes in them, but cannot leave the policy, not even for
/// another subtree of the same user.
#[test]
fn delegated_subtree() {
    if !met("delegated_subtree", &[Need::Root, Need::Program("setpriv")]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, parent, sibling, receiver) = (
            AttachFixture::open(),
            TestCgroup::create(),
            TestCgroup::create(),
            listen(),
        );
        let tree = parent.child("tree");
        for cgroup in [&tree, &sibling] {
            for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                std::os::unix::fs::chown(
                    cgroup.path().join(name),
                    Some(UNPRIVILEGED_UID),
                    Some(UNPRIVILEGED_UID),
                )
                .unwrap();
            }
        }
        fixture.attach(&parent, "shop", "{default: block, errno: EACCES}");
        let program = fixture.dir().copy_program(test_client().path(), "test-client");
        let run = |script: &str| -> CommandOutput {
            let args = [
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--",
                "/bin/sh",
                "-c",
            ];
            let mut args: Vec<OsString> = args.map(OsString::from).to_vec();
            args.extend([
                script.into(),
                "sh".into(),
                tree.path().into(),
                sibling.path().into(),
            ]);
            args.extend([
                parent.path().into(),
                program.clone().into(),
                receiver.address().to_string().into(),
            ]);
            in_cgroup(&tree, &args)
        };
        let held = run(
            r#"mkdir "$1/own" && echo $$ >"$1/own/cgroup.procs" && cat /proc/self/cgroup && "$4" run tcp-connect "$5""#,
        );
        assert!(
            held.expect_code(0).stdout.contains("/tree/own"),
            "{}",
            held.stdout
        );
        assert_eq!(
            ClientResult::read(&held.stdout)[0].errno.as_deref(),
            Some("EACCES")
        );
        for dir in ["$2", "$3", "$3/.."] {
            let tried = run(&format!(
                r#"(echo $$ >"{dir}/cgroup.procs") 2>/dev/null && echo out; exec "$4" run tcp-connect "$5""#
            ));
            assert!(
                !tried.expect_code(0).stdout.contains("out"),
                "{dir}: {}",
                tried.stdout
            );
            assert_eq!(
                ClientResult::read(&tried.stdout)[0].errno.as_deref(),
                Some("EACCES"),
                "{dir}"
            );
        }
        receiver.expect_nothing("the parent's policy holds in all of it");
        assert!(fs::read_dir(fixture.pins()).is_ok());
        assert_eq!(fixture.status().total("shop", "blocked"), 4);
    });
}
