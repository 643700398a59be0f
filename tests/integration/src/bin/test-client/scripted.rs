//! Runs one step per line of standard input. Sockets stay open between steps.

use std::{
    io::{BufRead, Write},
    net::SocketAddr,
    process::ExitCode,
};

use integration::selftest::client::{
    Address, Failure, Socket, connect_by_uring, packet_for, result_line, run_method,
};
use integration::{
    client_result::Step,
    egress_method::{EXPERIMENTAL_PROTOCOL, MARKER},
};

use crate::{clone_into_cgroup, route, server, source, unix};

/// Each line is an id, a step and its arguments. `N` is the index of a socket, in the order of creation.
///
/// - Create a socket: `udp4`, `udp6`, `tcp4`, `tcp6`, `raw4`, `header4` (IPPROTO_RAW), `socket FAMILY TYPE PROTOCOL`.
/// - Use it: `connect N TO`, `begin N TO` (connect without waiting), `disconnect N`, `bind N AT`, `send N`,
///   `sendto N TO`, `receive N`, `flood N BYTES`, `shutdown N`, `packet N TO HEADER` (with an own IP header to
///   `HEADER`), `route N HOP` (a source route).
/// - Choose source and device: `device N NAME`, `unicast-if4 N NAME`, `unicast-if6 N NAME`, `message N TO SOURCE DEVICE`
///   (sends; `-` for no device). Connect otherwise: `fast-open N TO`, `uring-connect N TO`.
/// - Servers: `listen N BACKLOG`, `listen N AT BACKLOG`, `accept N` (creates a socket).
/// - Other: `run METHOD TO` runs an egress method, `unix TYPE NAME` sends to a unix socket, `pair` sends over a socket
///   pair, `chdir DIRECTORY` is for relative paths, `clone-into DIRECTORY` creates a process in another cgroup that
///   lives until this one ends.
pub(crate) fn run_script() -> ExitCode {
    let mut sockets = Vec::new();
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let result = result_line(&line, step(&line, &mut sockets));
        if writeln!(std::io::stdout(), "{result}").is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn step(line: &str, sockets: &mut Vec<Socket>) -> Result<(), Failure> {
    let invalid = || Failure::named(Step::Preparation, "INVALID-STEP");
    let args: Vec<&str> = line.split(' ').skip(1).collect();
    let socket = |index: &str| {
        let index: usize = index.parse().map_err(|_| invalid())?;
        sockets.get(index).ok_or_else(invalid)
    };
    let address = |to: &str| to.parse::<SocketAddr>().map_err(|_| invalid());
    match args.as_slice() {
        ["udp4"] => sockets.push(Socket::new(libc::AF_INET, libc::SOCK_DGRAM, 0)?),
        ["udp6"] => sockets.push(Socket::new(libc::AF_INET6, libc::SOCK_DGRAM, 0)?),
        ["tcp4"] => sockets.push(Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0)?),
        ["tcp6"] => sockets.push(Socket::new(libc::AF_INET6, libc::SOCK_STREAM, 0)?),
        ["socket", family, kind, protocol] => {
            let integer = |text: &str| text.parse::<i32>().map_err(|_| invalid());
            sockets.push(Socket::new(integer(family)?, integer(kind)?, integer(protocol)?)?);
        }
        ["raw4"] => sockets.push(Socket::new(libc::AF_INET, libc::SOCK_RAW, EXPERIMENTAL_PROTOCOL)?),
        ["bind", index, at] => socket(index)?.bind(&Address::of(address(at)?))?,
        ["listen", index, backlog] => {
            socket(index)?.listen(backlog.parse().map_err(|_| invalid())?)?;
        }
        ["accept", index] => {
            let accepted = socket(index)?.accept()?;
            sockets.push(accepted);
        }
        ["receive", index] => socket(index)?.receive()?,
        ["begin", index, to] => socket(index)?.start_connect(&Address::of(address(to)?))?,
        ["connect", index, to] => socket(index)?.connect(&Address::of(address(to)?))?,
        ["sendto", index, to] => socket(index)?.send_to(MARKER, &Address::of(address(to)?), 0)?,
        ["send", index] => socket(index)?.send(MARKER)?,
        ["header4"] => sockets.push(Socket::new(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)?),
        ["packet", index, to, header] => {
            let packet = packet_for(address(header)?);
            socket(index)?.send_to(&packet, &Address::of(address(to)?), 0)?;
        }
        ["route", index, hop] => {
            let hop = hop.parse().map_err(|_| invalid())?;
            route::by(socket(index)?, hop)?;
        }
        ["device", index, name] => source::bind_to_device(socket(index)?, name)?,
        ["unicast-if4", index, name] => source::unicast_device(socket(index)?, libc::IPPROTO_IP, name)?,
        ["unicast-if6", index, name] => source::unicast_device(socket(index)?, libc::IPPROTO_IPV6, name)?,
        ["message", index, to, from, device] => {
            let from = from.parse().map_err(|_| invalid())?;
            source::send_with(socket(index)?, address(to)?, from, device)?;
        }
        ["fast-open", index, to] => {
            let to = Address::of(address(to)?);
            socket(index)?.send_to(MARKER, &to, libc::MSG_FASTOPEN)?;
        }
        ["uring-connect", index, to] => connect_by_uring(socket(index)?, &Address::of(address(to)?))?,
        ["flood", index, bytes] => {
            let bytes = bytes.parse().map_err(|_| invalid())?;
            server::send_all(socket(index)?, bytes)?;
        }
        ["listen", index, at, backlog] => {
            let backlog = backlog.parse().map_err(|_| invalid())?;
            server::listen(socket(index)?, &Address::of(address(at)?), backlog)?;
        }
        ["shutdown", index] => server::shutdown(socket(index)?)?,
        ["disconnect", index] => socket(index)?.connect(&Address::unspecified())?,
        ["unix", kind, name] => unix::send_to(kind, name)?,
        ["pair"] => unix::pair()?,
        ["chdir", dir] => unix::chdir(dir)?,
        ["clone-into", directory] => clone_into_cgroup::in_cgroup(directory)?,
        ["run", method, to] => {
            let method = method.parse().map_err(|_| invalid())?;
            run_method(method, address(to)?, None)?;
        }
        _ => return Err(invalid()),
    }
    Ok(())
}
