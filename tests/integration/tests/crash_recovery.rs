//! Commands that change attached policies are killed at random times, under load: afterwards the old or the new state is
//! active in the kernel, and the next command that reads the journal agrees with it.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher, Hasher},
    net::SocketAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use integration::{
    cgroup::TestCgroup,
    egress_method::Family,
    exec::{enter, policy, tidegate},
    load::CallCount,
    mount_table::mount_of,
    namespace::Namespace,
    requirement::{Need, met},
    running_command::RunningCommand,
    test_client::TestClient,
};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

/// How many commands are killed.
const KILLS: usize = 200;
/// Maximum time until a command is killed, in microseconds; some finish earlier.
const LONGEST: u64 = 25_000;

/// Random numbers with a different seed in each run; a failing test prints the seed.
struct Random(u64);

impl Random {
    fn new() -> Random {
        Random(RandomState::new().build_hasher().finish() | 1)
    }

    /// The next value (xorshift64).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The policy of the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Nothing,
    /// Version 0 or 1, in enforce mode.
    Version(usize),
    /// Version 0 or 1, in audit mode.
    Audited(usize),
}

struct CrashFixture {
    cgroup: TestCgroup,
    run: tempfile::TempDir,
    pins: PathBuf,
    files: [PathBuf; 2],
    destinations: [SocketAddr; 2],
}

const ERRNO: [&str; 2] = ["EACCES", "EHOSTUNREACH"];

impl CrashFixture {
    fn create() -> CrashFixture {
        let bpffs = mount_of("bpf").unwrap_or_else(|| {
            let mounted = Command::new("mount")
                .args(["-t", "bpf", "bpf", "/sys/fs/bpf"])
                .status();
            assert!(mounted.unwrap().success());
            "/sys/fs/bpf".into()
        });
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let index = COUNT.fetch_add(1, Ordering::Relaxed);
        let pins = bpffs.join(format!("tidegate-crash-{}-{index}", std::process::id()));
        fs::create_dir(&pins).unwrap();
        let run = tempfile::tempdir().unwrap();
        let destinations =
            [Namespace::near(Family::V4), Namespace::far(Family::V4)].map(|ip| SocketAddr::new(ip, 9));
        let files = [0, 1].map(|version| {
            let file = run.path().join(format!("version-{version}.yaml"));
            let spec = format!(
                "{{default: block, strict: {}, errno: {}, rules: [{{name: own, action: allow, to: [{}]}}]}}",
                version == 1,
                ERRNO[version],
                destinations[version].ip()
            );
            fs::write(&file, policy("crash", &spec)).unwrap();
            file
        });
        CrashFixture {
            cgroup: TestCgroup::create(),
            run,
            pins,
            files,
            destinations,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = tidegate(args);
        command
            .env("TIDEGATE_RUN", self.run.path().join("run"))
            .env("TIDEGATE_STATE", self.run.path().join("state"))
            .env("TIDEGATE_BPFFS", &self.pins);
        command
    }

    fn file(&self, version: usize) -> &str {
        self.files[version].to_str().unwrap()
    }

    /// Runs a command and kills it after `after` microseconds unless it has ended; whether it was killed.
    fn run_and_kill(&self, args: &[&str], after: u64) -> bool {
        let mut child = self
            .command(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // SAFETY: the process id of a child that has not been reaped.
        let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) };
        assert!(pidfd >= 0);
        // SAFETY: the descriptor is new and owned here.
        let pidfd = unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(pidfd as i32) };
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        ppoll(&mut fds, Some(TimeSpec::from(Duration::from_micros(after))), None).unwrap();
        let _ = child.kill();
        child.wait().unwrap().code().is_none()
    }

    /// Starts load in the cgroup, with a lower priority than the commands.
    fn load(&self) -> RunningCommand {
        let destinations = self.destinations.map(|to| to.to_string());
        let args = TestClient::at(env!("CARGO_BIN_EXE_test-client"))
            .task("load", &destinations.each_ref().map(String::as_str));
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).args(&args).stdin(Stdio::piped());
        enter(&mut command, &self.cgroup);
        let load = RunningCommand::spawn(&mut command);
        load.wait_for_stdout("ready");
        load
    }

    /// The state in the kernel, found by connecting.
    fn state_in_kernel(&self) -> State {
        let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        let results = self.destinations.map(|to| {
            let args = test_client.task("load", &[&to.to_string()]);
            let mut command = Command::new(&args[0]);
            command.args(&args[1..]).stdin(Stdio::null());
            enter(&mut command, &self.cgroup);
            let output = RunningCommand::run(&mut command);
            let mut results: Vec<String> = CallCount::read(&output.expect_code(0).stdout)
                .into_iter()
                .map(|kind| kind.result)
                .collect();
            results.dedup();
            results.concat()
        });
        match results.each_ref().map(String::as_str) {
            // In audit mode both versions let everything through, as without a policy.
            ["ok", "ok"] => State::Nothing,
            ["ok", errno] if errno == ERRNO[0] => State::Version(0),
            [errno, "ok"] if errno == ERRNO[1] => State::Version(1),
            other => panic!("neither the old state nor the new one: {other:?}"),
        }
    }

    /// The links of the attached set, whose directory is named for its ABI version.
    fn links_dir(&self) -> PathBuf {
        let own = self.pins.join("tidegate");
        let entries = fs::read_dir(&own).into_iter().flatten().flatten();
        let is_attached = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            let version = name.and_then(|name| name.strip_prefix("attached-"));
            version.is_some_and(|version| version.parse::<u32>().is_ok())
        };
        let attached = entries.map(|entry| entry.path()).find(is_attached);
        attached.unwrap_or_else(|| own.join("attached")).join("links")
    }

    /// The state in the journal after recovery; checks that the pins agree.
    fn state_in_journal(&self) -> State {
        let output = RunningCommand::run(&mut self.command(&["status", "--output", "json"]));
        assert!(
            matches!(output.code(), Some(0 | 5)),
            "{} {}",
            output.stdout,
            output.stderr
        );
        let status: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
        let policies = status["policies"].as_array().unwrap();
        let links = self.links_dir();
        let linked_cgroups = || fs::read_dir(&links).map_or(0, |entries| entries.count());
        let [policy] = policies.as_slice() else {
            assert!(policies.is_empty(), "{status:#}");
            assert_eq!(linked_cgroups(), 0, "links without a policy");
            return State::Nothing;
        };
        assert_eq!(policy["enforcement"], "full", "{status:#}");
        assert_eq!(policy["attachments"].as_array().unwrap().len(), 1, "{status:#}");
        assert_eq!(linked_cgroups(), 1);
        let version = usize::from(policy["source"].as_str().unwrap().ends_with("version-1.yaml"));
        // The second version is strict: its egress filter is attached only with it.
        let links = fs::read_dir(&links).unwrap().next().unwrap().unwrap().path();
        assert_eq!(links.join("egress").exists(), version == 1, "{status:#}");
        if policy["mode"] == "audit" {
            State::Audited(version)
        } else {
            State::Version(version)
        }
    }
}

impl Drop for CrashFixture {
    fn drop(&mut self) {
        let _ = self.command(&["detach", "--all"]).output();
        let _ = fs::remove_dir_all(&self.pins);
    }
}

fn leftovers(pins: &Path) -> Vec<PathBuf> {
    fs::read_dir(pins)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect()
}

#[test]
fn commands_killed_at_random_times() {
    if !met("commands_killed_at_random_times", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let mut random = Random::new();
        println!("seed {}", random.0);
        let setup = CrashFixture::create();
        let cgroup = setup.cgroup.path().to_str().unwrap().to_owned();
        let load = setup.load();
        let attach = |version: usize| ["attach", "--policy", setup.file(version), "--cgroup", &cgroup];
        setup.command(&attach(0)).output().unwrap();
        let mut state = State::Version(0);
        assert_eq!(
            (setup.state_in_kernel(), setup.state_in_journal()),
            (state, state)
        );
        let (mut kills, mut done) = (0, 0);
        for _ in 0..KILLS {
            let before = state;
            let (args, wanted): (Vec<&str>, State) = match (before, random.below(4)) {
                (State::Nothing, version) => (
                    attach(version as usize % 2).to_vec(),
                    State::Version(version as usize % 2),
                ),
                (State::Version(version), 0) => (vec!["set-mode", "crash", "audit"], State::Audited(version)),
                (State::Audited(version), 0 | 1) => {
                    (vec!["set-mode", "crash", "enforce"], State::Version(version))
                }
                (_, 1) => (vec!["detach", "crash"], State::Nothing),
                (State::Version(version) | State::Audited(version), _) => {
                    let file = setup.file(1 - version);
                    (vec!["apply", "-f", file], State::Version(1 - version))
                }
            };
            kills += usize::from(setup.run_and_kill(&args, random.below(LONGEST)));
            let (tried, recorded) = (setup.state_in_kernel(), setup.state_in_journal());
            assert!(
                recorded == before || recorded == wanted,
                "{before:?} {args:?}: {recorded:?}"
            );
            let agrees = match recorded {
                State::Audited(_) => State::Nothing,
                other => other,
            };
            assert_eq!(tried, agrees, "{before:?} {args:?}: {recorded:?}");
            done += usize::from(recorded == wanted);
            state = recorded;
        }
        println!("{kills} of {KILLS} commands were killed before their end, {done} had their effect");
        assert!(kills > KILLS / 4 && done > KILLS / 10, "{kills} {done}");
        // Everything can be detached after any of these kills.
        let all = RunningCommand::run(&mut setup.command(&["detach", "--all"]));
        all.expect_code(0);
        assert_eq!(
            (setup.state_in_kernel(), leftovers(&setup.pins)),
            (State::Nothing, vec![])
        );
        let output = load.finish();
        for CallCount { to, call, result, .. } in CallCount::read(&output.expect_code(0).stdout) {
            let other = usize::from(to == setup.destinations[0]);
            // The egress filter of the strict second version may drop a datagram that the first version has allowed.
            let dropped = other == 1 && call == "sendto" && result == "EPERM";
            let expected = dropped || ["ok", ERRNO[other]].contains(&result.as_str());
            assert!(expected, "{call} {to}: {result}");
        }
    });
}

/// The first command loads programs and maps, and may be killed while it does.
#[test]
fn killed_while_loading() {
    if !met("killed_while_loading", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let mut random = Random::new();
        println!("seed {}", random.0);
        let setup = CrashFixture::create();
        let cgroup = setup.cgroup.path().to_str().unwrap().to_owned();
        let attach = ["attach", "--policy", setup.file(0), "--cgroup", &cgroup];
        for _ in 0..10 {
            setup.run_and_kill(&attach, random.below(600_000));
            let tried = setup.state_in_kernel();
            assert_eq!(setup.state_in_journal(), tried);
            assert!(matches!(tried, State::Nothing | State::Version(0)), "{tried:?}");
            setup.run_and_kill(&["detach", "--all"], random.below(30_000));
            let tried = setup.state_in_kernel();
            assert_eq!(setup.state_in_journal(), tried);
        }
        RunningCommand::run(&mut setup.command(&attach)).expect_code(0);
        assert_eq!(setup.state_in_kernel(), State::Version(0));
    });
}
