//! What the new process does between clone3 and exec: system calls on prepared data, nothing else.
//! It is the copy of a process that may have had other threads, so it must not allocate, lock or
//! panic.

use std::os::fd::RawFd;

use nix::{errno::Errno, sys::signal::SigSet};

use super::{
    CapabilitySet, Step,
    capability::{CapabilityData, CapabilityHeader},
    command::Image,
    isolation::{Part, Plan},
};

/// Everything the new process needs.
pub(super) struct Setup<'a> {
    pub(super) image: Image,
    pub(super) isolation: Option<Plan>,
    pub(super) mask: &'a SigSet,
    /// Taken from every set, the bounding set included.
    pub(super) drop: CapabilitySet,
    /// Group, supplementary groups and user to become.
    pub(super) identity: Option<(u32, &'a [u32], u32)>,
    /// Ranges of descriptors to close, both ends included.
    pub(super) close: Vec<(u32, u32)>,
    /// Where a failure is reported to; closed by exec.
    pub(super) report: RawFd,
}

/// A failure on its way to the parent: the step and the errno.
#[derive(Clone, Copy)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: i32,
}

impl Failure {
    /// Size of a report in bytes.
    pub(super) const SIZE: usize = 8;

    fn encode(self) -> [u8; Failure::SIZE] {
        let [a, b, c, d] = (self.step as u32).to_ne_bytes();
        let [e, f, g, h] = self.errno.to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// Reads a report back; `None` when it is no whole one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Failure> {
        let (step, errno) = bytes.split_at_checked(4)?;
        Some(Failure {
            step: Step::from_number(u32::from_ne_bytes(step.try_into().ok()?))?,
            errno: i32::from_ne_bytes(errno.try_into().ok()?),
        })
    }
}

impl Setup<'_> {
    /// Becomes the command, or reports why not and exits.
    ///
    /// # Safety
    /// Only in the process that clone3 made.
    pub(super) unsafe fn run(&mut self) -> ! {
        // SAFETY: passed on to the caller; the report is plain bytes on the stack.
        unsafe {
            let failure = match self.attempt() {
                Ok(never) => match never {},
                Err(failure) => failure.encode(),
            };
            libc::write(self.report, failure.as_ptr().cast(), failure.len());
            libc::_exit(125)
        }
    }

    unsafe fn attempt(&mut self) -> Result<std::convert::Infallible, Failure> {
        // SAFETY: this process has one thread and no handlers; see the steps.
        unsafe {
            reset_sigpipe()?;
            if let Some(plan) = &self.isolation {
                plan.apply().map_err(|(part, errno)| Failure {
                    step: match part {
                        Part::Namespace => Step::MountNamespace,
                        Part::Propagation => Step::Propagation,
                        Part::ReadOnly => Step::ReadOnlyCgroups,
                        Part::Cover => Step::CoverBpf,
                    },
                    errno,
                })?;
            }
            self.limit_bounding_set()?;
            self.become_user()?;
            self.lower_capabilities()?;
            for (first, last) in &self.close {
                done(
                    libc::syscall(libc::SYS_close_range, *first, *last, 0),
                    Step::CloseFds,
                )?;
            }
            let mask: *const libc::sigset_t = self.mask.as_ref();
            done(
                libc::sigprocmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()).into(),
                Step::Signals,
            )?;
            Err(Failure {
                errno: self.image.exec(),
                step: Step::Exec,
            })
        }
    }

    /// Takes the dangerous capabilities out of the bounding set, so that no setuid program gives
    /// them back. Without CAP_SETPCAP that is refused: then privileges are frozen altogether.
    unsafe fn limit_bounding_set(&self) -> Result<(), Failure> {
        let mut refused = false;
        for capability in self.drop.iter() {
            let number = libc::c_ulong::from(capability.number());
            // SAFETY: prctl with integers only. Reading gives an error for a capability newer than
            // the kernel: nothing to drop.
            unsafe {
                if libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) == 1 {
                    refused |= libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) != 0;
                }
            }
        }
        if refused {
            // SAFETY: as above.
            let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
            done(result.into(), Step::BoundingSet)?;
        }
        Ok(())
    }

    /// The system calls themselves: the functions of the C library would tell other threads, which
    /// this copy of the process does not have.
    unsafe fn become_user(&self) -> Result<(), Failure> {
        let Some((gid, groups, uid)) = self.identity else {
            return Ok(());
        };
        // SAFETY: the list of groups lives across the call.
        unsafe {
            let set = libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr());
            done(set, Step::Groups)?;
            done(libc::syscall(libc::SYS_setresgid, gid, gid, gid), Step::Group)?;
            done(libc::syscall(libc::SYS_setresuid, uid, uid, uid), Step::User)
        }
    }

    /// Lowers the other sets. The ambient set follows the permitted and the inheritable one.
    unsafe fn lower_capabilities(&self) -> Result<(), Failure> {
        let mut data = [CapabilityData::default(); 2];
        // A change to a user other than root leaves nothing, whatever the securebits say.
        let everything = matches!(self.identity, Some((_, _, uid)) if uid != 0);
        // SAFETY: version 3 wants exactly two data elements, which live across the calls.
        unsafe {
            let read = libc::syscall(libc::SYS_capget, &CapabilityHeader::OWN, &mut data);
            done(read, Step::Capabilities)?;
            for (word, drop) in data.iter_mut().zip(self.drop.words()) {
                let keep = if everything { 0 } else { !drop };
                word.effective &= keep;
                word.permitted &= keep;
                word.inheritable &= keep;
            }
            let written = libc::syscall(libc::SYS_capset, &CapabilityHeader::OWN, &data);
            done(written, Step::Capabilities)
        }
    }
}

/// The Rust runtime ignores SIGPIPE, which exec would pass on. Handlers need no care: exec resets
/// them, and what the caller of this process ignored stays ignored.
unsafe fn reset_sigpipe() -> Result<(), Failure> {
    // SAFETY: an all-zero sigaction is the default disposition with no flags.
    let result = unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGPIPE, &default, std::ptr::null_mut())
    };
    done(result.into(), Step::Signals)
}

fn done(result: libc::c_long, step: Step) -> Result<(), Failure> {
    if result == 0 {
        Ok(())
    } else {
        Err(Failure {
            step,
            errno: Errno::last_raw(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_come_back_as_they_were_sent() {
        let sent = Failure {
            step: Step::ReadOnlyCgroups,
            errno: libc::EACCES,
        };
        let back = Failure::decode(&sent.encode()).unwrap();
        assert_eq!((back.step, back.errno), (sent.step, sent.errno));
        assert!(Failure::decode(&[]).is_none());
        assert!(Failure::decode(&[0; 7]).is_none());
        assert!(Failure::decode(&[0xff; 8]).is_none());
    }
}
