//! File systems, modules and the loopback device, as a distribution sets them up at boot.

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

/// Type, mount point, options; parents before children.
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

/// Mounts the kernel's file systems at their usual mount points.
///
/// # Errors
/// When one cannot be mounted.
pub(crate) fn mount_all() -> Result<()> {
    for (kind, target, options) in MOUNTS {
        // The kernel creates mount points below /sys for the file systems that it supports.
        let _ = fs::create_dir_all(target);
        let options = (!options.is_empty()).then_some(options);
        match mount(Some(kind), target, Some(kind), MsFlags::empty(), options) {
            Ok(()) | Err(Errno::EBUSY) => {}
            Err(error) => return Err(error).with_context(|| format!("{kind} on {target}")),
        }
    }
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

/// Lets every user write to `/tmp`. It is part of the root file system, which is in memory and may contain the tests.
///
/// # Errors
/// When it does not exist.
pub(crate) fn open_tmp() -> Result<()> {
    fs::set_permissions("/tmp", fs::Permissions::from_mode(0o1777)).context("/tmp")
}

/// Loads a module from its file. A loaded module is not an error.
///
/// # Errors
/// When the kernel refuses the module.
pub(crate) fn load(path: &str) -> Result<()> {
    let file = File::open(path)?;
    match finit_module(&file, c"", ModuleInitFlags::empty()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Sets the loopback device of the initial network namespace up.
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
    // SAFETY: plain integers, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, letter) in request.ifr_name.iter_mut().zip(*b"lo") {
        *target = letter as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS takes an ifreq, which is valid through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if result != 0 {
        return Err(io::Error::last_os_error()).context("cannot set lo up");
    }
    Ok(())
}
