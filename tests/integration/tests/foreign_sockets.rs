//! Sockets passed between processes. Cgroup hooks use the cgroup that created the socket, LSM programs also use the task.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    io::{IoSlice, IoSliceMut, Read},
    net::UdpSocket,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
};

use integration::{
    client_result::ClientResult,
    egress_method::{Family, MARKER, Transport},
    exec::Exec,
    kernel::has_lsm,
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met},
    test_client::TestClient,
};
use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg},
};

fn test_client() -> TestClient {
    TestClient::at(env!("CARGO_BIN_EXE_test-client"))
}

fn receive_socket(stream: &UnixStream) -> UdpSocket {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!([i32; 1]);
    let received = recvmsg::<UnixAddr>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::empty(),
    )
    .unwrap();
    match received.cmsgs().unwrap().next() {
        // SAFETY: the kernel has just created this descriptor.
        Some(ControlMessageOwned::ScmRights(fds)) => unsafe { OwnedFd::from_raw_fd(fds[0]) }.into(),
        other => panic!("no socket but {other:?}"),
    }
}

/// A socket created under a policy stays under it, whichever process uses it. A task outside the scope is denied, not
/// killed, and the event has `foreign_socket`.
#[test]
fn socket_passed_out_is_denied_without_a_kill() {
    if !met("socket_passed_out_is_denied_without_a_kill", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for action in ["block", "kill"] {
            let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
            let exec = Exec::with(&format!("{{default: {action}}}")).accept_late_kill();
            let path = exec.dir().path().join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            let running = exec.start(test_client().task("give-socket", &[path.to_str().unwrap()]));
            let (stream, _) = listener.accept().unwrap();
            let socket = receive_socket(&stream);

            let error = socket.send_to(MARKER, receiver.address()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            receiver.expect_nothing("a socket of the scope");

            drop(stream);
            running.finish().expect_code(0);
            let report = exec.report();
            let event = report.only_event();
            assert!(event.foreign_socket);
            assert_eq!(
                (event.verdict.as_str(), event.outcome.as_str()),
                (action, "blocked")
            );
            assert_ne!(event.cgroup_id, event.scope_id);
            assert_eq!(event.pid, nix::unistd::getpid().as_raw());
        }
    });
}

/// A socket created outside and passed in is checked by LSM programs against the policy of the task. Without LSM programs
/// it is a documented limitation, tested here to notice changes.
#[test]
fn socket_passed_in_is_checked_by_lsm_programs() {
    if !met("socket_passed_in_is_checked_by_lsm_programs", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        for action in ["audit", "block", "kill"] {
            let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
            let to = receiver.address().to_string();
            let exec = Exec::with(&format!("{{default: {action}, errno: EACCES}}")).accept_late_kill();
            let path = exec.dir().path().join("socket");
            let listener = UnixListener::bind(&path).unwrap();
            let running = exec.start(test_client().task("take-socket", &[path.to_str().unwrap(), &to]));
            let (stream, _) = listener.accept().unwrap();
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            send_socket(&stream, socket.as_raw_fd());
            let mut rest = Vec::new();
            (&stream).read_to_end(&mut rest).unwrap();
            let output = running.finish();
            let report = exec.report();
            if !has_lsm() {
                assert!(
                    ClientResult::read(&output.expect_code(0).stdout)
                        .pop()
                        .unwrap()
                        .ok
                );
                assert_eq!(receiver.arrived(), [MARKER]);
                assert!(report.events.is_empty());
                continue;
            }
            let event = report.only_event();
            assert!(event.foreign_socket);
            assert_eq!(
                (event.hook.as_str(), event.verdict.as_str()),
                ("lsm_sendmsg", action)
            );
            assert_eq!(
                event.destination.as_ref().unwrap().address,
                receiver.address().ip()
            );
            match action {
                "audit" => {
                    assert!(
                        ClientResult::read(&output.expect_code(0).stdout)
                            .pop()
                            .unwrap()
                            .ok
                    );
                    assert_eq!(receiver.arrived(), [MARKER]);
                }
                "block" => {
                    let result = ClientResult::read(&output.expect_code(0).stdout).pop().unwrap();
                    assert_eq!(result.errno.as_deref(), Some("EACCES"), "{result:?}");
                    receiver.expect_nothing("blocked");
                }
                _ => {
                    assert_eq!(event.outcome, "killed");
                    output.expect_code(128 + libc::SIGKILL);
                    receiver.expect_nothing("killed");
                }
            }
        }
    });
}

fn send_socket(stream: &UnixStream, fd: i32) {
    let fds = [fd];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(
        stream.as_raw_fd(),
        &[IoSlice::new(b"s")],
        &rights,
        MsgFlags::empty(),
        None,
    )
    .unwrap();
}
