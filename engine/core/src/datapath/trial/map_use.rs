//! The map types that the datapath uses, tried with the attributes and operations that it uses.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use engine_common::{
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
};

use super::{
    Trials, attach,
    bytecode::Bytecode,
    hook::{CONNECT4, SOCK_CREATE},
    refusal::{Refusal, Step},
};
use crate::datapath::syscall::{self, MapCreate, create_map};

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const MAP_TYPE_CGROUP_STORAGE: u32 = 19;
const MAP_TYPE_RINGBUF: u32 = 27;
const HELPER_GET_LOCAL_STORAGE: i32 = 81;
const HELPER_RINGBUF_OUTPUT: i32 = 130;
/// A valid size for every page size: a ring buffer needs a whole page, at most 64 KiB.
const RING_BYTES: u32 = 64 * 1024;

/// A use of a map type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapUse {
    /// BPF_MAP_TYPE_RINGBUF, for events.
    Ring,
    /// BPF_MAP_TYPE_ARRAY_OF_MAPS with inner maps of different sizes (BPF_F_INNER_MAP), for policies.
    Images,
    /// BPF_MAP_TYPE_CGROUP_STORAGE with the cgroup id as key, for the policies of a cgroup.
    Scopes,
}

/// All uses of maps. `probe` tries and reports each.
pub const MAP_USES: [MapUse; 3] = [MapUse::Ring, MapUse::Images, MapUse::Scopes];

impl MapUse {
    /// Unique name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            MapUse::Ring => "ring buffer",
            MapUse::Images => "maps of different size in a map",
            MapUse::Scopes => "cgroup storage by cgroup id",
        }
    }

    /// What it is used for.
    pub const fn purpose(self) -> &'static str {
        match self {
            MapUse::Ring => "events",
            MapUse::Images => "replaces a policy atomically",
            MapUse::Scopes => "the policies of a cgroup",
        }
    }

    /// The first kernel version with it.
    pub const fn since(self) -> &'static str {
        match self {
            MapUse::Ring => "5.8",
            MapUse::Images => "5.10",
            MapUse::Scopes => "5.9",
        }
    }
}

/// An array with one value of `bytes` bytes.
pub(super) fn array(bytes: u32) -> io::Result<OwnedFd> {
    create_map(&MapCreate {
        map_type: MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: bytes,
        max_entries: 1,
        map_flags: 0,
        inner_map: None,
    })
}

pub(super) fn try_map(
    trials: &Trials,
    map: MapUse,
    cgroup: Option<(BorrowedFd<'_>, u64)>,
) -> Result<(), Refusal> {
    match map {
        MapUse::Ring => try_ring(trials),
        MapUse::Images => try_images().map_err(|error| Refusal::at(Step::Map, error)),
        MapUse::Scopes => try_scopes(trials, cgroup),
    }
}

fn try_ring(trials: &Trials) -> Result<(), Refusal> {
    let ring = create_map(&MapCreate {
        map_type: MAP_TYPE_RINGBUF,
        key_size: 0,
        value_size: 0,
        max_entries: RING_BYTES,
        map_flags: 0,
        inner_map: None,
    })
    .map_err(|error| Refusal::at(Step::Map, error))?;
    let code = Bytecode::write_to_ring(ring.as_fd(), HELPER_RINGBUF_OUTPUT, CONNECT4.allow_value());
    trials.load_at(CONNECT4, &code).map(drop)
}

fn try_images() -> io::Result<()> {
    let template = syscall::create_image(1)?;
    let outer = create_map(&MapCreate {
        map_type: MAP_TYPE_ARRAY_OF_MAPS,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        map_flags: 0,
        inner_map: Some(template.as_fd()),
    })?;
    let larger = syscall::create_image(2)?;
    syscall::update_inner(outer.as_fd(), 0, larger.as_fd())
}

/// With a cgroup, also writes the storage and reads it back. Without one, only loads a program that uses it.
fn try_scopes(trials: &Trials, cgroup: Option<(BorrowedFd<'_>, u64)>) -> Result<(), Refusal> {
    let refused = |error| Refusal::at(Step::Map, error);
    let storage = create_map(&MapCreate {
        map_type: MAP_TYPE_CGROUP_STORAGE,
        key_size: 8,
        value_size: size_of::<Scope>() as u32,
        max_entries: 0,
        map_flags: 0,
        inner_map: None,
    })
    .map_err(refused)?;
    let code = Bytecode::get_from_map(
        storage.as_fd(),
        HELPER_GET_LOCAL_STORAGE,
        SOCK_CREATE.allow_value(),
    );
    let program = trials.load_at(SOCK_CREATE, &code)?;
    let Some((directory, id)) = cgroup else {
        return Ok(());
    };
    let _attached = attach::attach(SOCK_CREATE, program, Some(directory))?;
    let scope = Scope {
        cgroup: id,
        level: 0,
        flags: 0,
        slots: [SlotRef::NONE; MAX_STACKED],
    };
    syscall::write_scope(storage.as_fd(), &scope).map_err(refused)?;
    match syscall::read_scope(storage.as_fd(), id).map_err(refused)? {
        Some(read) if read.cgroup == id => Ok(()),
        _ => Err(Refusal::described(
            Step::Map,
            "the value read back differs from the value written".into(),
        )),
    }
}
