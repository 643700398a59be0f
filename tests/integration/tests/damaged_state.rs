//! Where journal or pins were lost or damaged: nothing is opened by it, it is said, and there is a way out.
#![expect(clippy::unwrap_used, reason = "what a test stands on fails it")]

use std::fs;

use integration::{
    attached::Stand,
    cgroup::TestCgroup,
    egress_method::Family,
    namespace::Namespace,
    requirement::{Need, met},
    test_client::TestClient,
};

const BLOCKING: &str = "{default: block}";

fn is_held(stand: &Stand, cgroup: &TestCgroup) -> bool {
    let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
    let to = format!("{}:9", Namespace::near(Family::V4));
    !stand
        .run_client(cgroup, &test_client.task("go", &["udp-connect-send", &to]))
        .ok
}

#[track_caller]
fn expect_way_out(stand: &Stand, cgroups: &[&TestCgroup]) {
    let said = stand.done(["detach", "--all"]);
    assert!(!said.contains("nothing stood"), "{said}");
    assert!(cgroups.iter().all(|cgroup| !is_held(stand, cgroup)));
    assert_eq!(fs::read_dir(stand.pins()).unwrap().count(), 0, "no pins are left");
    assert!(stand.done(["status"]).starts_with("nothing stands"));
}

#[test]
fn unreadable_journal_record() {
    if !met("unreadable_journal_record", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
        stand.attach(&cgroup, "shop", BLOCKING);
        fs::write(stand.journal().join("policies/shop.json"), "{}").unwrap();
        stand.refused(
            1,
            &["shop.json", "`tidegate detach --all` starts over"],
            ["status"],
        );
        assert!(is_held(&stand, &cgroup));
        expect_way_out(&stand, &[&cgroup]);
    });
}

#[test]
fn missing_map_pin() {
    if !met("missing_map_pin", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
        stand.attach(&cgroup, "shop", BLOCKING);
        let gate = fs::read_dir(stand.pins().join("tidegate")).unwrap().flatten();
        let gate = gate
            .map(|entry| entry.path())
            .find(|path| path.join("maps").is_dir())
            .unwrap();
        fs::remove_file(gate.join("maps/IMAGES")).unwrap();
        stand.refused(1, &["IMAGES", "removed by hand"], ["status"]);
        assert!(is_held(&stand, &cgroup), "the programs have it still");
        expect_way_out(&stand, &[&cgroup]);
    });
}

/// Of a policy that is written down and not in force anybody must hear.
#[test]
fn missing_pins() {
    if !met("missing_pins", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
        stand.attach(&cgroup, "shop", BLOCKING);
        fs::remove_dir_all(stand.pins().join("tidegate")).unwrap();
        assert!(!is_held(&stand, &cgroup));
        stand.refused(5, &["shop", "not in the kernel any more"], ["status"]);
        stand.refused(5, &["shop", "not in the kernel any more"], ["policy", "list"]);
        expect_way_out(&stand, &[&cgroup]);

        stand.attach(&cgroup, "shop", BLOCKING);
        fs::remove_dir_all(stand.pins().join("tidegate")).unwrap();
        stand.attach(&cgroup, "shop", BLOCKING);
        assert!(is_held(&stand, &cgroup));
        stand.done(["status"]);
    });
}

/// Without its records a policy stands as before, and no other takes its place.
#[test]
fn missing_journal() {
    if !met("missing_journal", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let (stand, cgroup, other) = (
            Stand::open().of_its_own(),
            TestCgroup::create(),
            TestCgroup::create(),
        );
        stand.attach(&cgroup, "shop", BLOCKING);
        for name in ["policies", "detached"] {
            fs::remove_dir_all(stand.journal().join(name)).unwrap();
        }
        fs::remove_file(stand.journal().join("next-slot")).unwrap();
        let ended = stand.run(["status"]);
        ended.expect_code(5);
        assert!(
            ended.stdout.contains("that the journal does not name"),
            "{}",
            ended.stdout
        );
        assert_eq!(stand.status().0["unknown_cgroups"].as_array().unwrap().len(), 1);

        stand.attach(&other, "open", "{default: allow}");
        assert!(is_held(&stand, &cgroup) && !is_held(&stand, &other));
        stand.run(["status"]).expect_code(5);
        expect_way_out(&stand, &[&cgroup, &other]);
    });
}

/// A hook that somebody took away is missed.
#[test]
fn missing_hook_link() {
    if !met("missing_hook_link", &[Need::Root]) {
        return;
    }
    let (stand, cgroup) = (Stand::open().of_its_own(), TestCgroup::create());
    stand.attach(&cgroup, "shop", BLOCKING);
    let place = stand.status().policy("shop")["attachments"][0]["cgroup_id"].to_string();
    let gate = fs::read_dir(stand.pins().join("tidegate")).unwrap().flatten();
    let links = gate.map(|entry| entry.path().join("links").join(&place));
    fs::remove_file(
        links
            .into_iter()
            .find(|links| links.is_dir())
            .unwrap()
            .join("connect6"),
    )
    .unwrap();
    let ended = stand.run(["status"]);
    ended.expect_code(5);
    assert!(
        ended.stdout.contains("not attached: connect6"),
        "{}",
        ended.stdout
    );
    // Asked for again, it is put back.
    stand.attach(&cgroup, "shop", BLOCKING);
    stand.done(["status"]);
}
