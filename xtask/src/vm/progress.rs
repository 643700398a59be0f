//! What is shown while kernels run: on a terminal a line that is rewritten, elsewhere a line a kernel.

use std::io::{self, IsTerminal, Write as _};
use std::time::Instant;

use super::console::News;
use super::report;
use super::verdict::Row;

/// How far everything is.
pub(crate) struct Progress {
    kernels: usize,
    through: usize,
    running: Vec<Running>,
    start: Instant,
    shown: Shown,
}

/// A kernel that runs.
struct Running {
    name: String,
    expected: usize,
    ended: usize,
    failed: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// The output is for programs.
    Nothing,
    /// What is through.
    Lines,
    /// And how far the others are.
    InPlace,
}

impl Progress {
    /// Of so many kernels. Quiet where the output is for programs.
    pub(crate) fn of(kernels: usize, quiet: bool) -> Progress {
        Progress {
            kernels,
            through: 0,
            running: Vec::new(),
            start: Instant::now(),
            shown: match (quiet, io::stdout().is_terminal()) {
                (true, _) => Shown::Nothing,
                (false, true) => Shown::InPlace,
                (false, false) => Shown::Lines,
            },
        }
    }

    /// Whether it is to be drawn again from time to time.
    pub(crate) fn is_live(&self) -> bool {
        self.shown == Shown::InPlace
    }

    /// A kernel is booted, for so many tests.
    pub(crate) fn begin(&mut self, kernel: &str, expected: usize) {
        self.running.push(Running {
            name: kernel.to_owned(),
            expected,
            ended: 0,
            failed: 0,
        });
        self.draw();
    }

    /// Something happened on a kernel.
    pub(crate) fn tell(&mut self, kernel: &str, news: &News) {
        let News::Test(_, how) = news else { return };
        if let Some(running) = self.running.iter_mut().find(|running| running.name == kernel) {
            running.ended += 1;
            running.failed += usize::from(how != "ok");
        }
        self.draw();
    }

    /// A kernel is booted a second time.
    pub(crate) fn again(&mut self, kernel: &str, why: &str) {
        if let Some(running) = self.running.iter_mut().find(|running| running.name == kernel) {
            (running.ended, running.failed) = (0, 0);
        }
        self.say(&format!("{kernel}: tried again: {why}"));
    }

    /// A kernel is through.
    pub(crate) fn end(&mut self, row: &Row) {
        self.running.retain(|running| running.name != row.kernel);
        self.through += 1;
        self.say(&format!(
            "{} of {}  {}",
            self.through,
            self.kernels,
            report::line(row)
        ));
    }

    /// Draws the line anew.
    pub(crate) fn draw(&self) {
        if self.is_live() && !self.running.is_empty() {
            // Cleared first: lines differ in length.
            print!("\r\u{1b}[K    {}", self.line(self.start.elapsed().as_secs()));
            // A progress line that cannot be shown is no loss.
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
        let first = self.through + 1;
        let last = self.through + self.running.len();
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

    fn say(&self, text: &str) {
        match self.shown {
            Shown::Nothing => {}
            Shown::Lines => println!("    {text}"),
            Shown::InPlace => println!("\r\u{1b}[K    {text}"),
        }
        self.draw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_of_all_that_run() {
        let mut progress = Progress::of(6, true);
        progress.begin("6.18", 100);
        assert_eq!(progress.line(1), "kernel 1 of 6: 6.18 0/100, 1 s");
        progress.begin("7.x", 90);
        progress.tell("7.x", &News::Test("a".into(), "ok".into()));
        progress.tell("7.x", &News::Test("b".into(), "FAILED".into()));
        progress.tell("7.x", &News::Says("test".into()));
        assert_eq!(
            progress.line(12),
            "kernels 1-2 of 6: 6.18 0/100, 7.x 2/90 (1 failed), 12 s"
        );
        progress.again("7.x", "silent");
        assert_eq!(progress.line(13), "kernels 1-2 of 6: 6.18 0/100, 7.x 0/90, 13 s");
    }
}
