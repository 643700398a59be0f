//! policies/schema.json must be the schema of the current policy language.

use std::path::Path;

#[test]
fn the_schema_file_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies/schema.json");
    let in_tree = std::fs::read_to_string(&path).unwrap_or_default();
    let now = serde_json::to_string_pretty(&tidegate_core::policy::schema()).unwrap() + "\n";
    assert!(
        in_tree == now,
        "policies/schema.json is outdated: run `cargo xtask schema`"
    );
}
