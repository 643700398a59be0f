//! External inputs of a policy: variables and the name servers of the machine.

use std::net::IpAddr;

use super::{resolvers, variable::Variables};

/// Values that a policy can refer to. The default is empty.
#[derive(Clone, Debug, Default)]
pub struct LoadContext {
    /// Values of `${NAME}`.
    pub variables: Variables,
    /// Members of `@resolvers`.
    pub resolvers: Vec<IpAddr>,
}

impl LoadContext {
    /// The name servers of this machine and the variables in `set`. With `env`, environment variables are
    /// available too; `set` overrides them. Environment variables that are not UTF-8 are ignored.
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
