//! The fixture of tests that attach policies: `tidegate` with directories of its own for the journal, the desired state
//! and the pins.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::mount::{MsFlags, mount};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    cgroup::TestCgroup,
    client_result::ClientResult,
    exec::{enter, environment, policy, tidegate},
    kernel::is_dedicated_machine,
    mount_table::mount_of,
    program_cache,
    report::{CgroupMigration, Event, Report},
    running_command::{CommandOutput, RunningCommand},
    shared_dir::SharedDir,
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// The conventional mount point of the BPF file system.
const BPFFS: &str = "/sys/fs/bpf";

/// The directories of one instance. Dropping it detaches all policies. On a dedicated machine the loaded programs
/// are then kept for the next fixture (see `program_cache`).
pub struct AttachFixture {
    run: TempDir,
    state: TempDir,
    pins: PathBuf,
    dir: SharedDir,
    variables: Vec<(OsString, OsString)>,
    /// Whether it may use programs of an earlier fixture, and leave its own to a later one.
    shares_programs: bool,
    first_command: Once,
}

impl AttachFixture {
    /// Creates the directories. No policy is attached yet.
    ///
    /// # Panics
    /// When they cannot be created.
    pub fn open() -> AttachFixture {
        let bpffs = mount_of("bpf").unwrap_or_else(|| {
            let nothing: Option<&str> = None;
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), nothing).expect("a BPF file system");
            BPFFS.into()
        });
        let index = COUNT.fetch_add(1, Ordering::Relaxed);
        // The BPF file system refuses names with dots.
        let pins = bpffs.join(format!("tidegate-test-{}-{index}", process::id()));
        let temporary = |prefix: &str| {
            let directory = tempfile::Builder::new()
                .prefix(prefix)
                .permissions(fs::Permissions::from_mode(0o700))
                .tempdir();
            directory.expect("temporary directory")
        };
        let fixture = AttachFixture {
            run: temporary("tidegate-run-"),
            state: temporary("tidegate-state-"),
            pins,
            dir: SharedDir::create(),
            variables: Vec::new(),
            shares_programs: true,
            first_command: Once::new(),
        };
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&fixture.pins)
            .expect("a directory for pins");
        fixture
    }

    /// Sets an environment variable for every command. Call it before the first command.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> AttachFixture {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Key of the loaded programs: they depend on the environment variables.
    fn variant(&self) -> String {
        let format =
            |(name, value): &(OsString, OsString)| format!("{}={} ", name.display(), value.display());
        self.variables.iter().map(format).collect()
    }

    /// Loads its own programs, and does not leave them to another fixture: for tests that damage or inspect them.
    #[must_use]
    pub fn with_own_programs(mut self) -> AttachFixture {
        self.shares_programs = false;
        self
    }

    /// The run directory, which contains the journal.
    pub fn journal(&self) -> &Path {
        self.run.path()
    }

    /// The directory of the desired state. `tidegate` creates it.
    pub fn state(&self) -> PathBuf {
        self.state.path().join("state")
    }

    /// The directory of all pins.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// A directory for the test's files.
    pub fn dir(&self) -> &SharedDir {
        &self.dir
    }

    /// A `tidegate` command with these arguments.
    pub fn command<W: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = W>) -> Command {
        self.first_command.call_once(|| {
            if self.shares_programs {
                program_cache::take(&self.pins, &self.variant());
            }
        });
        let mut command = tidegate(args);
        command
            .env("TIDEGATE_RUN", self.run.path())
            .env("TIDEGATE_STATE", self.state())
            .env("TIDEGATE_BPFFS", &self.pins)
            .envs(environment(&self.variables));
        command
    }

    /// Runs a `tidegate` command.
    ///
    /// # Panics
    /// When it does not start, or does not end in time.
    pub fn run<W: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = W>) -> CommandOutput {
        RunningCommand::run(&mut self.command(args))
    }

    /// Runs a command that must succeed, and returns its standard output.
    ///
    /// # Panics
    /// When its exit code is not 0.
    #[track_caller]
    pub fn run_ok<W: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = W>) -> String {
        let output = self.run(args);
        output.expect_code(0);
        output.stdout
    }

    /// Runs a command that must fail with this exit code and with each of these texts on standard error.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn run_fails<W: AsRef<OsStr>>(
        &self,
        code: i32,
        messages: &[&str],
        args: impl IntoIterator<Item = W>,
    ) {
        let output = self.run(args);
        output.expect_code(code);
        for text in messages {
            assert!(output.stderr.contains(text), "no `{text}` in\n{}", output.stderr);
        }
    }

    /// Writes a policy with this name and returns its path; `spec` is a YAML flow mapping.
    pub fn policy(&self, name: &str, spec: &str) -> String {
        let file = self.dir.write(&format!("{name}.yaml"), &policy(name, spec));
        file.display().to_string()
    }

    /// Writes a policy and attaches it.
    ///
    /// # Panics
    /// When it cannot be attached.
    #[track_caller]
    pub fn attach(&self, cgroup: &TestCgroup, name: &str, spec: &str) {
        let file = self.policy(name, spec);
        self.run_ok(["attach", "--policy", &file, "--cgroup", &cgroup.cgroup_path()]);
    }

    /// Writes another version of a policy, applies it, and returns the standard output.
    ///
    /// # Panics
    /// When it cannot be applied.
    #[track_caller]
    pub fn apply(&self, name: &str, spec: &str) -> String {
        let file = self.policy(name, spec);
        self.run_ok(["apply", "-f", &file])
    }

    /// The document of `status --output json`, whatever the exit code.
    ///
    /// # Panics
    /// When it is not JSON.
    #[track_caller]
    pub fn status(&self) -> Status {
        let output = self.run(["status", "--output", "json"]);
        let document = serde_json::from_str(&output.stdout);
        Status(document.unwrap_or_else(|error| panic!("{error}: {}{}", output.stdout, output.stderr)))
    }

    /// Reads the unread events.
    ///
    /// # Panics
    /// When they cannot be read, or events were lost.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        let (events, lost) = Report::stream(&self.run_ok(["events", "--output", "json"]));
        assert!(lost.is_empty(), "lost: {lost:?}");
        events
    }

    /// Reads the unread events, which must all be cgroup migrations.
    ///
    /// # Panics
    /// When they cannot be read, or one is not a cgroup migration.
    #[track_caller]
    pub fn migrations(&self) -> Vec<CgroupMigration> {
        Report::migrations(&self.run_ok(["events", "--output", "json"]))
    }

    /// Runs a test client in a cgroup and returns its result.
    ///
    /// # Panics
    /// When it reports none.
    #[track_caller]
    pub fn run_client(&self, cgroup: &TestCgroup, args: &[OsString]) -> ClientResult {
        let output = in_cgroup(cgroup, args);
        output.expect_code(0);
        let result = ClientResult::read(&output.stdout).pop();
        result.unwrap_or_else(|| panic!("no result of the test client: {}{}", output.stdout, output.stderr))
    }
}

impl AttachFixture {
    /// Returns the loaded programs to the cache if they are in the state of new ones; whether it did.
    fn return_to_cache(&self) -> bool {
        if !self.shares_programs || std::thread::panicking() || !is_dedicated_machine() {
            return false;
        }
        let read = || {
            let output = self.command(["status", "--output", "json"]).output().ok()?;
            serde_json::from_slice(&output.stdout).ok().map(Status)
        };
        let succeeds = |args: &[&str]| {
            let output = self.command(args).output();
            output.is_ok_and(|output| output.status.success())
        };
        let Some(status) = read() else { return false };
        if !status.names().into_iter().all(|name| succeeds(&["detach", name])) {
            return false;
        }
        // The next fixture must not see lost or unread events. The counters of suppressed duplicates are not reset:
        // tests compare differences.
        let is_new = |status: Status| {
            let none = |of: &str| status.0[of] == 0;
            let unknown = status.0["unknown_cgroups"]
                .as_array()
                .is_some_and(|all| all.is_empty());
            status.names().is_empty() && unknown && none("events_lost")
        };
        succeeds(&["events", "--output", "json"])
            && read().is_some_and(is_new)
            && program_cache::put(&self.pins, &self.variant())
    }
}

impl Drop for AttachFixture {
    fn drop(&mut self) {
        if self.return_to_cache() {
            let _ = fs::remove_dir_all(&self.pins);
            return;
        }
        // Best effort: a failed cleanup does not change the result of the test.
        let _ = self.command(["detach", "--all"]).output();
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// Runs a command in a cgroup.
///
/// # Panics
/// When it does not start, or does not end in time.
pub fn in_cgroup(cgroup: &TestCgroup, args: &[OsString]) -> CommandOutput {
    let mut command = Command::new(&args[0]);
    command.args(&args[1..]);
    enter(&mut command, cgroup);
    RunningCommand::run(&mut command)
}

/// The document of `status --output json`.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    /// The names of the attached policies.
    pub fn names(&self) -> Vec<&str> {
        self.policies()
            .iter()
            .filter_map(|policy| policy["name"].as_str())
            .collect()
    }

    /// The entry of a policy.
    ///
    /// # Panics
    /// When there is none with this name.
    #[track_caller]
    pub fn policy(&self, name: &str) -> &Value {
        let found = self.policies().iter().find(|policy| policy["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {:#}", self.0))
    }

    /// One of the total counters of a policy.
    ///
    /// # Panics
    /// When there is no such counter.
    #[track_caller]
    pub fn total(&self, name: &str, of: &str) -> u64 {
        let totals = &self.policy(name)["totals"];
        totals[of]
            .as_u64()
            .unwrap_or_else(|| panic!("no {of} in {totals:#}"))
    }

    /// The states of the attachments of a policy.
    #[track_caller]
    pub fn states(&self, name: &str) -> Vec<&str> {
        let attachments = self.policy(name)["attachments"].as_array();
        let attachments = attachments.map_or(&[][..], Vec::as_slice);
        attachments
            .iter()
            .filter_map(|attachment| attachment["state"].as_str())
            .collect()
    }

    /// A counter for all policies together.
    ///
    /// # Panics
    /// When there is no such counter.
    #[track_caller]
    pub fn counter(&self, of: &str) -> u64 {
        self.0[of]
            .as_u64()
            .unwrap_or_else(|| panic!("no {of} in {:#}", self.0))
    }

    fn policies(&self) -> &[Value] {
        self.0["policies"].as_array().map_or(&[], Vec::as_slice)
    }
}
