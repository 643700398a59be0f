//! A test client that does one step after the other, as a test says.

use std::{io::Write, process::ChildStdin, process::Command, process::Stdio};

use nix::unistd::Pid;

use crate::{
    captured::Captured, cgroup::TestCgroup, client_result::ClientResult, exec::enter, test_client::TestClient,
};

/// A running test client in a cgroup. It ends with this.
pub struct ScriptedClient {
    running: Captured,
    input: ChildStdin,
    steps: usize,
}

impl ScriptedClient {
    /// Starts one.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(test_client: &TestClient, cgroup: &TestCgroup) -> ScriptedClient {
        let words = test_client.task("obey", &[]);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped());
        enter(&mut command, cgroup);
        let mut running = Captured::spawn(&mut command);
        ScriptedClient {
            input: running.take_stdin(),
            running,
            steps: 0,
        }
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.running.pid()
    }

    /// Has it do one step, and returns how that went.
    ///
    /// # Panics
    /// When it does not tell.
    #[track_caller]
    pub fn does(&mut self, step: &str) -> ClientResult {
        self.steps += 1;
        let line = format!("{} {step}", self.steps);
        writeln!(self.input, "{line}").expect("it listens");
        let told = self.running.wait_for_stdout(&format!("\"way\":\"{line}\""));
        let told = ClientResult::read(&told)
            .into_iter()
            .find(|told| told.way == line);
        told.expect("a whole line")
    }

    /// Has it do one step that must succeed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn succeeds(&mut self, step: &str) {
        let told = self.does(step);
        assert!(told.ok, "{told:?}");
    }

    /// Has it do one step that must fail with this errno.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn fails(&mut self, step: &str, errno: &str) {
        let told = self.does(step);
        assert_eq!(told.errno.as_deref(), Some(errno), "{told:?}");
    }

    /// Has it begin one step, which it may not live to tell of.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn attempts(&mut self, step: &str) {
        self.steps += 1;
        writeln!(self.input, "{} {step}", self.steps).expect("it listens");
    }

    /// Waits for its end, which something else brings about.
    ///
    /// # Panics
    /// When it does not end.
    pub fn finish(self) -> crate::captured::Ended {
        let ScriptedClient { running, input, .. } = self;
        let ended = running.finish();
        drop(input);
        ended
    }

    /// Tells it to end, and waits until it has.
    ///
    /// # Panics
    /// When it does not end.
    pub fn goes_home(self) {
        drop(self.input);
        self.running.finish().expect_code(0);
    }
}
