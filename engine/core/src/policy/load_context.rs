//! External inputs of a policy: variables and the name servers of the machine.

use std::{ffi::OsString, net::IpAddr};

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
    /// The name servers of this machine, the variables of `environment`, and those of `set`, which override them.
    /// Environment variables that are not UTF-8 are ignored.
    pub fn from_system(
        set: &[(String, String)],
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> LoadContext {
        let mut variables = Variables::default();
        for (name, value) in environment {
            if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
                variables.set(name, value);
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
