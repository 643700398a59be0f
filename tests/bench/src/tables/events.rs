//! Throughput and loss of events, by the size of the ring buffer.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use serde_json::json;

use super::progress;
use crate::{
    datapath::{LoadedDatapath, image_of},
    fixture::Fixture,
    network::PORT,
    policies::Shape,
    report::{Budget, Line, Section},
};

/// Threads that connect.
const THREADS: usize = 2;

/// The result of one flood.
struct Flood {
    connects: u64,
    read: u64,
    lost: u64,
    took: Duration,
}

/// Floods ring buffers of several sizes.
pub(crate) fn measure(fixture: &mut Fixture<'_>) -> Result<Section> {
    // Ends the reader of the datapath with the default ring.
    fixture.unload();
    let mut lines = Vec::new();
    for kib in [4_u32, 64, 512, 4096, 16384] {
        progress(&format!("events: ring buffer of {kib} KiB"));
        lines.push(line(kib, &flood(fixture, kib * 1024)?));
    }
    Ok(Section {
        key: "events",
        title: "Events per second, by the size of the ring buffer",
        note: "Two threads connect UDP sockets as fast as possible under a policy that audits every connect; one thread reads and \
               counts the events. Every event that is not read must be counted as lost. The default size is 4096 KiB.",
        head: vec!["connects/s", "events/s", "lost/s", "lost"],
        lines,
    })
}

fn flood(fixture: &mut Fixture<'_>, ring: u32) -> Result<Flood> {
    let mut datapath = LoadedDatapath::load(Some(ring))?;
    let text = fixture.policies.text(&Shape::small("audit"))?;
    let slot = datapath.install(&image_of(&fixture.policies.parse(&text)?)?)?;
    let cgroup = fixture.cgroup()?;
    let attached = datapath.attach(&cgroup, &[slot])?;
    cgroup.enter()?;
    let duration = Duration::from_millis(fixture.samples.times(2000, 300) as u64);
    let start = Instant::now();
    let connects = connect_for(duration);
    let took = start.elapsed();
    let read = datapath.finish_reading();
    drop(attached);
    fixture.work_dirs.enter_home_cgroup()?;
    Ok(Flood {
        connects: connects?,
        read,
        lost: datapath.lost()?,
        took,
    })
}

/// Connects from all threads for this time, and returns the number of connects.
fn connect_for(duration: Duration) -> Result<u64> {
    let ends = AtomicBool::new(false);
    let connect = || -> Result<u64> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let to: std::net::SocketAddr = ([198, 51, 100, 10], PORT).into();
        let mut connects = 0;
        while !ends.load(Ordering::Relaxed) {
            for _ in 0..64 {
                socket.connect(to)?;
            }
            connects += 64;
        }
        Ok(connects)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(connect)).collect();
        thread::sleep(duration);
        ends.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .try_fold(0, |sum, thread| match thread.join() {
                Ok(connects) => Ok(sum + connects?),
                Err(panic) => std::panic::resume_unwind(panic),
            })
    })
}

fn line(kib: u32, flood: &Flood) -> Line {
    let a_second = |count: u64| count as f64 / flood.took.as_secs_f64();
    let uncounted = flood.connects.abs_diff(flood.read + flood.lost);
    let share = flood.lost as f64 / flood.connects.max(1) as f64;
    Line {
        name: format!("{kib} KiB"),
        cells: vec![
            format!("{:.0}", a_second(flood.connects)),
            format!("{:.0}", a_second(flood.read)),
            format!("{:.0}", a_second(flood.lost)),
            format!("{:.1} %", share * 100.0),
        ],
        values: json!({
            "ring_kib": kib,
            "connects": flood.connects,
            "events_read": flood.read,
            "events_lost": flood.lost,
            "seconds": flood.took.as_secs_f64(),
            "uncounted": uncounted,
        }),
        budget_result: Some(Budget::Uncounted(0).check(uncounted as f64)),
    }
}
