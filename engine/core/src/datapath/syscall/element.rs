//! Elements of maps: scopes, words of arrays, pages of images, inner maps.

use std::{
    ffi::c_long,
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

use engine_common::{
    image::{PAGE_WORDS, Page},
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
};

use super::{bpf, bpf_fd};

const BPF_MAP_LOOKUP_ELEM: c_long = 1;
const BPF_MAP_UPDATE_ELEM: c_long = 2;
const BPF_MAP_DELETE_ELEM: c_long = 3;
const BPF_MAP_GET_NEXT_KEY: c_long = 4;
const BPF_MAP_GET_FD_BY_ID: c_long = 14;
const BPF_MAP_UPDATE_BATCH: c_long = 26;

/// Runs a command on one element of a map, with flags 0. `value` is `next_key` for BPF_MAP_GET_NEXT_KEY, and null where the
/// command has no value; a null `key` there means the first key.
///
/// # Safety
/// `key` must point to as many bytes as the keys of the map have, or be null; `value` to as many as its values (or keys), writable
/// where the command writes it.
unsafe fn map_op<K, V>(
    command: c_long,
    map: BorrowedFd<'_>,
    key: *const K,
    value: *const V,
) -> io::Result<()> {
    #[repr(C)]
    struct Element {
        map_fd: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut element = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: key as u64,
        value: value as u64,
        flags: 0,
    };
    // SAFETY: guaranteed by the caller; both pointers outlive the call.
    unsafe { bpf(command, &raw mut element) }.map(drop)
}

/// `None` for an element that does not exist.
fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes the storage of the scope's cgroup atomically: a program sees the old value or the new one
/// (`cgroup_storage_update_elem`, kernel/bpf/local_storage.c, exchanges a pointer). aya's typed map knows only the
/// older kind of key.
pub(in crate::datapath) fn write_scope(map: BorrowedFd<'_>, scope: &Scope) -> io::Result<()> {
    // SAFETY: the key has 8 bytes, the value 48, as in the map.
    unsafe { map_op(BPF_MAP_UPDATE_ELEM, map, &raw const scope.cgroup, scope) }
}

/// Reads the storage of a cgroup; `None` where no program of Tidegate is attached to it.
pub(in crate::datapath) fn read_scope(map: BorrowedFd<'_>, cgroup: u64) -> io::Result<Option<Scope>> {
    let mut scope = Scope {
        cgroup: 0,
        level: 0,
        flags: 0,
        slots: [SlotRef::NONE; MAX_STACKED],
    };
    // SAFETY: the key has 8 bytes, the value 48, as in the map; any bytes are a valid scope.
    let read = unsafe {
        map_op(
            BPF_MAP_LOOKUP_ELEM,
            map,
            &raw const cgroup,
            (&raw mut scope).cast_const(),
        )
    };
    Ok(found(read)?.map(|()| scope))
}

/// Removes the scope of a cgroup; succeeds when there is none.
pub(in crate::datapath) fn remove_scope(map: BorrowedFd<'_>, cgroup: u64) -> io::Result<()> {
    // SAFETY: the key has 8 bytes, as in the map.
    let removed = unsafe { map_op(BPF_MAP_DELETE_ELEM, map, &raw const cgroup, ptr::null::<Scope>()) };
    found(removed).map(drop)
}

/// The cgroup after another in a map of scopes, or the first one; `None` at the end.
pub(in crate::datapath) fn scope_after(map: BorrowedFd<'_>, cgroup: Option<u64>) -> io::Result<Option<u64>> {
    let key = cgroup.as_ref().map_or(ptr::null(), |cgroup| &raw const *cgroup);
    let mut next = 0u64;
    // SAFETY: both keys have 8 bytes, as in the map; without a key the kernel writes the first one.
    let read = unsafe { map_op(BPF_MAP_GET_NEXT_KEY, map, key, (&raw mut next).cast_const()) };
    Ok(found(read)?.map(|()| next))
}

/// Reads an element of an array whose values are `N` words.
pub(in crate::datapath) fn read_words<const N: usize>(
    map: BorrowedFd<'_>,
    index: u32,
) -> io::Result<[u64; N]> {
    let mut words = [0u64; N];
    // SAFETY: the key has 4 bytes; the map was made with values of `N` words.
    unsafe {
        map_op(
            BPF_MAP_LOOKUP_ELEM,
            map,
            &raw const index,
            words.as_mut_ptr().cast_const(),
        )
    }?;
    Ok(words)
}

/// Writes an element of an array whose values are `N` words.
pub(in crate::datapath) fn write_words<const N: usize>(
    map: BorrowedFd<'_>,
    index: u32,
    words: &[u64; N],
) -> io::Result<()> {
    // SAFETY: as in `read_words`.
    unsafe { map_op(BPF_MAP_UPDATE_ELEM, map, &raw const index, words.as_ptr()) }
}

/// Writes a page of an image.
pub(in crate::datapath) fn write_page(map: BorrowedFd<'_>, index: u32, page: &Page) -> io::Result<()> {
    write_words::<PAGE_WORDS>(map, index, page)
}

/// Reads a page of an image.
pub(in crate::datapath) fn read_page(map: BorrowedFd<'_>, index: u32) -> io::Result<Page> {
    read_words::<PAGE_WORDS>(map, index)
}

/// Puts an inner map into a slot of an array of maps atomically. Returns when no program uses the previous one any more
/// (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c, Linux 4.20).
pub(in crate::datapath) fn update_inner(
    map: BorrowedFd<'_>,
    slot: u32,
    inner: BorrowedFd<'_>,
) -> io::Result<()> {
    let inner = inner.as_raw_fd();
    // SAFETY: key and value have 4 bytes each, as in the map.
    unsafe { map_op(BPF_MAP_UPDATE_ELEM, map, &raw const slot, &raw const inner) }
}

/// The inner map in a slot of an array of maps; `None` where the slot is empty.
pub(in crate::datapath) fn inner_of(map: BorrowedFd<'_>, slot: u32) -> io::Result<Option<OwnedFd>> {
    #[repr(C)]
    struct GetById {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut id = 0u32;
    // SAFETY: key and value have 4 bytes each, as in the map.
    let read = unsafe {
        map_op(
            BPF_MAP_LOOKUP_ELEM,
            map,
            &raw const slot,
            (&raw mut id).cast_const(),
        )
    };
    if found(read)?.is_none() {
        return Ok(None);
    }
    let mut get = GetById {
        id,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: the attributes have no pointers.
    unsafe { bpf_fd(BPF_MAP_GET_FD_BY_ID, &raw mut get) }.map(Some)
}

/// Empties a slot of an array of maps; succeeds when it is empty already.
pub(in crate::datapath) fn delete_inner(map: BorrowedFd<'_>, slot: u32) -> io::Result<()> {
    // SAFETY: the key has 4 bytes, as in the map.
    let deleted = unsafe { map_op(BPF_MAP_DELETE_ELEM, map, &raw const slot, ptr::null::<u32>()) };
    found(deleted).map(drop)
}

/// Puts many inner maps into an array of maps. A single update waits until no program uses the previous map (some
/// milliseconds, `maybe_wait_bpf_programs`); a batch waits once, where the kernel has batches for this kind of map
/// (Linux 5.17).
pub(in crate::datapath) fn update_inner_batch(
    map: BorrowedFd<'_>,
    slots: &[u32],
    maps: &[u32],
) -> io::Result<()> {
    #[repr(C)]
    struct Batch {
        in_batch: u64,
        out_batch: u64,
        keys: u64,
        values: u64,
        count: u32,
        map_fd: u32,
        elem_flags: u64,
        flags: u64,
    }
    assert_eq!(slots.len(), maps.len());
    let mut batch = Batch {
        in_batch: 0,
        out_batch: 0,
        keys: slots.as_ptr() as u64,
        values: maps.as_ptr() as u64,
        count: slots.len() as u32,
        map_fd: map.as_raw_fd() as u32,
        elem_flags: 0,
        flags: 0,
    };
    // SAFETY: keys and values have `count` times four bytes and live until the call returns.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &raw mut batch) }.map(drop)
}
