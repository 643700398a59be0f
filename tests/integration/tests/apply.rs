//! `tidegate apply` and `set-mode`: changes are shown, then made atomically, or not at all.

use std::net::IpAddr;

use integration::{
    attached::AttachFixture,
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

/// Whether a connect is allowed. It is a UDP connect, which sends nothing.
fn passes(fixture: &AttachFixture, cgroup: &TestCgroup, to: IpAddr) -> bool {
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    let to = format!("{to}:9");
    fixture
        .run_client(cgroup, &test_client.task("run", &["udp-connect-send", &to]))
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

/// The active policy is still generation `n` of [`FIRST`].
#[track_caller]
fn expect_first(fixture: &AttachFixture, cgroup: &TestCgroup, generation: u64) {
    assert_eq!(fixture.status().policy("shop")["generation"], generation);
    assert!(passes(fixture, cgroup, near()) && !passes(fixture, cgroup, far()));
}

#[test]
fn changes_are_reported_and_applied() {
    if !met("changes_are_reported_and_applied", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", FIRST);
        let second = fixture.policy("shop", SECOND);
        let apply = |more: &[&str]| fixture.run_ok([&["apply", "-f", &second], more].concat());

        let reported = apply(&["--dry-run"]);
        for text in [
            "generation 1 -> 2",
            "198.51.100.1",
            "198.51.100.2",
            "old",
            "new",
            "nothing was changed (--dry-run)",
        ] {
            assert!(reported.contains(text), "no `{text}` in\n{reported}");
        }
        let document = json(&apply(&["--dry-run", "--output", "json"]));
        assert_eq!(
            (&document["dry_run"], &document["applied"]),
            (&true.into(), &false.into())
        );
        expect_first(&fixture, &cgroup, 1);

        let reported = apply(&[]);
        assert!(
            reported.contains("applied policy shop (mode enforce, generation 2)"),
            "{reported}"
        );
        assert!(!passes(&fixture, &cgroup, near()) && passes(&fixture, &cgroup, far()));
        assert_eq!(apply(&[]), "policy shop: no changes\n");
        assert_eq!(json(&apply(&["--output", "json"]))["applied"], false);

        let status = fixture.status();
        let shop = status.policy("shop");
        assert_eq!(
            (&shop["generation"], &shop["source"]),
            (&2.into(), &second.as_str().into())
        );
        // Totals of both versions, counters of the active version.
        assert_eq!(
            (status.total("shop", "allowed"), status.total("shop", "blocked")),
            (2, 2)
        );
        assert_eq!(shop["rules"][0]["attempts"], 1);
        assert_eq!(shop["totals"]["rules"]["bank"], 2);
        let generations: Vec<_> = fixture.events().iter().map(|event| event.generation).collect();
        assert_eq!(generations, [1, 2]);
    });
}

/// An invalid, too large or unsupported version: the old one stays active.
#[test]
fn failed_apply_keeps_the_old_version() {
    if !met("failed_apply_keeps_the_old_version", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", FIRST);
        let refuse = |spec: &str, code: i32, messages: &[&str]| {
            let file = fixture.policy("shop", spec);
            fixture.run_fails(code, messages, ["apply", "-f", &file]);
            expect_first(&fixture, &cgroup, 1);
        };
        refuse("{default: perhaps}", 3, &["perhaps"]);
        refuse("{default: [", 3, &[]);
        let rules = (0..1025).map(|i| format!("{{name: r{i}, action: allow, to: [198.51.100.2]}}"));
        let many = format!(
            "{{default: allow, rules: [{}]}}",
            rules.collect::<Vec<_>>().join(", ")
        );
        let file = fixture.policy("shop", &many);
        let output = fixture.run(["apply", "-f", &file]);
        assert!(matches!(output.code(), Some(1 | 3)), "{}", output.stderr);
        assert!(output.stderr.contains("1024"), "{}", output.stderr);
        expect_first(&fixture, &cgroup, 1);
        refuse(
            "{default: allow, rules: [{name: x, action: allow, to: any, process: {binaries: [/no/such/file]}}]}",
            1,
            &["executable", "/no/such/file"],
        );
        let missing = fixture.dir().path().join("missing.yaml");
        fixture.run_fails(1, &["missing.yaml"], ["apply", "-f", missing.to_str().unwrap()]);
        expect_first(&fixture, &cgroup, 1);
    });
}

#[test]
fn only_attached_policies_can_be_applied() {
    if !met("only_attached_policies_can_be_applied", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let file = fixture.policy("other", SECOND);
        fixture.run_fails(1, &["no policies attached"], ["apply", "-f", &file]);
        fixture.attach(&cgroup, "shop", FIRST);
        fixture.attach(&cgroup, "watch", "{default: allow}");
        let unknown = ["no policy named other is attached; attached: shop, watch"];
        fixture.run_fails(1, &unknown, ["apply", "-f", &file]);
        fixture.run_fails(1, &unknown, ["detach", "other"]);
        fixture.run_fails(1, &unknown, ["set-mode", "other", "audit"]);
        fixture.run_fails(1, &unknown, ["status", "other"]);
        for name in ["../shop", "a/b", "", "x y"] {
            fixture.run_fails(2, &["invalid policy name"], ["detach", name]);
        }
        // With the name of the attached policy.
        fixture.run_ok(["apply", "-f", &file, "--name", "shop"]);
        assert!(passes(&fixture, &cgroup, far()));
        assert_eq!(fixture.status().names(), ["shop", "watch"]);
    });
}

#[test]
fn set_mode_audit_and_enforce() {
    if !met("set_mode_audit_and_enforce", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open(), TestCgroup::create());
        let file = fixture.policy("shop", FIRST);
        let args = [
            "attach",
            "--policy",
            &file,
            "--mode",
            "audit",
            "--cgroup",
            &cgroup.cgroup_path(),
        ];
        fixture.run_ok(args);
        assert!(passes(&fixture, &cgroup, far()));
        assert!(
            fixture
                .run_ok(["set-mode", "shop", "enforce"])
                .contains("generation 2")
        );
        assert!(!passes(&fixture, &cgroup, far()));
        assert!(
            fixture
                .run_ok(["set-mode", "shop", "enforce"])
                .contains("generation 2"),
            "no change, no generation"
        );
        assert!(
            fixture
                .run_ok(["set-mode", "shop", "audit"])
                .contains("generation 3")
        );
        assert!(passes(&fixture, &cgroup, far()));
        let status = fixture.status();
        let total = |of| status.total("shop", of);
        assert_eq!((total("would_block"), total("blocked")), (2, 1));
        let reported: Vec<_> = fixture
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
        assert_eq!(reported, expected);
        fixture.run_fails(2, &["neither"], ["set-mode", "shop", "neither"]);
    });
}

/// A requested mode is set for every attachment, or it is an error.
#[test]
fn set_mode_changes_every_attachment() {
    if !met("set_mode_changes_every_attachment", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup, other) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
        let file = fixture.policy("shop", FIRST);
        let attach = |to: &TestCgroup, mode: &str| {
            fixture.run([
                "attach",
                "--policy",
                &file,
                "--cgroup",
                &to.cgroup_path(),
                "--mode",
                mode,
            ])
        };
        attach(&cgroup, "audit").expect_code(0);
        let output = attach(&other, "enforce");
        output.expect_code(1);
        for message in [
            "policy shop is already attached in mode audit",
            "tidegate set-mode shop enforce",
        ] {
            assert!(output.stderr.contains(message), "{}", output.stderr);
        }
        assert_eq!(fixture.status().states("shop").len(), 1);
        attach(&other, "audit").expect_code(0);
        // Without --mode, the mode is that of the attached policy.
        fixture.run_ok(["attach", "--policy", &file, "--cgroup", &other.cgroup_path()]);
        fixture.run_ok(["set-mode", "shop", "enforce"]);
        assert!(!passes(&fixture, &cgroup, far()) && !passes(&fixture, &other, far()));
    });
}

/// Two attached policies cannot have the same name, even on different cgroups.
#[test]
fn policy_names_are_unique() {
    if !met("policy_names_are_unique", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup, other) = (AttachFixture::open(), TestCgroup::create(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", FIRST);
        let second = fixture
            .dir()
            .write("second.yaml", &integration::exec::policy("shop", SECOND));
        let second = second.to_str().unwrap();
        let args = ["attach", "--policy", second, "--cgroup", &other.cgroup_path()];
        fixture.run_fails(
            1,
            &[
                "a different version of policy shop is already attached",
                "tidegate apply",
            ],
            args,
        );
        assert!(
            passes(&fixture, &other, near()) && passes(&fixture, &other, far()),
            "the other cgroup has no policy"
        );
        fixture.run_ok([&args[..], &["--name", "shop-two"]].concat());
        assert!(!passes(&fixture, &other, near()));
        // Attaching the same policy again has no effect.
        let first = fixture.policy("shop", FIRST);
        let again = fixture.run_ok(["attach", "--policy", &first, "--cgroup", &cgroup.cgroup_path()]);
        assert!(again.contains("already attached policy shop to"), "{again}");
        expect_first(&fixture, &cgroup, 1);
    });
}
