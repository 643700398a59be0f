//! Network namespaces: one sock_diag request lists the sockets of one namespace.

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

/// A network namespace cannot be opened.
#[derive(Debug, Error)]
#[error("cannot open the network namespace {path}")]
pub struct NetworkError {
    path: String,
    #[source]
    source: io::Error,
}

impl Network {
    /// The namespace of this thread.
    ///
    /// # Errors
    /// When procfs is not mounted, or the descriptor limit is reached.
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

    /// Its inode number, as in `/proc/PID/ns/net`.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The namespaces of this thread and of a set of processes, each once. They are opened one after the other.
pub struct Networks<'a> {
    seen: HashSet<u64>,
    is_first: bool,
    processes: std::slice::Iter<'a, u32>,
    threads: Vec<String>,
}

impl<'a> Networks<'a> {
    /// Of every thread of these processes: each may be in another namespace.
    pub fn of(processes: &'a [u32]) -> Networks<'a> {
        Networks {
            seen: HashSet::new(),
            is_first: true,
            processes: processes.iter(),
            threads: Vec::new(),
        }
    }

    fn is_new(&self, path: &str) -> bool {
        let inode = fs::read_link(path).ok().and_then(|link| {
            let text = link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
            text.parse::<u64>().ok()
        });
        inode.is_none_or(|inode| !self.seen.contains(&inode))
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
                // The process may have exited.
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
                // The thread has exited.
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
    fn the_own_namespace_comes_once() {
        let me = std::process::id();
        // No process has the last id: /proc/sys/kernel/pid_max is at most 2^22.
        let processes = [me, me, u32::MAX];
        let found: Vec<u64> = Networks::of(&processes)
            .map(|network| network.unwrap().inode())
            .collect();
        assert_eq!(found, [fs::metadata("/proc/thread-self/ns/net").unwrap().ino()]);
    }
}
