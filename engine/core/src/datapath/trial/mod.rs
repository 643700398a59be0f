//! Trial programs: what the running kernel really does with each hook and helper, found by loading,
//! attaching and running a few instructions that let everything pass. For `tidegate probe`; nothing
//! here is pinned, and what is attached goes when its [`Attached`] is dropped.
//!
//! ```text
//! Trials::begin -> attach(hook) -> Attached -> (a call is made) -> was_called
//!               -> helper(helper), tables(table)
//! ```

mod attach;
mod bytecode;
mod hook;
mod kernel_function;
mod load;
mod refusal;
mod syscall;
mod table;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

pub use self::{
    attach::Attached,
    hook::{HOOKS, Hook, Place},
    kernel_function::{HELPERS, Helper},
    refusal::{Refusal, Step},
    table::{TABLES, Table},
};
use self::{bytecode::Bytecode, hook::Place as P, load::Blueprint};
use super::{btf::Btf, syscall::read_words, tables::raise_memory_limit};

/// Trial programs, and the map in which they leave a mark when they are called.
pub struct Trials {
    marks: OwnedFd,
    btf: Option<Btf>,
    /// What a thread must be named for programs that the whole machine runs to mark its calls.
    name: [u8; 8],
}

impl Trials {
    /// Makes the map. `name` is what the calling thread is named (eight bytes, no more) while calls
    /// of it are looked for: a name, since a process has another id in each pid namespace.
    ///
    /// # Errors
    /// [`Refusal`] when the map cannot be created: then nothing can be tried.
    pub fn begin(name: [u8; 8]) -> Result<Trials, Refusal> {
        raise_memory_limit();
        let marks = table::array(8 * HOOKS.len() as u32).map_err(|error| Refusal::at(Step::Table, error))?;
        Ok(Trials {
            marks,
            btf: Btf::of_running_kernel().ok(),
            name,
        })
    }

    /// Loads the trial program of a hook and releases it.
    ///
    /// # Errors
    /// [`Refusal`] when the kernel refuses.
    pub fn load(&self, hook: &Hook) -> Result<(), Refusal> {
        self.program(hook).map(drop)
    }

    /// Loads and attaches the trial program of a hook: to the cgroup, if the hook is one of a cgroup,
    /// else for the whole machine.
    ///
    /// # Errors
    /// [`Refusal`] when the kernel refuses.
    pub fn attach(&self, hook: &Hook, cgroup: BorrowedFd<'_>) -> Result<Attached, Refusal> {
        let program = self.program(hook)?;
        attach::attach(hook.place, program, Some(cgroup))
    }

    /// Loads and attaches the trial program of a hook of the whole machine.
    ///
    /// # Errors
    /// [`Refusal`] when the kernel refuses, or the hook is one of a cgroup.
    pub fn attach_global(&self, hook: &Hook) -> Result<Attached, Refusal> {
        attach::attach(hook.place, self.program(hook)?, None)
    }

    /// Whether the trial program of a hook was called: by a task in the cgroup it is attached to, or, for
    /// the whole machine, by a thread of the name given.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn was_called(&self, hook: &Hook) -> io::Result<bool> {
        let marks: [u64; HOOKS.len()] = read_words(self.marks.as_fd(), 0)?;
        Ok(marks[hook.place()] != 0)
    }

    /// Loads a program that calls the helper, and releases it.
    ///
    /// # Errors
    /// [`Refusal`] when the kernel refuses.
    pub fn helper(&self, helper: &Helper) -> Result<(), Refusal> {
        for place in helper.places {
            let code = Bytecode::calling(helper.number, helper.first_argument, place.passes());
            self.load_at(*place, &code)?;
        }
        Ok(())
    }

    /// Creates a kind of map, and uses it as the datapath does; `cgroup` has programs of these trials
    /// attached for a moment.
    ///
    /// # Errors
    /// [`Refusal`] when the kernel refuses.
    pub fn table(&self, table: Table, cgroup: Option<(BorrowedFd<'_>, u64)>) -> Result<(), Refusal> {
        table::try_out(self, table, cgroup)
    }

    fn program(&self, hook: &Hook) -> Result<OwnedFd, Refusal> {
        let mark = hook.place() as u32 * 8;
        let code = match hook.place {
            P::Cgroup { .. } => Bytecode::marking(self.marks.as_fd(), mark, hook.place.passes()),
            _ => Bytecode::marking_calls_of(self.name, self.marks.as_fd(), mark, hook.place.passes()),
        };
        self.load_at(hook.place, &code)
    }

    fn load_at(&self, place: Place, code: &Bytecode) -> Result<OwnedFd, Refusal> {
        let (kind, attach_type) = place.numbers();
        let function = match place {
            P::Lsm(hook) => self.function(&format!("bpf_lsm_{hook}"))?,
            P::Function(name) => self.function(name)?,
            _ => 0,
        };
        load::load(
            &Blueprint {
                kind,
                attach_type,
                function,
            },
            code,
        )
    }

    /// The BTF id of a function of the kernel.
    fn function(&self, name: &str) -> Result<u32, Refusal> {
        let missing = |what: String| Refusal::described(Step::Load, what);
        let Some(btf) = &self.btf else {
            return Err(missing("the kernel has no type information (BTF)".into()));
        };
        btf.function_id(name)
            .ok_or_else(|| missing(format!("the kernel has no function {name}")))
    }
}
