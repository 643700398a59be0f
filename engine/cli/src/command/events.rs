//! `tidegate events`: prints the events of attached policies.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    path::PathBuf,
    process::ExitCode,
};

use engine_common::ExecutableId;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};

use super::{attached, event_names::EventNames};
use crate::{Exit, Failure, Output, environment, help::HelpEnd};
use tidegate_core::{
    cgroup::Hierarchy,
    control::ReaderLock,
    datapath::EventRing,
    events::{
        CgroupMigration, Clock, Event, Names, Pipeline, PolicyNames, StreamItem,
        json::{self, EventLine, LostLine, MigrationLine},
        text,
    },
    launch,
};

/// Read the events of attached policies
///
/// Use it to see what policies audit, block or kill, and which tasks migrate out of their cgroups. Prints the events
/// that were not read before: each event is printed once, and a second `events` does not show it again. A policy also
/// denies while nobody reads. When the ring buffer is full, new events are lost and counted. Needs root.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help())]
pub struct EventsArgs {
    /// Wait for new events until interrupted
    #[arg(long, short)]
    pub follow: bool,
}

fn help() -> String {
    HelpEnd {
        notes: &[
            "Each event is delivered once, to one reader at a time. A line starts with its time and outcome: AUDIT, \
             WOULD-BLOCK, WOULD-KILL, BLOCK, KILL, or KILL-PENDING when the process is killed after the call was denied. \
             MIGRATED lines report a task that left a cgroup with policies, LOST lines count lost events.",
            "On kernels before Linux 6.16 without LSM programs (BPF LSM), an eBPF program cannot kill a process. A policy \
             with the action kill is then refused, unless it was attached with --best-effort. Then the call is denied, \
             and a running `events --follow` kills the process.",
            "With `--output json`, every line is one object; `type` is event, cgroup_migration or lost.",
        ],
        examples: &[
            ("Print new events", &["sudo tidegate events"]),
            (
                "Follow blocked connections",
                &[
                    "sudo tidegate events --follow --output json |",
                    "  jq 'select(.outcome == \"blocked\")'",
                ],
            ),
            (
                "Follow cgroup migrations",
                &[
                    "sudo tidegate events --follow --output json |",
                    "  jq 'select(.type == \"cgroup_migration\")'",
                ],
            ),
        ],
        exits: &[
            (Exit::Success, "success, also if there are no events"),
            (Exit::CouldNotRun, "could not run, or another process reads the events"),
            (Exit::Usage, "invalid command line"),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// Reads and prints events.
///
/// # Errors
/// When another process reads the events, or they cannot be read.
pub fn run(args: &EventsArgs, output: Output) -> Result<ExitCode, Failure> {
    attached::require_root("events")?;
    let reader = ReaderLock::take(&environment::invocation()?).map_err(attached::failed)?;
    let Some(control) = attached::open("events")? else {
        if args.follow {
            let failure = Failure::of(
                Exit::CouldNotRun,
                "no policies attached, so there are no events to wait for",
            );
            return Err(failure.hint("attach a policy with `tidegate attach`"));
        }
        return Ok(Exit::Success.into());
    };
    let clock =
        Clock::capture().map_err(|e| Failure::of(Exit::CouldNotRun, "cannot read the clock").because(&e))?;
    let started = clock
        .ktime_ns()
        .map_err(|e| Failure::of(Exit::CouldNotRun, "cannot read the clock").because(&e))?;
    let mut stream = Stream {
        ring: control.events().map_err(attached::failed)?,
        pipeline: Pipeline::new(EventNames::of(&control)?, clock, reader.losses_reported()),
        hierarchy: control.hierarchy().clone(),
        reader,
        output,
        kills_from: args.follow.then_some(started),
    };
    let end = control.end().map_err(attached::failed)?;
    // Releases the lock: other commands may change policies while this one reads events.
    drop(control);
    let mut more = true;
    loop {
        match stream.drain() {
            Ok(()) => {}
            // The output was closed, for example by `head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                return Err(Failure::of(Exit::CouldNotRun, "cannot write events").because(&error));
            }
        }
        if !stream.pipeline.is_pending() && (!args.follow || !more) {
            break;
        }
        more = stream.wait(&end)?;
    }
    Ok(Exit::Success.into())
}

/// Waits until a line can be written without blocking. Signals can interrupt the wait, also if an event is pending.
fn ready_to_write() -> io::Result<()> {
    let stdout = io::stdout();
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::ZERO) == Ok(0) {
        let _ = signals().thread_unblock();
        match poll(&mut fds, PollTimeout::NONE) {
            Err(errno) if errno != Errno::EINTR => return Err(errno.into()),
            _ => {}
        }
    }
    let closed = PollFlags::POLLERR | PollFlags::POLLHUP;
    match fds[0].revents() {
        Some(found) if found.intersects(closed) => Err(io::ErrorKind::BrokenPipe.into()),
        _ => Ok(()),
    }
}

/// The signals that terminate the process.
fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect()
}

struct Stream {
    ring: EventRing,
    pipeline: Pipeline<EventNames>,
    hierarchy: Hierarchy,
    reader: ReaderLock,
    output: Output,
    /// Processes are killed for attempts from this time on, nanoseconds of CLOCK_BOOTTIME. The pid of an earlier one
    /// may have been reused.
    kills_from: Option<u64>,
}

impl Stream {
    /// Prints all items that are ready.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            ready_to_write()?;
            // Signals are blocked while a record is taken from the ring and not yet printed, also while its event
            // waits for the local address (for 100 ms at most): so every event is either printed or left in the ring.
            let blocked = signals();
            let _ = blocked.thread_block();
            let taken = self.take();
            if !self.pipeline.is_pending() {
                let _ = blocked.thread_unblock();
            }
            if !taken? {
                return Ok(());
            }
        }
    }

    /// Takes a record, and prints the items that are ready; false if the ring was empty.
    fn take(&mut self) -> io::Result<bool> {
        let ring = &mut self.ring;
        let is_record = self.pipeline.read(|read| ring.take(read).is_some());
        while let Some(kill) = self.pipeline.next_late_kill() {
            if self.kills_from.is_some_and(|from| from <= kill.ktime_ns) {
                kill_late(&self.hierarchy, self.pipeline.names().path(kill.scope), kill.pid);
            }
        }
        let mut is_loss = false;
        while let Some(item) = self.pipeline.next_item() {
            let text = match &item {
                StreamItem::Attempt(named) => line(self.output, || text::line(named), &EventLine::new(named)),
                StreamItem::CgroupMigration(named) => line(
                    self.output,
                    || text::migration_line(named),
                    &MigrationLine::new(named),
                ),
                StreamItem::Lost(lost) => {
                    is_loss = true;
                    line(self.output, || text::lost_line(lost), &LostLine::new(lost))
                }
            };
            let mut stdout = anstream::stdout().lock();
            writeln!(stdout, "{text}")?;
            stdout.flush()?;
        }
        if is_loss {
            self.reader.set_losses_reported(self.pipeline.lost());
        }
        Ok(is_record)
    }

    /// Waits until the ring is readable; false if no more events will come.
    fn wait(&self, end: &impl AsFd) -> Result<bool, Failure> {
        let stdout = io::stdout();
        let mut fds = [
            PollFd::new(self.ring.as_fd(), PollFlags::POLLIN),
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
            // Reports POLLERR when the other end is closed.
            PollFd::new(stdout.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => Ok(fds[1].any() != Some(true)),
            Err(Errno::EINTR) => Ok(true),
            Err(errno) => {
                Err(Failure::of(Exit::CouldNotRun, "cannot wait for events").because(&io::Error::from(errno)))
            }
        }
    }
}

fn line(output: Output, text: impl FnOnce() -> String, object: &impl serde::Serialize) -> String {
    match output {
        Output::Text => text(),
        Output::Json => json::line(object).unwrap_or_default(),
    }
}

/// Kills a process for which the hook could only deny.
fn kill_late(hierarchy: &Hierarchy, scope: Option<&String>, pid: u32) {
    let killed = scope
        .and_then(|path| hierarchy.directory(path.as_ref()))
        .is_some_and(|directory| launch::kill_in(hierarchy, &directory, pid));
    if !killed {
        tracing::debug!(pid, "the process to be killed has exited");
    }
}

impl Names for EventNames {
    fn learn(&mut self, event: &Event) {
        EventNames::learn(self, event);
    }

    fn learn_migration(&mut self, migration: &CgroupMigration) {
        self.learn_migration(migration);
    }

    fn policy(&self, slot: u32, generation: u64) -> Option<&PolicyNames> {
        self.context().policy(slot, generation)
    }

    fn scope(&self, cgroup: u64) -> Option<&str> {
        self.context().scope(cgroup)
    }

    fn cgroup(&self, id: u64) -> Option<String> {
        self.context().cgroup(id)
    }

    fn executable(&self, pid: u32, id: ExecutableId) -> Option<PathBuf> {
        EventNames::executable(self, pid, id)
    }
}
