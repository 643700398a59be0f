//! `tidegate probe`: what this kernel really lets us do.

use std::process::ExitCode;

use serde_json::json;

use super::probe_text::text;
use crate::{
    cli::{Exit, Failure, Output, environment, output::print},
    events::json::document,
    probe::{Attach, Enforcement, Options, probe},
};

/// Try what this kernel can enforce, and say what to change to get more
///
/// Nothing is guessed by version: for each hook a program of a few instructions is loaded, attached, and
/// seen to be called by sockets of our own; helpers are called by programs that are loaded; tables are made
/// and used. What the kernel refuses is told with its own words. The end is the plan: what becomes of
/// audit, block and kill here.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
What it does to the machine: for a fraction of a second there is a cgroup below our own, and programs that
let everything pass are attached to it; those for LSM hooks, functions of the kernel, the kprobe and tracepoints
are called for the whole machine meanwhile. Sockets of our own talk over loopback and by unix names, and two of them are cut. The kernel may load its
modules inet_diag, tcp_diag and udp_diag for that. Nothing of it stays. With --no-global nothing is attached
that the whole machine calls; with --no-attach nothing at all, and the plan supposes that what loads for a cgroup
can be attached to one.

Without root it says what could not be tried.

Examples:
  sudo tidegate probe
  sudo tidegate probe --output json | jq .plan
  sudo tidegate probe --no-global

Exit codes:
  0 cgroup hooks can enforce a policy here; 5 only in part: some ways out stay open (the plan names the hooks);
  1 not at all, or it could not be tried. Whether block can choose its errno, and whether kill comes before the
  call returns, does not change the exit code: read it from the plan.")]
pub struct ProbeArgs {
    /// Attach nothing, cut nothing, make no cgroup: only load programs
    #[arg(long)]
    pub no_attach: bool,

    /// Attach nothing that the whole machine calls (LSM, functions, kprobe, tracepoints): only load those
    #[arg(long)]
    pub no_global: bool,
}

/// Tries, and prints.
///
/// # Errors
/// When it cannot be printed.
pub fn run(args: &ProbeArgs, output: Output) -> Result<ExitCode, Failure> {
    let attach = match (args.no_attach, args.no_global) {
        (true, _) => Attach::Nothing,
        (_, true) => Attach::OwnCgroup,
        _ => Attach::Everything,
    };
    let disabled = environment::instance(Exit::Usage)?.disabled;
    let report = probe(Options { attach, disabled });
    print(&match output {
        Output::Json => document(&json!(report)),
        Output::Text => text(&report),
    })?;
    let exit = match report.plan.enforcement {
        Enforcement::Full => Exit::Fine,
        Enforcement::Partial => Exit::Partial,
        Enforcement::None => Exit::CouldNotRun,
    };
    Ok(exit.into())
}
