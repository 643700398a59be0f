//! The launch module on the running kernel: `cargo test -p tidegate --test launch`, as root.
//!
//! It has its own test runner, because the module needs a process with one thread that owns its signals, and libtest
//! runs tests in threads. The executable is also the test programs: `supervise` is `tidegate exec` without policies,
//! `job` is a shell with one job.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

mod cgroup;
mod exit;
mod orphans;
mod privilege;
mod role;
mod run;
mod terminal;
mod test_cgroup;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
};

type Test = (&'static str, fn());

/// Time limit of a test: SIGALRM ends the run.
const LIMIT_SECONDS: u32 = 120;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1).peekable();
    match arguments.peek().and_then(|first| first.to_str()) {
        Some(role::SUPERVISE) => return role::supervise(arguments.skip(1)),
        Some(role::JOB) => return role::job(arguments.skip(1)),
        _ => {}
    }
    let arguments: Vec<String> = arguments
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| {
                if has("--exact") {
                    name == filter.as_str()
                } else {
                    name.contains(filter.as_str())
                }
            })
    };
    let tests = [
        exit::TESTS,
        cgroup::TESTS,
        orphans::TESTS,
        privilege::TESTS,
        terminal::TESTS,
    ];
    let tests: Vec<Test> = tests
        .into_iter()
        .flatten()
        .copied()
        .filter(|(name, _)| wanted(name))
        .collect();
    if has("--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: {} tests of the launch module: needs root", tests.len());
        return match env::var_os("TIDEGATE_REQUIRE_ROOT") {
            Some(value) if value == "1" => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        };
    }
    let cgroup = test_cgroup::TestCgroup::enter();
    let mut failed = Vec::new();
    for (name, test) in &tests {
        nix::unistd::alarm::set(LIMIT_SECONDS);
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        nix::unistd::alarm::cancel();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(*name);
        }
    }
    drop(cgroup);
    println!(
        "{} passed, {} failed {failed:?}",
        tests.len() - failed.len(),
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
