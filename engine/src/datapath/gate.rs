//! The programs and tables of one gate.

use std::{collections::HashMap, os::fd::BorrowedFd, thread};

use aya::{
    Btf as KernelTypes, Ebpf, EbpfError, EbpfLoader,
    maps::MapError,
    programs::{CgroupSkb, CgroupSock, CgroupSockAddr, FEntry, Lsm, Program, ProgramError},
};
use engine_common::{
    limits::{EVENT_RING_BYTES, MAX_POLICIES},
    scope::Scope,
};
use thiserror::Error;

use super::{
    attachment::{AttachError, Attachment},
    btf::{Btf, BtfError},
    features::{Features, Offsets},
    pins::PinFolder,
    program::{self, FLOOR, Kind, MOVES},
    ring::{EventRing, RingError},
    tables::{DedupCounts, Slot, TableError, Tables, raise_memory_limit},
    tracer::Probe,
};
use crate::compile::Image;

/// The programs as built from engine-ebpf.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/engine-ebpf.o"));
/// A hash of it, by the build script.
pub(super) const OBJECT_HASH: &str = env!("TIDEGATE_OBJECT_HASH");

/// Environment variable with the size of the event ring in bytes: a power of two, at least a page.
pub const RING_BYTES_VARIABLE: &str = "TIDEGATE_EVENT_RING_BYTES";

/// Why the programs could not be loaded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// An offset in the kernel's structures is unknown.
    #[error("cannot read the kernel's type information")]
    Btf(#[from] BtfError),
    /// The kernel's types could not be read a second time.
    #[error("cannot read the kernel's type information")]
    Types(#[source] Box<aya::BtfError>),
    /// The object was refused, or a map could not be made.
    #[error("the kernel refused the tables of the gate")]
    Object(#[source] Box<EbpfError>),
    /// A program was refused.
    #[error("the kernel refused the program `{program}`")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why, with the verifier's words.
        #[source]
        source: Box<ProgramError>,
    },
    /// A map is not of the kind it should be.
    #[error("the kernel refused the tables of the gate")]
    Map(#[from] MapError),
    /// The object has no such program or map: it is not of this version.
    #[error("the built-in object has no `{0}`")]
    Missing(&'static str),
    /// The ring's size is not one.
    #[error("{RING_BYTES_VARIABLE}={0:?} is no size: give a power of two of at least 4096 bytes")]
    RingSize(String),
}

/// When the reader of events is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeUp {
    /// For each record: who reads it wants to know the process before it is gone.
    EachRecord,
    /// For what was denied, and when the ring fills up; otherwise the reader looks from time to time. An
    /// audited attempt costs half as much.
    AtLeisure,
}

/// Programs as loaded.
pub(super) struct Loaded {
    pub(super) ebpf: Ebpf,
    /// Whether the one that judges packets is among them.
    pub(super) has_egress_filter: bool,
    /// Whether those that see unix sockets are.
    pub(super) has_unix: bool,
    /// Whether those that tell who leaves a cgroup are.
    pub(super) has_migration: bool,
}

/// Loaded programs with their tables. Enforces nothing until attached; dropping it takes away
/// nothing that is pinned.
pub struct Gate {
    ebpf: Ebpf,
    has_egress_filter: bool,
    has_unix: bool,
    features: Features,
    tables: Tables,
    next: u32,
}

impl Gate {
    /// Loads programs and tables into the kernel.
    ///
    /// # Errors
    /// [`LoadError`]; the likeliest cause is a missing capability, see `launch::requirement`.
    pub fn load(features: Features, wake: WakeUp) -> Result<Gate, LoadError> {
        // A gate that goes with its process is on a cgroup that nobody leaves (`launch::isolation`).
        let features = Features {
            moves: false,
            ..features
        };
        let Loaded {
            mut ebpf,
            has_egress_filter,
            has_unix,
            ..
        } = load(features, wake, ring_bytes()?)?;
        let tables = Tables::of(|name| ebpf.take_map(name).ok_or(LoadError::Missing(name)))?;
        Ok(Gate {
            tables,
            ebpf,
            has_egress_filter,
            has_unix,
            features,
            next: 0,
        })
    }

    /// What the programs were told about this kernel.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Whether packets can be judged here, as strict policies want.
    pub fn has_egress_filter(&self) -> bool {
        self.has_egress_filter
    }

    /// Whether unix sockets can be judged here.
    pub fn has_unix(&self) -> bool {
        self.has_unix
    }

    /// Puts a policy live in a slot of its own. No cgroup refers to it yet.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn install(&mut self, image: &Image) -> Result<Slot, TableError> {
        if self.next >= MAX_POLICIES {
            return Err(TableError::Full);
        }
        let slot = Slot(self.next);
        self.replace(slot, image)?;
        self.next += 1;
        Ok(slot)
    }

    /// [`Gate::install`] for many, with one wait of the kernel's for all of them.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn install_all(&mut self, images: &[&Image]) -> Result<Vec<Slot>, TableError> {
        if self.next as usize + images.len() > MAX_POLICIES as usize {
            return Err(TableError::Full);
        }
        let slots: Vec<Slot> = (self.next..).map(Slot).take(images.len()).collect();
        let each: Vec<(Slot, &Image)> = slots.iter().copied().zip(images.iter().copied()).collect();
        self.tables.put_all(&each)?;
        self.next += images.len() as u32;
        Ok(slots)
    }

    /// Puts another image live in a slot, at once: a decision sees the old one or the new one.
    ///
    /// # Errors
    /// [`TableError`]; the old image then stays live.
    pub fn replace(&mut self, slot: Slot, image: &Image) -> Result<(), TableError> {
        self.tables.put(slot, image)
    }

    /// Attaches the programs to a cgroup, pinned in `pins`. The scope is written before anything
    /// decides, so no attempt meets a half-made gate.
    ///
    /// # Errors
    /// [`AttachError`]; nothing stays attached then.
    pub fn attach(
        &mut self,
        cgroup: BorrowedFd<'_>,
        scope: &Scope,
        pins: PinFolder,
    ) -> Result<Attachment, AttachError> {
        Attachment::make(&mut self.ebpf, cgroup, scope, pins)
    }

    /// The stream of events. It can be taken once.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn events(&mut self) -> Result<EventRing, RingError> {
        EventRing::of(self.ebpf.take_map("EVENTS").ok_or(RingError::Taken)?)
    }

    /// Counters of a live policy: one a rule in their order, then default, then faults.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn counters(&self, slot: Slot) -> Result<Vec<u64>, TableError> {
        self.tables
            .live(slot)?
            .ok_or(TableError::Empty { slot })?
            .counters()
    }

    /// Events lost since the gate was loaded, because the ring was full.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn lost(&self) -> Result<u64, TableError> {
        self.tables.lost()
    }

    /// What was folded since the gate was loaded.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn dedup_counts(&self) -> Result<DedupCounts, TableError> {
        self.tables.dedup_counts()
    }
}

/// Loads object and programs, told about this kernel.
pub(super) fn load(mut features: Features, wake: WakeUp, ring_bytes: u32) -> Result<Loaded, LoadError> {
    raise_memory_limit();
    // Both read the kernel's type information, a few megabytes: ours for the offsets, and aya's
    // loader for relocations that Rust does not emit, which it cannot be kept from.
    let (loader, offsets) = thread::scope(|scope| {
        let loader = scope.spawn(EbpfLoader::new);
        let offsets = Btf::of_running_kernel().and_then(|btf| {
            let mut offsets = Offsets::of(&btf)?;
            let moves = offsets.add_migration(&btf);
            let unix = offsets.add_unix(&btf);
            Ok((offsets, moves, unix))
        });
        (loader.join(), offsets)
    });
    let (offsets, moves, unix) = offsets?;
    if let Err(error) = moves {
        tracing::debug!(%error, "who leaves a cgroup cannot be told here");
        features.moves = false;
    }
    if let Err(error) = &unix {
        tracing::debug!(%error, "unix sockets cannot be judged here");
    }
    let mut loader = loader.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (send_signal, set_retval) = (features.send_signal as u32, features.set_retval as u32);
    let ancestor_helper = features.ancestor_helper as u32;
    let (task_btf, wake_each) = (features.task_btf as u32, (wake == WakeUp::EachRecord) as u32);
    loader
        .btf(None)
        .map_max_entries("EVENTS", ring_bytes)
        .override_global("HAS_SEND_SIGNAL", &send_signal, true)
        .override_global("HAS_SET_RETVAL", &set_retval, true)
        .override_global("HAS_TASK_BTF", &task_btf, true)
        .override_global("WAKE_EACH", &wake_each, true)
        .override_global("HAS_ANCESTOR_HELPER", &ancestor_helper, true);
    for (name, offset) in &offsets.0 {
        loader.override_global(name, offset, true);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|e| LoadError::Object(Box::new(e)))?;
    let (has_egress_filter, has_migration, has_unix) =
        load_programs(&mut ebpf, features, features.lsm && unix.is_ok())?;
    Ok(Loaded {
        ebpf,
        has_egress_filter,
        has_migration,
        has_unix,
    })
}

/// Loads all programs at a time: the verifier takes tens of milliseconds for each. Whether the floor, those about
/// moves and those about unix sockets were loaded too: a kernel that refuses them has all the others.
fn load_programs(ebpf: &mut Ebpf, features: Features, unix: bool) -> Result<(bool, bool, bool), LoadError> {
    // Types of the hooks, as aya wants them.
    let types = if features.lsm || features.moves {
        Some(KernelTypes::from_sys_fs().map_err(|source| LoadError::Types(Box::new(source)))?)
    } else {
        None
    };
    let types = types.as_ref();
    let mut found: HashMap<String, &mut Program> = ebpf
        .programs_mut()
        .map(|(name, program)| (name.to_owned(), program))
        .collect();
    let mut programs = Vec::new();
    for (name, kind) in program::all(features) {
        let program = found.remove(name).ok_or(LoadError::Missing(name))?;
        programs.push((name, kind, program));
    }
    let mut optional = |wanted: bool, names: &[(&'static str, Kind)]| {
        let names = names.iter().filter(|_| wanted);
        let found = names.map(|&(name, kind)| {
            let program = found.remove(name).ok_or(LoadError::Missing(name))?;
            Ok((name, kind, program))
        });
        found.collect::<Result<Vec<_>, LoadError>>()
    };
    let floor = optional(features.packets, &[FLOOR])?;
    let moves = optional(features.moves, &MOVES)?;
    let of_unix: Vec<(&'static str, Kind)> = program::unix().collect();
    let of_unix = optional(unix, &of_unix)?;
    thread::scope(|scope| {
        let try_all = |programs: Vec<(&'static str, Kind, _)>| {
            scope.spawn(move || {
                let mut programs = programs.into_iter();
                programs.try_for_each(|(name, kind, program)| load_program(name, kind, program, types))
            })
        };
        let floor = features.packets.then(|| try_all(floor));
        let moves = features.moves.then(|| try_all(moves));
        let of_unix = unix.then(|| try_all(of_unix));
        let loading: Vec<_> = programs
            .into_iter()
            .map(|(name, kind, program)| scope.spawn(move || load_program(name, kind, program, types)))
            .collect();
        loading.into_iter().try_for_each(|thread| match thread.join() {
            Ok(loaded) => loaded,
            Err(panic) => std::panic::resume_unwind(panic),
        })?;
        Ok((
            is_loaded(floor, "packets cannot be judged here"),
            is_loaded(moves, "who leaves a cgroup cannot be told here"),
            is_loaded(of_unix, "unix sockets cannot be judged here"),
        ))
    })
}

/// Whether programs that a gate can do without were loaded.
fn is_loaded(loading: Option<thread::ScopedJoinHandle<'_, Result<(), LoadError>>>, refused: &str) -> bool {
    match loading.map(thread::ScopedJoinHandle::join) {
        None => false,
        Some(Ok(Ok(()))) => true,
        Some(Ok(Err(error))) => {
            tracing::debug!(error = ?error, "{refused}");
            false
        }
        Some(Err(panic)) => std::panic::resume_unwind(panic),
    }
}

fn load_program(
    name: &'static str,
    kind: Kind,
    program: &mut Program,
    types: Option<&KernelTypes>,
) -> Result<(), LoadError> {
    let loaded = match (kind, types) {
        (Kind::Lsm(hook), Some(types)) => {
            <&mut Lsm>::try_from(program).and_then(|program| program.load(hook, types))
        }
        (Kind::Function(function), Some(types)) => {
            <&mut FEntry>::try_from(program).and_then(|program| program.load(function, types))
        }
        (Kind::Lsm(_) | Kind::Function(_), None) => return Ok(()),
        (Kind::Probe, _) => Probe::load(program),
        (Kind::Socket(_), _) => <&mut CgroupSock>::try_from(program).and_then(CgroupSock::load),
        (Kind::Address(_), _) => <&mut CgroupSockAddr>::try_from(program).and_then(CgroupSockAddr::load),
        (Kind::Packet(_), _) => <&mut CgroupSkb>::try_from(program).and_then(CgroupSkb::load),
    };
    loaded.map_err(|source| LoadError::Program {
        program: name,
        source: Box::new(source),
    })
}

pub(super) fn ring_bytes() -> Result<u32, LoadError> {
    let Ok(text) = std::env::var(RING_BYTES_VARIABLE) else {
        return Ok(EVENT_RING_BYTES);
    };
    match text.parse::<u32>() {
        Ok(n) if n.is_power_of_two() && n >= 4096 => Ok(n),
        _ => Err(LoadError::RingSize(text)),
    }
}
