//! `cargo xtask demo`: curl under a policy, in a network namespace of its own.
//!
//! The servers run in this process, without a policy. The demonstration fails if the requests that they
//! receive, the exit code or the report differ from what is expected.

use std::{
    env,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{self, Receiver},
    thread,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    command::{self, workspace},
    compile::Binary,
    privilege::Privilege,
};

/// Environment variable with the path of the binary, set for the run inside the namespace.
pub(crate) const INSIDE: &str = "TIDEGATE_DEMO_INSIDE";

/// The path of the binary in the run inside the namespace; otherwise `None`.
pub(crate) fn inside() -> Option<PathBuf> {
    env::var_os(INSIDE).map(PathBuf::from)
}

const WEBSITE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const PARTNER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 30);
const BAD_HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// A request and its expected result.
struct Request {
    about: &'static str,
    to: Ipv4Addr,
    /// Whether the server receives it.
    arrives: bool,
    /// Exit code of tidegate: that of curl, or 128 plus the signal.
    exit: i32,
    /// Outcomes that the report may have; empty for a request that is allowed silently.
    outcomes: &'static [&'static str],
}

const REQUESTS: [Request; 4] = [
    Request {
        about: "The website is allowed: an answer, and no report.",
        to: WEBSITE,
        arrives: true,
        exit: 0,
        outcomes: &[],
    },
    Request {
        about: "The partner is audited: an answer, and a report.",
        to: PARTNER,
        arrives: true,
        exit: 0,
        outcomes: &["audited"],
    },
    Request {
        about: "Everything else is blocked: the call fails before a packet leaves.",
        to: ELSEWHERE,
        arrives: false,
        exit: 7,
        outcomes: &["blocked"],
    },
    Request {
        about: "A bad host kills curl (since Linux 6.16 before its call returns).",
        to: BAD_HOST,
        arrives: false,
        exit: 128 + 9,
        // `kill_pending` where SIGKILL is sent after the call has returned.
        outcomes: &["killed", "kill_pending"],
    },
];

/// Runs the demonstration with this binary.
///
/// # Errors
/// When a request has another result than expected.
pub(crate) fn run(tidegate: &Binary) -> Result<()> {
    // In a network namespace no packet leaves the machine.
    let own = env::current_exe().context("cannot find the path of this program")?;
    let mut unshare = match Privilege::detect() {
        Privilege::Root => Command::new("unshare"),
        Privilege::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--non-interactive", "--preserve-env", "unshare"]);
            sudo
        }
        Privilege::None => {
            bail!(
                "the demonstration needs root: run `sudo -v` first, so that sudo asks for no password, or run \
                 `cargo xtask demo --vm`, which needs no root"
            )
        }
    };
    unshare
        .arg("--net")
        .arg(own)
        .arg("demo")
        .env(INSIDE, tidegate.path());
    let status = unshare
        .status()
        .context("cannot run unshare (Debian package util-linux)")?;
    ensure!(status.success(), "the demonstration failed");
    Ok(())
}

/// Runs the demonstration inside the namespace.
///
/// # Errors
/// When a request has another result than expected.
pub(crate) fn run_inside(tidegate: &Path) -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    for address in REQUESTS.map(|request| request.to) {
        ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
    }
    let seen = serve()?;
    let policy = policy();
    let text = std::fs::read_to_string(&policy).with_context(|| policy.display().to_string())?;
    println!("\nThe policy, xtask/demo.yaml:\n");
    for line in text.lines() {
        println!("    {line}");
    }
    let directory = env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()));
    std::fs::create_dir(&directory).with_context(|| directory.display().to_string())?;
    let done = REQUESTS
        .iter()
        .try_for_each(|request| show(request, tidegate, &policy, &directory.join("report.jsonl"), &seen));
    // A directory that stays is not an error of the demonstration.
    let _ = std::fs::remove_dir_all(&directory);
    done?;
    println!(
        "\nAll results are as expected: the servers received the two requests that the policy allows, and no others."
    );
    Ok(())
}

/// The path of its policy.
pub(crate) fn policy() -> PathBuf {
    workspace().join("xtask/demo.yaml")
}

fn show(
    request: &Request,
    tidegate: &Path,
    policy: &Path,
    report: &Path,
    seen: &Receiver<Ipv4Addr>,
) -> Result<()> {
    println!("\n== {}\n", request.about);
    let mut tidegate_exec = Command::new(tidegate);
    tidegate_exec
        .args(["exec", "--policy"])
        .arg(policy)
        .arg("--report")
        .arg(report)
        .arg("--");
    tidegate_exec.args([
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        &format!("http://{}/", request.to),
    ]);
    println!("    $ {}", command::command_line(&tidegate_exec));
    let status = tidegate_exec.status().context("cannot run tidegate")?;
    println!(
        "    (exit code {})",
        status.code().map_or("none".to_owned(), |code| code.to_string())
    );

    ensure!(
        status.code() == Some(request.exit),
        "curl to {}: expected exit code {}",
        request.to,
        request.exit
    );
    // The server reports a request before it answers.
    let arrived: Vec<Ipv4Addr> = seen.try_iter().collect();
    let expected = if request.arrives {
        vec![request.to]
    } else {
        Vec::new()
    };
    ensure!(
        arrived == expected,
        "the servers received requests to {arrived:?}; expected {expected:?}"
    );
    let lines = std::fs::read_to_string(report).with_context(|| report.display().to_string())?;
    let events: Vec<&str> = lines
        .lines()
        .filter(|line| line.contains("\"type\":\"event\""))
        .collect();
    let outcomes = request.outcomes;
    if outcomes.is_empty() {
        ensure!(
            events.is_empty(),
            "unexpected events of an allowed request: {events:?}"
        );
        return Ok(());
    }
    let is_reported = |outcome: &&str| {
        let text = format!("\"outcome\":\"{outcome}\"");
        events.iter().any(|line| line.contains(&text))
    };
    ensure!(
        outcomes.iter().any(is_reported),
        "the report has no event with outcome `{}`: {events:?}",
        outcomes.join("` or `")
    );
    Ok(())
}

/// Starts an HTTP server on every address of the requests; each sends its address to the channel for each request.
fn serve() -> Result<Receiver<Ipv4Addr>> {
    let (sender, seen) = mpsc::channel();
    for address in REQUESTS.map(|request| request.to) {
        let listener =
            TcpListener::bind((address, 80)).with_context(|| format!("cannot listen on {address}:80"))?;
        let sender = sender.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Before the answer: a client that has its answer finds the request in the channel.
                if sender.send(address).is_err() {
                    return;
                }
                answer(stream, address);
            }
        });
    }
    Ok(seen)
}

fn answer(mut stream: std::net::TcpStream, address: Ipv4Addr) {
    let body = format!("{address} says hello\n");
    let mut request = [0; 1024];
    // A client that closes early is not an error.
    let _ = stream.read(&mut request);
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status();
    let status = status.context("cannot run ip (Debian package iproute2)")?;
    ensure!(status.success(), "`ip {}` failed", arguments.join(" "));
    Ok(())
}
