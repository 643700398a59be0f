//! Which mirrors of the Debian archive this machine uses, according to its own apt sources.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::command::stdout_of;

/// Environment variables that name a mirror, for machines whose apt sources are not Debian's.
const ARCHIVE_VARIABLE: &str = "TIDEGATE_DEBIAN_MIRROR";
const SECURITY_VARIABLE: &str = "TIDEGATE_DEBIAN_SECURITY_MIRROR";

/// The mirrors, as apt spells their URIs (`http://mirror.example.com/debian/`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mirrors {
    archive: Vec<Source>,
    security: Vec<Source>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    suite: String,
    uri: String,
}

impl Mirrors {
    /// Reads the environment and the apt sources of this machine. When the machine has no package lists, they are
    /// downloaded to `apt/own-sources` in `directory`, which needs no root.
    ///
    /// # Errors
    /// When that directory cannot be created.
    pub(crate) fn detect(directory: &Path) -> Result<Mirrors> {
        let state = &directory.join("apt/own-sources");
        let mut mirrors = Mirrors::parse(&index_targets(None));
        if mirrors.archive.is_empty() {
            let partial = state.join("lists/partial");
            fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
            eprintln!("    apt-get: the package lists of this machine's apt sources");
            // Some of the sources may be unreachable: use those that answered.
            let _ = apt_get(Some(state)).args(["--quiet=2", "update"]).output();
            mirrors = Mirrors::parse(&index_targets(Some(state)));
        }
        for (variable, sources) in [
            (ARCHIVE_VARIABLE, &mut mirrors.archive),
            (SECURITY_VARIABLE, &mut mirrors.security),
        ] {
            if let Ok(uri) = std::env::var(variable) {
                let suite = String::new();
                *sources = vec![Source { suite, uri }];
            }
        }
        Ok(mirrors)
    }

    /// The mirror of a suite (`trixie`, `trixie-security`): the one configured for this suite, otherwise the first
    /// one of the same archive.
    ///
    /// # Errors
    /// When no apt source of this machine is for that archive.
    pub(crate) fn uri(&self, suite: &str) -> Result<&str> {
        let (sources, archive, variable) = if suite.ends_with("-security") {
            (&self.security, "Debian security archive", SECURITY_VARIABLE)
        } else {
            (&self.archive, "Debian archive", ARCHIVE_VARIABLE)
        };
        let same = sources.iter().find(|source| source.suite == suite);
        let source = same.or(sources.first()).with_context(|| {
            format!(
                "no apt source of this machine is for the {archive} (needed for suite {suite}): add one, or set \
                 {variable}=http://mirror.example.com/..."
            )
        })?;
        Ok(&source.uri)
    }

    /// Parses lines of [`FORMAT`]. The label identifies Debian's archives.
    fn parse(targets: &str) -> Mirrors {
        let mut mirrors = Mirrors::default();
        for line in targets.lines() {
            let [origin, label, suite, uri] = line.split('|').collect::<Vec<_>>()[..] else {
                continue;
            };
            let sources = match (origin, label) {
                ("Debian", "Debian" | "Debian Backports") => &mut mirrors.archive,
                ("Debian", "Debian-Security") => &mut mirrors.security,
                _ => continue,
            };
            sources.push(Source {
                suite: suite.to_owned(),
                uri: uri.to_owned(),
            });
        }
        mirrors
    }
}

const FORMAT: &str = "$(ORIGIN)|$(LABEL)|$(RELEASE)|$(SITE)";

/// A line for each package list that apt knows, in [`FORMAT`]; empty without apt or without lists.
fn index_targets(state: Option<&Path>) -> String {
    stdout_of(apt_get(state).args(["indextargets", "--format", FORMAT, "Created-By: Packages"]))
        .unwrap_or_default()
}

/// apt-get with the machine's own sources, and with its own state or this one.
fn apt_get(state: Option<&Path>) -> Command {
    let mut apt = Command::new("apt-get");
    if let Some(state) = state {
        for (option, path) in [
            ("Dir::State", state.to_owned()),
            ("Dir::State::lists", state.join("lists")),
            ("Dir::Cache", state.join("cache")),
        ] {
            apt.arg("-o").arg(format!("{option}={}", path.display()));
        }
        apt.args([
            "-o",
            "APT::Sandbox::User=",
            "-o",
            "APT::Update::Post-Invoke-Success=",
        ]);
    }
    apt
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
Docker|Docker CE|bookworm|https://mirror.example.com/linux/debian
Debian|Debian|bookworm|http://mirror.example.com/debian
Debian|Debian Backports|bookworm-backports|http://backports.example.com/debian
Debian|Debian debug|bookworm-debug|http://mirror.example.com/debian-debug
Debian|Debian-Security|bookworm-security|mirror+file:/etc/apt/mirrors/debian-security.list
";

    #[test]
    fn the_mirror_of_the_same_suite_or_archive_is_used() {
        let mirrors = Mirrors::parse(TARGETS);
        for (suite, uri) in [
            ("bookworm", "http://mirror.example.com/debian"),
            ("bookworm-backports", "http://backports.example.com/debian"),
            ("trixie", "http://mirror.example.com/debian"),
            (
                "trixie-security",
                "mirror+file:/etc/apt/mirrors/debian-security.list",
            ),
        ] {
            assert_eq!(mirrors.uri(suite).unwrap(), uri, "{suite}");
        }
    }

    #[test]
    fn without_a_debian_source_the_error_names_the_variable() {
        let ubuntu = "Ubuntu|Ubuntu|noble|http://mirror.example.com/ubuntu\n";
        let mirrors = Mirrors::parse(ubuntu);
        for (suite, variable) in [
            ("trixie", ARCHIVE_VARIABLE),
            ("trixie-security", SECURITY_VARIABLE),
        ] {
            let error = mirrors.uri(suite).unwrap_err().to_string();
            assert!(error.contains(variable) && error.contains(suite), "{error}");
        }
    }
}
