//! A virtual machine from power-on to power-off, without privilege, network or disk: everything is
//! emulated (TCG), and the serial line is all there is to it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    console::{Console, News},
    fetch::Fetched,
    matrix::Kernel,
    qemu,
};

const MEMORY: &str = "2G";

/// What a machine is made of.
pub(crate) struct Machine<'a> {
    /// The row.
    pub(crate) kernel: &'a Kernel,
    /// Its kernel.
    pub(crate) fetched: &'a Fetched,
    /// Its first file system.
    pub(crate) image: &'a Path,
    /// Where its console is written down.
    pub(crate) log: &'a Path,
    /// How many processors it has.
    pub(crate) processors: u8,
    /// When it is switched off.
    pub(crate) limit: Duration,
    /// After how long without a word it is switched off.
    pub(crate) silence: Duration,
}

impl Machine<'_> {
    fn command(&self) -> Result<Command> {
        let mut qemu = qemu::command()?;
        // What is translated once for an address is used again: a quarter of the time, without `norandmaps`,
        // goes into doing it for each process anew. The kernel's check of its timer fails where this machine
        // is too busy to run the other one in time. Taking programs away waits for grace periods: expedited,
        // a machine is done in three quarters of the time.
        let line = format!(
            "console=ttyS0 quiet loglevel=1 panic=-1 no_timer_check norandmaps rcupdate.rcu_expedited=1 \
             rdinit=/init {}",
            self.kernel.command_line
        );
        qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-m", MEMORY]);
        qemu.arg("-smp").arg(self.processors.to_string());
        qemu.args(["-nodefaults", "-nic", "none", "-no-reboot", "-display", "none"]);
        qemu.args(["-serial", "stdio", "-append", line.trim_end()]);
        qemu.arg("-kernel").arg(&self.fetched.image);
        qemu.arg("-initrd").arg(self.image);
        Ok(qemu)
    }

    /// Runs it; each piece of news is handed on as it comes.
    ///
    /// # Errors
    /// When it cannot be started, not when it fails.
    pub(crate) fn run(&self, mut tell: impl FnMut(&News)) -> Result<Console> {
        let start = Instant::now();
        let mut log = File::create(self.log).with_context(|| self.log.display().to_string())?;
        let mut qemu = self
            .command()?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("qemu-system-x86_64 does not start: run `cargo xtask setup`")?;
        let (send, lines) = mpsc::channel();
        let serial = qemu.stdout.take().context("no serial line")?;
        let complaints = qemu.stderr.take().context("no standard error")?;
        let reader = thread::spawn(move || {
            // Whoever listens may have given up.
            for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let complaints = thread::spawn(move || std::io::read_to_string(complaints).unwrap_or_default());

        let mut console = Console::default();
        loop {
            let left = self.limit.saturating_sub(start.elapsed());
            match lines.recv_timeout(left.min(self.silence)) {
                Ok(line) => {
                    log.write_all(&line)?;
                    log.write_all(b"\n")?;
                    if let Some(news) = console.line(&String::from_utf8_lossy(&line)) {
                        tell(&news);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    console.troubles.push(if left > self.silence {
                        format!("silent for {} seconds", self.silence.as_secs())
                    } else {
                        format!("not done after {} seconds", self.limit.as_secs())
                    });
                    break;
                }
            }
        }
        // Of no consequence when it has ended by itself.
        let _ = qemu.kill();
        let status = qemu.wait().context("qemu cannot be waited for")?;
        drop(lines);
        // Threads that only read, of pipes that are closed by now.
        let _ = reader.join();
        let complaints = complaints.join().unwrap_or_default();
        if !console.is_done {
            console
                .troubles
                .push(format!("the machine did not come to its end ({status})"));
            console.troubles.extend(complaints.lines().map(str::to_owned));
        }
        Ok(console)
    }
}
