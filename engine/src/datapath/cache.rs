//! Programs that stay loaded between runs of `exec`: the verifier takes a tenth of a second and more for
//! them, everything else a few milliseconds.
//!
//! They are pinned like the gate of standing policies, in a folder named for the very programs, and used by
//! one run at a time: its tables and its ring are that run's alone. Whoever finds them in use, also by
//! processes that an earlier run left behind under its policies, loads others.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use engine_common::{ABI_VERSION, scope::Scope};
use nix::fcntl::Flock;

use super::{
    attachment::AttachError,
    features::DISABLE_VARIABLE,
    gate::{OBJECT_HASH, RING_BYTES_VARIABLE, WakeUp},
    links,
    pinned::{self, DatapathError, PinnedDatapath},
    pins,
    ring::{EventRing, RingError},
    tables::{DedupCounts, Slot, TableError},
};
use crate::compile::Image;

const PREFIX: &str = "loaded-";

/// Programs and tables that were there already, for one run.
pub(super) struct CachedGate {
    gate: PinnedDatapath,
    /// The counters go on from run to run: what they were when this one began.
    before: (u64, DedupCounts),
    _lock: Flock<File>,
}

impl CachedGate {
    /// Takes the programs that are pinned, or pins them first. `None` where they are in use, or cannot be
    /// kept; `is_alive` is asked with the ids of the cgroups that they are attached to.
    pub(super) fn take(is_alive: impl Fn(u64) -> bool) -> Option<CachedGate> {
        // Other programs are wanted than those that everybody has.
        if std::env::var_os(RING_BYTES_VARIABLE).is_some() {
            return None;
        }
        match CachedGate::try_take(is_alive) {
            Ok(gate) => gate,
            Err(error) => {
                tracing::debug!(%error, "programs are not kept between runs");
                None
            }
        }
    }

    fn try_take(is_alive: impl Fn(u64) -> bool) -> Result<Option<CachedGate>, DatapathError> {
        let folder = folder()?;
        let ours = pins::own_folder()?;
        let gate = {
            // One makes them at a time, and nobody takes them away meanwhile.
            let Some(_making) = pins::lock(&ours).map_err(pinned::at("lock", &ours))? else {
                return Ok(None);
            };
            sweep(&is_alive);
            let gate = PinnedDatapath::open_or_make_at(folder.clone(), WakeUp::EachRecord)?;
            let lock = pins::lock(&folder).map_err(pinned::at("lock", &folder))?;
            lock.map(|lock| (gate, lock))
        };
        let Some((gate, lock)) = gate else {
            return Ok(None);
        };
        for cgroup in gate.cgroups()? {
            if is_alive(cgroup) {
                return Ok(None);
            }
            gate.detach(cgroup)?;
        }
        gate.forget_cgroups()?;
        // Whatever an earlier run did not read is nothing to this one.
        let read = |error: TableError| DatapathError::Table(Box::new(error));
        gate.events()
            .map_err(|error| DatapathError::Ring(Box::new(error)))?
            .drain(|_| {});
        let before = (gate.lost().map_err(read)?, gate.dedup_counts().map_err(read)?);
        Ok(Some(CachedGate {
            gate,
            before,
            _lock: lock,
        }))
    }

    /// Puts policies live, each in a slot of its own.
    ///
    /// # Errors
    /// [`TableError`].
    pub(super) fn install(&self, images: &[&Image]) -> Result<Vec<Slot>, TableError> {
        let slots: Vec<Slot> = (0..).map(Slot).take(images.len()).collect();
        let each: Vec<(Slot, &Image)> = slots.iter().copied().zip(images.iter().copied()).collect();
        self.gate.put(&each)?;
        Ok(slots)
    }

    /// Puts a cgroup under the policies of a scope, from one moment on.
    ///
    /// # Errors
    /// [`AttachError`]; nothing stays attached then.
    pub(super) fn attach(
        &self,
        cgroup: BorrowedFd<'_>,
        scope: &Scope,
        empty: &Scope,
    ) -> Result<(), AttachError> {
        let attached = self
            .gate
            .prepare(cgroup, empty, scope.hooks())
            .and_then(|()| self.gate.write_scope(scope).map_err(AttachError::Scope));
        if attached.is_err() {
            // The error that matters is the first one.
            let _ = self.gate.detach(scope.cgroup);
        }
        attached
    }

    /// Takes the programs away from a cgroup.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub(super) fn detach(&self, cgroup: u64) -> Result<(), DatapathError> {
        self.gate.detach(cgroup)
    }

    /// Whether packets can be judged here.
    pub(super) fn has_egress_filter(&self) -> bool {
        self.gate.has_egress_filter()
    }

    /// Whether unix sockets can be judged here.
    pub(super) fn has_unix(&self) -> bool {
        self.gate.has_unix()
    }

    /// The stream of events.
    ///
    /// # Errors
    /// [`RingError`].
    pub(super) fn events(&self) -> Result<EventRing, RingError> {
        self.gate.events()
    }

    /// Counters of a live policy.
    ///
    /// # Errors
    /// [`TableError`].
    pub(super) fn counters(&self, slot: Slot) -> Result<Vec<u64>, TableError> {
        self.gate
            .live(slot)?
            .ok_or(TableError::Empty { slot })?
            .counters()
    }

    /// Events that earlier runs lost: records count from there.
    pub(super) fn lost_before(&self) -> u64 {
        self.before.0
    }

    /// Events lost in the ring so far, those of earlier runs included.
    ///
    /// # Errors
    /// [`TableError`].
    pub(super) fn lost(&self) -> Result<u64, TableError> {
        self.gate.lost()
    }

    /// What was folded in this run.
    ///
    /// # Errors
    /// [`TableError`].
    pub(super) fn dedup_counts(&self) -> Result<DedupCounts, TableError> {
        let now = self.gate.dedup_counts()?;
        Ok(DedupCounts {
            folded: now.folded - self.before.1.folded,
            told: now.told - self.before.1.told,
        })
    }
}

/// The folder for the programs of this build, as they are told about this kernel.
fn folder() -> Result<PathBuf, DatapathError> {
    let mut hasher = DefaultHasher::new();
    std::env::var_os(DISABLE_VARIABLE).hash(&mut hasher);
    let name = format!("{}{:016x}", of_this_build(), hasher.finish());
    Ok(pins::own_folder()?.join(name))
}

/// What the names of this build's folders begin with: one for each thing that [`DISABLE_VARIABLE`] has said.
fn of_this_build() -> String {
    format!("{PREFIX}{ABI_VERSION}-{OBJECT_HASH}-")
}

/// Removes programs of other builds that nobody uses.
fn sweep(is_alive: impl Fn(u64) -> bool) {
    let ours = of_this_build();
    for folder in loaded() {
        let name = folder.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.starts_with(&ours)) {
            remove_if_idle(&folder, &is_alive);
        }
    }
}

/// Takes away the links of cgroups that are gone, whoever uses the programs now.
pub(super) fn sweep_links(is_alive: impl Fn(u64) -> bool) -> Result<usize, DatapathError> {
    let mut swept = 0;
    for folder in loaded() {
        for cgroup in links::cgroups_of(&folder)? {
            if !is_alive(cgroup) {
                links::detach_from(&folder, cgroup)?;
                swept += 1;
            }
        }
    }
    Ok(swept)
}

/// Removes all programs that are kept, where nobody uses them.
pub(super) fn remove_idle() {
    for folder in loaded() {
        // A cgroup that cannot be asked about counts as alive.
        remove_if_idle(&folder, |_| true);
    }
}

fn loaded() -> Vec<PathBuf> {
    let parent = pins::own_folder().ok();
    let entries = parent.and_then(|parent| fs::read_dir(parent).ok());
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let is_loaded = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(PREFIX))
    };
    names.filter(is_loaded).collect()
}

fn remove_if_idle(folder: &Path, is_alive: impl Fn(u64) -> bool) {
    let Ok(Some(_lock)) = pins::lock(folder) else {
        return;
    };
    let in_use = match PinnedDatapath::open_at(folder.to_owned()) {
        Ok(Some(gate)) => gate.cgroups().map_or(true, |all| all.into_iter().any(is_alive)),
        _ => false,
    };
    if !in_use && let Err(error) = pinned::remove_all(folder) {
        tracing::debug!(%error, "programs that nobody uses stay loaded");
    }
}
