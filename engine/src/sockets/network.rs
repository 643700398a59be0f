//! Network namespaces: the kernel lists the sockets of one at a time.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
};

use thiserror::Error;

/// An open network namespace.
#[derive(Debug)]
pub struct Network {
    file: File,
    inode: u64,
}

/// Why a process's network was not found.
#[derive(Debug, Error)]
#[error("cannot open the network namespace {path}")]
pub struct NetworkError {
    path: String,
    #[source]
    source: io::Error,
}

impl Network {
    /// The one that this thread is in.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn own() -> Result<Network, NetworkError> {
        Network::at("/proc/thread-self/ns/net".to_owned())
    }

    fn at(path: String) -> Result<Network, NetworkError> {
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.ino(), file)));
        match opened {
            Ok((inode, file)) => Ok(Network { file, inode }),
            Err(source) => Err(NetworkError { path, source }),
        }
    }

    /// Its number, as `/proc/PID/ns/net` shows it.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The networks of some processes and our own, each once. One is open at a time.
pub struct Networks<'a> {
    seen: HashSet<u64>,
    is_first: bool,
    processes: std::slice::Iter<'a, u32>,
    threads: Vec<String>,
}

impl<'a> Networks<'a> {
    /// Those of these processes: of every thread, since each may be in another.
    pub fn of(processes: &'a [u32]) -> Networks<'a> {
        Networks {
            seen: HashSet::new(),
            is_first: true,
            processes: processes.iter(),
            threads: Vec::new(),
        }
    }

    fn is_new(&self, path: &str) -> bool {
        let number = fs::read_link(path).ok().and_then(|link| {
            let text = link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
            text.parse::<u64>().ok()
        });
        number.is_none_or(|number| !self.seen.contains(&number))
    }
}

impl Iterator for Networks<'_> {
    type Item = Result<Network, NetworkError>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.is_first) {
            let own = Network::own();
            self.seen.extend(own.as_ref().map(|own| own.inode).ok());
            return Some(own);
        }
        loop {
            let Some(path) = self.threads.pop() else {
                let process = self.processes.next()?;
                // A process that ends meanwhile holds no network any more.
                let tasks = fs::read_dir(format!("/proc/{process}/task"));
                let tasks = tasks.into_iter().flatten().flatten();
                let paths = tasks.map(|task| format!("{}/ns/net", task.path().display()));
                self.threads.extend(paths);
                continue;
            };
            if !self.is_new(&path) {
                continue;
            }
            match Network::at(path) {
                Ok(network) if self.seen.insert(network.inode) => return Some(Ok(network)),
                Ok(_) => {}
                // The thread has ended.
                Err(error) if matches!(error.source.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_comes_once() {
        let me = std::process::id();
        // Nobody has the last one: /proc/sys/kernel/pid_max is at most 2^22.
        let processes = [me, me, u32::MAX];
        let found: Vec<u64> = Networks::of(&processes)
            .map(|network| network.unwrap().inode())
            .collect();
        assert_eq!(found, [fs::metadata("/proc/thread-self/ns/net").unwrap().ino()]);
    }
}
