//! What is in the first file system: programs with the libraries they ask for, at the paths they have here.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::cpio::{Archive, Entry};
use crate::command::answer;

/// Places and what lies there; a folder sorts before what is in it.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<PathBuf, Entry>);

impl Tree {
    /// Puts something somewhere, with the folders above it as they are here.
    pub(crate) fn put(&mut self, path: &Path, entry: Entry) {
        let path = self.resolved(path);
        // A link that is there already leads where this wants to go.
        if entry == Entry::Folder && self.0.contains_key(&path) {
            return;
        }
        self.0.insert(path, entry);
    }

    /// Whether something is there.
    pub(crate) fn has(&self, path: &Path) -> bool {
        path.parent()
            .and_then(|parent| Some(resolve(parent).join(path.file_name()?)))
            .is_some_and(|path| self.0.contains_key(&path))
    }

    /// A copy of a file at its own place.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn copy(&mut self, path: &Path) -> Result<()> {
        self.copy_as(path, path)
    }

    /// A copy of a file, links followed, at another place.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn copy_as(&mut self, source: &Path, path: &Path) -> Result<()> {
        let source = fs::canonicalize(source).with_context(|| source.display().to_string())?;
        self.put(path, Entry::Copy(source));
        Ok(())
    }

    /// A program or library and all the libraries it asks for.
    ///
    /// # Errors
    /// When one is not found.
    pub(crate) fn program(&mut self, source: &Path, path: &Path) -> Result<()> {
        self.copy_as(source, path)?;
        for library in libraries(source)? {
            if !self.has(&library) {
                self.copy(&library)?;
            }
        }
        Ok(())
    }

    /// Where a place really is, its folders made: `/bin` may lead to `/usr/bin`.
    fn resolved(&mut self, path: &Path) -> PathBuf {
        let parent = path.parent().unwrap_or(path);
        let parent = resolve(parent);
        let above: Vec<PathBuf> = parent.ancestors().map(Path::to_owned).collect();
        for folder in above.into_iter().rev().skip(1) {
            self.0.entry(folder).or_insert(Entry::Folder);
        }
        path.file_name()
            .map_or_else(|| parent.clone(), |name| parent.join(name))
    }

    /// Writes all of it as an archive.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub(crate) fn write<W: Write>(&self, archive: &mut Archive<W>) -> Result<()> {
        self.0
            .iter()
            .try_for_each(|(path, entry)| archive.add(path, entry))
    }
}

/// Where a folder really is here; what is not here is where it is said to be.
fn resolve(folder: &Path) -> PathBuf {
    fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned())
}

/// The libraries that the loader would load.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let Some(said) = answer(Command::new("ldd").arg(program)) else {
        // Not dynamic: a script, or linked statically.
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for line in said.lines() {
        ensure!(
            !line.contains("not found"),
            "{}: {}",
            program.display(),
            line.trim()
        );
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)`, `/lib64/ld-linux-x86-64.so.2 (0x...)`
        let place = line.rsplit_once("=> ").map_or(line, |(_, place)| place).trim();
        if let Some((path, _)) = place.split_once(" (")
            && path.starts_with('/')
        {
            found.push(PathBuf::from(path));
        }
    }
    if found.is_empty() && said.contains("=>") {
        bail!(
            "{}: ldd says nothing that is understood:\n{said}",
            program.display()
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_with_what_is_in_them() {
        let mut tree = Tree::default();
        let place = Path::new("/no-such-top/inner/file");
        tree.put(place, Entry::Text(Vec::new()));
        let places: Vec<&Path> = tree.0.keys().map(PathBuf::as_path).collect();
        let expected = ["/no-such-top", "/no-such-top/inner", "/no-such-top/inner/file"];
        assert_eq!(places, expected.map(Path::new));
        assert!(tree.has(place) && !tree.has(Path::new("/other")));
    }

    #[test]
    fn a_program_comes_with_its_libraries() {
        let mut tree = Tree::default();
        let shell = Path::new("/bin/sh");
        tree.program(shell, shell).unwrap();
        assert!(tree.has(shell));
        let loader = |path: &PathBuf| path.to_string_lossy().contains("/ld-");
        assert!(tree.0.keys().any(loader), "{:?}", tree.0.keys());
    }
}
