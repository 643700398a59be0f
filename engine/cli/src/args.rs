//! The arguments of `tidegate`.

use clap::{ArgAction, ColorChoice, Parser, Subcommand};

#[cfg(feature = "selftest")]
use super::command::{selftest::SelftestArgs, selftest_client::SelftestClientArgs};
use super::{
    command::{
        apply::ApplyArgs, attach::AttachArgs, check::CheckArgs, completions::CompletionsArgs,
        detach::DetachArgs, events::EventsArgs, exec::args::ExecArgs, explain_args::ExplainArgs,
        policy_args::PolicyArgs, probe::ProbeArgs, set_mode::SetModeArgs, status::StatusArgs,
    },
    exit::Exit,
    help::HelpEnd,
    output::Output,
};

const GLOBAL: &str = "Global options";

/// Control in the Linux kernel which network destinations a process may connect to
///
/// For each connection, a policy decides: allow, audit, block, or kill the process. eBPF programs decide when the
/// process calls connect(2) or sendmsg(2), before a packet leaves the machine. `exec` runs one command under a
/// policy; `attach` puts a policy on a cgroup, such as that of a systemd service.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "tidegate",
    version,
    after_help = help(),
    max_term_width = 100,
    help_expected = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Output format
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = GLOBAL
    )]
    pub output: Output,

    /// When to use colors; auto checks for a terminal, NO_COLOR and CLICOLOR
    #[arg(
        long,
        global = true,
        default_value = "auto",
        value_name = "WHEN",
        help_heading = GLOBAL
    )]
    pub color: ColorChoice,

    /// Log more to standard error; repeat for debug and trace messages. The environment variable TIDEGATE_LOG
    /// takes precedence
    #[arg(long, short, global = true, action = ArgAction::Count, help_heading = GLOBAL)]
    pub verbose: u8,

    #[command(subcommand)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub command: Command,
}

fn help() -> String {
    let exits = Exit::ALL.map(|exit| (exit, exit.meaning()));
    HelpEnd {
        notes: &[
            "`tidegate help COMMAND` describes a command with its options, examples and exit codes. Commands that \
             load or read kernel programs need root.",
        ],
        examples: &[
            (
                "See where a command connects to; nothing is denied",
                &["sudo tidegate exec --default audit -- curl https://www.example.com"],
            ),
            (
                "Attach a policy to a service, in audit mode first",
                &[
                    "sudo tidegate attach --policy shop.yaml --unit shop.service --mode audit",
                    "sudo tidegate events --follow",
                    "sudo tidegate set-mode shop enforce",
                ],
            ),
            (
                "Check a policy and explain its verdict, without root",
                &[
                    "tidegate check shop.yaml",
                    "tidegate explain --policy shop.yaml --to 192.0.2.1:443",
                ],
            ),
        ],
        exits: &exits,
        other_exits: &[
            ("128+n", "exec: signal n terminated the command"),
            ("other", "exec: the exit code of the command; it can also be one of the above"),
        ],
    }
    .text()
}

/// The subcommands of `tidegate`, in the order of its help.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Exec(ExecArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Attach(AttachArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Detach(DetachArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Apply(ApplyArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    SetMode(SetModeArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Status(StatusArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Events(EventsArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Check(CheckArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Explain(ExplainArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Policy(PolicyArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Probe(ProbeArgs),
    #[cfg(feature = "selftest")]
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Selftest(SelftestArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Completions(CompletionsArgs),
    #[cfg(feature = "selftest")]
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    #[command(hide = true)]
    SelftestClient(SelftestClientArgs),
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
