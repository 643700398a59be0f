//! Trial programs: whether the running kernel supports each hook, helper and map, found by loading, attaching and calling
//! programs of a few instructions that allow everything. Used by `tidegate probe` and by [`super::canary`]. Nothing is
//! pinned; dropping a [`TrialLink`] detaches its program.
//!
//! ```text
//! Trials::begin -> attach(hook) -> TrialLink -> (a call is made) -> was_called
//!               -> helper(helper), map(use)
//! ```

mod attach;
mod bytecode;
mod helper;
mod hook;
mod load;
mod map_use;
mod refusal;

use std::{
    cell::OnceCell,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use self::bytecode::Bytecode;
pub use self::{
    attach::TrialLink,
    helper::{HELPERS, Helper},
    hook::{HOOKS, Hook, HookPoint},
    map_use::{MAP_USES, MapUse},
    refusal::{Refusal, Step},
};
use super::{
    btf::Btf,
    maps::raise_memory_limit,
    syscall::{ProgramLoad, read_words},
};

/// Trial programs, and the map in which they record that they were called.
pub struct Trials {
    /// An array with one value: a word for each hook, which its program sets to 1.
    calls: OwnedFd,
    btf: OnceCell<Option<Btf>>,
    /// Start of the thread name by which programs at global hooks recognise the calls.
    thread: [u8; 8],
}

impl Trials {
    /// Creates the map. `thread` is the start of the name of the thread that will make the calls: programs at global
    /// hooks ignore the calls of other threads. A name, because process ids depend on the pid namespace.
    ///
    /// # Errors
    /// When the map cannot be created; then nothing can be tried.
    pub fn begin(thread: [u8; 8]) -> Result<Trials, Refusal> {
        raise_memory_limit();
        let calls = map_use::array(8 * HOOKS.len() as u32).map_err(|error| Refusal::at(Step::Map, error))?;
        Ok(Trials {
            calls,
            btf: OnceCell::new(),
            thread,
        })
    }

    /// Loads the trial program of a hook and unloads it again.
    ///
    /// # Errors
    /// When the kernel refuses the program.
    pub fn load(&self, hook: &Hook) -> Result<(), Refusal> {
        self.program(hook).map(drop)
    }

    /// Loads the trial program of a hook and attaches it: to `cgroup` at a cgroup hook, otherwise globally.
    ///
    /// # Errors
    /// When the kernel refuses the program or the attachment.
    pub fn attach(&self, hook: &Hook, cgroup: BorrowedFd<'_>) -> Result<TrialLink, Refusal> {
        let program = self.program(hook)?;
        attach::attach(hook.point, program, Some(cgroup))
    }

    /// Loads and attaches a trial program at a global hook point, which records its calls in this word.
    ///
    /// # Errors
    /// When the kernel refuses the program or the attachment, or the point is one of a cgroup.
    pub(in crate::datapath) fn attach_global(
        &self,
        point: HookPoint,
        word: usize,
    ) -> Result<TrialLink, Refusal> {
        attach::attach(point, self.program_at(point, word)?, None)
    }

    /// Whether a program has recorded a call in this word.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub(in crate::datapath) fn has_call(&self, word: usize) -> Result<bool, Refusal> {
        self.read_call(word)
            .map_err(|error| Refusal::at(Step::Map, error))
    }

    /// Whether the trial program of a hook was called: at a cgroup hook by a task in the cgroup, at a global hook by a
    /// thread with the given name.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn was_called(&self, hook: &Hook) -> io::Result<bool> {
        self.read_call(hook.index())
    }

    /// Loads programs that call the helper and unloads them again.
    ///
    /// # Errors
    /// When the kernel refuses a program.
    pub fn helper(&self, helper: &Helper) -> Result<(), Refusal> {
        for point in helper.points {
            let code = Bytecode::call_helper(helper.id, helper.first_argument, point.allow_value());
            self.load_at(*point, &code)?;
        }
        Ok(())
    }

    /// Creates a map and uses it as the datapath does. If `cgroup` (directory and id) is given, a program is attached to
    /// it during the trial.
    ///
    /// # Errors
    /// When the kernel refuses the map or an operation on it.
    pub fn map(&self, map: MapUse, cgroup: Option<(BorrowedFd<'_>, u64)>) -> Result<(), Refusal> {
        map_use::try_map(self, map, cgroup)
    }

    fn program(&self, hook: &Hook) -> Result<OwnedFd, Refusal> {
        self.program_at(hook.point, hook.index())
    }

    /// Loads a program that records its calls in this word.
    fn program_at(&self, point: HookPoint, word: usize) -> Result<OwnedFd, Refusal> {
        let offset = word as u32 * 8;
        let (calls, result) = (self.calls.as_fd(), point.allow_value());
        let code = match point {
            HookPoint::Cgroup { .. } => Bytecode::record_call(calls, offset, result),
            _ => Bytecode::record_call_of(self.thread, calls, offset, result),
        };
        self.load_at(point, &code)
    }

    fn read_call(&self, word: usize) -> io::Result<bool> {
        let calls: [u64; HOOKS.len()] = read_words(self.calls.as_fd(), 0)?;
        Ok(calls[word] != 0)
    }

    fn load_at(&self, point: HookPoint, code: &Bytecode) -> Result<OwnedFd, Refusal> {
        let (program_type, attach_type) = point.types();
        let attach_btf_id = match point {
            HookPoint::Lsm(hook) => self.function_id(&format!("bpf_lsm_{hook}"))?,
            HookPoint::Fentry(function) => self.function_id(function)?,
            _ => 0,
        };
        load::load(&ProgramLoad {
            program_type,
            attach_type,
            attach_btf_id,
            instructions: code.words(),
        })
    }

    /// The BTF id of a kernel function.
    fn function_id(&self, name: &str) -> Result<u32, Refusal> {
        let missing = |what: String| Refusal::described(Step::Load, what);
        let Some(btf) = self.btf.get_or_init(|| Btf::of_running_kernel().ok()) else {
            return Err(missing("the kernel has no type information (BTF)".into()));
        };
        btf.function_id(name)
            .ok_or_else(|| missing(format!("the kernel has no function {name}")))
    }
}
