//! Attaching the programs to a cgroup.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
};

use aya::{
    Ebpf,
    maps::Map,
    pin::PinError,
    programs::{
        CgroupAttachMode, CgroupSock, CgroupSockAddr, ProgramError,
        links::{FdLink, LinkError, PinnedLink},
    },
};
use engine_common::scope::Scope;
use thiserror::Error;

use super::{
    pins::{PinFolder, PinsError},
    syscall::write_scope,
};

/// What a program attaches to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// cgroup/sock_*.
    Socket,
    /// cgroup/connect*, cgroup/sendmsg*.
    Address,
}

/// The program that decides nothing; attached first, see [`Attachment::make`].
pub(super) const ANCHOR: (&str, Kind) = ("scope_anchor", Kind::Socket);

/// The programs that decide.
pub(super) const ENFORCING: [(&str, Kind); 5] = [
    ("connect4", Kind::Address),
    ("connect6", Kind::Address),
    ("sendmsg4", Kind::Address),
    ("sendmsg6", Kind::Address),
    ("sock_create", Kind::Socket),
];

/// Why the programs could not be attached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The object has no such program or map.
    #[error("the built-in object has no `{0}`")]
    Missing(&'static str),
    /// The kernel refused the attachment.
    #[error("the kernel refused to attach `{program}` to the cgroup")]
    Attach {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The link could not be had.
    #[error("the kernel made no link for `{program}`; links to cgroups need Linux 5.7")]
    Link {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<LinkError>,
    },
    /// The link could not be pinned.
    #[error("cannot pin the link of `{program}` at {}", path.display())]
    Pin {
        /// The program.
        program: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<PinError>,
    },
    /// The scope could not be written.
    #[error("cannot write the cgroup's scope")]
    Scope(#[source] io::Error),
}

/// Programs attached to one cgroup by pinned links. Dropping it leaves them in force: taking them
/// away is [`Attachment::detach`].
#[derive(Debug)]
pub struct Attachment {
    pins: PinFolder,
    links: Vec<PinnedLink>,
}

impl Attachment {
    /// Order matters: a cgroup's storage exists from its first attachment on, zeroed, and zero is
    /// a fault. So the anchor comes first, then the scope, then what enforces.
    pub(super) fn make(
        ebpf: &mut Ebpf,
        cgroup: BorrowedFd<'_>,
        scope: &Scope,
        pins: PinFolder,
    ) -> Result<Attachment, AttachError> {
        let mut attachment = Attachment {
            pins,
            links: Vec::new(),
        };
        let made = attachment.attach_all(ebpf, cgroup, scope);
        match made {
            Ok(()) => Ok(attachment),
            Err(e) => {
                // The error that matters is the first one.
                let _ = attachment.detach();
                Err(e)
            }
        }
    }

    fn attach_all(
        &mut self,
        ebpf: &mut Ebpf,
        cgroup: BorrowedFd<'_>,
        scope: &Scope,
    ) -> Result<(), AttachError> {
        self.attach_one(ebpf, cgroup, ANCHOR.0, ANCHOR.1)?;
        let Some(Map::CgroupStorage(scopes)) = ebpf.map("SCOPES") else {
            return Err(AttachError::Missing("SCOPES"));
        };
        write_scope(scopes.fd().as_fd(), scope).map_err(AttachError::Scope)?;
        for (program, kind) in ENFORCING {
            self.attach_one(ebpf, cgroup, program, kind)?;
        }
        Ok(())
    }

    fn attach_one(
        &mut self,
        ebpf: &mut Ebpf,
        cgroup: BorrowedFd<'_>,
        name: &'static str,
        kind: Kind,
    ) -> Result<(), AttachError> {
        let program = ebpf.program_mut(name).ok_or(AttachError::Missing(name))?;
        // `Single` means no flags, which is what a link wants: links are always stacked
        // (kernel/bpf/cgroup.c, cgroup_bpf_link_attach); aya's other modes are refused.
        let mode = CgroupAttachMode::Single;
        let attached: Result<Result<FdLink, LinkError>, ProgramError> = match kind {
            Kind::Socket => <&mut CgroupSock>::try_from(program).and_then(|program| {
                let id = program.attach(cgroup, mode)?;
                Ok(program.take_link(id)?.try_into())
            }),
            Kind::Address => <&mut CgroupSockAddr>::try_from(program).and_then(|program| {
                let id = program.attach(cgroup, mode)?;
                Ok(program.take_link(id)?.try_into())
            }),
        };
        let link = attached
            .map_err(|source| AttachError::Attach {
                program: name,
                source: Box::new(source),
            })?
            .map_err(|source| AttachError::Link {
                program: name,
                source: Box::new(source),
            })?;
        let path = self.pins.path().join(name);
        let pinned = link.pin(&path).map_err(|source| AttachError::Pin {
            program: name,
            path,
            source: Box::new(source),
        })?;
        self.links.push(pinned);
        Ok(())
    }

    /// Takes the programs away from the cgroup, what enforces first. A cgroup that is gone has
    /// taken them along already.
    ///
    /// # Errors
    /// [`PinsError`] when a pin cannot be removed; it may then still be in force.
    pub fn detach(self) -> Result<(), PinsError> {
        let removed = self.pins.remove();
        for link in self.links.into_iter().rev() {
            drop(link);
        }
        removed
    }
}
