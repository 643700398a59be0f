//! The maps that policies live in.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::maps::{Array, Map, MapData, MapError};
use engine_common::{
    dedup::counter,
    image::{Header, PAGE_WORDS, Page, Revision},
    record::loss,
};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::{error::TableError, syscall};
use crate::compile::Image;

fn at(step: &'static str) -> impl Fn(MapError) -> TableError {
    move |source| TableError::Map {
        step,
        source: Box::new(source),
    }
}

fn io(step: &'static str) -> impl Fn(io::Error) -> TableError {
    move |source| TableError::Io { step, source }
}

/// Index of an image in the array of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// Duplicate events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DedupCounts {
    /// Suppressed since the programs were loaded.
    pub suppressed: u64,
    /// Those of them that a later event has reported.
    pub reported: u64,
}

impl DedupCounts {
    /// Suppressed events that no event has reported yet.
    pub fn pending(self) -> u64 {
        self.suppressed.saturating_sub(self.reported)
    }
}

/// An image that is or was live. It can be read until this is dropped.
#[derive(Debug)]
pub struct LiveImage {
    map: OwnedFd,
    slot: Slot,
}

/// Handles of the maps.
pub(super) struct Tables {
    images: OwnedFd,
    losses: Array<MapData, u64>,
    dedup_counts: Array<MapData, u64>,
}

impl Tables {
    pub(super) fn new(images: OwnedFd, losses: MapData, dedup_counts: MapData) -> Result<Tables, MapError> {
        raise_memory_limit();
        Ok(Tables {
            images,
            losses: Array::try_from(Map::Array(losses))?,
            dedup_counts: Array::try_from(Map::Array(dedup_counts))?,
        })
    }

    /// Puts an image live in a slot atomically: a decision sees the old one or the new one. When this
    /// returns no program uses the old one any more.
    pub(super) fn put(&self, slot: Slot, image: &Image) -> Result<(), TableError> {
        let map = filled(image)?;
        syscall::update_inner(self.images.as_fd(), slot.0, map.as_fd()).map_err(io("put a policy live"))
    }

    /// [`Tables::put`] for many slots, with one grace period for all where the kernel has batches.
    pub(super) fn put_all(&self, images: &[(Slot, &Image)]) -> Result<(), TableError> {
        let mut maps = Vec::with_capacity(images.len());
        for (_, image) in images {
            maps.push(filled(image)?);
        }
        let slots: Vec<u32> = images.iter().map(|(slot, _)| slot.0).collect();
        let fds: Vec<u32> = maps.iter().map(|map| map.as_raw_fd() as u32).collect();
        if syscall::update_inner_batch(self.images.as_fd(), &slots, &fds).is_ok() {
            return Ok(());
        }
        for (slot, map) in slots.iter().zip(&maps) {
            let put = syscall::update_inner(self.images.as_fd(), *slot, map.as_fd());
            put.map_err(io("put a policy live"))?;
        }
        Ok(())
    }

    /// Empties a slot.
    pub(super) fn clear(&self, slot: Slot) -> Result<(), TableError> {
        syscall::delete_inner(self.images.as_fd(), slot.0).map_err(io("empty the slot of a policy"))
    }

    /// The map in a slot.
    pub(super) fn inner(&self, slot: Slot) -> io::Result<OwnedFd> {
        syscall::inner_of(self.images.as_fd(), slot.0)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The image in a slot, if there is one.
    pub(super) fn live(&self, slot: Slot) -> Result<Option<LiveImage>, TableError> {
        let map = syscall::inner_of(self.images.as_fd(), slot.0).map_err(io("open the map of a policy"))?;
        Ok(map.map(|map| LiveImage { map, slot }))
    }

    /// Events lost because the ring was full, since the programs were loaded.
    pub(super) fn lost(&self) -> Result<u64, TableError> {
        let lost = self.losses.get(&loss::RING_FULL, 0);
        lost.map_err(at("read the counter of lost events"))
    }

    pub(super) fn dedup_counts(&self) -> Result<DedupCounts, TableError> {
        let read = |which| {
            let count = self.dedup_counts.get(&which, 0);
            count.map_err(at("read the counters of suppressed events"))
        };
        Ok(DedupCounts {
            suppressed: read(counter::SUPPRESSED)?,
            reported: read(counter::REPORTED)?,
        })
    }
}

/// Before Linux 5.11 maps count against RLIMIT_MEMLOCK. Without CAP_SYS_RESOURCE this fails, and then the error of
/// creating the maps shows what is missing.
pub(super) fn raise_memory_limit() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// A new map with the pages of an image.
fn filled(image: &Image) -> Result<OwnedFd, TableError> {
    let pages = image.pages();
    let map = syscall::create_image(pages.len() as u32).map_err(io("create the map of a policy"))?;
    for (index, page) in pages.iter().enumerate() {
        syscall::write_page(map.as_fd(), index as u32, page).map_err(io("write the map of a policy"))?;
    }
    Ok(map)
}

impl LiveImage {
    pub(super) fn of(map: OwnedFd, slot: Slot) -> LiveImage {
        LiveImage { map, slot }
    }

    fn page(&self, index: u32) -> Result<Page, TableError> {
        syscall::read_page(self.map.as_fd(), index).map_err(io("read the map of a policy"))
    }

    /// Generation and mode.
    ///
    /// # Errors
    /// [`TableError::Io`] when the kernel refuses.
    pub fn revision(&self) -> Result<Revision, TableError> {
        Ok(Header(&self.page(0)?).revision())
    }

    /// Whether the policy decides on packets too.
    ///
    /// # Errors
    /// [`TableError::Io`] when the kernel refuses.
    pub fn is_strict(&self) -> Result<bool, TableError> {
        Ok(Header(&self.page(0)?).is_strict())
    }

    /// Counters of attempts: one for each rule in order, then the default, then faults.
    ///
    /// # Errors
    /// [`TableError::Io`] when the kernel refuses.
    pub fn counters(&self) -> Result<Vec<u64>, TableError> {
        let root = self.page(0)?;
        let header = Header(&root);
        let first = header.counters().0;
        let count = header.rule_count() + 2;
        let mut counters = Vec::with_capacity(count as usize);
        let mut current = (0, root);
        for at in first..first + count {
            let number = at / PAGE_WORDS as u32;
            if current.0 != number {
                current = (number, self.page(number)?);
            }
            counters.push(current.1[at as usize % PAGE_WORDS]);
        }
        Ok(counters)
    }

    /// The whole image, with its present counters.
    ///
    /// # Errors
    /// [`TableError::Image`] when it is not an image of this version.
    pub fn image(&self) -> Result<Image, TableError> {
        let count = Header(&self.page(0)?).page_count();
        let pages: Result<Vec<Page>, TableError> = (0..count).map(|index| self.page(index)).collect();
        Image::from_pages(pages?).map_err(|source| TableError::Image {
            slot: self.slot,
            source,
        })
    }

    /// Kernel memory of the map in bytes, as the kernel accounts for it.
    ///
    /// # Errors
    /// [`TableError::Io`] when the kernel refuses.
    pub fn memory(&self) -> Result<u64, TableError> {
        let info = format!("/proc/self/fdinfo/{}", self.map.as_raw_fd());
        let text = fs::read_to_string(info).map_err(io("read the size of the map of a policy"))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        Ok(bytes.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0))
    }
}
