//! The number of instructions that the verifier processes for each program on each kernel: docs/verifier.json, the limit for the
//! test `verifier`, and docs/verifier.md, generated from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::command::workspace;

/// Environment variable that makes the test `verifier` only count.
pub(crate) const RECORDING: &str = "TIDEGATE_RECORD_VERIFIER";

/// The test that prints the counts.
pub(crate) const TEST: &str = "verifier::verifier_work_has_not_grown";

/// Start of its lines: `VERIFIER 6.18 connect4 22000`; `-` for a kernel that does not report the count.
const MARK: &str = "VERIFIER ";

const HEAD: &str = "\
# Instructions processed by the verifier

The number of instructions that the kernel's verifier processed for each program (`bpf_prog_info.verified_insns`; before Linux
5.16 the verifier's statistics), with the constants for the features of that kernel. The limit is one million. The count is not
the length of the program: each path with distinct known values counts.

The test `verifier` fails if a program exceeds its count by more than 20 percent. `cargo xtask vm --record-verifier` boots the
kernels, counts, and writes this page and verifier.json. `-` marks a program that is not loaded on that kernel.

";

/// The counts by kernel, `major.minor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Record(BTreeMap<String, Row>);

/// The counts of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// Its release, as `uname -r` prints it.
    release: String,
    /// Instructions by program; `None` where the kernel does not report them.
    programs: BTreeMap<String, Option<u32>>,
}

impl Record {
    /// Reads docs/verifier.json.
    ///
    /// # Errors
    /// When it cannot be read or has another format.
    pub(crate) fn read() -> Result<Record> {
        let path = json();
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Adds the counts in the test output of a kernel. For a kernel that this run has already added (`taken`), only programs
    /// without a count are added.
    ///
    /// # Errors
    /// When a line has another format, or there is none.
    pub(crate) fn take<'a>(
        &mut self,
        release: &str,
        output: impl Iterator<Item = &'a str>,
        taken: &mut BTreeSet<String>,
    ) -> Result<()> {
        let mut counts: BTreeMap<&str, BTreeMap<String, Option<u32>>> = BTreeMap::new();
        for line in output.filter_map(|line| line.strip_prefix(MARK)) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [kernel, program, count] = fields[..] else {
                bail!("unexpected line: {line}");
            };
            let count = match count {
                "-" => None,
                count => Some(count.parse().with_context(|| line.to_owned())?),
            };
            counts
                .entry(kernel)
                .or_default()
                .insert(program.to_owned(), count);
        }
        ensure!(
            !counts.is_empty(),
            "the test `verifier` printed no counts on {release}"
        );
        for (kernel, programs) in counts {
            if taken.insert(kernel.to_owned()) {
                let release = release.to_owned();
                self.0.insert(kernel.to_owned(), Row { release, programs });
            } else if let Some(row) = self.0.get_mut(kernel) {
                for (program, count) in programs {
                    row.programs.entry(program).or_insert(count);
                }
            }
        }
        Ok(())
    }

    /// Writes docs/verifier.json and docs/verifier.md.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write(&self) -> Result<()> {
        for (path, text) in [(json(), self.json()?), (page(), self.page())] {
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        println!("wrote docs/verifier.json and docs/verifier.md");
        Ok(())
    }

    fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The content of docs/verifier.md.
    fn page(&self) -> String {
        let mut kernels: Vec<(&String, &Row)> = self.0.iter().collect();
        kernels.sort_by_key(|(kernel, _)| version(kernel));
        let programs: BTreeSet<&String> = self.0.values().flat_map(|row| row.programs.keys()).collect();
        let mut text = HEAD.to_owned();
        let mut line = |first: &str, cells: Vec<String>| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "| {first} | {} |", cells.join(" | "));
        };
        line(
            "program",
            kernels.iter().map(|(kernel, _)| (*kernel).clone()).collect(),
        );
        line("---", kernels.iter().map(|_| "---:".to_owned()).collect());
        for program in programs {
            let cell = |row: &Row| match row.programs.get(program) {
                None => "-".to_owned(),
                Some(None) => "unknown".to_owned(),
                Some(Some(count)) => count.to_string(),
            };
            line(
                &format!("`{program}`"),
                kernels.iter().map(|(_, row)| cell(row)).collect(),
            );
        }
        text.push_str("\nCounted on ");
        let releases: Vec<&str> = kernels.iter().map(|(_, row)| row.release.as_str()).collect();
        text.push_str(&releases.join(", "));
        text.push_str(".\n");
        text
    }
}

/// `6.18` as integers, to sort by.
fn version(kernel: &str) -> Vec<u32> {
    kernel.split('.').filter_map(|part| part.parse().ok()).collect()
}

fn json() -> PathBuf {
    workspace().join("docs/verifier.json")
}

fn page() -> PathBuf {
    workspace().join("docs/verifier.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_generated_from_the_record() {
        let record = Record::read().unwrap();
        assert!(!record.0.is_empty(), "docs/verifier.json is empty");
        let text = std::fs::read_to_string(page()).unwrap();
        assert!(
            text == record.page(),
            "docs/verifier.md is older than docs/verifier.json: run `cargo xtask docs`"
        );
    }

    #[test]
    fn test_output_becomes_a_row() {
        let mut record = Record::default();
        let mut taken = BTreeSet::new();
        let first = [
            "other output",
            "VERIFIER 6.12 connect4 2100",
            "VERIFIER 6.12 sock_create -",
        ];
        record.take("6.12.1-x", first.into_iter(), &mut taken).unwrap();
        // The same kernel with other boot parameters: programs that it loads in addition are added.
        let second = ["VERIFIER 6.12 connect4 9", "VERIFIER 6.12 socket_connect 30"];
        record.take("6.12.1-x", second.into_iter(), &mut taken).unwrap();
        record
            .take("5.10.1", ["VERIFIER 5.10 connect4 7"].into_iter(), &mut taken)
            .unwrap();
        let page = record.page();
        let table = page.strip_prefix(HEAD).unwrap();
        assert_eq!(
            table,
            "| program | 5.10 | 6.12 |\n| --- | ---: | ---: |\n| `connect4` | 7 | 2100 |\n\
             | `sock_create` | - | unknown |\n| `socket_connect` | - | 30 |\n\nCounted on 5.10.1, 6.12.1-x.\n"
        );
        assert!(record.take("6.1", ["nothing"].into_iter(), &mut taken).is_err());
        assert!(
            record
                .take("6.1", ["VERIFIER 6.1 a b"].into_iter(), &mut taken)
                .is_err()
        );
        // Recorded again in another run: programs that no longer exist are removed.
        let again = ["VERIFIER 6.12 connect6 1"];
        record
            .take("6.12.2", again.into_iter(), &mut BTreeSet::new())
            .unwrap();
        assert_eq!(record.0["6.12"].programs.len(), 1);
    }
}
