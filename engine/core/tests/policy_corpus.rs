//! Loads the policies of `corpus` and `policies`. Files in `corpus/invalid` and `corpus/warning` must produce
//! the diagnostics in the .txt file of the same name. `UPDATE_EXPECT=1` rewrites the .txt files.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tidegate_core::policy::{LoadContext, LoadResult, RawPolicy, Severity, load};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The variables and name servers for the corpus.
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

fn yaml_files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

fn loaded(path: &Path) -> LoadResult {
    load(path, &context())
}

/// Removes the directory from file names, so that the text does not depend on where the tree is.
fn without_directory(text: &str, directory: &Path) -> String {
    text.replace(&format!("{}/", directory.display()), "")
}

#[test]
fn valid_policies_have_no_diagnostics() {
    let mut directory = root().join("tests/corpus/valid");
    let mut count = 0;
    for _ in 0..2 {
        for path in yaml_files(&directory) {
            let loaded = loaded(&path);
            assert!(loaded.diagnostics.is_empty(), "{}", loaded.render(false));
            assert!(loaded.policy.is_some());
            count += 1;
        }
        directory = root().join("../../policies");
    }
    assert!(count >= 15, "only {count} files");
}

#[test]
fn example_policies_are_valid_without_variables() {
    let context = LoadContext {
        resolvers: context().resolvers,
        ..LoadContext::default()
    };
    let files = yaml_files(&root().join("../../policies"));
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
fn policies_with_warnings_are_valid() {
    let directory = root().join("tests/corpus/warning");
    compare(&directory, |loaded| {
        loaded.policy.is_some() && loaded.diagnostics.iter().all(|d| d.severity == Severity::Warning)
    });
}

#[test]
fn invalid_policies_are_refused_with_all_errors() {
    let directory = root().join("tests/corpus/invalid");
    assert!(yaml_files(&directory).len() >= 40);
    compare(&directory, |loaded| loaded.policy.is_none());
}

/// Compares the diagnostics of every file with its .txt file.
fn compare(directory: &Path, fits: impl Fn(&LoadResult) -> bool) {
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1");
    let mut wrong = Vec::new();
    let mut expected_files = BTreeSet::new();
    for path in yaml_files(directory) {
        let loaded = loaded(&path);
        assert!(fits(&loaded), "{}: {}", path.display(), loaded.render(false));
        assert!(!loaded.diagnostics.is_empty(), "{}", path.display());
        for diagnostic in &loaded.diagnostics {
            assert!(!diagnostic.help.is_empty(), "{}: {diagnostic:?}", path.display());
        }
        let text = without_directory(&loaded.render(false), directory);
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
        "unexpected diagnostics (UPDATE_EXPECT=1 accepts them):\n{}",
        wrong.join("\n")
    );
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "txt") {
            assert!(expected_files.contains(&path), "{} has no policy", path.display());
        }
    }
}

#[test]
fn valid_policies_match_the_schema_types() {
    for directory in ["tests/corpus/valid", "tests/corpus/warning", "../../policies"] {
        for path in yaml_files(&root().join(directory)) {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.trim_start_matches('\u{feff}');
            let raw: Result<RawPolicy, _> = serde_yaml::from_str(text);
            if let Err(error) = raw {
                panic!("{}: {error}", path.display());
            }
        }
    }
}
