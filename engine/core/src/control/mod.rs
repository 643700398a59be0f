//! Policies that are attached to cgroups without a process of tidegate. The programs and maps are pinned in the kernel
//! ([`PinnedDatapath`]); a journal in the run directory records which policy is attached to which cgroup, since when and
//! by whom.
//!
//! ```text
//! Invocation -> Control::open (lock, recover) -> attach | apply | set_mode | detach -> one atomic write in the kernel
//!                                             -> status | names (of events)
//! ```
//!
//! Every change is written to the journal as a pending operation first, then made by one atomic write in the kernel (the
//! scope of a cgroup, the image of a slot), then recorded as done. The next command that opens the journal and finds a
//! pending operation reads from the kernel whether the write was made. So the result is the old state or the new one.

mod apply;
mod attach;
mod attached_image;
mod compiled;
mod desired_state;
mod detach;
mod egress_filter;
mod error;
mod event_names;
mod existing;
mod journal;
mod json_file;
mod lock;
mod record;
mod recover;
mod scope;
mod status;
mod totals;
mod unix_programs;

use std::{cell::OnceCell, os::fd::AsFd};

use jiff::Timestamp;

use crate::{
    cgroup::Hierarchy,
    datapath::{Calls, EventRing, Features, PinnedDatapath, other_versions},
    host::{Capabilities, Unmet, unmet},
    instance::Instance,
};

pub use apply::{ApplyOutcome, Change};
pub use attach::{AttachOutcome, AttachRequest};
pub use desired_state::{LivePolicy, Origin, PolicyState, Recompiled, STATE_VERSION};
pub use detach::{DetachOutcome, DetachTarget};
pub use error::ControlError;
pub use event_names::SlotNames;
pub use existing::{Existing, ExistingReport, ExistingSocket, Fate, Process};
pub use lock::{Holder, Lock, ReaderLock};
pub use record::{Actor, Attachment, RECORD_VERSION, Record, RuleName, Version};
pub use status::{AttachmentState, AttachmentStatus, HookStatus, PolicyStatus, RuleStatus, Status};
pub use totals::Totals;

use desired_state::StateDirectory;
use journal::Journal;

/// The context of one command: its instance, its user and its clock.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// The directories of pins and records.
    pub instance: Instance,
    /// Who is recorded as the author of changes.
    pub actor: Actor,
    /// The command line, shown to commands that wait for the lock.
    pub command: String,
    /// Returns the current time.
    pub now: fn() -> Timestamp,
}

impl Invocation {
    /// The current time in the format of records.
    fn time(&self) -> String {
        format!("{:.3}", (self.now)())
    }
}

/// The attached policies, opened for one command, which holds the lock.
pub struct Control {
    datapath: PinnedDatapath,
    /// Whether this command has loaded the programs.
    is_new: bool,
    journal: Journal,
    state: StateDirectory,
    hierarchy: Hierarchy,
    invocation: Invocation,
    capabilities: OnceCell<Capabilities>,
    calls: Calls,
    _lock: Lock,
}

impl Control {
    /// Opens the state of attached policies; `None` if no policy was ever attached. Completes or reverts the pending operation
    /// of a command that was killed. `wait` is called with the holder of the lock if another process has it.
    ///
    /// # Errors
    /// [`ControlError::Vanished`] when only the journal is left; others when journal or pins cannot be opened.
    pub fn open(
        invocation: &Invocation,
        hierarchy: Hierarchy,
        wait: impl FnOnce(&Holder),
    ) -> Result<Option<Control>, ControlError> {
        let Invocation { instance, .. } = invocation;
        // Do not create the run directory.
        if !instance.run_dir.exists() && PinnedDatapath::open(instance)?.is_none() {
            return Ok(None);
        }
        let lock = Lock::take(invocation, wait)?;
        let Some(datapath) = PinnedDatapath::open(instance)? else {
            let records = Journal::open(&instance.run_dir)?.records()?;
            if records.is_empty() {
                return Ok(None);
            }
            let names = records.into_iter().map(|record| record.name);
            return Err(ControlError::Vanished(names.collect()));
        };
        Control::new(datapath, false, invocation, hierarchy, lock).map(Some)
    }

    /// Opens the state of attached policies; loads programs and maps first if there are none.
    ///
    /// # Errors
    /// [`ControlError::OtherVersion`] when another version has policies attached; others when programs cannot be loaded, or
    /// journal or pins not be opened.
    pub fn open_or_make(
        invocation: &Invocation,
        hierarchy: Hierarchy,
        wait: impl FnOnce(&Holder),
    ) -> Result<Control, ControlError> {
        let Invocation { instance, .. } = invocation;
        let lock = Lock::take(invocation, wait)?;
        if let [other, ..] = other_versions(instance)?.as_slice() {
            return Err(ControlError::OtherVersion(other.clone()));
        }
        let opened = PinnedDatapath::open(instance)?;
        let is_new = opened.is_none();
        let datapath = match opened {
            Some(datapath) => datapath,
            None => {
                // The pins that these records describe do not exist any more.
                Journal::open(&instance.run_dir)?.clear()?;
                PinnedDatapath::open_or_make(instance)?
            }
        };
        Control::new(datapath, is_new, invocation, hierarchy, lock)
    }

    fn new(
        datapath: PinnedDatapath,
        is_new: bool,
        invocation: &Invocation,
        hierarchy: Hierarchy,
        lock: Lock,
    ) -> Result<Control, ControlError> {
        let mut control = Control {
            calls: datapath.calls(),
            datapath,
            is_new,
            journal: Journal::open(&invocation.instance.run_dir)?,
            state: StateDirectory::at(&invocation.instance.state_dir),
            hierarchy,
            invocation: invocation.clone(),
            capabilities: OnceCell::new(),
            _lock: lock,
        };
        control.recover()?;
        // Commands that only read still work; those that change something try again, and report the error.
        if let Err(error) = control.repair_state() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the desired state is not up to date"
            );
        }
        Ok(control)
    }

    /// Removes the programs if this command has loaded them and no policy was attached.
    fn remove_unused(&self) -> Result<(), ControlError> {
        if !self.is_new || !self.journal.is_empty()? || !self.datapath.cgroups()?.is_empty() {
            return Ok(());
        }
        let instance = &self.invocation.instance;
        PinnedDatapath::remove(instance)?;
        PinnedDatapath::remove_leftovers(instance)?;
        self.journal.remove_directory()
    }

    /// What policies can rely on, as far as it is known without calls. Detected once: one command may attach many policies.
    fn capabilities(&self) -> &Capabilities {
        let disabled = &self.invocation.instance.disabled;
        self.capabilities.get_or_init(|| {
            Capabilities::of_loaded(
                Features::detect(disabled),
                |group| self.datapath.has(group),
                disabled,
            )
        })
    }

    /// The requirements of a version that are not met.
    fn unmet(&self, version: &Version) -> Vec<Unmet> {
        let requirements = version.requirements();
        let capabilities = self.capabilities().clone().tried_for(&requirements, &self.calls);
        unmet(&requirements, &capabilities)
    }

    /// The hierarchy of cgroups.
    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// The stream of events, for one reader at a time ([`ReaderLock`]). Enforcement does not depend on a reader.
    ///
    /// # Errors
    /// [`ControlError::Ring`] when it cannot be mapped.
    pub fn events(&self) -> Result<EventRing, ControlError> {
        Ok(self.datapath.events()?)
    }

    /// A descriptor that is readable (poll) once the programs are removed.
    ///
    /// # Errors
    /// [`ControlError::Datapath`] when inotify is not available.
    pub fn end(&self) -> Result<impl AsFd + use<>, ControlError> {
        Ok(self.datapath.end()?)
    }

    /// The records of all attached policies, by name.
    ///
    /// # Errors
    /// [`ControlError::Journal`] or [`ControlError::Record`] when one cannot be read.
    pub fn records(&self) -> Result<Vec<Record>, ControlError> {
        self.journal.records()
    }

    fn record(&self, name: &str) -> Result<Record, ControlError> {
        match self.journal.read(name)? {
            Some(record) => Ok(record),
            None => Err(ControlError::NotAttached {
                name: name.to_owned(),
                attached: self
                    .journal
                    .records()?
                    .into_iter()
                    .map(|record| record.name)
                    .collect(),
            }),
        }
    }
}
