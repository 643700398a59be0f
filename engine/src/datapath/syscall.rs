//! The few uses of bpf(2) that aya has no function for. Layouts: `union bpf_attr` in
//! include/uapi/linux/bpf.h.

use std::{
    ffi::{CString, c_long},
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use engine_common::{
    image::{PAGE_WORDS, Page},
    scope::{Scope, SlotRef},
};

/// BPF_MAP_TYPE_ARRAY.
const ARRAY: u32 = 2;
/// BPF_F_INNER_MAP: the flags of every image must equal those of the template (engine-ebpf).
const IMAGE_FLAGS: u32 = 0x1000;

const BPF_MAP_CREATE: c_long = 0;
const BPF_MAP_LOOKUP_ELEM: c_long = 1;
const BPF_MAP_UPDATE_ELEM: c_long = 2;
const BPF_MAP_DELETE_ELEM: c_long = 3;
const BPF_MAP_GET_NEXT_KEY: c_long = 4;
const BPF_PROG_LOAD: c_long = 5;
const BPF_OBJ_PIN: c_long = 6;
const BPF_OBJ_GET: c_long = 7;
const BPF_MAP_GET_FD_BY_ID: c_long = 14;
const BPF_OBJ_GET_INFO_BY_FD: c_long = 15;
const BPF_RAW_TRACEPOINT_OPEN: c_long = 17;
const BPF_MAP_UPDATE_BATCH: c_long = 26;
const BPF_LINK_CREATE: c_long = 28;

/// The first fields of the commands on one element.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// # Safety
/// `attr` must be laid out as `command` wants it, and what it points to must be valid meanwhile.
pub(super) unsafe fn bpf<T>(command: c_long, attr: *mut T) -> io::Result<c_long> {
    // SAFETY: the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<T>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Writes the storage of the cgroup that the scope is about, at once: a program sees the old value
/// or the new one (`cgroup_storage_update_elem`, kernel/bpf/local_storage.c, exchanges a pointer). aya's
/// typed map knows only the older kind of key.
pub(super) fn write_scope(map: BorrowedFd<'_>, scope: &Scope) -> io::Result<()> {
    let key = scope.cgroup;
    let mut update = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const key as u64,
        value: &raw const *scope as u64,
        flags: 0,
    };
    // SAFETY: key (8 bytes) and value (48 bytes, the size of the map's values) live until the call
    // returns.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &raw mut update) }.map(drop)
}

/// Reads the storage of a cgroup; `None` where none of our programs is attached to it.
pub(super) fn read_scope(map: BorrowedFd<'_>, cgroup: u64) -> io::Result<Option<Scope>> {
    let mut scope = Scope {
        cgroup: 0,
        level: 0,
        flags: 0,
        slots: [SlotRef::NONE; engine_common::limits::MAX_STACKED],
    };
    let mut lookup = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const cgroup as u64,
        value: &raw mut scope as u64,
        flags: 0,
    };
    // SAFETY: key (8 bytes) and value (48 bytes, the size of the map's values) live until the call
    // returns; any bytes are a scope.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &raw mut lookup) } {
        Ok(_) => Ok(Some(scope)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes a cgroup out of a table of scopes; one that is not there is fine.
pub(super) fn remove_scope(map: BorrowedFd<'_>, cgroup: u64) -> io::Result<()> {
    let mut delete = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const cgroup as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: the key (8 bytes) lives until the call returns.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &raw mut delete) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// The cgroup after another in a table of scopes, or the first one; `None` where there is none.
pub(super) fn scope_after(map: BorrowedFd<'_>, cgroup: Option<u64>) -> io::Result<Option<u64>> {
    let mut first = 0u64;
    let mut next = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: cgroup.as_ref().map_or(0, |cgroup| &raw const *cgroup as u64),
        value: &raw mut first as u64,
        flags: 0,
    };
    // SAFETY: the key (8 bytes, the size of the map's keys) lives until the call returns, and so does `value`, which
    // stands where `next_key` does; without a key the kernel writes the first one there.
    match unsafe { bpf(BPF_MAP_GET_NEXT_KEY, &raw mut next) } {
        Ok(_) => Ok(Some(first)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads an element of an array of words.
pub(super) fn read_word(map: BorrowedFd<'_>, index: u32) -> io::Result<u64> {
    let mut word = 0u64;
    let mut lookup = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const index as u64,
        value: &raw mut word as u64,
        flags: 0,
    };
    // SAFETY: key (4 bytes) and value (8 bytes, the size of the map's values) live until the call returns.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &raw mut lookup) }?;
    Ok(word)
}

/// Writes an element of an array of words.
pub(super) fn write_word(map: BorrowedFd<'_>, index: u32, word: u64) -> io::Result<()> {
    let mut update = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const index as u64,
        value: &raw const word as u64,
        flags: 0,
    };
    // SAFETY: as in `read_word`.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &raw mut update) }.map(drop)
}

/// Attaches a loaded program of LSM or at a function where it was loaded for: the link detaches it when nobody holds it any more
/// (`bpf_tracing_prog_attach`, kernel/bpf/syscall.c; LSM programs since 5.7).
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
    // SAFETY: numbers only.
    let fd = unsafe { bpf(BPF_RAW_TRACEPOINT_OPEN, &raw mut open) }?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The fields of BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    rest: [u64; 14],
}

/// Loads a program that does nothing, at the function with this BTF id if it is not 0.
fn load_nothing(kind: u32, attach_type: u32, function: u32) -> io::Result<OwnedFd> {
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
    // The expected attach type: bytes 68 to 71 of the attributes.
    load.rest[5] = u64::from(attach_type) << 32;
    // `attach_btf_id`: bytes 108 to 111.
    load.rest[10] = u64::from(function) << 32;
    // SAFETY: instructions and licence (with its NUL) live until the call returns; the rest are numbers.
    let fd = unsafe { bpf(BPF_PROG_LOAD, &raw mut load) }?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether kprobes have links, which alone can be pinned (`bpf_perf_link_attach`, kernel/bpf/syscall.c, Linux
/// 5.15). The probe that is to be linked is none, so that nothing is attached in any case.
pub(super) fn try_probe_link() -> io::Result<()> {
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
    let program = load_nothing(KPROBE, 0, 0)?;
    let mut create = Create {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: u32::MAX,
        attach_type: PERF_EVENT,
        flags: 0,
    };
    // SAFETY: numbers only.
    match unsafe { bpf(BPF_LINK_CREATE, &raw mut create) } {
        // SAFETY: a new descriptor that nobody else has.
        Ok(fd) => drop(unsafe { OwnedFd::from_raw_fd(fd as i32) }),
        // It has looked for the probe.
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Whether the kernel looks at LSM programs at all. The one that it is given names no hook, so that it is refused
/// in any case: as invalid where such programs may be loaded (`bpf_prog_load_check_attach`), else for another reason.
pub(super) fn try_lsm_program() -> io::Result<()> {
    /// BPF_PROG_TYPE_LSM.
    const LSM: u32 = 29;
    /// BPF_LSM_MAC.
    const LSM_MAC: u32 = 27;
    match load_nothing(LSM, LSM_MAC, 0) {
        Err(error) if error.raw_os_error() != Some(libc::EINVAL) => Err(error),
        _ => Ok(()),
    }
}

/// Whether the kernel takes a program at the entry of one of its functions, named by its BTF id.
pub(super) fn try_function_program(function: u32) -> io::Result<()> {
    /// BPF_PROG_TYPE_TRACING.
    const TRACING: u32 = 26;
    /// BPF_TRACE_FENTRY.
    const FENTRY: u32 = 24;
    load_nothing(TRACING, FENTRY, function).map(drop)
}

/// Makes an array of so many pages: the map of an image.
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
    // SAFETY: numbers only.
    let fd = unsafe { bpf(BPF_MAP_CREATE, &raw mut create) }?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Writes a page of an image.
pub(super) fn write_page(map: BorrowedFd<'_>, number: u32, page: &Page) -> io::Result<()> {
    let mut update = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const number as u64,
        value: page.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: key (4 bytes) and value (a page, the size of the map's values) live until the call returns.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &raw mut update) }.map(drop)
}

/// Reads a page of an image.
pub(super) fn read_page(map: BorrowedFd<'_>, number: u32) -> io::Result<Page> {
    let mut page = [0; PAGE_WORDS];
    let mut lookup = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const number as u64,
        value: page.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: as in `write_page`.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &raw mut lookup) }?;
    Ok(page)
}

/// Puts an inner map into a slot of an array of maps, at once. Returns when no program uses the one
/// that was there any more (`maybe_wait_bpf_programs`, kernel/bpf/syscall.c, Linux 4.20).
pub(super) fn update_inner(map: BorrowedFd<'_>, slot: u32, inner: BorrowedFd<'_>) -> io::Result<()> {
    let inner = inner.as_raw_fd();
    let mut update = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const slot as u64,
        value: &raw const inner as u64,
        flags: 0,
    };
    // SAFETY: key and value (4 bytes each) live until the call returns.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &raw mut update) }.map(drop)
}

/// The inner map in a slot of an array of maps; `None` where the slot is empty.
pub(super) fn inner_of(map: BorrowedFd<'_>, slot: u32) -> io::Result<Option<OwnedFd>> {
    let mut id = 0u32;
    let mut lookup = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const slot as u64,
        value: &raw mut id as u64,
        flags: 0,
    };
    // SAFETY: key and value (4 bytes each) live until the call returns.
    match unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &raw mut lookup) } {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    }
    #[repr(C)]
    struct GetById {
        id: u32,
        next_id: u32,
        open_flags: u32,
    }
    let mut get = GetById {
        id,
        next_id: 0,
        open_flags: 0,
    };
    // SAFETY: numbers only.
    let fd = unsafe { bpf(BPF_MAP_GET_FD_BY_ID, &raw mut get) }?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// Empties a slot of an array of maps; one that is empty already is fine.
pub(super) fn delete_inner(map: BorrowedFd<'_>, slot: u32) -> io::Result<()> {
    let mut delete = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const slot as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: the key (4 bytes) lives until the call returns.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &raw mut delete) } {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
        _ => Ok(()),
    }
}

/// Puts many inner maps into an array of maps. Each update of one waits until no program uses what
/// was there (some milliseconds, `maybe_wait_bpf_programs`); this waits once for all of them where the
/// kernel has batches for this kind of map (Linux 5.17).
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
    // SAFETY: keys and values are `count` times four bytes and live until the call returns.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &raw mut batch) }.map(drop)
}

/// The path as bpf(2) takes it.
fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The fields of the commands on pins.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    file_flags: u32,
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

/// Opens what is pinned.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut pin = Pin {
        path: path.as_ptr() as u64,
        fd: 0,
        file_flags: 0,
    };
    // SAFETY: the path ends with a NUL and lives until the call returns.
    let fd = unsafe { bpf(BPF_OBJ_GET, &raw mut pin) }?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The cgroup that a link attaches to: 0 once that is gone, or the link was detached by force
/// (`bpf_cgroup_link_fill_link_info`, kernel/bpf/cgroup.c).
pub(super) fn cgroup_of_link(link: BorrowedFd<'_>) -> io::Result<u64> {
    /// `struct bpf_link_info` with the fields of links to cgroups.
    #[repr(C)]
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
    // SAFETY: numbers only: all zero is one of its values.
    let mut info: LinkInfo = unsafe { std::mem::zeroed() };
    let mut get = GetInfo {
        fd: link.as_raw_fd() as u32,
        length: size_of::<LinkInfo>() as u32,
        info: &raw mut info as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes of `info`, which lives until the call returns.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &raw mut get) }?;
    Ok(info.cgroup_id)
}

/// Reads the first value of an array whose values are `N` words.
pub(super) fn read_first<const N: usize>(map: BorrowedFd<'_>, words: &mut [u64; N]) -> io::Result<()> {
    let first = 0u32;
    let mut lookup = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: &raw const first as u64,
        value: words.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: key (4 bytes) and value (the size of the map's values, as the caller made it) live until
    // the call returns.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &raw mut lookup) }.map(drop)
}
