//! Passes loaded programs from one fixture to the next on a dedicated machine: loading them takes seconds in an emulated
//! machine, most of the time of a test. On other machines each fixture loads its own.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::kernel::is_dedicated_machine;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The directory that `tidegate` creates below a pin directory.
const OWN: &str = "tidegate";

/// Moves unused programs of this variant into a pin directory, if there are any.
pub(crate) fn take(pins: &Path, variant: &str) {
    let Some(cache_dir) = cache_dir(pins, variant).filter(|_| is_dedicated_machine()) else {
        return;
    };
    let kept = fs::read_dir(cache_dir).into_iter().flatten().flatten();
    for one in kept {
        // Another test may have taken them in between.
        if fs::rename(one.path(), pins.join(OWN)).is_ok() {
            return;
        }
    }
}

/// Stores the programs of a pin directory for the next fixture of this variant; whether it did. No policy may be
/// attached.
pub(crate) fn put(pins: &Path, variant: &str) -> bool {
    let Some(cache_dir) = cache_dir(pins, variant).filter(|_| is_dedicated_machine()) else {
        return false;
    };
    let index = COUNT.fetch_add(1, Ordering::Relaxed);
    let target = cache_dir.join(format!("{}-{index}", process::id()));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&cache_dir);
    made.is_ok() && is_unused(&pins.join(OWN)) && fs::rename(pins.join(OWN), target).is_ok()
}

/// The directory of stored programs, next to the pin directories. `variant` may be any text.
fn cache_dir(pins: &Path, variant: &str) -> Option<PathBuf> {
    // The BPF file system refuses names with dots.
    let variant: String = variant.bytes().map(|byte| format!("{byte:02x}")).collect();
    Some(pins.parent()?.join(format!("tidegate-program-cache-{variant}")))
}

/// Whether no cgroup has links, and no run of `exec` has pins.
fn is_unused(own: &Path) -> bool {
    let names = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    };
    let datapaths = names(own);
    let is_free = |datapath: &String| {
        let links = names(&own.join(datapath).join("links"));
        // Links that are not named after a cgroup id are those of the whole machine; they may stay.
        datapath.starts_with("attached-") && links.iter().all(|name| name.parse::<u64>().is_err())
    };
    datapaths.len() == 1 && datapaths.iter().all(is_free)
}
