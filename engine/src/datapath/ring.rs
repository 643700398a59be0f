//! The stream of event records.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::Duration,
};

use aya::maps::{Map, MapData, MapError, RingBuf};
use engine_common::record::READER_PERIOD_MS;
use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags},
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
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
    /// It cannot be waited for.
    #[error("cannot wait for the event ring")]
    Wait(#[source] io::Error),
}

/// Reader of the ring. Its descriptor is readable (poll) when it is time to [`drain`](EventRing::drain):
/// when the programs say so, and every [`READER_PERIOD_MS`], since they do not for each record.
pub struct EventRing {
    ring: RingBuf<MapData>,
    timer: TimerFd,
    either: Epoll,
}

impl EventRing {
    pub(super) fn of(map: Map) -> Result<EventRing, RingError> {
        let ring = RingBuf::try_from(map)?;
        let wait = |errno: nix::errno::Errno| RingError::Wait(errno.into());
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(wait)?;
        let period = TimeSpec::from(Duration::from_millis(READER_PERIOD_MS));
        let expiration = Expiration::Interval(period);
        timer.set(expiration, TimerSetTimeFlags::empty()).map_err(wait)?;
        let either = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(wait)?;
        let readable = || EpollEvent::new(EpollFlags::EPOLLIN, 0);
        // SAFETY: the descriptor is the ring's and lives as long as it.
        let ring_fd = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
        either.add(ring_fd, readable()).map_err(wait)?;
        either.add(&timer, readable()).map_err(wait)?;
        Ok(EventRing { ring, timer, either })
    }

    /// Hands every record that is there to `each`, in order, and returns how many there were.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        // Not expired yet: it was the ring that was readable.
        let _ = self.timer.wait();
        let mut records = 0;
        while let Some(record) = self.ring.next() {
            each(&record);
            records += 1;
        }
        records
    }

    /// Hands the next record to `each`, if there is one. It is gone when this returns.
    pub fn take<T>(&mut self, each: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let Some(record) = self.ring.next() else {
            // Expired since the last time: until it is read, the descriptor stays readable.
            let _ = self.timer.wait();
            return None;
        };
        Some(each(&record))
    }
}

impl AsFd for EventRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.either.0.as_fd()
    }
}
