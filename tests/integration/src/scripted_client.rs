//! A test client that runs one step after the other, controlled by the test.

use std::{io::Write, process::ChildStdin, process::Command, process::Stdio};

use nix::unistd::Pid;

use crate::{
    cgroup::TestCgroup,
    client_result::ClientResult,
    exec::enter,
    running_command::{CommandOutput, RunningCommand},
    test_client::TestClient,
};

/// A running test client in a cgroup, killed when dropped.
pub struct ScriptedClient {
    running: RunningCommand,
    input: ChildStdin,
    steps: usize,
}

impl ScriptedClient {
    /// Starts a test client.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(test_client: &TestClient, cgroup: &TestCgroup) -> ScriptedClient {
        let args = test_client.task("scripted", &[]);
        let mut command = Command::new(&args[0]);
        command.args(&args[1..]).stdin(Stdio::piped());
        enter(&mut command, cgroup);
        let mut running = RunningCommand::spawn(&mut command);
        ScriptedClient {
            input: running.take_stdin(),
            running,
            steps: 0,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// Runs a step and returns its result.
    ///
    /// # Panics
    /// When the client reports no result.
    #[track_caller]
    pub fn run_step(&mut self, step: &str) -> ClientResult {
        self.steps += 1;
        let line = format!("{} {step}", self.steps);
        writeln!(self.input, "{line}").expect("an open standard input");
        let result = self.running.wait_for_stdout(&format!("\"method\":\"{line}\""));
        let result = ClientResult::read(&result)
            .into_iter()
            .find(|result| result.method == line);
        result.expect("a whole line")
    }

    /// Runs a step that must succeed.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn succeeds(&mut self, step: &str) {
        let result = self.run_step(step);
        assert!(result.ok, "{result:?}");
    }

    /// Runs a step that must fail with this errno.
    ///
    /// # Panics
    /// When it succeeds, or fails otherwise.
    #[track_caller]
    pub fn fails(&mut self, step: &str, errno: &str) {
        let result = self.run_step(step);
        assert_eq!(result.errno.as_deref(), Some(errno), "{result:?}");
    }

    /// Starts a step without waiting for its result: the client may be killed by it.
    ///
    /// # Panics
    /// When its standard input is closed.
    pub fn start_step(&mut self, step: &str) {
        self.steps += 1;
        writeln!(self.input, "{} {step}", self.steps).expect("an open standard input");
    }

    /// Waits until the client ends, without closing its standard input.
    ///
    /// # Panics
    /// When it does not end in time.
    pub fn finish(self) -> CommandOutput {
        let ScriptedClient { running, input, .. } = self;
        let output = running.finish();
        drop(input);
        output
    }

    /// Closes its standard input, and waits until the client has ended.
    ///
    /// # Panics
    /// When it does not end in time, or fails.
    pub fn quit(self) {
        drop(self.input);
        self.running.finish().expect_code(0);
    }
}
