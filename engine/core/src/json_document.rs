//! The format of the JSON output.

/// Value of `schema_version` in every JSON document and in every line of a JSON stream. It increases when a key is
/// removed or changes its meaning; new keys do not change it.
pub const SCHEMA_VERSION: u32 = 1;
