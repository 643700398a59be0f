//! Evaluates one policy, without side effects other than its counters.

use engine_common::{
    ExecutableId, Fault, Mode, Verdict, VerdictWord,
    image::{Header, Page, Revision},
    scope::SlotRef,
    verifier::forget,
};

use crate::{features, images::LiveImage, subject};

pub(crate) const EPERM: u16 = 1;

/// A verdict with the revision of the policy that gave it, in one word: bits 0 to 1 the action, 2 to 3
/// a constant of `record::reason`, 4 to 19 the rule or fault, 20 to 30 the errno, 31 audit mode, 32 to
/// 63 the generation.
///
/// It is one word because global functions of BPF programs take and return scalars. The verifier checks a
/// global function once, independent of its callers; it would check a static function again for each of the
/// policies on a cgroup.
#[derive(Clone, Copy)]
pub(crate) struct PackedVerdict(u64);

impl PackedVerdict {
    #[inline(always)]
    pub(crate) fn of(verdict: VerdictWord, errno: u16, revision: Revision) -> PackedVerdict {
        PackedVerdict(
            verdict.0 as u64 & 3
                | (verdict.reason() as u64 & 3) << 2
                | (verdict.detail() as u64) << 4
                | (errno as u64 & 0x7ff) << 20
                | (revision.mode as u64) << 31
                | revision.generation << 32,
        )
    }

    #[inline(always)]
    pub(crate) fn fault(fault: Fault, mode: Mode) -> PackedVerdict {
        PackedVerdict::of(
            VerdictWord::of(Err(fault)),
            EPERM,
            Revision { generation: 0, mode },
        )
    }

    #[inline(always)]
    pub(crate) fn from_word(word: u64) -> PackedVerdict {
        PackedVerdict(word)
    }

    #[inline(always)]
    pub(crate) fn word(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(crate) fn verdict(self) -> VerdictWord {
        VerdictWord((self.0 & 3 | (self.0 >> 2 & 3) << 8 | (self.0 >> 4 & 0xffff) << 16) as u32)
    }

    /// Action, reason, rule, mode and generation in one word, without the errno. Duplicates have the same.
    #[inline(always)]
    pub(crate) fn without_errno(self) -> u64 {
        self.0 & !(0x7ff << 20)
    }

    #[inline(always)]
    pub(crate) fn errno(self) -> u16 {
        (self.0 >> 20) as u16 & 0x7ff
    }

    /// The same with another value in the bits of the errno.
    #[inline(always)]
    pub(crate) fn with_errno(self, errno: u16) -> PackedVerdict {
        PackedVerdict(self.0 & !(0x7ff << 20) | (errno as u64 & 0x7ff) << 20)
    }

    #[inline(always)]
    pub(crate) fn revision(self) -> Revision {
        Revision {
            generation: self.0 >> 32,
            mode: if self.0 >> 31 & 1 != 0 {
                Mode::Audit
            } else {
                Mode::Enforce
            },
        }
    }
}

/// Evaluates the policy of a slot and increments the counter of its verdict. `decide` is given the image, its
/// page 0, and uid and executable of the calling task (zero if the policy does not select them).
#[inline(always)]
pub(crate) fn evaluate(
    reference: SlotRef,
    decide: impl Fn(&LiveImage, &Page, u32, ExecutableId) -> Result<Verdict, Fault>,
) -> PackedVerdict {
    let no_image = PackedVerdict::fault(Fault::NoImage, reference.mode());
    let Some(slot) = reference.slot() else {
        return no_image;
    };
    let Some(image) = LiveImage::of(slot) else {
        return no_image;
    };
    let Some(page) = image.root() else {
        return no_image;
    };
    // SAFETY: a map value, which lives as long as the program runs (RCU).
    let root: &Page = unsafe { &*page };
    let header = Header(root);
    let errno = if features::has_set_retval() != 0 || reference.has_any_errno() {
        header.errno()
    } else {
        EPERM
    };
    let mut executable = ExecutableId { device: 0, inode: 0 };
    let mut uid = 0;
    if header.needs_subject() {
        executable = subject::executable();
        uid = subject::uid();
    }
    let verdict = if header.needs_subject() && !subject::is_known(executable) {
        // A kernel thread: its uid 0 is not the uid of the socket's user.
        VerdictWord::of(Err(Fault::NoExecutable))
    } else {
        VerdictWord::of(decide(image, root, uid, executable))
    };
    let verdict = VerdictWord(forget(verdict.0 as u64, root[0]) as u32);
    if reference.is_counted() {
        image.count(page, verdict);
    }
    PackedVerdict::of(verdict, errno, header.revision())
}
