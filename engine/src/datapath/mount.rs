//! Which mount a file is on, by `/proc/<pid>/mountinfo` (Documentation/filesystems/proc.rst, 3.5).

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStringExt,
    },
    path::PathBuf,
};

/// A mount.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// In the kernel's encoding, see [`engine_common::ExecutableId::device`]. That of the superblock: `st_dev` may be
    /// another number (btrfs).
    pub(super) device: u64,
    /// The folder of the file system that is the root of this mount.
    pub(super) root: PathBuf,
    /// Where it is mounted.
    pub(super) mount_point: PathBuf,
    /// The file system's type.
    pub(super) file_system: String,
}

impl Mount {
    /// The mount of an open file; `mounts` is the path of a mountinfo. `None` where that does not list it.
    pub(super) fn of(file: BorrowedFd<'_>, mounts: &str) -> io::Result<Option<Mount>> {
        // Other mounts may have names that are no text.
        let mounts = fs::read(mounts)?;
        let mounts = String::from_utf8_lossy(&mounts);
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"));
        Ok(id.and_then(|id| mount_of(&mounts, id.trim())))
    }
}

fn mount_of(mountinfo: &str, id: &str) -> Option<Mount> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ');
        if fields.next()? != id {
            return None;
        }
        let (major, minor) = fields.nth(1)?.split_once(':')?;
        Some(Mount {
            device: major.parse::<u64>().ok()? << 20 | minor.parse::<u64>().ok()?,
            root: unescape(fields.next()?),
            mount_point: unescape(fields.next()?),
            file_system: right.split(' ').next()?.to_owned(),
        })
    })
}

/// The kernel writes blanks, tabs, line feeds and backslashes as a backslash and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let bytes = field.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let digits = bytes.get(at + 1..at + 4).filter(|_| byte == b'\\');
        let octal = digits.and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        plain.push(octal.unwrap_or(byte));
        at += if octal.is_some() { 4 } else { 1 };
    }
    std::ffi::OsString::from_vec(plain).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_id() {
        let text = "36 35 98:1 /a /b\\040c rw shared:1 - ext4 /dev/root rw\n361 35 0:27 / /c rw - overlay overlay rw\n";
        let mount = mount_of(text, "36").unwrap();
        assert_eq!((mount.device, mount.file_system.as_str()), (98 << 20 | 1, "ext4"));
        assert_eq!((mount.root, mount.mount_point), ("/a".into(), "/b c".into()));
        assert_eq!(mount_of(text, "361").unwrap().file_system, "overlay");
        assert_eq!(mount_of(text, "3"), None);
    }
}
