//! Any bytes at all are either an event or refused.
#![no_main]

use engine_common::event::EventRecord;
use libfuzzer_sys::fuzz_target;
use tidegate::events::decode;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = decode(bytes) {
        assert_eq!(bytes.len(), size_of::<EventRecord>(), "{event:?}");
    }
});
