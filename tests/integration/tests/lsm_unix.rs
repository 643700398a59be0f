//! Unix sockets: judged by rules that name them, by LSM programs, wherever and whatever the process calls them.

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
    attached::Stand,
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

fn with_lsm(test: &str, act: impl Fn(Stand, TestCgroup) + Send + Sync) {
    let needs = [Need::Root, Need::Kernel(has_lsm(), "LSM programs do not run")];
    if met(test, &needs) {
        Namespace::run(|_| act(Stand::open(), TestCgroup::create()));
    }
}

fn test_client(cgroup: &TestCgroup) -> ScriptedClient {
    ScriptedClient::start(&TestClient::at(env!("CARGO_BIN_EXE_test-client")), cgroup)
}

/// Whoever listens somewhere.
struct Listener(UnixListener);

impl Listener {
    fn at(path: &Path) -> Listener {
        Listener(UnixListener::bind(path).expect("a socket"))
    }

    fn named(name: &str) -> Listener {
        let address = SocketAddr::from_abstract_name(name).expect("a name");
        Listener(UnixListener::bind_addr(&address).expect("a socket"))
    }

    /// What one who has come, and is gone, has said; `None` where nobody has come.
    fn heard(&self) -> Option<Vec<u8>> {
        self.0.set_nonblocking(true).expect("a listener");
        let (mut stream, _) = self.0.accept().ok()?;
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("its words");
        Some(said)
    }
}

/// The same for sockets that take datagrams.
fn datagrams(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    socket
}

fn heard(socket: &UnixDatagram) -> Option<Vec<u8>> {
    let mut bytes = [0; 64];
    let length = socket.recv(&mut bytes).ok()?;
    Some(bytes[..length].to_vec())
}

fn packets(path: &Path) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let own = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    bind(own.as_raw_fd(), &UnixAddr::new(path).expect("a path")).expect("a place");
    listen(&own, Backlog::new(4).expect("a number")).expect("a listener");
    own
}

fn heard_packet(listener: &OwnedFd) -> Option<Vec<u8>> {
    let accepted = accept(listener.as_raw_fd()).ok()?;
    let mut bytes = [0; 64];
    let length = recv(accepted, &mut bytes, nix::sys::socket::MsgFlags::empty()).expect("its words");
    nix::unistd::close(accepted).expect("a socket");
    Some(bytes[..length].to_vec())
}

/// A folder of the test's own, and a path in it.
fn at(stand: &Stand, name: &str) -> PathBuf {
    stand.folder().path().join(name)
}

/// (hook, outcome, rule, socket) of each event.
fn told(stand: &Stand) -> Vec<(String, String, String, String)> {
    let told = stand.events().into_iter();
    let told = told.map(|event| {
        assert_eq!((event.protocol.as_str(), event.destination), ("unix", None));
        (
            event.hook,
            event.outcome,
            event.rule.expect("a rule"),
            event.unix.expect("a name"),
        )
    });
    told.collect()
}

fn expected(rows: &[(&str, &str, &str, &Path)]) -> Vec<(String, String, String, String)> {
    let rows = rows.iter().map(|(hook, outcome, rule, path)| {
        let [hook, outcome, rule] = [hook, outcome, rule].map(|&word| word.to_owned());
        (hook, outcome, rule, path.display().to_string())
    });
    rows.collect()
}

/// One rule names a socket: all others, and every socket where none does, are nobody's business, also where the default
/// blocks.
#[test]
fn only_sockets_named_by_a_rule() {
    with_lsm("only_sockets_named_by_a_rule", |stand, cgroup| {
        let (named, other) = (at(&stand, "docker.sock"), at(&stand, "other.sock"));
        let (denied, free) = (Listener::at(&named), Listener::at(&other));
        let spec = format!(
            "{{default: block, errno: EACCES, rules: [{{name: docker, action: block, unix: [{}]}}]}}",
            named.display()
        );
        stand.attach(&cgroup, "gate", &spec);
        let mut process = test_client(&cgroup);
        process.fails(&format!("unix stream {}", named.display()), "EACCES");
        process.succeeds(&format!("unix stream {}", other.display()));
        process.goes_home();
        assert_eq!((denied.heard(), free.heard()), (None, Some(MARKER.to_vec())));
        assert_eq!(
            told(&stand),
            expected(&[("lsm_unix_connect", "blocked", "docker", &named)])
        );
        let status = stand.status();
        assert_eq!(
            (status.total("gate", "blocked"), status.total("gate", "allowed")),
            (1, 0)
        );
        // Who is not under the policy goes where he likes.
        let elsewhere = TestCgroup::create();
        let mut outside = test_client(&elsewhere);
        outside.succeeds(&format!("unix stream {}", named.display()));
        outside.goes_home();
        assert_eq!(denied.heard(), Some(MARKER.to_vec()));
    });
}

/// Whatever it is called: a relative path, a symbolic link, another mount of its folder, a hard link.
#[test]
fn every_path_of_a_socket() {
    with_lsm("every_path_of_a_socket", |stand, cgroup| {
        let folder = at(&stand, "a/b");
        fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("x.sock");
        // The rule may come by a link to the folder, too, and before the socket is there.
        symlink("a/b", at(&stand, "way")).expect("a link");
        let spec = format!(
            "{{default: allow, rules: [{{name: x, action: block, unix: [{}]}}]}}",
            at(&stand, "way/x.sock").display()
        );
        stand.attach(&cgroup, "gate", &spec);
        let listener = Listener::at(&path);
        symlink("a/b/x.sock", at(&stand, "link.sock")).expect("a link");
        fs::hard_link(&path, at(&stand, "hard.sock")).expect("a hard link");
        let mounted = at(&stand, "mounted");
        fs::create_dir(&mounted).expect("a folder");
        let nothing: Option<&str> = None;
        nix::mount::mount(
            Some(&folder),
            &mounted,
            nothing,
            nix::mount::MsFlags::MS_BIND,
            nothing,
        )
        .expect("a mount");
        let mut process = test_client(&cgroup);
        for name in [
            path.clone(),
            at(&stand, "link.sock"),
            at(&stand, "hard.sock"),
            mounted.join("x.sock"),
        ] {
            process.fails(&format!("unix stream {}", name.display()), "EPERM");
        }
        process.succeeds(&format!("enter {}", folder.display()));
        process.fails("unix stream x.sock", "EPERM");
        process.fails("unix stream ./../b/x.sock", "EPERM");
        process.goes_home();
        assert_eq!(listener.heard(), None);
        nix::mount::umount(&mounted).expect("a mount");
        assert_eq!(told(&stand).len(), 6);
        // Another socket takes its place, in a folder that is made anew: the same rule.
        drop(listener);
        fs::remove_dir_all(&folder).expect("a folder");
        fs::create_dir_all(&folder).expect("a folder");
        let listener = Listener::at(&path);
        let mut process = test_client(&cgroup);
        process.fails(&format!("unix stream {}", path.display()), "EPERM");
        process.goes_home();
        assert_eq!(listener.heard(), None);
    });
}

/// Parts that the path of a socket may have.
const MOST_PARTS: usize = 24;

/// A path as long as can be, and one that another socket is mounted on.
#[test]
fn long_and_overmounted_paths() {
    with_lsm("long_and_overmounted_paths", |stand, cgroup| {
        let parts = stand.folder().path().components().count() - 1;
        let folders = MOST_PARTS - parts - 1;
        let folder = at(&stand, &"d/".repeat(folders));
        fs::create_dir_all(&folder).expect("folders");
        let (deep, below) = (folder.join("s"), folder.join("e").join("s"));
        fs::create_dir(folder.join("e")).expect("a folder");
        let (one, two) = (Listener::at(&deep), Listener::at(&below));
        let (real, covered) = (at(&stand, "real.sock"), at(&stand, "covered.sock"));
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
        let file = stand.policy("gate", &spec(&below));
        let words = ["attach", "--policy", &file, "--cgroup", &cgroup.spelled()];
        stand.refused(3, &["at most 24 parts"], words);
        stand.attach(&cgroup, "gate", &spec(&deep));
        let mut process = test_client(&cgroup);
        process.fails(&format!("unix stream {}", deep.display()), "EPERM");
        process.fails(&format!("unix stream {}", covered.display()), "EPERM");
        process.fails(&format!("unix stream {}", real.display()), "EPERM");
        process.succeeds(&format!("unix stream {}", below.display()));
        process.goes_home();
        nix::mount::umount(&covered).expect("a mount");
        assert_eq!((one.heard(), three.heard()), (None, None));
        assert_eq!(two.heard(), Some(MARKER.to_vec()));
    });
}

/// Datagrams one by one, connected ones too, and packets in order.
#[test]
fn every_socket_type() {
    with_lsm("every_socket_type", |stand, cgroup| {
        let [denied, free, packet] = ["denied", "free", "packet"].map(|name| at(&stand, name));
        let (one, two, three) = (datagrams(&denied), datagrams(&free), packets(&packet));
        let spec = |action: &str| {
            format!(
                "{{default: allow, fold: {{audit: off}}, rules: [{{name: all, action: {action}, unix: [{}, {}]}}]}}",
                denied.display(),
                packet.display()
            )
        };
        stand.attach(&cgroup, "gate", &spec("block"));
        let mut process = test_client(&cgroup);
        for kind in ["datagram", "connected-datagram"] {
            process.fails(&format!("unix {kind} {}", denied.display()), "EPERM");
            process.succeeds(&format!("unix {kind} {}", free.display()));
            assert_eq!(
                (heard(&one), heard(&two)),
                (None, Some(MARKER.to_vec())),
                "{kind}"
            );
        }
        process.fails(&format!("unix seqpacket {}", packet.display()), "EPERM");
        assert_eq!(heard_packet(&three), None);
        assert_eq!(
            told(&stand),
            expected(&[
                ("lsm_unix_send", "blocked", "all", &denied),
                ("lsm_unix_send", "blocked", "all", &denied),
                ("lsm_unix_connect", "blocked", "all", &packet),
            ])
        );
        // Audited, everything arrives; of a connected datagram socket both are told: the connect and the datagram.
        stand.apply("gate", &spec("audit"));
        process.succeeds(&format!("unix datagram {}", denied.display()));
        process.succeeds(&format!("unix connected-datagram {}", denied.display()));
        process.succeeds(&format!("unix seqpacket {}", packet.display()));
        process.goes_home();
        assert_eq!(
            (heard(&one), heard(&one)),
            (Some(MARKER.to_vec()), Some(MARKER.to_vec()))
        );
        assert_eq!(heard_packet(&three), Some(MARKER.to_vec()));
        assert_eq!(
            told(&stand),
            expected(&[
                ("lsm_unix_send", "audited", "all", &denied),
                ("lsm_unix_send", "audited", "all", &denied),
                ("lsm_unix_send", "audited", "all", &denied),
                ("lsm_unix_connect", "audited", "all", &packet),
            ])
        );
    });
}

/// Abstract names, and the first rule that names a socket.
#[test]
fn abstract_names_and_rule_order() {
    with_lsm("abstract_names_and_rule_order", |stand, cgroup| {
        let path = at(&stand, "notify");
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
        stand.attach(&cgroup, "gate", &spec);
        let mut process = test_client(&cgroup);
        process.succeeds(&format!("unix stream {}", path.display()));
        process.succeeds("unix stream @tidegate-x");
        process.fails("unix stream @tidegate-xy", "ECONNREFUSED");
        // The other end of a pair has no name, and is nobody else.
        process.succeeds("pair");
        process.goes_home();
        assert_eq!(
            (notify.heard(), x.heard()),
            (Some(MARKER.to_vec()), Some(MARKER.to_vec()))
        );
        assert_eq!(y.heard(), None);
        assert_eq!(
            told(&stand),
            expected(&[
                ("lsm_unix_connect", "audited", "x", Path::new("@tidegate-x")),
                ("lsm_unix_connect", "blocked", "rest", Path::new("@tidegate-xy")),
            ])
        );
        assert_eq!(stand.status().total("gate", "allowed"), 1);
    });
}

/// Dead before its next instruction, and the peer has heard nothing.
#[test]
fn kill_at_connect() {
    with_lsm("kill_at_connect", |stand, cgroup| {
        let path = at(&stand, "x.sock");
        let listener = Listener::at(&path);
        let spec = format!(
            "{{default: allow, rules: [{{name: x, action: kill, unix: [{}]}}]}}",
            path.display()
        );
        stand.attach(&cgroup, "gate", &spec);
        let mut process = test_client(&cgroup);
        process.attempts(&format!("unix stream {}", path.display()));
        assert_eq!(process.finish().signal(), Some(9));
        assert_eq!(listener.heard(), None);
        assert_eq!(
            told(&stand),
            expected(&[("lsm_unix_connect", "killed", "x", &path)])
        );
    });
}

/// The programs are attached for the first version that names a socket, before it is live, and go with the last.
#[test]
fn attached_only_while_needed() {
    with_lsm("attached_only_while_needed", |stand, cgroup| {
        let path = at(&stand, "x.sock");
        let listener = Listener::at(&path);
        let hooks = |stand: &Stand| {
            let status = stand.status();
            let hooks = status.policy("gate")["attachments"][0]["hooks"]
                .as_array()
                .cloned();
            let hooks = hooks.unwrap_or_default().into_iter();
            let unix = hooks.filter(|hook| {
                let name = hook["hook"].as_str().unwrap_or_default();
                name.starts_with("lsm_unix") && hook["state"] == "attached"
            });
            unix.count()
        };
        stand.attach(&cgroup, "gate", "{default: allow}");
        assert_eq!(hooks(&stand), 0);
        let spec = format!(
            "{{default: allow, rules: [{{name: x, action: block, unix: [{}]}}]}}",
            path.display()
        );
        let step = format!("unix stream {}", path.display());
        let mut process = test_client(&cgroup);
        process.succeeds(&step);
        let said = stand.apply("gate", &spec);
        assert!(said.contains("unix sockets"), "{said}");
        assert_eq!(hooks(&stand), 2);
        process.fails(&step, "EPERM");
        stand.apply("gate", "{default: allow}");
        assert_eq!(hooks(&stand), 0);
        process.succeeds(&step);
        process.goes_home();
        assert_eq!(
            (listener.heard(), listener.heard(), listener.heard()),
            (Some(MARKER.to_vec()), Some(MARKER.to_vec()), None)
        );
    });
}

/// `exec` has them too.
#[test]
fn exec_command() {
    with_lsm("exec_command", |stand, _| {
        let path = at(&stand, "x.sock");
        let listener = Listener::at(&path);
        let spec = format!(
            "{{default: allow, errno: EACCES, rules: [{{name: x, action: block, unix: [{}]}}]}}",
            path.display()
        );
        let file = stand.policy("sandbox", &spec);
        let script = format!(
            "import socket; s = socket.socket(socket.AF_UNIX); s.connect('{}')",
            path.display()
        );
        let ended = stand.run(["exec", "--policy", &file, "--", "python3", "-c", &script]);
        ended.expect_code(1);
        assert!(ended.stderr.contains("PermissionError"), "{}", ended.stderr);
        assert!(
            ended.stderr.contains(&format!("unix:{}", path.display())),
            "{}",
            ended.stderr
        );
        assert_eq!(listener.heard(), None);
    });
}
