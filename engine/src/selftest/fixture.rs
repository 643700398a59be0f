//! The gate of the self-test: the programs of `exec` on a cgroup of our own, and running test clients in it.

use std::{
    cell::RefCell,
    ffi::OsString,
    fs,
    io::Read,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::PathBuf,
};

use engine_common::{
    Outcome,
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
};
use nix::unistd::pipe;

use super::{SelftestError, client_result::ClientResult};
use crate::{
    cgroup::Hierarchy,
    compile::Image,
    datapath::{EventRing, Features, RunDatapath},
    events::{Event, decode},
    instance::Instance,
    launch::{
        Capability, CapabilitySet, Command, Descendants, Exit, KeepFds, SignalSource, Supervisor,
        TransientCgroup, Watch,
    },
    policy::Policy,
};

/// What a test client may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Everything: to find out whether a way exists at all.
    All,
    /// What a command of `exec` has.
    AsExec,
    /// The same with raw sockets, so that it is a hook that decides.
    WithRawSockets,
}

/// Where test clients run.
pub(super) struct Bench<'a> {
    signals: &'a SignalSource,
    program: PathBuf,
    plain: TransientCgroup,
    gated: Gated,
}

struct Gated {
    datapath: RunDatapath,
    ring: RefCell<EventRing>,
    cgroup: TransientCgroup,
}

/// A run, and what the gate said meanwhile.
pub(super) struct CaseRun {
    /// What the test client told; `None` when it was ended before it could.
    pub(super) result: Option<ClientResult>,
    pub(super) events: Vec<Event>,
}

impl Bench<'_> {
    /// Puts the policy live, as `exec` does, and a cgroup under it.
    pub(super) fn set<'a>(
        instance: &Instance,
        signals: &'a SignalSource,
        hierarchy: &Hierarchy,
        image: &Image,
        policy: &Policy,
    ) -> Result<Bench<'a>, SelftestError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| SelftestError::Gate(error);
        let program = fs::read_link("/proc/self/exe").map_err(|error| failed(Box::new(error)))?;
        let plain = TransientCgroup::create(hierarchy).map_err(|error| failed(Box::new(error)))?;
        let cgroup = TransientCgroup::create(hierarchy).map_err(|error| failed(Box::new(error)))?;
        let features = Features::detect(&instance.disabled);
        let datapath = RunDatapath::open(instance, features, |cgroup| hierarchy.has(cgroup));
        let datapath = datapath.map_err(|error| failed(Box::new(error)))?;
        let installed = datapath
            .install(&[image])
            .map_err(|error| failed(Box::new(error)))?;
        let mut slots = [SlotRef::NONE; MAX_STACKED];
        for (reference, slot) in slots.iter_mut().zip(installed) {
            let hooks = policy.hooks.wanted(features.hooks(), policy.uses());
            *reference = SlotRef::new(slot.0, policy.mode).for_hooks(hooks);
        }
        let scope = Scope {
            cgroup: cgroup.id(),
            level: cgroup.level().unwrap_or(Scope::UNKNOWN_LEVEL),
            flags: if policy.strict { Scope::STRICT } else { 0 },
            slots,
        };
        datapath
            .attach(cgroup.fd(), &scope)
            .map_err(|error| failed(Box::new(error)))?;
        let ring = datapath.events().map_err(|error| failed(Box::new(error)))?;
        Ok(Bench {
            signals,
            program,
            plain,
            gated: Gated {
                datapath,
                ring: RefCell::new(ring),
                cgroup,
            },
        })
    }

    /// Sends a test client out without the gate.
    pub(super) fn go_plain(&self, words: Vec<OsString>, handed: &[RawFd]) -> Result<CaseRun, SelftestError> {
        self.go(&self.plain, words, handed, Rights::All)
    }

    /// Sends a test client out through the gate.
    pub(super) fn go_gated(
        &self,
        words: Vec<OsString>,
        handed: &[RawFd],
        rights: Rights,
    ) -> Result<CaseRun, SelftestError> {
        self.go(&self.gated.cgroup, words, handed, rights)
    }

    fn go(
        &self,
        cgroup: &TransientCgroup,
        words: Vec<OsString>,
        handed: &[RawFd],
        rights: Rights,
    ) -> Result<CaseRun, SelftestError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| SelftestError::TestClient(error);
        let (told, teller) = pipe().map_err(|errno| failed(Box::new(errno)))?;
        let mut command = Command::new(&self.program);
        command.args = vec![
            "selftest-client".into(),
            format!("--tell={}", teller.as_raw_fd()).into(),
        ];
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
        Ok(CaseRun {
            result: read_told(told),
            events: events.into_inner(),
        })
    }

    /// Takes all away again: the cgroups, and then what was attached.
    pub(super) fn clear(self) {
        let Gated { datapath, cgroup, .. } = self.gated;
        let id = cgroup.id();
        let mut is_gone = true;
        for cgroup in [self.plain, cgroup] {
            if let Err(error) = cgroup.remove() {
                tracing::warn!(%error, "the next run tries again");
                is_gone = false;
            }
        }
        // As long as the cgroup is there, it is gated.
        if is_gone && let Err(error) = datapath.detach(id) {
            tracing::warn!(%error, "the next run tries again");
        }
    }
}

/// What was told, once nobody can tell any more.
fn read_told(told: OwnedFd) -> Option<ClientResult> {
    let mut text = String::new();
    fs::File::from(told).read_to_string(&mut text).ok()?;
    ClientResult::read(&text).pop()
}
