//! What becomes of events while the command runs.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::Duration,
};

use engine_common::{ExecutableId, Outcome};

use super::args::ExecArgs;
use crate::{
    cli::Output,
    events::{
        Clock, Context, Correlator, Event, LossWatch, NamedEvent, Names, PolicyCounters, Record, ReportError,
        ReportFile, Tally, Told,
        clock::monotonic_ns,
        decode_record,
        json::{self, EventLine, GapLine, SummaryLine},
        text,
    },
};

/// Finds the path of an executable by the process that runs it.
pub(super) type FindExecutable = fn(u32, ExecutableId) -> Option<PathBuf>;

/// Takes events: counts them, prints them when they are wanted live, writes them to the report.
pub(super) struct Recorder {
    clock: Clock,
    pub(super) names: Context<FindExecutable>,
    tally: Tally,
    losses: LossWatch,
    join: Correlator,
    report: Option<ReportFile>,
    live: Option<Output>,
    /// The first thing that went wrong with the report; the command goes on.
    failed: Option<ReportError>,
    /// Records that were not understood, which only another version of the programs could write.
    strange: u64,
}

impl Recorder {
    pub(super) fn new(args: &ExecArgs, output: Output, report: Option<ReportFile>) -> io::Result<Recorder> {
        Ok(Recorder {
            clock: Clock::capture()?,
            names: Context::new(path_of_process),
            tally: Tally::default(),
            losses: LossWatch::default(),
            join: Correlator::default(),
            report,
            live: args.live.then_some(output),
            failed: None,
            strange: 0,
        })
    }

    /// Losses are counted from there: earlier ones are not this run's.
    pub(super) fn count_losses_from(&mut self, lost: u64) {
        self.losses = LossWatch::starting_at(lost);
    }

    /// Takes a record, and gives the process that is still to be killed for it.
    pub(super) fn take(&mut self, record: &[u8]) -> Option<u32> {
        let event = match decode_record(record) {
            Ok(Record::Event(event)) => event,
            Ok(Record::Source(source)) => {
                self.join.source(&source);
                self.record_ready();
                return None;
            }
            // Nobody leaves the command's cgroup (`launch::isolation`), and no program is attached that would tell.
            Ok(Record::CgroupMigration(_)) => return None,
            Err(error) => {
                tracing::warn!(%error, "an event was not understood");
                self.strange += 1;
                return None;
            }
        };
        let to_kill = (event.outcome == Outcome::KillPending).then_some(event.pid);
        if (event.awaits.is_some() || self.join.holds())
            && let Some(id) = event.executable
        {
            // Looked up while the process lives; it is remembered.
            let _ = self.names.executable(event.pid, id);
        }
        self.join.event(event);
        self.record_ready();
        to_kill
    }

    /// All that is in the ring was taken.
    pub(super) fn found_empty(&mut self) {
        // Without a clock nothing is waited for.
        match monotonic_ns() {
            Ok(now) => self.join.passed(now),
            Err(_) => self.join.ended(),
        }
        self.record_ready();
        self.flush();
    }

    fn record_ready(&mut self) {
        while let Some(told) = self.join.take_ready() {
            if let Told::Event(event) = told {
                self.record(&event);
            }
        }
    }

    fn record(&mut self, event: &Event) {
        let named = NamedEvent::new(event, &self.clock, &self.names);
        if let Some(gap) = self.losses.before(event.lost, named.time) {
            self.tally.add_lost(gap.lost);
            print(self.live, || text::gap_line(&gap), &GapLine::new(&gap));
            write(&mut self.report, &mut self.failed, &GapLine::new(&gap));
        }
        self.tally.add(&named);
        if self.live.is_some() || self.report.is_some() {
            let line = EventLine::new(&named);
            print(self.live, || text::line(&named), &line);
            write(&mut self.report, &mut self.failed, &line);
        }
    }

    /// Hands what is written so far to the system.
    fn flush(&mut self) {
        if let Some(report) = &mut self.report
            && let Err(error) = report.flush()
        {
            self.failed.get_or_insert(error);
        }
    }

    /// Ends the record: what was lost after the last event, repeats that none tells of, and the summary.
    pub(super) fn finish(
        &mut self,
        command: &[OsString],
        exit: json::Exit,
        duration: Duration,
        (lost, untold): (u64, u64),
        policies: &[PolicyCounters],
    ) -> SummaryLine {
        self.join.ended();
        self.record_ready();
        if let Some(gap) = self.losses.at_end(lost, jiff::Timestamp::now()) {
            self.tally.add_lost(gap.lost);
            print(self.live, || text::gap_line(&gap), &GapLine::new(&gap));
            write(&mut self.report, &mut self.failed, &GapLine::new(&gap));
        }
        self.tally.add_untold(untold);
        let words = command.iter().map(OsString::as_os_str);
        let summary = SummaryLine::new(words, exit, duration, &self.tally, policies);
        write(&mut self.report, &mut self.failed, &summary);
        self.flush();
        summary
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What went wrong with the report, if anything did.
    pub(super) fn failure(&self) -> Option<&ReportError> {
        self.failed.as_ref()
    }

    /// Records that were not understood.
    pub(super) fn strange(&self) -> u64 {
        self.strange
    }
}

fn print(live: Option<Output>, text: impl FnOnce() -> String, object: &impl serde::Serialize) {
    // Where the reader is gone, the command goes on.
    let _ = match live {
        None => Ok(()),
        Some(Output::Text) => writeln!(anstream::stderr(), "{}", text()),
        Some(Output::Json) => match json::line(object) {
            Ok(line) => writeln!(io::stderr(), "{line}"),
            Err(_) => Ok(()),
        },
    };
}

fn write(report: &mut Option<ReportFile>, failed: &mut Option<ReportError>, object: &impl serde::Serialize) {
    if let Some(report) = report
        && failed.is_none()
        && let Err(error) = report.write(object)
    {
        *failed = Some(error);
    }
}

/// Best effort: the process may be gone, or have become another program.
pub(crate) fn path_of_process(pid: u32, id: ExecutableId) -> Option<PathBuf> {
    let link = format!("/proc/{pid}/exe");
    let is_it = |path: &str| fs::metadata(path).is_ok_and(|file| file.ino() == id.inode);
    let path = fs::read_link(&link).ok()?;
    // Asked after the link was read, so that the path is that of the program asked about.
    is_it(&link).then_some(path)
}
