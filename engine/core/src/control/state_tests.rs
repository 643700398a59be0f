use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::{
    control::{
        record::{Attachment, RECORD_VERSION, Version},
        totals::Totals,
    },
    hint::Hint,
    policy::{LoadContext, Variables, load_text},
};

const TEXT: &str = "\u{feff}apiVersion: tidegate.io/v1\nkind: EgressPolicy\nmetadata: {name: file}\nspec:\n  default: \
                    block # a comment\n  mode: audit\n  sets: {listed: {file: listed.txt}}\n  rules:\n    - {name: own, \
                    action: allow, to: [\"${NETWORK}\", \"${OTHER:-192.0.2.0/24}\", \"@listed\"]}\n";

/// A directory with the address file of the policy.
fn directory(addresses: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("listed.txt"), addresses).unwrap();
    directory
}

/// The record of the policy, attached in enforce mode under the name `shop`, and its image.
fn attached(base: &Path) -> (Record, Image) {
    let mut context = LoadContext::default();
    context.variables.set("NETWORK", "10.0.0.0/8");
    context.variables.set("SECRET", "x");
    let loaded = load_text("shop.yaml", TEXT, base, &context);
    let mut policy = loaded.policy.unwrap();
    policy.mode = Mode::Enforce;
    let revision = Revision {
        generation: 3,
        mode: Mode::Enforce,
    };
    let (image, _) = compile_attached(&policy, revision).unwrap();
    let actor = Actor {
        uid: 0,
        sudo_user: Some("ann".to_owned()),
    };
    let live = Version {
        generation: 3,
        mode: Mode::Enforce,
        default: policy.default,
        errno: policy.errno.as_str().to_owned(),
        rules: Vec::new(),
        source: "/etc/shop.yaml".to_owned(),
        definition: loaded.definition,
        by: actor.clone(),
        since: "2026-01-01T00:00:00.000Z".to_owned(),
        names_families: false,
        names_unix: false,
        partial: Vec::new(),
        executables: Vec::new(),
        strict: false,
        hooks: Vec::new(),
    };
    let record = Record {
        version: RECORD_VERSION,
        name: "shop".to_owned(),
        slot: 0,
        live,
        previous_versions: Vec::new(),
        superseded: Totals::default(),
        attachments: vec![Attachment {
            path: "/demo".to_owned(),
            cgroup: 7,
            by: actor,
            since: "2026-01-01T00:00:00.000Z".to_owned(),
        }],
        pending: None,
    };
    (record, image)
}

fn state_directory(base: &Path) -> StateDirectory {
    StateDirectory::at(&base.join("state"))
}

#[test]
fn text_and_variables_give_the_image_again() {
    let directory = directory("203.0.113.0/24\n");
    let (record, image) = attached(directory.path());
    let states = state_directory(directory.path());
    states.write(std::iter::once(&record)).unwrap();
    let state = states.read("shop").unwrap().unwrap();
    assert_eq!(state, PolicyState::of(&record));
    assert_eq!(state.definition.text, TEXT);
    let variables: Variables = [("NETWORK".to_owned(), "10.0.0.0/8".to_owned())]
        .into_iter()
        .collect();
    assert_eq!(state.definition.variables, variables);

    let recompiled = state.recompile(3).unwrap();
    assert_eq!(recompiled.image.words(), image.words());
    assert_eq!(
        (recompiled.policy.name.as_str(), recompiled.policy.mode),
        ("shop", Mode::Enforce)
    );

    fs::write(directory.path().join("listed.txt"), "198.51.100.0/24\n").unwrap();
    assert_ne!(state.recompile(3).unwrap().image.words(), image.words());
    fs::remove_file(directory.path().join("listed.txt")).unwrap();
    let error = state.recompile(3).err().unwrap();
    assert_eq!(error.code(), "stored_policy_invalid");
    assert!(
        error
            .to_string()
            .starts_with("policy shop cannot be loaded again"),
        "{error}"
    );
}

#[test]
fn files_are_private_and_replaced_only_when_they_differ() {
    let directory = directory("203.0.113.0/24\n");
    let (mut record, _) = attached(directory.path());
    let states = state_directory(directory.path());
    states.write(std::iter::once(&record)).unwrap();
    let file = states.file("shop");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!((mode(&states.directory), mode(&states.policies)), (0o700, 0o700));

    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&file).unwrap());
    let first = inode();
    states.write(std::iter::once(&record)).unwrap();
    assert_eq!(inode(), first);
    record.live.mode = Mode::Audit;
    states.write(std::iter::once(&record)).unwrap();
    assert_eq!(states.read("shop").unwrap().unwrap().mode, Mode::Audit);

    // A damaged file is written again.
    fs::write(&file, "{\"version\": 1, \"na").unwrap();
    assert_eq!(states.read("shop").unwrap_err().code(), "record_invalid");
    states.write(std::iter::once(&record)).unwrap();
    assert_eq!(states.read("shop").unwrap(), Some(PolicyState::of(&record)));

    assert!(states.clear().unwrap());
    assert!(!states.clear().unwrap());
    assert_eq!(states.read("shop").unwrap(), None);
}

#[test]
fn an_unknown_version_is_refused_and_not_replaced() {
    let directory = directory("203.0.113.0/24\n");
    let (record, _) = attached(directory.path());
    let states = state_directory(directory.path());
    states.prepare().unwrap();
    let file = states.file("shop");
    fs::write(&file, "{\"version\": 7, \"shape\": []}").unwrap();
    for result in [
        states.read("shop").map(drop),
        states.write(std::iter::once(&record)),
    ] {
        let error = result.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{} has format version 7; this version of tidegate supports format version 1",
                file.display()
            )
        );
        assert_eq!(error.code(), "record_version_unsupported");
        assert!(error.hint().is_some_and(|hint| hint.contains("detach --all")));
    }
    states.remove("shop").unwrap();
    assert_eq!(states.read("shop").unwrap(), None);
}
