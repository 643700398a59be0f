//! One course: without the gate, then through it, and what the receiver saw.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use engine_common::{Hook, Outcome};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::{
    SelftestError,
    egress_method::{EgressMethod, Family, Transport},
    fixture::{Bench, CaseRun, Rights},
    forbidden::Judge,
    network::Network,
    receiver::Receiver,
    report::{Line, Status},
    test_case::{Technique, TestCase},
};
use crate::datapath::lsm_unavailable_reason;

/// Tries one course.
pub(super) fn try_out(
    bench: &Bench<'_>,
    judge: &Judge<'_>,
    course: &TestCase,
) -> Result<Line, SelftestError> {
    let line = Line {
        way: course.passage.name(),
        destination: course.destination,
        status: Status::NotHere,
        forbidden: false,
        arrived: 0,
        hook: None,
        outcome: None,
        errno: None,
        known: false,
        why: None,
    };
    let Some(receiver) = Receiver::listen(course.passage.transport(), course.listens())? else {
        return Ok(Line {
            why: Some("it has no such protocol".to_owned()),
            ..line
        });
    };
    let first = first_place(course)?;
    let setting = Setting {
        course,
        to: course.to(receiver.address().port()),
        via: first.as_ref().map(Receiver::address),
    };

    let plain = setting.go(|words, handed| bench.go_plain(words, handed))?;
    let arrived = receiver.arrived()?.len();
    if arrived != course.passage.messages() {
        return Ok(Line {
            errno: errno_of(&plain),
            why: Some(format!(
                "without the gate {arrived} of {} messages arrive",
                course.passage.messages()
            )),
            ..line
        });
    }

    let rights = match course.passage {
        Technique::EgressMethod(EgressMethod::Packet) | Technique::OlderSocket => Rights::AsExec,
        Technique::EgressMethod(way) if way.needs_net_raw() => Rights::WithRawSockets,
        Technique::EgressMethod(_) => Rights::AsExec,
    };
    let gated = setting.go(|words, handed| bench.go_gated(words, handed, rights))?;
    let arrived = receiver.arrived()?.len();
    let line = Line {
        forbidden: judge.forbids(course, setting.to.port())?,
        arrived,
        errno: errno_of(&gated),
        ..line
    };
    let reports: Vec<_> = gated
        .events
        .iter()
        .map(|event| (event.outcome, event.hook))
        .collect();
    Ok(judged(course.passage, line, &reports))
}

/// What follows from what arrived and what was reported.
fn judged(passage: Technique, line: Line, reports: &[(Outcome, Hook)]) -> Line {
    // Of several events the one that denied counts; on the way to a first place there may be others.
    let is_denial = |outcome| matches!(outcome, Outcome::Blocked | Outcome::Killed | Outcome::KillPending);
    let denial = reports.iter().find(|(outcome, _)| is_denial(*outcome));
    let report = denial.or(reports.first());
    let line = Line {
        hook: report.map(|(_, hook)| hook.as_str()),
        outcome: report.map(|(outcome, _)| outcome.as_str()),
        ..line
    };
    if line.arrived == 0 {
        return match (passage, denial) {
            (_, Some(_)) => Line {
                status: Status::Blocked,
                ..line
            },
            (Technique::EgressMethod(EgressMethod::Packet), None)
                if line.errno.as_deref() == Some("EPERM") =>
            {
                Line {
                    status: Status::Blocked,
                    why: Some("`exec` takes CAP_NET_RAW away; no cgroup hook sees packet sockets".to_owned()),
                    ..line
                }
            }
            _ => Line {
                status: Status::Failed,
                why: Some("nothing arrived, and no hook said that it denied it".to_owned()),
                ..line
            },
        };
    }
    if line.forbidden {
        let known = passage == Technique::OlderSocket && lsm_unavailable_reason().is_some();
        let why = match known {
            true => {
                "the socket was made outside of the cgroup, and without LSM programs the hooks go by where a socket was made \
                 (SECURITY.md)"
            }
            false => "a fault of tidegate: please report it as SECURITY.md says",
        };
        return Line {
            status: Status::Open,
            known,
            why: Some(why.to_owned()),
            ..line
        };
    }
    Line {
        status: if report.is_some() {
            Status::Reported
        } else {
            Status::Allowed
        },
        ..line
    }
}

fn errno_of(travelled: &CaseRun) -> Option<String> {
    match &travelled.result {
        Some(result) => result.errno.clone(),
        None => Some("KILLED".to_owned()),
    }
}

/// Where the way goes before, if it does.
fn first_place(course: &TestCase) -> Result<Option<Receiver>, SelftestError> {
    let Technique::EgressMethod(way) = course.passage else {
        return Ok(None);
    };
    if !way.needs_via() {
        return Ok(None);
    }
    let transport = match way.transport() {
        Transport::Tcp => Transport::Tcp,
        _ => Transport::Udp,
    };
    let address = SocketAddr::new(Network::elsewhere(course.family()), 0);
    Ok(Receiver::listen(transport, address)?)
}

struct Setting<'a> {
    course: &'a TestCase,
    to: SocketAddr,
    via: Option<SocketAddr>,
}

impl Setting<'_> {
    /// Sends a test client, with what it needs.
    fn go(
        &self,
        send: impl FnOnce(Vec<OsString>, &[RawFd]) -> Result<CaseRun, SelftestError>,
    ) -> Result<CaseRun, SelftestError> {
        match self.course.passage {
            Technique::EgressMethod(way) => {
                let mut words: Vec<OsString> =
                    vec!["go".into(), way.name().into(), self.to.to_string().into()];
                words.extend(self.via.map(|via| format!("--via={via}").into()));
                send(words, &[])
            }
            Technique::OlderSocket => {
                let socket = self
                    .older_socket()
                    .map_err(|error| SelftestError::TestClient(Box::new(error)))?;
                let fd = socket.as_raw_fd();
                send(vec!["send".into(), fd.to_string().into()], &[fd])
            }
        }
    }

    /// A datagram socket that is connected already, and open for children.
    fn older_socket(&self) -> std::io::Result<UdpSocket> {
        let socket = match self.course.family() {
            Family::V4 => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)),
            Family::V6 => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)),
        }?;
        socket.connect(self.to)?;
        fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECT: Technique = Technique::EgressMethod(EgressMethod::TcpConnect);

    fn line(forbidden: bool, arrived: usize, errno: Option<&str>) -> Line {
        Line {
            way: "",
            destination: "",
            status: Status::NotHere,
            forbidden,
            arrived,
            hook: None,
            outcome: None,
            errno: errno.map(str::to_owned),
            known: false,
            why: None,
        }
    }

    fn status(passage: Technique, line: Line, reports: &[(Outcome, Hook)]) -> (Status, bool) {
        let judged = judged(passage, line, reports);
        (judged.status, judged.known)
    }

    /// Whatever hooks and errno say.
    #[test]
    fn what_arrived_is_open_if_it_is_forbidden() {
        let blocked = [(Outcome::Blocked, Hook::Connect4)];
        for reports in [&[][..], &blocked] {
            for errno in [None, Some("EPERM")] {
                assert_eq!(
                    status(CONNECT, line(true, 1, errno), reports),
                    (Status::Open, false)
                );
            }
        }
        assert_eq!(
            status(Technique::OlderSocket, line(true, 1, None), &[]),
            (Status::Open, true)
        );
    }

    #[test]
    fn what_did_not_arrive_is_blocked_by_whoever_said_so() {
        let blocked = [
            (Outcome::Audited, Hook::Connect4),
            (Outcome::Blocked, Hook::Sendmsg4),
        ];
        let judged = judged(CONNECT, line(true, 0, Some("EPERM")), &blocked);
        assert_eq!((judged.status, judged.hook), (Status::Blocked, Some("sendmsg4")));
        assert_eq!(
            status(CONNECT, line(true, 0, Some("EPERM")), &[]).0,
            Status::Failed
        );
        let packet = Technique::EgressMethod(EgressMethod::Packet);
        assert_eq!(
            status(packet, line(true, 0, Some("EPERM")), &[]).0,
            Status::Blocked
        );
        assert_eq!(status(packet, line(true, 0, Some("EIO")), &[]).0, Status::Failed);
    }

    #[test]
    fn what_may_arrive_is_reported_or_silent() {
        let audited = [(Outcome::WouldBlock, Hook::Connect4)];
        assert_eq!(
            status(CONNECT, line(false, 1, None), &audited).0,
            Status::Reported
        );
        assert_eq!(status(CONNECT, line(false, 1, None), &[]).0, Status::Allowed);
    }
}
