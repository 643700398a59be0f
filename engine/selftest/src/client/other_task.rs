//! The same method in another task: a thread, or a grandchild process.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    os::fd::OwnedFd,
    thread,
};

use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, fork, pipe},
};

use super::{
    super::client_result::Step,
    socket::{Failure, join},
    tcp,
};

pub(super) fn in_thread(to: SocketAddr) -> Result<(), Failure> {
    join(thread::spawn(move || tcp::connect(to)))
}

/// Forks twice. The child exits immediately, so the process that connects is an orphan.
pub(super) fn in_grandchild(to: SocketAddr) -> Result<(), Failure> {
    let preparation = |errno| Failure::of(Step::Preparation, errno);
    let (reader, writer) = pipe().map_err(preparation)?;
    // SAFETY: this process has one thread, so the child may call any function.
    match unsafe { fork() }.map_err(preparation)? {
        ForkResult::Parent { child } => {
            drop(writer);
            waitpid(child, None).map_err(preparation)?;
            receive_result(reader)
        }
        ForkResult::Child => {
            // SAFETY: as above.
            if let Ok(ForkResult::Child) = unsafe { fork() } {
                send_result(writer, tcp::connect(to));
            }
            std::process::exit(0);
        }
    }
}

fn send_result(writer: OwnedFd, result: Result<(), Failure>) {
    let line = match result {
        Ok(()) => "ok".to_owned(),
        Err(failure) => {
            let step = serde_json::json!(failure.step);
            format!("{} {}", step.as_str().unwrap_or_default(), failure.errno)
        }
    };
    // Without a line the parent reports that this process died.
    let _ = std::fs::File::from(writer).write_all(line.as_bytes());
}

fn receive_result(reader: OwnedFd) -> Result<(), Failure> {
    let mut line = String::new();
    let _ = std::fs::File::from(reader).read_to_string(&mut line);
    if line == "ok" {
        return Ok(());
    }
    let failure = line.split_once(' ').and_then(|(step, errno)| {
        let step: Step = serde_json::from_value(step.into()).ok()?;
        Some(Failure::named(step, errno))
    });
    Err(failure.unwrap_or_else(|| Failure::named(Step::Preparation, "DIED")))
}
