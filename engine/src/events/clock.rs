//! From the kernel's clock to wall time.

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Offset between CLOCK_MONOTONIC, which the kernel programs read, and wall time. Captured once:
/// when somebody sets the machine's clock later, events keep to the old one and stay in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Wall time at monotonic zero, nanoseconds since 1970.
    origin: i128,
}

impl Clock {
    /// Reads both clocks.
    ///
    /// # Errors
    /// When the kernel has no CLOCK_MONOTONIC for us (a seccomp filter may see to that).
    pub fn capture() -> std::io::Result<Clock> {
        // The narrowest of a few pairs of readings: a task switch between two of them would be
        // taken for an offset.
        let mut best: Option<(i128, i128)> = None;
        for _ in 0..5 {
            let before = monotonic()?;
            let wall = Timestamp::now().as_nanosecond();
            let after = monotonic()?;
            let width = after - before;
            if best.is_none_or(|(narrowest, _)| width < narrowest) {
                best = Some((width, wall - before - width / 2));
            }
        }
        let origin = best.map_or(0, |(_, origin)| origin);
        Ok(Clock { origin })
    }

    /// A clock by the wall time at which CLOCK_MONOTONIC was zero.
    pub fn with_origin(origin: Timestamp) -> Clock {
        Clock {
            origin: origin.as_nanosecond(),
        }
    }

    /// Wall time of a reading of CLOCK_MONOTONIC in nanoseconds.
    pub fn wall(&self, monotonic_ns: u64) -> Timestamp {
        Timestamp::from_nanosecond(self.origin + i128::from(monotonic_ns)).unwrap_or(Timestamp::MAX)
    }
}

/// CLOCK_MONOTONIC now, nanoseconds, as the kernel programs read it.
///
/// # Errors
/// As [`Clock::capture`].
pub fn monotonic_ns() -> std::io::Result<u64> {
    Ok(u64::try_from(monotonic()?).unwrap_or(0))
}

fn monotonic() -> std::io::Result<i128> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_is_origin_plus_reading() {
        let clock = Clock::with_origin("2026-01-02T03:04:05Z".parse().unwrap());
        let time = clock.wall(1_500_000_000);
        assert_eq!(time.to_string(), "2026-01-02T03:04:06.5Z");
        assert_eq!(clock.wall(u64::MAX).to_string().get(..4), Some("2610"));
        assert_eq!(Clock::with_origin(Timestamp::MAX).wall(u64::MAX), Timestamp::MAX);
    }

    #[test]
    fn a_captured_clock_tells_the_time() {
        let before = Timestamp::now();
        let clock = Clock::capture().unwrap();
        let now = clock.wall(u64::try_from(monotonic().unwrap()).unwrap());
        // An hour: wide enough for any machine, narrow enough to tell monotonic from wall time.
        assert!(now.duration_since(before).as_secs().abs() < 3600);
    }
}
