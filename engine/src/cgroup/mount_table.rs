//! `/proc/self/mountinfo`: which mounts there are, and which of them a path still leads to.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

/// One line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    id: u32,
    parent: u32,
    /// The directory of the file system that is the root of this mount.
    pub(crate) root: PathBuf,
    pub(crate) mount_point: PathBuf,
    /// Options of this mount alone, not of the file system behind it.
    options: Vec<u8>,
    pub(crate) fs_type: Vec<u8>,
    super_options: Vec<u8>,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = number(fields.next()?)?;
        let parent = number(fields.next()?)?;
        let _device = fields.next()?;
        let root = unescape(fields.next()?);
        let mount_point = unescape(fields.next()?);
        let options = fields.next()?.to_vec();
        // Any number of optional fields, up to a lone hyphen.
        fields.by_ref().find(|field| *field == b"-")?;
        let fs_type = fields.next()?.to_vec();
        let _source = fields.next()?;
        let super_options = fields.next().unwrap_or_default().to_vec();
        Some(Mount {
            id,
            parent,
            root,
            mount_point,
            options,
            fs_type,
            super_options,
        })
    }

    /// Whether nothing can be written through this mount.
    pub(crate) fn read_only(&self) -> bool {
        [&self.options, &self.super_options]
            .into_iter()
            .any(|options| has_option(options, b"ro"))
    }

    /// The flags that mount(2) wants repeated when it changes others of them.
    pub(crate) fn flags(&self) -> libc::c_ulong {
        [
            (&b"ro"[..], libc::MS_RDONLY),
            (b"nosuid", libc::MS_NOSUID),
            (b"nodev", libc::MS_NODEV),
            (b"noexec", libc::MS_NOEXEC),
            (b"noatime", libc::MS_NOATIME),
            (b"nodiratime", libc::MS_NODIRATIME),
            (b"relatime", libc::MS_RELATIME),
        ]
        .into_iter()
        .filter(|(name, _)| has_option(&self.options, name))
        .fold(0, |flags, (_, flag)| flags | flag)
    }
}

/// All mounts of the caller's mount namespace below its root directory.
#[derive(Clone, Debug)]
pub(crate) struct MountTable(Vec<Mount>);

impl MountTable {
    pub(crate) fn read() -> io::Result<MountTable> {
        MountTable::parse(&fs::read("/proc/self/mountinfo")?)
    }

    pub(crate) fn parse(text: &[u8]) -> io::Result<MountTable> {
        text.split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                Mount::parse(line).ok_or_else(|| {
                    let line = String::from_utf8_lossy(line);
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("cannot read the line `{line}`"),
                    )
                })
            })
            .collect::<io::Result<_>>()
            .map(MountTable)
    }

    /// The mounts of a type whose mount point, as a path, leads to them: not those that a later
    /// mount at the same place or above it hides.
    pub(crate) fn reachable(&self, fs_type: &'static str) -> impl Iterator<Item = &Mount> {
        self.0
            .iter()
            .filter(move |mount| mount.fs_type == fs_type.as_bytes() && !self.hidden(mount))
    }

    fn hidden(&self, mount: &Mount) -> bool {
        // The way up from the mount. Hidden is what has another mount grow out of that way, at a
        // place the path to the mount passes.
        let mut way = vec![mount.id];
        let mut parent = mount.parent;
        while let Some(above) = self.0.iter().find(|other| other.id == parent) {
            if way.contains(&above.id) {
                break;
            }
            way.push(above.id);
            parent = above.parent;
        }
        self.0.iter().any(|other| {
            !way.contains(&other.id)
                && way.contains(&other.parent)
                && mount.mount_point.starts_with(&other.mount_point)
        })
    }
}

fn number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn has_option(options: &[u8], name: &[u8]) -> bool {
    options.split(|&byte| byte == b',').any(|option| option == name)
}

/// The kernel writes space, tab, newline, backslash and `#` as a backslash and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        plain.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(plain))
}

/// The cgroup2 path in the text of `/proc/<pid>/cgroup`: what stands behind `0::`.
pub(crate) fn unified_path(text: &[u8]) -> Option<PathBuf> {
    text.split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))
        .map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(text: &str) -> Vec<String> {
        MountTable::parse(text.as_bytes())
            .unwrap()
            .reachable("cgroup2")
            .map(|mount| mount.mount_point.display().to_string())
            .collect()
    }

    #[test]
    fn fields_with_and_without_optional_ones() {
        let with = b"41 31 0:38 /a /sys/fs/cgroup ro,nosuid,relatime shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate";
        let mount = Mount::parse(with).unwrap();
        assert_eq!(mount.root, PathBuf::from("/a"));
        assert_eq!(mount.mount_point, PathBuf::from("/sys/fs/cgroup"));
        assert_eq!(mount.fs_type, b"cgroup2");
        assert!(mount.read_only());
        assert_eq!(
            mount.flags(),
            libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_RELATIME
        );
        let without = Mount::parse(b"41 31 0:38 / /c rw - cgroup2 none rw").unwrap();
        assert!(!without.read_only());
        assert_eq!(without.flags(), 0);
    }

    #[test]
    fn octal_escapes() {
        assert_eq!(
            unescape(br"/with\040space\134and\012line"),
            PathBuf::from("/with space\\and\nline")
        );
        // Not an escape: left as it is.
        assert_eq!(unescape(br"/a\04"), PathBuf::from(r"/a\04"));
        assert_eq!(unescape(br"/a\999"), PathBuf::from(r"/a\999"));
    }

    #[test]
    fn a_broken_line_is_an_error() {
        assert!(MountTable::parse(b"41 31 0:38 / /c rw cgroup2 none rw\n").is_err());
        assert!(MountTable::parse(b"x 31 0:38 / /c rw - cgroup2 none rw\n").is_err());
    }

    #[test]
    fn several_mounts_are_all_seen() {
        let text = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                    2 1 0:5 / /sys rw - sysfs sysfs rw\n\
                    3 2 0:6 / /sys/fs/cgroup rw - tmpfs t rw\n\
                    4 3 0:7 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n\
                    5 1 0:7 /x /mnt/bind rw - cgroup2 c rw\n";
        assert_eq!(points(text), ["/sys/fs/cgroup/unified", "/mnt/bind"]);
    }

    #[test]
    fn a_mount_on_top_hides() {
        let base = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                    2 1 0:5 / /sys rw - sysfs sysfs rw\n\
                    3 2 0:7 / /sys/fs/cgroup rw - cgroup2 c rw\n";
        assert_eq!(points(base), ["/sys/fs/cgroup"]);
        // On the same directory, on a directory above, and beside it.
        assert!(points(&format!("{base}4 3 0:9 / /sys/fs/cgroup rw - tmpfs t rw\n")).is_empty());
        assert!(points(&format!("{base}4 2 0:9 / /sys rw - tmpfs t rw\n")).is_empty());
        assert!(points(&format!("{base}4 2 0:9 / /sys/fs rw - tmpfs t rw\n")).is_empty());
        assert_eq!(
            points(&format!("{base}4 2 0:9 / /sys/fs/cgroup2 rw - tmpfs t rw\n")).len(),
            1
        );
        // A second cgroup2 on top is the one that counts.
        let twice = format!("{base}4 3 0:7 / /sys/fs/cgroup ro - cgroup2 c rw\n");
        assert_eq!(points(&twice), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn the_unified_line() {
        let text = b"2:cpu:/x\n1:name=systemd:/y\n0::/user.slice/a b\n";
        assert_eq!(unified_path(text), Some(PathBuf::from("/user.slice/a b")));
        assert_eq!(unified_path(b"2:cpu:/x\n"), None);
    }
}
