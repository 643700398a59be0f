//! The content of an initramfs: programs with the shared libraries they need, at the same paths as on this machine.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

use super::matrix::matches;
use crate::command::stdout_of;

/// What a path in the initramfs is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Link(PathBuf),
    /// A file with this content.
    Text(Vec<u8>),
    /// A copy of this file, with its mode and modification time (Python uses a compiled file only when the source has
    /// the time recorded in it).
    Copy(PathBuf),
}

/// Absolute paths and their entries. A directory sorts before its content.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<PathBuf, Entry>);

impl Tree {
    /// Adds an entry and its parent directories. Symbolic links to directories are resolved as on this machine.
    pub(crate) fn put(&mut self, path: &Path, entry: Entry) {
        let path = self.resolved(path);
        // It may be a link to a directory already.
        if entry == Entry::Directory && self.0.contains_key(&path) {
            return;
        }
        self.0.insert(path, entry);
    }

    /// Whether the tree has this path.
    pub(crate) fn has(&self, path: &Path) -> bool {
        path.parent()
            .and_then(|parent| Some(resolve(parent).join(path.file_name()?)))
            .is_some_and(|path| self.0.contains_key(&path))
    }

    /// Adds a copy of a file at its own path.
    ///
    /// # Errors
    /// When the file does not exist.
    pub(crate) fn copy(&mut self, path: &Path) -> Result<()> {
        self.copy_as(path, path)
    }

    /// Adds a copy of a file at another path; follows links.
    ///
    /// # Errors
    /// When the file does not exist.
    pub(crate) fn copy_as(&mut self, source: &Path, path: &Path) -> Result<()> {
        let source = fs::canonicalize(source).with_context(|| source.display().to_string())?;
        self.put(path, Entry::Copy(source));
        Ok(())
    }

    /// Adds a program or library and all shared libraries that it needs.
    ///
    /// # Errors
    /// When a library is missing.
    pub(crate) fn program(&mut self, source: &Path, path: &Path) -> Result<()> {
        self.copy_as(source, path)?;
        for library in libraries(source)? {
            if !self.has(&library) {
                self.copy(&library)?;
            }
        }
        Ok(())
    }

    /// Adds a directory below `root` with everything in it, at its path relative to `root`; leaves out entries whose names
    /// match a pattern.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn directory(&mut self, root: &Path, directory: &Path, without: &[&str]) -> Result<()> {
        let source = root.join(directory);
        for entry in fs::read_dir(&source).with_context(|| source.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name();
            if without.iter().any(|glob| matches(glob, &name.to_string_lossy())) {
                continue;
            }
            let below = directory.join(&name);
            let path = Path::new("/").join(&below);
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.put(&path, Entry::Directory);
                self.directory(root, &below, without)?;
            } else if kind.is_symlink() {
                self.put(&path, Entry::Link(fs::read_link(entry.path())?));
            } else {
                self.put(&path, Entry::Copy(entry.path()));
            }
        }
        Ok(())
    }

    /// The path without links (`/bin` may link to `/usr/bin`); adds its parent directories.
    fn resolved(&mut self, path: &Path) -> PathBuf {
        let parent = path.parent().unwrap_or(path);
        let parent = resolve(parent);
        let above: Vec<PathBuf> = parent.ancestors().map(Path::to_owned).collect();
        for directory in above.into_iter().rev().skip(1) {
            self.0.entry(directory).or_insert(Entry::Directory);
        }
        path.file_name()
            .map_or_else(|| parent.clone(), |name| parent.join(name))
    }

    /// Appends the tree to a cpio archive of the format that the kernel unpacks ("newc"). A kernel unpacks several
    /// archives in one file one after the other.
    ///
    /// busybox archives a directory tree, so the tree is first created beside the archive. Copies are symbolic links there,
    /// which busybox follows.
    ///
    /// # Errors
    /// When a file cannot be read or written, or busybox fails.
    pub(crate) fn append_to(&self, archive: &Path) -> Result<()> {
        let staging = archive.with_extension("staging");
        if staging.exists() {
            fs::remove_dir_all(&staging).with_context(|| staging.display().to_string())?;
        }
        fs::create_dir_all(&staging).with_context(|| staging.display().to_string())?;
        // Set explicitly, because of the umask.
        let set_mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
        let (mut plain, mut copies) = (Vec::new(), Vec::new());
        for (path, entry) in &self.0 {
            let name = path.strip_prefix("/").unwrap_or(path);
            let staged = staging.join(name);
            match entry {
                Entry::Directory => fs::create_dir(&staged).and_then(|()| set_mode(&staged, 0o755)),
                Entry::Text(text) => fs::write(&staged, text).and_then(|()| set_mode(&staged, 0o644)),
                Entry::Link(target) | Entry::Copy(target) => symlink(target, &staged),
            }
            .with_context(|| staged.display().to_string())?;
            let names = if matches!(entry, Entry::Copy(_)) {
                &mut copies
            } else {
                &mut plain
            };
            names.push(name.as_os_str());
        }
        // Directories first: the kernel does not create missing ones.
        cpio(&staging, archive, &plain, false)?;
        cpio(&staging, archive, &copies, true)?;
        fs::remove_dir_all(&staging).with_context(|| staging.display().to_string())
    }
}

fn cpio(staging: &Path, archive: &Path, names: &[&OsStr], follow_links: bool) -> Result<()> {
    let archive = File::options().create(true).append(true).open(archive)?;
    let mut busybox = Command::new("busybox");
    busybox.args(["cpio", "-o", "-0", "-H", "newc", "-R", "0:0"]);
    if follow_links {
        busybox.arg("-L");
    }
    let mut child = busybox
        .current_dir(staging)
        .stdin(Stdio::piped())
        .stdout(archive)
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run busybox (Debian package busybox-static): run `cargo xtask setup`")?;
    let mut list = Vec::new();
    for name in names {
        list.extend(name.as_bytes());
        list.push(0);
    }
    // Dropped after writing: the end of the input ends the list.
    let mut stdin = child.stdin.take().context("busybox cpio has no standard input")?;
    let written = stdin.write_all(&list);
    drop(stdin);
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "busybox cpio failed: {}", stderr.trim());
    written.context("busybox cpio did not read its list")
}

/// The path of a directory on this machine without links; unchanged if it does not exist.
fn resolve(directory: &Path) -> PathBuf {
    fs::canonicalize(directory).unwrap_or_else(|_| directory.to_owned())
}

/// The shared libraries that the loader would load.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let Some(output) = stdout_of(Command::new("ldd").arg(program)) else {
        // A script, or linked statically.
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for line in output.lines() {
        ensure!(
            !line.contains("not found"),
            "{}: {}",
            program.display(),
            line.trim()
        );
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, `/lib64/ld-linux-x86-64.so.2 (0x...)`
        let library = line
            .rsplit_once("=> ")
            .map_or(line, |(_, library)| library)
            .trim();
        if let Some((path, _)) = library.split_once(" (")
            && path.starts_with('/')
        {
            found.push(PathBuf::from(path));
        }
    }
    if found.is_empty() && output.contains("=>") {
        bail!("{}: unexpected output of ldd:\n{output}", program.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::find_on_path;

    #[test]
    fn parent_directories_are_added() {
        let mut tree = Tree::default();
        let path = Path::new("/no-such-top/inner/file");
        tree.put(path, Entry::Text(Vec::new()));
        let paths: Vec<&Path> = tree.0.keys().map(PathBuf::as_path).collect();
        let expected = ["/no-such-top", "/no-such-top/inner", "/no-such-top/inner/file"];
        assert_eq!(paths, expected.map(Path::new));
        assert!(tree.has(path) && !tree.has(Path::new("/other")));
    }

    #[test]
    fn the_archive_has_every_kind_of_entry() {
        if find_on_path("busybox").is_none() {
            return;
        }
        let directory = std::env::temp_dir().join(format!("tidegate-xtask-tree-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (program, archive) = (directory.join("program"), directory.join("test.cpio"));
        fs::write(&program, "copied").unwrap();
        // A file with several hard links must be archived with its content.
        fs::hard_link(&program, directory.join("other-name")).unwrap();
        for name in ["first", "second"] {
            let mut tree = Tree::default();
            let inside = Path::new("/no-such-top").join(name);
            tree.put(&inside.join("text"), Entry::Text(b"text".to_vec()));
            tree.put(&inside.join("link"), Entry::Link("text".into()));
            tree.put(&inside.join("copy"), Entry::Copy(program.clone()));
            tree.append_to(&archive).unwrap();
        }
        let bytes = fs::read(&archive).unwrap();
        let count = |text: &str| {
            bytes
                .windows(text.len())
                .filter(|part| *part == text.as_bytes())
                .count()
        };
        // Two archives for each tree: one with copies, one with everything else.
        assert_eq!(count("TRAILER!!!\0"), 4);
        for name in [
            "no-such-top/first\0",
            "no-such-top/first/link\0",
            "no-such-top/second/text\0",
        ] {
            assert_eq!(count(name), 1, "{name:?}");
        }
        assert_eq!(count("copied"), 2);
        // Symbolic link, file, directory; copies are files. The field after it is the owner.
        for (mode, entries) in [
            ("0000A1FF00000000", 2),
            ("000081A400000000", 4),
            ("000041ED00000000", 4),
        ] {
            assert_eq!(count(mode), entries, "{mode}");
        }
        assert!(!archive.with_extension("staging").exists());
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_directory_is_added_without_what_is_left_out() {
        let root = std::env::temp_dir().join(format!("tidegate-xtask-root-{}", std::process::id()));
        let units = root.join("no-such-top/units");
        fs::create_dir_all(units.join("boot.wants")).unwrap();
        fs::write(units.join("boot"), "").unwrap();
        symlink("boot", units.join("alias")).unwrap();
        let mut tree = Tree::default();
        let added = tree.directory(&root, Path::new("no-such-top"), &["*.wants"]);
        fs::remove_dir_all(&root).unwrap();
        added.unwrap();
        let below = Path::new("/no-such-top/units");
        let expected = [
            (PathBuf::from("/no-such-top"), Entry::Directory),
            (below.to_owned(), Entry::Directory),
            (below.join("alias"), Entry::Link("boot".into())),
            (below.join("boot"), Entry::Copy(units.join("boot"))),
        ];
        assert_eq!(tree.0, expected.into());
    }

    #[test]
    fn libraries_of_a_program_are_added() {
        let mut tree = Tree::default();
        let shell = Path::new("/bin/sh");
        tree.program(shell, shell).unwrap();
        assert!(tree.has(shell));
        let loader = |path: &PathBuf| path.to_string_lossy().contains("/ld-");
        assert!(tree.0.keys().any(loader), "{:?}", tree.0.keys());
    }
}
