//! The events of a command, from the records of the ring to a sink.

use std::path::PathBuf;

use engine_common::ExecutableId;

use crate::events::{Clock, ClockSource, Context, Pipeline, Skipped, StreamItem};

/// Finds the path of an executable by the process that runs it.
pub(super) type FindExecutable = fn(u32, ExecutableId) -> Option<PathBuf>;

/// Takes what a command does, while it runs: counts it, prints it, stores it.
pub trait EventSink {
    /// Takes the next item, in the order of the records.
    fn record(&mut self, item: &StreamItem<'_>);

    /// All records that the kernel wrote until now were taken: buffered output can be written.
    fn flush(&mut self);
}

/// The pipeline of a command, with its sink.
pub(super) struct EventStream<'s, S> {
    pipeline: Pipeline<Context<FindExecutable>, S>,
    sink: &'s mut dyn EventSink,
}

impl<'s, S: ClockSource> EventStream<'s, S> {
    /// Reports records lost after the first `lost` ones: those before are of earlier runs with the same programs.
    pub(super) fn new(
        names: Context<FindExecutable>,
        clock: Clock<S>,
        lost: u64,
        sink: &'s mut dyn EventSink,
    ) -> EventStream<'s, S> {
        EventStream {
            pipeline: Pipeline::new(names, clock, lost),
            sink,
        }
    }

    pub(super) fn clock(&self) -> &Clock<S> {
        self.pipeline.clock()
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
        self.sink.flush();
    }

    /// No records follow. `lost` is the ring's own counter; a loss after the last record is the last item.
    pub(super) fn end(&mut self, lost: u64) {
        self.pipeline.end(lost);
        self.record_ready();
        self.sink.flush();
    }

    /// Records that could not be read.
    pub(super) fn skipped(&self) -> Skipped {
        self.pipeline.skipped()
    }

    fn record_ready(&mut self) {
        while let Some(item) = self.pipeline.next_item() {
            self.sink.record(&item);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque};

    use engine_common::{Outcome, record::attempt_flag};

    use super::*;
    use crate::events::{clock::tests::TestClocks, record_bytes::encode, test_records};

    /// What happened, in order.
    #[derive(Default)]
    struct Log(RefCell<Vec<String>>);

    impl Log {
        fn add(&self, what: impl Into<String>) {
            self.0.borrow_mut().push(what.into());
        }

        fn take(&self) -> Vec<String> {
            self.0.take()
        }
    }

    struct LoggingSink<'l>(&'l Log);

    impl EventSink for LoggingSink<'_> {
        fn record(&mut self, item: &StreamItem<'_>) {
            self.0.add(match item {
                StreamItem::Attempt(named) => format!("attempt by {}", named.event.pid),
                StreamItem::CgroupMigration(_) => "migration".to_owned(),
                StreamItem::Lost(lost) => format!("lost {}", lost.records),
            });
        }

        fn flush(&mut self) {
            self.0.add("flush");
        }
    }

    /// A clock that stands, at the time of the sample records.
    fn clock() -> Clock<TestClocks> {
        Clock::with_source(TestClocks::new(1_123_000_000, "2026-01-02T12:00:01Z")).unwrap()
    }

    fn drain(stream: &mut EventStream<'_, TestClocks>, records: Vec<Vec<u8>>, log: &Log) {
        let mut records = VecDeque::from(records);
        stream.drain(
            |each| records.pop_front().map(|bytes| each(&bytes)).is_some(),
            |pid| log.add(format!("kill {pid}")),
        );
    }

    #[test]
    fn a_process_is_killed_before_its_attempt_is_recorded() {
        let log = Log::default();
        let mut sink = LoggingSink(&log);
        let mut stream = EventStream::new(test_records::context(), clock(), 0, &mut sink);
        let mut late = test_records::record();
        (late.outcome, late.verdict, late.pid) = (Outcome::KillPending as u8, 3, 77);
        let mut waiting = late;
        (waiting.flags, waiting.pid) = (attempt_flag::EXPECTS_LOCAL_ADDRESS, 78);
        drain(&mut stream, vec![encode(&late), encode(&waiting)], &log);
        assert_eq!(log.take(), ["kill 77", "attempt by 77", "kill 78", "flush"]);
        stream.end(0);
        assert_eq!(log.take(), ["attempt by 78", "flush"]);
    }

    #[test]
    fn only_losses_of_this_run_are_recorded_also_after_the_last_record() {
        let log = Log::default();
        let mut sink = LoggingSink(&log);
        let mut stream = EventStream::new(test_records::context(), clock(), 5, &mut sink);
        let mut record = test_records::record();
        record.header.lost = 5;
        let first = encode(&record);
        record.header.lost = 7;
        drain(&mut stream, vec![first, encode(&record), Vec::new()], &log);
        stream.end(10);
        assert_eq!(
            log.take(),
            [
                "attempt by 1234",
                "lost 2",
                "attempt by 1234",
                "flush",
                "lost 3",
                "flush"
            ]
        );
        assert_eq!(stream.skipped().undecodable, 1);
    }
}
