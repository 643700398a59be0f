//! Runs one test case: first without a policy, then under it, and compares what arrived at the receiver.

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
    expectation::Expectation,
    fixture::{CaseRun, Fixture, Privileges},
    network::Network,
    receiver::Receiver,
    report::{CaseResult, TestResult},
    test_case::{Technique, TestCase},
};
use tidegate_core::datapath::GroupName;

/// Runs a test case.
pub(super) fn run_case(
    fixture: &Fixture<'_>,
    expectation: &Expectation<'_>,
    case: &TestCase,
) -> Result<CaseResult, SelftestError> {
    let line = CaseResult {
        method: case.technique.name(),
        about: case.technique.about(),
        destination: case.destination,
        result: TestResult::Unsupported,
        forbidden: false,
        arrived: 0,
        hook: None,
        outcome: None,
        errno: None,
        known_limitation: false,
        reason: None,
    };
    let Some(receiver) = Receiver::listen(case.technique.transport(), case.receiver_address())? else {
        return Ok(CaseResult {
            reason: Some("the kernel does not support the protocol".to_owned()),
            ..line
        });
    };
    let via = via_receiver(case)?;
    let attempt = Attempt {
        case,
        to: case.destination_address(receiver.address().port()),
        via: via.as_ref().map(Receiver::address),
    };

    let plain = attempt.run(|args, inherited_fds| fixture.run_without_policy(args, inherited_fds))?;
    let arrived = receiver.arrived()?.len();
    if arrived != case.technique.messages() {
        return Ok(CaseResult {
            errno: errno_of(&plain),
            reason: Some(format!(
                "{arrived} of {} messages arrive without a policy",
                case.technique.messages()
            )),
            ..line
        });
    }

    let privileges = match case.technique {
        Technique::EgressMethod(EgressMethod::Packet) | Technique::InheritedSocket => Privileges::AsExec,
        Technique::EgressMethod(method) if method.needs_net_raw() => Privileges::WithNetRaw,
        Technique::EgressMethod(_) => Privileges::AsExec,
    };
    let enforced =
        attempt.run(|args, inherited_fds| fixture.run_under_policy(args, inherited_fds, privileges))?;
    let arrived = receiver.arrived()?.len();
    let line = CaseResult {
        forbidden: expectation.forbids(case, attempt.to.port())?,
        arrived,
        errno: errno_of(&enforced),
        ..line
    };
    let reports: Vec<_> = enforced
        .events
        .iter()
        .map(|event| (event.outcome, event.hook))
        .collect();
    let has_lsm = fixture
        .capabilities()
        .unavailable_reason(GroupName::Lsm)
        .is_none();
    Ok(classify(case.technique, line, &reports, has_lsm))
}

/// The result that follows from what arrived and from the events.
fn classify(
    technique: Technique,
    line: CaseResult,
    reports: &[(Outcome, Hook)],
    has_lsm: bool,
) -> CaseResult {
    // The event of a denial counts. A method that first connects elsewhere may cause other events before it.
    let is_denial = |outcome| matches!(outcome, Outcome::Blocked | Outcome::Killed | Outcome::KillPending);
    let denial = reports.iter().find(|(outcome, _)| is_denial(*outcome));
    let report = denial.or(reports.first());
    let line = CaseResult {
        hook: report.map(|(_, hook)| hook.as_str()),
        outcome: report.map(|(outcome, _)| outcome.as_str().replace(' ', "_")),
        ..line
    };
    if line.arrived == 0 {
        return match (technique, denial) {
            (_, Some(_)) => CaseResult {
                result: TestResult::Blocked,
                ..line
            },
            (Technique::EgressMethod(EgressMethod::Packet), None)
                if line.errno.as_deref() == Some("EPERM") =>
            {
                CaseResult {
                    result: TestResult::Blocked,
                    reason: Some("`exec` drops CAP_NET_RAW; no cgroup hook covers packet sockets".to_owned()),
                    ..line
                }
            }
            _ => CaseResult {
                result: TestResult::Failed,
                reason: Some("nothing arrived, and no event reports a denial".to_owned()),
                ..line
            },
        };
    }
    if line.forbidden {
        let known_limitation = technique == Technique::InheritedSocket && !has_lsm;
        let reason = match known_limitation {
            true => {
                "the socket was created outside of the cgroup; without LSM programs only the cgroup in which a socket was \
                 created counts (SECURITY.md)"
            }
            false => "a bug in tidegate: please report it as described in SECURITY.md",
        };
        return CaseResult {
            result: TestResult::Bypass,
            known_limitation,
            reason: Some(reason.to_owned()),
            ..line
        };
    }
    CaseResult {
        result: if report.is_some() {
            TestResult::Reported
        } else {
            TestResult::Allowed
        },
        ..line
    }
}

fn errno_of(run: &CaseRun) -> Option<String> {
    match &run.result {
        Some(result) => result.errno.clone(),
        None => Some("KILLED".to_owned()),
    }
}

/// The receiver that the method connects to first, if it needs one.
fn via_receiver(case: &TestCase) -> Result<Option<Receiver>, SelftestError> {
    let Technique::EgressMethod(method) = case.technique else {
        return Ok(None);
    };
    if !method.needs_via() {
        return Ok(None);
    }
    let transport = match method.transport() {
        Transport::Tcp => Transport::Tcp,
        _ => Transport::Udp,
    };
    let address = SocketAddr::new(Network::elsewhere(case.family()), 0);
    Ok(Receiver::listen(transport, address)?)
}

struct Attempt<'a> {
    case: &'a TestCase,
    to: SocketAddr,
    via: Option<SocketAddr>,
}

impl Attempt<'_> {
    /// Runs a test client with the arguments and descriptors of the test case.
    fn run(
        &self,
        send: impl FnOnce(Vec<OsString>, &[RawFd]) -> Result<CaseRun, SelftestError>,
    ) -> Result<CaseRun, SelftestError> {
        match self.case.technique {
            Technique::EgressMethod(method) => {
                let mut args: Vec<OsString> =
                    vec!["run".into(), method.name().into(), self.to.to_string().into()];
                args.extend(self.via.map(|via| format!("--via={via}").into()));
                send(args, &[])
            }
            Technique::InheritedSocket => {
                let socket = self
                    .inherited_socket()
                    .map_err(|error| SelftestError::TestClient(Box::new(error)))?;
                let fd = socket.as_raw_fd();
                send(vec!["send".into(), fd.to_string().into()], &[fd])
            }
        }
    }

    /// A connected datagram socket without FD_CLOEXEC.
    fn inherited_socket(&self) -> std::io::Result<UdpSocket> {
        let socket = match self.case.family() {
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

    fn line(forbidden: bool, arrived: usize, errno: Option<&str>) -> CaseResult {
        CaseResult {
            method: "",
            about: "",
            destination: "",
            result: TestResult::Unsupported,
            forbidden,
            arrived,
            hook: None,
            outcome: None,
            errno: errno.map(str::to_owned),
            known_limitation: false,
            reason: None,
        }
    }

    fn result(technique: Technique, line: CaseResult, reports: &[(Outcome, Hook)]) -> (TestResult, bool) {
        let case = classify(technique, line, reports, false);
        (case.result, case.known_limitation)
    }

    /// Independent of events and errno.
    #[test]
    fn a_forbidden_message_that_arrives_is_a_bypass() {
        let blocked = [(Outcome::Blocked, Hook::Connect4)];
        for reports in [&[][..], &blocked] {
            for errno in [None, Some("EPERM")] {
                assert_eq!(
                    result(CONNECT, line(true, 1, errno), reports),
                    (TestResult::Bypass, false)
                );
            }
        }
        assert_eq!(
            result(Technique::InheritedSocket, line(true, 1, None), &[]),
            (TestResult::Bypass, true)
        );
    }

    #[test]
    fn a_message_that_does_not_arrive_is_blocked_by_the_hook_that_denied_it() {
        let blocked = [
            (Outcome::Audited, Hook::Connect4),
            (Outcome::Blocked, Hook::Sendmsg4),
        ];
        let case = classify(CONNECT, line(true, 0, Some("EPERM")), &blocked, false);
        assert_eq!((case.result, case.hook), (TestResult::Blocked, Some("sendmsg4")));
        assert_eq!(
            result(CONNECT, line(true, 0, Some("EPERM")), &[]).0,
            TestResult::Failed
        );
        let packet = Technique::EgressMethod(EgressMethod::Packet);
        assert_eq!(
            result(packet, line(true, 0, Some("EPERM")), &[]).0,
            TestResult::Blocked
        );
        assert_eq!(
            result(packet, line(true, 0, Some("EIO")), &[]).0,
            TestResult::Failed
        );
    }

    #[test]
    fn an_allowed_message_that_arrives_is_reported_or_allowed() {
        let audited = [(Outcome::WouldBlock, Hook::Connect4)];
        assert_eq!(
            result(CONNECT, line(false, 1, None), &audited).0,
            TestResult::Reported
        );
        assert_eq!(result(CONNECT, line(false, 1, None), &[]).0, TestResult::Allowed);
    }
}
