//! Attaching the programs to a cgroup.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::Map,
    pin::PinError,
    programs::{
        Program, ProgramError,
        links::{LinkError, PinnedLink},
    },
};
use engine_common::scope::{HookSet, Scope};
use thiserror::Error;

use super::{
    lsm,
    pins::{PinFolder, PinsError},
    program::{ANCHOR, ENFORCING, FLOOR, Kind, LSM, Programs, UNIX},
    syscall::write_scope,
    task_scopes::TaskScopes,
    tracer::Probe,
};

/// Why the programs could not be attached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The object has no such program or map.
    #[error("the built-in object has no `{0}`")]
    Missing(&'static str),
    /// The program attaches to the whole machine, not to a cgroup.
    #[error("`{0}` does not attach to a cgroup")]
    NoCgroupProgram(&'static str),
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
    /// There is no place for the pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// A program that runs for the whole machine could not be attached.
    #[error("the kernel refused to attach `{program}`")]
    Global {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program that nobody needs any more could not be taken away.
    #[error(transparent)]
    Detach(Box<super::DatapathError>),
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
        self.attach_one(ebpf, cgroup, ANCHOR)?;
        let Some(Map::CgroupStorage(scopes)) = ebpf.map("SCOPES") else {
            return Err(AttachError::Missing("SCOPES"));
        };
        write_scope(scopes.fd().as_fd(), scope).map_err(AttachError::Scope)?;
        let hooks = scope.hooks();
        if hooks.contains(HookSet::CGROUP) {
            for program in ENFORCING {
                self.attach_one(ebpf, cgroup, program)?;
            }
        }
        if scope.is_strict() {
            self.attach_one(ebpf, cgroup, FLOOR)?;
        }
        let owned = |name: &'static str| {
            let map = match ebpf.map(name) {
                Some(Map::HashMap(map) | Map::Array(map)) => map.fd().as_fd(),
                _ => return Err(AttachError::Missing(name)),
            };
            map.try_clone_to_owned().map_err(AttachError::Scope)
        };
        let tasks = TaskScopes::new(owned("TASK_SCOPES")?, owned("TASK_LEVELS")?);
        tasks.write(scope).map_err(AttachError::Scope)?;
        if hooks.contains(HookSet::TRACER) {
            self.attach_tracer(ebpf)?;
        }
        let lsm = LSM.iter().filter(|_| hooks.contains(HookSet::LSM));
        for (name, _) in lsm.chain(UNIX.iter().filter(|_| hooks.contains(HookSet::UNIX))) {
            // Not loaded where they would not run.
            let program = match ebpf.program(name) {
                Some(Program::Lsm(program)) => program.fd(),
                _ => return Err(AttachError::Missing(name)),
            };
            if let Ok(program) = program {
                lsm::attach(program.as_fd(), name, self.pins.path())?;
            }
        }
        Ok(())
    }

    fn attach_tracer(&self, ebpf: &mut Ebpf) -> Result<(), AttachError> {
        for probe in Probe::ALL {
            let Some(program) = ebpf.program_mut(probe.program()) else {
                return Err(AttachError::Missing(probe.program()));
            };
            // Only the one for this kernel is loaded.
            if program.fd().is_ok() {
                probe.attach(program, self.pins.path())?;
            }
        }
        Ok(())
    }

    fn attach_one(
        &mut self,
        ebpf: &mut Ebpf,
        cgroup: BorrowedFd<'_>,
        (name, kind): (&'static str, Kind),
    ) -> Result<(), AttachError> {
        let link = attach_pinned(ebpf, cgroup, (name, kind), self.pins.path())?;
        self.links.push(link);
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

/// Attaches a program and pins the link in a folder, by the program's name.
pub(super) fn attach_pinned(
    programs: &mut impl Programs,
    cgroup: BorrowedFd<'_>,
    (program, kind): (&'static str, Kind),
    folder: &Path,
) -> Result<PinnedLink, AttachError> {
    let path = folder.join(program);
    let link = programs.attach(program, kind, cgroup)?;
    link.pin(&path).map_err(|source| AttachError::Pin {
        program,
        path,
        source: Box::new(source),
    })
}
