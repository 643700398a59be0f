//! A process whose output is read while it runs, with a time limit for every wait.

use std::{
    io::Read,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Time limit for a process of a test; all of them take far less.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A running process, killed when dropped.
pub struct RunningCommand {
    child: Child,
    pidfd: OwnedFd,
    stdout: Stream,
    stderr: Stream,
    description: String,
}

/// The result of a finished process.
#[derive(Clone, Debug)]
pub struct CommandOutput {
    /// The exit status.
    pub status: ExitStatus,
    /// Its standard output, lossily decoded.
    pub stdout: String,
    /// Its standard error, lossily decoded.
    pub stderr: String,
}

impl CommandOutput {
    /// The exit code; `None` when a signal killed it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that killed it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// # Panics
    /// When the exit code differs; the message contains the output.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &CommandOutput {
        assert_eq!(
            self.code(),
            Some(code),
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self
    }
}

impl RunningCommand {
    /// Starts a command. Its standard input is what [`Command::stdin`] says.
    ///
    /// # Panics
    /// When it does not start.
    pub fn spawn(command: &mut Command) -> RunningCommand {
        let description = format!("{command:?}");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{description}: {error}"));
        // SAFETY: a system call with a process id and no flags; the child has not been waited for.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        assert!(pidfd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and owned here.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
        RunningCommand {
            stdout: Stream::read(child.stdout.take().expect("stdout")),
            stderr: Stream::read(child.stderr.take().expect("stderr")),
            child,
            pidfd,
            description,
        }
    }

    /// Runs a command with /dev/null as standard input and waits for its end.
    ///
    /// # Panics
    /// When it does not start, or does not end in time.
    pub fn run(command: &mut Command) -> CommandOutput {
        RunningCommand::spawn(command.stdin(Stdio::null())).finish()
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Takes the write end of its standard input.
    ///
    /// # Panics
    /// When standard input is not a pipe, or was taken before.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe to standard input")
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process has been reaped.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("kill");
    }

    /// Waits until standard output contains a text, and returns all of it so far.
    ///
    /// # Panics
    /// When the output ends without it, or after [`TIMEOUT`].
    pub fn wait_for_stdout(&self, text: &str) -> String {
        self.stdout.wait_for(text, &self.description, &self.stderr)
    }

    /// Waits until standard output contains `count` lines, and returns all of it so far.
    ///
    /// # Panics
    /// When the output ends before, or after [`TIMEOUT`].
    pub fn wait_for_lines(&self, count: usize) -> String {
        self.stdout.wait_until(
            |so_far| so_far.lines().count() >= count && so_far.ends_with('\n'),
            || {
                let other = self.stderr.text();
                format!(
                    "{}: fewer than {count} lines; the other stream:\n{other}",
                    self.description
                )
            },
        )
    }

    /// The same for standard error.
    ///
    /// # Panics
    /// When the output ends without it, or after [`TIMEOUT`].
    pub fn wait_for_stderr(&self, text: &str) -> String {
        self.stderr.wait_for(text, &self.description, &self.stdout)
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    /// When it takes longer than [`TIMEOUT`].
    pub fn finish(self) -> CommandOutput {
        self.finish_within(TIMEOUT)
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    /// When it takes longer than `timeout`.
    pub fn finish_within(mut self, timeout: Duration) -> CommandOutput {
        drop(self.child.stdin.take());
        let has_ended = self.ends_within(timeout);
        assert!(
            has_ended,
            "{} has not ended\n--- stdout\n{}\n--- stderr\n{}",
            self.description,
            self.stdout.text(),
            self.stderr.text()
        );
        let status = self.child.wait().expect("wait");
        CommandOutput {
            status,
            // A descendant may hold the pipes open; its later output is not waited for.
            stdout: self.stdout.rest(),
            stderr: self.stderr.rest(),
        }
    }

    fn ends_within(&self, timeout: Duration) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout).expect("a timeout that poll accepts");
        loop {
            match poll(&mut fds, timeout) {
                Err(nix::errno::Errno::EINTR) => {}
                answer => return answer.expect("poll") > 0,
            }
        }
    }
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        // Both do nothing for a process that has been reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pipe that a thread reads to its end.
#[derive(Clone)]
struct Stream(Arc<(Mutex<Content>, Condvar)>);

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    is_closed: bool,
}

impl Stream {
    fn read(mut pipe: impl Read + Send + 'static) -> Stream {
        let stream = Stream(Arc::default());
        let reader = stream.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let length = pipe.read(&mut buffer).unwrap_or(0);
                let (content, changed) = &*reader.0;
                let mut content = content.lock().unwrap();
                content.bytes.extend(&buffer[..length]);
                content.is_closed = length == 0;
                changed.notify_all();
                if content.is_closed {
                    return;
                }
            }
        });
        stream
    }

    fn wait_for(&self, text: &str, description: &str, other: &Stream) -> String {
        self.wait_until(
            |so_far| so_far.contains(text),
            || format!("{description}: no `{text}`; the other stream:\n{}", other.text()),
        )
    }

    fn wait_until(&self, is_done: impl Fn(&str) -> bool, what: impl Fn() -> String) -> String {
        let (content, changed) = &*self.0;
        let content = content.lock().unwrap();
        let is_done = |content: &Content| is_done(&String::from_utf8_lossy(&content.bytes));
        let (content, _) = changed
            .wait_timeout_while(content, TIMEOUT, |content| {
                !content.is_closed && !is_done(content)
            })
            .unwrap();
        let so_far = String::from_utf8_lossy(&content.bytes).into_owned();
        assert!(is_done(&content), "{}\n--- so far\n{so_far}", what());
        so_far
    }

    fn rest(&self) -> String {
        let (content, changed) = &*self.0;
        let content = content.lock().unwrap();
        let (content, _) = changed
            .wait_timeout_while(content, Duration::from_secs(5), |content| !content.is_closed)
            .unwrap();
        String::from_utf8_lossy(&content.bytes).into_owned()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }
}
