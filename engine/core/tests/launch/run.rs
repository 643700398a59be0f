//! Runs the supervisor program and reads its results.

use std::{
    env,
    io::{BufRead, BufReader, Read, Write},
    path::PathBuf,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::role::SUPERVISE;

/// The supervisor program, not started yet.
pub(crate) fn supervisor(options: &[&str], command: &[&str]) -> Command {
    let mut supervisor = Command::new(env::current_exe().unwrap());
    supervisor
        .arg(SUPERVISE)
        .args(options)
        .arg("--")
        .args(command)
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID");
    supervisor
}

/// Runs `sh -c script` to its end.
pub(crate) fn shell(options: &[&str], script: &str) -> Finished {
    finish(supervisor(options, &["sh", "-c", script]))
}

/// Runs a prepared supervisor to its end.
pub(crate) fn finish(command: Command) -> Finished {
    Running::start(command).finish()
}

/// A running supervisor.
pub(crate) struct Running {
    child: Child,
    /// Not in `child`, which would close it on waiting.
    input: ChildStdin,
    pub(crate) output: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
    seen: String,
}

/// The results of a supervisor.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its exit code, or 1000 plus the number of the signal that ended it.
    pub(crate) code: i32,
    pub(crate) output: String,
    pub(crate) errors: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Running {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            errors: BufReader::new(child.stderr.take().unwrap()),
            child,
            seen: String::new(),
        }
    }

    /// The next line of the command's output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The value of a `key: value` line of the supervisor.
    pub(crate) fn reported(&mut self, key: &str) -> String {
        loop {
            if let Some(value) = value(&self.seen, key) {
                return value;
            }
            let read = self.errors.read_line(&mut self.seen).unwrap();
            assert_ne!(read, 0, "no `{key}` in {}", self.seen);
        }
    }

    pub(crate) fn write_input(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Waits for the supervisor only: processes that outlive it may hold the pipes.
    pub(crate) fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().unwrap();
        status
            .code()
            .unwrap_or_else(|| 1000 + status.signal().unwrap_or_default())
    }

    pub(crate) fn finish(mut self) -> Finished {
        let code = self.wait();
        drop(self.input);
        let mut output = String::new();
        self.output.read_to_string(&mut output).unwrap();
        self.errors.read_to_string(&mut self.seen).unwrap();
        Finished {
            code,
            output,
            errors: self.seen,
        }
    }
}

impl Finished {
    pub(crate) fn reported(&self, key: &str) -> String {
        value(&self.errors, key).unwrap_or_else(|| panic!("no `{key}` in {self:?}"))
    }

    pub(crate) fn cgroup(&self) -> PathBuf {
        self.reported("cgroup").into()
    }

    /// The value of a line of /proc/self/status in the output.
    pub(crate) fn status_line(&self, key: &str) -> String {
        self.output
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
            .unwrap_or_else(|| panic!("no `{key}` in {self:?}"))
            .trim()
            .to_owned()
    }
}

fn value(text: &str, key: &str) -> Option<String> {
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        .map(str::to_owned)
}
