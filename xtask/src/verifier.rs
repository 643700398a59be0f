//! How many instructions the verifier processes for each program on each kernel: docs/verifier.json, which the
//! test `verifier` holds what it counts against, and docs/verifier.md, which is made of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::command::workspace;

/// Set for the test `verifier` while it is recorded: it only counts then.
pub(crate) const RECORDING: &str = "TIDEGATE_RECORD_VERIFIER";

/// The test that counts.
pub(crate) const TEST: &str = "verifier::verifier_work_has_not_grown";

/// How its lines begin: `VERIFIER 6.18 connect4 22000`, `-` for what a kernel does not tell.
const MARK: &str = "VERIFIER ";

const HEAD: &str = "\
# What the verifier has to do

Instructions that the kernel's verifier processed for each program (`bpf_prog_info.verified_insns`; before Linux 5.16 the
verifier's own statistics), with the constants that the kernel's abilities give it. A million is the end. The number is not
a program's length: every path that known values make distinct counts.

The test `verifier` fails where a program takes more than 20 percent above this. `cargo xtask vm --record-verifier` boots
the kernels, counts, and writes this page and verifier.json; nothing here is typed by hand. `-` is a program that is not
loaded there.

";

/// The record, by `major.minor`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Record(BTreeMap<String, Row>);

/// One kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    /// The kernel's own name of its version.
    release: String,
    /// Instructions of each program; none where the kernel does not tell.
    programs: BTreeMap<String, Option<u32>>,
}

impl Record {
    /// Reads docs/verifier.json.
    ///
    /// # Errors
    /// When it is not there or not as it should be.
    pub(crate) fn read() -> Result<Record> {
        let path = json();
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    }

    /// Takes what a kernel's tests said; of a kernel that has been taken in this run already, only programs
    /// that it did not load.
    ///
    /// # Errors
    /// When what they said is not understood.
    pub(crate) fn take<'a>(
        &mut self,
        release: &str,
        said: impl Iterator<Item = &'a str>,
        taken: &mut BTreeSet<String>,
    ) -> Result<()> {
        let mut counts: BTreeMap<&str, BTreeMap<String, Option<u32>>> = BTreeMap::new();
        for line in said.filter_map(|line| line.strip_prefix(MARK)) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [kernel, program, count] = fields[..] else {
                bail!("not understood: {line}");
            };
            let count = match count {
                "-" => None,
                number => Some(number.parse().with_context(|| line.to_owned())?),
            };
            counts
                .entry(kernel)
                .or_default()
                .insert(program.to_owned(), count);
        }
        ensure!(
            !counts.is_empty(),
            "the test `verifier` counted nothing on {release}"
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

    /// The table for people.
    fn page(&self) -> String {
        let mut kernels: Vec<(&String, &Row)> = self.0.iter().collect();
        kernels.sort_by_key(|(kernel, _)| numbers(kernel));
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
                Some(None) => "not told".to_owned(),
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

/// `6.18` as numbers, to sort by.
fn numbers(kernel: &str) -> Vec<u32> {
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
    fn the_page_is_made_of_the_record() {
        let record = Record::read().unwrap();
        assert!(!record.0.is_empty(), "docs/verifier.json is empty");
        let there = std::fs::read_to_string(page()).unwrap();
        assert!(
            there == record.page(),
            "docs/verifier.md is behind docs/verifier.json: run `cargo xtask docs`"
        );
    }

    #[test]
    fn what_tests_said_becomes_a_row() {
        let mut record = Record::default();
        let mut taken = BTreeSet::new();
        let first = [
            "chatter",
            "VERIFIER 6.12 connect4 2100",
            "VERIFIER 6.12 sock_create -",
        ];
        record.take("6.12.1-x", first.into_iter(), &mut taken).unwrap();
        // The same kernel, started otherwise: what it loads beside that is added.
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
             | `sock_create` | - | not told |\n| `socket_connect` | - | 30 |\n\nCounted on 5.10.1, 6.12.1-x.\n"
        );
        assert!(record.take("6.1", ["nothing"].into_iter(), &mut taken).is_err());
        assert!(
            record
                .take("6.1", ["VERIFIER 6.1 a b"].into_iter(), &mut taken)
                .is_err()
        );
        // Recorded again, in another run: programs that are gone are gone.
        let again = ["VERIFIER 6.12 connect6 1"];
        record
            .take("6.12.2", again.into_iter(), &mut BTreeSet::new())
            .unwrap();
        assert_eq!(record.0["6.12"].programs.len(), 1);
    }
}
