//! The arguments of `tidegate`.

use clap::{ArgAction, ColorChoice, Parser, Subcommand};

use super::{
    command::{
        attach::AttachArgs, check::CheckArgs, completions::CompletionsArgs, detach::DetachArgs,
        events::EventsArgs, exec::args::ExecArgs, explain_args::ExplainArgs, policy_args::PolicyArgs,
        probe::ProbeArgs, selftest::SelftestArgs, selftest_client::SelftestClientArgs, set_mode::SetModeArgs,
        status::StatusArgs,
    },
    exit::Exit,
    output::Output,
};

/// Decides, in the Linux kernel, where a process may connect to
///
/// A policy says allow, audit, block or kill; the verdict is taken at the socket call, before a packet
/// leaves. Start with:
///
///   sudo tidegate exec --default audit -- curl https://example.com
#[derive(Clone, Debug, Parser)]
#[command(name = "tidegate", version, after_help = Exit::table(), max_term_width = 100)]
#[command(
    verbatim_doc_comment,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Form of results: text for people, json for programs
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORM",
        help_heading = "Everywhere"
    )]
    pub output: Output,

    /// Whether to use colours; auto follows the terminal, NO_COLOR and CLICOLOR
    #[arg(
        long,
        global = true,
        default_value = "auto",
        value_name = "WHEN",
        help_heading = "Everywhere"
    )]
    pub color: ColorChoice,

    /// Say more about what is done; twice or three times for still more (see also TIDEGATE_LOG)
    #[arg(long, short, global = true, action = ArgAction::Count, help_heading = "Everywhere")]
    pub verbose: u8,

    #[command(subcommand)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Exec(ExecArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Attach(AttachArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Detach(DetachArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Status(StatusArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    SetMode(SetModeArgs),
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
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Selftest(SelftestArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Completions(CompletionsArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    #[command(hide = true)]
    SelftestClient(SelftestClientArgs),
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
