//! The fixture of tests that run `tidegate exec`.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    cgroup::TestCgroup,
    client_result::ClientResult,
    kernel::{GLOBAL, is_dedicated_machine, kills_at_once},
    report::Report,
    requirement::tidegate_bin,
    running_command::{CommandOutput, RunningCommand},
    shared_dir::SharedDir,
};

/// Variables of the caller that would change what tidegate does.
const FOREIGN_VARIABLES: [&str; 12] = [
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
    "TIDEGATE_STATE",
];

const DISABLE: &str = "TIDEGATE_DISABLE";

/// The text of a policy with this name; `spec` is a YAML flow mapping.
pub fn policy(name: &str, spec: &str) -> String {
    format!("apiVersion: tidegate.io/v1\nkind: EgressPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// A `tidegate` command with these arguments, in the environment of the tests.
pub fn tidegate<W: AsRef<OsStr>>(args: impl IntoIterator<Item = W>) -> Command {
    let mut command = Command::new(tidegate_bin());
    command.args(args).stdin(Stdio::null());
    for name in FOREIGN_VARIABLES {
        command.env_remove(name);
    }
    if !is_dedicated_machine() {
        command.env(DISABLE, GLOBAL);
    }
    command
}

/// The environment variables of a test. Features that affect the whole machine stay disabled.
pub(crate) fn environment(variables: &[(OsString, OsString)]) -> impl Iterator<Item = (&OsString, OsString)> {
    variables.iter().map(|(name, value)| {
        let mut value = value.clone();
        if name == DISABLE && !is_dedicated_machine() {
            value.push(",");
            value.push(GLOBAL);
        }
        (name, value)
    })
}

/// A `tidegate exec` with its own cgroup and files.
pub struct Exec {
    cgroup: TestCgroup,
    dir: SharedDir,
    options: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    policies: usize,
    input: bool,
}

impl Exec {
    /// Without a policy.
    ///
    /// # Panics
    /// When its cgroup or its directory cannot be created.
    pub fn open() -> Exec {
        Exec {
            cgroup: TestCgroup::create(),
            dir: SharedDir::create(),
            options: Vec::new(),
            variables: Vec::new(),
            policies: 0,
            input: false,
        }
    }

    /// With one policy, named `test`.
    ///
    /// # Panics
    /// As [`Exec::open`].
    pub fn with(spec: &str) -> Exec {
        Exec::open().policy(&policy("test", spec))
    }

    /// Adds a policy, as a YAML document.
    pub fn policy(mut self, text: &str) -> Exec {
        let file = self.dir.write(&format!("policy-{}.yaml", self.policies), text);
        self.policies += 1;
        self.options.extend([OsString::from("--policy"), file.into()]);
        self
    }

    /// Adds options of `exec`.
    pub fn options<W: Into<OsString>>(mut self, args: impl IntoIterator<Item = W>) -> Exec {
        self.options.extend(args.into_iter().map(Into::into));
        self
    }

    /// Accepts a kill after the call has returned, where this kernel cannot kill before (`--best-effort`).
    pub fn accept_late_kill(self) -> Exec {
        match kills_at_once() {
            true => self,
            false => self.options(["--best-effort"]),
        }
    }

    /// Sets an environment variable of tidegate.
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Exec {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Gives it a pipe as standard input.
    pub fn with_input(mut self) -> Exec {
        self.input = true;
        self
    }

    /// The cgroup that tidegate runs in; it creates the cgroup of the command below.
    pub fn cgroup(&self) -> &TestCgroup {
        &self.cgroup
    }

    /// A directory for the test's files.
    pub fn dir(&self) -> &SharedDir {
        &self.dir
    }

    /// The path of the report.
    pub fn report_path(&self) -> PathBuf {
        self.dir.path().join("report.jsonl")
    }

    /// The report, after tidegate has ended.
    ///
    /// # Panics
    /// When there is none, or it does not have the documented form.
    pub fn report(&self) -> Report {
        Report::read(&self.report_path())
    }

    /// All arguments of tidegate.
    pub fn args<W: Into<OsString>>(&self, command: impl IntoIterator<Item = W>) -> Vec<OsString> {
        let mut args = vec![
            OsString::from("exec"),
            "--report".into(),
            self.report_path().into(),
        ];
        args.extend(self.options.iter().cloned());
        args.push("--".into());
        args.extend(command.into_iter().map(Into::into));
        args
    }

    /// Starts a command under the policies.
    ///
    /// # Panics
    /// When tidegate does not start.
    pub fn start<W: Into<OsString>>(&self, command: impl IntoIterator<Item = W>) -> RunningCommand {
        self.spawn(command, self.input)
    }

    fn spawn<W: Into<OsString>>(&self, command: impl IntoIterator<Item = W>, input: bool) -> RunningCommand {
        let mut tidegate = tidegate(self.args(command));
        tidegate.envs(environment(&self.variables));
        if input {
            tidegate.stdin(Stdio::piped());
        }
        enter(&mut tidegate, &self.cgroup);
        RunningCommand::spawn(&mut tidegate)
    }

    /// Runs a command under the policies.
    ///
    /// # Panics
    /// When tidegate does not start, or does not end in time.
    pub fn run<W: Into<OsString>>(&self, command: impl IntoIterator<Item = W>) -> CommandOutput {
        self.start(command).finish()
    }

    /// Runs a test client that a policy must kill. The client waits for the end of its input after the call, so it
    /// only ends by the signal, whether the kernel or user space sends it.
    ///
    /// # Panics
    /// When it is not killed, or reports a result where the kernel kills before the call returns.
    #[track_caller]
    pub fn run_until_killed(&self, mut args: Vec<OsString>) -> CommandOutput {
        args.push("--stay".into());
        let mut running = self.spawn(args, true);
        let input = running.take_stdin();
        let output = running.finish();
        drop(input);
        output.expect_code(128 + libc::SIGKILL);
        if kills_at_once() {
            assert_eq!(output.stdout, "", "no instruction runs after the call");
        }
        output
    }

    /// Runs a test client under the policies and returns its result.
    ///
    /// # Panics
    /// When it reports none.
    #[track_caller]
    pub fn run_client(&self, args: Vec<OsString>) -> ClientResult {
        let output = self.run(args);
        output.expect_code(0);
        let result = ClientResult::read(&output.stdout).pop();
        result.unwrap_or_else(|| panic!("no result of the test client: {}{}", output.stdout, output.stderr))
    }
}

/// Makes a command migrate into a cgroup between fork and exec.
pub fn enter(command: &mut Command, cgroup: &TestCgroup) {
    enter_at(command, &cgroup.procs_file());
}

/// The same, by the path of `cgroup.procs`.
pub fn enter_at(command: &mut Command, procs_file: &Path) {
    let procs_file = open_procs_file(procs_file);
    // SAFETY: between fork and exec only write(2) is called, on a descriptor opened before.
    unsafe {
        command.pre_exec(move || {
            let itself = b"0";
            if libc::write(procs_file.as_raw_fd(), itself.as_ptr().cast(), itself.len()) == 1 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
}

fn open_procs_file(path: &Path) -> File {
    let file = File::options().write(true).open(path);
    file.unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
