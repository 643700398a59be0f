use engine_common::record::{AttemptRecord, RecordHeader, RecordKind, attempt_flag};

use super::*;
use crate::events::{clock::tests::TestClocks, record_bytes::encode, test_records};

const SECOND: u64 = 1_000_000_000;

struct Test {
    clocks: TestClocks,
    pipeline: Pipeline<test_records::Names, TestClocks>,
}

impl Test {
    fn new() -> Test {
        let clocks = TestClocks::new(SECOND, "2026-01-02T12:00:01Z");
        let clock = Clock::with_source(clocks.clone()).unwrap();
        Test {
            pipeline: Pipeline::new(test_records::context(), clock, 0),
            clocks,
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        assert!(self.pipeline.read(|each| {
            each(bytes);
            true
        }));
    }

    fn read_attempt(&mut self, change: impl FnOnce(&mut AttemptRecord)) {
        let mut record = test_records::record();
        record.header.ktime_ns = self.clocks.boottime_ns().unwrap();
        change(&mut record);
        self.read(&encode(&record));
    }

    /// The ring is empty.
    fn idle(&mut self) {
        assert!(!self.pipeline.read(|_| false));
    }

    /// The items that are ready: times of attempts, and losses.
    fn items(&mut self) -> Vec<String> {
        let mut items = Vec::new();
        while let Some(item) = self.pipeline.next_item() {
            items.push(match item {
                StreamItem::Attempt(named) => format!("attempt {} {:?}", named.time, named.policy()),
                StreamItem::CgroupMigration(named) => format!("migration {}", named.time),
                StreamItem::Lost(lost) => format!("lost {} {}", lost.records, lost.time),
            });
        }
        items
    }
}

#[test]
fn items_have_the_wall_time_that_was_valid_when_they_were_read() {
    let mut test = Test::new();
    test.read_attempt(|_| {});
    test.idle();
    test.clocks.step(3600);
    test.idle();
    test.clocks.advance(SECOND);
    test.read_attempt(|_| {});
    // A suspend of a day.
    test.clocks.advance(86_400 * SECOND);
    test.idle();
    test.read_attempt(|_| {});
    assert_eq!(
        test.items(),
        [
            "attempt 2026-01-02T12:00:01Z Some(\"payments\")",
            "attempt 2026-01-02T13:00:02Z Some(\"payments\")",
            "attempt 2026-01-03T13:00:02Z Some(\"payments\")",
        ]
    );
}

#[test]
fn losses_come_before_the_record_that_reveals_them() {
    let mut test = Test::new();
    test.read_attempt(|_| {});
    test.read_attempt(|r| r.header.lost = 3);
    let mut migration = test_records::migration_record();
    migration.header.lost = 4;
    test.read(&encode(&migration));
    test.clocks.advance(SECOND);
    test.pipeline.end(9);
    let items = test.items();
    assert_eq!(items.last().unwrap(), "lost 5 2026-01-02T12:00:02Z");
    let kinds: Vec<_> = items
        .iter()
        .map(|item| item.split(" 2026").next().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["attempt", "lost 3", "attempt", "lost 1", "migration", "lost 5"]
    );
    assert_eq!(test.pipeline.lost(), 9);
}

#[test]
fn a_late_kill_does_not_wait_for_the_local_address() {
    let mut test = Test::new();
    test.read_attempt(|r| {
        (r.outcome, r.verdict) = (Outcome::KillPending as u8, 3);
        r.flags = attempt_flag::EXPECTS_LOCAL_ADDRESS;
    });
    let kill = LateKill {
        pid: 1234,
        scope: 42,
        ktime_ns: SECOND,
    };
    assert_eq!(test.pipeline.next_late_kill(), Some(kill));
    assert_eq!(test.pipeline.next_late_kill(), None);
    assert!(test.items().is_empty() && test.pipeline.is_pending());
    test.clocks.advance(SECOND);
    test.idle();
    assert_eq!(test.items().len(), 1);
}

#[test]
fn records_that_cannot_be_decoded_are_counted_and_skipped() {
    let mut test = Test::new();
    let mut header = RecordHeader {
        kind: 16,
        abi: engine_common::ABI_VERSION as u16,
        length: 40,
        lost: 0,
        ktime_ns: SECOND,
        scope: 0,
    };
    test.read(&[&encode(&header)[..], &[0; 8]].concat());
    header.abi += 1;
    test.read(&[&encode(&header)[..], &[0; 8]].concat());
    header.kind = RecordKind::Attempt as u16;
    test.read(&encode(&header));
    test.read(&[]);
    test.read_attempt(|_| {});
    let skipped = Skipped {
        undecodable: 3,
        unknown_kind: 1,
    };
    assert_eq!(test.pipeline.skipped(), skipped);
    assert_eq!(test.items().len(), 1);
}
