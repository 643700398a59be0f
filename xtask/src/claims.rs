//! Tests that docs/claims.md names existing tests, and every test program.

use std::fs;

use crate::command::workspace;

/// Every `program::test` between backticks.
fn named(text: &str) -> Vec<(&str, &str)> {
    let code = text.split('`').skip(1).step_by(2);
    code.filter_map(|code| code.split_once("::"))
        .filter(|(program, test)| !program.contains(' ') && !test.contains(' '))
        .collect()
}

/// Whether a source has a test function or a row of a test table with this name; `*` at one end matches any text.
fn has(source: &str, test: &str) -> bool {
    let mut words = source.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_program = source.contains("#[test]") || source.contains("test_each_egress_method!");
    match (test.strip_prefix('*'), test.strip_suffix('*')) {
        (Some(end), _) => is_program && words.any(|word| word.ends_with(end)),
        (_, Some(start)) => words.any(|word| word.starts_with(start)),
        _ => source.contains(&format!("fn {test}()")),
    }
}

#[test]
fn every_named_test_exists() {
    let text = fs::read_to_string(workspace().join("docs/claims.md")).unwrap();
    let named = named(&text);
    assert!(named.len() > 50, "{named:?}");
    for (program, test) in named {
        let path = workspace().join(format!("tests/integration/tests/{program}.rs"));
        let source = fs::read_to_string(&path)
            .unwrap_or_else(|_| panic!("docs/claims.md names {program}, which is not a test program"));
        assert!(has(&source, test), "{program} has no test {test}");
    }
}

#[test]
fn every_test_program_is_named() {
    let text = fs::read_to_string(workspace().join("docs/claims.md")).unwrap();
    let named = named(&text);
    for entry in fs::read_dir(workspace().join("tests/integration/tests")).unwrap() {
        let path = entry.unwrap().path();
        let program = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            named.iter().any(|(named, _)| *named == program),
            "docs/claims.md does not name {program}"
        );
    }
}
