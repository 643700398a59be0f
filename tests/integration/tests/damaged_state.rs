//! Where journal or pins were lost or damaged: nothing is opened by it, it is said, and there is a way out.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use std::fs;

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::Family,
    namespace::Namespace,
    requirement::{Need, met},
    test_client::TestClient,
};

const BLOCKING: &str = "{default: block}";

fn is_held(fixture: &AttachFixture, cgroup: &TestCgroup) -> bool {
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    let to = format!("{}:9", Namespace::near(Family::V4));
    !fixture
        .run_client(cgroup, &test_client.task("run", &["udp-connect-send", &to]))
        .ok
}

#[track_caller]
fn expect_way_out(fixture: &AttachFixture, cgroups: &[&TestCgroup]) {
    let said = fixture.run_ok(["detach", "--all"]);
    assert!(!said.contains("nothing stood"), "{said}");
    assert!(cgroups.iter().all(|cgroup| !is_held(fixture, cgroup)));
    assert_eq!(
        fs::read_dir(fixture.pins()).unwrap().count(),
        0,
        "no pins are left"
    );
    assert!(fixture.run_ok(["status"]).starts_with("nothing stands"));
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
            &["shop.json", "`tidegate detach --all` starts over"],
            ["status"],
        );
        assert!(is_held(&fixture, &cgroup));
        expect_way_out(&fixture, &[&cgroup]);
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
        fixture.run_fails(1, &["IMAGES", "removed by hand"], ["status"]);
        assert!(is_held(&fixture, &cgroup), "the programs have it still");
        expect_way_out(&fixture, &[&cgroup]);
    });
}

/// Of a policy that is written down and not in force anybody must hear.
#[test]
fn missing_pins() {
    if !met("missing_pins", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (fixture, cgroup) = (AttachFixture::open().with_own_programs(), TestCgroup::create());
        fixture.attach(&cgroup, "shop", BLOCKING);
        fs::remove_dir_all(fixture.pins().join("tidegate")).unwrap();
        assert!(!is_held(&fixture, &cgroup));
        fixture.run_fails(5, &["shop", "not in the kernel any more"], ["status"]);
        fixture.run_fails(5, &["shop", "not in the kernel any more"], ["policy", "list"]);
        expect_way_out(&fixture, &[&cgroup]);

        fixture.attach(&cgroup, "shop", BLOCKING);
        fs::remove_dir_all(fixture.pins().join("tidegate")).unwrap();
        fixture.attach(&cgroup, "shop", BLOCKING);
        assert!(is_held(&fixture, &cgroup));
        fixture.run_ok(["status"]);
    });
}

/// Without its records a policy stands as before, and no other takes its place.
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
            output.stdout.contains("that the journal does not name"),
            "{}",
            output.stdout
        );
        assert_eq!(fixture.status().0["unknown_cgroups"].as_array().unwrap().len(), 1);

        fixture.attach(&other, "open", "{default: allow}");
        assert!(is_held(&fixture, &cgroup) && !is_held(&fixture, &other));
        fixture.run(["status"]).expect_code(5);
        expect_way_out(&fixture, &[&cgroup, &other]);
    });
}

/// A hook that somebody took away is missed.
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
    // Asked for again, it is put back.
    fixture.attach(&cgroup, "shop", BLOCKING);
    fixture.run_ok(["status"]);
}
