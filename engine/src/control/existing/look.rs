//! One look at the sockets of some scopes.

use std::{
    cell::{OnceCell, RefCell},
    collections::{BTreeSet, HashMap},
    fs, io,
};

use engine_common::{Protocol, SocketFamily};

use super::{
    Process,
    judge::{Executable, Judge},
};
use crate::{
    cgroup::{CgroupHandle, Hierarchy, Subtree},
    datapath::identify_process,
    sockets::{Diag, DiagError, Holders, Listeners, Network, Socket, State, all_processes},
};

/// Sockets of the scopes in one network; more are a problem that is told.
const MAX_SOCKETS: usize = 1_000_000;
/// Who holds a socket is told of so many.
const MAX_PROCESSES: usize = 16;

/// A cgroup with the policies that were attached to it.
pub(super) struct Ground {
    pub(super) located: CgroupHandle,
    pub(super) judges: Vec<Judge>,
}

/// The scopes as they are now.
pub(super) struct Look<'a> {
    hierarchy: &'a Hierarchy,
    areas: Vec<Area<'a>>,
    /// Processes of all of them.
    pub(super) processes: Vec<u32>,
    holders: Holders,
    /// Processes that have left, of whom some hold sockets still.
    others: OnceCell<Holders>,
    executables: RefCell<HashMap<u32, Executable>>,
}

struct Area<'a> {
    subtree: Subtree,
    /// Whether it is the whole machine: then removed cgroups were in it too.
    is_all: bool,
    judges: &'a [Judge],
}

/// What was found in a network.
#[derive(Default)]
pub(super) struct Found {
    pub(super) sockets: Vec<Socket>,
    pub(super) listeners: Listeners,
    pub(super) unseen: Vec<Protocol>,
    /// Sockets of which the kernel does not tell the cgroup.
    pub(super) unplaced: usize,
    /// There were more.
    pub(super) is_cut_short: bool,
}

impl<'a> Look<'a> {
    pub(super) fn at(hierarchy: &'a Hierarchy, grounds: &'a [Ground]) -> io::Result<Look<'a>> {
        let mut areas = Vec::with_capacity(grounds.len());
        let mut processes = BTreeSet::new();
        for ground in grounds {
            let subtree = Subtree::of(hierarchy, &ground.located)?;
            processes.extend(subtree.processes());
            areas.push(Area {
                subtree,
                is_all: ground.located.level() == Some(0),
                judges: &ground.judges,
            });
        }
        let processes: Vec<u32> = processes.into_iter().collect();
        Ok(Look {
            hierarchy,
            areas,
            holders: Holders::among(processes.iter().copied()),
            processes,
            others: OnceCell::new(),
            executables: RefCell::default(),
        })
    }

    /// Sockets of a network that may be in one of the scopes and can send without being asked.
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
                        // Those of others that are about to be connections have none yet.
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

    /// The path of the cgroup a socket was made in; `None` where it was removed.
    pub(super) fn cgroup_of(&self, socket: &Socket) -> Option<String> {
        let cgroup = socket.cgroup?;
        let path = self.areas.iter().find_map(|area| area.subtree.path_of(cgroup))?;
        Some(path.display().to_string())
    }

    /// The policies that hold for a socket. One whose cgroup was removed counts where a process of the scope
    /// holds it: nobody can tell where that cgroup was.
    pub(super) fn judges(&self, socket: &Socket) -> impl Iterator<Item = &'a Judge> {
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
        let judges: Vec<&'a Judge> = self
            .areas
            .iter()
            .filter(counts)
            .flat_map(|area| area.judges)
            .collect();
        judges.into_iter()
    }

    /// Processes that hold a socket, in the scope or where they have gone to.
    fn holders_of(&self, socket: &Socket) -> &[u32] {
        match self.holders.of(socket.inode) {
            // No process has one that was closed and has still something to send.
            [] if socket.inode != 0 => self
                .others
                .get_or_init(|| Holders::among(all_processes()))
                .of(socket.inode),
            holders => holders,
        }
    }

    /// What they run: one entry at least.
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

    /// The same for people.
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
