//! One program: what it attaches to, loading it, and attaching it by a pinned link.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use aya::{
    Btf as KernelTypes,
    programs::{
        CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr,
        CgroupSockAddrAttachType, CgroupSockAttachType, FEntry, KProbe, Lsm, ProbeKind, Program,
        ProgramError, RawTracePoint,
        links::{FdLink, LinkError},
    },
};

use super::{canary::Canary, error::DatapathError, features::Tracer, syscall};

/// What a program attaches to.
#[derive(Clone, Copy, Debug)]
pub(super) enum AttachPoint {
    /// cgroup/sock_*.
    CgroupSock(CgroupSockAttachType),
    /// cgroup/connect*, cgroup/sendmsg*.
    CgroupSockAddr(CgroupSockAddrAttachType),
    /// cgroup_skb/*.
    CgroupSkb(CgroupSkbAttachType),
    /// An LSM hook, by its name.
    Lsm(&'static str),
    /// The entry of a kernel function, by its name and with its BTF types.
    Fentry(&'static str),
    /// The entry of a kernel function, by its name.
    Kprobe(&'static str),
    /// A tracepoint, by its name.
    RawTracepoint(&'static str),
}

impl AttachPoint {
    /// Whether loading takes the kernel's BTF types.
    pub(super) fn needs_types(self) -> bool {
        matches!(self, AttachPoint::Lsm(_) | AttachPoint::Fentry(_))
    }

    /// The canary that shows whether the kernel calls programs here; `None` where it always does.
    pub(super) fn canary(self) -> Option<Canary> {
        match self {
            AttachPoint::Lsm(_) => Some(Canary::Lsm),
            AttachPoint::Fentry(_) => Some(Canary::Fentry),
            AttachPoint::Kprobe(_) => Some(Canary::Kprobe),
            AttachPoint::CgroupSock(_)
            | AttachPoint::CgroupSockAddr(_)
            | AttachPoint::CgroupSkb(_)
            | AttachPoint::RawTracepoint(_) => None,
        }
    }
}

/// A program of the embedded object.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramSpec {
    /// Its name in the object, and that of its pin and of the pin of its link.
    pub(super) name: &'static str,
    pub(super) attach: AttachPoint,
    /// Where the programs of a group are alternatives: the one that this is for.
    pub(super) alternative: Option<Tracer>,
}

impl ProgramSpec {
    pub(super) const fn new(name: &'static str, attach: AttachPoint) -> ProgramSpec {
        ProgramSpec {
            name,
            attach,
            alternative: None,
        }
    }

    pub(super) const fn alternative(name: &'static str, attach: AttachPoint, tracer: Tracer) -> ProgramSpec {
        ProgramSpec {
            name,
            attach,
            alternative: Some(tracer),
        }
    }

    /// Loads it. `types` are the kernel's BTF types, for programs that need them.
    pub(super) fn load(
        &self,
        program: &mut Program,
        types: Option<&KernelTypes>,
    ) -> Result<(), DatapathError> {
        let loaded = match (self.attach, types) {
            (AttachPoint::Lsm(hook), Some(types)) => {
                <&mut Lsm>::try_from(program).and_then(|program| program.load(hook, types))
            }
            (AttachPoint::Fentry(function), Some(types)) => {
                <&mut FEntry>::try_from(program).and_then(|program| program.load(function, types))
            }
            (AttachPoint::Lsm(_) | AttachPoint::Fentry(_), None) => {
                return Err(DatapathError::Missing(self.name));
            }
            (AttachPoint::CgroupSock(_), _) => {
                <&mut CgroupSock>::try_from(program).and_then(CgroupSock::load)
            }
            (AttachPoint::CgroupSockAddr(_), _) => {
                <&mut CgroupSockAddr>::try_from(program).and_then(CgroupSockAddr::load)
            }
            (AttachPoint::CgroupSkb(_), _) => <&mut CgroupSkb>::try_from(program).and_then(CgroupSkb::load),
            (AttachPoint::Kprobe(_), _) => <&mut KProbe>::try_from(program).and_then(KProbe::load),
            (AttachPoint::RawTracepoint(_), _) => {
                <&mut RawTracePoint>::try_from(program).and_then(RawTracePoint::load)
            }
        };
        loaded.map_err(|source| DatapathError::Load {
            program: self.name,
            source: Box::new(source),
        })
    }

    /// Attaches the program that is pinned at `program`, and pins the link at `link`. Programs of a cgroup need one; those
    /// for the whole machine ignore it.
    pub(super) fn attach(
        &self,
        program: &Path,
        cgroup: Option<BorrowedFd<'_>>,
        link: &Path,
    ) -> Result<(), DatapathError> {
        let to_cgroup = || cgroup.ok_or(DatapathError::NoCgroup(self.name));
        let attached = match self.attach {
            AttachPoint::CgroupSock(at) => {
                let cgroup = to_cgroup()?;
                CgroupSock::from_pin(program, at).and_then(|mut program| {
                    let id = program.attach(cgroup, MODE)?;
                    Ok(program.take_link(id)?.try_into())
                })
            }
            AttachPoint::CgroupSockAddr(at) => {
                let cgroup = to_cgroup()?;
                CgroupSockAddr::from_pin(program, at).and_then(|mut program| {
                    let id = program.attach(cgroup, MODE)?;
                    Ok(program.take_link(id)?.try_into())
                })
            }
            AttachPoint::CgroupSkb(at) => {
                let cgroup = to_cgroup()?;
                CgroupSkb::from_pin(program, at).and_then(|mut program| {
                    let id = program.attach(cgroup, at, MODE)?;
                    Ok(program.take_link(id)?.try_into())
                })
            }
            AttachPoint::Kprobe(function) => {
                KProbe::from_pin(program, ProbeKind::Entry).and_then(|mut program| {
                    let id = program.attach(function, 0)?;
                    Ok(program.take_link(id)?.try_into())
                })
            }
            AttachPoint::RawTracepoint(tracepoint) => {
                RawTracePoint::from_pin(program).and_then(|mut program| {
                    let id = program.attach(tracepoint)?;
                    Ok(Ok(program.take_link(id)?.into()))
                })
            }
            AttachPoint::Lsm(_) | AttachPoint::Fentry(_) => return self.attach_tracing(program, link),
        };
        self.pin(attached, link)
    }

    /// aya keeps no links of such programs when they come from a pin.
    fn attach_tracing(&self, program: &Path, link: &Path) -> Result<(), DatapathError> {
        let attached = syscall::open_pin(program)
            .and_then(|program| syscall::open_raw_tracepoint(program.as_fd(), None))
            .and_then(|attached| syscall::pin(attached.as_fd(), link));
        attached.map_err(|source| DatapathError::Tracing {
            program: self.name,
            source,
        })
    }

    fn pin(&self, attached: Attached, link: &Path) -> Result<(), DatapathError> {
        let attached = attached
            .map_err(|source| DatapathError::Attach {
                program: self.name,
                source: Box::new(source),
            })?
            .map_err(|source| DatapathError::Link {
                program: self.name,
                source: Box::new(source),
            })?;
        match attached.pin(link) {
            Ok(_) => Ok(()),
            Err(source) => Err(DatapathError::Pin {
                path: link.to_owned(),
                source: Box::new(source),
            }),
        }
    }
}

type Attached = Result<Result<FdLink, LinkError>, ProgramError>;

// `Single` means no flags, which is what links need: links are always stacked
// (kernel/bpf/cgroup.c, cgroup_bpf_link_attach); aya's other modes are refused.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;
