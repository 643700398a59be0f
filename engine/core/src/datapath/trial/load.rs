//! Loading a trial program, with the verifier's words when it is refused.

use std::os::fd::OwnedFd;

use super::{
    bytecode::Bytecode,
    refusal::Refusal,
    syscall::{self, ProgramLoad},
};

/// Bytes for the verifier's log: a program of a dozen instructions writes a fraction of it.
const LOG_BYTES: usize = 16 * 1024;

/// What kind of program it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blueprint {
    /// `enum bpf_prog_type`.
    pub(super) kind: u32,
    /// `enum bpf_attach_type`, or 0.
    pub(super) attach_type: u32,
    /// BTF id of the kernel's function that it is called from, or 0.
    pub(super) function: u32,
}

pub(super) fn load(blueprint: &Blueprint, code: &Bytecode) -> Result<OwnedFd, Refusal> {
    let load = ProgramLoad {
        kind: blueprint.kind,
        attach_type: blueprint.attach_type,
        function: blueprint.function,
        instructions: code.words(),
    };
    let silent = match syscall::load_program(&load, None) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    // Once more for the words: a log makes loading slower, and its buffer too small is an error.
    let mut log = vec![0; LOG_BYTES];
    match syscall::load_program(&load, Some(&mut log)) {
        Ok(program) => Ok(program),
        Err(_) => {
            let end = log.iter().position(|&byte| byte == 0).unwrap_or(log.len());
            Err(Refusal::by_verifier(silent, &log[..end]))
        }
    }
}
