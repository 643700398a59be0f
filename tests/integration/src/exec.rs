//! `tidegate exec`, as a test runs it.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    captured::{Captured, Ended},
    cgroup::TestCgroup,
    client_result::ClientResult,
    kernel::{GLOBAL, is_whole_machine, kills_at_once},
    report::Report,
    requirement::tidegate_bin,
    shared_file::SharedFolder,
};

/// What another environment could bring into a test.
const FOREIGN_VARIABLES: [&str; 11] = [
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "NO_COLOR",
    "SUDO_COMMAND",
    "SUDO_GID",
    "SUDO_UID",
    "SUDO_USER",
    "TIDEGATE_BPFFS",
    "TIDEGATE_DISABLE",
    "TIDEGATE_EVENT_RING_BYTES",
    "TIDEGATE_RUN",
];

const DISABLE: &str = "TIDEGATE_DISABLE";

/// A policy of this name; `spec` is a mapping of YAML in braces.
pub fn policy(name: &str, spec: &str) -> String {
    format!("apiVersion: tidegate.io/v1\nkind: EgressPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// `tidegate` with any words, in the environment that tests have.
pub fn tidegate<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> Command {
    let mut command = Command::new(tidegate_bin());
    command.args(words).stdin(Stdio::null());
    for name in FOREIGN_VARIABLES {
        command.env_remove(name);
    }
    if !is_whole_machine() {
        command.env(DISABLE, GLOBAL);
    }
    command
}

/// What a test says of the environment, beside what holds for all of them.
pub(crate) fn environment(variables: &[(OsString, OsString)]) -> impl Iterator<Item = (&OsString, OsString)> {
    variables.iter().map(|(name, value)| {
        let mut value = value.clone();
        if name == DISABLE && !is_whole_machine() {
            value.push(",");
            value.push(GLOBAL);
        }
        (name, value)
    })
}

/// A `tidegate exec` to be run, in a cgroup of its own.
pub struct Gate {
    cgroup: TestCgroup,
    folder: SharedFolder,
    options: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    policies: usize,
    input: bool,
}

impl Gate {
    /// Without any policy yet.
    ///
    /// # Panics
    /// When there is no place for its cgroup or files.
    pub fn open() -> Gate {
        Gate {
            cgroup: TestCgroup::create(),
            folder: SharedFolder::create(),
            options: Vec::new(),
            variables: Vec::new(),
            policies: 0,
            input: false,
        }
    }

    /// With a policy of the name `gate`.
    ///
    /// # Panics
    /// As [`Gate::open`].
    pub fn with(spec: &str) -> Gate {
        Gate::open().policy(&policy("gate", spec))
    }

    /// Adds a policy, by its whole text.
    pub fn policy(mut self, text: &str) -> Gate {
        let file = self.folder.write(&format!("policy-{}.yaml", self.policies), text);
        self.policies += 1;
        self.options.extend([OsString::from("--policy"), file.into()]);
        self
    }

    /// Adds options.
    pub fn options<W: Into<OsString>>(mut self, words: impl IntoIterator<Item = W>) -> Gate {
        self.options.extend(words.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable for tidegate.
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Gate {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Gives it a pipe as standard input.
    pub fn with_input(mut self) -> Gate {
        self.input = true;
        self
    }

    /// The cgroup that tidegate runs in; what it makes is below.
    pub fn cgroup(&self) -> &TestCgroup {
        &self.cgroup
    }

    /// A folder for the test's files.
    pub fn folder(&self) -> &SharedFolder {
        &self.folder
    }

    /// Where the report is written.
    pub fn report_path(&self) -> PathBuf {
        self.folder.path().join("report.jsonl")
    }

    /// The report, once tidegate has ended.
    ///
    /// # Panics
    /// When there is none, or it is not as its contract says.
    pub fn report(&self) -> Report {
        Report::read(&self.report_path())
    }

    /// All words of the command line.
    pub fn words<W: Into<OsString>>(&self, command: impl IntoIterator<Item = W>) -> Vec<OsString> {
        let mut words = vec![
            OsString::from("exec"),
            "--report".into(),
            self.report_path().into(),
        ];
        words.extend(self.options.iter().cloned());
        words.push("--".into());
        words.extend(command.into_iter().map(Into::into));
        words
    }

    /// Starts a command behind the gate.
    ///
    /// # Panics
    /// When tidegate does not start.
    pub fn start<W: Into<OsString>>(&self, command: impl IntoIterator<Item = W>) -> Captured {
        self.spawn(command, self.input)
    }

    fn spawn<W: Into<OsString>>(&self, command: impl IntoIterator<Item = W>, input: bool) -> Captured {
        let mut tidegate = tidegate(self.words(command));
        tidegate.envs(environment(&self.variables));
        if input {
            tidegate.stdin(Stdio::piped());
        }
        enter(&mut tidegate, &self.cgroup);
        Captured::spawn(&mut tidegate)
    }

    /// Runs a command behind the gate.
    ///
    /// # Panics
    /// When tidegate does not start or end.
    pub fn run<W: Into<OsString>>(&self, command: impl IntoIterator<Item = W>) -> Ended {
        self.start(command).finish()
    }

    /// Sends a test client out through a gate that kills, and waits for the end. It would stay for ever: it
    /// is dead of the signal, whether that came with the call or a moment later.
    ///
    /// # Panics
    /// When it lives, or ran on where the kernel kills at once.
    #[track_caller]
    pub fn last_result(&self, mut words: Vec<OsString>) -> Ended {
        words.push("--stay".into());
        let mut running = self.spawn(words, true);
        let input = running.take_stdin();
        let ended = running.finish();
        drop(input);
        ended.expect_code(128 + libc::SIGKILL);
        if kills_at_once() {
            assert_eq!(ended.stdout, "", "no instruction runs after the call");
        }
        ended
    }

    /// Sends a test client out through the gate, and expects it to come home and tell.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn run_client(&self, words: Vec<OsString>) -> ClientResult {
        let ended = self.run(words);
        ended.expect_code(0);
        let told = ClientResult::read(&ended.stdout).pop();
        told.unwrap_or_else(|| panic!("the test client told nothing: {}{}", ended.stdout, ended.stderr))
    }
}

/// Moves the process that a command will be into a cgroup, before its first instruction.
pub fn enter(command: &mut Command, cgroup: &TestCgroup) {
    enter_at(command, &cgroup.members_file());
}

/// The same by the cgroup's file of members.
pub fn enter_at(command: &mut Command, members: &Path) {
    let members = open_members(members);
    // SAFETY: between fork and exec only write(2) is called, on a descriptor opened before.
    unsafe {
        command.pre_exec(move || {
            let itself = b"0";
            if libc::write(members.as_raw_fd(), itself.as_ptr().cast(), itself.len()) == 1 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
}

fn open_members(path: &Path) -> File {
    let file = File::options().write(true).open(path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
