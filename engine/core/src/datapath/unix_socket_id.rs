//! Identities of the unix sockets that a policy names by path.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, OpenOptions},
    io,
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::{Component, Path, PathBuf},
};

use engine_common::UnixSocketId;

use super::executable::IdentifyError;
use crate::compile::identity::components;
use crate::procfs::Mount;

/// Symbolic links that the kernel follows in one path (MAXSYMLINKS, include/linux/namei.h).
const MAX_LINKS: u32 = 40;

/// The identities of the socket at a path, which need not exist yet: that of the resolved path. If the last component is a
/// symbolic link, also that of the link, which may be replaced by a socket.
pub(super) fn ids_of(path: &Path) -> Result<Vec<UnixSocketId>, IdentifyError> {
    let mut ids = Vec::new();
    for end in ends_of(path).map_err(failed(path))? {
        let id = id_of(path, &end)?;
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// The resolved path, preceded by those of symbolic links that it is reached by as the last component. None of these paths
/// has a symbolic link in its directories. A component that does not exist is treated as a directory.
fn ends_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut ends = Vec::new();
    let mut resolved = PathBuf::from("/");
    let mut left: VecDeque<OsString> = parts_of(path).collect();
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            resolved.pop();
            continue;
        }
        let next = resolved.join(part);
        let is_link = match fs::symlink_metadata(&next) {
            Ok(found) => found.is_symlink(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if !is_link {
            resolved = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let target = fs::read_link(&next)?;
        if left.is_empty() {
            ends.push(next);
        }
        if target.is_absolute() {
            resolved = PathBuf::from("/");
        }
        for part in parts_of(&target).rev() {
            left.push_front(part);
        }
    }
    ends.push(resolved);
    Ok(ends)
}

fn parts_of(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    parts.collect::<Vec<_>>().into_iter()
}

/// The identity at a path without symbolic links in its directories.
fn id_of(named: &Path, path: &Path) -> Result<UnixSocketId, IdentifyError> {
    // Includes the path itself, which may be a mount point.
    let existing = path.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(existing.unwrap_or(Path::new("/")))
        .map_err(failed(named))?;
    let mount = Mount::of(opened.as_fd(), Path::new("/proc/self/mountinfo")).map_err(failed(named))?;
    let no_mount = || IdentifyError::NoMount {
        path: named.to_owned(),
    };
    let mount = mount.ok_or_else(no_mount)?;
    if mount.fs_type.starts_with("nfs") {
        // Its mounts always show `/` as their root (`nfs_show_path`, fs/nfs/super.c).
        return Err(IdentifyError::UnstableIdentity {
            path: named.to_owned(),
            file_system: mount.fs_type,
        });
    }
    let below = path.strip_prefix(&mount.mount_point).map_err(|_| no_mount())?;
    let inside = mount.root.join(below);
    let too_long = |part: &[u8]| part.len() > UnixSocketId::MAX_COMPONENT;
    if inside.iter().any(|part| too_long(part.as_bytes())) {
        return Err(failed(named)(io::Error::from_raw_os_error(libc::ENAMETOOLONG)));
    }
    let depth = components(&inside).count();
    if depth > UnixSocketId::MAX_DEPTH {
        return Err(IdentifyError::TooDeep {
            path: named.to_owned(),
            depth,
        });
    }
    Ok(UnixSocketId::in_file_system(mount.device, components(&inside)))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> IdentifyError {
    let path = path.to_owned();
    move |source| IdentifyError::Socket {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symbolic_links_and_missing_directories() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let one = |path: &Path| match ids_of(path).unwrap()[..] {
            [id] => id,
            ref ids => panic!("{ids:?}"),
        };
        fs::create_dir(at("a")).unwrap();
        symlink("a", at("link")).unwrap();
        assert_eq!(one(&at("a/x.sock")), one(&at("link/x.sock")));
        assert_ne!(one(&at("a/x.sock")), one(&at("a/y.sock")));
        // It is the same socket when the directory is created later.
        let before = one(&at("b/c/x.sock"));
        fs::create_dir_all(at("b/c")).unwrap();
        assert_eq!(one(&at("b/c/x.sock")), before);
        // A link to a socket, before and after the socket is created: the link and its target.
        symlink("b/c/later.sock", at("z.sock")).unwrap();
        let early = ids_of(&at("z.sock")).unwrap();
        assert!(early.contains(&one(&at("b/c/later.sock"))), "{early:?}");
        fs::write(at("b/c/x.sock"), "").unwrap();
        symlink("b/c/x.sock", at("y.sock")).unwrap();
        let both = ids_of(&at("y.sock")).unwrap();
        assert!(both.len() == 2 && both.contains(&before), "{both:?}");
        // A link to a directory that does not exist yet; a link to a link.
        symlink("later", at("soon")).unwrap();
        assert_eq!(one(&at("soon/x.sock")), one(&at("later/x.sock")));
        symlink("../y.sock", at("a/w.sock")).unwrap();
        let all = ids_of(&at("a/w.sock")).unwrap();
        assert!(all.len() == 3 && all.contains(&before), "{all:?}");
        symlink("circle", at("circle")).unwrap();
        assert!(matches!(ids_of(&at("circle")), Err(IdentifyError::Socket { .. })));
    }
}
