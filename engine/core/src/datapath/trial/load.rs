//! Loads a trial program. If the kernel refuses it, loads it again for the verifier's log.

use std::os::fd::OwnedFd;

use super::refusal::Refusal;
use crate::datapath::syscall::{self, ProgramLoad};

/// Size of the log buffer in bytes. Programs of a dozen instructions need a fraction of it.
const LOG_BYTES: usize = 16 * 1024;

pub(super) fn load(program: &ProgramLoad<'_>) -> Result<OwnedFd, Refusal> {
    let error = match syscall::load_program(program, None) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    // Not the first time: a log makes loading slower, and too small a buffer is an error.
    let mut log = vec![0; LOG_BYTES];
    match syscall::load_program(program, Some(&mut log)) {
        Ok(program) => Ok(program),
        Err(_) => {
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            Err(Refusal::by_verifier(error, &log[..end]))
        }
    }
}
