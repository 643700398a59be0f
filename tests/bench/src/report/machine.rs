//! The machine and the date of a measurement, without host names.

use std::fs;

/// What the results depend on.
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    /// UTC, `2026-11-23`.
    pub(crate) date: String,
}

impl Machine {
    /// This machine and the current date.
    pub(crate) fn of_now() -> Machine {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        // Only x86 has "model name".
        let model = cpu.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == "model name").then(|| value.trim().to_owned())
        });
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let now = jiff::Timestamp::now().to_string();
        Machine {
            kernel: kernel.trim().to_owned(),
            cpu: model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            date: now.split('T').next().unwrap_or_default().to_owned(),
        }
    }
}
