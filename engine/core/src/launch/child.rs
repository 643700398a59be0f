//! What the new process does between clone3 and exec: system calls on prepared data, nothing else.
//! It is the copy of a process that may have had other threads, so it must not allocate, lock or
//! panic. The functions of rustix used here are system calls of the calling thread and nothing more.

use std::os::fd::RawFd;

use nix::{errno::Errno, sys::signal::SigSet};
use rustix::thread::{
    CapabilitySet as Bits, Gid, Uid, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::{
    CapabilitySet, Step,
    command::Image,
    isolation::{Part, Plan},
};

/// Everything the new process needs.
pub(super) struct Setup<'a> {
    pub(super) image: Image,
    pub(super) isolation: Option<Plan>,
    pub(super) mask: &'a SigSet,
    /// Removed from every set, the bounding set included.
    pub(super) drop: CapabilitySet,
    /// `None`: the ids stay as they are.
    pub(super) identity: Option<Identity>,
    /// Ranges of descriptors to close, both ends included.
    pub(super) close: Vec<(u32, u32)>,
    /// A pipe for the report of a failure; exec closes it.
    pub(super) report: RawFd,
}

/// The ids that the process changes to: real, effective and saved ones.
pub(super) struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) supplementary_groups: Vec<Gid>,
}

/// A failure that the child reports to the parent: the step and the errno.
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

    /// Reads a report; `None` when it is incomplete.
    pub(super) fn decode(bytes: &[u8]) -> Option<Failure> {
        let (step, errno) = bytes.split_at_checked(4)?;
        Some(Failure {
            step: Step::from_id(u32::from_ne_bytes(step.try_into().ok()?))?,
            errno: i32::from_ne_bytes(errno.try_into().ok()?),
        })
    }
}

impl Setup<'_> {
    /// Executes the command, or reports the failure and exits.
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

    /// Removes the dangerous capabilities from the bounding set, so that no setuid program can regain them. Without
    /// CAP_SETPCAP the kernel refuses that: then the process gives up gaining any privilege (no_new_privs).
    fn limit_bounding_set(&self) -> Result<(), Failure> {
        let mut refused = false;
        for (_, capability) in self.drop.bits().iter_names() {
            // An error: the capability is newer than the kernel.
            if capability_is_in_bounding_set(capability) == Ok(true) {
                refused |= remove_capability_from_bounding_set(capability).is_err();
            }
        }
        if refused {
            at(Step::BoundingSet, set_no_new_privs(true))?;
        }
        Ok(())
    }

    /// Changes the ids of this thread, the only one. The functions of the C library would signal the threads of the
    /// parent, of which this process has none.
    fn become_user(&self) -> Result<(), Failure> {
        let Some(identity) = &self.identity else {
            return Ok(());
        };
        let (uid, gid) = (identity.uid, identity.gid);
        at(Step::Groups, set_thread_groups(&identity.supplementary_groups))?;
        at(Step::Group, set_thread_res_gid(gid, gid, gid))?;
        at(Step::User, set_thread_res_uid(uid, uid, uid))
    }

    /// Lowers the other sets. The ambient set follows the permitted and the inheritable one.
    fn lower_capabilities(&self) -> Result<(), Failure> {
        // A user other than root keeps nothing, whatever the securebits are.
        let keep = match &self.identity {
            Some(identity) if !identity.uid.is_root() => Bits::empty(),
            _ => !self.drop.bits(),
        };
        let mut sets = at(Step::Capabilities, capabilities(None))?;
        sets.effective &= keep;
        sets.permitted &= keep;
        sets.inheritable &= keep;
        at(Step::Capabilities, set_capabilities(None, sets))
    }
}

fn at<T>(step: Step, result: rustix::io::Result<T>) -> Result<T, Failure> {
    result.map_err(|errno| Failure {
        step,
        errno: errno.raw_os_error(),
    })
}

/// The Rust runtime ignores SIGPIPE, and exec would keep that. Handlers need no action: exec resets them. Signals that
/// the caller of this process ignored stay ignored.
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
    fn reports_are_decoded_as_they_were_encoded() {
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
