//! Continuous attempts from several threads until standard input ends; then the counts of their results.

use std::{
    collections::BTreeMap,
    io::{Write, sink, stdin, stdout},
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use integration::load::CallCount;

use integration::selftest::client::{Address, Failure, Socket, family};

/// Connects datagram sockets to each destination (which sends nothing) and sends datagrams there from other sockets.
/// Prints `ready` when all threads run.
pub(crate) fn generate_load(destinations: &[SocketAddr], threads: usize) -> String {
    let over = AtomicBool::new(false);
    let counts = thread::scope(|scope| {
        let threads_running: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| one(destinations, &over)))
            .collect();
        // The test fails without this line.
        let _ = writeln!(stdout(), "ready").and_then(|()| stdout().flush());
        let _ = std::io::copy(&mut stdin(), &mut sink());
        over.store(true, Ordering::Relaxed);
        let counts = threads_running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_default());
        counts.fold(Counts::new(), |mut all, counts| {
            for (key, count) in counts {
                *all.entry(key).or_default() += count;
            }
            all
        })
    });
    let counts: Vec<CallCount> = counts
        .into_iter()
        .map(|((to, call, result), count)| CallCount {
            to,
            call: call.to_owned(),
            result,
            count,
        })
        .collect();
    serde_json::json!(counts).to_string()
}

type Counts = BTreeMap<(SocketAddr, &'static str, String), u64>;

fn one(destinations: &[SocketAddr], over: &AtomicBool) -> Counts {
    let mut counts = Counts::new();
    loop {
        for &to in destinations {
            let address = Address::of(to);
            let socket = || Socket::new(family(to), libc::SOCK_DGRAM, libc::IPPROTO_UDP);
            let connected = socket().and_then(|socket| socket.connect(&address));
            let sent = socket().and_then(|socket| socket.send_to(b"load", &address, 0));
            for (call, result) in [("connect", connected), ("sendto", sent)] {
                *counts.entry((to, call, result_name(result))).or_default() += 1;
            }
        }
        // After the loop, so that each destination is tried at least once.
        if over.load(Ordering::Relaxed) {
            return counts;
        }
    }
}

fn result_name(result: Result<(), Failure>) -> String {
    result.map_or_else(|failure| failure.errno, |()| "ok".to_owned())
}
