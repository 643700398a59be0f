//! The processes that hold a socket.

use std::{collections::HashMap, fs};

/// Limit of descriptors read; further sockets have no known holder.
const MAX_DESCRIPTORS: usize = 1_000_000;

/// A snapshot of the sockets that a set of processes holds.
#[derive(Clone, Debug, Default)]
pub struct Holders(HashMap<u32, Vec<u32>>);

impl Holders {
    /// Reads the descriptors of processes. Those of a process that exits meanwhile are left out.
    pub fn among(processes: impl IntoIterator<Item = u32>) -> Holders {
        let mut holders = Holders::default();
        let mut remaining = MAX_DESCRIPTORS;
        for process in processes {
            let descriptors = fs::read_dir(format!("/proc/{process}/fd"));
            for descriptor in descriptors.into_iter().flatten().flatten() {
                let Some(inode) = fs::read_link(descriptor.path())
                    .ok()
                    .and_then(|link| inode_of(link.to_str()?))
                else {
                    continue;
                };
                let processes = holders.0.entry(inode).or_default();
                if processes.last() != Some(&process) {
                    processes.push(process);
                }
                remaining -= 1;
                if remaining == 0 {
                    return holders;
                }
            }
        }
        holders
    }

    /// The processes that hold the socket with this inode.
    pub fn of(&self, inode: u32) -> &[u32] {
        self.0.get(&inode).map_or(&[], Vec::as_slice)
    }
}

/// The ids of all processes in the pid namespace of /proc, in ascending order.
pub fn all_processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut processes: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    processes.sort_unstable();
    processes
}

/// The inode in `socket:[4711]`, the target of a link in /proc/PID/fd (`sockfs_dname`, net/socket.c).
fn inode_of(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::fd::AsRawFd};

    use super::*;

    #[test]
    fn a_socket_of_this_process_is_held_by_it() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let inode = inode_of(link.to_str().unwrap()).unwrap();
        let me = std::process::id();
        assert_eq!(Holders::among([me]).of(inode), [me]);
        assert!(all_processes().contains(&me));
        drop(socket);
        assert!(Holders::among([me]).of(inode).is_empty());
    }

    #[test]
    fn links_to_other_files_have_no_inode() {
        assert_eq!(inode_of("socket:[4711]"), Some(4711));
        for link in [
            "pipe:[4711]",
            "socket:[",
            "socket:[]",
            "/tmp/socket:[4711]",
            "socket:[-1]",
        ] {
            assert_eq!(inode_of(link), None, "{link}");
        }
    }
}
