//! Enforces verdicts: applies the mode, kills, suppresses duplicates, reports, and combines the outcomes of the
//! policies of a scope.

use aya_ebpf::helpers::generated::{bpf_get_retval, bpf_send_signal, bpf_set_retval};
use engine_common::{
    Action, Fault, KillAbility, Mode, Outcome, dedup::DedupKey, limits::MAX_STACKED, record::attempt_flag,
    scope::SlotRef, verifier::forget,
};

use crate::{
    dedup::{self, Duplicates},
    evaluate::PackedVerdict,
    features,
    report::{self, Report, ReportContext, report},
    request::Request,
    scope, subject,
};

/// Return values of a cgroup program.
pub(crate) const PASS: i32 = 1;
pub(crate) const DENY: i32 = 0;

const SIGKILL: u32 = 9;
/// Slot of a report about a scope that could not be read.
pub(crate) const NO_SLOT: u32 = u32::MAX;

/// The cgroup whose policies are enforced.
#[derive(Clone, Copy)]
pub(crate) enum PolicyOwner {
    /// The socket's, in a cgroup hook.
    SocketCgroup,
    /// The calling task's: its id, and whether the socket belongs to another.
    TaskCgroup { scope: u64, foreign: bool },
}

impl PolicyOwner {
    /// Id of the cgroup.
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
            PolicyOwner::SocketCgroup => scope::is_task_outside(scope::current()),
            PolicyOwner::TaskCgroup { foreign, .. } => foreign,
        }
    }

    /// Whether the action kill applies to the calling task. A task outside the scope that uses a socket of the
    /// scope is only denied.
    #[inline(always)]
    fn may_kill_task(self, foreign: bool) -> bool {
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

/// Applies the policy's mode, kills if the outcome says so, and reports. Returns the discriminant of the
/// [`Outcome`]. Called by global functions of the hooks, and not for the action allow.
#[inline(always)]
pub(crate) fn enforce<R: Request>(
    request: &R,
    context: &ReportContext,
    owner: PolicyOwner,
    packed: PackedVerdict,
) -> u64 {
    let scope = owner.scope();
    let (verdict, revision) = (packed.verdict(), packed.revision());
    // Unknown to the verifier, which would otherwise explore the rest once for each outcome.
    let outcome_for = |kill| forget(Outcome::of(verdict.action(), revision.mode, kill) as u64, scope) as u8;
    let mut outcome = outcome_for(KillAbility::Later);
    let foreign = forget(owner.is_foreign() as u64, scope) != 0;
    let executable = subject::executable();
    if outcome == Outcome::KillPending as u8 {
        let kill = if !owner.may_kill_task(foreign) || !subject::is_known(executable) {
            KillAbility::OutOfScope
        } else if owner.can_kill() && send_kill() {
            KillAbility::Now
        } else {
            KillAbility::Later
        };
        outcome = outcome_for(kill);
    }
    let flags = report::flags(foreign, matches!(revision.mode, Mode::Audit), executable, scope);
    let mut duplicates = Duplicates::NONE;
    // User space kills when it reads the record, so that one is always written.
    if outcome != Outcome::KillPending as u8 {
        let window = dedup::window(context.slot, verdict);
        if window != 0 {
            let mut key = DedupKey {
                scope,
                executable_device: executable.device,
                executable_inode: executable.inode,
                slot: context.slot,
                verdict: verdict.0 as u8,
                flags: flags as u8 & attempt_flag::FOREIGN_SOCKET,
                ..DedupKey::EMPTY
            };
            request.write_key(&mut key);
            duplicates = dedup::record(&key, window, packed.without_errno());
            if duplicates.is_suppressed() {
                return outcome as u64;
            }
        }
    }
    let is_denied = outcome >= Outcome::Blocked as u8;
    report(
        request,
        context,
        &Report {
            scope,
            generation: revision.generation,
            verdict,
            outcome,
            errno: forget(if is_denied { packed.errno() as u64 } else { 0 }, scope) as u16,
            executable,
            flags,
            duplicates,
        },
    );
    outcome as u64
}

/// Kills the calling process before its call returns.
#[inline(always)]
fn send_kill() -> bool {
    // SAFETY: the helper takes an integer and acts on the current task.
    unsafe { bpf_send_signal(SIGKILL) == 0 }
}

/// Evaluates and enforces all policies of the cgroup that the program runs for. Returns the value for the kernel:
/// [`PASS`] or [`DENY`]. `evaluate` evaluates the policy of a slot; `enforce` is given the slot and the verdict, and
/// returns the discriminant of the [`Outcome`].
#[inline(always)]
pub(crate) fn enforce_scope(
    evaluate: impl Fn(SlotRef) -> PackedVerdict,
    enforce: impl Fn(u32, PackedVerdict) -> u64,
) -> i32 {
    let scope = scope::current();
    if scope.cgroup == 0 {
        enforce(NO_SLOT, PackedVerdict::fault(Fault::NoScope, Mode::Enforce));
        return DENY;
    }
    let unknown = scope.cgroup;
    let mut denial = Denial(forget(0, unknown));
    let mut i = 0;
    while i < MAX_STACKED {
        let reference = scope.slots[i];
        let Some(slot) = reference.slot() else { break };
        if reference.is_for_cgroup() {
            let packed = evaluate(reference);
            if !matches!(packed.verdict().action(), Action::Allow) {
                let outcome = enforce(slot, packed);
                denial = Denial(forget(denial.joined(outcome as u8, packed.errno()).0, unknown));
            }
        }
        i += 1;
    }
    if denial.0 == 0 {
        return PASS;
    }
    if features::has_set_retval() != 0 {
        // A scope below this one may have denied already: its errno is kept.
        // SAFETY: both helpers take and return integers.
        unsafe {
            if bpf_get_retval() >= 0 {
                // An errno has twelve bits; newer verifiers (7.3) require a known bound.
                bpf_set_retval(-((denial.0 & 0xfff) as i32));
            }
        }
    }
    DENY
}

/// The strictest denial so far: its errno, bit 16 set if it kills; 0 for none. Of equally strict ones the
/// first is kept.
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
            block if block & Self::KILLS == 0 && kills => Denial(Self::KILLS | errno as u64),
            _ => self,
        }
    }
}
