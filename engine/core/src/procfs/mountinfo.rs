//! `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)): the mounts of a mount namespace, and which of them their path
//! still leads to.

use std::{
    ffi::OsString,
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    id: u32,
    parent: u32,
    /// Device of the superblock as the kernel encodes it (`MKDEV`: major << 20 | minor). `st_dev` of a file on the
    /// mount may differ (btrfs).
    pub(crate) device: u64,
    /// Directory of the file system that is the root of this mount; not `/` for a bind mount of a subdirectory.
    pub(crate) root: PathBuf,
    /// Relative to the root directory of the process that owns the file.
    pub(crate) mount_point: PathBuf,
    /// File system type, with the subtype (`fuse.sshfs`).
    pub(crate) fs_type: String,
    /// Options of this mount, not of the superblock.
    options: String,
    super_options: String,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|&byte| byte == b' ');
        let id = parse_number(fields.next()?)?;
        let parent = parse_number(fields.next()?)?;
        let device = parse_device(fields.next()?)?;
        let root = unescape(fields.next()?);
        let mount_point = unescape(fields.next()?);
        let options = text(fields.next()?);
        // Any number of optional fields, up to a single hyphen.
        fields.by_ref().find(|field| *field == b"-")?;
        let fs_type = text(fields.next()?);
        let _source = fields.next()?;
        let super_options = fields.next().map(text).unwrap_or_default();
        Some(Mount {
            id,
            parent,
            device,
            root,
            mount_point,
            fs_type,
            options,
            super_options,
        })
    }

    /// The mount of an open file. `mountinfo` is the path of the file to read: it must be that of a process in the
    /// mount namespace through which the file was opened. `None` when it does not list the mount.
    pub(crate) fn of(file: BorrowedFd<'_>, mountinfo: &Path) -> io::Result<Option<Mount>> {
        let table = MountTable::read_from(mountinfo)?;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        let id = info
            .lines()
            .find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok());
        Ok(id.and_then(|id| table.by_id(id).cloned()))
    }

    /// Whether the mount or its superblock is read-only.
    pub(crate) fn read_only(&self) -> bool {
        has_option(&self.options, "ro") || has_option(&self.super_options, "ro")
    }

    /// The flags of this mount in the form of mount(2): a remount resets those that it does not repeat.
    pub(crate) fn flags(&self) -> libc::c_ulong {
        [
            ("ro", libc::MS_RDONLY),
            ("nosuid", libc::MS_NOSUID),
            ("nodev", libc::MS_NODEV),
            ("noexec", libc::MS_NOEXEC),
            ("noatime", libc::MS_NOATIME),
            ("nodiratime", libc::MS_NODIRATIME),
            ("relatime", libc::MS_RELATIME),
        ]
        .into_iter()
        .filter(|(name, _)| has_option(&self.options, name))
        .fold(0, |flags, (_, flag)| flags | flag)
    }
}

/// The mounts of a mount namespace that lie below the root directory of the process whose file was read.
#[derive(Clone, Debug)]
pub(crate) struct MountTable(Vec<Mount>);

impl MountTable {
    /// The mounts of this process.
    pub(crate) fn read() -> io::Result<MountTable> {
        MountTable::read_from(Path::new("/proc/self/mountinfo"))
    }

    /// Parses a mountinfo file. A line that does not parse is an error: isolation must not miss a mount.
    pub(crate) fn read_from(path: &Path) -> io::Result<MountTable> {
        MountTable::parse(&fs::read(path)?)
    }

    pub(crate) fn parse(text: &[u8]) -> io::Result<MountTable> {
        text.split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| {
                Mount::parse(line).ok_or_else(|| {
                    let line = String::from_utf8_lossy(line);
                    io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("cannot parse the line `{line}`"),
                    )
                })
            })
            .collect::<io::Result<_>>()
            .map(MountTable)
    }

    /// The mount with this id (`mnt_id` in `/proc/self/fdinfo`).
    fn by_id(&self, id: u32) -> Option<&Mount> {
        self.0.iter().find(|mount| mount.id == id)
    }

    /// The mounts of a file system type that are visible at their mount point: not those hidden by a later mount on
    /// the same directory or on a directory above.
    pub(crate) fn reachable(&self, fs_type: &'static str) -> impl Iterator<Item = &Mount> {
        self.0
            .iter()
            .filter(move |mount| mount.fs_type == fs_type && !self.is_hidden(mount))
    }

    fn is_hidden(&self, mount: &Mount) -> bool {
        // The mounts between the root and this one. A mount is hidden when another child of one of them covers a
        // prefix of its path.
        let mut ancestors = vec![mount.id];
        let mut parent = mount.parent;
        while let Some(above) = self.by_id(parent) {
            if ancestors.contains(&above.id) {
                break;
            }
            ancestors.push(above.id);
            parent = above.parent;
        }
        self.0.iter().any(|other| {
            !ancestors.contains(&other.id)
                && ancestors.contains(&other.parent)
                && mount.mount_point.starts_with(&other.mount_point)
        })
    }
}

fn parse_number(field: &[u8]) -> Option<u32> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn parse_device(field: &[u8]) -> Option<u64> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(major.parse::<u64>().ok()? << 20 | minor.parse::<u64>().ok()?)
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

fn has_option(options: &str, name: &str) -> bool {
    options.split(',').any(|option| option == name)
}

/// The kernel writes space, tab, newline, backslash and `#` as a backslash and three octal digits (`mangle_path`).
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup2_mount_points(text: &str) -> Vec<String> {
        MountTable::parse(text.as_bytes())
            .unwrap()
            .reachable("cgroup2")
            .map(|mount| mount.mount_point.display().to_string())
            .collect()
    }

    #[test]
    fn optional_fields_are_skipped() {
        let with = b"41 31 0:38 /a /sys/fs/cgroup ro,nosuid,relatime shared:9 master:1 - cgroup2 cgroup2 rw,nsdelegate";
        let mount = Mount::parse(with).unwrap();
        assert_eq!((mount.id, mount.parent, mount.device), (41, 31, 38));
        assert_eq!(mount.root, Path::new("/a"));
        assert_eq!(mount.mount_point, Path::new("/sys/fs/cgroup"));
        assert_eq!(mount.fs_type, "cgroup2");
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
    fn read_only_superblocks_make_a_mount_read_only() {
        let mount = Mount::parse(b"41 31 0:38 / /c rw - cgroup2 none ro,nsdelegate").unwrap();
        assert!(mount.read_only());
        // Only the flags of the mount itself are repeated in a remount.
        assert_eq!(mount.flags(), 0);
    }

    #[test]
    fn sources_and_super_options_may_be_empty() {
        let mount = Mount::parse(b"41 31 0:38 / /c rw - tmpfs  rw").unwrap();
        assert_eq!(
            (mount.fs_type.as_str(), mount.super_options.as_str()),
            ("tmpfs", "rw")
        );
        let mount = Mount::parse(b"41 31 0:38 / /c rw - tmpfs none").unwrap();
        assert_eq!(mount.super_options, "");
    }

    #[test]
    fn octal_escapes() {
        assert_eq!(
            unescape(br"/with\040space\134and\012line\043"),
            Path::new("/with space\\and\nline#")
        );
        // Not an escape: unchanged.
        assert_eq!(unescape(br"/a\04"), Path::new(r"/a\04"));
        assert_eq!(unescape(br"/a\999"), Path::new(r"/a\999"));
    }

    #[test]
    fn a_malformed_line_is_an_error() {
        for line in [
            "41 31 0:38 / /c rw cgroup2 none rw\n",
            "x 31 0:38 / /c rw - cgroup2 none rw\n",
            "41 31 38 / /c rw - cgroup2 none rw\n",
            "41 31 0:38 / /c rw -\n",
            "41 31 0:38 / /c\n",
        ] {
            assert!(MountTable::parse(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn mounts_are_found_by_id() {
        let text = b"36 35 98:1 /a /b\\040c rw shared:1 - ext4 /dev/root rw\n361 35 0:27 / /c\xff rw - overlay overlay rw\n";
        let table = MountTable::parse(text).unwrap();
        let mount = table.by_id(36).unwrap();
        assert_eq!((mount.device, mount.fs_type.as_str()), (98 << 20 | 1, "ext4"));
        assert_eq!(
            (mount.root.as_path(), mount.mount_point.as_path()),
            (Path::new("/a"), Path::new("/b c"))
        );
        assert_eq!(table.by_id(361).unwrap().fs_type, "overlay");
        assert_eq!(table.by_id(3), None);
    }

    #[test]
    fn an_open_file_has_a_mount() {
        let file = fs::File::open("/proc/self/status").unwrap();
        let mount = Mount::of(std::os::fd::AsFd::as_fd(&file), Path::new("/proc/self/mountinfo"))
            .unwrap()
            .unwrap();
        assert_eq!(mount.fs_type, "proc");
    }

    #[test]
    fn bind_mounts_are_listed_beside_the_whole_file_system() {
        let text = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                    2 1 0:5 / /sys rw - sysfs sysfs rw\n\
                    3 2 0:6 / /sys/fs/cgroup rw - tmpfs t rw\n\
                    4 3 0:7 / /sys/fs/cgroup/unified rw - cgroup2 c rw\n\
                    5 1 0:7 /x /mnt/bind rw - cgroup2 c rw\n";
        assert_eq!(
            cgroup2_mount_points(text),
            ["/sys/fs/cgroup/unified", "/mnt/bind"]
        );
    }

    #[test]
    fn overmounted_points_are_not_reachable() {
        let base = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                    2 1 0:5 / /sys rw - sysfs sysfs rw\n\
                    3 2 0:7 / /sys/fs/cgroup rw - cgroup2 c rw\n";
        assert_eq!(cgroup2_mount_points(base), ["/sys/fs/cgroup"]);
        for cover in [
            "4 3 0:9 / /sys/fs/cgroup rw - tmpfs t rw\n",
            "4 2 0:9 / /sys rw - tmpfs t rw\n",
            "4 2 0:9 / /sys/fs rw - tmpfs t rw\n",
        ] {
            assert!(
                cgroup2_mount_points(&format!("{base}{cover}")).is_empty(),
                "{cover}"
            );
        }
        let beside = format!("{base}4 2 0:9 / /sys/fs/cgroup2 rw - tmpfs t rw\n");
        assert_eq!(cgroup2_mount_points(&beside), ["/sys/fs/cgroup"]);
        // A second cgroup2 mount on top is the visible one.
        let twice = format!("{base}4 3 0:7 / /sys/fs/cgroup ro - cgroup2 c rw\n");
        let table = MountTable::parse(twice.as_bytes()).unwrap();
        let visible: Vec<u32> = table.reachable("cgroup2").map(|mount| mount.id).collect();
        assert_eq!(visible, [4]);
    }
}
