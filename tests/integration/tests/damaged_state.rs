//! Lost or damaged journal files and pins: they do not disable enforcement silently, they are reported, and
//! `detach --all` recovers.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::Family,
    namespace::Namespace,
    requirement::{Need, met},
    running_command::TIMEOUT,
    test_client::TestClient,
};

const BLOCKING: &str = "{default: block}";

fn is_denied(fixture: &AttachFixture, cgroup: &TestCgroup) -> bool {
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    let to = format!("{}:9", Namespace::near(Family::V4));
    !fixture
        .run_client(cgroup, &test_client.task("run", &["udp-connect-send", &to]))
        .ok
}

/// The kernel detaches a link with a delay after its last pin was removed.
#[track_caller]
fn wait_until_detached(fixture: &AttachFixture, cgroup: &TestCgroup) {
    let start = Instant::now();
    while is_denied(fixture, cgroup) {
        assert!(start.elapsed() < TIMEOUT, "the programs are still attached");
        thread::sleep(Duration::from_millis(10));
    }
}

#[track_caller]
fn expect_detach_all_recovers(fixture: &AttachFixture, cgroups: &[&TestCgroup]) {
    let printed = fixture.run_ok(["detach", "--all"]);
    assert!(!printed.contains("no policies attached"), "{printed}");
    assert!(cgroups.iter().all(|cgroup| !is_denied(fixture, cgroup)));
    assert_eq!(
        fs::read_dir(fixture.pins()).unwrap().count(),
        0,
        "no pins are left"
    );
    assert!(fixture.run_ok(["status"]).starts_with("no policies attached"));
}

#[test]
fn unreadable_journal_record() {
    if !met("unreadable_journal_record", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", BLOCKING);
        fs::write(fixture.journal().join("policies/shop.json"), "{}").unwrap();
        fixture.run_fails(
            1,
            &["shop.json", "is not a valid record", "`tidegate detach --all`"],
            ["status"],
        );
        assert!(is_denied(&fixture, &cgroup));
        expect_detach_all_recovers(&fixture, &[&cgroup]);
    });
}

#[test]
fn missing_map_pin() {
    if !met("missing_map_pin", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", BLOCKING);
        let datapath = fs::read_dir(fixture.pins().join("tidegate")).unwrap().flatten();
        let datapath = datapath
            .map(|entry| entry.path())
            .find(|path| path.join("maps").is_dir())
            .unwrap();
        fs::remove_file(datapath.join("maps/IMAGES")).unwrap();
        fixture.run_fails(1, &["cannot open the pinned map", "IMAGES"], ["status"]);
        assert!(is_denied(&fixture, &cgroup), "the programs still use the map");
        expect_detach_all_recovers(&fixture, &[&cgroup]);
    });
}

/// A policy that is recorded but not active must be reported.
#[test]
fn missing_pins() {
    if !met("missing_pins", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", BLOCKING);
        fs::remove_dir_all(fixture.pins().join("tidegate")).unwrap();
        wait_until_detached(&fixture, &cgroup);
        fixture.run_fails(
            5,
            &["policy shop is recorded as attached but its pinned programs are gone"],
            ["status"],
        );
        fixture.run_fails(
            5,
            &["policy shop is recorded as attached but its pinned programs are gone"],
            ["status", "--rules"],
        );
        expect_detach_all_recovers(&fixture, &[&cgroup]);

        fixture.attach(&cgroup, "shop", BLOCKING);
        fs::remove_dir_all(fixture.pins().join("tidegate")).unwrap();
        fixture.attach(&cgroup, "shop", BLOCKING);
        assert!(is_denied(&fixture, &cgroup));
        fixture.run_ok(["status"]);
    });
}

/// Without its records a policy is still enforced, and other policies do not replace it.
#[test]
fn missing_journal() {
    if !met("missing_journal", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup, other) = (
            AttachFixture::open().with_own_programs(),
            TestCgroup::create(),
            TestCgroup::create(),
        );
        fixture.attach(&cgroup, "shop", BLOCKING);
        for name in ["policies", "detached"] {
            fs::remove_dir_all(fixture.journal().join(name)).unwrap();
        }
        fs::remove_file(fixture.journal().join("next-slot")).unwrap();
        let output = fixture.run(["status"]);
        output.expect_code(5);
        assert!(
            output.stdout.contains("that are not recorded"),
            "{}",
            output.stdout
        );
        assert_eq!(fixture.status().0["unknown_cgroups"].as_array().unwrap().len(), 1);

        fixture.attach(&other, "open", "{default: allow}");
        assert!(is_denied(&fixture, &cgroup) && !is_denied(&fixture, &other));
        fixture.run(["status"]).expect_code(5);
        expect_detach_all_recovers(&fixture, &[&cgroup, &other]);
    });
}

/// A removed link is reported.
#[test]
fn missing_hook_link() {
    if !met("missing_hook_link", &[Need::Root]) {
        return;
    }
    let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
    fixture.attach(&cgroup, "shop", BLOCKING);
    let cgroup_id = fixture.status().policy("shop")["attachments"][0]["cgroup_id"].to_string();
    let datapath = fs::read_dir(fixture.pins().join("tidegate")).unwrap().flatten();
    let links = datapath.map(|entry| entry.path().join("links").join(&cgroup_id));
    fs::remove_file(
        links
            .into_iter()
            .find(|links| links.is_dir())
            .unwrap()
            .join("connect6"),
    )
    .unwrap();
    let output = fixture.run(["status"]);
    output.expect_code(5);
    assert!(
        output.stdout.contains("not attached: connect6"),
        "{}",
        output.stdout
    );
    // Attaching the policy again restores it.
    fixture.attach(&cgroup, "shop", BLOCKING);
    fixture.run_ok(["status"]);
}
