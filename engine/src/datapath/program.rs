//! The programs of a gate, and attaching them one at a time.

use std::{
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType as SkbAt, CgroupSock, CgroupSockAddr,
        CgroupSockAddrAttachType as At, CgroupSockAttachType as SockAt, ProgramError,
        links::{FdLink, LinkError},
    },
};

use super::{attachment::AttachError, features::Features};

/// What a program attaches to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// cgroup/sock_*.
    Socket(SockAt),
    /// cgroup/connect*, cgroup/sendmsg*.
    Address(At),
    /// A hook of the security modules, by its name; for the whole machine.
    Lsm(&'static str),
    /// cgroup_skb/*.
    Packet(SkbAt),
    /// What connections come by; for the whole machine.
    Probe,
    /// A function of the kernel, by its name; for the whole machine.
    Function(&'static str),
}

/// The program that decides nothing; attached first, see [`super::Attachment`].
pub(super) const ANCHOR: (&str, Kind) = ("scope_anchor", Kind::Socket(SockAt::SockRelease));

/// The programs that decide.
pub(super) const ENFORCING: [(&str, Kind); 5] = [
    ("connect4", Kind::Address(At::Connect4)),
    ("connect6", Kind::Address(At::Connect6)),
    ("sendmsg4", Kind::Address(At::UDPSendMsg4)),
    ("sendmsg6", Kind::Address(At::UDPSendMsg6)),
    ("sock_create", Kind::Socket(SockAt::SockCreate)),
];

/// The LSM programs, with their hooks.
pub(super) const LSM: [(&str, &str); 4] = [
    ("lsm_connect", "socket_connect"),
    ("lsm_sendmsg", "socket_sendmsg"),
    ("lsm_create", "socket_create"),
    ("lsm_sctp", "sctp_bind_connect"),
];

/// Those of the LSM programs that see unix sockets, with their hooks. Attached only where a policy names such
/// sockets, and not loaded where the kernel's types do not tell how they are read.
pub(super) const UNIX: [(&str, &str); 2] = [
    ("lsm_unix_connect", "unix_stream_connect"),
    ("lsm_unix_send", "unix_may_send"),
];

/// The program that judges packets. Attached only where a strict policy stands, and not loaded where the
/// kernel refuses it.
pub(super) const FLOOR: (&str, Kind) = ("egress", Kind::Packet(SkbAt::Egress));

/// The programs that tell who leaves a cgroup, with the functions of the kernel that call them. Not loaded where the
/// kernel refuses one of them.
pub(super) const MOVES: [(&str, Kind); 2] = [
    ("cgroup_move", Kind::Function("cgroup_attach_task")),
    ("cgroup_clone", Kind::Function("cgroup_post_fork")),
];

/// The programs that every gate of this kernel has: all but the floor, those about moves and those that see unix sockets.
pub(super) fn all(features: Features) -> impl Iterator<Item = (&'static str, Kind)> {
    let lsm = LSM.iter().filter(move |_| features.lsm);
    let lsm = lsm.map(|&(name, hook)| (name, Kind::Lsm(hook)));
    let probe = features.probe.map(|probe| (probe.program(), Kind::Probe));
    [ANCHOR].into_iter().chain(ENFORCING).chain(lsm).chain(probe)
}

/// The programs that see unix sockets, as they are loaded.
pub(super) fn unix() -> impl Iterator<Item = (&'static str, Kind)> {
    UNIX.iter().map(|&(name, hook)| (name, Kind::Lsm(hook)))
}

/// Programs that can be attached.
pub(super) trait Programs {
    /// Attaches a program to a cgroup.
    fn attach(
        &mut self,
        name: &'static str,
        kind: Kind,
        cgroup: BorrowedFd<'_>,
    ) -> Result<FdLink, AttachError>;
}

/// Programs as loaded.
impl Programs for Ebpf {
    fn attach(
        &mut self,
        name: &'static str,
        kind: Kind,
        cgroup: BorrowedFd<'_>,
    ) -> Result<FdLink, AttachError> {
        let program = self.program_mut(name).ok_or(AttachError::Missing(name))?;
        let attached = match kind {
            Kind::Socket(_) => <&mut CgroupSock>::try_from(program).and_then(|p| link_socket(p, cgroup)),
            Kind::Address(_) => {
                <&mut CgroupSockAddr>::try_from(program).and_then(|p| link_address(p, cgroup))
            }
            Kind::Lsm(_) | Kind::Probe | Kind::Function(_) => return Err(AttachError::NoCgroupProgram(name)),
            Kind::Packet(at) => <&mut CgroupSkb>::try_from(program).and_then(|p| link_packet(p, at, cgroup)),
        };
        told(name, attached)
    }
}

/// Programs as pinned in a folder, by their names.
pub(super) struct PinnedPrograms(pub(super) PathBuf);

impl Programs for PinnedPrograms {
    fn attach(
        &mut self,
        name: &'static str,
        kind: Kind,
        cgroup: BorrowedFd<'_>,
    ) -> Result<FdLink, AttachError> {
        let path: &Path = &self.0.join(name);
        let attached = match kind {
            Kind::Socket(at) => CgroupSock::from_pin(path, at).and_then(|mut p| link_socket(&mut p, cgroup)),
            Kind::Address(at) => {
                CgroupSockAddr::from_pin(path, at).and_then(|mut p| link_address(&mut p, cgroup))
            }
            Kind::Lsm(_) | Kind::Probe | Kind::Function(_) => return Err(AttachError::NoCgroupProgram(name)),
            Kind::Packet(at) => {
                CgroupSkb::from_pin(path, at).and_then(|mut p| link_packet(&mut p, at, cgroup))
            }
        };
        told(name, attached)
    }
}

type Linked = Result<Result<FdLink, LinkError>, ProgramError>;

// `Single` means no flags, which is what a link wants: links are always stacked
// (kernel/bpf/cgroup.c, cgroup_bpf_link_attach); aya's other modes are refused.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

fn link_socket(program: &mut CgroupSock, cgroup: BorrowedFd<'_>) -> Linked {
    let id = program.attach(cgroup, MODE)?;
    Ok(program.take_link(id)?.try_into())
}

fn link_address(program: &mut CgroupSockAddr, cgroup: BorrowedFd<'_>) -> Linked {
    let id = program.attach(cgroup, MODE)?;
    Ok(program.take_link(id)?.try_into())
}

fn link_packet(program: &mut CgroupSkb, at: SkbAt, cgroup: BorrowedFd<'_>) -> Linked {
    let id = program.attach(cgroup, at, MODE)?;
    Ok(program.take_link(id)?.try_into())
}

fn told(program: &'static str, attached: Linked) -> Result<FdLink, AttachError> {
    attached
        .map_err(|source| AttachError::Attach {
            program,
            source: Box::new(source),
        })?
        .map_err(|source| AttachError::Link {
            program,
            source: Box::new(source),
        })
}
