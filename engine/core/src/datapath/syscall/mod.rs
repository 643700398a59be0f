//! The bpf(2) commands that aya has no function for. Layouts: `union bpf_attr` in
//! include/uapi/linux/bpf.h.

use std::{
    ffi::{CString, c_long},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr,
};

use engine_common::{
    image::{PAGE_WORDS, Page},
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
};

/// BPF_MAP_TYPE_ARRAY.
const ARRAY: u32 = 2;
/// BPF_F_INNER_MAP: the flags of every image must equal those of the template (engine-ebpf).
const IMAGE_FLAGS: u32 = 0x1000;

pub(super) const BPF_MAP_CREATE: c_long = 0;
const BPF_MAP_LOOKUP_ELEM: c_long = 1;
const BPF_MAP_UPDATE_ELEM: c_long = 2;
const BPF_MAP_DELETE_ELEM: c_long = 3;
const BPF_MAP_GET_NEXT_KEY: c_long = 4;
pub(super) const BPF_PROG_LOAD: c_long = 5;
const BPF_OBJ_PIN: c_long = 6;
const BPF_OBJ_GET: c_long = 7;
const BPF_MAP_GET_FD_BY_ID: c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: c_long = 15;
const BPF_PROG_QUERY: c_long = 16;
pub(super) const BPF_RAW_TRACEPOINT_OPEN: c_long = 17;
const BPF_MAP_UPDATE_BATCH: c_long = 26;
pub(super) const BPF_LINK_CREATE: c_long = 28;

/// # Safety
/// `attr` must have the layout that `command` expects, and what it points to must be valid until the call returns.
pub(super) unsafe fn bpf<T>(command: c_long, attr: *mut T) -> io::Result<c_long> {
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Runs a command that returns a new descriptor.
///
/// # Safety
/// As [`bpf`]; `command` must return a descriptor.
pub(super) unsafe fn bpf_fd<T>(command: c_long, attr: *mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

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
    // SAFETY: the caller's; both pointers outlive the call.
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
pub(super) fn write_scope(map: BorrowedFd<'_>, scope: &Scope) -> io::Result<()> {
    // SAFETY: the key has 8 bytes, the value 48, as in the map.
    unsafe { map_op(BPF_MAP_UPDATE_ELEM, map, &raw const scope.cgroup, scope) }
}

/// Reads the storage of a cgroup; `None` where no program of Tidegate is attached to it.
pub(super) fn read_scope(map: BorrowedFd<'_>, cgroup: u64) -> io::Result<Option<Scope>> {
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
pub(super) fn remove_scope(map: BorrowedFd<'_>, cgroup: u64) -> io::Result<()> {
    // SAFETY: the key has 8 bytes, as in the map.
    let removed = unsafe { map_op(BPF_MAP_DELETE_ELEM, map, &raw const cgroup, ptr::null::<Scope>()) };
    found(removed).map(drop)
}

/// The cgroup after another in a map of scopes, or the first one; `None` at the end.
pub(super) fn scope_after(map: BorrowedFd<'_>, cgroup: Option<u64>) -> io::Result<Option<u64>> {
    let key = cgroup.as_ref().map_or(ptr::null(), |cgroup| &raw const *cgroup);
    let mut next = 0u64;
    // SAFETY: both keys have 8 bytes, as in the map; without a key the kernel writes the first one.
    let read = unsafe { map_op(BPF_MAP_GET_NEXT_KEY, map, key, (&raw mut next).cast_const()) };
    Ok(found(read)?.map(|()| next))
}

/// Reads an element of an array whose values are `N` words.
pub(super) fn read_words<const N: usize>(map: BorrowedFd<'_>, index: u32) -> io::Result<[u64; N]> {
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
pub(super) fn write_words<const N: usize>(
    map: BorrowedFd<'_>,
    index: u32,
    words: &[u64; N],
) -> io::Result<()> {
    // SAFETY: as in `read_words`.
    unsafe { map_op(BPF_MAP_UPDATE_ELEM, map, &raw const index, words.as_ptr()) }
}

/// Writes a page of an image.
pub(super) fn write_page(map: BorrowedFd<'_>, index: u32, page: &Page) -> io::Result<()> {
    write_words::<PAGE_WORDS>(map, index, page)
}

/// Reads a page of an image.
pub(super) fn read_page(map: BorrowedFd<'_>, index: u32) -> io::Result<Page> {
    read_words::<PAGE_WORDS>(map, index)
}

/// Creates the map of an image: an array of `pages` pages.
pub(super) fn create_image(pages: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Create {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
    }
    let mut create = Create {
        map_type: ARRAY,
        key_size: 4,
        value_size: size_of::<Page>() as u32,
        max_entries: pages,
        map_flags: IMAGE_FLAGS,
    };
    // SAFETY: the attributes have no pointers.
    unsafe { bpf_fd(BPF_MAP_CREATE, &raw mut create) }
}

/// Puts an inner map into a slot of an array of maps atomically. Returns when no program uses the previous one any more
/// (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c, Linux 4.20).
pub(super) fn update_inner(map: BorrowedFd<'_>, slot: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    let inner = inner.as_raw_fd();
    // SAFETY: key and value have 4 bytes each, as in the map.
    unsafe { map_op(BPF_MAP_UPDATE_ELEM, map, &raw const slot, &raw const inner) }
}

/// The inner map in a slot of an array of maps; `None` where the slot is empty.
pub(super) fn inner_of(map: BorrowedFd<'_>, slot: u32) -> io::Result<Option<OwnedFd>> {
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
pub(super) fn delete_inner(map: BorrowedFd<'_>, slot: u32) -> io::Result<()> {
    // SAFETY: the key has 4 bytes, as in the map.
    let deleted = unsafe { map_op(BPF_MAP_DELETE_ELEM, map, &raw const slot, ptr::null::<u32>()) };
    found(deleted).map(drop)
}

/// Puts many inner maps into an array of maps. A single update waits until no program uses the previous map (some
/// milliseconds, `maybe_wait_bpf_programs`); a batch waits once, where the kernel has batches for this kind of map
/// (Linux 5.17).
pub(super) fn update_inner_batch(map: BorrowedFd<'_>, slots: &[u32], maps: &[u32]) -> io::Result<()> {
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

/// The attributes of BPF_OBJ_PIN and BPF_OBJ_GET.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    file_flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Pins a map, program or link.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut pin = Pin {
        path: path.as_ptr() as u64,
        fd: object.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: the path ends with a NUL and lives until the call returns.
    unsafe { bpf(BPF_OBJ_PIN, &raw mut pin) }.map(drop)
}

/// Opens a pinned map, program or link.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut pin = Pin {
        path: path.as_ptr() as u64,
        fd: 0,
        file_flags: 0,
    };
    // SAFETY: the path ends with a NUL and lives until the call returns.
    unsafe { bpf_fd(BPF_OBJ_GET, &raw mut pin) }
}

/// Attaches a loaded LSM or fentry program to the function it was loaded for. The link detaches it when the last
/// descriptor and pin are gone (`bpf_tracing_prog_attach`, kernel/bpf/syscall.c; LSM programs since 5.7).
pub(super) fn open_tracing_link(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Open {
        name: u64,
        prog_fd: u32,
        padding: u32,
    }
    let mut open = Open {
        name: 0,
        prog_fd: program.as_raw_fd() as u32,
        padding: 0,
    };
    // SAFETY: the name is null: the program names its function itself.
    unsafe { bpf_fd(BPF_RAW_TRACEPOINT_OPEN, &raw mut open) }
}

/// The number of programs attached to a cgroup itself at one attach point (`enum bpf_attach_type`); `None` where the kernel
/// does not know this attach point for cgroups.
pub(super) fn count_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Option<u32>> {
    #[repr(C)]
    struct Query {
        target_fd: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        prog_ids: u64,
        prog_count: u32,
        padding: u32,
    }
    let mut query = Query {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: 0,
        prog_count: 0,
        padding: 0,
    };
    // SAFETY: without an array for ids the kernel only writes the number (`__cgroup_bpf_query`, kernel/bpf/cgroup.c).
    match unsafe { bpf(BPF_PROG_QUERY, &raw mut query) } {
        Ok(_) => Ok(Some(query.prog_count)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The id of the cgroup that a link attaches to: 0 once the cgroup is gone, or the link was detached by force
/// (`bpf_cgroup_link_fill_link_info`, kernel/bpf/cgroup.c).
pub(super) fn cgroup_of_link(link: BorrowedFd<'_>) -> io::Result<u64> {
    /// `struct bpf_link_info` with the fields of links to cgroups.
    #[repr(C)]
    #[derive(Default)]
    struct LinkInfo {
        kind: u32,
        id: u32,
        prog_id: u32,
        padding: u32,
        cgroup_id: u64,
        attach_type: u32,
        rest: [u32; 17],
    }
    #[repr(C)]
    struct GetInfo {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut info = LinkInfo::default();
    let mut get = GetInfo {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes of `info`, which lives until the call returns.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &raw mut get) }?;
    Ok(info.cgroup_id)
}

/// Loads a program that does nothing, at the function with this BTF id if it is not 0.
fn load_empty(kind: u32, attach_type: u32, function: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 14],
    }
    // r0 = 0; exit.
    let instructions: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let mut load = Load {
        kind,
        count: 2,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 14],
    };
    // `expected_attach_type`: bytes 68 to 71 of the attributes.
    load.rest[5] = u64::from(attach_type) << 32;
    // `attach_btf_id`: bytes 108 to 111.
    load.rest[10] = u64::from(function) << 32;
    // SAFETY: instructions and license (with its NUL) live until the call returns; the rest are integers.
    unsafe { bpf_fd(BPF_PROG_LOAD, &raw mut load) }
}

/// Succeeds where kprobes have links, which alone can be pinned (`bpf_perf_link_attach`, kernel/bpf/syscall.c,
/// Linux 5.15). The perf event to be linked is an invalid descriptor, so nothing is attached in any case.
pub(super) fn try_kprobe_link() -> io::Result<()> {
    #[repr(C)]
    struct Create {
        prog_fd: u32,
        target_fd: u32,
        attach_type: u32,
        flags: u32,
    }
    /// BPF_PROG_TYPE_KPROBE.
    const KPROBE: u32 = 2;
    /// BPF_PERF_EVENT.
    const PERF_EVENT: u32 = 41;
    let program = load_empty(KPROBE, 0, 0)?;
    let mut create = Create {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: u32::MAX,
        attach_type: PERF_EVENT,
        flags: 0,
    };
    // SAFETY: the attributes have no pointers.
    match unsafe { bpf_fd(BPF_LINK_CREATE, &raw mut create) } {
        // The error is about the perf event, so the kernel has links for kprobes.
        Err(error) if error.raw_os_error() != Some(libc::EBADF) => Err(error),
        _ => Ok(()),
    }
}

/// Succeeds where the kernel accepts LSM programs at all. The program names no hook and is refused in any case: as
/// invalid where such programs may be loaded (`bpf_prog_load_check_attach`), else for another reason.
pub(super) fn try_lsm_program() -> io::Result<()> {
    /// BPF_PROG_TYPE_LSM.
    const LSM: u32 = 29;
    /// BPF_LSM_MAC.
    const LSM_MAC: u32 = 27;
    match load_empty(LSM, LSM_MAC, 0) {
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

/// Succeeds where the kernel accepts a program at the entry of one of its functions, named by its BTF id.
pub(super) fn try_fentry_program(function: u32) -> io::Result<()> {
    /// BPF_PROG_TYPE_TRACING.
    const TRACING: u32 = 26;
    /// BPF_TRACE_FENTRY.
    const FENTRY: u32 = 24;
    load_empty(TRACING, FENTRY, function).map(drop)
}
