//! File systems, modules and the loopback device: what a distribution's start would have done.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    os::unix::fs::{PermissionsExt, symlink},
};

use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// Type, place, options. In this order: one may lie in another.
const MOUNTS: [(&str, &str, &str); 9] = [
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", "mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("bpf", "/sys/fs/bpf", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
];

/// Mounts the kernel's file systems where a distribution has them. `/tmp` is part of the first one, which is
/// all in memory: the tests themselves may lie below it.
///
/// # Errors
/// When one cannot be mounted.
pub(crate) fn mount_all() -> Result<()> {
    for (kind, place, options) in MOUNTS {
        // The kernel makes those below /sys itself; where it does not, it lacks the file system.
        let _ = fs::create_dir_all(place);
        let options = (!options.is_empty()).then_some(options);
        match mount(Some(kind), place, Some(kind), MsFlags::empty(), options) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("{kind} on {place}")),
        }
    }
    fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)).context("/tmp")?;
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, link).with_context(|| link.to_owned())?;
    }
    Ok(())
}

/// Loads a module from its file.
///
/// # Errors
/// When the kernel does not take it. That it has it already is fine.
pub(crate) fn load(path: &str) -> Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sets `lo` of the first namespace up; tests make others.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn loopback_up() -> Result<()> {
    let socket = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: plain numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, letter) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = letter as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is an ifreq, as SIOCSIFFLAGS wants it, and lives through the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if answer != 0 {
        return Err(io::Error::last_os_error()).context("lo does not come up");
    }
    Ok(())
}
