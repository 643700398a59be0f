//! The stream of event records.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::{Map, MapData, MapError, RingBuf};
use thiserror::Error;

/// Why there is no stream.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RingError {
    /// Somebody reads it already.
    #[error("the event ring is being read already")]
    Taken,
    /// It could not be mapped.
    #[error("cannot map the event ring")]
    Map(#[from] MapError),
}

/// Reader of the ring. Its descriptor is readable (poll) when there are records.
pub struct EventRing {
    ring: RingBuf<MapData>,
}

impl EventRing {
    pub(super) fn of(map: Map) -> Result<EventRing, RingError> {
        Ok(EventRing {
            ring: RingBuf::try_from(map)?,
        })
    }

    /// Hands every record that is there to `each`, in order, and returns how many there were.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut records = 0;
        while let Some(record) = self.ring.next() {
            each(&record);
            records += 1;
        }
        records
    }

    /// Hands the next record to `each`, if there is one. It is gone when this returns.
    pub fn take<T>(&mut self, each: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let record = self.ring.next()?;
        Some(each(&record))
    }
}

impl AsFd for EventRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is the ring's and lives as long as it.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}
