//! Rules with uids and executables.

use std::{os::unix::fs::MetadataExt, path::Path};

use integration::{
    egress_method::{EgressMethod, Family, Transport},
    exec::Exec,
    namespace::Namespace,
    receiver::Receiver,
    requirement::{Need, met, program},
    shared_dir::SharedDir,
    test_client::TestClient,
};

const UNPRIVILEGED_UID: u32 = 65534;

/// A copy of the test client that any user may run, wherever the workspace is.
fn test_client_in(dir: &SharedDir, name: &str) -> TestClient {
    let built = Path::new(env!("CARGO_BIN_EXE_test-client"));
    TestClient::at(dir.copy_program(built, name))
}

fn binary_rule(path: &Path) -> String {
    format!(
        "{{default: block, rules: [{{name: it, action: allow, to: any, process: {{binaries: ['{}']}}}}]}}",
        path.display()
    )
}

/// Whether the message of a test client arrives.
fn passes(exec: &Exec, test_client: &TestClient) -> bool {
    let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
    let result = exec.run_client(test_client.args(EgressMethod::TcpConnect, receiver.address(), None));
    assert_eq!(receiver.arrived().len(), usize::from(result.ok), "{result:?}");
    result.ok
}

#[test]
fn by_uid() {
    if !met("by_uid", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let dir = SharedDir::create();
        let test_client = test_client_in(&dir, "test-client");
        for (listed, user, expected) in [
            (UNPRIVILEGED_UID, UNPRIVILEGED_UID, true),
            (UNPRIVILEGED_UID, 0, false),
            (0, 0, true),
            (0, UNPRIVILEGED_UID, false),
        ] {
            let spec = format!(
                "{{default: block, rules: [{{name: it, action: allow, to: any, process: {{uids: [{listed}]}}}}]}}"
            );
            let exec = Exec::with(&spec).options(["--user".to_owned(), user.to_string()]);
            assert_eq!(
                passes(&exec, &test_client),
                expected,
                "rule for {listed}, run as {user}"
            );
            let report = exec.report();
            assert_eq!(report.attempts_of("it"), u64::from(expected));
            if !expected {
                let event = report.only_event();
                assert_eq!((event.uid, event.reason.as_str()), (user, "default"));
            }
        }
    });
}

/// The file counts, not its name: a copy is another file, a hard link is the same file.
#[test]
fn by_executable() {
    if !met("by_executable", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let dir = SharedDir::create();
        let named = test_client_in(&dir, "test-client");
        let copy = test_client_in(&dir, "copy");
        let link = dir.path().join("link");
        std::fs::hard_link(named.path(), &link).unwrap();
        let symlink = dir.path().join("symlink");
        std::os::unix::fs::symlink(named.path(), &symlink).unwrap();
        let spec = binary_rule(named.path());
        for (path, expected) in [
            (named.path(), true),
            (&link, true),
            (&symlink, true),
            (copy.path(), false),
        ] {
            let exec = Exec::with(&spec);
            assert_eq!(
                passes(&exec, &TestClient::at(path)),
                expected,
                "{} under a rule for {}",
                path.display(),
                named.path().display()
            );
        }
    });
}

/// Events have the executable, at least by its identity.
#[test]
fn the_report_names_the_executable() {
    if !met("the_report_names_the_executable", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let dir = SharedDir::create();
        let test_client = test_client_in(&dir, "test-client");
        let exec = Exec::with("{default: block}");
        assert!(!passes(&exec, &test_client));
        let report = exec.report();
        let executable = report.only_event().executable.as_ref().expect("an executable");
        assert_eq!(
            executable.inode,
            std::fs::metadata(test_client.path()).unwrap().ino()
        );
        // The process may end before its path is read.
        if let Some(path) = &executable.path {
            assert_eq!(Path::new(path), test_client.path());
        }
    });
}

/// The executable of a script is its interpreter: a rule for the interpreter matches, one for the script does not.
#[test]
fn script_runs_as_its_interpreter() {
    if !met(
        "script_runs_as_its_interpreter",
        &[Need::Root, Need::Program("bash")],
    ) {
        return;
    }
    let bash = program("bash").unwrap().canonicalize().unwrap();
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Udp, Namespace::near(Family::V4));
        let to = receiver.address();
        let dir = SharedDir::create();
        let script = dir.write_program(
            "script",
            &format!(
                "#!{}\necho hello >/dev/udp/{}/{}\n",
                bash.display(),
                to.ip(),
                to.port()
            ),
        );
        let other = dir.copy_program(&bash, "other-shell");
        Exec::with(&binary_rule(&bash)).run([&script]).expect_code(0);
        assert_eq!(receiver.arrived(), [b"hello\n"]);

        let output = Exec::with(&binary_rule(&script)).run([&script]);
        output.expect_code(1);
        receiver.expect_nothing("a rule for the script's file");

        // A rule for another interpreter does not match.
        Exec::with(&binary_rule(&other)).run([&script]).expect_code(1);
        receiver.expect_nothing("a rule for another shell");
    });
}

/// The executable is that at the time of the attempt: execve changes it.
#[test]
fn execve_changes_the_executable() {
    if !met("execve_changes_the_executable", &[Need::Root]) {
        return;
    }
    Namespace::run(|_| {
        let receiver = Receiver::listen(Transport::Tcp, Namespace::near(Family::V4));
        let dir = SharedDir::create();
        let test_client = test_client_in(&dir, "test-client");
        let exec = Exec::with(&binary_rule(test_client.path()));
        let mut args = vec!["/bin/sh".into(), "-c".into(), "exec \"$@\"".into(), "sh".into()];
        args.extend(test_client.args(EgressMethod::TcpConnect, receiver.address(), None));
        assert!(exec.run_client(args).ok);
        assert_eq!(receiver.arrived().len(), 1);
    });
}
