//! `/proc/<pid>/cgroup` (cgroups(7)).

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// The cgroup2 path in the text of `/proc/<pid>/cgroup`: the rest of the line that starts with `0::`. It is relative
/// to the root of the reader's cgroup namespace.
pub(crate) fn unified_path(text: &[u8]) -> Option<PathBuf> {
    text.split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))
        .map(|path| Path::new(OsStr::from_bytes(path)).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_that_of_the_line_without_a_controller() {
        let text = b"2:cpu:/x\n1:name=systemd:/y\n0::/user.slice/a b\n";
        assert_eq!(unified_path(text), Some(PathBuf::from("/user.slice/a b")));
        assert_eq!(unified_path(b"2:cpu:/x\n"), None);
    }
}
