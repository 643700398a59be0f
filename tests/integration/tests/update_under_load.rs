//! A policy is replaced repeatedly and its mode is switched, while four threads connect and send over both address
//! families: every verdict is that of the old or the new version, and events have the generation that decided.
//!
//! Uses the library instead of the binary, so that the updates are as fast as possible.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    fmt::Write,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    sync::Mutex,
};

use integration::{
    cgroup::TestCgroup,
    egress_method::Family,
    exec::{enter, policy},
    load::CallCount,
    mount_table::mount_of,
    namespace::Namespace,
    requirement::{Need, met},
    running_command::RunningCommand,
    shared_dir::tmpfs_dir,
    test_client::TestClient,
};
use jiff::Timestamp;
use tidegate_core::{
    cgroup::{CgroupHandle, Hierarchy},
    control::{Actor, AttachRequest, Control, Invocation},
    datapath::EventRing,
    events::{Event, Record, Target, decode},
    instance::Instance,
    policy::{LoadContext, Policy, PolicyDefinition, load_text},
};

/// How often the policy is replaced, unless `TIDEGATE_TEST_REPLACEMENTS` is set.
const REPLACEMENTS: u64 = 10_000;
/// How often its mode is switched.
const MODE_SWITCHES: u64 = 400;

/// State and pin directories are process-wide: one test at a time.
static ONE: Mutex<()> = Mutex::new(());

/// The state and pin directories of this test.
struct InstanceDirs {
    run: tempfile::TempDir,
    pins: PathBuf,
}

impl InstanceDirs {
    fn create() -> InstanceDirs {
        let bpffs = mount_of("bpf").unwrap_or_else(|| {
            let mounted = Command::new("mount")
                .args(["-t", "bpf", "bpf", "/sys/fs/bpf"])
                .status();
            assert!(mounted.unwrap().success());
            "/sys/fs/bpf".into()
        });
        let dirs = InstanceDirs {
            run: tmpfs_dir(),
            pins: bpffs.join(format!("tidegate-change-{}", std::process::id())),
        };
        std::fs::create_dir(&dirs.pins).unwrap();
        dirs
    }

    fn invocation(&self) -> Invocation {
        Invocation {
            instance: Instance {
                bpffs: Some(self.pins.clone()),
                run_dir: self.run.path().join("run"),
                state_dir: self.run.path().join("state"),
                ..Instance::default()
            },
            actor: Actor {
                uid: 0,
                sudo_user: None,
            },
            command: "update_under_load".into(),
            now: Timestamp::now,
        }
    }
}

impl Drop for InstanceDirs {
    fn drop(&mut self) {
        if let Ok(Some(control)) = Control::open(&self.invocation(), Hierarchy::find().unwrap(), |_| {}) {
            let _ = control.detach_all();
        }
        let _ = std::fs::remove_dir_all(&self.pins);
    }
}

/// Two versions with opposite verdicts for two destinations, equal verdicts for two others, and different errnos. The
/// second one has several pages of addresses.
struct Versions {
    destinations: [[SocketAddr; 4]; 2],
    policies: [Policy; 2],
}

const ERRNO: [&str; 2] = ["EACCES", "EHOSTUNREACH"];
/// Index of the destination that both versions allow.
const ALWAYS: usize = 2;
/// Index of the destination that neither version allows.
const NEVER: usize = 3;

impl Versions {
    fn create() -> Versions {
        let destinations = [Family::V4, Family::V6].map(|family| {
            let port = |address, port| SocketAddr::new(address, port);
            [
                port(Namespace::near(family), 9),
                port(Namespace::far(family), 9),
                port(Namespace::elsewhere(family), 9),
                port(Namespace::elsewhere(family), 10),
            ]
        });
        let list = |of: usize| {
            format!(
                "\"{}\", \"{}\"",
                destinations[0][of].ip(),
                destinations[1][of].ip()
            )
        };
        let mut feed = String::new();
        for i in 0..700u32 {
            write!(feed, "10.{}.{}.0/25, ", i >> 8, i & 255).unwrap();
        }
        let version = |of: usize, feed: &str| {
            let spec = format!(
                "{{default: block, errno: {}, rules: [\
                 {{name: own, action: allow, to: [{}], ports: [9]}}, \
                 {{name: always, action: allow, to: [{}], ports: [9]}}, \
                 {{name: feed, action: block, to: [{feed} 192.0.2.1]}}]}}",
                ERRNO[of],
                list(of),
                list(ALWAYS)
            );
            let text = policy("change", &spec);
            let loaded = load_text(
                "change.yaml",
                &text,
                "".as_ref(),
                &LoadContext::from_system(&[], []),
            );
            loaded
                .policy
                .unwrap_or_else(|| panic!("{:?}", loaded.diagnostics))
        };
        Versions {
            destinations,
            policies: [version(0, ""), version(1, &feed)],
        }
    }

    fn all(&self) -> Vec<SocketAddr> {
        self.destinations.as_flattened().to_vec()
    }

    /// The index of a destination, 0 to 3.
    fn index_of(&self, destination: SocketAddr) -> usize {
        let of = |destinations: &[SocketAddr; 4]| {
            destinations
                .iter()
                .position(|&candidate| candidate == destination)
        };
        self.destinations.iter().find_map(of).unwrap()
    }
}

struct Load(RunningCommand);

impl Load {
    fn start(cgroup: &TestCgroup, destinations: &[SocketAddr]) -> Load {
        let destinations: Vec<String> = destinations.iter().map(SocketAddr::to_string).collect();
        let destinations: Vec<&str> = destinations.iter().map(String::as_str).collect();
        let args = TestClient::at(env!("CARGO_BIN_EXE_test-client")).task("load", &destinations);
        // The load uses all CPUs: leave time for the updates.
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).args(&args).stdin(Stdio::piped());
        enter(&mut command, cgroup);
        let load = RunningCommand::spawn(&mut command);
        load.wait_for_stdout("ready");
        Load(load)
    }

    fn stop(self) -> Vec<CallCount> {
        let output = self.0.finish();
        output.expect_code(0);
        CallCount::read(&output.stdout)
    }
}

fn attached(dirs: &InstanceDirs, cgroup: &TestCgroup, policy: &Policy) -> Control {
    let hierarchy = Hierarchy::find().unwrap();
    let request = AttachRequest {
        policy: policy.clone(),
        name: "change".into(),
        source: "change.yaml".into(),
        definition: PolicyDefinition::default(),
        mode: None,
        cgroup: CgroupHandle::by_path(&hierarchy, cgroup.path()).unwrap(),
    };
    let mut control = Control::open_or_make(&dirs.invocation(), hierarchy, |_| {}).unwrap();
    control.attach(vec![request], false).unwrap();
    control
}

fn drained(ring: &mut EventRing, mut each: impl FnMut(Event)) {
    ring.drain(|record| match decode(record).unwrap() {
        Record::Attempt(event) => each(*event),
        other => panic!("{other:?}"),
    });
}

/// Checks that an event agrees with the version that decided it.
fn check_event(versions: &Versions, event: &Event, version: usize) {
    let Target::Destination { address, port, .. } = event.target else {
        panic!("{event:?}");
    };
    let index = versions.index_of(SocketAddr::new(address, port));
    assert_ne!(index, version, "this version allows it: {event:?}");
    assert_ne!(index, ALWAYS, "{event:?}");
    let errno = event.errno_name();
    if event.mode == engine_mode::ENFORCE {
        assert_eq!(errno.as_deref(), Some(ERRNO[version]), "{event:?}");
    } else {
        assert_eq!(errno, None, "{event:?}");
    }
}

mod engine_mode {
    pub(super) use tidegate_core::policy::model::Mode;
    pub(super) const ENFORCE: Mode = Mode::Enforce;
}

#[test]
fn policy_replaced_under_load() {
    if !met("policy_replaced_under_load", &[Need::Root]) {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let dirs = InstanceDirs::create();
    Namespace::run(|_| {
        let versions = Versions::create();
        let cgroup = TestCgroup::create();
        let mut control = attached(&dirs, &cgroup, &versions.policies[0]);
        let mut ring = control.events().unwrap();
        let load = Load::start(&cgroup, &versions.all());
        let mut seen = [0u64; 2];
        let wanted = std::env::var("TIDEGATE_TEST_REPLACEMENTS").ok();
        let replacements = wanted.map_or(REPLACEMENTS, |index_of| index_of.parse().unwrap());
        for generation in 2..2 + replacements {
            let next = &versions.policies[((generation + 1) % 2) as usize];
            let change = control
                .change("change", next, "change.yaml", &PolicyDefinition::default(), false)
                .unwrap();
            assert!(!change.diff.is_empty());
            assert_eq!(control.apply(change).unwrap().generation, generation);
            drained(&mut ring, |event| {
                assert!((1..=generation).contains(&event.generation), "{event:?}");
                let version = ((event.generation + 1) % 2) as usize;
                check_event(&versions, &event, version);
                seen[version] += 1;
            });
        }
        let counts = load.stop();
        assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}");
        for CallCount {
            to, result, count, ..
        } in &counts
        {
            let may_be: &[&str] = match versions.index_of(*to) {
                0 => &["ok", ERRNO[1]],
                1 => &["ok", ERRNO[0]],
                ALWAYS => &["ok"],
                _ => &ERRNO,
            };
            assert!(
                may_be.contains(&result.as_str()),
                "{to}: {result}, {count} times: {counts:?}"
            );
        }
        // Both versions gave each verdict, for both calls and both families.
        assert_eq!(counts.len(), 2 * 2 * (2 + 2 + 1 + 2), "{counts:?}");
        let attempts: u64 = counts.iter().map(|kind| kind.count).sum();
        let status = control.status().unwrap();
        assert_eq!(
            status.policies[0].totals.attempts(),
            attempts,
            "counters are exact over all versions"
        );
        drop(control);
    });
    drop(dirs);
}

#[test]
fn mode_switched_under_load() {
    if !met("mode_switched_under_load", &[Need::Root]) {
        return;
    }
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let dirs = InstanceDirs::create();
    Namespace::run(|_| {
        use engine_mode::Mode;
        let versions = Versions::create();
        let cgroup = TestCgroup::create();
        let mut control = attached(&dirs, &cgroup, &versions.policies[0]);
        let mut ring = control.events().unwrap();
        let load = Load::start(&cgroup, &versions.all());
        for index in 0..MODE_SWITCHES {
            let mode = if index % 2 == 0 {
                Mode::Audit
            } else {
                Mode::Enforce
            };
            let generation = control.set_mode("change", mode, false).unwrap().generation;
            assert_eq!(generation, index + 2);
            drained(&mut ring, |event| {
                let mode = if event.generation % 2 == 0 {
                    Mode::Audit
                } else {
                    Mode::Enforce
                };
                assert_eq!(event.mode, mode, "{event:?}");
                check_event(&versions, &event, 0);
            });
        }
        for CallCount {
            to, result, count, ..
        } in load.stop()
        {
            let may_be: &[&str] = match versions.index_of(to) {
                0 | ALWAYS => &["ok"],
                1 | NEVER => &["ok", ERRNO[0]],
                other => panic!("{other}"),
            };
            assert!(may_be.contains(&result.as_str()), "{to}: {result}, {count} times");
        }
        drop(control);
    });
    drop(dirs);
}
