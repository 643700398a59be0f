//! Arbitrary bytes are decoded or rejected, for records of every kind.
#![no_main]

use engine_common::record::{AttemptRecord, LocalAddressRecord, MigrationRecord, RecordHeader, UnixRecord};
use libfuzzer_sys::fuzz_target;
use tidegate_core::events::{Record, decode, target::Target};

fuzz_target!(|bytes: &[u8]| {
    let length = match decode(bytes) {
        Ok(Record::Attempt(event)) if matches!(event.target, Target::Unix { .. }) => size_of::<UnixRecord>(),
        Ok(Record::Attempt(_)) => size_of::<AttemptRecord>(),
        Ok(Record::LocalAddress(_)) => size_of::<LocalAddressRecord>(),
        Ok(Record::CgroupMigration(_)) => size_of::<MigrationRecord>(),
        Ok(Record::Unknown { .. }) => {
            assert!(bytes.len() >= size_of::<RecordHeader>());
            return;
        }
        Err(_) => return,
    };
    assert_eq!(bytes.len(), length);
});
