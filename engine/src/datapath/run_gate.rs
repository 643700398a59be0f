//! The gate of one run (of a command, of a self-test): programs that an earlier run left loaded, or fresh ones.

use std::os::fd::BorrowedFd;

use engine_common::scope::Scope;
use thiserror::Error;

use super::{
    attachment::{AttachError, Attachment},
    cache::CachedGate,
    features::Features,
    gate::{Gate, LoadError, WakeUp},
    pinned::DatapathError,
    pins::{PinFolder, PinsError},
    ring::{EventRing, RingError},
    tables::{DedupCounts, Slot, TableError},
};
use crate::compile::Image;

/// Why a run has no gate, by the step that failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RunGateError {
    /// The programs cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// There is no place for pins, or they resist.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The programs cannot be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// What was attached cannot be taken away.
    #[error(transparent)]
    Detach(#[from] DatapathError),
}

/// Programs and tables of one run.
pub struct RunGate(Programs);

enum Programs {
    Cached(Box<CachedGate>),
    Fresh {
        gate: Box<Gate>,
        attachment: Option<Attachment>,
    },
}

impl RunGate {
    /// Takes what is loaded, if nobody uses it; `is_alive` is asked with the ids of cgroups.
    ///
    /// # Errors
    /// [`RunGateError::Load`].
    pub fn open(features: Features, is_alive: impl Fn(u64) -> bool) -> Result<RunGate, RunGateError> {
        Ok(RunGate(match CachedGate::take(is_alive) {
            Some(cached) => Programs::Cached(Box::new(cached)),
            None => Programs::Fresh {
                gate: Box::new(Gate::load(features, WakeUp::EachRecord)?),
                attachment: None,
            },
        }))
    }

    /// Puts policies live, each in a slot of its own.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn install(&mut self, images: &[&Image]) -> Result<Vec<Slot>, TableError> {
        match &mut self.0 {
            Programs::Cached(gate) => gate.install(images),
            Programs::Fresh { gate, .. } => gate.install_all(images),
        }
    }

    /// Puts a cgroup under the policies of a scope, from one moment on; of flags it has only what it is attached with
    /// ([`Scope::STRICT`]), the others follow from its policies.
    ///
    /// # Errors
    /// [`RunGateError::Attach`], [`RunGateError::Pins`]; nothing stays attached then.
    pub fn attach(&mut self, cgroup: BorrowedFd<'_>, scope: &Scope) -> Result<(), RunGateError> {
        let empty = scope.without_policies();
        let scope = scope.with_flags();
        match &mut self.0 {
            Programs::Cached(gate) => gate.attach(cgroup, &scope, &empty)?,
            Programs::Fresh { gate, attachment } => {
                let pins = PinFolder::create(scope.cgroup)?;
                *attachment = Some(gate.attach(cgroup, &scope, pins)?);
            }
        }
        Ok(())
    }

    /// Whether packets can be judged here.
    pub fn has_egress_filter(&self) -> bool {
        match &self.0 {
            Programs::Cached(gate) => gate.has_egress_filter(),
            Programs::Fresh { gate, .. } => gate.has_egress_filter(),
        }
    }

    /// Whether unix sockets can be judged here.
    pub fn has_unix(&self) -> bool {
        match &self.0 {
            Programs::Cached(gate) => gate.has_unix(),
            Programs::Fresh { gate, .. } => gate.has_unix(),
        }
    }

    /// The stream of events. It can be taken once.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn events(&mut self) -> Result<EventRing, RingError> {
        match &mut self.0 {
            Programs::Cached(gate) => gate.events(),
            Programs::Fresh { gate, .. } => gate.events(),
        }
    }

    /// Events that runs before this one lost in the same ring.
    pub fn lost_before(&self) -> u64 {
        match &self.0 {
            Programs::Cached(gate) => gate.lost_before(),
            Programs::Fresh { .. } => 0,
        }
    }

    /// Events lost in the ring so far, those of earlier runs included.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn lost(&self) -> Result<u64, TableError> {
        match &self.0 {
            Programs::Cached(gate) => gate.lost(),
            Programs::Fresh { gate, .. } => gate.lost(),
        }
    }

    /// What was folded in this run.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn dedup_counts(&self) -> Result<DedupCounts, TableError> {
        match &self.0 {
            Programs::Cached(gate) => gate.dedup_counts(),
            Programs::Fresh { gate, .. } => gate.dedup_counts(),
        }
    }

    /// Counters of a live policy.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn counters(&self, slot: Slot) -> Result<Vec<u64>, TableError> {
        match &self.0 {
            Programs::Cached(gate) => gate.counters(slot),
            Programs::Fresh { gate, .. } => gate.counters(slot),
        }
    }

    /// Takes away what was attached to a cgroup. Only after the cgroup: as long as it is there, it is gated.
    ///
    /// # Errors
    /// [`RunGateError::Detach`], [`RunGateError::Pins`].
    pub fn detach(&mut self, cgroup: u64) -> Result<(), RunGateError> {
        match &mut self.0 {
            Programs::Cached(gate) => gate.detach(cgroup)?,
            Programs::Fresh { attachment, .. } => {
                if let Some(attachment) = attachment.take() {
                    attachment.detach()?;
                }
            }
        }
        Ok(())
    }
}
