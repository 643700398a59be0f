//! The datapath under measurement: that of `exec`. All uses of the module `datapath` are here.

use std::{
    os::fd::AsFd,
    path::PathBuf,
    rc::Rc,
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
use tidegate_core::{
    cgroup::Hierarchy,
    compile::{Identities, Image, compile},
    datapath::{EventRing, Features, RunDatapath, Slot, WakeUp, disable_words},
    instance::Instance,
    policy::Policy,
};

use crate::{cgroup::Cgroup, cpu};

/// Programs and maps in the kernel, and a thread that reads the events.
pub(crate) struct LoadedDatapath {
    datapath: Rc<RunDatapath>,
    reader: Option<Reader>,
}

/// The pages of a policy.
pub(crate) fn image_of(policy: &Policy) -> Result<Image> {
    let revision = Revision {
        generation: 1,
        mode: policy.mode,
    };
    compile(policy, &Identities::default(), revision).context("a policy of the benchmark cannot be compiled")
}

impl LoadedDatapath {
    /// Loads programs and maps; `ring_bytes` is the size of the event ring, if not the default.
    pub(crate) fn load(ring_bytes: Option<u32>) -> Result<LoadedDatapath> {
        let instance = Instance::from_variables(|name| std::env::var_os(name), &disable_words())?;
        let instance = Instance {
            ring_bytes: ring_bytes.or(instance.ring_bytes),
            ..instance
        };
        let features = Features::detect(&instance.disabled);
        let datapath = RunDatapath::load(&instance, features, WakeUp::Batched)?;
        let reader = Reader::start(datapath.events()?)?;
        Ok(LoadedDatapath {
            datapath: Rc::new(datapath),
            reader: Some(reader),
        })
    }

    /// Puts a policy live in a slot of its own.
    pub(crate) fn install(&self, image: &Image) -> Result<Slot> {
        let slots = self.datapath.install(&[image])?;
        slots.into_iter().next().context("no slot")
    }

    /// Puts several policies live, with one RCU grace period.
    pub(crate) fn install_all(&self, images: &[Image]) -> Result<Vec<Slot>> {
        Ok(self.datapath.install(&images.iter().collect::<Vec<_>>())?)
    }

    /// Puts another version live in its slot.
    pub(crate) fn replace(&self, slot: Slot, image: &Image) -> Result<()> {
        Ok(self.datapath.replace(slot, image)?)
    }

    /// Attaches policies to a cgroup.
    pub(crate) fn attach(&self, cgroup: &Cgroup, slots: &[Slot]) -> Result<Attached> {
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
        self.datapath.attach(cgroup.fd(), &scope)?;
        Ok(Attached {
            datapath: Rc::clone(&self.datapath),
            cgroup: cgroup.id(),
        })
    }

    /// Events lost because the ring was full.
    pub(crate) fn lost(&self) -> Result<u64> {
        Ok(self.datapath.lost()?)
    }

    /// Stops the reader after it has read all events, and returns how many it read.
    pub(crate) fn finish_reading(&mut self) -> u64 {
        self.reader.take().map_or(0, Reader::finish)
    }
}

/// Policies attached to a cgroup. Dropping it detaches them.
pub(crate) struct Attached {
    datapath: Rc<RunDatapath>,
    cgroup: u64,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Remaining pins are removed with the mount namespace.
        if let Err(error) = self.datapath.detach(self.cgroup) {
            eprintln!("bench: {error}");
        }
    }
}

/// A thread that reads and counts events.
struct Reader {
    stop: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn start(mut ring: EventRing) -> Result<Reader> {
        let (stop, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (thread_stop, thread_read) = (Arc::clone(&stop), Arc::clone(&read));
        let thread = thread::Builder::new().name("reader".into()).spawn(move || {
            cpu::pin_to(cpu::Role::Reader);
            loop {
                // Loaded before draining, so that records written before the stop are read.
                let last = thread_stop.load(Ordering::Acquire);
                let records = ring.drain(|record| {
                    std::hint::black_box(record);
                });
                thread_read.fetch_add(records as u64, Ordering::Relaxed);
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
        Ok(Reader { stop, read, thread })
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        // After a panic the count so far is returned.
        let _ = self.thread.join();
        self.read.load(Ordering::Relaxed)
    }
}

/// The cgroup hierarchy.
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
