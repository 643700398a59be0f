//! What a policy takes from the machine it is loaded on.

use std::net::IpAddr;

use super::{resolvers, variable::Variables};

/// Values that a policy may ask for. The default has none.
#[derive(Clone, Debug, Default)]
pub struct LoadContext {
    /// Values of `${NAME}`.
    pub variables: Variables,
    /// Members of `@resolvers`.
    pub resolvers: Vec<IpAddr>,
}

impl LoadContext {
    /// The name servers of this machine, the variables of the environment when `env` says so, and
    /// `set` over them. Variables of the environment that are not UTF-8 are left out.
    pub fn from_system(set: &[(String, String)], env: bool) -> LoadContext {
        let mut variables = Variables::default();
        if env {
            for (name, value) in std::env::vars_os() {
                if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
                    variables.set(name, value);
                }
            }
        }
        for (name, value) in set {
            variables.set(name, value);
        }
        LoadContext {
            variables,
            resolvers: resolvers::of_system(),
        }
    }
}
