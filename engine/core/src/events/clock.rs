//! Conversion of kernel time to wall time.

use std::io;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of boot time after which the offset is measured again even if no step was noticed.
const RECAPTURE_NS: i128 = 60 * 1_000_000_000;

/// A difference of the offset, in nanoseconds, that is a step of the wall clock and not an inaccuracy of reading
/// two clocks one after the other.
const STEP_NS: i128 = 1_000_000;

/// The clocks of the machine. Tests use others.
pub trait ClockSource {
    /// CLOCK_BOOTTIME, nanoseconds: it continues while the machine is suspended.
    ///
    /// # Errors
    /// When the clock cannot be read (a seccomp filter may forbid it).
    fn boottime_ns(&self) -> io::Result<u64>;

    /// Wall time, nanoseconds since 1970.
    fn realtime_ns(&self) -> i128;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemClocks;

impl ClockSource for SystemClocks {
    fn boottime_ns(&self) -> io::Result<u64> {
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
        let now = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
        Ok(u64::try_from(now).unwrap_or(0))
    }

    fn realtime_ns(&self) -> i128 {
        Timestamp::now().as_nanosecond()
    }
}

/// Converts CLOCK_BOOTTIME, which the kernel programs read, to wall time.
///
/// The offset between both is measured again by [`Clock::update`] when the wall clock was stepped, and once a
/// minute. A reader that calls it for each batch of records gets the wall time that was valid when it read the record.
#[derive(Clone, Debug)]
pub struct Clock<S = SystemClocks> {
    source: S,
    /// Wall time at boot time zero, nanoseconds since 1970.
    origin: i128,
    /// Boot time of the last measurement.
    captured_at: i128,
}

impl Clock {
    /// A clock of this machine.
    ///
    /// # Errors
    /// When CLOCK_BOOTTIME cannot be read (a seccomp filter may forbid it).
    pub fn capture() -> io::Result<Clock> {
        Clock::with_source(SystemClocks)
    }
}

impl<S: ClockSource> Clock<S> {
    /// A clock of other sources.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn with_source(source: S) -> io::Result<Clock<S>> {
        let mut clock = Clock {
            source,
            origin: 0,
            captured_at: 0,
        };
        clock.recapture()?;
        Ok(clock)
    }

    /// Measures the offset again if the wall clock was stepped since the last measurement, or if that was a minute ago.
    ///
    /// # Errors
    /// When the sources cannot be read; the offset stays as it is.
    pub fn update(&mut self) -> io::Result<()> {
        let boot = i128::from(self.source.boottime_ns()?);
        let origin = self.source.realtime_ns() - boot;
        let is_stepped = (origin - self.origin).abs() > STEP_NS;
        if is_stepped || boot - self.captured_at >= RECAPTURE_NS {
            self.recapture()?;
        }
        Ok(())
    }

    /// Takes the most precise of a few measurements: a task switch between the reads of both clocks would be measured
    /// as an offset.
    fn recapture(&mut self) -> io::Result<()> {
        let mut narrowest: Option<i128> = None;
        for _ in 0..5 {
            let before = i128::from(self.source.boottime_ns()?);
            let wall = self.source.realtime_ns();
            let after = i128::from(self.source.boottime_ns()?);
            let width = after - before;
            if narrowest.is_none_or(|narrowest| width < narrowest) {
                narrowest = Some(width);
                self.origin = wall - before - width / 2;
                self.captured_at = after;
            }
        }
        Ok(())
    }

    /// Wall time of a reading of CLOCK_BOOTTIME in nanoseconds.
    pub fn wall(&self, ktime_ns: u64) -> Timestamp {
        Timestamp::from_nanosecond(self.origin + i128::from(ktime_ns)).unwrap_or(Timestamp::MAX)
    }

    /// Wall time now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_nanosecond(self.source.realtime_ns()).unwrap_or(Timestamp::MAX)
    }

    /// CLOCK_BOOTTIME now, nanoseconds, as the kernel programs read it.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn ktime_ns(&self) -> io::Result<u64> {
        self.source.boottime_ns()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Clocks that only change when a test changes them.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct TestClocks(Rc<Cell<(u64, i128)>>);

    impl TestClocks {
        /// Boot time in nanoseconds, and wall time.
        pub(crate) fn new(boot: u64, wall: &str) -> TestClocks {
            let wall: Timestamp = wall.parse().unwrap();
            TestClocks(Rc::new(Cell::new((boot, wall.as_nanosecond()))))
        }

        /// Advances both clocks.
        pub(crate) fn advance(&self, ns: u64) {
            let (boot, wall) = self.0.get();
            self.0.set((boot + ns, wall + i128::from(ns)));
        }

        /// Changes the wall clock only.
        pub(crate) fn step(&self, seconds: i64) {
            let (boot, wall) = self.0.get();
            self.0
                .set((boot, wall + i128::from(seconds) * i128::from(SECOND)));
        }
    }

    impl ClockSource for TestClocks {
        fn boottime_ns(&self) -> io::Result<u64> {
            Ok(self.0.get().0)
        }

        fn realtime_ns(&self) -> i128 {
            self.0.get().1
        }
    }

    #[test]
    fn wall_time_is_the_offset_plus_boot_time() {
        let clock = Clock::with_source(TestClocks::new(0, "2026-01-02T03:04:05Z")).unwrap();
        assert_eq!(clock.wall(1_500_000_000).to_string(), "2026-01-02T03:04:06.5Z");
        assert_eq!(clock.wall(u64::MAX).to_string().get(..4), Some("2610"));
        let late = Clock::with_source(TestClocks::new(0, "9999-12-30T22:00:00Z")).unwrap();
        assert_eq!(late.wall(u64::MAX), Timestamp::MAX);
    }

    #[test]
    fn a_step_of_the_wall_clock_is_noticed_and_a_suspend_changes_nothing() {
        let clocks = TestClocks::new(10 * SECOND, "2026-01-02T12:00:10Z");
        let mut clock = Clock::with_source(clocks.clone()).unwrap();
        assert_eq!(clock.wall(10 * SECOND).to_string(), "2026-01-02T12:00:10Z");

        clocks.step(-3600);
        clocks.advance(SECOND);
        clock.update().unwrap();
        assert_eq!(clock.wall(11 * SECOND).to_string(), "2026-01-02T11:00:11Z");

        // Eight hours of suspend.
        clocks.advance(8 * 3600 * SECOND);
        clock.update().unwrap();
        assert_eq!(
            clock.wall((8 * 3600 + 11) * SECOND).to_string(),
            "2026-01-02T19:00:11Z"
        );
    }

    #[test]
    fn a_slow_drift_is_corrected_once_a_minute() {
        let clocks = TestClocks::new(0, "2026-01-02T12:00:00Z");
        let mut clock = Clock::with_source(clocks.clone()).unwrap();
        clocks.advance(SECOND);
        let (boot, wall) = clocks.0.get();
        clocks.0.set((boot, wall + 500_000));
        clock.update().unwrap();
        assert_eq!(clock.wall(SECOND).to_string(), "2026-01-02T12:00:01Z");
        clocks.advance(60 * SECOND);
        clock.update().unwrap();
        assert_eq!(clock.wall(61 * SECOND).to_string(), "2026-01-02T12:01:01.0005Z");
    }

    #[test]
    fn the_clock_of_this_machine_has_the_current_time() {
        let before = Timestamp::now();
        let clock = Clock::capture().unwrap();
        let now = clock.wall(clock.ktime_ns().unwrap());
        // An hour: wide enough for any machine, narrow enough to distinguish boot time from wall time.
        assert!(now.duration_since(before).as_secs().abs() < 3600);
    }
}
