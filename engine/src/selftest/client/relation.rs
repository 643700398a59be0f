//! The same way, tried by somebody related: another thread, a grandchild.

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
    socket::{Failure, joined},
    tcp,
};

pub(super) fn in_thread(to: SocketAddr) -> Result<(), Failure> {
    joined(thread::spawn(move || tcp::connect(to)))
}

/// Forks twice. The process between ends at once, so the one that connects is nobody's child.
pub(super) fn in_grandchild(to: SocketAddr) -> Result<(), Failure> {
    let preparation = |errno| Failure::of(Step::Preparation, errno);
    let (reader, writer) = pipe().map_err(preparation)?;
    // SAFETY: this process has one thread, so the child may do whatever it likes.
    match unsafe { fork() }.map_err(preparation)? {
        ForkResult::Parent { child } => {
            drop(writer);
            waitpid(child, None).map_err(preparation)?;
            told_by(reader)
        }
        ForkResult::Child => {
            // SAFETY: as above.
            if let Ok(ForkResult::Child) = unsafe { fork() } {
                tell(writer, tcp::connect(to));
            }
            std::process::exit(0);
        }
    }
}

fn tell(writer: OwnedFd, result: Result<(), Failure>) {
    let line = match result {
        Ok(()) => "ok".to_owned(),
        Err(failure) => {
            let step = serde_json::json!(failure.step);
            format!("{} {}", step.as_str().unwrap_or_default(), failure.errno)
        }
    };
    // A parent that does not hear anything takes us for dead.
    let _ = std::fs::File::from(writer).write_all(line.as_bytes());
}

fn told_by(reader: OwnedFd) -> Result<(), Failure> {
    let mut line = String::new();
    let _ = std::fs::File::from(reader).read_to_string(&mut line);
    if line == "ok" {
        return Ok(());
    }
    let told = line.split_once(' ').and_then(|(step, errno)| {
        let step: Step = serde_json::from_value(step.into()).ok()?;
        Some(Failure::named(step, errno))
    });
    Err(told.unwrap_or_else(|| Failure::named(Step::Preparation, "DIED")))
}
