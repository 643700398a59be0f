//! The kinds of map that the datapath uses, tried as it uses them.

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
    syscall::{MapCreate, create_map},
};
use crate::datapath::syscall;

const MAP_TYPE_ARRAY: u32 = 2;
const MAP_TYPE_ARRAY_OF_MAPS: u32 = 12;
const MAP_TYPE_CGROUP_STORAGE: u32 = 19;
const MAP_TYPE_RINGBUF: u32 = 27;
const HELPER_GET_LOCAL_STORAGE: i32 = 81;
const HELPER_RINGBUF_OUTPUT: i32 = 130;
/// The smallest ring: a page, of the largest size there is.
const RING_BYTES: u32 = 64 * 1024;

/// A kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// BPF_MAP_TYPE_RINGBUF: events.
    Ring,
    /// An array of maps whose inner maps differ in size (BPF_F_INNER_MAP): policies.
    Images,
    /// BPF_MAP_TYPE_CGROUP_STORAGE by cgroup id: the policies of a cgroup.
    Scopes,
}

/// All of them.
pub const TABLES: [Table; 3] = [Table::Ring, Table::Images, Table::Scopes];

impl Table {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Table::Ring => "ring buffer",
            Table::Images => "maps of different size in a map",
            Table::Scopes => "cgroup storage by cgroup id",
        }
    }

    /// What it is good for.
    pub const fn purpose(self) -> &'static str {
        match self {
            Table::Ring => "events",
            Table::Images => "a policy goes live in one step",
            Table::Scopes => "the policies of a cgroup",
        }
    }

    /// The kernel that had it first.
    pub const fn since(self) -> &'static str {
        match self {
            Table::Ring => "5.8",
            Table::Images => "5.10",
            Table::Scopes => "5.9",
        }
    }
}

/// A map with one value of `bytes` bytes.
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

pub(super) fn try_out(
    trials: &Trials,
    table: Table,
    cgroup: Option<(BorrowedFd<'_>, u64)>,
) -> Result<(), Refusal> {
    match table {
        Table::Ring => try_ring(trials),
        Table::Images => try_images().map_err(|error| Refusal::at(Step::Table, error)),
        Table::Scopes => try_scopes(trials, cgroup),
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
    .map_err(|error| Refusal::at(Step::Table, error))?;
    let code = Bytecode::sending(ring.as_fd(), HELPER_RINGBUF_OUTPUT, CONNECT4.passes());
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

/// Without a cgroup only loads; with one, writes the storage and reads it again.
fn try_scopes(trials: &Trials, cgroup: Option<(BorrowedFd<'_>, u64)>) -> Result<(), Refusal> {
    let refused = |error| Refusal::at(Step::Table, error);
    let storage = create_map(&MapCreate {
        map_type: MAP_TYPE_CGROUP_STORAGE,
        key_size: 8,
        value_size: size_of::<Scope>() as u32,
        max_entries: 0,
        map_flags: 0,
        inner_map: None,
    })
    .map_err(refused)?;
    let code = Bytecode::asking(storage.as_fd(), HELPER_GET_LOCAL_STORAGE, SOCK_CREATE.passes());
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
            Step::Table,
            "what was written for the cgroup is not there when it is read".into(),
        )),
    }
}
