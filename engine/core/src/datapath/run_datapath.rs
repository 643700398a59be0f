//! The programs of one run: of a command under `exec`, of a self-test.
//!
//! A run takes the set of programs that earlier runs left loaded, since the verifier takes a tenth of a second and more for
//! them and everything else a few milliseconds. That set is used by one run at a time: its maps and its ring belong to
//! that run. A run that finds it in use, also by processes that an earlier run left under its policies, loads a set of its
//! own:
//!
//! ```text
//! <bpffs>/tidegate/loaded-<ABI>-<hash of the object>-<hash of what is disabled>   kept between runs
//! <bpffs>/tidegate/run-<process id>-<count>                                       of one run
//! ```
//! Both are locked (flock) while a run uses them. What a run left behind when it was killed is enforced as long as its
//! cgroup exists, and is removed by a later run ([`sweep`]).

use std::{
    cell::Cell,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use engine_common::{
    ABI_VERSION,
    limits::MAX_POLICIES,
    scope::{HookSet, Scope},
};
use nix::fcntl::Flock;

use super::{
    canary::Calls,
    error::{DatapathError, RingError, TableError},
    features::Features,
    links,
    load::{LoadOptions, OBJECT_HASH, WakeUp},
    maps::{DedupCounts, Slot},
    pin_directory::{self, at},
    pinned_datapath::{PinnedDatapath, remove_set},
    program_group::GroupName,
    ring::EventRing,
    scope,
};
use crate::{compile::Image, instance::Instance, policy::Policy};

const KEPT: &str = "loaded-";
const OWN: &str = "run-";

/// Times that a new directory is created again after a sweep of another run has removed it, and names tried.
const TRIES: u32 = 64;

/// Programs and maps of one run. When it is dropped a set of its own is removed, unless programs are still attached to a
/// cgroup.
pub struct RunDatapath {
    datapath: PinnedDatapath,
    is_own: bool,
    /// The next slot that has no policy of this run.
    next: Cell<u32>,
    /// Counters go on from run to run in a set that is kept: their values when this one began.
    lost_before: u64,
    dedup_before: DedupCounts,
    _lock: Flock<File>,
}

impl RunDatapath {
    /// Takes the set that is kept, if no other run uses it; otherwise loads one. `is_alive` returns whether the
    /// cgroup with an id exists.
    ///
    /// # Errors
    /// [`DatapathError`] when programs cannot be loaded or pinned; the likeliest cause is a missing capability, see
    /// `launch::requirement`.
    pub fn open(
        instance: &Instance,
        features: Features,
        is_alive: impl Fn(u64) -> bool,
    ) -> Result<RunDatapath, DatapathError> {
        // A ring of another size is not worth keeping: it is for tests.
        if instance.ring_bytes.is_none() {
            match kept(instance, features, is_alive) {
                Ok(Some(run)) => return Ok(run),
                Ok(None) => {}
                Err(error) => tracing::debug!(error = ?error, "programs are not kept between runs"),
            }
        }
        RunDatapath::load(instance, features, WakeUp::EachRecord)
    }

    /// Loads a set for this run alone.
    ///
    /// # Errors
    /// [`DatapathError`] when programs cannot be loaded or pinned.
    pub fn load(instance: &Instance, features: Features, wake: WakeUp) -> Result<RunDatapath, DatapathError> {
        let (directory, lock) = new_directory(&pin_directory::own_directory(instance)?)?;
        let options = options(features, wake, instance.ring_bytes);
        let made = PinnedDatapath::make_at(directory.clone(), options)
            .and_then(|datapath| RunDatapath::new(datapath, true, lock));
        if made.is_err() {
            // The first error is the one to report.
            let _ = pin_directory::remove_tree(&directory);
        }
        made
    }

    fn new(datapath: PinnedDatapath, is_own: bool, lock: Flock<File>) -> Result<RunDatapath, DatapathError> {
        Ok(RunDatapath {
            lost_before: datapath.lost()?,
            dedup_before: datapath.dedup_counts()?,
            datapath,
            is_own,
            next: Cell::new(0),
            _lock: lock,
        })
    }

    /// Whether the kernel accepted the programs of a group.
    pub fn has(&self, group: GroupName) -> bool {
        self.datapath.has(group)
    }

    /// Whether the kernel calls the programs, as far as it is to be tried again in each run. LSM programs were tried when the
    /// set was loaded, and their switch can always be read: the name of the set depends on it. That of kprobes often
    /// cannot.
    pub fn calls(&self) -> Calls {
        self.datapath.calls().of_kprobes()
    }

    /// The kinds of hooks that the programs have.
    pub fn hooks(&self) -> HookSet {
        self.datapath.hooks()
    }

    /// Puts policies live, each in a slot of its own. No cgroup refers to them yet.
    ///
    /// # Errors
    /// [`TableError::Full`] when there are too many, or [`TableError::Io`] when the kernel refuses.
    pub fn install(&self, images: &[&Image]) -> Result<Vec<Slot>, TableError> {
        let first = self.next.get();
        if first as usize + images.len() > MAX_POLICIES as usize {
            return Err(TableError::Full);
        }
        let slots: Vec<Slot> = (first..).map(Slot).take(images.len()).collect();
        let each: Vec<(Slot, &Image)> = slots.iter().copied().zip(images.iter().copied()).collect();
        self.datapath.put(&each)?;
        self.next.set(first + images.len() as u32);
        Ok(slots)
    }

    /// Puts another image live in a slot, atomically.
    ///
    /// # Errors
    /// [`TableError::Io`] when the kernel refuses; the old image then stays live.
    pub fn replace(&self, slot: Slot, image: &Image) -> Result<(), TableError> {
        self.datapath.put(&[(slot, image)])
    }

    /// The scope of a cgroup with live policies, each for the hooks that it selects and the programs have. `level` is the
    /// depth of the cgroup, if known. `None` if there are more policies than a cgroup can have.
    pub fn scope(&self, cgroup: u64, level: Option<u32>, policies: &[(Slot, &Policy)]) -> Option<Scope> {
        let filters_packets = self.has(GroupName::EgressFilter);
        scope::of(cgroup, level, policies, self.hooks(), filters_packets)
    }

    /// Activates the policies of a scope on its cgroup, atomically. Of the flags only [`Scope::STRICT`] is used; the others
    /// follow from the policies.
    ///
    /// # Errors
    /// [`DatapathError`] when a program cannot be attached or the scope not be written; then nothing stays attached.
    pub fn attach(&self, cgroup: BorrowedFd<'_>, scope: &Scope) -> Result<(), DatapathError> {
        let empty = scope.without_policies();
        let scope = scope.with_flags();
        let attached = self
            .datapath
            .prepare(cgroup, &empty, scope.hooks())
            .and_then(|()| {
                let written = self.datapath.write_scope(&scope);
                written.map_err(|source| DatapathError::Scope {
                    step: "write",
                    source,
                })
            });
        if attached.is_err() {
            // The first error is the one to report.
            let _ = self.datapath.detach(scope.cgroup);
        }
        attached
    }

    /// Detaches the programs from a cgroup. Only after the cgroup was removed: as long as it exists, its processes stay
    /// under the policies.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when a link cannot be removed.
    pub fn detach(&self, cgroup: u64) -> Result<(), DatapathError> {
        self.datapath.detach(cgroup)
    }

    /// The stream of events.
    ///
    /// # Errors
    /// [`RingError`] when it cannot be mapped.
    pub fn events(&self) -> Result<EventRing, RingError> {
        self.datapath.events()
    }

    /// Events that earlier runs lost: the count in records goes on from there.
    pub fn lost_before(&self) -> u64 {
        self.lost_before
    }

    /// Events lost in the ring, those of earlier runs included.
    ///
    /// # Errors
    /// [`TableError::Map`] when the kernel refuses.
    pub fn lost(&self) -> Result<u64, TableError> {
        self.datapath.lost()
    }

    /// Duplicate events that were suppressed in this run.
    ///
    /// # Errors
    /// [`TableError::Map`] when the kernel refuses.
    pub fn dedup_counts(&self) -> Result<DedupCounts, TableError> {
        let now = self.datapath.dedup_counts()?;
        Ok(DedupCounts {
            suppressed: now.suppressed - self.dedup_before.suppressed,
            reported: now.reported - self.dedup_before.reported,
        })
    }

    /// Counters of a live policy: one for each rule in order, then the default, then faults.
    ///
    /// # Errors
    /// [`TableError`] when the slot is empty or cannot be read.
    pub fn counters(&self, slot: Slot) -> Result<Vec<u64>, TableError> {
        let live = self.datapath.live(slot)?;
        live.ok_or(TableError::Empty { slot })?.counters()
    }
}

impl Drop for RunDatapath {
    fn drop(&mut self) {
        if !self.is_own {
            return;
        }
        let removed = match self.datapath.cgroups() {
            Ok(cgroups) if cgroups.is_empty() => remove_set(&self.datapath.directory),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::warn!(error = ?error, "the programs of this run stay loaded; the next run tries again");
        }
    }
}

/// The cgroup of a run is removed only with its processes, and nothing can leave it (`launch::isolation`).
fn options(features: Features, wake: WakeUp, ring_bytes: Option<u32>) -> LoadOptions {
    LoadOptions {
        features: Features {
            groups: features.groups.without(GroupName::Migration),
            ..features
        },
        wake,
        ring_bytes,
    }
}

/// The set that is kept, loaded first where there is none. `None` where it is in use.
fn kept(
    instance: &Instance,
    features: Features,
    is_alive: impl Fn(u64) -> bool,
) -> Result<Option<RunDatapath>, DatapathError> {
    let own = pin_directory::own_directory(instance)?;
    let directory = own.join(kept_name(instance, features));
    let taken = {
        // One process loads them at a time, and none removes them meanwhile.
        let Some(_making) = pin_directory::lock(&own).map_err(at("lock", &own))? else {
            return Ok(None);
        };
        remove_other_builds(&own, &is_alive);
        let options = || options(features, WakeUp::EachRecord, None);
        let datapath = PinnedDatapath::open_or_make_at(directory.clone(), options)?;
        let lock = pin_directory::lock(&directory).map_err(at("lock", &directory))?;
        lock.map(|lock| (datapath, lock))
    };
    let Some((datapath, lock)) = taken else {
        return Ok(None);
    };
    for cgroup in datapath.cgroups()? {
        if is_alive(cgroup) {
            return Ok(None);
        }
        datapath.detach(cgroup)?;
    }
    datapath.forget_cgroups()?;
    // What an earlier run did not read does not belong to this one.
    datapath.events()?.drain(|_| {});
    RunDatapath::new(datapath, false, lock).map(Some)
}

/// The name of the set that is kept, for this build, what is disabled, and what the kernel can do now: some of it changes
/// while the machine runs (`kernel.ftrace_enabled`).
fn kept_name(instance: &Instance, features: Features) -> String {
    let mut hasher = DefaultHasher::new();
    instance.disabled.hash(&mut hasher);
    features.groups.hash(&mut hasher);
    features.tracer.hash(&mut hasher);
    format!("{}{:016x}", kept_by_this_build(), hasher.finish())
}

fn kept_by_this_build() -> String {
    format!("{KEPT}{ABI_VERSION}-{OBJECT_HASH}-")
}

/// Makes a set that could not be removed one of a run that is over: a later run removes it.
pub(super) fn take_over(own: &Path, set: &Path) -> Result<(), DatapathError> {
    let free = (0..TRIES).map(|count| own.join(format!("{OWN}0-{count}")));
    let free = free.into_iter().find(|directory| !directory.exists());
    let Some(free) = free else {
        return Err(at("create a directory in", own)(
            io::ErrorKind::AlreadyExists.into(),
        ));
    };
    fs::rename(set, &free).map_err(at("move", set))
}

/// A new directory for the set of one run, locked.
fn new_directory(own: &Path) -> Result<(PathBuf, Flock<File>), DatapathError> {
    let process = std::process::id();
    // Process ids are those of a namespace: another process may have the same one.
    for count in 0..TRIES {
        let directory = own.join(format!("{OWN}{process}-{count}"));
        if directory.exists() {
            continue;
        }
        pin_directory::make(&directory)?;
        match pin_directory::lock(&directory) {
            Ok(Some(lock)) if is_empty(&directory) => return Ok((directory, lock)),
            // Another run has taken the name, or its sweep has taken the empty directory for a left-over.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at("lock", &directory)(error)),
        }
    }
    Err(at("create a directory in", own)(
        io::ErrorKind::AlreadyExists.into(),
    ))
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// Removes what earlier runs left behind and whose cgroup is gone, and returns the number of cgroups whose links were
/// removed; `is_alive` returns whether the cgroup with an id exists. What is attached to an existing cgroup stays in
/// effect.
///
/// # Errors
/// [`DatapathError::Io`] when a pin cannot be removed.
pub fn sweep(instance: &Instance, is_alive: impl Fn(u64) -> bool) -> Result<usize, DatapathError> {
    let Some(own) = pin_directory::existing_directory(instance) else {
        return Ok(0);
    };
    let detach_removed = |directory: &Path| -> Result<usize, DatapathError> {
        let mut cgroups = links::cgroups_of(directory)?;
        cgroups.retain(|&cgroup| !is_alive(cgroup));
        for &cgroup in &cgroups {
            links::detach_from(directory, cgroup)?;
        }
        Ok(cgroups.len())
    };
    let mut swept = 0;
    for directory in sets(&own, KEPT)? {
        swept += detach_removed(&directory)?;
    }
    for directory in sets(&own, OWN)? {
        // While the lock is held its run is not over. Here it is held until the directory is gone.
        let Ok(Some(_lock)) = pin_directory::lock(&directory) else {
            continue;
        };
        swept += detach_removed(&directory)?;
        if links::cgroups_of(&directory)?.is_empty() {
            remove_set(&directory)?;
        }
    }
    Ok(swept)
}

/// Removes all sets of runs that are not in use.
pub(super) fn remove_idle(instance: &Instance) {
    let Some(own) = pin_directory::existing_directory(instance) else {
        return;
    };
    for prefix in [KEPT, OWN] {
        for directory in sets(&own, prefix).unwrap_or_default() {
            // If the hierarchy cannot be read, every cgroup counts as existing.
            remove_if_idle(&directory, |_| true);
        }
    }
}

fn remove_other_builds(own: &Path, is_alive: impl Fn(u64) -> bool) {
    let this = kept_by_this_build();
    for directory in sets(own, KEPT).unwrap_or_default() {
        let name = directory.file_name().and_then(|name| name.to_str());
        if !name.is_some_and(|name| name.starts_with(&this)) {
            remove_if_idle(&directory, &is_alive);
        }
    }
}

fn sets(own: &Path, prefix: &str) -> Result<Vec<PathBuf>, DatapathError> {
    let names = pin_directory::names(own)?.into_iter();
    let names = names.filter(|name| name.starts_with(prefix));
    Ok(names.map(|name| own.join(name)).collect())
}

fn remove_if_idle(directory: &Path, is_alive: impl Fn(u64) -> bool) {
    let Ok(Some(_lock)) = pin_directory::lock(directory) else {
        return;
    };
    let in_use = links::cgroups_of(directory).map_or(true, |all| all.into_iter().any(is_alive));
    if !in_use && let Err(error) = remove_set(directory) {
        tracing::debug!(error = ?error, "programs that no run uses stay loaded");
    }
}
