//! The probe of a gate: a program on TCP connections, for the whole machine, attached only while some policy is
//! for it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aya::programs::{
    KProbe, ProbeKind, Program, ProgramError, ProgramType, RawTracePoint,
    links::{FdLink, LinkError},
};
use engine_common::scope::HookSet;

use super::{
    attachment::AttachError,
    features::Features,
    links::LinkState,
    pinned::{DatapathError, PinnedDatapath, at},
    pins, syscall,
};

/// The kernel's list of kinds of probes (`perf_kprobe`, kernel/events/core.c, Linux 4.17).
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe/type";

/// How connections are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// By a kprobe on `tcp_connect`: the source is known when the SYN leaves.
    Kprobe,
    /// By the tracepoint `inet_sock_set_state`: the source is known when the peer has answered, or the attempt
    /// has failed.
    Tracepoint,
}

impl Probe {
    /// All of them.
    pub(super) const ALL: [Probe; 2] = [Probe::Kprobe, Probe::Tracepoint];

    /// The name of its program.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Probe::Kprobe => "tcp_connect",
            Probe::Tracepoint => "sock_state",
        }
    }

    /// The best that this kernel has, `is_enabled` being asked about each by its name.
    pub(super) fn detect(is_enabled: impl Fn(&str) -> bool) -> Option<Probe> {
        if !is_enabled("probe") {
            return None;
        }
        // A link that can be pinned is what a policy stands on: those of kprobes have one since Linux 5.15.
        if is_enabled("kprobe") && Path::new(KPROBES).exists() && syscall::try_kprobe_link().is_ok() {
            return Some(Probe::Kprobe);
        }
        tracer_unavailable_reason().is_none().then_some(Probe::Tracepoint)
    }

    /// Loads its program.
    pub(super) fn load(program: &mut Program) -> Result<(), ProgramError> {
        match program {
            Program::KProbe(probe) => probe.load(),
            other => <&mut RawTracePoint>::try_from(other)?.load(),
        }
    }

    /// Attaches a loaded program by a link that is pinned in a folder.
    pub(super) fn attach(self, program: &mut Program, folder: &Path) -> Result<(), AttachError> {
        let link = match program {
            Program::KProbe(probe) => link_kprobe(probe),
            other => <&mut RawTracePoint>::try_from(other).and_then(link_tracepoint),
        };
        self.pin(link, folder)
    }

    fn attach_pinned(self, program: &Path, folder: &Path) -> Result<(), AttachError> {
        let link = match self {
            Probe::Kprobe => {
                KProbe::from_pin(program, ProbeKind::Entry).and_then(|mut probe| link_kprobe(&mut probe))
            }
            Probe::Tracepoint => {
                RawTracePoint::from_pin(program).and_then(|mut probe| link_tracepoint(&mut probe))
            }
        };
        self.pin(link, folder)
    }

    fn pin(self, link: Linked, folder: &Path) -> Result<(), AttachError> {
        let program = self.program();
        let link = link
            .map_err(|source| AttachError::Attach {
                program,
                source: Box::new(source),
            })?
            .map_err(|source| AttachError::Link {
                program,
                source: Box::new(source),
            })?;
        let path = folder.join(program);
        match link.pin(&path) {
            Ok(_) => Ok(()),
            Err(source) => Err(AttachError::Pin {
                program,
                path,
                source: Box::new(source),
            }),
        }
    }
}

/// Why no probe would run here, in words; `None` where one does. For raw tracepoints any kernel will do that has
/// what else is needed (Linux 4.17).
pub fn tracer_unavailable_reason() -> Option<String> {
    match aya::sys::is_program_supported(ProgramType::RawTracePoint) {
        Ok(true) => None,
        Ok(false) => Some("this kernel lets no program run on tracepoints".to_owned()),
        Err(error) => Some(format!("the kernel refuses programs on tracepoints: {error}")),
    }
}

type Linked = Result<Result<FdLink, LinkError>, ProgramError>;

fn link_kprobe(program: &mut KProbe) -> Linked {
    let id = program.attach("tcp_connect", 0)?;
    Ok(program.take_link(id)?.try_into())
}

fn link_tracepoint(program: &mut RawTracePoint) -> Linked {
    let id = program.attach("inet_sock_set_state")?;
    Ok(Ok(program.take_link(id)?.into()))
}

impl Features {
    /// The kinds of hooks that this kernel has.
    pub fn hooks(self) -> HookSet {
        let mut hooks = HookSet::CGROUP;
        if self.lsm {
            hooks = hooks.and(HookSet::LSM).and(HookSet::UNIX);
        }
        if self.probe.is_some() {
            hooks = hooks.and(HookSet::TRACER);
        }
        hooks
    }

    /// What is left of it with these hooks only.
    #[must_use]
    pub fn only(self, hooks: HookSet) -> Features {
        Features {
            lsm: self.lsm && hooks.has(HookSet::LSM),
            probe: self.probe.filter(|_| hooks.has(HookSet::TRACER)),
            ..self
        }
    }
}

impl PinnedDatapath {
    /// The probe among its programs; `None` where this kernel had none.
    pub fn probe(&self) -> Option<Probe> {
        let programs = self.folder.join("programs");
        Probe::ALL
            .into_iter()
            .find(|probe| programs.join(probe.program()).exists())
    }

    /// The kinds of hooks that it has programs for.
    pub fn hooks(&self) -> HookSet {
        let mut hooks = HookSet::CGROUP;
        if self.has_lsm() {
            hooks = hooks.and(HookSet::LSM);
        }
        if self.has_unix() {
            hooks = hooks.and(HookSet::UNIX);
        }
        if self.probe().is_some() {
            hooks = hooks.and(HookSet::TRACER);
        }
        hooks
    }

    /// Attaches the probe, where there is one and it is not attached yet.
    pub(super) fn attach_tracer(&self) -> Result<(), AttachError> {
        let Some(probe) = self.probe() else {
            return Ok(());
        };
        let links = tracer_links(&self.folder);
        pins::make(&links)?;
        if links.join(probe.program()).exists() {
            return Ok(());
        }
        probe.attach_pinned(&self.folder.join("programs").join(probe.program()), &links)
    }

    /// Attaches the probe where some policy is for it, and takes it away where none is.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn update_tracer(&self) -> Result<(), AttachError> {
        if self
            .tasks
            .hooks()
            .map_err(AttachError::Scope)?
            .has(HookSet::TRACER)
        {
            return self.attach_tracer();
        }
        detach(&self.folder).map_err(|source| AttachError::Detach(Box::new(source)))
    }

    /// How the probe is attached, by its program's name; `None` where there is none.
    pub fn tracer_state(&self) -> Option<(&'static str, LinkState)> {
        let name = self.probe()?.program();
        let state = match syscall::open_pin(&tracer_links(&self.folder).join(name)) {
            Ok(_) => LinkState::Attached,
            Err(_) => LinkState::Missing,
        };
        Some((name, state))
    }
}

fn tracer_links(folder: &Path) -> PathBuf {
    folder.join("links").join("probe")
}

/// Takes the probe of a gate away.
pub(super) fn detach(folder: &Path) -> Result<(), DatapathError> {
    let links = tracer_links(folder);
    for probe in Probe::ALL {
        let path = links.join(probe.program());
        pins::remove_link(&path).map_err(at("remove", &path))?;
    }
    pins::gone_is_fine(fs::remove_dir(&links)).map_err(at("remove", &links))
}
