//! One scan of the sockets of some cgroups.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeSet, HashMap},
    fs, io,
};

use engine_common::{Protocol, SocketFamily};

use super::{
    Process,
    policy_check::{Executable, LivePolicy},
};
use crate::{
    cgroup::{CgroupHandle, Hierarchy, Subtree},
    datapath::identify_process,
    sockets::{Diag, DiagError, Holders, Listeners, Network, Socket, State, all_processes},
};

/// Sockets of the cgroups in one network namespace; more are reported as a problem.
const MAX_SOCKETS: usize = 1_000_000;
/// Processes that are reported for one socket.
const MAX_PROCESSES: usize = 16;

/// A cgroup with the policies that were attached to it.
pub(super) struct ScanTarget {
    pub(super) located: CgroupHandle,
    pub(super) policies: Vec<LivePolicy>,
}

/// The cgroups as they are now.
pub(super) struct SocketScan<'a> {
    hierarchy: &'a Hierarchy,
    areas: Vec<Area<'a>>,
    /// Processes of all of them, by id.
    pub(super) processes: Vec<u32>,
    holders: Holders,
    /// All other processes: one that left a cgroup may still hold a socket.
    others: OnceCell<Holders>,
    executables: RefCell<HashMap<u32, Executable>>,
}

struct Area<'a> {
    subtree: Subtree,
    /// Whether it is the root cgroup: then removed cgroups were below it too.
    is_all: bool,
    policies: &'a [LivePolicy],
}

/// The sockets of a network namespace.
#[derive(Default)]
pub(super) struct Found {
    pub(super) sockets: Vec<Socket>,
    pub(super) listeners: Listeners,
    pub(super) unseen: Vec<Protocol>,
    /// Number of sockets for which the kernel reports no cgroup.
    pub(super) unplaced: usize,
    /// Whether there were more than the maximum.
    pub(super) is_cut_short: bool,
}

impl<'a> SocketScan<'a> {
    pub(super) fn at(hierarchy: &'a Hierarchy, targets: &'a [ScanTarget]) -> io::Result<SocketScan<'a>> {
        let mut areas = Vec::with_capacity(targets.len());
        let mut processes = BTreeSet::new();
        for target in targets {
            let subtree = Subtree::of(hierarchy, &target.located)?;
            processes.extend(subtree.processes());
            areas.push(Area {
                subtree,
                is_all: target.located.level() == Some(0),
                policies: &target.policies,
            });
        }
        let processes: Vec<u32> = processes.into_iter().collect();
        Ok(SocketScan {
            hierarchy,
            areas,
            holders: Holders::among(processes.iter().copied()),
            processes,
            others: OnceCell::new(),
            executables: RefCell::default(),
        })
    }

    /// Sockets of a network namespace that may be in one of the cgroups and can send without another check.
    pub(super) fn sockets(&self, network: &Network) -> Result<(Found, Diag), (Protocol, DiagError)> {
        let mut diag = Diag::open_in(network).map_err(|error| (Protocol::TCP, error))?;
        let mut found = Found::default();
        let mut lives = HashMap::new();
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::UDPLITE, Protocol::RAW] {
            for family in [SocketFamily::Inet, SocketFamily::Inet6] {
                let listed = diag.list(family, protocol, |socket| {
                    if protocol == Protocol::TCP && socket.state == State::LISTEN {
                        found.listeners.add(&socket);
                        return;
                    }
                    if protocol.has_address_hook() && socket.peer.is_none() {
                        return;
                    }
                    let Some(cgroup) = socket.cgroup else {
                        // Inbound connections in the handshake have none yet.
                        found.unplaced += usize::from(socket.state != State::SYN_RECV);
                        return;
                    };
                    let may_count = self.contains(cgroup)
                        || !*lives.entry(cgroup).or_insert_with(|| self.hierarchy.has(cgroup));
                    if !may_count {
                        return;
                    }
                    if found.sockets.len() == MAX_SOCKETS {
                        found.is_cut_short = true;
                    } else {
                        found.sockets.push(socket);
                    }
                });
                match listed {
                    Err(DiagError::Absent) if !protocol.has_address_hook() => {
                        found.unseen.push(protocol);
                        break;
                    }
                    listed => listed.map_err(|error| (protocol, error))?,
                }
            }
        }
        Ok((found, diag))
    }

    fn contains(&self, cgroup: u64) -> bool {
        self.areas
            .iter()
            .any(|area| area.subtree.path_of(cgroup).is_some())
    }

    /// The path of the cgroup a socket was created in; `None` where it was removed.
    pub(super) fn cgroup_of(&self, socket: &Socket) -> Option<String> {
        let cgroup = socket.cgroup?;
        let path = self.areas.iter().find_map(|area| area.subtree.path_of(cgroup))?;
        Some(path.display().to_string())
    }

    /// The policies that apply to a socket. One whose cgroup was removed counts where a process of the scan target holds it:
    /// where that cgroup was is not known.
    pub(super) fn policies(&self, socket: &Socket) -> impl Iterator<Item = &'a LivePolicy> {
        let is_gone = socket.cgroup.is_some_and(|cgroup| !self.contains(cgroup));
        let holders = self.holders.of(socket.inode);
        let held_by = move |area: &Area<'_>| {
            let processes = area.subtree.processes();
            holders
                .iter()
                .any(|holder| processes.binary_search(holder).is_ok())
        };
        let counts = move |area: &&Area<'a>| match socket.cgroup {
            _ if area.is_all => true,
            Some(_) if is_gone => held_by(area),
            Some(cgroup) => area.subtree.path_of(cgroup).is_some(),
            None => false,
        };
        let policies: Vec<&'a LivePolicy> = self
            .areas
            .iter()
            .filter(counts)
            .flat_map(|area| area.policies)
            .collect();
        policies.into_iter()
    }

    /// Processes that hold a socket, in the cgroups or elsewhere.
    fn holders_of(&self, socket: &Socket) -> &[u32] {
        match self.holders.of(socket.inode) {
            // A socket that was closed and still has data to send has no process.
            [] if socket.inode != 0 => self
                .others
                .get_or_init(|| Holders::among(all_processes()))
                .of(socket.inode),
            holders => holders,
        }
    }

    /// Executables of these processes: at least one entry.
    pub(super) fn executables_of(&self, socket: &Socket) -> Vec<Executable> {
        let mut found: Vec<Executable> = Vec::new();
        let mut known = self.executables.borrow_mut();
        for &holder in self.holders_of(socket) {
            let executable = *known
                .entry(holder)
                .or_insert_with(|| match identify_process(holder) {
                    Ok(Some(id)) => Executable::Known(id),
                    Ok(None) => Executable::Nameless,
                    Err(_) => Executable::Unknown,
                });
            if !found.contains(&executable) {
                found.push(executable);
            }
        }
        if found.is_empty() {
            found.push(Executable::Unknown);
        }
        found
    }

    /// These processes, as they are reported.
    pub(super) fn processes_of(&self, socket: &Socket) -> Vec<Process> {
        let holders = self.holders_of(socket).iter().take(MAX_PROCESSES);
        let describe = |&pid: &u32| {
            let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
            let executable = fs::read_link(format!("/proc/{pid}/exe")).ok();
            Process {
                pid,
                comm: String::from_utf8_lossy(comm.trim_ascii_end()).into_owned(),
                executable: executable.map(|path| path.display().to_string()),
            }
        };
        holders.map(describe).collect()
    }
}
