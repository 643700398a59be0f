//! The gate of one run: programs that an earlier run left loaded, or fresh ones.

use engine_common::scope::Scope;

use super::session::failed;
use crate::{
    cgroup::Hierarchy,
    cli::Failure,
    compile::Image,
    datapath::{Attachment, CachedGate, EventRing, Features, FoldCounts, Gate, PinFolder, Slot, WakeUp},
    launch::TransientCgroup,
};

/// Programs and tables of one run.
pub(super) enum ExecGate {
    Cached(Box<CachedGate>),
    Fresh {
        gate: Box<Gate>,
        attachment: Option<Attachment>,
    },
}

impl ExecGate {
    /// Takes what is loaded, if nobody uses it.
    pub(super) fn open(features: Features, hierarchy: &Hierarchy) -> Result<ExecGate, Failure> {
        if let Some(cached) = CachedGate::take(|cgroup| hierarchy.has(cgroup)) {
            return Ok(ExecGate::Cached(Box::new(cached)));
        }
        Ok(ExecGate::Fresh {
            gate: Box::new(Gate::load(features, WakeUp::EachRecord).map_err(|e| failed(&e))?),
            attachment: None,
        })
    }

    pub(super) fn install(&mut self, images: &[&Image]) -> Result<Vec<Slot>, Failure> {
        match self {
            ExecGate::Cached(gate) => gate.install(images),
            ExecGate::Fresh { gate, .. } => gate.install_all(images),
        }
        .map_err(|e| failed(&e))
    }

    pub(super) fn attach(
        &mut self,
        cgroup: &TransientCgroup,
        scope: &Scope,
        empty: &Scope,
    ) -> Result<(), Failure> {
        match self {
            ExecGate::Cached(gate) => gate.attach(cgroup.fd(), scope, empty).map_err(|e| failed(&e)),
            ExecGate::Fresh { gate, attachment } => {
                let pins = PinFolder::create(cgroup.id()).map_err(|e| failed(&e))?;
                let made = gate.attach(cgroup.fd(), scope, pins);
                *attachment = Some(made.map_err(|e| failed(&e))?);
                Ok(())
            }
        }
    }

    /// Whether packets can be judged here.
    pub(super) fn has_floor(&self) -> bool {
        match self {
            ExecGate::Cached(gate) => gate.has_floor(),
            ExecGate::Fresh { gate, .. } => gate.has_floor(),
        }
    }

    /// Whether unix sockets can be judged here.
    pub(super) fn has_unix(&self) -> bool {
        match self {
            ExecGate::Cached(gate) => gate.has_unix(),
            ExecGate::Fresh { gate, .. } => gate.has_unix(),
        }
    }

    pub(super) fn events(&mut self) -> Result<EventRing, Failure> {
        match self {
            ExecGate::Cached(gate) => gate.events(),
            ExecGate::Fresh { gate, .. } => gate.events(),
        }
        .map_err(|e| failed(&e))
    }

    /// Events that runs before this one lost in the same ring.
    pub(super) fn lost_before(&self) -> u64 {
        match self {
            ExecGate::Cached(gate) => gate.lost_before(),
            ExecGate::Fresh { .. } => 0,
        }
    }

    pub(super) fn lost(&self) -> Result<u64, Failure> {
        match self {
            ExecGate::Cached(gate) => gate.lost(),
            ExecGate::Fresh { gate, .. } => gate.lost(),
        }
        .map_err(|e| failed(&e))
    }

    pub(super) fn fold_counts(&self) -> Result<FoldCounts, Failure> {
        match self {
            ExecGate::Cached(gate) => gate.fold_counts(),
            ExecGate::Fresh { gate, .. } => gate.fold_counts(),
        }
        .map_err(|e| failed(&e))
    }

    pub(super) fn counters(&self, slot: Slot) -> Result<Vec<u64>, Failure> {
        match self {
            ExecGate::Cached(gate) => gate.counters(slot),
            ExecGate::Fresh { gate, .. } => gate.counters(slot),
        }
        .map_err(|e| failed(&e))
    }

    /// Removes the cgroup, and then what was attached to it: as long as it is there, it is gated.
    pub(super) fn remove(&mut self, cgroup: TransientCgroup) {
        let id = cgroup.id();
        if let Err(error) = cgroup.remove() {
            tracing::warn!(%error, "the next run tries again");
            return;
        }
        let detached: Result<(), Box<dyn std::error::Error>> = match self {
            ExecGate::Cached(gate) => gate.detach(id).map_err(Into::into),
            ExecGate::Fresh { attachment, .. } => match attachment.take() {
                Some(attachment) => attachment.detach().map_err(Into::into),
                None => Ok(()),
            },
        };
        if let Err(error) = detached {
            tracing::warn!(%error, "the next run tries again");
        }
    }
}
