//! policies/schema.json is the schema of this version's language.

use std::path::Path;

#[test]
fn the_schema_in_the_tree_is_in_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/schema.json");
    let in_tree = std::fs::read_to_string(&path).unwrap_or_default();
    let now = serde_json::to_string_pretty(&tidegate::policy::schema()).unwrap() + "\n";
    assert!(
        in_tree == now,
        "policies/schema.json is behind: run `cargo xtask schema`"
    );
}
