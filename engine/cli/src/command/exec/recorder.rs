//! Counts, prints and writes the events of a command.

use std::{
    ffi::OsString,
    io::{self, Write},
};

use crate::Output;
use tidegate_core::{
    events::{
        ReportError, ReportFile, StreamItem, Tally,
        json::{self, EventLine, LostLine, SummaryLine},
        text,
    },
    exec::{EventSink, ExecOutcome},
};

/// Takes events: counts them, prints them with `--live`, writes them to the report.
pub(super) struct Recorder {
    tally: Tally,
    report: Option<ReportFile>,
    live: Option<Output>,
    /// The first failure to write the report; the command continues.
    failed: Option<ReportError>,
}

impl Recorder {
    /// `live` is the format in which events are printed as they occur.
    pub(super) fn new(live: Option<Output>, report: Option<ReportFile>) -> Recorder {
        Recorder {
            tally: Tally::default(),
            report,
            live,
            failed: None,
        }
    }

    /// Ends the record: duplicates that no event reports, and the summary.
    pub(super) fn finish(
        &mut self,
        command: &[OsString],
        exit: json::Exit,
        outcome: &ExecOutcome,
    ) -> SummaryLine {
        self.tally.add_suppressed_pending(outcome.suppressed_pending);
        let summary = SummaryLine::new(
            command.iter().map(OsString::as_os_str),
            exit,
            outcome.duration,
            &self.tally,
            &outcome.counters,
            &outcome.unmet,
        );
        self.write(&summary);
        self.flush();
        summary
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The first failure to write the report.
    pub(super) fn failure(&self) -> Option<&ReportError> {
        self.failed.as_ref()
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
}

impl EventSink for Recorder {
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

    /// Writes the buffered lines of the report.
    fn flush(&mut self) {
        if let Some(report) = &mut self.report
            && let Err(error) = report.flush()
        {
            self.failed.get_or_insert(error);
        }
    }
}
