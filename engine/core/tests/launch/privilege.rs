//! Restrictions of the command: users, capabilities, descriptors, mounts.

use std::{
    fs,
    os::{
        fd::{AsRawFd, RawFd},
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    process::Command,
};

use tidegate_core::launch::DANGEROUS;

use crate::{
    Test,
    run::{Finished, finish, shell, supervisor},
    test_cgroup,
};

pub(crate) const TESTS: &[Test] = &[
    ("privilege::user_is_switched", user_is_switched),
    ("privilege::sudo_caller_is_the_user", sudo_caller_is_the_user),
    (
        "privilege::broken_sudo_variables_are_refused",
        broken_sudo_variables_are_refused,
    ),
    ("privilege::capabilities_are_dropped", capabilities_are_dropped),
    (
        "privilege::setuid_programs_do_not_give_them_back",
        setuid_programs_do_not_give_them_back,
    ),
    (
        "privilege::capabilities_are_kept_on_request",
        capabilities_are_kept_on_request,
    ),
    ("privilege::frozen_without_setpcap", frozen_without_setpcap),
    ("privilege::descriptors_are_closed", descriptors_are_closed),
    ("privilege::cgroups_are_read_only", cgroups_are_read_only),
    (
        "privilege::fresh_cgroup_mount_shows_only_itself",
        fresh_cgroup_mount_shows_only_itself,
    ),
    (
        "privilege::every_cgroup_mount_is_read_only",
        every_cgroup_mount_is_read_only,
    ),
    (
        "privilege::pinned_programs_are_covered",
        pinned_programs_are_covered,
    ),
    (
        "privilege::working_directory_in_bpffs_is_refused",
        working_directory_in_bpffs_is_refused,
    ),
    (
        "privilege::mounts_outside_are_untouched",
        mounts_outside_are_untouched,
    ),
];

const NOBODY: u32 = 65534;

fn user_is_switched() {
    let finished = shell(
        &["--user", "nobody"],
        "id -u; id -g; id -G; echo $USER $LOGNAME $HOME; umask",
    );
    let umask = String::from_utf8(Command::new("sh").args(["-c", "umask"]).output().unwrap().stdout).unwrap();
    let entry = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    assert_eq!(
        finished.output,
        format!(
            "{0}\n{1}\n{1}\nnobody nobody {2}\n{umask}",
            entry.uid,
            entry.gid,
            entry.dir.display()
        ),
        "{finished:?}"
    );
    let finished = shell(
        &["--user", "4242:4343"],
        "id -u; id -g; id -G; grep Groups /proc/self/status",
    );
    assert_eq!(
        finished.output, "4242\n4343\n4343\nGroups:\t4343 \n",
        "{finished:?}"
    );
}

fn sudo_caller_is_the_user() {
    let mut command = supervisor(
        &[],
        &[
            "sh",
            "-c",
            "id -u; id -g; echo ${SUDO_UID-none} ${SUDO_USER-none}",
        ],
    );
    command
        .env("SUDO_UID", NOBODY.to_string())
        .env("SUDO_GID", "65534")
        .env("SUDO_USER", "nobody");
    let finished = finish(command);
    assert_eq!(finished.output, "65534\n65534\nnone none\n", "{finished:?}");
}

fn broken_sudo_variables_are_refused() {
    for (uid, gid) in [("-1", "0"), ("4294967295", "0"), ("1000", ""), ("x", "0")] {
        let mut command = supervisor(&[], &["echo", "ran"]);
        command.env("SUDO_UID", uid).env("SUDO_GID", gid);
        let finished = finish(command);
        assert_eq!((finished.code, &*finished.output), (125, ""), "{finished:?}");
        assert!(
            finished.errors.contains("name the user with --user"),
            "{finished:?}"
        );
    }
}

const STATUS: &[&str] = &["cat", "/proc/self/status"];

fn set(finished: &Finished, key: &str) -> u64 {
    u64::from_str_radix(&finished.status_line(key), 16).unwrap()
}

fn dangerous() -> u64 {
    DANGEROUS
        .iter()
        .fold(0, |bits, (capability, _)| bits | capability.bits())
}

fn capabilities_are_dropped() {
    let as_root = finish(supervisor(&[], STATUS));
    for key in ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(set(&as_root, key) & dangerous(), 0, "{key} {as_root:?}");
    }
    // The other capabilities are kept.
    assert_ne!(set(&as_root, "CapEff") & 1, 0);
    let as_nobody = finish(supervisor(&["--user", "nobody"], STATUS));
    assert_eq!(set(&as_nobody, "CapBnd") & dangerous(), 0);
    for key in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(set(&as_nobody, key), 0, "{key}");
    }
    // Inheritable and ambient ones are removed too.
    let own = supervisor(&["--user", "nobody"], STATUS);
    let mut ambient = Command::new("setpriv");
    ambient
        .args([
            "--inh-caps=+chown,+net_raw",
            "--ambient-caps=+chown,+net_raw",
            "--",
        ])
        .arg(own.get_program())
        .args(own.get_args());
    let finished = finish(ambient);
    for key in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(set(&finished, key), 0, "{key} {finished:?}");
    }
}

/// A copy of cat that is setuid root.
fn setuid_programs_do_not_give_them_back() {
    let directory = test_cgroup::directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("cat");
    fs::copy("/bin/cat", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o4755)).unwrap();
    let finished = finish(supervisor(
        &["--user", "nobody"],
        &[program.to_str().unwrap(), "/proc/self/status"],
    ));
    // It is root again, without them.
    assert_eq!(
        finished.status_line("Uid").split('\t').nth(1),
        Some("0"),
        "{finished:?}"
    );
    assert_ne!(set(&finished, "CapEff"), 0);
    assert_eq!(set(&finished, "CapEff") & dangerous(), 0);
}

fn capabilities_are_kept_on_request() {
    let finished = finish(supervisor(&["--keep-capability", "net_raw,CAP_BPF"], STATUS));
    let kept = 1 << 13 | 1 << 39;
    assert_eq!(set(&finished, "CapEff") & dangerous(), kept);
    assert_eq!(set(&finished, "CapBnd") & dangerous(), kept);
    let finished = finish(supervisor(&["--keep-capability", "all"], STATUS));
    let plain = fs::read_to_string("/proc/self/status").unwrap();
    assert!(plain.contains(&format!("CapEff:\t{}", finished.status_line("CapEff"))));
    let finished = finish(supervisor(&["--keep-capability", "net_row"], STATUS));
    assert_eq!(finished.code, 125);
    assert!(
        finished.errors.contains("`net_row` is not a capability"),
        "{finished:?}"
    );
}

fn frozen_without_setpcap() {
    let own = supervisor(&[], STATUS);
    let mut weak = Command::new("setpriv");
    weak.args(["--bounding-set=-setpcap", "--"])
        .arg(own.get_program())
        .args(own.get_args());
    let finished = finish(weak);
    assert_eq!(finished.status_line("NoNewPrivs"), "1", "{finished:?}");
    assert_eq!(set(&finished, "CapEff") & dangerous(), 0);
    assert_eq!(finish(supervisor(&[], STATUS)).status_line("NoNewPrivs"), "0");
}

/// Lists the descriptors a shell has when `command` runs it with 8 and 9 open.
fn descriptors(mut command: Command) -> Vec<RawFd> {
    let file = fs::File::open("/dev/null").unwrap();
    let fd: RawFd = file.as_raw_fd();
    command.args([
        "sh",
        "-c",
        "cd /proc/self/fd; for n in *; do if test -e $n; then echo $n; fi; done",
    ]);
    // SAFETY: dup2 is a system call on two integers; the copies are open across exec.
    unsafe {
        command.pre_exec(move || {
            for target in [8, 9] {
                nix::errno::Errno::result(libc::dup2(fd, target))?;
            }
            Ok(())
        });
    }
    let finished = finish(command);
    assert_eq!(finished.code, 0, "{finished:?}");
    let mut open: Vec<RawFd> = finished
        .output
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    open.sort_unstable();
    open
}

fn descriptors_are_closed() {
    let under = |options: &[&str]| descriptors(supervisor(options, &[]));
    // `env` keeps its descriptors: those that a command gets without a supervisor.
    let plain = descriptors(Command::new("env"));
    assert!(plain.contains(&8) && plain.contains(&9), "{plain:?}");
    assert_eq!(under(&[]), [0, 1, 2]);
    assert_eq!(under(&["--keep-fds", "9"]), [0, 1, 2, 9]);
    // All inherited descriptors, and none opened by the supervisor.
    assert_eq!(under(&["--keep-fds", "all"]), plain);
}

fn cgroups_are_read_only() {
    let parent = test_cgroup::path();
    let attempts = format!(
        "echo $$ > {0}/cgroup.procs; mkdir {0}/x; mount -o remount,bind,rw {1}; umount {1}; \
         echo $$ > {0}/cgroup.procs; cat /proc/$$/cgroup",
        parent.display(),
        tidegate_core::cgroup::Hierarchy::find()
            .unwrap()
            .mount_point()
            .display()
    );
    // Directly, and as root of a new user namespace.
    for script in [attempts.clone(), format!("unshare -Urm sh -c '{attempts}'")] {
        // In a mount namespace: a failing test must not change the mounts of the host.
        let finished = in_namespace("true", &[], &script);
        let cgroup = finished.cgroup();
        let name = cgroup.file_name().unwrap().to_str().unwrap();
        let lines: Vec<&str> = finished
            .output
            .lines()
            .filter(|line| line.starts_with("0::"))
            .collect();
        assert_eq!(lines.len(), 1, "{finished:?}");
        assert!(lines[0].ends_with(name), "{finished:?}");
        // Other cgroups are not visible.
        assert!(
            finished.errors.to_lowercase().contains("no such file")
                || finished.errors.contains("nonexistent"),
            "{finished:?}"
        );
        assert!(!parent.join("x").exists());
    }
}

/// Root of a new user and cgroup namespace may mount the hierarchy, but sees only its own cgroup.
fn fresh_cgroup_mount_shows_only_itself() {
    let directory = test_cgroup::directory();
    let place = directory.path().display();
    let script = format!(
        "unshare -UrmC sh -ec 'mount -t cgroup2 none {place}; mkdir {place}/inner; ls -d {place}/tidegate-*' || ls {place}; \
         cat /proc/self/cgroup"
    );
    let finished = in_namespace("true", &[], &script);
    let cgroup = finished.cgroup();
    let name = cgroup.file_name().unwrap().to_str().unwrap();
    assert!(finished.output.trim_end().ends_with(name), "{finished:?}");
    assert!(finished.errors.contains("cannot access"), "{finished:?}");
    assert!(!test_cgroup::path().join("inner").exists());
    assert!(!cgroup.exists());
}

/// Runs the supervisor in a new mount namespace after the shell commands `mounts`.
fn in_namespace(mounts: &str, options: &[&str], script: &str) -> Finished {
    let own = supervisor(options, &["sh", "-c", script]);
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-ec", &format!("{mounts}; exec \"$@\""), "sh"])
        .arg(own.get_program())
        .args(own.get_args());
    finish(command)
}

fn every_cgroup_mount_is_read_only() {
    let directory = test_cgroup::directory();
    let place = directory.path().join("a second");
    fs::create_dir(&place).unwrap();
    let mounts = format!("mount -t cgroup2 none '{}'", place.display());
    let parent = test_cgroup::path();
    let below = parent
        .strip_prefix(tidegate_core::cgroup::Hierarchy::find().unwrap().mount_point())
        .unwrap()
        .to_path_buf();
    let script = format!("mkdir '{}/y' && echo made", place.join(below).display());
    let finished = in_namespace(&mounts, &[], &script);
    assert!(!finished.output.contains("made"), "{finished:?}");
    assert!(finished.errors.contains("No such file"), "{finished:?}");
    assert!(!parent.join("y").exists());
    // Without isolation it is possible: the test can fail.
    let finished = in_namespace(&mounts, &["--isolation", "off"], &script);
    assert_eq!(finished.output, "made\n", "{finished:?}");
    fs::remove_dir(parent.join("y")).unwrap();
}

fn pinned_programs_are_covered() {
    let directory = test_cgroup::directory();
    let place = directory.path().display();
    let mounts = format!("mount -t bpf none {place}; mkdir {place}/pins");
    let script = format!("ls {place}; rmdir {place}/pins; umount {place}; ls {place}; mkdir {place}/z");
    let finished = in_namespace(&mounts, &[], &script);
    assert_eq!(finished.output, "", "{finished:?}");
    assert_ne!(finished.code, 0);
    let finished = in_namespace(
        &mounts,
        &["--keep-capability", "sys_admin"],
        &format!("ls {place}"),
    );
    assert!(finished.output.contains("pins\n"), "{finished:?}");
}

fn working_directory_in_bpffs_is_refused() {
    let directory = test_cgroup::directory();
    let place = directory.path().display();
    let mounts = format!("mount -t bpf none {place}; cd {place}");
    let finished = in_namespace(&mounts, &[], "echo ran");
    assert_eq!((finished.code, &*finished.output), (125, ""), "{finished:?}");
    assert!(
        finished.errors.contains("start it from another directory"),
        "{finished:?}"
    );
}

fn mounts_outside_are_untouched() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(shell(&[], "true").code, 0);
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}
