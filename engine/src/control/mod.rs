//! Policies that stand on cgroups with no process of ours alive. What enforces is pinned in the kernel
//! ([`PinnedDatapath`](crate::datapath::PinnedDatapath)); a journal beside it says what stands where, since
//! when and by whom.
//!
//! ```text
//! command -> Standing::open (lock, recover) -> attach | apply | set_mode | detach -> one flip in the kernel
//!                                           -> status | names (of events)
//! ```
//!
//! Every change is written to the journal as an intention first, then done by one flip in the kernel
//! (the scope of a cgroup, the image of a slot), then written as done. Whoever opens the journal next
//! finds an intention whose author died and asks the kernel whether the flip was made: so there is the
//! old state or the new one, and nothing in between.

mod apply;
mod attach;
mod compiled;
mod detach;
mod egress_filter;
mod error;
mod event_names;
mod existing;
mod journal;
mod lock;
mod record;
mod recover;
mod scope;
mod status;
mod totals;
mod unix;
mod unmet;

use std::os::fd::AsFd;

use crate::{
    cgroup::Hierarchy,
    datapath::{PinnedDatapath, other_versions},
};

pub use apply::{Applied, Change};
pub use attach::{Attached, Wanted};
pub use detach::{Detached, Place};
pub use error::ControlError;
pub use event_names::SlotNames;
pub use existing::{Existing, ExistingReport, ExistingSocket, Fate, Process};
pub use journal::RUN_VARIABLE;
pub use lock::{Holder, Lock, ReaderLock};
pub use record::{Actor, Attachment, Record, RuleName, Version};
pub use status::{AttachmentStatus, HookStatus, PolicyStatus, Status};
pub use totals::Totals;
pub(crate) use unmet::{unix_unavailable_reason, why_unmet};

use journal::Journal;

/// All that stands, opened for one command, which holds the lock.
pub struct Standing {
    gate: PinnedDatapath,
    journal: Journal,
    hierarchy: Hierarchy,
    _lock: Lock,
}

impl Standing {
    /// Opens what stands; `None` where nothing ever was attached. What a command that died left half
    /// done is undone or finished first. `wait` is told who holds the lock, if somebody does.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn open(hierarchy: Hierarchy, wait: impl FnOnce(&Holder)) -> Result<Option<Standing>, ControlError> {
        let lock = Lock::take(&journal::folder()?, wait)?;
        let Some(gate) = PinnedDatapath::open()? else {
            let records = Journal::open()?.records()?;
            if records.is_empty() {
                return Ok(None);
            }
            return Err(ControlError::Vanished(
                records.into_iter().map(|record| record.name).collect(),
            ));
        };
        Standing::of(gate, hierarchy, lock).map(Some)
    }

    /// Opens what stands, and loads programs and tables first where there are none.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn open_or_make(hierarchy: Hierarchy, wait: impl FnOnce(&Holder)) -> Result<Standing, ControlError> {
        let lock = Lock::take(&journal::folder()?, wait)?;
        if let [other, ..] = other_versions()?.as_slice() {
            return Err(ControlError::OtherVersion(other.clone()));
        }
        let gate = match PinnedDatapath::open()? {
            Some(gate) => gate,
            None => {
                // Whatever the journal names went with the pins.
                Journal::open()?.clear()?;
                PinnedDatapath::open_or_make()?
            }
        };
        Standing::of(gate, hierarchy, lock)
    }

    fn of(gate: PinnedDatapath, hierarchy: Hierarchy, lock: Lock) -> Result<Standing, ControlError> {
        let mut standing = Standing {
            gate,
            journal: Journal::open()?,
            hierarchy,
            _lock: lock,
        };
        standing.recover()?;
        Ok(standing)
    }

    /// The hierarchy that cgroups are looked for in.
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// The stream of events. Reading it is not needed for anything to be enforced; one reader at a time
    /// ([`ReaderLock`]).
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn events(&self) -> Result<crate::datapath::EventRing, ControlError> {
        Ok(self.gate.events()?)
    }

    /// Readable (poll) once everything is taken away.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn end(&self) -> Result<impl AsFd + use<>, ControlError> {
        Ok(self.gate.end()?)
    }

    /// All records.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn records(&self) -> Result<Vec<Record>, ControlError> {
        self.journal.records()
    }

    /// The record of a policy.
    fn record(&self, name: &str) -> Result<Record, ControlError> {
        match self.journal.read(name)? {
            Some(record) => Ok(record),
            None => Err(ControlError::NotAttached {
                name: name.to_owned(),
                standing: self
                    .journal
                    .records()?
                    .into_iter()
                    .map(|record| record.name)
                    .collect(),
            }),
        }
    }
}
