//! Asks every policy of the scope and carries the strictest answer out.

use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_retval, bpf_send_signal,
    bpf_set_retval,
};
use engine_common::{
    Action, ExecutableId, Fault, KillAbility, Mode, Outcome, Verdict, VerdictWord,
    dedup::DedupKey,
    event::flag,
    image::{Header, Page, Revision},
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
    verifier::forget,
};

use crate::{
    dedup::{self, Repeats},
    features,
    images::LiveImage,
    report::{self, Report, ReportContext, report},
    request::Request,
    scope, subject,
};

/// Return values of a cgroup program.
pub(crate) const PASS: i32 = 1;
pub(crate) const DENY: i32 = 0;

pub(crate) const EPERM: u16 = 1;
const SIGKILL: u32 = 9;
/// Slot of a report about a scope that could not be read.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// Whether the calling task is outside the scope whose socket it uses.
#[inline(always)]
pub(crate) fn is_foreign(scope: &Scope) -> bool {
    // SAFETY: the helpers take a number or nothing.
    let own = unsafe {
        if scope.level == Scope::UNKNOWN_LEVEL {
            bpf_get_current_cgroup_id()
        } else {
            bpf_get_current_ancestor_cgroup_id(scope.level as i32)
        }
    };
    own != scope.cgroup
}

/// What a policy answered, and by which version of it, in one word: bits 0 to 1 the action, 2 to 3
/// a number of `event::reason`, 4 to 19 the rule or fault, 20 to 30 the errno, 31 audit mode, 32 to
/// 63 the generation.
///
/// One word, since that is what a global function of the kernel returns. Global functions take and
/// return plain numbers, and the verifier checks each once, whatever calls it: a static one it
/// would follow again for each of the policies on a cgroup.
#[derive(Clone, Copy)]
pub(crate) struct PackedVerdict(u64);

impl PackedVerdict {
    #[inline(always)]
    pub(crate) fn of(verdict: VerdictWord, errno: u16, life: Revision) -> PackedVerdict {
        PackedVerdict(
            verdict.0 as u64 & 3
                | (verdict.reason() as u64 & 3) << 2
                | (verdict.detail() as u64) << 4
                | (errno as u64 & 0x7ff) << 20
                | (life.mode as u64) << 31
                | life.generation << 32,
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

    /// Generation, mode, reason and rule in one word: a repeat has all of them in common.
    #[inline(always)]
    pub(crate) fn reported_as(self) -> u64 {
        self.0 & !(0x7ff << 20)
    }

    #[inline(always)]
    pub(crate) fn errno(self) -> u16 {
        (self.0 >> 20) as u16 & 0x7ff
    }

    /// The same with another number in the errno's place.
    #[inline(always)]
    pub(crate) fn with_errno(self, errno: u16) -> PackedVerdict {
        PackedVerdict(self.0 & !(0x7ff << 20) | (errno as u64 & 0x7ff) << 20)
    }

    #[inline(always)]
    pub(crate) fn life(self) -> Revision {
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

/// Asks one policy and counts its answer.
#[inline(always)]
pub(crate) fn ask(
    reference: SlotRef,
    question: impl Fn(&LiveImage, &Page, u32, ExecutableId) -> Result<Verdict, Fault>,
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
    // What a policy does not look at is not asked for.
    let mut uid = 0;
    if header.needs_subject() {
        executable = subject::executable();
        uid = subject::uid();
    }
    let verdict = if header.needs_subject() && !subject::is_known(executable) {
        // A kernel thread: its uid 0 says nothing about whose socket this is.
        VerdictWord::of(Err(Fault::NoExecutable))
    } else {
        VerdictWord::of(question(image, root, uid, executable))
    };
    let verdict = VerdictWord(forget(verdict.0 as u64, root[0]) as u32);
    if reference.is_counted() {
        image.count(page, verdict);
    }
    PackedVerdict::of(verdict, errno, header.life())
}

/// By whose scope an attempt is judged.
#[derive(Clone, Copy)]
pub(crate) enum PolicyOwner {
    /// The socket's, in a cgroup hook.
    SocketCgroup,
    /// The calling task's: its id, and whether the socket is of another.
    TaskCgroup { scope: u64, foreign: bool },
}

impl PolicyOwner {
    /// The scope's id.
    #[inline(always)]
    fn scope(self) -> u64 {
        match self {
            PolicyOwner::SocketCgroup => scope::current().cgroup,
            PolicyOwner::TaskCgroup { scope, .. } => scope,
        }
    }

    #[inline(always)]
    fn is_foreign(self) -> bool {
        match self {
            PolicyOwner::SocketCgroup => is_foreign(scope::current()),
            PolicyOwner::TaskCgroup { foreign, .. } => foreign,
        }
    }

    /// Whether the calling task is to be killed where that is said: a socket that somebody outside uses is
    /// no reason to kill that one.
    #[inline(always)]
    fn is_killed(self, foreign: bool) -> bool {
        match self {
            PolicyOwner::SocketCgroup => !foreign,
            PolicyOwner::TaskCgroup { .. } => true,
        }
    }

    #[inline(always)]
    fn can_kill(self) -> bool {
        match self {
            PolicyOwner::SocketCgroup => features::has_send_signal() != 0,
            PolicyOwner::TaskCgroup { .. } => true,
        }
    }
}

/// Applies the policy's mode, kills where that is said, and reports; gives the number of the
/// outcome. Called by global functions of the hooks, off the silent path.
#[inline(always)]
pub(crate) fn respond<Q: Request>(
    question: &Q,
    place: &ReportContext,
    side: PolicyOwner,
    answer: PackedVerdict,
) -> u64 {
    let scope = side.scope();
    let (verdict, life) = (answer.verdict(), answer.life());
    // Its number, of which the verifier knows nothing: with each outcome it would go through all that follows.
    let number = |kill| forget(Outcome::of(verdict.action(), life.mode, kill) as u64, scope) as u8;
    let mut outcome = number(KillAbility::Later);
    let foreign = forget(side.is_foreign() as u64, scope) != 0;
    let executable = subject::executable();
    if outcome == Outcome::KillPending as u8 {
        let kill = if !side.is_killed(foreign) || !subject::is_known(executable) {
            KillAbility::NotOurs
        } else if side.can_kill() && send_kill() {
            KillAbility::Now
        } else {
            KillAbility::Later
        };
        outcome = number(kill);
    }
    let flags = report::flags(foreign, matches!(life.mode, Mode::Audit), executable, scope);
    let mut repeats = Repeats::NONE;
    // What user space is still to kill, it must be told.
    if outcome != Outcome::KillPending as u8 {
        let window = dedup_window(place.slot, verdict);
        if window != 0 {
            let mut key = DedupKey {
                scope,
                executable_device: executable.device,
                executable_inode: executable.inode,
                destination: [0; 2],
                slot: place.slot,
                port: 0,
                protocol: 0,
                verdict: verdict.0 as u8,
                family: 0,
                original_family: 0,
                flags: flags as u8 & flag::FOREIGN_SOCKET,
                reserved: 0,
            };
            question.identify(&mut key);
            repeats = dedup::take(&key, window, answer.reported_as());
            if repeats.is_folded() {
                return outcome as u64;
            }
        }
    }
    let is_denied = outcome >= Outcome::Blocked as u8;
    report(
        question,
        place,
        &Report {
            scope,
            generation: life.generation,
            verdict,
            outcome,
            errno: forget(if is_denied { answer.errno() as u64 } else { 0 }, scope) as u16,
            executable,
            flags,
            repeats,
        },
    );
    outcome as u64
}

/// The window within which a policy folds repeats, nanoseconds. Of the version that is live now, which
/// may be the one after the answer's.
#[inline(always)]
pub(crate) fn dedup_window(slot: u32, verdict: VerdictWord) -> u64 {
    let Some(image) = LiveImage::of(slot) else {
        return 0;
    };
    match engine_common::Tables::page(image, 0) {
        Some(root) => Header(root).fold().nanoseconds(verdict.action()),
        None => 0,
    }
}

/// Kills the calling process before its call returns.
#[inline(always)]
fn send_kill() -> bool {
    // SAFETY: the helper takes a number and acts on the current task.
    unsafe { bpf_send_signal(SIGKILL) == 0 }
}

/// Answers for the hook: 1 lets the call go on, 0 makes it fail. `ask` asks the policy of a slot,
/// `respond` is given the slot and the answer and gives the number of the outcome.
#[inline(always)]
pub(crate) fn judge(
    ask: impl Fn(SlotRef) -> PackedVerdict,
    respond: impl Fn(u32, PackedVerdict) -> u64,
) -> i32 {
    let scope = scope::current();
    if scope.cgroup == 0 {
        respond(NO_SLOT, PackedVerdict::fault(Fault::NoScope, Mode::Enforce));
        return DENY;
    }
    let unknown = scope.cgroup;
    let mut denial = Denial(forget(0, unknown));
    let mut i = 0;
    while i < MAX_STACKED {
        let reference = scope.slots[i];
        let Some(slot) = reference.slot() else { break };
        if reference.is_for_cgroup() {
            let answer = ask(reference);
            if !matches!(answer.verdict().action(), Action::Allow) {
                let outcome = respond(slot, answer);
                denial = Denial(forget(denial.joined(outcome as u8, answer.errno()).0, unknown));
            }
        }
        i += 1;
    }
    if denial.0 == 0 {
        return PASS;
    }
    if features::has_set_retval() != 0 {
        // A scope below this one may have denied already: the nearest one's errno is kept.
        // SAFETY: both helpers take and return numbers.
        unsafe {
            if bpf_get_retval() >= 0 {
                // An errno has twelve bits, and newer verifiers (7.3) want to see it.
                bpf_set_retval(-((denial.0 & 0xfff) as i32));
            }
        }
    }
    DENY
}

/// The strictest denial so far: its errno, bit 16 set where it kills; 0 for none. Of equals the
/// first policy's holds.
#[derive(Clone, Copy)]
pub(crate) struct Denial(pub(crate) u64);

impl Denial {
    const KILLS: u64 = 1 << 16;

    #[inline(always)]
    pub(crate) fn joined(self, outcome: u8, errno: u16) -> Denial {
        if outcome < Outcome::Blocked as u8 {
            return self;
        }
        let kills = outcome > Outcome::Blocked as u8;
        match self.0 {
            0 if kills => Denial(Self::KILLS | errno as u64),
            0 => Denial(errno as u64),
            soft if soft & Self::KILLS == 0 && kills => Denial(Self::KILLS | errno as u64),
            _ => self,
        }
    }
}
