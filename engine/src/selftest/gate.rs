//! The gate of the self-test: the programs of `exec` on a cgroup of our own, and running voyagers in it.

use std::{
    cell::RefCell,
    ffi::OsString,
    fs,
    io::Read,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::PathBuf,
};

use engine_common::{
    Mode, Outcome,
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
};
use nix::unistd::pipe;

use super::{SelftestError, voyage::Voyage};
use crate::{
    cgroup::Hierarchy,
    compile::Image,
    datapath::{Attachment, EventRing, Features, Gate, PinFolder, WakeUp},
    events::{Event, decode},
    launch::{
        Capability, CapabilitySet, Command, Descendants, Exit, KeepFds, SignalSource, Supervisor,
        TransientCgroup, Watch,
    },
};

/// What a voyager may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Everything: to find out whether a way exists at all.
    All,
    /// What a command of `exec` has.
    AsExec,
    /// The same with raw sockets, so that it is a hook that decides.
    WithRawSockets,
}

/// Where voyagers run.
pub(super) struct Bench<'a> {
    signals: &'a SignalSource,
    program: PathBuf,
    plain: TransientCgroup,
    gated: Gated,
}

struct Gated {
    // Programs and tables live as long as this.
    _gate: Gate,
    ring: RefCell<EventRing>,
    cgroup: TransientCgroup,
    attachment: Attachment,
}

/// A voyage, and what the gate said meanwhile.
pub(super) struct Travelled {
    /// What the voyager told; `None` when it was ended before it could.
    pub(super) voyage: Option<Voyage>,
    pub(super) events: Vec<Event>,
}

impl Bench<'_> {
    /// Loads the programs, puts the image live and attaches them to a cgroup.
    pub(super) fn set<'a>(
        signals: &'a SignalSource,
        hierarchy: &Hierarchy,
        image: &Image,
        mode: Mode,
    ) -> Result<Bench<'a>, SelftestError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| SelftestError::Gate(error);
        let program = fs::read_link("/proc/self/exe").map_err(|error| failed(Box::new(error)))?;
        let plain = TransientCgroup::create(hierarchy).map_err(|error| failed(Box::new(error)))?;
        let cgroup = TransientCgroup::create(hierarchy).map_err(|error| failed(Box::new(error)))?;
        let mut gate =
            Gate::load(Features::detect(), WakeUp::EachRecord).map_err(|error| failed(Box::new(error)))?;
        let slot = gate.install(image).map_err(|error| failed(Box::new(error)))?;
        let mut slots = [SlotRef::NONE; MAX_STACKED];
        slots[0] = SlotRef::new(slot.0, mode);
        let scope = Scope {
            cgroup: cgroup.id(),
            level: cgroup.level().unwrap_or(Scope::UNKNOWN_LEVEL),
            flags: 0,
            slots,
        };
        let pins = PinFolder::create(cgroup.id()).map_err(|error| failed(Box::new(error)))?;
        let attachment = gate
            .attach(cgroup.fd(), &scope, pins)
            .map_err(|error| failed(Box::new(error)))?;
        let ring = gate.events().map_err(|error| failed(Box::new(error)))?;
        Ok(Bench {
            signals,
            program,
            plain,
            gated: Gated {
                _gate: gate,
                ring: RefCell::new(ring),
                cgroup,
                attachment,
            },
        })
    }

    /// Sends a voyager out without the gate.
    pub(super) fn go_plain(
        &self,
        words: Vec<OsString>,
        handed: &[RawFd],
    ) -> Result<Travelled, SelftestError> {
        self.go(&self.plain, words, handed, Rights::All)
    }

    /// Sends a voyager out through the gate.
    pub(super) fn go_gated(
        &self,
        words: Vec<OsString>,
        handed: &[RawFd],
        rights: Rights,
    ) -> Result<Travelled, SelftestError> {
        self.go(&self.gated.cgroup, words, handed, rights)
    }

    fn go(
        &self,
        cgroup: &TransientCgroup,
        words: Vec<OsString>,
        handed: &[RawFd],
        rights: Rights,
    ) -> Result<Travelled, SelftestError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| SelftestError::Voyager(error);
        let (told, teller) = pipe().map_err(|errno| failed(Box::new(errno)))?;
        let mut command = Command::new(&self.program);
        command.args = vec!["voyage".into(), format!("--tell={}", teller.as_raw_fd()).into()];
        command.args.extend(words);
        command.keep_fds = KeepFds::Also([handed, &[teller.as_raw_fd()]].concat());
        command.keep_capabilities = match rights {
            Rights::All => CapabilitySet::ALL,
            Rights::AsExec => CapabilitySet::NONE,
            Rights::WithRawSockets => CapabilitySet::of(Capability::NET_RAW),
        };
        let child = command
            .spawn(cgroup.fd(), self.signals)
            .map_err(|error| failed(Box::new(error)))?;
        drop(teller);
        let events = RefCell::new(Vec::new());
        let mut drain = || {
            self.gated.ring.borrow_mut().drain(|record| {
                let Ok(event) = decode(record) else { return };
                if event.outcome == Outcome::KillPending {
                    cgroup.kill_member(event.pid);
                }
                events.borrow_mut().push(event);
            });
        };
        let watched = self.gated.ring.borrow().as_fd().try_clone_to_owned();
        let watched = watched.map_err(|error| failed(Box::new(error)))?;
        let finished = {
            let mut watches = [Watch {
                fd: watched.as_fd(),
                ready: &mut drain,
            }];
            Supervisor::new(child, cgroup, self.signals).run(Descendants::End, &mut watches)
        };
        let finished = finished.map_err(|error| failed(Box::new(error)))?;
        drain();
        if let Exit::Signal(libc::SIGINT | libc::SIGTERM | libc::SIGHUP) = finished.exit {
            return Err(SelftestError::Interrupted);
        }
        Ok(Travelled {
            voyage: read_told(told),
            events: events.into_inner(),
        })
    }

    /// Takes all away again: the cgroups, and then what was attached.
    pub(super) fn clear(self) {
        for cgroup in [self.plain, self.gated.cgroup] {
            if let Err(error) = cgroup.remove() {
                tracing::warn!(%error, "the next run tries again");
            }
        }
        if let Err(error) = self.gated.attachment.detach() {
            tracing::warn!(%error, "the next run tries again");
        }
    }
}

/// What was told, once nobody can tell any more.
fn read_told(told: OwnedFd) -> Option<Voyage> {
    let mut text = String::new();
    fs::File::from(told).read_to_string(&mut text).ok()?;
    Voyage::read(&text).pop()
}
