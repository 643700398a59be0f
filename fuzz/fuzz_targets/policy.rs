//! Any text is loaded as a policy or results in diagnostics: no panic, no hang, bounded memory.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidegate_core::policy::{LoadContext, load_text};

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    // Address files are resolved in a directory that does not exist.
    let loaded = load_text(
        "fuzz.yaml",
        text,
        Path::new("/nonexistent"),
        &LoadContext::default(),
    );
    assert_eq!(loaded.policy.is_some(), !loaded.has_errors());
    let _ = loaded.render(false);
});
