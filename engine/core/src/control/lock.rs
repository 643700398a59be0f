//! Locks: one writer at a time, and one reader of events at a time.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use super::{
    Invocation,
    error::ControlError,
    json_file::{at as failed, make_directory},
};

/// The file of the writer's lock.
pub(super) const LOCK: &str = "lock";
/// The file of the reader's lock.
const READER: &str = "reader";
/// The file with the count of lost events that readers have reported.
pub(super) const LOSSES_REPORTED: &str = "losses-reported";

/// The process that holds a lock, as recorded in the lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Process id; 0 where it has not been written yet.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

impl Holder {
    fn new(invocation: &Invocation) -> Holder {
        Holder {
            pid: std::process::id(),
            command: invocation.command.clone(),
        }
    }

    fn read(mut file: &File) -> Holder {
        let mut text = String::new();
        // The holder may not have written the file yet.
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

/// The lock of the journal. Held while a command reads or changes what is attached.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock; creates the run directory if it does not exist. If another process has the lock, calls `wait` once
    /// with the holder and blocks.
    ///
    /// # Errors
    /// [`ControlError::Journal`] when the lock file cannot be opened or locked.
    pub fn take(invocation: &Invocation, wait: impl FnOnce(&Holder)) -> Result<Lock, ControlError> {
        let directory = &invocation.instance.run_dir;
        let path = directory.join(LOCK);
        let mut wait = Some(wait);
        loop {
            make_directory(directory)?;
            let file = match open(&path) {
                // The previous holder has removed the directory.
                Err(_) if !directory.exists() => continue,
                opened => opened?,
            };
            let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((file, Errno::EWOULDBLOCK)) => {
                    if let Some(wait) = wait.take() {
                        wait(&Holder::read(&file));
                    }
                    Flock::lock(file, FlockArg::LockExclusive)
                        .map_err(|(_, errno)| failed("lock", &path)(errno.into()))?
                }
                Err((_, errno)) => return Err(failed("lock", &path)(errno.into())),
            };
            // The previous holder may have removed the directory: then this file is not the lock any more.
            if is_same(&file, &path) {
                let holder = Holder::new(invocation);
                holder.write(&file).map_err(failed("write", &path))?;
                return Ok(Lock { _file: file });
            }
        }
    }
}

/// The lock of the event stream. An event that one reader has consumed is not available to others.
#[derive(Debug)]
pub struct ReaderLock {
    _file: Flock<File>,
    losses: PathBuf,
}

impl ReaderLock {
    /// Takes the lock; creates the run directory if it does not exist.
    ///
    /// # Errors
    /// [`ControlError::ReaderBusy`] when another process has it.
    pub fn take(invocation: &Invocation) -> Result<ReaderLock, ControlError> {
        let directory = &invocation.instance.run_dir;
        make_directory(directory)?;
        let path = directory.join(READER);
        match Flock::lock(open(&path)?, FlockArg::LockExclusiveNonblock) {
            Ok(file) => {
                let holder = Holder::new(invocation);
                holder.write(&file).map_err(failed("write", &path))?;
                Ok(ReaderLock {
                    _file: file,
                    losses: directory.join(LOSSES_REPORTED),
                })
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                let Holder { pid, command } = Holder::read(&file);
                Err(ControlError::ReaderBusy { pid, command })
            }
            Err((_, errno)) => Err(failed("lock", &path)(errno.into())),
        }
    }

    /// Lost events that earlier readers have reported.
    pub fn losses_reported(&self) -> u64 {
        let text = std::fs::read_to_string(&self.losses).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Records that `lost` events have been reported as lost.
    pub fn set_losses_reported(&self, lost: u64) {
        // If this fails, the next reader reports them again.
        if lost != self.losses_reported() {
            let _ = std::fs::write(&self.losses, lost.to_string());
        }
    }
}

/// Whether an open file is still the one with this path.
fn is_same(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(named)) = (file.metadata(), std::fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (named.dev(), named.ino())
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
