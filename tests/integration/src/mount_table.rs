//! The mount points of the kernel's file systems, which differ between machines.

use std::{fs, path::PathBuf};

/// Mount point of the first mount of this file system type whose root is the root of the file system.
///
/// # Panics
/// When /proc/self/mountinfo cannot be read.
pub fn mount_of(kind: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    // Fields: id, parent, device, root, mount point, options, ..., "-", type.
    mounts.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        let is_it = rest.split(' ').next() == Some(kind) && root == "/";
        is_it.then(|| PathBuf::from(at))
    })
}
