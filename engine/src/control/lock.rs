//! One writer at a time, and one reader of events at a time.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::error::ControlError;

/// Who holds a lock, by its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Process id; 0 where it did not say.
    pub pid: u32,
    /// What it runs.
    pub command: String,
}

impl Holder {
    fn of_this_process() -> Holder {
        let words = std::env::args_os().skip(1).take(2);
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        Holder {
            pid: std::process::id(),
            command: format!("tidegate {}", words.join(" ")),
        }
    }

    fn read(mut file: &File) -> Holder {
        let mut text = String::new();
        // A holder that has not written yet is one that says nothing.
        if file
            .rewind()
            .and_then(|()| file.read_to_string(&mut text))
            .is_err()
        {
            return Holder::default();
        }
        let (pid, command) = text.trim_end().split_once(' ').unwrap_or_default();
        Holder {
            pid: pid.parse().unwrap_or(0),
            command: command.to_owned(),
        }
    }

    fn write(&self, mut file: &File) -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{} {}", self.pid, self.command)
    }
}

/// The lock of the journal. Held while a command reads or changes what stands.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes it; waits while somebody else has it, after telling `wait` who.
    ///
    /// # Errors
    /// [`ControlError::Journal`].
    pub fn take(folder: &Path, wait: impl FnOnce(&Holder)) -> Result<Lock, ControlError> {
        let path = folder.join("lock");
        let file = open(&path)?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((file, Errno::EWOULDBLOCK)) => {
                wait(&Holder::read(&file));
                Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, errno)| failed("lock", &path)(errno.into()))?
            }
            Err((_, errno)) => return Err(failed("lock", &path)(errno.into())),
        };
        Holder::of_this_process()
            .write(&file)
            .map_err(failed("write", &path))?;
        Ok(Lock { _file: file })
    }
}

/// The right to read the events. What was read by one reader no other gets.
#[derive(Debug)]
pub struct ReaderLock {
    _file: Flock<File>,
    told: PathBuf,
}

impl ReaderLock {
    /// Takes it.
    ///
    /// # Errors
    /// [`ControlError::ReaderBusy`] names who has it.
    pub fn take() -> Result<ReaderLock, ControlError> {
        let path = super::journal::folder()?.join("reader");
        match Flock::lock(open(&path)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => {
                Holder::of_this_process()
                    .write(&file)
                    .map_err(failed("write", &path))?;
                let told = path.with_file_name("losses-told");
                Ok(ReaderLock { _file: file, told })
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                let Holder { pid, command } = Holder::read(&file);
                Err(ControlError::ReaderBusy { pid, command })
            }
            Err((_, errno)) => Err(failed("lock", &path)(errno.into())),
        }
    }
}

impl ReaderLock {
    /// Lost events that readers before have told of.
    pub fn told(&self) -> u64 {
        let text = std::fs::read_to_string(&self.told).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Remembers that so many have been told of.
    pub fn tell(&self, lost: u64) {
        // Where it cannot be kept, the next reader tells of them once more.
        if lost != self.told() {
            let _ = std::fs::write(&self.told, lost.to_string());
        }
    }
}

fn open(path: &Path) -> Result<File, ControlError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))
}

fn failed(step: &'static str, path: &Path) -> impl Fn(io::Error) -> ControlError {
    let path: PathBuf = path.to_owned();
    move |source| ControlError::Journal {
        step,
        path: path.clone(),
        source,
    }
}
