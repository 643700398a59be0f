//! The privileges of the command: user, capabilities, file descriptors, and the file systems with which it could leave
//! the policy.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
};

use integration::{
    cgroup::TestCgroup,
    exec::{Exec, enter, tidegate},
    mount_table::mount_of,
    requirement::{Need, met},
    running_command::{CommandOutput, RunningCommand},
};

fn root(test: &str) -> bool {
    met(test, &[Need::Root])
}

fn exec() -> Exec {
    Exec::with("{default: allow}")
}

fn shell(exec: &Exec, script: &str) -> CommandOutput {
    exec.run(["/bin/sh", "-c", script])
}

/// The value of a line in `/proc/<pid>/status`.
fn status(output: &CommandOutput, name: &str) -> u64 {
    let line = output
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")))
        .unwrap_or_else(|| panic!("no {name} in {}{}", output.stdout, output.stderr));
    u64::from_str_radix(line.trim(), 16).unwrap()
}

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;
const CAP_SYS_MODULE: u64 = 1 << 16;
const CAP_SYS_PTRACE: u64 = 1 << 19;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_BPF: u64 = 1 << 39;

const DANGEROUS: u64 =
    CAP_NET_ADMIN | CAP_NET_RAW | CAP_SYS_MODULE | CAP_SYS_PTRACE | CAP_SYS_ADMIN | CAP_BPF;

#[test]
fn another_user() {
    if !root("another_user") {
        return;
    }
    for (user, expected) in [
        ("65534", "65534 65534"),
        ("65534:65533", "65534 65533"),
        ("root", "0 0"),
    ] {
        let output = shell(&exec().options(["--user", user]), "echo $(id -u) $(id -g)");
        assert_eq!(output.expect_code(0).stdout.trim(), expected, "--user {user}");
    }
    let output = exec().options(["--user", "no-such-user"]).run(["true"]);
    output.expect_code(2);
    assert!(output.stderr.contains("no-such-user"), "{}", output.stderr);
}

/// Under sudo the command runs as the calling user, not as root.
#[test]
fn sudo_user() {
    if !root("sudo_user") {
        return;
    }
    let exec = exec().variable("SUDO_UID", "65534").variable("SUDO_GID", "65534");
    let output = shell(&exec, "echo $(id -u) $(id -g) $(id -G); cat /proc/self/status");
    assert!(
        output.expect_code(0).stdout.starts_with("65534 65534 65534\n"),
        "{}",
        output.stdout
    );
    assert_eq!(status(&output, "CapEff"), 0, "no effective capability is left");
    assert_eq!(
        status(&output, "CapBnd") & DANGEROUS,
        0,
        "a setuid program cannot regain them"
    );
}

#[test]
fn dangerous_capabilities_are_dropped() {
    if !root("dangerous_capabilities_are_dropped") {
        return;
    }
    let output = shell(&exec(), "cat /proc/self/status");
    output.expect_code(0);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(&output, set) & DANGEROUS, 0, "{set}");
    }
}

#[test]
fn named_capabilities_are_kept() {
    if !root("named_capabilities_are_kept") {
        return;
    }
    let exec = exec().options([
        "--keep-capability",
        "CAP_NET_RAW",
        "--keep-capability",
        "net_admin",
    ]);
    let output = shell(&exec, "cat /proc/self/status");
    output.expect_code(0);
    assert_eq!(status(&output, "CapEff") & DANGEROUS, CAP_NET_RAW | CAP_NET_ADMIN);
}

/// clone3 with CLONE_INTO_CGROUP only needs the directory of another cgroup, even on a read-only mount: so no other
/// cgroup may be visible, not even a parent.
#[test]
fn command_cannot_clone_into_another_cgroup() {
    let test = "command_cannot_clone_into_another_cgroup";
    if !root(test) || !met(test, &[Need::Program("python3")]) {
        return;
    }
    let other = TestCgroup::create();
    let name = other.path().file_name().unwrap().to_str().unwrap().to_owned();
    let script = format!(
        r#"
import ctypes, os, struct
mount = "{mount}"
def into(path):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        return str(error)
    # struct clone_args with cgroup: flags CLONE_INTO_CGROUP, exit_signal SIGCHLD (include/uapi/linux/sched.h)
    args = ctypes.create_string_buffer(struct.pack("11Q", 1 << 33, 0, 0, 0, 17, 0, 0, 0, 0, 0, fd))
    pid = ctypes.CDLL(None, use_errno=True).syscall(435, args, 88)
    if pid == 0:
        print("inside", open("/proc/self/cgroup").read(), flush=True)
        os._exit(0)
    if pid > 0:
        os.waitpid(pid, 0)
    return pid
for path in ["{other}", mount, mount + "/..", mount + "/../..", mount + "/{other}"]:
    print(path, into(path), flush=True)
"#,
        mount = mount_of("cgroup2").unwrap().display(),
        other = other.path().display(),
    );
    let escaped = |output: &str| {
        let lines = output.lines().filter(|line| line.contains("0::"));
        lines.filter(|line| line.ends_with(&name)).count()
    };
    // Without `exec` it works, so the test can fail.
    let plain = RunningCommand::run(std::process::Command::new("python3").args(["-c", &script]));
    assert!(escaped(&plain.expect_code(0).stdout) > 0, "{}", plain.stdout);
    for user in ["root", "65534"] {
        // As the user of a delegated subtree.
        std::os::unix::fs::chown(other.path(), Some(65534), Some(65534)).unwrap();
        std::os::unix::fs::chown(other.procs_file(), Some(65534), Some(65534)).unwrap();
        let output = exec().options(["--user", user]).run(["python3", "-c", &script]);
        let output = &output.expect_code(0).stdout;
        assert_eq!(escaped(output), 0, "{output}");
        assert!(
            !output
                .lines()
                .any(|line| line.contains("0::") && !line.contains("tidegate-exec-")),
            "{output}"
        );
    }
}

/// Without CAP_SYS_ADMIN the cgroup file system is read-only: the command cannot migrate itself.
#[test]
fn command_cannot_leave_its_cgroup() {
    if !root("command_cannot_leave_its_cgroup") {
        return;
    }
    let procs_file = mount_of("cgroup2").unwrap().join("cgroup.procs");
    let script = format!(
        "before=$(cat /proc/self/cgroup); echo $$ >{}; echo status $?; \
         [ \"$before\" = \"$(cat /proc/self/cgroup)\" ] && echo same",
        procs_file.display()
    );
    let exec = exec();
    let output = shell(&exec, &script);
    assert!(output.expect_code(0).stdout.contains("same"), "{}", output.stdout);
    assert!(!output.stdout.contains("status 0"), "{}", output.stdout);
}

/// The command cannot remove the pins.
#[test]
fn command_cannot_see_the_pins() {
    if !root("command_cannot_see_the_pins") {
        return;
    }
    let exec = exec();
    exec.run(["true"]).expect_code(0);
    let pins = mount_of("bpf")
        .expect("mounted by the first run")
        .join("tidegate");
    assert!(pins.is_dir(), "{} does not exist", pins.display());
    let output = shell(&exec, &format!("ls {0}; rm -rf {0}; ls -d {0}", pins.display()));
    assert_ne!(output.code(), Some(0), "{}", output.stdout);
    assert!(pins.is_dir());
}

/// The output of a shell about descriptor 7, which it inherits from this test.
fn with_descriptor_seven(options: &[&str]) -> CommandOutput {
    let exec = exec().options(options.iter().copied());
    let file = File::open(exec.dir().write("secret", "the secret\n")).unwrap();
    let mut command = tidegate(exec.args(["/bin/sh", "-c", "cat <&7 2>/dev/null || echo closed"]));
    enter(&mut command, exec.cgroup());
    // SAFETY: between fork and exec only dup2(2) is called.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
            match libc::dup2(file.as_raw_fd(), 7) {
                7 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    RunningCommand::run(&mut command)
}

#[test]
fn inherited_descriptors_are_closed() {
    if !root("inherited_descriptors_are_closed") {
        return;
    }
    for (options, expected) in [
        (vec![], "closed\n"),
        (vec!["--keep-fds", "7"], "the secret\n"),
        (vec!["--keep-fds", "all"], "the secret\n"),
    ] {
        let output = with_descriptor_seven(&options);
        assert_eq!(output.expect_code(0).stdout, expected, "{options:?}");
    }
    // A descriptor that is not open is an error.
    let output = with_descriptor_seven(&["--keep-fds", "7,199"]);
    output.expect_code(125);
    assert!(
        output.stderr.contains("199") && output.stdout.is_empty(),
        "{}",
        output.stderr
    );
}

/// The command inherits the environment, the working directory and the standard streams.
#[test]
fn environment_directory_and_stdio_are_inherited() {
    if !root("environment_directory_and_stdio_are_inherited") {
        return;
    }
    let exec = exec().variable("A_VARIABLE", "its value").with_input();
    let mut running = exec.start([
        "/bin/sh",
        "-c",
        "read line; echo \"$line\"; echo \"$A_VARIABLE\"; pwd; echo aside >&2",
    ]);
    std::io::Write::write_all(&mut running.take_stdin(), b"a line\n").unwrap();
    let output = running.finish();
    let here = fs::canonicalize(".").unwrap();
    assert_eq!(
        output.expect_code(0).stdout,
        format!("a line\nits value\n{}\n", here.display())
    );
    assert!(output.stderr.starts_with("aside\n"), "{}", output.stderr);
}
