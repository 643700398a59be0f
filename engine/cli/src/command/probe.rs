//! `tidegate probe`: tests what this kernel can enforce.

use std::process::ExitCode;

use serde_json::json;

use super::probe_text::text;
use crate::{
    Exit, Failure, Output, environment,
    help::HelpEnd,
    output::{document, print},
};
use tidegate_core::probe::{AttachScope, Enforcement, Options, probe};

/// Test what this kernel can enforce, and how to enable the rest
///
/// Use it before you deploy policies on a new kernel. Nothing is inferred from the kernel version: for each hook, probe
/// loads a small program, attaches it, and opens test sockets that trigger the hook. It also tests BPF helpers and
/// types of maps. The plan at the end describes how audit, block and kill work on this machine. Without root, probe
/// reports what it could not test.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = help())]
pub struct ProbeArgs {
    /// Load programs, but attach none, destroy no socket and create no cgroup
    #[arg(long)]
    pub no_attach: bool,

    /// Do not attach programs that run for every process of the machine (LSM, fentry, kprobe, tracepoints); only load
    /// them
    #[arg(long)]
    pub no_global: bool,
}

fn help() -> String {
    HelpEnd {
        notes: &[
            "For a fraction of a second, probe creates a cgroup and attaches programs to it that allow everything. \
             Programs for LSM hooks, kernel functions, the kprobe and tracepoints run for every process of the machine \
             during that time. Test sockets use loopback addresses and abstract unix names; two of them are destroyed, for \
             which the kernel may load its modules inet_diag, tcp_diag and udp_diag. Everything is removed afterwards.",
            "With --no-attach, the plan assumes that a program that loads can be attached.",
        ],
        examples: &[
            ("Test this machine", &["sudo tidegate probe"]),
            ("Print the plan as JSON", &["sudo tidegate probe --output json | jq .plan"]),
            (
                "Test without programs that run for every process of the machine",
                &["sudo tidegate probe --no-global"],
            ),
        ],
        exits: &[
            (Exit::Success, "all cgroup hooks that deny can be used"),
            (Exit::CouldNotRun, "nothing can be enforced, or it could not be tested"),
            (Exit::Usage, "invalid command line"),
            (Exit::Partial, "some of these hooks cannot be used; the plan lists them"),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// Runs the tests and prints the report.
///
/// # Errors
/// When the report cannot be printed.
pub fn run(args: &ProbeArgs, output: Output) -> Result<ExitCode, Failure> {
    let attach = match (args.no_attach, args.no_global) {
        (true, _) => AttachScope::None,
        (_, true) => AttachScope::OwnCgroup,
        _ => AttachScope::System,
    };
    let disabled = environment::instance(Exit::Usage)?.disabled;
    let report = probe(Options { attach, disabled });
    print(&match output {
        Output::Json => document(&json!(report)),
        Output::Text => text(&report),
    })?;
    let exit = match report.plan.enforcement {
        Enforcement::Full => Exit::Success,
        Enforcement::Partial => Exit::Partial,
        Enforcement::None => Exit::CouldNotRun,
    };
    Ok(exit.into())
}
