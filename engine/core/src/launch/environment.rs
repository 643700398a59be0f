//! The environment variables that the caller hands in: nothing in this module reads those of the process.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

/// A change of one variable: its new value, or `None` to remove it.
pub type EnvironmentChange = (OsString, Option<OsString>);

/// The environment of the caller, usually collected from [`std::env::vars_os`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The value of a variable.
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        self.0.get(name.as_ref()).map(OsString::as_os_str)
    }

    /// Applies changes in their order.
    pub(super) fn apply<'a>(&mut self, changes: impl IntoIterator<Item = &'a EnvironmentChange>) {
        for (name, value) in changes {
            match value {
                Some(value) => self.0.insert(name.clone(), value.clone()),
                None => self.0.remove(name),
            };
        }
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Environment {
        Environment(variables.into_iter().collect())
    }
}

impl IntoIterator for Environment {
    type Item = (OsString, OsString);
    type IntoIter = std::collections::btree_map::IntoIter<OsString, OsString>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_changes_override_earlier_ones() {
        let mut environment: Environment = [("A".into(), "1".into()), ("B".into(), "2".into())]
            .into_iter()
            .collect();
        environment.apply(&[
            ("A".into(), None),
            ("C".into(), Some("3".into())),
            ("C".into(), Some("4".into())),
        ]);
        assert_eq!(environment.get("A"), None);
        assert_eq!(environment.get("B"), Some(OsStr::new("2")));
        assert_eq!(environment.get("C"), Some(OsStr::new("4")));
    }
}
