//! Writes policies as YAML.

use super::RawPolicy;

/// Line breaks of YAML 1.1 that are ordinary characters in YAML 1.2.
const YAML_1_1_BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// Writes a policy as YAML, with the fields in the order of the schema. Comments of the original file are not
/// preserved.
///
/// serde_yaml writes YAML 1.1, policies are read as YAML 1.2. They differ in some line breaks; a policy with one
/// of these in a string is written as JSON, which is YAML too and can escape them.
///
/// # Errors
/// If the policy cannot be serialized, which is not known to happen.
pub fn to_yaml(policy: &RawPolicy) -> Result<String, WriteError> {
    let text = serde_yaml::to_string(policy)?;
    if !text.contains(YAML_1_1_BREAKS) {
        return Ok(text);
    }
    let json = serde_json::to_string_pretty(policy)?;
    let mut escaped = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        if c != '\n' && (c.is_control() || YAML_1_1_BREAKS.contains(&c)) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped.push('\n');
    Ok(escaped)
}

/// Why a policy could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the policy: {0}")]
pub enum WriteError {
    /// Error of the YAML serializer.
    Yaml(#[from] serde_yaml::Error),
    /// Error of the JSON serializer.
    Json(#[from] serde_json::Error),
}
