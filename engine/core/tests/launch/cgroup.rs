//! The transient cgroup: the processes in it, and its removal.

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use tidegate_core::cgroup::Hierarchy;
use tidegate_core::launch::{Command, SignalSource, TransientCgroup, TransientError, sweep_stale};

use crate::{
    Test,
    run::{Running, shell, supervisor},
    test_cgroup,
};

pub(crate) const TESTS: &[Test] = &[
    ("cgroup::id_and_level", id_and_level),
    (
        "cgroup::holds_the_command_from_its_first_instruction",
        holds_from_the_start,
    ),
    ("cgroup::is_removed_afterwards", is_removed_afterwards),
    ("cgroup::is_removed_after_sigterm", is_removed_after_sigterm),
    ("cgroup::stays_when_the_supervisor_is_killed", stays_when_killed),
    ("cgroup::one_inside_another", one_inside_another),
    ("cgroup::nested_ones_are_removed", nested_ones_are_removed),
    ("cgroup::kill_ends_everything", kill_ends_everything),
    ("cgroup::populated_is_not_removed", populated_is_not_removed),
    ("cgroup::owned_ones_are_not_swept", owned_ones_are_not_swept),
];

fn id_and_level() {
    let hierarchy = Hierarchy::find().unwrap();
    let cgroup = TransientCgroup::create(&hierarchy).unwrap();
    assert_eq!(cgroup.id(), fs::metadata(cgroup.path()).unwrap().ino());
    let depth = cgroup
        .path()
        .strip_prefix(hierarchy.mount_point())
        .unwrap()
        .components()
        .count();
    if let Some(level) = cgroup.level() {
        assert_eq!(level as usize, depth);
    }
    assert!(!cgroup.populated().unwrap());
    let second = TransientCgroup::create(&hierarchy).unwrap();
    assert_ne!(second.path(), cgroup.path());
    let path = second.path().to_path_buf();
    drop(second);
    assert!(!path.exists());
    cgroup.remove().unwrap();
}

fn holds_from_the_start() {
    // The cgroup of the command and that of a grandchild.
    let finished = shell(&[], "cat /proc/$$/cgroup; (cat /proc/self/cgroup)");
    let cgroup = finished.cgroup();
    let name = cgroup.file_name().unwrap().to_str().unwrap();
    let lines: Vec<&str> = finished
        .output
        .lines()
        .filter(|line| line.starts_with("0::"))
        .collect();
    assert_eq!(lines.len(), 2, "{finished:?}");
    assert!(lines.iter().all(|line| line.ends_with(name)), "{finished:?}");
}

fn is_removed_afterwards() {
    let finished = shell(&[], "true");
    assert!(!finished.cgroup().exists());
    assert_eq!(finished.reported("orphans"), "None");
    assert_eq!(
        test_cgroup::transients(&test_cgroup::path()),
        Vec::<PathBuf>::new()
    );
}

fn is_removed_after_sigterm() {
    let mut running = Running::start(supervisor(&[], &["sh", "-c", "echo ready; exec sleep 1000"]));
    assert_eq!(running.line(), "ready");
    running.signal(Signal::SIGTERM);
    let finished = running.finish();
    assert_eq!(finished.code, 128 + 15, "{finished:?}");
    assert!(!finished.cgroup().exists());
}

fn stays_when_killed() {
    let script = "echo ready; read x; cat /proc/self/cgroup";
    let mut running = Running::start(supervisor(&[], &["sh", "-c", script]));
    assert_eq!(running.line(), "ready");
    let cgroup = PathBuf::from(running.reported("cgroup"));
    running.signal(Signal::SIGKILL);
    running.wait();
    let hierarchy = Hierarchy::find().unwrap();
    // It has no owner, but a process is in it.
    assert_eq!(sweep_stale(&hierarchy).unwrap(), 0);
    assert!(cgroup.exists());
    running.write_input("\n");
    let mut rest = String::new();
    running.output.read_to_string(&mut rest).unwrap();
    let name = cgroup.file_name().unwrap().to_str().unwrap();
    assert!(rest.trim_end().ends_with(name), "{rest}");
    wait_empty(&cgroup);
    assert_eq!(sweep_stale(&hierarchy).unwrap(), 1);
    assert!(!cgroup.exists());
}

fn one_inside_another() {
    let inner = supervisor(&["--user", "nobody"], &["cat", "/proc/self/cgroup"]);
    let mut outer = supervisor(
        &["--keep-capability", "all"],
        &[inner.get_program().to_str().unwrap()],
    );
    outer.args(inner.get_args());
    let finished = crate::run::finish(outer);
    assert_eq!(finished.code, 0, "{finished:?}");
    let cgroups: Vec<&str> = finished
        .errors
        .lines()
        .filter_map(|line| line.strip_prefix("cgroup: "))
        .collect();
    let [outer, inner] = cgroups[..] else {
        panic!("{finished:?}")
    };
    assert_eq!(Path::new(inner).parent(), Some(Path::new(outer)));
    let names: Vec<&str> = inner.rsplit('/').take(2).collect();
    assert!(
        finished
            .output
            .trim_end()
            .ends_with(&format!("{}/{}", names[1], names[0])),
        "{finished:?}"
    );
    assert!(!Path::new(outer).exists());
}

fn nested_ones_are_removed() {
    // The cgroups are writable only with all capabilities kept.
    let script = "c=$(sed -n 's/^0:://p' /proc/self/cgroup); d=$(ls -d \"$PARENT\"/${c##*/}); \
                  mkdir -p $d/a/b $d/c && echo $$ > $d/a/b/cgroup.procs && cat /proc/self/cgroup";
    let parent = format!("PARENT={}", test_cgroup::path().display());
    let finished = shell(&["--keep-capability", "all", "--set", &parent], script);
    assert_eq!(finished.code, 0, "{finished:?}");
    assert!(finished.output.trim_end().ends_with("/a/b"), "{finished:?}");
    assert!(!finished.cgroup().exists());
}

fn kill_ends_everything() {
    for kill in [TransientCgroup::kill, TransientCgroup::freeze_and_kill] {
        let signals = SignalSource::open().unwrap();
        let cgroup = TransientCgroup::create(&Hierarchy::find().unwrap()).unwrap();
        let (read, write) = nix::unistd::pipe().unwrap();
        let mut command = Command::new("sh", std::env::vars_os().collect());
        // A process that ignores signals, with a child in a nested cgroup.
        let script = format!(
            "mkdir {0}/n; trap '' TERM INT HUP; sleep 1000 & echo $! > {0}/n/cgroup.procs; \
             echo ready > /proc/self/fd/{1}; wait",
            cgroup.path().display(),
            std::os::fd::AsRawFd::as_raw_fd(&write)
        );
        command.args = vec!["-c".into(), script.into()];
        command.keep_capabilities = "all".parse().unwrap();
        command.keep_fds = tidegate_core::launch::KeepFds::All;
        let child = command.spawn(cgroup.fd(), &signals).unwrap();
        drop(write);
        let mut ready = [0; 6];
        fs::File::from(read).read_exact(&mut ready).unwrap();
        assert!(cgroup.populated().unwrap());
        kill(&cgroup).unwrap();
        assert!(!cgroup.populated().unwrap());
        let path = cgroup.path().to_path_buf();
        cgroup.remove().unwrap();
        assert!(!path.exists());
        let pid = nix::unistd::Pid::from_raw(child.pid());
        let ended = nix::sys::wait::waitpid(pid, None).unwrap();
        assert!(
            matches!(ended, nix::sys::wait::WaitStatus::Signaled(_, Signal::SIGKILL, _)),
            "{ended:?}"
        );
    }
}

fn populated_is_not_removed() {
    let mut running = Running::start(supervisor(&[], &["sh", "-c", "echo ready; read x"]));
    assert_eq!(running.line(), "ready");
    let hierarchy = Hierarchy::find().unwrap();
    let cgroup = TransientCgroup::create(&hierarchy).unwrap();
    let pid = running.reported("pid");
    fs::write(cgroup.path().join("cgroup.procs"), &pid).unwrap();
    assert!(cgroup.populated().unwrap());
    assert!(!cgroup.wait_empty(Duration::from_millis(1)).unwrap());
    let path = cgroup.path().to_path_buf();
    let error = cgroup.remove().unwrap_err();
    assert!(matches!(error, TransientError::Remove { .. }), "{error}");
    assert!(path.exists());
    running.write_input("\n");
    assert_eq!(running.wait(), 0);
    wait_empty(&path);
    fs::remove_dir(&path).unwrap();
}

fn owned_ones_are_not_swept() {
    let hierarchy = Hierarchy::find().unwrap();
    let owned = TransientCgroup::create(&hierarchy).unwrap();
    let stale = test_cgroup::path().join("tidegate-exec-1-77");
    let other = test_cgroup::path().join("tidegate-exec-by-hand");
    fs::create_dir_all(stale.join("nested")).unwrap();
    fs::create_dir(&other).unwrap();
    assert_eq!(sweep_stale(&hierarchy).unwrap(), 1);
    assert!(!stale.exists());
    assert!(other.exists());
    assert!(owned.path().exists());
    fs::remove_dir(other).unwrap();
}

/// Waits until a cgroup without an owner is empty.
pub(crate) fn wait_empty(cgroup: &Path) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    loop {
        let mut events = fs::File::open(cgroup.join("cgroup.events")).unwrap();
        let mut text = String::new();
        events.read_to_string(&mut text).unwrap();
        if text.contains("populated 0") {
            return;
        }
        poll(
            &mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)],
            PollTimeout::NONE,
        )
        .unwrap();
    }
}
