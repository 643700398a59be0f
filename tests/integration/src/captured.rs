//! A process whose output is read while it runs, and whose end is awaited for a limited time.

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

/// How long a process of a test may take; far more than any takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running process. It is killed when this is dropped.
pub struct Captured {
    child: Child,
    pidfd: OwnedFd,
    stdout: Stream,
    stderr: Stream,
    description: String,
}

/// A process that has ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// The exit code, or `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// # Panics
    /// When the exit code is another one; the output is shown.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Ended {
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

impl Captured {
    /// Starts a command. Its standard input is a pipe when that was asked for by
    /// [`Command::stdin`], else nothing.
    ///
    /// # Panics
    /// When it does not start.
    pub fn spawn(command: &mut Command) -> Captured {
        let description = format!("{command:?}");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{description}: {error}"));
        // SAFETY: a system call with a process id and no flags; the child has not been waited for.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        assert!(pidfd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and nobody else's.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
        Captured {
            stdout: Stream::read(child.stdout.take().expect("stdout")),
            stderr: Stream::read(child.stderr.take().expect("stderr")),
            child,
            pidfd,
            description,
        }
    }

    /// Starts a command without input and waits for its end.
    ///
    /// # Panics
    /// When it does not start or does not end.
    pub fn run(command: &mut Command) -> Ended {
        Captured::spawn(command.stdin(Stdio::null())).finish()
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The other end of standard input, once.
    ///
    /// # Panics
    /// When it was not asked for, or is taken.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("a pipe to standard input")
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("kill");
    }

    /// Waits until standard output holds a text, and returns all of it so far.
    ///
    /// # Panics
    /// When the output ends without, or it takes too long.
    pub fn wait_for_stdout(&self, text: &str) -> String {
        self.stdout.wait_for(text, &self.description, &self.stderr)
    }

    /// Waits until standard output holds so many lines, and returns all of it so far.
    ///
    /// # Panics
    /// When the output ends before, or it takes too long.
    pub fn wait_for_lines(&self, count: usize) -> String {
        self.stdout.wait_until(
            |so_far| so_far.lines().count() >= count && so_far.ends_with('\n'),
            || {
                let other = self.stderr.text();
                format!(
                    "{}: not {count} lines, and on the other stream\n{other}",
                    self.description
                )
            },
        )
    }

    /// The same for standard error.
    ///
    /// # Panics
    /// When the output ends without, or it takes too long.
    pub fn wait_for_stderr(&self, text: &str) -> String {
        self.stderr.wait_for(text, &self.description, &self.stdout)
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it takes longer than [`PATIENCE`].
    pub fn finish(self) -> Ended {
        self.finish_within(PATIENCE)
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When it takes longer.
    pub fn finish_within(mut self, patience: Duration) -> Ended {
        drop(self.child.stdin.take());
        let ended = self.ends_within(patience);
        assert!(
            ended,
            "{} has not ended\n--- stdout\n{}\n--- stderr\n{}",
            self.description,
            self.stdout.text(),
            self.stderr.text()
        );
        let status = self.child.wait().expect("wait");
        Ended {
            status,
            // A process that outlives this one may hold the pipes open: what it writes later is not
            // waited for.
            stdout: self.stdout.rest(),
            stderr: self.stderr.rest(),
        }
    }

    fn ends_within(&self, patience: Duration) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(patience).expect("a time that poll takes");
        loop {
            match poll(&mut fds, patience) {
                Err(nix::errno::Errno::EINTR) => {}
                answer => return answer.expect("poll") > 0,
            }
        }
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        // Nothing happens to one that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is read from a pipe, as far as it came.
#[derive(Clone)]
struct Stream(Arc<(Mutex<Content>, Condvar)>);

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    ended: bool,
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
                content.ended = length == 0;
                changed.notify_all();
                if content.ended {
                    return;
                }
            }
        });
        stream
    }

    fn wait_for(&self, text: &str, description: &str, other: &Stream) -> String {
        self.wait_until(
            |so_far| so_far.contains(text),
            || {
                format!(
                    "{description}: no `{text}`, and on the other stream\n{}",
                    other.text()
                )
            },
        )
    }

    fn wait_until(&self, is_there: impl Fn(&str) -> bool, what: impl Fn() -> String) -> String {
        let (content, changed) = &*self.0;
        let content = content.lock().unwrap();
        let is_there = |content: &Content| is_there(&String::from_utf8_lossy(&content.bytes));
        let (content, _) = changed
            .wait_timeout_while(content, PATIENCE, |content| !content.ended && !is_there(content))
            .unwrap();
        let so_far = String::from_utf8_lossy(&content.bytes).into_owned();
        assert!(is_there(&content), "{}\n--- so far\n{so_far}", what());
        so_far
    }

    fn rest(&self) -> String {
        let (content, changed) = &*self.0;
        let content = content.lock().unwrap();
        let (content, _) = changed
            .wait_timeout_while(content, Duration::from_secs(5), |content| !content.ended)
            .unwrap();
        String::from_utf8_lossy(&content.bytes).into_owned()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }
}
