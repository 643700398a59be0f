//! What comes over the serial line: the marks of our init, and libtest's report of each test.

use std::collections::BTreeMap;

/// How a test ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// `ok`, `FAILED`, `ignored`.
    pub(crate) how: String,
    /// What it said that it left out.
    pub(crate) missing: Vec<String>,
    /// All it said.
    pub(crate) output: Vec<String>,
}

/// Something worth telling at once.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum News {
    /// A program begins.
    Begins(String),
    /// A test ended.
    Test(String, String),
    /// A program says something else.
    Says(String),
    /// A program ended: its name, seconds, exit code or words.
    Ends(String, f64, String),
}

/// What is known so far.
#[derive(Debug, Default)]
pub(crate) struct Console {
    /// The kernel's own name of its version.
    pub(crate) release: Option<String>,
    /// Active security modules.
    pub(crate) security_modules: Option<String>,
    /// Tests, by `program::test`.
    pub(crate) tests: BTreeMap<String, Ended>,
    /// What went wrong apart from tests.
    pub(crate) troubles: Vec<String>,
    /// Whether init came to its end.
    pub(crate) is_done: bool,
    /// Whether the kernel or init gave up, and said so.
    gave_up: bool,
    program: Option<String>,
    speaker: Option<String>,
}

impl Console {
    /// Whether the machine hung or vanished and nothing inside of it is known to be the reason: neither a
    /// test that failed or took too long, nor init, nor a kernel that got as far as running anything of ours. (A
    /// busy machine here can be enough for one that does not: "IO-APIC + timer doesn't work!".)
    pub(crate) fn is_broken_off(&self) -> bool {
        let fine = |ended: &Ended| matches!(ended.how.as_str(), "ok" | "ignored");
        !self.is_done && !self.gave_up && self.tests.values().all(fine)
    }

    /// Takes the next line.
    pub(crate) fn line(&mut self, line: &str) -> Option<News> {
        let line = line.trim_end_matches('\r');
        if let Some(program) = self.program.clone()
            && !line.starts_with("TEST-END ")
        {
            if line.contains("Kernel panic") {
                self.gave_up = true;
                self.troubles.push(line.to_owned());
            }
            return self.of_program(&program, line);
        }
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "VM-KERNEL" => self.release = Some(rest.to_owned()),
            "VM-LSM" => self.security_modules = Some(rest.to_owned()),
            "VM-MODULE" => self.troubles.push(rest.to_owned()),
            "VM-FAILED" => {
                self.gave_up = true;
                self.troubles.push(rest.to_owned());
            }
            "VM-DONE" => self.is_done = true,
            "TEST-BEGIN" => {
                self.program = Some(rest.to_owned());
                return Some(News::Begins(rest.to_owned()));
            }
            "TEST-END" => {
                self.program = None;
                self.speaker = None;
                let mut fields = rest.splitn(3, ' ');
                let (name, seconds, how) = (fields.next()?, fields.next()?, fields.next()?);
                if how != "0" && how != "101" {
                    self.gave_up = true;
                    self.troubles.push(format!("{name}: {how}"));
                }
                return Some(News::Ends(name.to_owned(), seconds.parse().ok()?, how.to_owned()));
            }
            _ if line.contains("Kernel panic") => {
                self.gave_up = self.release.is_some();
                self.troubles.push(line.to_owned());
            }
            _ => {}
        }
        None
    }

    fn of_program(&mut self, program: &str, line: &str) -> Option<News> {
        // `test name ... ok`, `test name ... ignored, reason`
        if let Some((name, how)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            let how = how.split(',').next().unwrap_or(how).trim().to_owned();
            let test = format!("{program}::{name}");
            self.tests.entry(test.clone()).or_default().how.clone_from(&how);
            return Some(News::Test(test, how));
        }
        // `---- name stdout ----`, until the next or an end of the list.
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.speaker = Some(format!("{program}::{name}"));
        } else if matches!(line, "successes:" | "failures:") || line.starts_with("test result:") {
            self.speaker = None;
        } else if let Some(test) = self
            .speaker
            .as_ref()
            .and_then(|speaker| self.tests.get_mut(speaker))
        {
            for mark in ["SKIPPED: ", "NOT IN THIS KERNEL: "] {
                if let Some((_, what)) = line.split_once(mark) {
                    test.missing.push(format!("{mark}{what}"));
                }
            }
            test.output.push(line.to_owned());
        }
        Some(News::Says(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
noise of the firmware
VM-KERNEL 6.1.0\r
VM-MODULE /m.ko: no such device
TEST-BEGIN kill

running 2 tests
test at_connect ... ok
test at_fast_open ... FAILED

successes:

---- at_connect stdout ----
NOT IN THIS KERNEL: at_connect: no MPTCP

successes:
    at_connect

failures:

---- at_fast_open stdout ----
thread 'at_fast_open' panicked at tests/kill.rs:33:
it lives

failures:
    at_fast_open

test result: FAILED. 1 passed; 1 failed
TEST-END kill 3.5 101
VM-DONE 1
";

    #[test]
    fn tests_and_what_they_said_are_told_apart() {
        let mut console = Console::default();
        let news: Vec<News> = SAID.lines().filter_map(|line| console.line(line)).collect();
        assert!(news.contains(&News::Says("it lives".into())));
        assert_eq!(news.first(), Some(&News::Begins("kill".into())));
        assert_eq!(news.last(), Some(&News::Ends("kill".into(), 3.5, "101".into())));
        assert_eq!(console.release.as_deref(), Some("6.1.0"));
        assert_eq!(console.troubles, ["/m.ko: no such device"]);
        assert!(console.is_done);
        let passed = &console.tests["kill::at_connect"];
        assert_eq!(passed.missing, ["NOT IN THIS KERNEL: at_connect: no MPTCP"]);
        let failed = &console.tests["kill::at_fast_open"];
        assert_eq!((failed.how.as_str(), failed.missing.len()), ("FAILED", 0));
        assert!(failed.output.contains(&"it lives".to_owned()));
    }

    #[test]
    fn a_program_that_did_not_end_well_is_trouble() {
        let mut console = Console::default();
        for line in [
            "TEST-BEGIN a",
            "test x ... ok",
            "TEST-END a 60.0 took longer than 60 seconds",
        ] {
            console.line(line);
        }
        assert_eq!(console.troubles, ["a: took longer than 60 seconds"]);
        assert!(!console.is_done && !console.is_broken_off());
    }

    #[test]
    fn a_machine_is_broken_off_only_where_nothing_inside_is_to_blame() {
        let is_broken_off = |lines: &[&str]| {
            let mut console = Console::default();
            for line in lines {
                console.line(line);
            }
            console.is_broken_off()
        };
        let begun = ["VM-KERNEL 6.1.0", "TEST-BEGIN a", "test x ... ok"];
        assert!(is_broken_off(&[]) && is_broken_off(&begun));
        for end in ["test y ... FAILED", "Kernel panic - not syncing: x"] {
            assert!(!is_broken_off(&[&begun[..], &[end]].concat()), "{end}");
        }
        let panic = "[    0.068000] Kernel panic - not syncing: IO-APIC + timer doesn't work!";
        assert!(is_broken_off(&[panic]), "nothing of ours ran");
        assert!(!is_broken_off(&[begun[0], panic]));
        for end in ["VM-DONE 1", "VM-FAILED no root"] {
            assert!(!is_broken_off(&[end]), "{end}");
        }
    }
}
