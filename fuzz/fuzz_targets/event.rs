//! Any bytes at all are either an event or refused.
#![no_main]

use engine_common::event::{EventRecord, MigrationRecord, LocalAddressRecord, UnixRecord};
use libfuzzer_sys::fuzz_target;
use tidegate::events::{Record, decode_record, target::Target};

fuzz_target!(|bytes: &[u8]| {
    let length = match decode_record(bytes) {
        Ok(Record::Event(event)) if matches!(event.target, Target::Unix { .. }) => size_of::<UnixRecord>(),
        Ok(Record::Event(_)) => size_of::<EventRecord>(),
        Ok(Record::Source(_)) => size_of::<LocalAddressRecord>(),
        Ok(Record::CgroupMigration(_)) => size_of::<MigrationRecord>(),
        Err(_) => return,
    };
    assert_eq!(bytes.len(), length);
});
