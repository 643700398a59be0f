//! `tidegate events`: what standing policies had to say.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    process::ExitCode,
};

use engine_common::Outcome;
use jiff::Timestamp;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};

use super::{attached, event_names::EventNames};
use crate::{
    cgroup::Hierarchy,
    cli::{Exit, Failure, Output, environment},
    control::ReaderLock,
    datapath::EventRing,
    events::{
        CgroupMigration, Clock, Correlator, Event, LossWatch, NamedEvent, NamedMigration, Record, Told,
        clock::monotonic_ns,
        decode_record,
        json::{self, EventLine, GapLine, MigrationLine},
        text,
    },
    launch,
};

/// Read the events of standing policies
///
/// Beside attempts it is told who leaves a cgroup that carries policies (MOVED): that is for root, and
/// whoever owns a delegated subtree with both cgroups in it, and ends nothing but the policies' hold on the process.
///
/// Each event is read once, by one reader at a time. Nothing depends on reading: when nobody does, the
/// ring fills up, later events are lost, and their number is told as a gap. Where the kernel cannot kill
/// (before Linux 6.16), --follow kills whoever makes an attempt to be killed for while it runs.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo tidegate events
  sudo tidegate events --follow
  sudo tidegate events --follow --output json | jq 'select(.outcome == \"blocked\")'
  sudo tidegate events --follow --output json | jq 'select(.type == \"move\")'

Exit codes:
  0 read; 1 could not run, or somebody else is reading; 2 the command line is wrong.")]
pub struct EventsArgs {
    /// Wait for more, until interrupted
    #[arg(long, short)]
    pub follow: bool,
}

/// Reads and prints them.
///
/// # Errors
/// When somebody else reads them, or they cannot be read.
pub fn run(args: &EventsArgs, output: Output) -> Result<ExitCode, Failure> {
    attached::require_root("events")?;
    let reader = ReaderLock::take(&environment::invocation()?).map_err(attached::failed)?;
    let Some(standing) = attached::open("events")? else {
        if args.follow {
            let failure = Failure::of(
                Exit::CouldNotRun,
                "nothing stands, so there are no events to wait for",
            );
            return Err(failure.hint("`tidegate attach` puts a policy on a cgroup"));
        }
        return Ok(Exit::Fine.into());
    };
    let clock =
        Clock::capture().map_err(|e| Failure::of(Exit::CouldNotRun, "cannot read the clock").because(&e))?;
    let began = Timestamp::now();
    let mut stream = Stream {
        ring: standing.events().map_err(attached::failed)?,
        names: EventNames::of(&standing)?,
        losses: LossWatch::starting_at(reader.losses_reported()),
        hierarchy: standing.hierarchy().clone(),
        reader,
        clock,
        output,
        kills_from: args.follow.then_some(began),
        join: Correlator::default(),
    };
    let end = standing.end().map_err(attached::failed)?;
    // Others may change what stands while this reads.
    drop(standing);
    let mut more = true;
    loop {
        match stream.drain() {
            Ok(()) => {}
            // Whoever does not listen any more had what he wanted.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(error) => {
                return Err(Failure::of(Exit::CouldNotRun, "cannot write events").because(&error));
            }
        }
        if !stream.join.holds() && (!args.follow || !more) {
            break;
        }
        more = stream.wait(&end)?;
    }
    Ok(Exit::Fine.into())
}

/// Waits until a line can be written at once. While that takes time, this can be interrupted, also when an event
/// is held.
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

/// Those that end this by custom.
fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect()
}

struct Stream {
    ring: EventRing,
    names: EventNames,
    losses: LossWatch,
    hierarchy: Hierarchy,
    reader: ReaderLock,
    clock: Clock,
    output: Output,
    /// Who makes an attempt from then on is killed. Of what was before, the process may be another's by now.
    kills_from: Option<Timestamp>,
    /// Events whose sources are to come.
    join: Correlator,
}

impl Stream {
    /// Prints everything that is there.
    fn drain(&mut self) -> io::Result<()> {
        loop {
            ready_to_write()?;
            // What is told is taken, and what is not told is left, whenever somebody interrupts this: also while
            // an event waits for its source, which it does not for long.
            let held = signals();
            let _ = held.thread_block();
            let taken = self.take();
            if !self.join.holds() {
                let _ = held.thread_unblock();
            }
            if !taken? {
                return Ok(());
            }
        }
    }

    /// Takes a record, and prints what waits for nothing more; false where there was none.
    fn take(&mut self) -> io::Result<bool> {
        let record = self.ring.take(decode_record);
        let is_record = record.is_some();
        match record {
            Some(Ok(Record::Event(event))) => self.arrived(event),
            Some(Ok(Record::CgroupMigration(migration))) => self.join.migration(migration),
            Some(Ok(Record::Source(source))) => self.join.source(&source),
            Some(Err(error)) => tracing::warn!(%error, "an event was not understood"),
            None => match monotonic_ns() {
                Ok(now) => self.join.passed(now),
                // Without a clock nothing is waited for.
                Err(_) => self.join.ended(),
            },
        }
        while let Some(told) = self.join.take_ready() {
            match told {
                Told::Event(event) => self.tell(&event)?,
                Told::CgroupMigration(migration) => self.print_migration(&migration)?,
            }
        }
        Ok(is_record)
    }

    /// What cannot wait until the event is told.
    fn arrived(&mut self, event: Box<Event>) {
        let is_new = |from: Timestamp| from <= self.clock.wall(event.monotonic_ns);
        if event.outcome == Outcome::KillPending && self.kills_from.is_some_and(is_new) {
            self.names.learn(&event);
            kill_late(&self.hierarchy, self.names.path(event.scope), event.pid);
        }
        if (event.awaits.is_some() || self.join.holds())
            && let Some(id) = event.executable
        {
            // Looked up while the process lives; it is remembered.
            let _ = self.names.executable(event.pid, id);
        }
        self.join.event(event);
    }

    fn tell(&mut self, event: &Event) -> io::Result<()> {
        self.names.learn(event);
        let named = NamedEvent::new(event, &self.clock, self.names.context());
        let text = line(self.output, || text::line(&named), &EventLine::new(&named));
        let (lost, time) = (event.lost, named.time);
        self.print(&text, lost, time)
    }

    fn print_migration(&mut self, migration: &CgroupMigration) -> io::Result<()> {
        self.names.learn_left(migration);
        let named = NamedMigration::new(migration, &self.clock, self.names.context());
        let text = line(
            self.output,
            || text::migration_line(&named),
            &MigrationLine::new(&named),
        );
        let (lost, time) = (migration.lost, named.time);
        self.print(&text, lost, time)
    }

    /// Prints a line, and the gap before it if there is one.
    fn print(&mut self, text: &str, lost_by_then: u64, time: Timestamp) -> io::Result<()> {
        let gap = self.losses.before(lost_by_then, time);
        let mut stdout = anstream::stdout().lock();
        if let Some(gap) = gap {
            let text = line(self.output, || text::gap_line(&gap), &GapLine::new(&gap));
            writeln!(stdout, "{text}")?;
        }
        writeln!(stdout, "{text}")?;
        stdout.flush()?;
        if gap.is_some() {
            self.reader.set_losses_reported(self.losses.lost());
        }
        Ok(())
    }

    /// Waits until there is something to do; false when no more events will come.
    fn wait(&self, end: &impl AsFd) -> Result<bool, Failure> {
        let stdout = io::stdout();
        let mut fds = [
            PollFd::new(self.ring.as_fd(), PollFlags::POLLIN),
            PollFd::new(end.as_fd(), PollFlags::POLLIN),
            // Tells of itself when the other end is closed.
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

/// Where the hook cannot kill, it denies, and this does the rest.
fn kill_late(hierarchy: &Hierarchy, scope: Option<&String>, pid: u32) {
    let killed = scope
        .and_then(|path| hierarchy.directory(path.as_ref()))
        .is_some_and(|directory| launch::kill_in(hierarchy, &directory, pid));
    if !killed {
        tracing::debug!(pid, "the process to be killed is gone already");
    }
}
