//! `tidegate attach` and its kin, as a test runs them: with a journal and pins of the test's own.

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
    captured::{Captured, Ended},
    cgroup::TestCgroup,
    client_result::ClientResult,
    exec::{enter, environment, policy, tidegate},
    kernel::is_whole_machine,
    mount_table::mount_of,
    program_cache,
    report::{Event, Move, Report},
    shared_file::SharedFolder,
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Where a BPF file system is mounted by convention.
const BPFFS: &str = "/sys/fs/bpf";

/// A place where policies can stand. All of them are taken away when it is dropped; in a machine of the tests' own its gate goes to
/// the next one.
pub struct Stand {
    run: TempDir,
    pins: PathBuf,
    folder: SharedFolder,
    variables: Vec<(OsString, OsString)>,
    /// Whether a gate of others will do, and others may have this one.
    shares: bool,
    begun: Once,
}

impl Stand {
    /// Makes the folders; nothing stands yet.
    ///
    /// # Panics
    /// When there is no place for them.
    pub fn open() -> Stand {
        let bpffs = mount_of("bpf").unwrap_or_else(|| {
            let nothing: Option<&str> = None;
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), nothing).expect("a BPF file system");
            BPFFS.into()
        });
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Names with dots are not taken there.
        let pins = bpffs.join(format!("tidegate-test-{}-{number}", process::id()));
        let run = tempfile::Builder::new()
            .prefix("tidegate-run-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir();
        let stand = Stand {
            run: run.expect("temporary folder"),
            pins,
            folder: SharedFolder::create(),
            variables: Vec::new(),
            shares: true,
            begun: Once::new(),
        };
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&stand.pins)
            .expect("a folder for pins");
        stand
    }

    /// Sets an environment variable for every tidegate. Before the first command.
    #[must_use]
    pub fn variable(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Stand {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Gates are made as variables say: a text that is the same where these are.
    fn kind(&self) -> String {
        let said = |(name, value): &(OsString, OsString)| format!("{}={} ", name.display(), value.display());
        self.variables.iter().map(said).collect()
    }

    /// With a gate that no other stand has had or will have: it is going to be damaged, or looked at.
    #[must_use]
    pub fn of_its_own(mut self) -> Stand {
        self.shares = false;
        self
    }

    /// The journal's folder.
    pub fn journal(&self) -> &Path {
        self.run.path()
    }

    /// The folder that pins are below.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// A folder for the test's files.
    pub fn folder(&self) -> &SharedFolder {
        &self.folder
    }

    /// `tidegate` with any words.
    pub fn command<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Command {
        self.begun.call_once(|| {
            if self.shares {
                program_cache::take(&self.pins, &self.kind());
            }
        });
        let mut command = tidegate(words);
        command
            .env("TIDEGATE_RUN", self.run.path())
            .env("TIDEGATE_BPFFS", &self.pins)
            .envs(environment(&self.variables));
        command
    }

    /// Runs it.
    ///
    /// # Panics
    /// When it does not start or end.
    pub fn run<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Ended {
        Captured::run(&mut self.command(words))
    }

    /// Runs it, and expects that it succeeds; returns what it printed.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn done<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> String {
        let ended = self.run(words);
        ended.expect_code(0);
        ended.stdout
    }

    /// Runs it, and expects that it ends with this code and says all of this on standard error.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn refused<W: AsRef<OsStr>>(&self, code: i32, said: &[&str], words: impl IntoIterator<Item = W>) {
        let ended = self.run(words);
        ended.expect_code(code);
        for text in said {
            assert!(ended.stderr.contains(text), "no `{text}` in\n{}", ended.stderr);
        }
    }

    /// Writes a policy of this name; `spec` is a mapping of YAML in braces. Returns its file.
    pub fn policy(&self, name: &str, spec: &str) -> String {
        let file = self.folder.write(&format!("{name}.yaml"), &policy(name, spec));
        file.display().to_string()
    }

    /// Writes a policy and attaches it.
    ///
    /// # Panics
    /// When it cannot be attached.
    #[track_caller]
    pub fn attach(&self, cgroup: &TestCgroup, name: &str, spec: &str) {
        let file = self.policy(name, spec);
        self.done(["attach", "--policy", &file, "--cgroup", &cgroup.spelled()]);
    }

    /// Writes another version of a policy and applies it.
    ///
    /// # Panics
    /// When it cannot be applied.
    #[track_caller]
    pub fn apply(&self, name: &str, spec: &str) -> String {
        let file = self.policy(name, spec);
        self.done(["policy", "apply", "-f", &file])
    }

    /// What `status --output json` says, whatever its exit code.
    ///
    /// # Panics
    /// When it says nothing.
    #[track_caller]
    pub fn status(&self) -> Status {
        let ended = self.run(["status", "--output", "json"]);
        let said = serde_json::from_str(&ended.stdout);
        Status(said.unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr)))
    }

    /// Events that nobody has read yet.
    ///
    /// # Panics
    /// When they cannot be read, or some were lost.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        let (events, gaps) = Report::stream(&self.done(["events", "--output", "json"]));
        assert!(gaps.is_empty(), "lost: {gaps:?}");
        events
    }

    /// Moves that nobody has read yet, and nothing else is there to read.
    ///
    /// # Panics
    /// When they cannot be read, or something else is there.
    #[track_caller]
    pub fn moves(&self) -> Vec<Move> {
        Report::moves(&self.done(["events", "--output", "json"]))
    }

    /// Sends a test client out from a cgroup, and expects it to come home and tell.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn run_client(&self, cgroup: &TestCgroup, words: &[OsString]) -> ClientResult {
        let ended = in_cgroup(cgroup, words);
        ended.expect_code(0);
        let told = ClientResult::read(&ended.stdout).pop();
        told.unwrap_or_else(|| panic!("the test client told nothing: {}{}", ended.stdout, ended.stderr))
    }
}

impl Stand {
    /// Leaves the gate to the next stand, in the state of a new one. Whether that could be done.
    fn hand_on(&self) -> bool {
        if !self.shares || std::thread::panicking() || !is_whole_machine() {
            return false;
        }
        let read = || {
            let ended = self.command(["status", "--output", "json"]).output().ok()?;
            serde_json::from_slice(&ended.stdout).ok().map(Status)
        };
        let succeeds = |words: &[&str]| {
            let ended = self.command(words).output();
            ended.is_ok_and(|ended| ended.status.success())
        };
        let Some(status) = read() else { return false };
        if !status.names().into_iter().all(|name| succeeds(&["detach", name])) {
            return false;
        }
        // What was lost, and what nobody has read, would be the next one's. Repeats are counted on: what a test folds is
        // a difference.
        let is_new = |status: Status| {
            let none = |of: &str| status.0[of] == 0;
            let unknown = status.0["unknown_cgroups"]
                .as_array()
                .is_some_and(|all| all.is_empty());
            status.names().is_empty() && unknown && none("events_lost")
        };
        succeeds(&["events", "--output", "json"])
            && read().is_some_and(is_new)
            && program_cache::give(&self.pins, &self.kind())
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        if self.hand_on() {
            let _ = fs::remove_dir_all(&self.pins);
            return;
        }
        // What fails here is left for whoever looks; the test's own result stands.
        let _ = self.command(["detach", "--all"]).output();
        let _ = fs::remove_dir_all(&self.pins);
    }
}

/// Runs a command in a cgroup.
///
/// # Panics
/// When it does not start or end.
pub fn in_cgroup(cgroup: &TestCgroup, words: &[OsString]) -> Ended {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    enter(&mut command, cgroup);
    Captured::run(&mut command)
}

/// What `status --output json` said.
#[derive(Clone, Debug)]
pub struct Status(pub Value);

impl Status {
    /// Names of the policies.
    pub fn names(&self) -> Vec<&str> {
        self.policies()
            .iter()
            .filter_map(|policy| policy["name"].as_str())
            .collect()
    }

    /// The policy of this name.
    ///
    /// # Panics
    /// When none has it.
    #[track_caller]
    pub fn policy(&self, name: &str) -> &Value {
        let found = self.policies().iter().find(|policy| policy["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {:#}", self.0))
    }

    /// A number among its totals.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn total(&self, name: &str, of: &str) -> u64 {
        let totals = &self.policy(name)["totals"];
        totals[of]
            .as_u64()
            .unwrap_or_else(|| panic!("no {of} in {totals:#}"))
    }

    /// States of the places where it stands.
    #[track_caller]
    pub fn states(&self, name: &str) -> Vec<&str> {
        let places = self.policy(name)["attachments"].as_array();
        let places = places.map_or(&[][..], Vec::as_slice);
        places
            .iter()
            .filter_map(|place| place["state"].as_str())
            .collect()
    }

    /// A number about all of them.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn number(&self, of: &str) -> u64 {
        self.0[of]
            .as_u64()
            .unwrap_or_else(|| panic!("no {of} in {:#}", self.0))
    }

    fn policies(&self) -> &[Value] {
        self.0["policies"].as_array().map_or(&[], Vec::as_slice)
    }
}
