//! Shows whether the kernel calls programs at a hook: a trial program is attached, and a call is made that it must see.

use std::{os::unix::net::UnixDatagram, thread};

use super::trial::{HOOKS, Refusal, Trials};

/// Name of the thread that makes the call: eight bytes, by which the trial program recognises it.
const THREAD: &str = "tgcanary";

/// Whether a program at this hook of the whole machine is called when a thread sends a datagram over a pair of unix
/// sockets.
///
/// # Errors
/// [`Refusal`] when the kernel does not load or attach the program.
pub(super) fn is_called(hook: &str) -> Result<bool, Refusal> {
    let Some(hook) = HOOKS.iter().find(|row| row.name == hook) else {
        return Ok(false);
    };
    let mut name = [0; 8];
    name.copy_from_slice(THREAD.as_bytes());
    let trials = Trials::begin(name)?;
    let _attached = trials.attach_global(hook)?;
    let sender = thread::Builder::new().name(THREAD.to_owned()).spawn(|| {
        let (one, _other) = UnixDatagram::pair()?;
        one.send(&[0]).map(drop)
    });
    // A call that could not be made was not seen either.
    let _ = sender.map(thread::JoinHandle::join);
    Ok(trials.was_called(hook).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::{
        program::AttachPoint,
        program_group::{GROUPS, GroupScope},
    };

    #[test]
    fn canaries_are_hooks_of_the_whole_machine_that_the_group_uses() {
        for row in GROUPS.iter() {
            let Some(canary) = row.canary else { continue };
            assert!(
                HOOKS
                    .iter()
                    .any(|hook| hook.name == canary && hook.point.is_global())
            );
            assert_eq!(row.scope, GroupScope::Global);
            let is_canary =
                |attach| matches!(attach, AttachPoint::Lsm(hook) if canary == format!("lsm/{hook}"));
            assert!(row.programs.iter().any(|program| is_canary(program.attach)));
        }
    }

    #[test]
    fn the_name_of_the_thread_fills_the_bytes_that_are_compared() {
        assert_eq!(THREAD.len(), 8);
    }
}
