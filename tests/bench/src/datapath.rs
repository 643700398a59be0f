//! The gate under measurement. All uses of the engine's room `datapath` are here.

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

/// Programs and tables in the kernel, and a thread that reads the events.
pub(crate) struct LoadedDatapath {
    gate: Gate,
    reader: Option<Reader>,
}

/// The pages of a policy.
pub(crate) fn image_of(policy: &Policy) -> Result<Image> {
    let life = Revision {
        generation: 1,
        mode: policy.mode,
    };
    compile(policy, &Identities::default(), life).context("a policy of the benchmark is not compiled")
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

    /// Puts a policy live in a slot of its own.
    pub(crate) fn install(&mut self, image: &Image) -> Result<Slot> {
        Ok(self.gate.install(image)?)
    }

    /// The same for many at once, as `attach --batch` does.
    pub(crate) fn install_all(&mut self, images: &[Image]) -> Result<Vec<Slot>> {
        Ok(self.gate.install_all(&images.iter().collect::<Vec<_>>())?)
    }

    /// Puts another version live in its place.
    pub(crate) fn replace(&mut self, slot: Slot, image: &Image) -> Result<()> {
        Ok(self.gate.replace(slot, image)?)
    }

    /// Stands policies on a cgroup.
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

    /// Events that the ring had no room for.
    pub(crate) fn lost(&self) -> Result<u64> {
        Ok(self.gate.lost()?)
    }

    /// Ends the reader when it has read all that is there, and gives how many events it read.
    pub(crate) fn finish_reading(&mut self) -> u64 {
        self.reader.take().map_or(0, Reader::finish)
    }
}

/// Policies on a cgroup, until this is dropped.
pub(crate) struct Attached(Option<Attachment>);

impl Drop for Attached {
    fn drop(&mut self) {
        // What resists goes with the mount namespace.
        if let Some(Err(error)) = self.0.take().map(Attachment::detach) {
            eprintln!("bench: {error}");
        }
    }
}

/// Reads events as they come, and counts them.
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
                // Asked before the ring is: what was written before is then read.
                let last = its_ends.load(Ordering::Acquire);
                let records = ring.drain(|record| {
                    std::hint::black_box(record);
                });
                its_read.fetch_add(records as u64, Ordering::Relaxed);
                if last {
                    return;
                }
                // An interrupted wait is only a shorter one.
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
        // A reader that died has read what it has read.
        let _ = self.thread.join();
        self.read.load(Ordering::Relaxed)
    }
}

/// The hierarchy that cgroups are in.
pub(crate) fn hierarchy() -> Result<Hierarchy> {
    Ok(Hierarchy::find()?)
}

/// The built `tidegate`: `TIDEGATE_BIN`, or the one beside this program.
pub(crate) fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("TIDEGATE_BIN") {
        return Ok(named.into());
    }
    Ok(std::env::current_exe()?.with_file_name("tidegate"))
}
