//! The gate of standing policies: programs, tables and links pinned below one folder. Every command
//! opens it there, and nobody of us has to stay alive.
//!
//! ```text
//! <bpffs>/tidegate/standing-<ABI>/   maps/<NAME>  programs/<name>  links/<cgroup id>/<name>  retiring/<slot>
//! ```
//! The programs of a cgroup are switched by its scope alone: they are attached while the scope names no
//! policy (everything passes), and one write of it puts a policy in force, or takes it away.

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    maps::{Map, MapData, MapError},
    pin::PinError,
};
use engine_common::{ABI_VERSION, scope::Scope};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use thiserror::Error;

use super::{
    features::Features,
    gate::{self, LoadError, Loaded, WakeUp},
    links::{cgroups_of, detach_from},
    lsm, migration,
    pins::{self, PinsError},
    program::{self, FLOOR, MOVES},
    ring::{EventRing, RingError},
    syscall,
    tables::{DedupCounts, LiveImage, Slot, TableError, Tables},
    task_scopes::TaskScopes,
    tracer,
};
use crate::compile::Image;

/// Maps that are pinned. The others are held by the programs.
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

/// Why the pinned gate could not be made or opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatapathError {
    /// There is no place for pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The programs could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Something could not be pinned.
    #[error("cannot pin {}", path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<PinError>,
    },
    /// A pinned map could not be opened.
    #[error("cannot open the pinned table {}; was it removed by hand?", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// A map is not of the kind it should be.
    #[error("a pinned table is not one of ours")]
    Map(#[from] MapError),
    /// A table could not be read.
    #[error(transparent)]
    Table(Box<TableError>),
    /// The ring could not be opened.
    #[error(transparent)]
    Ring(Box<RingError>),
    /// A folder or pin could not be read, moved or removed.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The pinned gate.
pub struct PinnedDatapath {
    pub(super) folder: PathBuf,
    tables: Tables,
    scopes: OwnedFd,
    pub(super) tasks: TaskScopes,
}

impl PinnedDatapath {
    /// Opens the gate that is pinned; `None` where there is none.
    ///
    /// # Errors
    /// [`DatapathError`].
    pub fn open() -> Result<Option<PinnedDatapath>, DatapathError> {
        PinnedDatapath::open_at(folder()?)
    }

    pub(super) fn open_at(folder: PathBuf) -> Result<Option<PinnedDatapath>, DatapathError> {
        if !folder.is_dir() {
            return Ok(None);
        }
        let maps = folder.join("maps");
        let open = |name: &str| -> Result<MapData, DatapathError> {
            let path = maps.join(name);
            MapData::from_pin(&path).map_err(|source| DatapathError::Open {
                path,
                source: Box::new(source),
            })
        };
        let tables = Tables::of(|name| {
            let map = open(name)?;
            Ok::<Map, DatapathError>(match name {
                "IMAGES" => Map::ArrayOfMaps(map),
                _ => Map::Array(map),
            })
        })?;
        let owned = |name: &str| {
            let map = open(name)?.fd().as_fd().try_clone_to_owned();
            map.map_err(at("open", &maps))
        };
        let scopes = owned("SCOPES")?;
        let tasks = TaskScopes::new(owned("TASK_SCOPES")?, owned("TASK_LEVELS")?);
        Ok(Some(PinnedDatapath {
            tasks,
            folder,
            tables,
            scopes,
        }))
    }

    /// Opens the gate, and makes it first where there is none. The caller makes sure that nobody else
    /// does at the same time.
    ///
    /// # Errors
    /// [`DatapathError`]; nothing is left pinned then.
    pub fn open_or_make() -> Result<PinnedDatapath, DatapathError> {
        PinnedDatapath::open_or_make_at(folder()?, WakeUp::AtLeisure)
    }

    pub(super) fn open_or_make_at(folder: PathBuf, wake: WakeUp) -> Result<PinnedDatapath, DatapathError> {
        if let Some(gate) = PinnedDatapath::open_at(folder.clone())? {
            return Ok(gate);
        }
        // Made beside its place and moved there whole: a gate that is there is complete.
        // The BPF file system takes no names with dots.
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let draft = folder.with_file_name(format!("{name}-draft"));
        remove_all(&draft)?;
        let made = make(&draft, wake).and_then(|()| fs::rename(&draft, &folder).map_err(at("move", &draft)));
        if let Err(error) = made {
            // The error that matters is the first one.
            let _ = remove_all(&draft);
            return Err(error);
        }
        PinnedDatapath::open_at(folder.clone())?.ok_or_else(|| DatapathError::Io {
            step: "open",
            path: folder,
            source: io::ErrorKind::NotFound.into(),
        })
    }

    /// Removes the gate with all that is pinned, also one that cannot be opened; whether there was one.
    /// Nothing is enforced any more.
    ///
    /// # Errors
    /// [`DatapathError::Io`].
    pub fn remove() -> Result<bool, DatapathError> {
        let folder = folder()?;
        let was_there = folder.is_dir();
        // Links first, and of each cgroup what enforces first: what is left meanwhile lets pass.
        for cgroup in cgroups_of(&folder)? {
            detach_from(&folder, cgroup)?;
        }
        lsm::detach(&folder)?;
        tracer::detach(&folder)?;
        migration::detach(&folder)?;
        remove_all(&folder)?;
        super::cache::remove_idle();
        // Best effort: runs of `exec` may have theirs beside it.
        if let Some(parent) = folder.parent() {
            let _ = fs::remove_dir(parent.join("exec"));
            let _ = fs::remove_dir(parent);
        }
        Ok(was_there)
    }

    /// Puts images live, each in its slot. No decision is taken by a mixture of two.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn put(&self, images: &[(Slot, &Image)]) -> Result<(), TableError> {
        match images {
            [] => Ok(()),
            [(slot, image)] => self.tables.put(*slot, image),
            many => self.tables.put_all(many),
        }
    }

    /// Empties a slot that no scope refers to any more.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn clear(&self, slot: Slot) -> Result<(), TableError> {
        self.tables.clear(slot)
    }

    /// What is live in a slot.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn live(&self, slot: Slot) -> Result<Option<LiveImage>, TableError> {
        self.tables.live(slot)
    }

    /// Events lost because the ring was full.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn lost(&self) -> Result<u64, TableError> {
        self.tables.lost()
    }

    /// What was folded.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn dedup_counts(&self) -> Result<DedupCounts, TableError> {
        self.tables.dedup_counts()
    }

    /// The stream of events.
    ///
    /// # Errors
    /// [`DatapathError`] or [`RingError`], as text says.
    pub fn events(&self) -> Result<EventRing, RingError> {
        let map = MapData::from_pin(self.folder.join("maps/EVENTS"))?;
        EventRing::of(Map::RingBuf(map))
    }

    /// Readable (poll) once the gate is removed: no more events come then.
    ///
    /// # Errors
    /// [`DatapathError::Io`].
    pub fn end(&self) -> Result<impl AsFd + use<>, DatapathError> {
        let path = self.folder.join("maps/EVENTS");
        let watched = Inotify::init(InitFlags::IN_CLOEXEC).and_then(|inotify| {
            inotify.add_watch(&path, AddWatchFlags::IN_DELETE_SELF)?;
            Ok(inotify)
        });
        watched.map_err(|errno| at("watch", &path)(errno.into()))
    }

    /// What a cgroup carries; `None` where it has no link of ours.
    ///
    /// # Errors
    /// The kernel's.
    pub fn scope(&self, cgroup: u64) -> io::Result<Option<Scope>> {
        syscall::read_scope(self.scopes.as_fd(), cgroup)
    }

    /// Writes what a cgroup carries, at once. Its links must be there ([`PinnedDatapath::prepare`]).
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_scope(&self, scope: &Scope) -> io::Result<()> {
        // The socket's side first: it is the truth (recovery goes by it), and judges nearly everything.
        syscall::write_scope(self.scopes.as_fd(), scope)?;
        self.tasks.write(scope)
    }

    /// Keeps the image in a slot for its counters, whatever is put there next and whoever dies: until
    /// [`PinnedDatapath::forget_retired`].
    ///
    /// # Errors
    /// [`DatapathError::Io`].
    pub fn retire(&self, slot: Slot) -> Result<(), DatapathError> {
        let path = self.retiring(slot);
        let map = self.tables.inner(slot).map_err(at("open", &path))?;
        pins::gone_is_fine(fs::remove_file(&path)).map_err(at("remove", &path))?;
        syscall::pin(map.as_fd(), &path).map_err(at("pin", &path))
    }

    /// The image that [`PinnedDatapath::retire`] kept, if there is one.
    pub fn retired(&self, slot: Slot) -> Option<LiveImage> {
        let map = syscall::open_pin(&self.retiring(slot)).ok()?;
        Some(LiveImage::of(map, slot))
    }

    /// Lets it go.
    ///
    /// # Errors
    /// [`DatapathError::Io`].
    pub fn forget_retired(&self, slot: Slot) -> Result<(), DatapathError> {
        let path = self.retiring(slot);
        pins::gone_is_fine(fs::remove_file(&path)).map_err(at("remove", &path))
    }

    fn retiring(&self, slot: Slot) -> PathBuf {
        self.folder.join("retiring").join(slot.0.to_string())
    }
}

pub(super) fn at(step: &'static str, path: &Path) -> impl Fn(io::Error) -> DatapathError + use<> {
    let path = path.to_owned();
    move |source| DatapathError::Io {
        step,
        path: path.clone(),
        source,
    }
}

/// The folder of this version's gate.
fn folder() -> Result<PathBuf, PinsError> {
    Ok(pins::own_folder()?.join(format!("standing-{ABI_VERSION}")))
}

/// Gates that other versions of tidegate have pinned, by their folders.
///
/// # Errors
/// [`PinsError`].
pub fn other_versions() -> Result<Vec<PathBuf>, PinsError> {
    let (ours, parent) = (folder()?, pins::own_folder()?);
    let entries = fs::read_dir(&parent).map_err(|source| PinsError::io("read", &parent)(source))?;
    let is_gate = |path: &PathBuf| {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let version = name.strip_prefix("standing-");
        version.is_some_and(|version| version.parse::<u32>().is_ok())
    };
    let all = entries.flatten().map(|entry| entry.path());
    Ok(all.filter(|path| *path != ours && is_gate(path)).collect())
}

/// Loads everything and pins it in a new folder.
fn make(draft: &Path, wake: WakeUp) -> Result<(), DatapathError> {
    let mut features = Features::detect();
    // Who wants each record at once is `exec`, and nobody leaves its cgroup (`launch::isolation`).
    features.moves &= wake == WakeUp::AtLeisure;
    let Loaded {
        mut ebpf,
        has_egress_filter,
        has_migration,
        has_unix,
    } = gate::load(features, wake, gate::ring_bytes()?)?;
    for folder in ["", "maps", "programs", "links", "retiring"] {
        pins::make(&draft.join(folder))?;
    }
    let pinned = |path: &Path, result: Result<(), PinError>| {
        result.map_err(|source| DatapathError::Pin {
            path: path.to_owned(),
            source: Box::new(source),
        })
    };
    for name in MAPS {
        let path = draft.join("maps").join(name);
        let map = ebpf.map(name).ok_or(LoadError::Missing(name))?;
        pinned(&path, map.pin(&path))?;
    }
    let optional = has_egress_filter.then_some(FLOOR).into_iter();
    let optional = optional.chain(MOVES.into_iter().filter(|_| has_migration));
    let optional = optional.chain(program::unix().filter(|_| has_unix));
    for (name, _) in program::all(features).chain(optional) {
        let path = draft.join("programs").join(name);
        let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
        pinned(&path, program.pin(&path))?;
    }
    Ok(())
}

pub(super) fn remove_all(folder: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at("remove", folder)(error)),
        _ => Ok(()),
    }
}
