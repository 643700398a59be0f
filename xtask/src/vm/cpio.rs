//! The archive that a kernel unpacks as its first file system: cpio, format "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const CHARACTERS: u32 = 0o020_600;

/// What lies at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link(PathBuf),
    /// A character device, by its numbers.
    Device(u32, u32),
    /// A file with this content.
    Text(Vec<u8>),
    /// A copy of a file, executable as it is, as old as it is.
    Copy(PathBuf),
}

/// Writes an archive.
pub(crate) struct Archive<W> {
    out: W,
    written: usize,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// Into whatever this is.
    pub(crate) fn new(out: W) -> Archive<W> {
        Archive {
            out,
            written: 0,
            entries: 0,
        }
    }

    /// Adds an entry; the folder it is in comes before it.
    ///
    /// # Errors
    /// When a file cannot be read or the archive not written.
    pub(crate) fn add(&mut self, path: &Path, entry: &Entry) -> Result<()> {
        let name = path.strip_prefix("/").unwrap_or(path).display().to_string();
        self.add_named(&name, entry)
            .with_context(|| path.display().to_string())
    }

    fn add_named(&mut self, name: &str, entry: &Entry) -> Result<()> {
        match entry {
            Entry::Folder => self.write(name, FOLDER, 0, (0, 0), &[])?,
            Entry::Device(major, minor) => self.write(name, CHARACTERS, 0, (*major, *minor), &[])?,
            Entry::Link(target) => {
                let target = target.display().to_string();
                self.write(name, LINK, 0, (0, 0), target.as_bytes())?;
            }
            Entry::Text(text) => self.write(name, 0o100_644, 0, (0, 0), text)?,
            Entry::Copy(source) => {
                let about = fs::metadata(source).with_context(|| source.display().to_string())?;
                // Python believes what it compiled before only of a source of the same age.
                let age = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                let executable = std::os::unix::fs::PermissionsExt::mode(&about.permissions()) & 0o111;
                let mode = if executable == 0 { 0o100_644 } else { 0o100_755 };
                let bytes = fs::read(source).with_context(|| source.display().to_string())?;
                self.write(name, mode, age.as_secs() as u32, (0, 0), &bytes)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, name: &str, mode: u32, age: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        self.entries += 1;
        let length = u32::try_from(content.len()).context("too large for a cpio archive")?;
        let name_length = name.len() as u32 + 1;
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            age,
            length,
            0,
            0,
            device.0,
            device.1,
            name_length,
            0,
        ];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08X}"));
        }
        header.push_str(name);
        header.push('\0');
        self.put(header.as_bytes())?;
        self.put(content)?;
        Ok(())
    }

    /// Header and content each fill multiples of four bytes.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len();
        let rest = self.written.next_multiple_of(4) - self.written;
        self.written += rest;
        self.out.write_all(&[0; 3][..rest])
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.entries = u32::MAX - 1;
        self.write("TRAILER!!!", 0, 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new(Vec::new());
        archive.add(Path::new("/a"), &Entry::Folder).unwrap();
        archive
            .add(Path::new("/a/text"), &Entry::Text(b"hello".to_vec()))
            .unwrap();
        archive
            .add(Path::new("/a/link"), &Entry::Link("text".into()))
            .unwrap();
        archive.add(Path::new("/null"), &Entry::Device(1, 3)).unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn all_parts_are_aligned() {
        let archive = sample();
        assert_eq!(archive.len() % 4, 0);
        assert!(archive.starts_with(b"070701"));
    }

    /// Where cpio is installed, it agrees.
    #[test]
    fn cpio_reads_it() {
        let Ok(mut cpio) = Command::new("cpio")
            .args(["--list", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            return;
        };
        cpio.stdin.take().unwrap().write_all(&sample()).unwrap();
        let listed = cpio.wait_with_output().unwrap().stdout;
        assert_eq!(String::from_utf8(listed).unwrap(), "a\na/text\na/link\nnull\n");
    }
}
