//! Generates the policies that are measured.

use std::{collections::HashMap, fmt::Write as _, fs, path::PathBuf, rc::Rc};

use anyhow::{Context, Result, bail};
use tidegate_core::policy::{LoadContext, Policy, load_text};

use crate::{address::Family, networks::Networks};

/// Longer lists are written to a file that the policy includes.
const INLINE: usize = 64;

/// The key of a policy that controls the deduplication of events.
pub(crate) struct Deduplication {
    /// Suppresses duplicates.
    pub(crate) on: &'static str,
    /// Reports every attempt.
    pub(crate) off: &'static str,
}

/// The key in this version; `None` if the version has none.
pub(crate) const fn deduplication() -> Option<Deduplication> {
    Some(Deduplication {
        on: "  deduplicate: {audit: 1s, block: off, kill: off}\n",
        off: "  deduplicate: {audit: off, block: off, kill: off}\n",
    })
}

/// The parameters of a generated policy. Its default is `allow`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shape {
    /// The action of all rules.
    pub(crate) action: &'static str,
    pub(crate) rules: usize,
    /// Generated networks, distributed over the rules; `None`: the documentation networks of both families.
    pub(crate) networks: Option<(Family, usize)>,
    /// Whether duplicates are suppressed, see [`deduplication`].
    pub(crate) deduplicates: bool,
    /// Distinguishes otherwise equal policies.
    pub(crate) number: usize,
}

impl Shape {
    /// One rule for the documentation networks.
    pub(crate) const fn small(action: &'static str) -> Shape {
        Shape {
            action,
            rules: 1,
            networks: None,
            deduplicates: false,
            number: 0,
        }
    }

    /// Rules that allow generated networks.
    pub(crate) const fn allowing(rules: usize, family: Family, networks: usize) -> Shape {
        Shape {
            action: "allow",
            rules,
            networks: Some((family, networks)),
            deduplicates: false,
            number: 0,
        }
    }
}

/// Generates policies and caches their networks.
pub(crate) struct Policies {
    dir: PathBuf,
    networks: HashMap<(Family, usize), Rc<Networks>>,
}

impl Policies {
    pub(crate) fn new(dir: PathBuf) -> Policies {
        Policies {
            dir,
            networks: HashMap::new(),
        }
    }

    pub(crate) fn networks(&mut self, family: Family, count: usize) -> Rc<Networks> {
        let generated = self.networks.entry((family, count));
        Rc::clone(generated.or_insert_with(|| Rc::new(Networks::generate(family, count))))
    }

    /// Generates a policy and writes its address files.
    pub(crate) fn text(&mut self, shape: &Shape) -> Result<String> {
        let networks: Vec<String> = match shape.networks {
            Some((family, count)) => self.networks(family, count).texts().collect(),
            None => vec!["198.51.100.0/24".to_owned(), "2001:db8::/32".to_owned()],
        };
        let family = shape.networks.map_or("both", |(family, _)| family.as_str());
        let share = networks.len().div_ceil(shape.rules);
        let mut sets = String::new();
        let mut rules = String::new();
        for (i, mine) in networks.chunks(share).enumerate() {
            let to = if mine.len() <= INLINE {
                format!("\"{}\"", mine.join("\", \""))
            } else {
                let file = format!("{family}-{}-{i}-of-{}.txt", networks.len(), shape.rules);
                fs::write(self.dir.join(&file), mine.join("\n") + "\n")?;
                writeln!(sets, "    s{i}: {{file: {file}}}")?;
                format!("\"@s{i}\"")
            };
            let action = shape.action;
            writeln!(rules, "    - {{name: r{i}, action: {action}, to: [{to}]}}")?;
        }
        if !sets.is_empty() {
            sets.insert_str(0, "  sets:\n");
        }
        let deduplication = match deduplication() {
            Some(deduplication) if shape.deduplicates => deduplication.on,
            Some(deduplication) => deduplication.off,
            None => "",
        };
        Ok(format!(
            "apiVersion: tidegate.io/v1\nkind: EgressPolicy\nmetadata: {{name: bench}}\nspec:\n  \
             mode: enforce\n  default: allow\n  errno: ECONNREFUSED\n{deduplication}{sets}  rules:\n{rules}"
        ))
    }

    /// Parses a policy.
    pub(crate) fn parse(&self, text: &str) -> Result<Policy> {
        let loaded = load_text("bench.yaml", text, &self.dir, &LoadContext::default());
        if loaded.has_errors() {
            bail!(
                "a policy of the benchmark is not valid:\n{}",
                loaded.render(false)
            );
        }
        loaded.policy.context("no policy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_a_valid_policy() {
        let dir = tempfile::tempdir().unwrap();
        let mut policies = Policies::new(dir.path().to_owned());
        for shape in [
            Shape::small("audit"),
            Shape::allowing(1, Family::V6, 1000),
            Shape::allowing(256, Family::V4, 100_000),
            Shape::allowing(1024, Family::V4, 1024),
        ] {
            let text = policies.text(&shape).unwrap();
            let policy = policies.parse(&text).unwrap();
            assert_eq!(policy.rules.len(), shape.rules, "{shape:?}");
        }
    }
}
