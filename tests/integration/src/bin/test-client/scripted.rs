//! One step a line, in the order that somebody else chooses: sockets live from one to the next.

use std::{
    io::{BufRead, Write},
    net::SocketAddr,
    process::ExitCode,
};

use integration::{
    client_result::Step,
    egress_method::{EXPERIMENTAL_PROTOCOL, MARKER},
};
use tidegate::selftest::client::{Address, Failure, Socket, go, packet_for, told};

use crate::{clone_into_cgroup, route, server, unix};

/// Lines: `udp4`, `udp6`, `tcp4`, `tcp6`, `raw4`, `header4`, `socket FAMILY TYPE PROTOCOL` make a socket; `connect N TO`,
/// `begin N TO` (which does not wait), `sendto N TO`, `send N`, `receive N` and `flood N BYTES` use the N-th; `packet N TO
/// HEADER` sends a packet with a header of its own; `route N HOP` sends what comes by a hop; `bind N AT`, `listen N BACKLOG`,
/// `listen N AT BACKLOG`, `accept N` (another socket), `shutdown N` and `disconnect N` are those of servers; `go WAY TO`
/// goes a whole way, `unix KIND NAME` one to a unix socket; `pair` is one between two that have no name; `enter FOLDER` is for relative names. `born DIRECTORY`
/// makes a process in another cgroup, which stays until this one ends.
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
        ["socket", family, kind, protocol] => {
            let number = |word: &str| word.parse::<i32>().map_err(|_| misunderstood());
            sockets.push(Socket::new(number(family)?, number(kind)?, number(protocol)?)?);
        }
        ["raw4"] => sockets.push(Socket::new(libc::AF_INET, libc::SOCK_RAW, EXPERIMENTAL_PROTOCOL)?),
        ["bind", number, at] => socket(number)?.bind(&Address::of(place(at)?))?,
        ["listen", number, backlog] => {
            socket(number)?.listen(backlog.parse().map_err(|_| misunderstood())?)?;
        }
        ["accept", number] => {
            let accepted = socket(number)?.accept()?;
            sockets.push(accepted);
        }
        ["receive", number] => socket(number)?.receive()?,
        ["begin", number, to] => socket(number)?.begin(&Address::of(place(to)?))?,
        ["connect", number, to] => socket(number)?.connect(&Address::of(place(to)?))?,
        ["sendto", number, to] => socket(number)?.send_to(MARKER, &Address::of(place(to)?), 0)?,
        ["send", number] => socket(number)?.send(MARKER)?,
        ["header4"] => sockets.push(Socket::new(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?),
        ["packet", number, to, header] => {
            let packet = packet_for(place(header)?);
            socket(number)?.send_to(&packet, &Address::of(place(to)?), 0)?;
        }
        ["route", number, hop] => {
            let hop = hop.parse().map_err(|_| misunderstood())?;
            route::by(socket(number)?, hop)?;
        }
        ["flood", number, bytes] => {
            let bytes = bytes.parse().map_err(|_| misunderstood())?;
            server::send_all(socket(number)?, bytes)?;
        }
        ["listen", number, at, backlog] => {
            let backlog = backlog.parse().map_err(|_| misunderstood())?;
            server::listen(socket(number)?, &Address::of(place(at)?), backlog)?;
        }
        ["shutdown", number] => server::shutdown(socket(number)?)?,
        ["disconnect", number] => socket(number)?.connect(&Address::nowhere())?,
        ["unix", kind, name] => unix::go(kind, name)?,
        ["pair"] => unix::pair()?,
        ["enter", folder] => unix::enter(folder)?,
        ["born", directory] => clone_into_cgroup::in_cgroup(directory)?,
        ["go", way, to] => {
            let way = way.parse().map_err(|_| misunderstood())?;
            go(way, place(to)?, None)?;
        }
        _ => return Err(misunderstood()),
    }
    Ok(())
}
