//! Where the unix sockets are that a policy names by their paths.

use std::{
    fs::{self, OpenOptions},
    io,
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use engine_common::SocketPlace;

use super::{executable::IdentifyError, mount::Mount};
use crate::compile::identity::components;

/// The places of the socket at a path, whether it is there yet or not: where the path leads, and, where it is a symbolic
/// link, also where it is itself, since the link may give way to a socket.
pub(super) fn places_of(path: &Path) -> Result<Vec<SocketPlace>, IdentifyError> {
    let mut places = vec![place_of(path, &led_to(path)?)?];
    if let Ok(followed) = fs::canonicalize(path) {
        let other = place_of(path, &followed)?;
        if !places.contains(&other) {
            places.push(other);
        }
    }
    Ok(places)
}

/// The path with its folders followed, as far as there are some, and its own name.
fn led_to(path: &Path) -> Result<PathBuf, IdentifyError> {
    let mut missing = Vec::new();
    let mut here = path;
    while let (Some(parent), Some(name)) = (here.parent(), here.file_name()) {
        missing.push(name);
        match fs::canonicalize(parent) {
            Ok(mut found) => {
                found.extend(missing.iter().rev());
                return Ok(found);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => here = parent,
            Err(error) => return Err(failed(path)(error)),
        }
    }
    Ok(path.to_owned())
}

/// The place of a path without symbolic links.
fn place_of(named: &Path, path: &Path) -> Result<SocketPlace, IdentifyError> {
    let folder = path.ancestors().skip(1).find(|folder| folder.is_dir());
    let folder = folder.unwrap_or(Path::new("/"));
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(folder)
        .map_err(failed(named))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(failed(named))?;
    let mount = Mount::of(opened.as_fd(), &mounts).map_err(failed(named))?;
    let no_mount = || IdentifyError::NoMount {
        path: named.to_owned(),
    };
    let mount = mount.ok_or_else(no_mount)?;
    let below = path.strip_prefix(&mount.mount_point).map_err(|_| no_mount())?;
    let inside = mount.root.join(below);
    let depth = components(&inside).count();
    if depth > SocketPlace::MAX_DEPTH {
        return Err(IdentifyError::TooDeep {
            path: named.to_owned(),
            depth,
        });
    }
    Ok(SocketPlace::in_file_system(mount.device, components(&inside)))
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
    fn links_and_folders_that_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let one = |path: &Path| match places_of(path).unwrap()[..] {
            [place] => place,
            ref places => panic!("{places:?}"),
        };
        fs::create_dir(at("a")).unwrap();
        symlink("a", at("link")).unwrap();
        assert_eq!(one(&at("a/x.sock")), one(&at("link/x.sock")));
        assert_ne!(one(&at("a/x.sock")), one(&at("a/y.sock")));
        // Where the folder is made later, it is the same place.
        let before = one(&at("b/c/x.sock"));
        fs::create_dir_all(at("b/c")).unwrap();
        assert_eq!(one(&at("b/c/x.sock")), before);
        // A link to a socket: both.
        fs::write(at("b/c/x.sock"), "").unwrap();
        symlink("b/c/x.sock", at("y.sock")).unwrap();
        let both = places_of(&at("y.sock")).unwrap();
        assert!(both.len() == 2 && both.contains(&before), "{both:?}");
    }
}
