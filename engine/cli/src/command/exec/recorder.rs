//! Counts, prints and writes the events of a command.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use engine_common::ExecutableId;

use super::args::ExecArgs;
use crate::Output;
use tidegate_core::datapath::path_of_process;
use tidegate_core::events::{
    Clock, Context, Pipeline, PolicyCounters, ReportError, ReportFile, StreamItem, Tally,
    json::{self, EventLine, LostLine, SummaryLine},
    text,
};
use tidegate_core::host::PolicyUnmet;

/// Finds the path of an executable by the process that runs it.
pub(super) type FindExecutable = fn(u32, ExecutableId) -> Option<PathBuf>;

/// Takes events: counts them, prints them with `--live`, writes them to the report.
pub(super) struct Recorder {
    pipeline: Pipeline<Context<FindExecutable>>,
    sinks: Sinks,
}

/// Where events go.
struct Sinks {
    tally: Tally,
    report: Option<ReportFile>,
    live: Option<Output>,
    /// The first failure to write the report; the command continues.
    failed: Option<ReportError>,
}

impl Recorder {
    pub(super) fn new(args: &ExecArgs, output: Output, report: Option<ReportFile>) -> io::Result<Recorder> {
        Ok(Recorder {
            pipeline: Pipeline::new(
                Context::new(path_of_process as FindExecutable),
                Clock::capture()?,
                0,
            ),
            sinks: Sinks {
                tally: Tally::default(),
                report,
                live: args.live.then_some(output),
                failed: None,
            },
        })
    }

    /// Names for the ids in events, to add some.
    pub(super) fn names_mut(&mut self) -> &mut Context<FindExecutable> {
        self.pipeline.names_mut()
    }

    /// Ignores the losses of earlier runs with the same programs.
    pub(super) fn count_losses_from(&mut self, lost: u64) {
        self.pipeline.ignore_losses(lost);
    }

    /// Reads all records of the ring: `take` hands the next one to its argument and returns whether there was one.
    /// `kill` kills a process for which a hook could only deny.
    pub(super) fn drain(
        &mut self,
        mut take: impl FnMut(&mut dyn FnMut(&[u8])) -> bool,
        mut kill: impl FnMut(u32),
    ) {
        loop {
            let is_record = self.pipeline.read(&mut take);
            while let Some(late) = self.pipeline.next_late_kill() {
                kill(late.pid);
            }
            self.record_ready();
            if !is_record {
                break;
            }
        }
        self.sinks.flush();
    }

    fn record_ready(&mut self) {
        while let Some(item) = self.pipeline.next_item() {
            self.sinks.record(&item);
        }
    }

    /// Ends the record: losses after the last event, duplicates that no event reports, and the summary.
    pub(super) fn finish(
        &mut self,
        command: &[OsString],
        exit: json::Exit,
        duration: Duration,
        (lost, suppressed_pending): (u64, u64),
        policies: &[PolicyCounters],
        unmet: &[PolicyUnmet],
    ) -> SummaryLine {
        self.pipeline.end(lost);
        self.record_ready();
        self.sinks.tally.add_suppressed_pending(suppressed_pending);
        let words = command.iter().map(OsString::as_os_str);
        let summary = SummaryLine::new(words, exit, duration, &self.sinks.tally, policies, unmet);
        self.sinks.write(&summary);
        self.sinks.flush();
        summary
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.sinks.tally
    }

    /// The first failure to write the report.
    pub(super) fn failure(&self) -> Option<&ReportError> {
        self.sinks.failed.as_ref()
    }

    /// Records that could not be decoded, or whose kind is not known: the programs are of another version.
    pub(super) fn undecodable(&self) -> u64 {
        let skipped = self.pipeline.skipped();
        skipped.undecodable + skipped.unknown_kind
    }
}

impl Sinks {
    fn record(&mut self, item: &StreamItem<'_>) {
        match item {
            StreamItem::Attempt(named) => {
                self.tally.add(named);
                if self.live.is_some() || self.report.is_some() {
                    let line = EventLine::new(named);
                    self.print(|| text::line(named), &line);
                    self.write(&line);
                }
            }
            StreamItem::Lost(lost) => {
                self.tally.add_lost(lost.records);
                let line = LostLine::new(lost);
                self.print(|| text::lost_line(lost), &line);
                self.write(&line);
            }
            // A command cannot leave its cgroup (`launch::isolation`), and the migration programs are not attached.
            StreamItem::CgroupMigration(_) => {}
        }
    }

    fn print(&self, text: impl FnOnce() -> String, object: &impl serde::Serialize) {
        // If the output is closed, the command continues.
        let _ = match self.live {
            None => Ok(()),
            Some(Output::Text) => writeln!(anstream::stderr(), "{}", text()),
            Some(Output::Json) => match json::line(object) {
                Ok(line) => writeln!(io::stderr(), "{line}"),
                Err(_) => Ok(()),
            },
        };
    }

    fn write(&mut self, object: &impl serde::Serialize) {
        if let Some(report) = &mut self.report
            && self.failed.is_none()
            && let Err(error) = report.write(object)
        {
            self.failed = Some(error);
        }
    }

    /// Writes the buffered lines of the report.
    fn flush(&mut self) {
        if let Some(report) = &mut self.report
            && let Err(error) = report.flush()
        {
            self.failed.get_or_insert(error);
        }
    }
}
