//! Gates that go from one stand to the next, where the machine is the tests' own: to load one takes seconds in an
//! emulated machine, nearly all of the time of a test. Elsewhere each stand has its own.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::kernel::is_whole_machine;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The folder, below a folder for pins, that `tidegate` makes there.
const OWN: &str = "tidegate";

/// Puts a gate of this kind that nobody uses into a folder for pins, if there is one.
pub(crate) fn take(pins: &Path, kind: &str) {
    let Some(shelf) = shelf(pins, kind).filter(|_| is_whole_machine()) else {
        return;
    };
    let kept = fs::read_dir(shelf).into_iter().flatten().flatten();
    for one in kept {
        // Another test may have been faster.
        if fs::rename(one.path(), pins.join(OWN)).is_ok() {
            return;
        }
    }
}

/// Leaves the gate of a folder for pins to the next that comes and wants one of this kind; the caller has made sure
/// that nothing stands. Whether it could.
pub(crate) fn give(pins: &Path, kind: &str) -> bool {
    let Some(shelf) = shelf(pins, kind).filter(|_| is_whole_machine()) else {
        return false;
    };
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let place = shelf.join(format!("{}-{number}", process::id()));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&shelf);
    made.is_ok() && is_unused(&pins.join(OWN)) && fs::rename(pins.join(OWN), place).is_ok()
}

/// Beside the folders for pins. The kind may be any text.
fn shelf(pins: &Path, kind: &str) -> Option<PathBuf> {
    // Names with dots or slashes are not taken there.
    let kind: String = kind.bytes().map(|byte| format!("{byte:02x}")).collect();
    Some(pins.parent()?.join(format!("tidegate-handed-on-{kind}")))
}

/// Whether no cgroup has links, and no run of `exec` pins.
fn is_unused(own: &Path) -> bool {
    let names = |folder: &Path| -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let gates = names(own);
    let is_free = |gate: &String| {
        let links = names(&own.join(gate).join("links"));
        // Those of the whole machine may stay.
        gate.starts_with("standing-") && links.iter().all(|name| name.parse::<u64>().is_err())
    };
    gates.len() == 1 && gates.iter().all(is_free)
}
