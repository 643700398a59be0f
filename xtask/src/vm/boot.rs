//! Runs a virtual machine. It needs no privileges and has no network and no disk: the CPU is emulated (TCG), and the serial
//! console is its only output.

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
    console::{Console, ConsoleEvent},
    fetch::Fetched,
    matrix::Kernel,
    qemu, systemd,
};

const MEMORY: &str = "2G";

/// A virtual machine.
pub(crate) struct Machine<'a> {
    /// The row of the kernel matrix.
    pub(crate) kernel: &'a Kernel,
    /// The files of the kernel.
    pub(crate) fetched: &'a Fetched,
    /// Its initramfs.
    pub(crate) image: &'a Path,
    /// The file for its console output.
    pub(crate) log: &'a Path,
    /// Number of processors.
    pub(crate) processors: u8,
    /// Maximum run time.
    pub(crate) limit: Duration,
    /// Maximum time without console output.
    pub(crate) silence: Duration,
}

impl Machine<'_> {
    fn command(&self) -> Result<Command> {
        let mut qemu = qemu::command()?;
        let init = match self.fetched.systemd {
            Some(_) => systemd::COMMAND_LINE,
            None => "rdinit=/init",
        };
        // norandmaps: TCG caches translated code by address; without it, translation for each process takes a quarter
        // of the time. no_timer_check: the check fails when this machine is busy. rcu_expedited: detaching programs
        // waits for grace periods; expedited ones save a quarter of the time.
        let line = format!(
            "console=ttyS0 quiet loglevel=1 panic=-1 no_timer_check norandmaps rcupdate.rcu_expedited=1 \
             {init} {}",
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

    /// Runs the machine, and passes each console event to `on_event`.
    ///
    /// # Errors
    /// When it cannot be started. A failure inside the machine is in the returned [`Console`].
    pub(crate) fn run(&self, mut on_event: impl FnMut(&ConsoleEvent)) -> Result<Console> {
        let start = Instant::now();
        let mut log = File::create(self.log).with_context(|| self.log.display().to_string())?;
        let mut qemu = self
            .command()?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run qemu-system-x86_64: run `cargo xtask setup`")?;
        let (send, lines) = mpsc::channel();
        let serial = qemu.stdout.take().context("qemu has no standard output")?;
        let stderr = qemu.stderr.take().context("qemu has no standard error")?;
        let reader = thread::spawn(move || {
            // The receiver is dropped after a time-out.
            for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());

        let mut console = Console::default();
        loop {
            let left = self.limit.saturating_sub(start.elapsed());
            match lines.recv_timeout(left.min(self.silence)) {
                Ok(line) => {
                    log.write_all(&line)?;
                    log.write_all(b"\n")?;
                    if let Some(event) = console.line(&String::from_utf8_lossy(&line)) {
                        on_event(&event);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    console.errors.push(if left > self.silence {
                        format!("no console output for {} seconds", self.silence.as_secs())
                    } else {
                        format!("not finished after {} seconds", self.limit.as_secs())
                    });
                    break;
                }
            }
        }
        // Fails when it has already exited.
        let _ = qemu.kill();
        let status = qemu.wait().context("cannot wait for qemu")?;
        drop(lines);
        // The pipes are closed, so both threads end.
        let _ = reader.join();
        let stderr = stderr.join().unwrap_or_default();
        if !console.is_done {
            console
                .errors
                .push(format!("the machine stopped before the end of init ({status})"));
            console.errors.extend(stderr.lines().map(str::to_owned));
        }
        Ok(console)
    }
}
