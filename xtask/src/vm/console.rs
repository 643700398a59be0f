//! Parses the serial console: the marks of the init in vm-tests, and libtest's report of each test.

use std::collections::BTreeMap;

/// The result of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TestReport {
    /// `ok`, `FAILED` or `ignored`.
    pub(crate) result: String,
    /// The parts that it skipped, with their marks.
    pub(crate) skipped: Vec<String>,
    /// Its output.
    pub(crate) output: Vec<String>,
}

/// An event on the console, for progress output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ConsoleEvent {
    /// A test program starts.
    ProgramStarted(String),
    /// A test finished: its name and result.
    TestFinished(String, String),
    /// Another line of output of a program.
    Output(String),
    /// A program exited: its name, run time in seconds, and exit code or another reason.
    ProgramExited(String, f64, String),
}

/// The parsed console.
#[derive(Debug, Default)]
pub(crate) struct Console {
    /// The kernel release, as `uname -r` prints it.
    pub(crate) release: Option<String>,
    /// Active security modules, separated by commas.
    pub(crate) security_modules: Option<String>,
    /// Results by `program::test`.
    pub(crate) tests: BTreeMap<String, TestReport>,
    /// Errors other than failed tests.
    pub(crate) errors: Vec<String>,
    /// Whether init reached its end.
    pub(crate) is_done: bool,
    /// Whether the kernel or init reported a fatal error.
    reported_failure: bool,
    program: Option<String>,
    current_test: Option<String>,
}

impl Console {
    /// Whether the machine stopped or hung without a reason inside of it: no failed test, no time-out, no error of init, and no
    /// panic of a kernel that had started init. (A kernel can panic during boot when this machine is busy: "IO-APIC + timer
    /// doesn't work!".)
    pub(crate) fn is_aborted(&self) -> bool {
        let succeeded = |test: &TestReport| matches!(test.result.as_str(), "ok" | "ignored");
        !self.is_done && !self.reported_failure && self.tests.values().all(succeeded)
    }

    /// Parses the next line.
    pub(crate) fn line(&mut self, line: &str) -> Option<ConsoleEvent> {
        let line = line.trim_end_matches('\r');
        if let Some(program) = self.program.clone()
            && !line.starts_with("TEST-END ")
        {
            if line.contains("Kernel panic") {
                self.reported_failure = true;
                self.errors.push(line.to_owned());
            }
            return self.program_line(&program, line);
        }
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "VM-KERNEL" => self.release = Some(rest.to_owned()),
            "VM-LSM" => self.security_modules = Some(rest.to_owned()),
            "VM-MODULE" => self.errors.push(rest.to_owned()),
            "VM-FAILED" => {
                self.reported_failure = true;
                self.errors.push(rest.to_owned());
            }
            "VM-DONE" => self.is_done = true,
            "TEST-BEGIN" => {
                self.program = Some(rest.to_owned());
                return Some(ConsoleEvent::ProgramStarted(rest.to_owned()));
            }
            "TEST-END" => {
                self.program = None;
                self.current_test = None;
                let mut fields = rest.splitn(3, ' ');
                let (name, seconds, exit) = (fields.next()?, fields.next()?, fields.next()?);
                if exit != "0" && exit != "101" {
                    self.reported_failure = true;
                    self.errors.push(format!("{name}: {exit}"));
                }
                return Some(ConsoleEvent::ProgramExited(
                    name.to_owned(),
                    seconds.parse().ok()?,
                    exit.to_owned(),
                ));
            }
            _ if line.contains("Kernel panic") => {
                self.reported_failure = self.release.is_some();
                self.errors.push(line.to_owned());
            }
            _ => {}
        }
        None
    }

    fn program_line(&mut self, program: &str, line: &str) -> Option<ConsoleEvent> {
        // `test name ... ok`, `test name ... ignored, reason`
        if let Some((name, result)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
        {
            let result = result.split(',').next().unwrap_or(result).trim().to_owned();
            let test = format!("{program}::{name}");
            self.tests
                .entry(test.clone())
                .or_default()
                .result
                .clone_from(&result);
            return Some(ConsoleEvent::TestFinished(test, result));
        }
        // `---- name stdout ----`: the output of that test follows.
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.current_test = Some(format!("{program}::{name}"));
        } else if matches!(line, "successes:" | "failures:") || line.starts_with("test result:") {
            self.current_test = None;
        } else if let Some(test) = self
            .current_test
            .as_ref()
            .and_then(|current_test| self.tests.get_mut(current_test))
        {
            for mark in ["SKIPPED: ", "NOT IN THIS KERNEL: "] {
                if let Some((_, what)) = line.split_once(mark) {
                    test.skipped.push(format!("{mark}{what}"));
                }
            }
            test.output.push(line.to_owned());
        }
        Some(ConsoleEvent::Output(line.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
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
    fn results_and_output_are_collected_by_test() {
        let mut console = Console::default();
        let event: Vec<ConsoleEvent> = OUTPUT.lines().filter_map(|line| console.line(line)).collect();
        assert!(event.contains(&ConsoleEvent::Output("it lives".into())));
        assert_eq!(event.first(), Some(&ConsoleEvent::ProgramStarted("kill".into())));
        assert_eq!(
            event.last(),
            Some(&ConsoleEvent::ProgramExited("kill".into(), 3.5, "101".into()))
        );
        assert_eq!(console.release.as_deref(), Some("6.1.0"));
        assert_eq!(console.errors, ["/m.ko: no such device"]);
        assert!(console.is_done);
        let passed = &console.tests["kill::at_connect"];
        assert_eq!(passed.skipped, ["NOT IN THIS KERNEL: at_connect: no MPTCP"]);
        let failed = &console.tests["kill::at_fast_open"];
        assert_eq!((failed.result.as_str(), failed.skipped.len()), ("FAILED", 0));
        assert!(failed.output.contains(&"it lives".to_owned()));
    }

    #[test]
    fn a_program_that_fails_is_an_error() {
        let mut console = Console::default();
        for line in [
            "TEST-BEGIN a",
            "test x ... ok",
            "TEST-END a 60.0 took longer than 60 seconds",
        ] {
            console.line(line);
        }
        assert_eq!(console.errors, ["a: took longer than 60 seconds"]);
        assert!(!console.is_done && !console.is_aborted());
    }

    #[test]
    fn a_machine_is_aborted_only_without_a_failure_inside() {
        let is_aborted = |lines: &[&str]| {
            let mut console = Console::default();
            for line in lines {
                console.line(line);
            }
            console.is_aborted()
        };
        let begun = ["VM-KERNEL 6.1.0", "TEST-BEGIN a", "test x ... ok"];
        assert!(is_aborted(&[]) && is_aborted(&begun));
        for end in ["test y ... FAILED", "Kernel panic - not syncing: x"] {
            assert!(!is_aborted(&[&begun[..], &[end]].concat()), "{end}");
        }
        let panic = "[    0.068000] Kernel panic - not syncing: IO-APIC + timer doesn't work!";
        assert!(is_aborted(&[panic]), "panic before init");
        assert!(!is_aborted(&[begun[0], panic]));
        for end in ["VM-DONE 1", "VM-FAILED no root"] {
            assert!(!is_aborted(&[end]), "{end}");
        }
    }
}
