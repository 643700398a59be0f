//! Another version of what stands: told before it is made, made at once, or not at all.

use std::net::IpAddr;

use integration::{
    attached::Stand,
    cgroup::TestCgroup,
    egress_method::Family,
    namespace::Namespace,
    requirement::{Need, met},
    test_client::TestClient,
};
use serde_json::Value;

const FIRST: &str = r#"{default: block, rules: [
    {name: bank, action: allow, to: [198.51.100.1]},
    {name: old, action: audit, to: [203.0.113.0/28]},
]}"#;

const SECOND: &str = r#"{default: block, rules: [
    {name: bank, action: allow, to: [198.51.100.2]},
    {name: new, action: allow, to: [203.0.113.16/28]},
]}"#;

/// Whether a connect (of UDP: nothing is sent) is allowed.
fn passes(stand: &Stand, cgroup: &TestCgroup, to: IpAddr) -> bool {
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    let to = format!("{to}:9");
    stand
        .run_client(cgroup, &test_client.task("go", &["udp-connect-send", &to]))
        .ok
}

fn near() -> IpAddr {
    Namespace::near(Family::V4)
}

fn far() -> IpAddr {
    Namespace::far(Family::V4)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What stands is generation `n` of [`FIRST`], whatever was tried.
#[track_caller]
fn expect_first(stand: &Stand, cgroup: &TestCgroup, generation: u64) {
    assert_eq!(stand.status().policy("shop")["generation"], generation);
    assert!(passes(stand, cgroup, near()) && !passes(stand, cgroup, far()));
}

#[test]
fn changes_are_reported_and_applied() {
    if !met("changes_are_reported_and_applied", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        stand.attach(&cgroup, "shop", FIRST);
        let second = stand.policy("shop", SECOND);
        let apply = |more: &[&str]| stand.done([&["policy", "apply", "-f", &second], more].concat());

        let told = apply(&["--dry-run"]);
        for text in [
            "generation 1 -> 2",
            "198.51.100.1",
            "198.51.100.2",
            "old",
            "new",
            "nothing was changed (--dry-run)",
        ] {
            assert!(told.contains(text), "no `{text}` in\n{told}");
        }
        let document = json(&apply(&["--dry-run", "--output", "json"]));
        assert_eq!(
            (&document["dry_run"], &document["applied"]),
            (&true.into(), &false.into())
        );
        expect_first(&stand, &cgroup, 1);

        let told = apply(&[]);
        assert!(told.contains("shop is live in generation 2 (enforce)"), "{told}");
        assert!(!passes(&stand, &cgroup, near()) && passes(&stand, &cgroup, far()));
        assert_eq!(apply(&[]), "policy shop: nothing changes\n");
        assert_eq!(json(&apply(&["--output", "json"]))["applied"], false);

        let status = stand.status();
        let shop = status.policy("shop");
        assert_eq!(
            (&shop["generation"], &shop["source"]),
            (&2.into(), &second.as_str().into())
        );
        // Over both versions, and of the live one.
        assert_eq!(
            (status.total("shop", "allowed"), status.total("shop", "blocked")),
            (2, 2)
        );
        assert_eq!(shop["rules"][0]["attempts"], 1);
        assert_eq!(shop["totals"]["rules"]["bank"], 2);
        let generations: Vec<_> = stand.events().iter().map(|event| event.generation).collect();
        assert_eq!(generations, [1, 2]);
    });
}

/// Not valid, too big, not for this machine: the old version stays live.
#[test]
fn failed_apply_keeps_the_old_version() {
    if !met("failed_apply_keeps_the_old_version", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        stand.attach(&cgroup, "shop", FIRST);
        let refuse = |spec: &str, code: i32, said: &[&str]| {
            let file = stand.policy("shop", spec);
            stand.refused(code, said, ["policy", "apply", "-f", &file]);
            expect_first(&stand, &cgroup, 1);
        };
        refuse("{default: perhaps}", 3, &["perhaps"]);
        refuse("{default: [", 3, &[]);
        let rules = (0..1025).map(|i| format!("{{name: r{i}, action: allow, to: [198.51.100.2]}}"));
        let many = format!(
            "{{default: allow, rules: [{}]}}",
            rules.collect::<Vec<_>>().join(", ")
        );
        let file = stand.policy("shop", &many);
        let ended = stand.run(["policy", "apply", "-f", &file]);
        assert!(matches!(ended.code(), Some(1 | 3)), "{}", ended.stderr);
        assert!(ended.stderr.contains("1024"), "{}", ended.stderr);
        expect_first(&stand, &cgroup, 1);
        refuse(
            "{default: allow, rules: [{name: x, action: allow, to: any, process: {binaries: [/no/such/file]}}]}",
            1,
            &["executable", "/no/such/file"],
        );
        let missing = stand.folder().path().join("missing.yaml");
        stand.refused(
            1,
            &["missing.yaml"],
            ["policy", "apply", "-f", missing.to_str().unwrap()],
        );
        expect_first(&stand, &cgroup, 1);
    });
}

#[test]
fn only_attached_policies_can_be_applied() {
    if !met("only_attached_policies_can_be_applied", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        let file = stand.policy("other", SECOND);
        stand.refused(1, &["nothing stands"], ["policy", "apply", "-f", &file]);
        stand.attach(&cgroup, "shop", FIRST);
        stand.attach(&cgroup, "watch", "{default: allow}");
        let there = ["no policy named other stands; there are: shop, watch"];
        stand.refused(1, &there, ["policy", "apply", "-f", &file]);
        stand.refused(1, &there, ["detach", "other"]);
        stand.refused(1, &there, ["set-mode", "other", "audit"]);
        stand.refused(1, &there, ["policy", "stats", "other"]);
        for name in ["../shop", "a/b", "", "x y"] {
            stand.refused(2, &["cannot be the name of a policy"], ["detach", name]);
        }
        // By the name it stands under.
        stand.done(["policy", "apply", "-f", &file, "--name", "shop"]);
        assert!(passes(&stand, &cgroup, far()));
        assert_eq!(stand.status().names(), ["shop", "watch"]);
    });
}

#[test]
fn set_mode_audit_and_enforce() {
    if !met("set_mode_audit_and_enforce", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open(), TestCgroup::create());
        let file = stand.policy("shop", FIRST);
        let words = [
            "attach",
            "--policy",
            &file,
            "--mode",
            "audit",
            "--cgroup",
            &cgroup.spelled(),
        ];
        stand.done(words);
        assert!(passes(&stand, &cgroup, far()));
        assert!(
            stand
                .done(["set-mode", "shop", "enforce"])
                .contains("generation 2")
        );
        assert!(!passes(&stand, &cgroup, far()));
        assert!(
            stand
                .done(["set-mode", "shop", "enforce"])
                .contains("generation 2"),
            "no change, no generation"
        );
        assert!(stand.done(["set-mode", "shop", "audit"]).contains("generation 3"));
        assert!(passes(&stand, &cgroup, far()));
        let status = stand.status();
        let total = |of| status.total("shop", of);
        assert_eq!((total("would_block"), total("blocked")), (2, 1));
        let told: Vec<_> = stand
            .events()
            .into_iter()
            .map(|event| (event.generation, event.mode, event.outcome))
            .collect();
        let expected = [
            (1, "audit", "would_block"),
            (2, "enforce", "blocked"),
            (3, "audit", "would_block"),
        ];
        let expected =
            expected.map(|(generation, mode, outcome)| (generation, mode.to_owned(), outcome.to_owned()));
        assert_eq!(told, expected);
        stand.refused(2, &["neither"], ["set-mode", "shop", "neither"]);
    });
}

/// A mode that is asked for is had, or it is said that it is not.
#[test]
fn set_mode_changes_every_attachment() {
    if !met("set_mode_changes_every_attachment", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup, other) = (Stand::open(), TestCgroup::create(), TestCgroup::create());
        let file = stand.policy("shop", FIRST);
        let attach = |to: &TestCgroup, mode: &str| {
            stand.run([
                "attach",
                "--policy",
                &file,
                "--cgroup",
                &to.spelled(),
                "--mode",
                mode,
            ])
        };
        attach(&cgroup, "audit").expect_code(0);
        let ended = attach(&other, "enforce");
        ended.expect_code(1);
        for said in [
            "shop stands already, in mode audit",
            "tidegate set-mode shop enforce",
        ] {
            assert!(ended.stderr.contains(said), "{}", ended.stderr);
        }
        assert_eq!(stand.status().states("shop").len(), 1);
        attach(&other, "audit").expect_code(0);
        // Not asked for, it is the live one's.
        stand.done(["attach", "--policy", &file, "--cgroup", &other.spelled()]);
        stand.done(["set-mode", "shop", "enforce"]);
        assert!(!passes(&stand, &cgroup, far()) && !passes(&stand, &other, far()));
    });
}

/// The name of a standing policy is no other's, wherever that one is to be put.
#[test]
fn policy_names_are_unique() {
    if !met("policy_names_are_unique", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup, other) = (Stand::open(), TestCgroup::create(), TestCgroup::create());
        stand.attach(&cgroup, "shop", FIRST);
        let second = stand
            .folder()
            .write("second.yaml", &integration::exec::policy("shop", SECOND));
        let second = second.to_str().unwrap();
        let words = ["attach", "--policy", second, "--cgroup", &other.spelled()];
        stand.refused(
            1,
            &[
                "another version of the policy shop stands already",
                "policy apply",
            ],
            words,
        );
        assert!(
            passes(&stand, &other, near()) && passes(&stand, &other, far()),
            "nothing is there"
        );
        stand.done([&words[..], &["--name", "shop-two"]].concat());
        assert!(!passes(&stand, &other, near()));
        // The same one again is that one.
        let first = stand.policy("shop", FIRST);
        let again = stand.done(["attach", "--policy", &first, "--cgroup", &cgroup.spelled()]);
        assert!(again.contains("stands already on"), "{again}");
        expect_first(&stand, &cgroup, 1);
    });
}
