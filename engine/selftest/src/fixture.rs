//! The cgroups of the self-test, one without a policy and one with the programs that `exec` attaches, and the
//! test clients that run in them.

use std::{
    cell::RefCell,
    ffi::OsString,
    fs,
    io::Read,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    path::PathBuf,
};

use engine_common::ExecutableId;
use nix::unistd::pipe;

use super::{SelftestError, client_result::ClientResult};
use tidegate_core::{
    cgroup::Hierarchy,
    compile::Image,
    datapath::{EventRing, Features, RunDatapath},
    events::{Clock, Context, Event, Pipeline, StreamItem},
    host::Capabilities,
    instance::Instance,
    launch::{
        Capability, CapabilitySet, Command, Environment, Exit, KeepFds, OrphanAction, SignalSource,
        Supervisor, TransientCgroup, Watch,
    },
    policy::Policy,
};

/// The capabilities that a test client keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Privileges {
    /// All of them: to find out whether the kernel supports a method.
    All,
    /// Those of a command of `exec`.
    AsExec,
    /// Only CAP_NET_RAW, so that a hook decides and not the missing capability.
    WithNetRaw,
}

/// Two cgroups, removed by [`Fixture::remove`].
pub(super) struct Fixture<'a> {
    signals: &'a SignalSource,
    program: PathBuf,
    environment: &'a Environment,
    plain: TransientCgroup,
    capabilities: Capabilities,
    enforced: EnforcedSide,
}

struct EnforcedSide {
    datapath: RunDatapath,
    ring: RefCell<EventRing>,
    cgroup: TransientCgroup,
}

/// The result of a test client, and the events of its run.
pub(super) struct CaseRun {
    /// `None` when the test client died before it reported a result.
    pub(super) result: Option<ClientResult>,
    pub(super) events: Vec<Event>,
}

impl Fixture<'_> {
    /// What the policy can rely on.
    pub(super) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Creates both cgroups and attaches the policy to one of them, as `exec` does.
    pub(super) fn attach<'a>(
        instance: &Instance,
        environment: &'a Environment,
        signals: &'a SignalSource,
        hierarchy: &Hierarchy,
        image: &Image,
        policy: &Policy,
    ) -> Result<Fixture<'a>, SelftestError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| SelftestError::Datapath(error);
        let program = fs::read_link("/proc/self/exe").map_err(|error| failed(Box::new(error)))?;
        let plain = TransientCgroup::create(hierarchy).map_err(|error| failed(Box::new(error)))?;
        let cgroup = TransientCgroup::create(hierarchy).map_err(|error| failed(Box::new(error)))?;
        let features = Features::detect(&instance.disabled);
        let datapath = RunDatapath::open(instance, features, |cgroup| hierarchy.has(cgroup));
        let datapath = datapath.map_err(|error| failed(Box::new(error)))?;
        let capabilities = Capabilities::of_loaded(features, |group| datapath.has(group), &instance.disabled);
        let installed = datapath
            .install(&[image])
            .map_err(|error| failed(Box::new(error)))?;
        let policies: Vec<_> = installed.into_iter().map(|slot| (slot, policy)).collect();
        let scope = datapath.scope(cgroup.id(), cgroup.level(), &policies);
        let scope = scope.ok_or_else(|| failed("a cgroup cannot have so many policies".into()))?;
        datapath
            .attach(cgroup.fd(), &scope)
            .map_err(|error| failed(Box::new(error)))?;
        let ring = datapath.events().map_err(|error| failed(Box::new(error)))?;
        Ok(Fixture {
            signals,
            program,
            environment,
            plain,
            capabilities,
            enforced: EnforcedSide {
                datapath,
                ring: RefCell::new(ring),
                cgroup,
            },
        })
    }

    /// Runs a test client in the cgroup without a policy.
    pub(super) fn run_without_policy(
        &self,
        args: Vec<OsString>,
        inherited_fds: &[RawFd],
    ) -> Result<CaseRun, SelftestError> {
        self.run(&self.plain, args, inherited_fds, Privileges::All)
    }

    /// Runs a test client in the cgroup with the policy.
    pub(super) fn run_under_policy(
        &self,
        args: Vec<OsString>,
        inherited_fds: &[RawFd],
        privileges: Privileges,
    ) -> Result<CaseRun, SelftestError> {
        self.run(&self.enforced.cgroup, args, inherited_fds, privileges)
    }

    fn run(
        &self,
        cgroup: &TransientCgroup,
        args: Vec<OsString>,
        inherited_fds: &[RawFd],
        privileges: Privileges,
    ) -> Result<CaseRun, SelftestError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>| SelftestError::TestClient(error);
        let (result_reader, result_writer) = pipe().map_err(|errno| failed(Box::new(errno)))?;
        let mut command = Command::new(&self.program, self.environment.clone());
        command.args = vec![
            "selftest-client".into(),
            format!("--result-fd={}", result_writer.as_raw_fd()).into(),
        ];
        command.args.extend(args);
        command.keep_fds = KeepFds::Also([inherited_fds, &[result_writer.as_raw_fd()]].concat());
        command.keep_capabilities = match privileges {
            Privileges::All => CapabilitySet::ALL,
            Privileges::AsExec => CapabilitySet::NONE,
            Privileges::WithNetRaw => CapabilitySet::of(Capability::NET_RAW),
        };
        let child = command
            .spawn(cgroup.fd(), self.signals)
            .map_err(|error| failed(Box::new(error)))?;
        drop(result_writer);
        let names = Context::new(|_: u32, _: ExecutableId| None);
        let clock = Clock::capture().map_err(|error| failed(Box::new(error)))?;
        let mut pipeline = Pipeline::new(names, clock, 0);
        let mut events = Vec::new();
        let mut drain = |is_end: bool| {
            let mut ring = self.enforced.ring.borrow_mut();
            loop {
                let is_record = pipeline.read(|read| ring.take(read).is_some());
                while let Some(kill) = pipeline.next_late_kill() {
                    cgroup.kill_member(kill.pid);
                }
                if !is_record {
                    break;
                }
            }
            if is_end {
                pipeline.end(pipeline.lost());
            }
            while let Some(item) = pipeline.next_item() {
                if let StreamItem::Attempt(named) = item {
                    events.push(named.event.clone());
                }
            }
        };
        let watched = self.enforced.ring.borrow().as_fd().try_clone_to_owned();
        let watched = watched.map_err(|error| failed(Box::new(error)))?;
        let finished = {
            let mut watches = [Watch {
                fd: watched.as_fd(),
                ready: &mut || drain(false),
            }];
            Supervisor::new(child, cgroup, self.signals).run(OrphanAction::Terminate, &mut watches)
        };
        let finished = finished.map_err(|error| failed(Box::new(error)))?;
        drain(true);
        if let Exit::Signal(libc::SIGINT | libc::SIGTERM | libc::SIGHUP) = finished.exit {
            return Err(SelftestError::Interrupted);
        }
        Ok(CaseRun {
            result: read_result(result_reader),
            events,
        })
    }

    /// Removes the cgroups, and then detaches the policy.
    pub(super) fn remove(self) {
        let EnforcedSide { datapath, cgroup, .. } = self.enforced;
        let id = cgroup.id();
        let mut is_gone = true;
        for cgroup in [self.plain, cgroup] {
            if let Err(error) = cgroup.remove() {
                tracing::warn!(%error, "failed to remove a cgroup; the next run will try again");
                is_gone = false;
            }
        }
        // A cgroup that still exists keeps its policy.
        if is_gone && let Err(error) = datapath.detach(id) {
            tracing::warn!(%error, "failed to detach the policy; the next run will try again");
        }
    }
}

/// Reads the last result from the pipe, until every writer has closed it.
fn read_result(reader: OwnedFd) -> Option<ClientResult> {
    let mut text = String::new();
    fs::File::from(reader).read_to_string(&mut text).ok()?;
    ClientResult::read(&text).pop()
}
