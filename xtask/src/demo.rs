//! `cargo xtask demo`: real curl under a policy, in a network namespace of its own.
//!
//! The servers run here, outside the gate: what they saw is the truth, and the demonstration fails
//! when it is not what was told.

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

/// Names the binary for the run inside the namespace.
pub(crate) const INSIDE: &str = "TIDEGATE_DEMO_INSIDE";

/// The binary, when this is the run inside the namespace.
pub(crate) fn inside() -> Option<PathBuf> {
    env::var_os(INSIDE).map(PathBuf::from)
}

const WEBSITE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const PARTNER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 30);
const BAD_HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// A request, and what must come of it.
struct Act {
    says: &'static str,
    to: Ipv4Addr,
    /// Whether the server sees it.
    arrives: bool,
    /// Exit code of tidegate: curl's, or 128 and the signal.
    exit: i32,
    /// Outcomes that the report may tell; none for what is allowed silently.
    outcomes: &'static [&'static str],
}

const ACTS: [Act; 4] = [
    Act {
        says: "The website is allowed: answered, and nothing to report.",
        to: WEBSITE,
        arrives: true,
        exit: 0,
        outcomes: &[],
    },
    Act {
        says: "The partner is audited: answered, and reported.",
        to: PARTNER,
        arrives: true,
        exit: 0,
        outcomes: &["audited"],
    },
    Act {
        says: "Anything else is blocked: refused at once, before a packet leaves.",
        to: ELSEWHERE,
        arrives: false,
        exit: 7,
        outcomes: &["blocked"],
    },
    Act {
        says: "A bad host kills: curl is dead (since Linux 6.16 before its call returns).",
        to: BAD_HOST,
        arrives: false,
        exit: 128 + 9,
        // The second where it dies a moment later.
        outcomes: &["killed", "kill_pending"],
    },
];

/// Runs the demonstration with this binary.
///
/// # Errors
/// When it does not go as told.
pub(crate) fn run(tidegate: &Binary) -> Result<()> {
    // A namespace of our own: no packet of this leaves the machine.
    let own = env::current_exe().context("this program cannot find itself")?;
    let mut again = match Privilege::of_this_process() {
        Privilege::Root => Command::new("unshare"),
        Privilege::Sudo => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--non-interactive", "--preserve-env", "unshare"]);
            sudo
        }
        Privilege::None => {
            bail!(
                "the demonstration needs root, or sudo that asks nothing: run `sudo -v` first, or \
                 `cargo xtask demo --vm`, which needs neither"
            )
        }
    };
    again
        .arg("--net")
        .arg(own)
        .arg("demo")
        .env(INSIDE, tidegate.path());
    let status = again
        .status()
        .context("unshare (Debian package util-linux) does not start")?;
    ensure!(status.success(), "the demonstration failed");
    Ok(())
}

/// The demonstration itself, inside the namespace.
///
/// # Errors
/// When it does not go as told.
pub(crate) fn perform(tidegate: &Path) -> Result<()> {
    ip(&["link", "set", "lo", "up"])?;
    for address in ACTS.map(|act| act.to) {
        ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
    }
    let seen = serve()?;
    let policy = policy();
    let text = std::fs::read_to_string(&policy).with_context(|| policy.display().to_string())?;
    println!("\nThe policy, xtask/demo.yaml:\n");
    for line in text.lines() {
        println!("    {line}");
    }
    let folder = env::temp_dir().join(format!("tidegate-demo-{}", std::process::id()));
    std::fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
    let done = ACTS
        .iter()
        .try_for_each(|act| show(act, tidegate, &policy, &folder.join("report.jsonl"), &seen));
    // What matters is how the acts went.
    let _ = std::fs::remove_dir_all(&folder);
    done?;
    println!("\nAll went as told: the servers saw the two requests that were let through, and no others.");
    Ok(())
}

/// The file of its policy.
pub(crate) fn policy() -> PathBuf {
    workspace().join("xtask/demo.yaml")
}

fn show(act: &Act, tidegate: &Path, policy: &Path, report: &Path, seen: &Receiver<Ipv4Addr>) -> Result<()> {
    println!("\n== {}\n", act.says);
    let mut gated = Command::new(tidegate);
    gated
        .args(["exec", "--policy"])
        .arg(policy)
        .arg("--report")
        .arg(report)
        .arg("--");
    gated.args([
        "curl",
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        &format!("http://{}/", act.to),
    ]);
    println!("    $ {}", command::shown(&gated));
    let status = gated.status().context("tidegate does not start")?;
    println!(
        "    (exit code {})",
        status.code().map_or("none".to_owned(), |code| code.to_string())
    );

    ensure!(
        status.code() == Some(act.exit),
        "curl to {} should end with {}",
        act.to,
        act.exit
    );
    // A request that arrives has been seen when curl has its answer.
    let arrived: Vec<Ipv4Addr> = seen.try_iter().collect();
    let expected = if act.arrives { vec![act.to] } else { Vec::new() };
    ensure!(
        arrived == expected,
        "the servers should have seen {expected:?} and saw {arrived:?}"
    );
    let lines = std::fs::read_to_string(report).with_context(|| report.display().to_string())?;
    let events: Vec<&str> = lines
        .lines()
        .filter(|line| line.contains("\"type\":\"event\""))
        .collect();
    let outcomes = act.outcomes;
    if outcomes.is_empty() {
        ensure!(
            events.is_empty(),
            "an allowed request should not be reported: {events:?}"
        );
        return Ok(());
    }
    let is_told = |outcome: &&str| {
        let text = format!("\"outcome\":\"{outcome}\"");
        events.iter().any(|line| line.contains(&text))
    };
    ensure!(
        outcomes.iter().any(is_told),
        "the report should have an event `{}`: {events:?}",
        outcomes.join("` or `")
    );
    Ok(())
}

/// An HTTP server on every address of the acts; who was asked comes through the channel.
fn serve() -> Result<Receiver<Ipv4Addr>> {
    let (tell, seen) = mpsc::channel();
    for address in ACTS.map(|act| act.to) {
        let listener =
            TcpListener::bind((address, 80)).with_context(|| format!("cannot listen on {address}:80"))?;
        let tell = tell.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Told before the answer, so that who has the answer may ask what was seen.
                if tell.send(address).is_err() {
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
    // A client that goes away early is its own affair.
    let _ = stream.read(&mut request);
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status();
    let status = status.context("ip (Debian package iproute2) does not start")?;
    ensure!(status.success(), "`ip {}` failed", arguments.join(" "));
    Ok(())
}
