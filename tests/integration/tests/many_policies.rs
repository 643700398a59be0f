//! A thousand policies on a thousand cgroups, attached by one command: each one is enforced, and all are detached without
//! leftovers.

use std::{
    collections::HashMap,
    fmt::Write,
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use integration::{
    cgroup::TestCgroup,
    egress_method::Family,
    exec::{policy, tidegate},
    load::CallCount,
    mount_table::mount_of,
    namespace::Namespace,
    requirement::{Need, met},
    running_command::RunningCommand,
    shared_dir::tmpfs_dir,
    test_client::TestClient,
};

const POLICIES: u16 = 1000;
/// The first of the ports that the policies allow, one each.
const PORT: u16 = 2000;

struct Pins(PathBuf);

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn thousand_policies() {
    if !met("thousand_policies", &[Need::Root]) {
        return;
    }
    let bpffs = mount_of("bpf").unwrap_or_else(|| {
        let mounted = Command::new("mount")
            .args(["-t", "bpf", "bpf", "/sys/fs/bpf"])
            .status();
        assert!(mounted.unwrap().success());
        "/sys/fs/bpf".into()
    });
    let pins = Pins(bpffs.join(format!("tidegate-many-{}", std::process::id())));
    fs::create_dir(&pins.0).unwrap();
    let dir = tmpfs_dir();
    Namespace::run(|_| {
        let cgroup = TestCgroup::create();
        let run = |args: &[&str]| {
            let mut command = tidegate(args);
            command
                .env("TIDEGATE_RUN", dir.path().join("run"))
                .env("TIDEGATE_STATE", dir.path().join("state"))
                .env("TIDEGATE_BPFFS", &pins.0);
            RunningCommand::run(&mut command)
        };
        let mut batch = String::new();
        for i in 0..POLICIES {
            let (name, path) = (format!("p{i}"), cgroup.path().join(format!("c{i}")));
            fs::create_dir(&path).unwrap();
            let file = dir.path().join(format!("{name}.yaml"));
            let port = PORT + i;
            let spec = format!(
                "{{default: block, rules: [{{name: own, action: allow, to: any, ports: [{port}]}}]}}"
            );
            fs::write(&file, policy(&name, &spec)).unwrap();
            writeln!(batch, "{} {}", file.display(), path.display()).unwrap();
        }
        let batch_file = dir.path().join("batch.txt");
        fs::write(&batch_file, batch).unwrap();
        run(&["attach", "--batch", batch_file.to_str().unwrap()]).expect_code(0);

        let test_client = TestClient::at(env!("CARGO_BIN_EXE_test-client"));
        let mut attempts = HashMap::new();
        for i in 0..POLICIES {
            let to = |i: u16| SocketAddr::new(Namespace::near(Family::V4), PORT + i % POLICIES);
            let (own, next) = (to(i), to(i + 1));
            let args = test_client.task("load", &[&own.to_string(), &next.to_string()]);
            let mut command = Command::new(&args[0]);
            command.args(&args[1..]).stdin(Stdio::null());
            let procs_file = cgroup.path().join(format!("c{i}/cgroup.procs"));
            integration::exec::enter_at(&mut command, &procs_file);
            let output = RunningCommand::run(&mut command);
            for CallCount {
                to, result, count, ..
            } in CallCount::read(&output.expect_code(0).stdout)
            {
                assert_eq!(result == "ok", to == own, "policy {i}: {to}: {result}");
                *attempts.entry((format!("p{i}"), to == own)).or_insert(0u64) += count;
            }
        }
        let status: serde_json::Value =
            serde_json::from_str(&run(&["status", "--output", "json"]).expect_code(0).stdout).unwrap();
        let policies = status["policies"].as_array().unwrap();
        assert_eq!(policies.len(), usize::from(POLICIES));
        for policy in policies {
            assert_eq!(policy["enforcement"], "full", "{policy:#}");
            let name = policy["name"].as_str().unwrap();
            for (total, own) in [("allowed", true), ("blocked", false)] {
                assert_eq!(
                    policy["totals"][total],
                    attempts[&(name.to_owned(), own)],
                    "{policy:#}"
                );
            }
        }
        run(&["detach", "--all"]).expect_code(0);
        assert_eq!(fs::read_dir(&pins.0).unwrap().count(), 0, "pins are left");
    });
}
