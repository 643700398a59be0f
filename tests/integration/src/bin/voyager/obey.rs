//! One step a line, in the order that somebody else chooses: sockets live from one to the next.

use std::{
    io::{BufRead, Write},
    net::SocketAddr,
    process::ExitCode,
};

use integration::{voyage::Step, way::MARKER};
use tidegate::selftest::voyager::{Address, Failure, Socket, go, told};

/// Lines: `udp4`, `udp6`, `tcp4`, `tcp6` make a socket; `connect N TO`, `sendto N TO` and `send N` use
/// the N-th; `go WAY TO` goes a whole way.
pub(crate) fn obey() -> ExitCode {
    let mut sockets = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let answer = told(&line, step(&line, &mut sockets));
        if writeln!(std::io::stdout(), "{answer}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn step(line: &str, sockets: &mut Vec<Socket>) -> Result<(), Failure> {
    let misunderstood = || Failure::named(Step::Preparation, "WHAT");
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let socket = |number: &str| {
        let number: usize = number.parse().map_err(|_| misunderstood())?;
        sockets.get(number).ok_or_else(misunderstood)
    };
    let place = |to: &str| to.parse::<SocketAddr>().map_err(|_| misunderstood());
    match words.as_slice() {
        ["udp4"] => sockets.push(Socket::new(libc::AF_INET, libc::SOCK_DGRAM, 0)?),
        ["udp6"] => sockets.push(Socket::new(libc::AF_INET6, libc::SOCK_DGRAM, 0)?),
        ["tcp4"] => sockets.push(Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0)?),
        ["tcp6"] => sockets.push(Socket::new(libc::AF_INET6, libc::SOCK_STREAM, 0)?),
        ["connect", number, to] => socket(number)?.connect(&Address::of(place(to)?))?,
        ["sendto", number, to] => socket(number)?.send_to(MARKER, &Address::of(place(to)?), 0)?,
        ["send", number] => socket(number)?.send(MARKER)?,
        ["go", way, to] => {
            let way = way.parse().map_err(|_| misunderstood())?;
            go(way, place(to)?, None)?;
        }
        _ => return Err(misunderstood()),
    }
    Ok(())
}
