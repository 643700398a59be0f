//! Policies as files: those in `corpus/valid` and `policies` are taken, those in `corpus/invalid` are
//! refused with exactly the text beside them. `UPDATE_EXPECT=1` writes the texts anew.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tidegate::policy::{LoadContext, Loaded, RawPolicy, Severity, load};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// What every policy of the corpus is loaded with.
fn context() -> LoadContext {
    let mut context = LoadContext {
        resolvers: vec![[192, 0, 2, 53].into()],
        ..LoadContext::default()
    };
    for (name, value) in [
        ("PODCIDR", "10.244.0.0/24 10.244.1.0/24"),
        ("SERVICECIDR", "10.96.0.0/12"),
        ("NAME", "from-variable"),
        ("PORTS", "80,443/tcp\n6000-6010/udp"),
        ("EMPTY", ""),
        ("INJECTION", "x\"\n  default: allow\n# "),
        ("NETWORKS", "10.0.0.0/8, 10.0.0.1/8, host"),
    ] {
        context.variables.set(name, value);
    }
    context
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

/// Loads a file under its bare name, so that messages do not depend on where the tree is.
fn loaded(path: &Path) -> Loaded {
    load(path, &context())
}

fn without_folder(text: &str, folder: &Path) -> String {
    text.replace(&format!("{}/", folder.display()), "")
}

#[test]
fn valid_policies_are_taken_without_a_word() {
    let mut folder = root().join("tests/corpus/valid");
    let mut count = 0;
    for _ in 0..2 {
        for path in yaml_files(&folder) {
            let loaded = loaded(&path);
            assert!(loaded.diagnostics.is_empty(), "{}", loaded.render(false));
            assert!(loaded.policy.is_some());
            count += 1;
        }
        folder = root().join("../policies");
    }
    assert!(count >= 15, "only {count} files");
}

#[test]
fn the_library_is_valid_without_any_variable() {
    let context = LoadContext {
        resolvers: context().resolvers,
        ..LoadContext::default()
    };
    let files = yaml_files(&root().join("../policies"));
    assert!(files.len() >= 5);
    for path in files {
        let loaded = load(&path, &context);
        assert!(
            loaded.policy.is_some() && loaded.diagnostics.is_empty(),
            "{}",
            loaded.render(false)
        );
    }
}

#[test]
fn warnings_do_not_refuse_a_policy() {
    let folder = root().join("tests/corpus/warning");
    compare(&folder, |loaded| {
        loaded.policy.is_some() && loaded.diagnostics.iter().all(|d| d.severity == Severity::Warning)
    });
}

#[test]
fn invalid_policies_are_refused_with_every_fault() {
    let folder = root().join("tests/corpus/invalid");
    assert!(yaml_files(&folder).len() >= 40);
    compare(&folder, |loaded| loaded.policy.is_none());
}

/// Holds every file of a folder to the text beside it.
fn compare(folder: &Path, fits: impl Fn(&Loaded) -> bool) {
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1");
    let mut wrong = Vec::new();
    let mut expected_files = BTreeSet::new();
    for path in yaml_files(folder) {
        let loaded = loaded(&path);
        assert!(fits(&loaded), "{}: {}", path.display(), loaded.render(false));
        assert!(!loaded.diagnostics.is_empty(), "{}", path.display());
        for diagnostic in &loaded.diagnostics {
            assert!(!diagnostic.help.is_empty(), "{}: {diagnostic:?}", path.display());
        }
        let text = without_folder(&loaded.render(false), folder);
        let expected = path.with_extension("txt");
        if update {
            fs::write(&expected, &text).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("{}:\n{text}", path.display()));
        }
        expected_files.insert(expected);
    }
    assert!(
        wrong.is_empty(),
        "not as expected (UPDATE_EXPECT=1 takes the new texts):\n{}",
        wrong.join("\n")
    );
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "txt") {
            assert!(expected_files.contains(&path), "{} has no policy", path.display());
        }
    }
}

#[test]
fn what_is_valid_fits_the_types_of_the_schema() {
    for folder in ["tests/corpus/valid", "tests/corpus/warning", "../policies"] {
        for path in yaml_files(&root().join(folder)) {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.trim_start_matches('\u{feff}');
            let raw: Result<RawPolicy, _> = serde_yaml::from_str(text);
            if let Err(error) = raw {
                panic!("{}: {error}", path.display());
            }
        }
    }
}
