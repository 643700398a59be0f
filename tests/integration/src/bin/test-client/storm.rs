//! Attempts without end, from several threads, until standard input ends; then what became of them.

use std::{
    collections::BTreeMap,
    io::{Write, sink, stdin, stdout},
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use integration::storm::Weather;

use tidegate::selftest::client::{Address, Failure, Socket, family};

/// Connects datagram sockets to each place in turn, which sends nothing, and sends datagrams there from
/// others. Says `ready` when all threads go.
pub(crate) fn rage(places: &[SocketAddr], threads: usize) -> String {
    let over = AtomicBool::new(false);
    let counts = thread::scope(|scope| {
        let raging: Vec<_> = (0..threads).map(|_| scope.spawn(|| one(places, &over))).collect();
        // Whoever reads sees a missing line as a failure.
        let _ = writeln!(stdout(), "ready").and_then(|()| stdout().flush());
        let _ = std::io::copy(&mut stdin(), &mut sink());
        over.store(true, Ordering::Relaxed);
        let counts = raging.into_iter().map(|thread| thread.join().unwrap_or_default());
        counts.fold(Counts::new(), |mut all, counts| {
            for (key, count) in counts {
                *all.entry(key).or_default() += count;
            }
            all
        })
    });
    let weather: Vec<Weather> = counts
        .into_iter()
        .map(|((to, call, result), count)| Weather {
            to,
            call: call.to_owned(),
            result,
            count,
        })
        .collect();
    serde_json::json!(weather).to_string()
}

type Counts = BTreeMap<(SocketAddr, &'static str, String), u64>;

fn one(places: &[SocketAddr], over: &AtomicBool) -> Counts {
    let mut counts = Counts::new();
    loop {
        for &to in places {
            let address = Address::of(to);
            let socket = || Socket::new(family(to), libc::SOCK_DGRAM, libc::IPPROTO_UDP);
            let connected = socket().and_then(|socket| socket.connect(&address));
            let sent = socket().and_then(|socket| socket.send_to(b"storm", &address, 0));
            for (call, result) in [("connect", connected), ("sendto", sent)] {
                *counts.entry((to, call, told(result))).or_default() += 1;
            }
        }
        // Each place is tried once at least.
        if over.load(Ordering::Relaxed) {
            return counts;
        }
    }
}

fn told(result: Result<(), Failure>) -> String {
    result.map_or_else(|failure| failure.errno, |()| "ok".to_owned())
}
