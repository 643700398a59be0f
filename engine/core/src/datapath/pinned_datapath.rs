//! A set of programs, maps and links, pinned in one directory. It enforces without any process, and can be opened by its
//! directory.
//!
//! ```text
//! <directory>/   maps/<NAME>   programs/<name>   links/<cgroup id>/<program>   links/<group>/<program>   superseded/<slot>
//! ```
//! Attached policies have the set `<bpffs>/tidegate/attached-<ABI>`; runs of `exec` have others ([`super::RunDatapath`]).
//! What is enforced on a cgroup is switched by its scope alone: programs are attached while the scope names no policy
//! (everything passes), and one write of the scope activates or deactivates a policy.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::maps::{Map, MapData};
use engine_common::{ABI_VERSION, scope::Scope};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{
    canary::Calls,
    error::{DatapathError, RingError, TableError},
    features::Features,
    links,
    load::{LoadOptions, Loaded, WakeUp, load},
    maps::{DedupCounts, LiveImage, Slot, Tables},
    pin_directory::{self, at},
    program_group::{GROUPS, GroupName},
    ring::EventRing,
    run_datapath, syscall,
    task_scopes::TaskScopes,
};
use crate::{compile::Image, instance::Instance};

/// Maps that are pinned. The programs hold the others.
const MAPS: [&str; 8] = [
    "IMAGES",
    "SCOPES",
    "TASK_SCOPES",
    "TASK_LEVELS",
    "EVENTS",
    "LOSSES",
    "DEDUP",
    "DEDUP_COUNTS",
];

/// Prefixes of the names of sets of attached policies; the ABI version follows. The first one is used now, the others by
/// older builds.
const ATTACHED: [&str; 2] = ["attached-", "standing-"];

/// A pinned set. Dropping it changes nothing in the kernel.
pub struct PinnedDatapath {
    pub(super) directory: PathBuf,
    tables: Tables,
    scopes: OwnedFd,
    pub(super) tasks: TaskScopes,
}

impl PinnedDatapath {
    /// Opens the set of attached policies; `None` where there is none. Changes nothing.
    ///
    /// # Errors
    /// [`DatapathError::Open`] when the set is damaged.
    pub fn open(instance: &Instance) -> Result<Option<PinnedDatapath>, DatapathError> {
        match pin_directory::existing_directory(instance) {
            Some(own) => PinnedDatapath::open_at(own.join(attached_name())),
            None => Ok(None),
        }
    }

    /// Opens the set of attached policies, and loads and pins it first where there is none. The caller makes sure that no
    /// other process does so at the same time.
    ///
    /// # Errors
    /// [`DatapathError`]; then nothing is left pinned.
    pub fn open_or_make(instance: &Instance) -> Result<PinnedDatapath, DatapathError> {
        let directory = pin_directory::own_directory(instance)?.join(attached_name());
        let options = || LoadOptions {
            features: Features::detect(&instance.disabled),
            wake: WakeUp::Batched,
            ring_bytes: instance.ring_bytes,
        };
        PinnedDatapath::open_or_make_at(directory, options)
    }

    pub(super) fn open_or_make_at(
        directory: PathBuf,
        options: impl FnOnce() -> LoadOptions,
    ) -> Result<PinnedDatapath, DatapathError> {
        if let Some(datapath) = PinnedDatapath::open_at(directory.clone())? {
            return Ok(datapath);
        }
        // Pinned under another name and renamed when complete.
        let draft = draft_of(&directory);
        pin_directory::remove_tree(&draft)?;
        let made = pin_all(&draft, options())
            .and_then(|()| fs::rename(&draft, &directory).map_err(at("move", &draft)));
        if let Err(error) = made {
            // The first error is the one to report.
            let _ = pin_directory::remove_tree(&draft);
            return Err(error);
        }
        PinnedDatapath::open_made(directory)
    }

    /// Loads a set and pins it in a directory of its own, which may exist.
    pub(super) fn make_at(directory: PathBuf, options: LoadOptions) -> Result<PinnedDatapath, DatapathError> {
        pin_all(&directory, options)?;
        PinnedDatapath::open_made(directory)
    }

    fn open_made(directory: PathBuf) -> Result<PinnedDatapath, DatapathError> {
        let opened = PinnedDatapath::open_at(directory.clone())?;
        opened.ok_or_else(|| at("open", &directory)(io::ErrorKind::NotFound.into()))
    }

    pub(super) fn open_at(directory: PathBuf) -> Result<Option<PinnedDatapath>, DatapathError> {
        if !directory.is_dir() {
            return Ok(None);
        }
        let maps = directory.join("maps");
        let open = |name: &str| -> Result<MapData, DatapathError> {
            let path = maps.join(name);
            MapData::from_pin(&path).map_err(|source| DatapathError::Open {
                path,
                source: Box::new(source),
            })
        };
        let owned = |name: &str| {
            let map = open(name)?.fd().as_fd().try_clone_to_owned();
            map.map_err(at("open", &maps))
        };
        Ok(Some(PinnedDatapath {
            tables: Tables::new(owned("IMAGES")?, open("LOSSES")?, open("DEDUP_COUNTS")?)?,
            scopes: owned("SCOPES")?,
            tasks: TaskScopes::new(owned("TASK_SCOPES")?, owned("TASK_LEVELS")?),
            directory,
        }))
    }

    /// Removes the set of attached policies, even if it is damaged; whether there was one. Its policies are not enforced any
    /// more. [`remove_leftovers`](Self::remove_leftovers) frees its pins, once the records of the policies are removed.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when a pin cannot be removed.
    pub fn remove(instance: &Instance) -> Result<bool, DatapathError> {
        let Some(own) = pin_directory::existing_directory(instance) else {
            return Ok(false);
        };
        let directory = own.join(attached_name());
        let existed = directory.is_dir();
        match detach_set(&directory)? {
            // Its readers are told that it has ended.
            Detached::Kept => {
                let events = events_of(&directory);
                pin_directory::ignore_missing(fs::remove_file(&events)).map_err(at("remove", &events))?;
                run_datapath::take_over(&own, &directory)?;
            }
            // At once, so that no set is ever found of which a part is removed.
            Detached::All if existed => {
                let draft = draft_of(&directory);
                pin_directory::remove_tree(&draft)?;
                fs::rename(&directory, &draft).map_err(at("move", &directory))?;
            }
            Detached::All => {}
        }
        Ok(existed)
    }

    /// Removes what [`remove`](Self::remove) moved away, what a command left that was killed while it loaded programs, and
    /// sets that `exec` keeps for its next run.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when a pin cannot be removed.
    pub fn remove_leftovers(instance: &Instance) -> Result<(), DatapathError> {
        let Some(own) = pin_directory::existing_directory(instance) else {
            return Ok(());
        };
        pin_directory::remove_tree(&draft_of(&own.join(attached_name())))?;
        run_datapath::remove_idle(instance);
        // Fails while runs of `exec` have sets in it.
        let _ = fs::remove_dir(own);
        Ok(())
    }

    /// Whether the kernel accepted the programs of a group.
    pub fn has(&self, group: GroupName) -> bool {
        group
            .row()
            .programs
            .iter()
            .any(|program| self.program(program.name).exists())
    }

    /// Whether the kernel calls the programs.
    pub fn calls(&self) -> Calls {
        let canaries = GROUPS.iter().filter_map(|row| {
            let canary = row.canary(|program| self.program(program.name).exists())?;
            Some((row.name, canary))
        });
        Calls::of(canaries.collect())
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join("programs").join(name)
    }

    /// Puts images live, each in its slot, atomically: each decision is made by one image. When this returns no program uses
    /// the previous ones any more.
    ///
    /// # Errors
    /// [`TableError`] when the kernel refuses a map; slots already written stay written.
    pub fn put(&self, images: &[(Slot, &Image)]) -> Result<(), TableError> {
        match images {
            [] => Ok(()),
            [(slot, image)] => self.tables.put(*slot, image),
            many => self.tables.put_all(many),
        }
    }

    /// Empties a slot that no scope refers to.
    ///
    /// # Errors
    /// [`TableError::Io`] when the kernel refuses.
    pub fn clear(&self, slot: Slot) -> Result<(), TableError> {
        self.tables.clear(slot)
    }

    /// The image in a slot; `None` where the slot is empty.
    ///
    /// # Errors
    /// [`TableError::Io`] when the kernel refuses.
    pub fn live(&self, slot: Slot) -> Result<Option<LiveImage>, TableError> {
        self.tables.live(slot)
    }

    /// Events lost because the ring was full, since the programs were loaded.
    ///
    /// # Errors
    /// [`TableError::Map`] when the kernel refuses.
    pub fn lost(&self) -> Result<u64, TableError> {
        self.tables.lost()
    }

    /// Duplicate events that were suppressed, since the programs were loaded.
    ///
    /// # Errors
    /// [`TableError::Map`] when the kernel refuses.
    pub fn dedup_counts(&self) -> Result<DedupCounts, TableError> {
        self.tables.dedup_counts()
    }

    /// The stream of events. One reader at a time: a record that one has read no other gets.
    ///
    /// # Errors
    /// [`RingError`] when it cannot be mapped.
    pub fn events(&self) -> Result<EventRing, RingError> {
        let map = MapData::from_pin(events_of(&self.directory))?;
        EventRing::of(Map::RingBuf(map))
    }

    /// A descriptor that is readable (poll) once the set is removed: then no more events come.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when inotify is not available.
    pub fn end(&self) -> Result<impl AsFd + use<>, DatapathError> {
        let path = events_of(&self.directory);
        let watched = Inotify::init(InitFlags::IN_CLOEXEC).and_then(|inotify| {
            inotify.add_watch(&path, AddWatchFlags::IN_DELETE_SELF)?;
            Ok(inotify)
        });
        watched.map_err(|errno| at("watch", &path)(errno.into()))
    }

    /// The policies of a cgroup; `None` where it has no link.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn scope(&self, cgroup: u64) -> io::Result<Option<Scope>> {
        syscall::read_scope(self.scopes.as_fd(), cgroup)
    }

    /// Writes the policies of a cgroup, atomically. Its programs must be attached ([`PinnedDatapath::prepare`]).
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn write_scope(&self, scope: &Scope) -> io::Result<()> {
        // The scope by socket first: recovery treats it as the reference, and most verdicts depend on it.
        syscall::write_scope(self.scopes.as_fd(), scope)?;
        self.tasks.write(scope)
    }

    /// Keeps the image in a slot for its counters, whatever is put into the slot next: until
    /// [`PinnedDatapath::forget_superseded`]. Survives the death of the process.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when it cannot be pinned.
    pub fn keep_superseded(&self, slot: Slot) -> Result<(), DatapathError> {
        let path = self.superseded_pin(slot);
        let map = self.tables.inner(slot).map_err(at("open", &path))?;
        pin_directory::ignore_missing(fs::remove_file(&path)).map_err(at("remove", &path))?;
        syscall::pin(map.as_fd(), &path).map_err(at("pin", &path))
    }

    /// The image that [`PinnedDatapath::keep_superseded`] kept, if there is one.
    pub fn superseded(&self, slot: Slot) -> Option<LiveImage> {
        let map = syscall::open_pin(&self.superseded_pin(slot)).ok()?;
        Some(LiveImage::of(map, slot))
    }

    /// Releases the image that was kept.
    ///
    /// # Errors
    /// [`DatapathError::Io`] when the pin cannot be removed.
    pub fn forget_superseded(&self, slot: Slot) -> Result<(), DatapathError> {
        let path = self.superseded_pin(slot);
        pin_directory::ignore_missing(fs::remove_file(&path)).map_err(at("remove", &path))
    }

    fn superseded_pin(&self, slot: Slot) -> PathBuf {
        self.directory.join("superseded").join(slot.0.to_string())
    }
}

/// The pin of the event ring.
fn events_of(directory: &Path) -> PathBuf {
    directory.join("maps/EVENTS")
}

/// The BPF file system accepts no names with dots.
fn draft_of(directory: &Path) -> PathBuf {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    directory.with_file_name(format!("{name}-draft"))
}

fn attached_name() -> String {
    format!("{}{ABI_VERSION}", ATTACHED[0])
}

/// Directories of the sets that other versions of tidegate have pinned for attached policies.
///
/// # Errors
/// [`DatapathError::Io`] when the directory of pins cannot be read.
pub fn other_versions(instance: &Instance) -> Result<Vec<PathBuf>, DatapathError> {
    let Some(own) = pin_directory::existing_directory(instance) else {
        return Ok(Vec::new());
    };
    let is_set = |name: &String| {
        let version = ATTACHED.iter().find_map(|prefix| name.strip_prefix(prefix));
        version.is_some_and(|version| version.parse::<u32>().is_ok())
    };
    let mut others = pin_directory::names(&own)?;
    others.retain(|name| is_set(name) && *name != attached_name());
    Ok(others.iter().map(|name| own.join(name)).collect())
}

/// Loads everything and pins it in a directory.
fn pin_all(directory: &Path, options: LoadOptions) -> Result<(), DatapathError> {
    let Loaded { ebpf, programs } = load(options)?;
    let mut ebpf = ebpf;
    for name in ["", "maps", "programs", "links", "superseded"] {
        pin_directory::make(&directory.join(name))?;
    }
    let pinned = |path: &Path, result| match result {
        Ok(()) => Ok(()),
        Err(source) => Err(DatapathError::Pin {
            path: path.to_owned(),
            source: Box::new(source),
        }),
    };
    for name in MAPS {
        let path = directory.join("maps").join(name);
        let map = ebpf.map(name).ok_or(DatapathError::Missing(name))?;
        pinned(&path, map.pin(&path))?;
    }
    for spec in programs {
        let path = directory.join("programs").join(spec.name);
        let program = ebpf.program_mut(spec.name);
        let program = program.ok_or(DatapathError::Missing(spec.name))?;
        pinned(&path, program.pin(&path))?;
    }
    Ok(())
}

/// What is left of a set whose links were removed.
enum Detached {
    /// Nothing of it is attached.
    All,
    /// Programs that must stay attached, without cgroups.
    Kept,
}

/// Removes a set with all its pins, even if it cannot be opened; or keeps it for programs that must stay attached: then the
/// next removal tries again.
pub(super) fn remove_set(directory: &Path) -> Result<(), DatapathError> {
    match detach_set(directory)? {
        Detached::All => pin_directory::remove_tree(directory),
        Detached::Kept => Ok(()),
    }
}

/// Removes the links of a set. Of each cgroup what enforces goes first: what is left meanwhile lets everything pass. While
/// programs must stay attached that the whole machine calls, the set is kept for them, without cgroups.
fn detach_set(directory: &Path) -> Result<Detached, DatapathError> {
    for cgroup in links::cgroups_of(directory)? {
        links::detach_from(directory, cgroup)?;
    }
    let (staying, going): (Vec<_>, Vec<_>) = GROUPS.iter().partition(|row| links::must_stay(directory, row));
    for row in going {
        links::remove_global_links(directory, row)?;
    }
    // A set that cannot be opened cannot be kept without its cgroups.
    if !staying.is_empty()
        && let Ok(Some(set)) = PinnedDatapath::open_at(directory.to_owned())
    {
        set.forget_cgroups()?;
        return Ok(Detached::Kept);
    }
    for row in staying {
        links::remove_global_links(directory, row)?;
    }
    Ok(Detached::All)
}
