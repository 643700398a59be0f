//! Unmodified client programs: under a policy that allows they work, under one that blocks they fail with their usual
//! error.
#![expect(clippy::unwrap_used, reason = "a fixture that does not work fails the test")]

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use integration::{
    egress_method::Family,
    exec::Exec,
    kernel::{chooses_errno, kills_at_once},
    namespace::Namespace,
    requirement::{Need, met},
    running_command::{CommandOutput, RunningCommand},
    shared_dir::SharedDir,
};

const CONTENT: &str = "what the server holds\n";

const ALLOWING: &str = "{default: block, rules: [{name: server, action: allow, to: [198.51.100.1]}]}";
const AUDITING: &str = "{default: block, rules: [{name: server, action: audit, to: [198.51.100.1]}]}";
const BLOCKING: &str = "{default: allow, rules: [{name: server, action: block, to: [198.51.100.1]}]}";
const REFUSING: &str = "{default: allow, errno: ECONNREFUSED, \
                        rules: [{name: server, action: block, to: [198.51.100.1]}]}";

/// Runs a test in a namespace if the programs are installed.
fn with_programs(test: &str, programs: &[&str], check: impl FnOnce() + Send) {
    let mut needs = vec![Need::Root];
    needs.extend(programs.iter().map(|name| Need::Program(name)));
    if met(test, &needs) {
        Namespace::run(|_| check());
    }
}

/// The client works without a policy, allowed, and audited.
fn works(args: &[&str], is_done: impl Fn(&CommandOutput)) {
    let plain = RunningCommand::run(Command::new(args[0]).args(&args[1..]));
    plain.expect_code(0);
    is_done(&plain);

    let exec = Exec::with(ALLOWING);
    let output = exec.run(args);
    is_done(output.expect_code(0));
    let report = exec.report();
    assert!(report.events.is_empty(), "{:#?}", report.events);
    assert!(report.attempts_of("server") > 0);

    let exec = Exec::with(AUDITING);
    is_done(exec.run(args).expect_code(0));
    let report = exec.report();
    assert!(!report.events.is_empty());
    for event in &report.events {
        assert_eq!(
            (event.outcome.as_str(), event.rule.as_deref()),
            ("audited", Some("server"))
        );
    }
}

/// The client under a policy that blocks.
fn fails(spec: &str, args: &[&str], code: i32, error: &str) {
    let exec = Exec::with(spec);
    let output = exec.run(args);
    output.expect_code(code);
    assert!(
        output.stderr.contains(error) || output.stdout.contains(error),
        "no `{error}` in\n{}{}",
        output.stdout,
        output.stderr
    );
    assert!(
        !output.stdout.contains(CONTENT),
        "the client received the content: {}",
        output.stdout
    );
    let report = exec.report();
    assert!(!report.events.is_empty());
    for event in &report.events {
        assert_eq!(
            (event.outcome.as_str(), event.rule.as_deref()),
            ("blocked", Some("server"))
        );
    }
}

/// The error message of a client for ECONNREFUSED, or for EPERM where the errno cannot be chosen.
fn refused(not_permitted: &'static str, refused: &'static str) -> &'static str {
    if chooses_errno() { refused } else { not_permitted }
}

/// Starts a web server with one file and waits until it is ready.
fn web_server(dir: &SharedDir) -> (RunningCommand, SocketAddr) {
    dir.write("file.txt", CONTENT);
    let address = SocketAddr::new(Namespace::near(Family::V4), 8080);
    let server = RunningCommand::spawn(
        Command::new("python3")
            .args(["-u", "-m", "http.server", "--bind"])
            .args([address.ip().to_string(), address.port().to_string()])
            .current_dir(dir.path())
            .stdin(Stdio::null()),
    );
    server.wait_for_stdout("Serving HTTP");
    (server, address)
}

#[test]
fn curl() {
    with_programs("curl", &["curl", "python3"], || {
        let dir = SharedDir::create();
        let (_server, address) = web_server(&dir);
        let url = format!("http://{address}/file.txt");
        let args = ["curl", "--silent", "--show-error", "--noproxy", "*", &url];
        works(&args, |output| assert_eq!(output.stdout, CONTENT));
        // Exit code 7: failed to connect.
        fails(BLOCKING, &args, 7, "curl: (7)");
        fails(REFUSING, &args, 7, "curl: (7)");
        let exec = Exec::with("{default: kill}").accept_late_kill();
        let output = exec.run(args);
        // If user space kills, the client may have ended before because of the denial.
        if kills_at_once() || output.code() != Some(7) {
            output.expect_code(128 + libc::SIGKILL);
        }
        assert_eq!(exec.report().events[0].comm, "curl");
    });
}

#[test]
fn python_urllib() {
    with_programs("python_urllib", &["python3"], || {
        let dir = SharedDir::create();
        let (_server, address) = web_server(&dir);
        let script = format!(
            "import urllib.request as r; \
             o = r.build_opener(r.ProxyHandler({{}})); \
             print(o.open('http://{address}/file.txt').read().decode(), end='')"
        );
        let args = ["python3", "-c", &script];
        works(&args, |output| assert_eq!(output.stdout, CONTENT));
        fails(BLOCKING, &args, 1, "PermissionError: [Errno 1]");
        fails(
            REFUSING,
            &args,
            1,
            refused(
                "PermissionError: [Errno 1]",
                "ConnectionRefusedError: [Errno 111]",
            ),
        );
    });
}

/// Creates a repository with one commit.
fn repository(dir: &SharedDir) {
    let path = dir.path().join("project");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file.txt"), CONTENT).unwrap();
    for args in [
        &["init", "--quiet"][..],
        &["add", "."],
        &[
            "-c",
            "user.name=test",
            "-c",
            "user.email=test@example.org",
            "commit",
            "--quiet",
            "--message=first",
        ],
        // For a web server without git http-backend.
        &["update-server-info"],
    ] {
        let mut git = Command::new("git");
        git.args(args).current_dir(&path);
        RunningCommand::run(without_settings(&mut git)).expect_code(0);
    }
}

/// Ignores the git settings of users and system.
fn without_settings(git: &mut Command) -> &mut Command {
    git.env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
}

/// Clones into a new directory and prints a file of the clone.
fn clone_script(url: &str) -> String {
    format!(
        "export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_TERMINAL_PROMPT=0; \
         unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY; \
         place=$(mktemp -d) || exit 99; trap 'rm -rf \"$place\"' EXIT; \
         git clone --quiet {url} \"$place/clone\" && cat \"$place/clone/file.txt\""
    )
}

#[test]
fn git_protocol() {
    with_programs("git_protocol", &["git"], || {
        let dir = SharedDir::create();
        repository(&dir);
        // Not `git daemon`: that starts the daemon as a child, which would outlive the test.
        let programs = Command::new("git").arg("--exec-path").output().unwrap();
        let programs = String::from_utf8(programs.stdout).unwrap();
        let mut daemon = Command::new(Path::new(programs.trim()).join("git-daemon"));
        daemon
            .args(["--verbose", "--export-all", "--listen=198.51.100.1"])
            .arg(format!("--base-path={}", dir.path().display()))
            .arg(dir.path())
            .stdin(Stdio::null());
        let daemon = RunningCommand::spawn(without_settings(&mut daemon));
        daemon.wait_for_stderr("Ready to rumble");
        let script = clone_script("git://198.51.100.1/project/.git");
        let args = ["/bin/sh", "-c", &script];
        works(&args, |output| assert_eq!(output.stdout, CONTENT));
        fails(BLOCKING, &args, 128, "Operation not permitted");
        fails(
            REFUSING,
            &args,
            128,
            refused("Operation not permitted", "Connection refused"),
        );
    });
}

#[test]
fn git_http() {
    with_programs("git_http", &["git", "python3"], || {
        let dir = SharedDir::create();
        repository(&dir);
        let (_server, address) = web_server(&dir);
        let script = clone_script(&format!("http://{address}/project/.git"));
        let args = ["/bin/sh", "-c", &script];
        works(&args, |output| assert_eq!(output.stdout, CONTENT));
        fails(BLOCKING, &args, 128, "Failed to connect");
    });
}

/// A server that reads the greeting and closes the connection: this shows whether ssh could connect.
#[test]
fn ssh() {
    with_programs("ssh", &["ssh"], || {
        let listener = TcpListener::bind((Namespace::near(Family::V4), 22)).unwrap();
        let greeted = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut greeting = [0; 8];
            stream.read_exact(&mut greeting).unwrap();
            String::from_utf8_lossy(&greeting).into_owned()
        });
        let args = [
            "ssh",
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "198.51.100.1",
            "true",
        ];
        fails(BLOCKING, &args, 255, "port 22: Operation not permitted");
        fails(
            REFUSING,
            &args,
            255,
            refused("port 22: Operation not permitted", "port 22: Connection refused"),
        );
        // The server accepts only one connection, so it is this one.
        let exec = Exec::with(ALLOWING);
        exec.run(args).expect_code(255);
        assert!(exec.report().events.is_empty());
        assert_eq!(greeted.join().unwrap(), "SSH-2.0-");
    });
}
