//! What a policy was loaded from: enough to load it again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{LoadContext, LoadResult, load_text, resolvers, variable::Variables};

/// The inputs of a policy. Its address files and the name servers of the machine are not part of it: they are read again
/// when the policy is loaded again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDefinition {
    /// The policy file as it was read, byte for byte.
    pub text: String,
    /// The variables that the text refers to, with the values it was loaded with. A variable that was not set, so that its
    /// default applied, is not listed.
    pub variables: Variables,
    /// The directory that relative paths of address files start from.
    pub base_dir: String,
}

impl PolicyDefinition {
    /// Loads the policy again. `name` is the file name in diagnostics.
    pub fn load(&self, name: &str) -> LoadResult {
        let context = LoadContext {
            variables: self.variables.clone(),
            resolvers: resolvers::of_system(),
        };
        load_text(name, &self.text, Path::new(&self.base_dir), &context)
    }
}
