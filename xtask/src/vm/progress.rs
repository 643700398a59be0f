//! Progress output: on a terminal a line that is rewritten, otherwise one line for each kernel.

use std::io::{self, IsTerminal, Write as _};
use std::time::Instant;

use super::console::ConsoleEvent;
use super::report;
use super::verdict::Row;

/// The progress of all kernels.
pub(crate) struct Progress {
    kernels: usize,
    finished: usize,
    running: Vec<Running>,
    start: Instant,
    mode: Mode,
}

/// A running kernel.
struct Running {
    name: String,
    expected: usize,
    ended: usize,
    failed: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// For JSON output.
    Silent,
    /// A line for each finished kernel.
    Lines,
    /// Also a line with the running kernels, rewritten in place.
    InPlace,
}

impl Progress {
    /// Starts with this number of kernels; `quiet` prints nothing.
    pub(crate) fn new(kernels: usize, quiet: bool) -> Progress {
        Progress {
            kernels,
            finished: 0,
            running: Vec::new(),
            start: Instant::now(),
            mode: match (quiet, io::stdout().is_terminal()) {
                (true, _) => Mode::Silent,
                (false, true) => Mode::InPlace,
                (false, false) => Mode::Lines,
            },
        }
    }

    /// Whether the line should be redrawn regularly.
    pub(crate) fn is_live(&self) -> bool {
        self.mode == Mode::InPlace
    }

    /// A kernel boots, to run `expected` tests.
    pub(crate) fn begin(&mut self, kernel: &str, expected: usize) {
        self.running.push(Running {
            name: kernel.to_owned(),
            expected,
            ended: 0,
            failed: 0,
        });
        self.draw();
    }

    /// Counts a finished test.
    pub(crate) fn update(&mut self, kernel: &str, event: &ConsoleEvent) {
        let ConsoleEvent::TestFinished(_, result) = event else {
            return;
        };
        if let Some(running) = self.running.iter_mut().find(|running| running.name == kernel) {
            running.ended += 1;
            running.failed += usize::from(result != "ok");
        }
        self.draw();
    }

    /// A kernel boots a second time.
    pub(crate) fn retry(&mut self, kernel: &str, why: &str) {
        if let Some(running) = self.running.iter_mut().find(|running| running.name == kernel) {
            (running.ended, running.failed) = (0, 0);
        }
        self.print(&format!("{kernel}: second attempt: {why}"));
    }

    /// A kernel has finished.
    pub(crate) fn end(&mut self, row: &Row) {
        self.running.retain(|running| running.name != row.kernel);
        self.finished += 1;
        self.print(&format!(
            "{} of {}  {}",
            self.finished,
            self.kernels,
            report::line(row)
        ));
    }

    /// Redraws the line.
    pub(crate) fn draw(&self) {
        if self.is_live() && !self.running.is_empty() {
            // Cleared first, because lines differ in length.
            print!("\r\u{1b}[K    {}", self.line(self.start.elapsed().as_secs()));
            // Progress is optional.
            let _ = io::stdout().flush();
        }
    }

    fn line(&self, seconds: u64) -> String {
        let of = |running: &Running| {
            let Running {
                name,
                expected,
                ended,
                failed,
            } = running;
            let failed = if *failed > 0 {
                format!(" ({failed} failed)")
            } else {
                String::new()
            };
            format!("{name} {ended}/{expected}{failed}")
        };
        let first = self.finished + 1;
        let last = self.finished + self.running.len();
        let numbers = if first < last {
            format!("kernels {first}-{last}")
        } else {
            format!("kernel {first}")
        };
        let running: Vec<String> = self.running.iter().map(of).collect();
        format!(
            "{numbers} of {}: {}, {seconds} s",
            self.kernels,
            running.join(", ")
        )
    }

    fn print(&self, text: &str) {
        match self.mode {
            Mode::Silent => {}
            Mode::Lines => println!("    {text}"),
            Mode::InPlace => println!("\r\u{1b}[K    {text}"),
        }
        self.draw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_lists_all_running_kernels() {
        let mut progress = Progress::new(6, true);
        progress.begin("6.18", 100);
        assert_eq!(progress.line(1), "kernel 1 of 6: 6.18 0/100, 1 s");
        progress.begin("7.x", 90);
        progress.update("7.x", &ConsoleEvent::TestFinished("a".into(), "ok".into()));
        progress.update("7.x", &ConsoleEvent::TestFinished("b".into(), "FAILED".into()));
        progress.update("7.x", &ConsoleEvent::Output("test".into()));
        assert_eq!(
            progress.line(12),
            "kernels 1-2 of 6: 6.18 0/100, 7.x 2/90 (1 failed), 12 s"
        );
        progress.retry("7.x", "silent");
        assert_eq!(progress.line(13), "kernels 1-2 of 6: 6.18 0/100, 7.x 0/90, 13 s");
    }
}
