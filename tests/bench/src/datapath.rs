//! The datapath under measurement. Every use of the module `datapath` is in this file.

use std::{
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result};
use engine_common::{
    Mode,
    image::Revision,
    limits::MAX_STACKED,
    scope::{Scope, SlotRef},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tidegate::{
    cgroup::Hierarchy,
    compile::{Identities, Image, compile},
    datapath::{Attachment, EventRing, Features, Gate, PinFolder, Slot, WakeUp},
    policy::Policy,
};

use crate::{cgroup::Cgroup, cpu};

/// Loaded programs and maps, and a thread that reads the events.
pub(crate) struct LoadedDatapath {
    gate: Gate,
    reader: Option<Reader>,
}

/// Compiles a policy.
pub(crate) fn image_of(policy: &Policy) -> Result<Image> {
    let life = Revision {
        generation: 1,
        mode: policy.mode,
    };
    compile(policy, &Identities::default(), life).context("failed to compile a policy of the benchmark")
}

impl LoadedDatapath {
    pub(crate) fn load() -> Result<LoadedDatapath> {
        let mut gate = Gate::load(Features::detect(), WakeUp::AtLeisure)?;
        let reader = Reader::start(gate.events()?)?;
        Ok(LoadedDatapath {
            gate,
            reader: Some(reader),
        })
    }

    /// Installs a policy in a free slot.
    pub(crate) fn install(&mut self, image: &Image) -> Result<Slot> {
        Ok(self.gate.install(image)?)
    }

    /// Installs many policies together, as `attach --batch` does.
    pub(crate) fn install_all(&mut self, images: &[Image]) -> Result<Vec<Slot>> {
        Ok(self.gate.install_all(&images.iter().collect::<Vec<_>>())?)
    }

    /// Replaces the policy of a slot.
    pub(crate) fn replace(&mut self, slot: Slot, image: &Image) -> Result<()> {
        Ok(self.gate.replace(slot, image)?)
    }

    /// Attaches policies to a cgroup.
    pub(crate) fn attach(&mut self, cgroup: &Cgroup, slots: &[Slot]) -> Result<Attached> {
        let mut references = [SlotRef::NONE; MAX_STACKED];
        for (reference, slot) in references.iter_mut().zip(slots) {
            *reference = SlotRef::new(slot.0, Mode::Enforce);
        }
        let scope = Scope {
            cgroup: cgroup.id(),
            level: cgroup.level(),
            flags: 0,
            slots: references,
        };
        let pins = PinFolder::create(cgroup.id())?;
        Ok(Attached(Some(self.gate.attach(cgroup.fd(), &scope, pins)?)))
    }

    /// Events lost because the ring buffer was full.
    pub(crate) fn lost(&self) -> Result<u64> {
        Ok(self.gate.lost()?)
    }

    /// Stops the reader after it has read all events, and returns how many it read.
    pub(crate) fn finish_reading(&mut self) -> u64 {
        self.reader.take().map_or(0, Reader::finish)
    }
}

/// Policies attached to a cgroup, detached when dropped.
pub(crate) struct Attached(Option<Attachment>);

impl Drop for Attached {
    fn drop(&mut self) {
        // The end of the mount namespace removes what is left.
        if let Some(Err(error)) = self.0.take().map(Attachment::detach) {
            eprintln!("bench: {error}");
        }
    }
}

/// Reads and counts events.
struct Reader {
    ends: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn start(mut ring: EventRing) -> Result<Reader> {
        let (ends, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (its_ends, its_read) = (Arc::clone(&ends), Arc::clone(&read));
        let thread = thread::Builder::new().name("reader".into()).spawn(move || {
            cpu::pin_to(cpu::Role::Reader);
            loop {
                // Checked before draining, so that events written before the stop are read.
                let last = its_ends.load(Ordering::Acquire);
                let records = ring.drain(|record| {
                    std::hint::black_box(record);
                });
                its_read.fetch_add(records as u64, Ordering::Relaxed);
                if last {
                    return;
                }
                // An interrupted wait only ends earlier.
                let _ = poll(
                    &mut [PollFd::new(ring.as_fd(), PollFlags::POLLIN)],
                    PollTimeout::from(20u8),
                );
            }
        })?;
        Ok(Reader { ends, read, thread })
    }

    fn finish(self) -> u64 {
        self.ends.store(true, Ordering::Release);
        // If the reader panicked, its count is still valid.
        let _ = self.thread.join();
        self.read.load(Ordering::Relaxed)
    }
}

/// The cgroup2 hierarchy.
pub(crate) fn hierarchy() -> Result<Hierarchy> {
    Ok(Hierarchy::find()?)
}

/// The built `tidegate`: `TIDEGATE_BIN`, or the one in the directory of this program.
pub(crate) fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("TIDEGATE_BIN") {
        return Ok(named.into());
    }
    Ok(std::env::current_exe()?.with_file_name("tidegate"))
}
