//! Unix sockets: LSM programs enforce rules that name them, by whichever path or name the process uses.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Read,
    os::{
        fd::{AsRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            fs::symlink,
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    path::{Path, PathBuf},
};

use integration::{
    attached::AttachFixture,
    cgroup::TestCgroup,
    egress_method::MARKER,
    kernel::has_lsm,
    namespace::Namespace,
    requirement::{Need, met},
    scripted_client::ScriptedClient,
    test_client::TestClient,
};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, listen, recv, socket,
};

fn with_lsm(test: &str, act: impl Fn(AttachFixture, TestCgroup) + Send + Sync) {
    let needs = [Need::Root, Need::Kernel(has_lsm(), "LSM programs do not run")];
    if met(test, &needs) {
        Namespace::run(|_| act(AttachFixture::open(), TestCgroup::create()));
    }
}

fn test_client(cgroup: &TestCgroup) -> ScriptedClient {
    ScriptedClient::start(&TestClient::at(env!("CARGO_BIN_EXE_test-client")), cgroup)
}

/// A listening socket.
struct Listener(UnixListener);

impl Listener {
    fn at(path: &Path) -> Listener {
        Listener(UnixListener::bind(path).expect("a socket"))
    }

    fn named(name: &str) -> Listener {
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        Listener(UnixListener::bind_addr(&address).expect("a socket"))
    }

    /// What the next client has sent; `None` if none has connected.
    fn received(&self) -> Option<Vec<u8>> {
        self.0.set_nonblocking(true).expect("a listener");
        let (mut stream, _) = self.0.accept().ok()?;
        let mut data = Vec::new();
        stream.read_to_end(&mut data).expect("data");
        Some(data)
    }
}

/// The same for a datagram socket.
fn datagrams(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

fn received(socket: &UnixDatagram) -> Option<Vec<u8>> {
    let mut bytes = [0; 64];
    let length = socket.recv(&mut bytes).ok()?;
    Some(bytes[..length].to_vec())
}

fn packets(path: &Path) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let own = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    bind(own.as_raw_fd(), &UnixAddr::new(path).expect("a path")).expect("a free path");
    listen(&own, Backlog::new(4).expect("a valid backlog")).expect("a listener");
    own
}

fn received_packet(listener: &OwnedFd) -> Option<Vec<u8>> {
    let accepted = accept(listener.as_raw_fd()).ok()?;
    let mut bytes = [0; 64];
    let length = recv(accepted, &mut bytes, nix::sys::socket::MsgFlags::empty()).expect("data");
    nix::unistd::close(accepted).expect("a socket");
    Some(bytes[..length].to_vec())
}

/// A path in the directory of the test.
fn at(fixture: &AttachFixture, name: &str) -> PathBuf {
    fixture.dir().path().join(name)
}

/// Hook, outcome, rule and socket of each unread event.
fn events(fixture: &AttachFixture) -> Vec<(String, String, String, String)> {
    let events = fixture.events().into_iter();
    let events = events.map(|event| {
        assert_eq!((event.protocol.as_str(), event.destination), ("unix", None));
        (
            event.hook,
            event.outcome,
            event.rule.expect("a rule"),
            event.unix.expect("a name"),
        )
    });
    events.collect()
}

fn expected(rows: &[(&str, &str, &str, &Path)]) -> Vec<(String, String, String, String)> {
    let rows = rows.iter().map(|(hook, outcome, rule, path)| {
        let [hook, outcome, rule] = [hook, outcome, rule].map(|&name| name.to_owned());
        (hook, outcome, rule, path.display().to_string())
    });
    rows.collect()
}

/// Only the socket that a rule names is checked. Other unix sockets are allowed, even if the default blocks.
#[test]
fn only_sockets_named_by_a_rule() {
    with_lsm("only_sockets_named_by_a_rule", |fixture, cgroup| {
        let (named, other) = (at(&fixture, "docker.sock"), at(&fixture, "other.sock"));
        let (denied, free) = (Listener::at(&named), Listener::at(&other));
        let spec = format!(
            "{{default: block, errno: EACCES, rules: [{{name: docker, action: block, unix: [{}]}}]}}",
            named.display()
        );
        fixture.attach(&cgroup, "test", &spec);
        let mut process = test_client(&cgroup);
        process.fails(&format!("unix stream {}", named.display()), "EACCES");
        process.succeeds(&format!("unix stream {}", other.display()));
        process.quit();
        assert_eq!(
            (denied.received(), free.received()),
            (None, Some(MARKER.to_vec()))
        );
        assert_eq!(
            events(&fixture),
            expected(&[("lsm_unix_connect", "blocked", "docker", &named)])
        );
        let status = fixture.status();
        assert_eq!(
            (status.total("test", "blocked"), status.total("test", "allowed")),
            (1, 0)
        );
        // A process without the policy is not affected.
        let elsewhere = TestCgroup::create();
        let mut outside = test_client(&elsewhere);
        outside.succeeds(&format!("unix stream {}", named.display()));
        outside.quit();
        assert_eq!(denied.received(), Some(MARKER.to_vec()));
    });
}

/// A relative path, a symbolic link, another mount of the directory, a hard link.
#[test]
fn every_path_of_a_socket() {
    with_lsm("every_path_of_a_socket", |fixture, cgroup| {
        let dir = at(&fixture, "a/b");
        fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("x.sock");
        // The rule may name the path through a symbolic link, and before the socket exists.
        symlink("a/b", at(&fixture, "linked-dir")).expect("a link");
        let spec = format!(
            "{{default: allow, rules: [{{name: x, action: block, unix: [{}]}}]}}",
            at(&fixture, "linked-dir/x.sock").display()
        );
        fixture.attach(&cgroup, "test", &spec);
        let listener = Listener::at(&path);
        symlink("a/b/x.sock", at(&fixture, "link.sock")).expect("a link");
        fs::hard_link(&path, at(&fixture, "hard.sock")).expect("a hard link");
        let mounted = at(&fixture, "mounted");
        fs::create_dir(&mounted).expect("a directory");
        let nothing: Option<&str> = None;
        nix::mount::mount(
            Some(&dir),
            &mounted,
            nothing,
            nix::mount::MsFlags::MS_BIND,
            nothing,
        )
        .expect("a mount");
        let mut process = test_client(&cgroup);
        for name in [
            path.clone(),
            at(&fixture, "link.sock"),
            at(&fixture, "hard.sock"),
            mounted.join("x.sock"),
        ] {
            process.fails(&format!("unix stream {}", name.display()), "EPERM");
        }
        process.succeeds(&format!("chdir {}", dir.display()));
        process.fails("unix stream x.sock", "EPERM");
        process.fails("unix stream ./../b/x.sock", "EPERM");
        process.quit();
        assert_eq!(listener.received(), None);
        nix::mount::umount(&mounted).expect("a mount");
        assert_eq!(events(&fixture).len(), 6);
        // Another socket at the same path, in a recreated directory, matches the same rule.
        drop(listener);
        fs::remove_dir_all(&dir).expect("a directory");
        fs::create_dir_all(&dir).expect("a directory");
        let listener = Listener::at(&path);
        let mut process = test_client(&cgroup);
        process.fails(&format!("unix stream {}", path.display()), "EPERM");
        process.quit();
        assert_eq!(listener.received(), None);
    });
}

/// Maximum number of components of a path in a rule.
const MOST_PARTS: usize = 24;

/// A path of maximum depth, and one that another socket is mounted on.
#[test]
fn long_and_overmounted_paths() {
    with_lsm("long_and_overmounted_paths", |fixture, cgroup| {
        let parts = fixture.dir().path().components().count() - 1;
        let dirs = MOST_PARTS - parts - 1;
        let dir = at(&fixture, &"d/".repeat(dirs));
        fs::create_dir_all(&dir).expect("directories");
        let (deep, below) = (dir.join("s"), dir.join("e").join("s"));
        fs::create_dir(dir.join("e")).expect("a directory");
        let (one, two) = (Listener::at(&deep), Listener::at(&below));
        let (real, covered) = (at(&fixture, "real.sock"), at(&fixture, "covered.sock"));
        let three = Listener::at(&real);
        fs::write(&covered, "").expect("a file");
        let nothing: Option<&str> = None;
        nix::mount::mount(
            Some(&real),
            &covered,
            nothing,
            nix::mount::MsFlags::MS_BIND,
            nothing,
        )
        .expect("a mount");
        let spec = |path: &Path| {
            format!(
                "{{default: allow, rules: [{{name: x, action: block, unix: [{}, {}]}}]}}",
                path.display(),
                covered.display()
            )
        };
        let file = fixture.policy("test", &spec(&below));
        let args = ["attach", "--policy", &file, "--cgroup", &cgroup.cgroup_path()];
        fixture.run_fails(3, &["at most 24 components"], args);
        fixture.attach(&cgroup, "test", &spec(&deep));
        let mut process = test_client(&cgroup);
        process.fails(&format!("unix stream {}", deep.display()), "EPERM");
        process.fails(&format!("unix stream {}", covered.display()), "EPERM");
        process.fails(&format!("unix stream {}", real.display()), "EPERM");
        process.succeeds(&format!("unix stream {}", below.display()));
        process.quit();
        nix::mount::umount(&covered).expect("a mount");
        assert_eq!((one.received(), three.received()), (None, None));
        assert_eq!(two.received(), Some(MARKER.to_vec()));
    });
}

/// Unconnected and connected datagrams, and seqpacket.
#[test]
fn every_socket_type() {
    with_lsm("every_socket_type", |fixture, cgroup| {
        let [denied, free, packet] = ["denied", "free", "packet"].map(|name| at(&fixture, name));
        let (one, two, three) = (datagrams(&denied), datagrams(&free), packets(&packet));
        let spec = |action: &str| {
            format!(
                "{{default: allow, deduplicate: {{audit: off}}, rules: [{{name: all, action: {action}, unix: [{}, {}]}}]}}",
                denied.display(),
                packet.display()
            )
        };
        fixture.attach(&cgroup, "test", &spec("block"));
        let mut process = test_client(&cgroup);
        for kind in ["datagram", "connected-datagram"] {
            process.fails(&format!("unix {kind} {}", denied.display()), "EPERM");
            process.succeeds(&format!("unix {kind} {}", free.display()));
            assert_eq!(
                (received(&one), received(&two)),
                (None, Some(MARKER.to_vec())),
                "{kind}"
            );
        }
        process.fails(&format!("unix seqpacket {}", packet.display()), "EPERM");
        assert_eq!(received_packet(&three), None);
        assert_eq!(
            events(&fixture),
            expected(&[
                ("lsm_unix_send", "blocked", "all", &denied),
                ("lsm_unix_send", "blocked", "all", &denied),
                ("lsm_unix_connect", "blocked", "all", &packet),
            ])
        );
        // In audit everything arrives. A connected datagram socket has two events: the connect and the datagram.
        fixture.apply("test", &spec("audit"));
        process.succeeds(&format!("unix datagram {}", denied.display()));
        process.succeeds(&format!("unix connected-datagram {}", denied.display()));
        process.succeeds(&format!("unix seqpacket {}", packet.display()));
        process.quit();
        assert_eq!(
            (received(&one), received(&one)),
            (Some(MARKER.to_vec()), Some(MARKER.to_vec()))
        );
        assert_eq!(received_packet(&three), Some(MARKER.to_vec()));
        assert_eq!(
            events(&fixture),
            expected(&[
                ("lsm_unix_send", "audited", "all", &denied),
                ("lsm_unix_send", "audited", "all", &denied),
                ("lsm_unix_send", "audited", "all", &denied),
                ("lsm_unix_connect", "audited", "all", &packet),
            ])
        );
    });
}

/// Abstract names, and the order of rules for one socket.
#[test]
fn abstract_names_and_rule_order() {
    with_lsm("abstract_names_and_rule_order", |fixture, cgroup| {
        let path = at(&fixture, "notify");
        let (notify, x, y) = (
            Listener::at(&path),
            Listener::named("tidegate-x"),
            Listener::named("tidegate-xy"),
        );
        let spec = format!(
            "{{default: allow, errno: ECONNREFUSED, rules: [\
             {{name: notify, action: allow, unix: [{}]}}, {{name: x, action: audit, unix: ['@tidegate-x']}}, \
             {{name: rest, action: block, unix: any}}]}}",
            path.display()
        );
        fixture.attach(&cgroup, "test", &spec);
        let mut process = test_client(&cgroup);
        process.succeeds(&format!("unix stream {}", path.display()));
        process.succeeds("unix stream @tidegate-x");
        process.fails("unix stream @tidegate-xy", "ECONNREFUSED");
        // A socket pair has no name and is not checked.
        process.succeeds("pair");
        process.quit();
        assert_eq!(
            (notify.received(), x.received()),
            (Some(MARKER.to_vec()), Some(MARKER.to_vec()))
        );
        assert_eq!(y.received(), None);
        assert_eq!(
            events(&fixture),
            expected(&[
                ("lsm_unix_connect", "audited", "x", Path::new("@tidegate-x")),
                ("lsm_unix_connect", "blocked", "rest", Path::new("@tidegate-xy")),
            ])
        );
        assert_eq!(fixture.status().total("test", "allowed"), 1);
    });
}

/// The process dies before its next instruction, and the peer receives nothing.
#[test]
fn kill_at_connect() {
    with_lsm("kill_at_connect", |fixture, cgroup| {
        let path = at(&fixture, "x.sock");
        let listener = Listener::at(&path);
        let spec = format!(
            "{{default: allow, rules: [{{name: x, action: kill, unix: [{}]}}]}}",
            path.display()
        );
        fixture.attach(&cgroup, "test", &spec);
        let mut process = test_client(&cgroup);
        process.start_step(&format!("unix stream {}", path.display()));
        assert_eq!(process.finish().signal(), Some(9));
        assert_eq!(listener.received(), None);
        assert_eq!(
            events(&fixture),
            expected(&[("lsm_unix_connect", "killed", "x", &path)])
        );
    });
}

/// The programs are attached before the first version that names a socket is active, and detached with the last one.
#[test]
fn attached_only_while_needed() {
    with_lsm("attached_only_while_needed", |fixture, cgroup| {
        let path = at(&fixture, "x.sock");
        let listener = Listener::at(&path);
        let hooks = |fixture: &AttachFixture| {
            let status = fixture.status();
            let hooks = status.policy("test")["attachments"][0]["hooks"]
                .as_array()
                .cloned();
            let hooks = hooks.unwrap_or_default().into_iter();
            let unix = hooks.filter(|hook| {
                let name = hook["hook"].as_str().unwrap_or_default();
                name.starts_with("lsm_unix") && hook["state"] == "attached"
            });
            unix.count()
        };
        fixture.attach(&cgroup, "test", "{default: allow}");
        assert_eq!(hooks(&fixture), 0);
        let spec = format!(
            "{{default: allow, rules: [{{name: x, action: block, unix: [{}]}}]}}",
            path.display()
        );
        let step = format!("unix stream {}", path.display());
        let mut process = test_client(&cgroup);
        process.succeeds(&step);
        let output = fixture.apply("test", &spec);
        assert!(output.contains("unix sockets"), "{output}");
        assert_eq!(hooks(&fixture), 2);
        process.fails(&step, "EPERM");
        fixture.apply("test", "{default: allow}");
        assert_eq!(hooks(&fixture), 0);
        process.succeeds(&step);
        process.quit();
        assert_eq!(
            (listener.received(), listener.received(), listener.received()),
            (Some(MARKER.to_vec()), Some(MARKER.to_vec()), None)
        );
    });
}

/// `exec` checks unix sockets too.
#[test]
fn exec_command() {
    with_lsm("exec_command", |fixture, _| {
        let path = at(&fixture, "x.sock");
        let listener = Listener::at(&path);
        let spec = format!(
            "{{default: allow, errno: EACCES, rules: [{{name: x, action: block, unix: [{}]}}]}}",
            path.display()
        );
        let file = fixture.policy("sandbox", &spec);
        let script = format!(
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{}')",
            path.display()
        );
        let output = fixture.run(["exec", "--policy", &file, "--", "python3", "-c", &script]);
        output.expect_code(1);
        assert!(output.stderr.contains("PermissionError"), "{}", output.stderr);
        assert!(
            output.stderr.contains(&format!("unix:{}", path.display())),
            "{}",
            output.stderr
        );
        assert_eq!(listener.received(), None);
    });
}
