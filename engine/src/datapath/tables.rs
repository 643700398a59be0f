//! The tables that policies live in, of a gate just loaded or of one that is pinned.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::maps::{Array, Map, MapData, MapError};
use engine_common::{
    dedup::counter,
    image::{Header, PAGE_WORDS, Page, Revision},
    limits::MAX_POLICIES,
    record::loss,
};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use thiserror::Error;

use super::syscall;
use crate::compile::{Image, ImageError};

/// Why a table could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TableError {
    /// All slots are taken.
    #[error("no slot is left for another policy: {MAX_POLICIES} are live")]
    Full,
    /// Nothing is live in a slot where something should be.
    #[error("no policy is live in slot {}", slot.0)]
    Empty {
        /// The slot.
        slot: Slot,
    },
    /// The kernel refused.
    #[error("cannot {step}")]
    Map {
        /// What was tried.
        step: &'static str,
        /// Why.
        #[source]
        source: Box<MapError>,
    },
    /// The kernel refused.
    #[error("cannot {step}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What is in a slot is no image of this version.
    #[error("what is live in slot {} is not an image of this version", slot.0)]
    Image {
        /// The slot.
        slot: Slot,
        /// Why.
        #[source]
        source: ImageError,
    },
}

fn at(step: &'static str) -> impl Fn(MapError) -> TableError {
    move |source| TableError::Map {
        step,
        source: Box::new(source),
    }
}

fn io(step: &'static str) -> impl Fn(io::Error) -> TableError {
    move |source| TableError::Io { step, source }
}

/// Number of an image in the table of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// Attempts that were folded, and those of them that a record has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DedupCounts {
    /// All of them, since the programs were loaded.
    pub folded: u64,
    /// Told by a record.
    pub told: u64,
}

/// An image that is, or was, live: it can be read until this is dropped.
#[derive(Debug)]
pub struct LiveImage {
    map: OwnedFd,
    slot: Slot,
}

/// Handles of the tables.
pub(super) struct Tables {
    images: OwnedFd,
    losses: Array<MapData, u64>,
    dedup_counts: Array<MapData, u64>,
}

impl Tables {
    /// The tables among the maps that `take` hands out by name.
    pub(super) fn of<E: From<MapError>>(
        mut take: impl FnMut(&'static str) -> Result<Map, E>,
    ) -> Result<Tables, E> {
        raise_memory_limit();
        let array = |map: Map| Array::try_from(map).map_err(E::from);
        let images = match take("IMAGES")? {
            Map::ArrayOfMaps(map) => map.fd().as_fd().try_clone_to_owned(),
            _ => return Err(MapError::InvalidMapType { map_type: 0 }.into()),
        };
        Ok(Tables {
            images: images.map_err(|error| E::from(MapError::IoError(error)))?,
            losses: array(take("LOSSES")?)?,
            dedup_counts: array(take("DEDUP_COUNTS")?)?,
        })
    }

    /// Puts an image live in a slot, at once: a decision sees the old one or the new one. When this
    /// returns no program uses the old one any more.
    pub(super) fn put(&self, slot: Slot, image: &Image) -> Result<(), TableError> {
        let map = filled(image)?;
        syscall::update_inner(self.images.as_fd(), slot.0, map.as_fd()).map_err(io("put a policy live"))
    }

    /// [`Tables::put`] for many slots, with one wait for all where the kernel can.
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
        syscall::delete_inner(self.images.as_fd(), slot.0).map_err(io("take a policy away"))
    }

    /// The map in a slot.
    pub(super) fn inner(&self, slot: Slot) -> io::Result<OwnedFd> {
        syscall::inner_of(self.images.as_fd(), slot.0)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The image in a slot, if there is one.
    pub(super) fn live(&self, slot: Slot) -> Result<Option<LiveImage>, TableError> {
        let map = syscall::inner_of(self.images.as_fd(), slot.0).map_err(io("open a policy's table"))?;
        Ok(map.map(|map| LiveImage { map, slot }))
    }

    /// Events lost because the ring was full.
    pub(super) fn lost(&self) -> Result<u64, TableError> {
        let lost = self.losses.get(&loss::RING_FULL, 0);
        lost.map_err(at("read the loss counter"))
    }

    pub(super) fn dedup_counts(&self) -> Result<DedupCounts, TableError> {
        let read = |which| {
            let count = self.dedup_counts.get(&which, 0);
            count.map_err(at("read the counters of folding"))
        };
        Ok(DedupCounts {
            folded: read(counter::SUPPRESSED)?,
            told: read(counter::REPORTED)?,
        })
    }
}

/// Before Linux 5.11 tables count against this limit. Refused without CAP_SYS_RESOURCE, and then the
/// kernel's own answer to the tables says what is missing.
pub(super) fn raise_memory_limit() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// A map of its own with the pages of an image.
fn filled(image: &Image) -> Result<OwnedFd, TableError> {
    let pages = image.pages();
    let map = syscall::create_image(pages.len() as u32).map_err(io("make a table"))?;
    for (number, page) in pages.iter().enumerate() {
        syscall::write_page(map.as_fd(), number as u32, page).map_err(io("fill a table"))?;
    }
    Ok(map)
}

impl LiveImage {
    pub(super) fn of(map: OwnedFd, slot: Slot) -> LiveImage {
        LiveImage { map, slot }
    }

    fn page(&self, number: u32) -> Result<Page, TableError> {
        syscall::read_page(self.map.as_fd(), number).map_err(io("read a policy's table"))
    }

    /// Generation and mode.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn life(&self) -> Result<Revision, TableError> {
        Ok(Header(&self.page(0)?).revision())
    }

    /// Whether it judges packets too.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn is_strict(&self) -> Result<bool, TableError> {
        Ok(Header(&self.page(0)?).is_strict())
    }

    /// Counters: one a rule in their order, then default, then faults.
    ///
    /// # Errors
    /// [`TableError`].
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

    /// All of it. Its counters are those of the moment.
    ///
    /// # Errors
    /// [`TableError`]; [`TableError::Image`] when this version cannot read it.
    pub fn image(&self) -> Result<Image, TableError> {
        let count = Header(&self.page(0)?).page_count();
        let pages: Result<Vec<Page>, TableError> = (0..count).map(|number| self.page(number)).collect();
        Image::from_pages(pages?).map_err(|source| TableError::Image {
            slot: self.slot,
            source,
        })
    }

    /// Bytes of kernel memory it takes, as the kernel accounts for them.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn memory(&self) -> Result<u64, TableError> {
        let info = format!("/proc/self/fdinfo/{}", self.map.as_raw_fd());
        let text = fs::read_to_string(info).map_err(io("read a table's size"))?;
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        Ok(bytes.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or(0))
    }
}
