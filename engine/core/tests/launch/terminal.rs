//! A terminal, its keys and job control.

use std::{
    env,
    fs::File,
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

use nix::pty::openpty;

use crate::{Test, role::JOB, run::supervisor};

pub(crate) const TESTS: &[Test] = &[
    (
        "terminal::interrupt_reaches_the_command_once",
        interrupt_reaches_the_command_once,
    ),
    ("terminal::interrupt_ends_it", interrupt_ends_it),
    ("terminal::stop_and_continue", stop_and_continue),
    ("terminal::reading_it_works", reading_it_works),
    ("terminal::interactive_shell_suspends", interactive_shell_suspends),
    (
        "terminal::comes_back_from_a_killed_shell",
        comes_back_from_a_killed_shell,
    ),
];

const INTERRUPT: &[u8] = b"\x03";
const STOP: &[u8] = b"\x1a";

/// A session with the supervisor as its job, on a new pseudo-terminal.
struct Session {
    child: Child,
    terminal: File,
    seen: String,
}

impl Session {
    fn start(command: &[&str]) -> Session {
        let pair = openpty(None, None).unwrap();
        let own = supervisor(&[], command);
        let slave = || Stdio::from(pair.slave.try_clone().unwrap());
        let child = Command::new(env::current_exe().unwrap())
            .arg(JOB)
            .arg(own.get_program())
            .args(own.get_args())
            .env_remove("SUDO_UID")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .unwrap();
        Session {
            child,
            terminal: pair.master.into(),
            seen: String::new(),
        }
    }

    /// Reads until the text was received.
    fn expect(&mut self, text: &str) {
        let mut bytes = [0; 1024];
        while !self.seen.contains(text) {
            let read = self.terminal.read(&mut bytes).unwrap_or(0);
            assert_ne!(read, 0, "no `{text}` in {:?}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    fn press(&mut self, keys: &[u8]) {
        self.terminal.write_all(keys).unwrap();
    }

    fn end(mut self) -> (i32, String) {
        // Reading gives EIO when the last descriptor of the other side is closed.
        let mut bytes = [0; 1024];
        while let Ok(read @ 1..) = self.terminal.read(&mut bytes) {
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        (self.child.wait().unwrap().code().unwrap(), self.seen)
    }
}

fn interrupt_reaches_the_command_once() {
    let script = "trap 'echo got one' INT; echo ready; while [ \"$x\" != last ]; do read x; done; echo then $x; exit 5";
    let mut session = Session::start(&["sh", "-c", script]);
    session.expect("ready");
    session.press(INTERRUPT);
    session.expect("got one");
    session.press(b"\nlast\n");
    session.expect("then last");
    let (code, seen) = session.end();
    assert_eq!(code, 5, "{seen}");
    assert_eq!(seen.matches("got one").count(), 1, "{seen}");
}

fn interrupt_ends_it() {
    let mut session = Session::start(&["sh", "-c", "echo ready; exec sleep 1000"]);
    session.expect("ready");
    session.press(INTERRUPT);
    let (code, seen) = session.end();
    assert_eq!(code, 128 + 2, "{seen}");
    assert!(seen.contains("orphans: None"), "{seen}");
}

fn stop_and_continue() {
    let mut session = Session::start(&["sh", "-c", "echo ready; read x; echo line $x; exit 6"]);
    session.expect("ready");
    session.press(STOP);
    session.expect("stopped: ");
    session.press(b"hello\n");
    session.expect("line hello");
    let (code, seen) = session.end();
    assert_eq!(code, 6, "{seen}");
}

fn reading_it_works() {
    let mut session = Session::start(&[
        "sh",
        "-c",
        "tty > /dev/null && echo a tty; stty size < /dev/tty > /dev/null && echo ours; read x; exit $x",
    ]);
    session.expect("ours");
    session.press(b"17\n");
    let (code, seen) = session.end();
    assert_eq!(code, 17, "{seen}");
    assert!(seen.contains("a tty"), "{seen}");
}

/// A shell with job control: it has its own process group and sets the foreground group.
const INTERACTIVE: &[&str] = &["bash", "--norc", "--noprofile", "-i"];

fn interactive_shell_suspends() {
    let mut session = Session::start(INTERACTIVE);
    session.press(b"echo rea''dy\n");
    session.expect("ready");
    session.press(b"suspend -f\n");
    session.expect("stopped: ");
    session.press(b"echo aga''in\n");
    session.expect("again");
    session.press(b"exit 9\n");
    let (code, seen) = session.end();
    assert_eq!(code, 9, "{seen}");
    assert!(seen.contains("foreground: true"), "{seen}");
}

fn comes_back_from_a_killed_shell() {
    let mut session = Session::start(INTERACTIVE);
    session.press(b"echo rea''dy\n");
    session.expect("ready");
    session.press(b"kill -9 $$\n");
    let (code, seen) = session.end();
    assert_eq!(code, 128 + 9, "{seen}");
    assert!(seen.contains("foreground: true"), "{seen}");
}
