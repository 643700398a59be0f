//! Arguments of `tidegate policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use super::policy_apply::ApplyArgs;
use crate::cli::variable::VariableArgs;

/// Look into policies and their language, and replace those that stand
#[derive(Clone, Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct PolicyArgs {
    #[command(subcommand)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub command: PolicyCommand,
}

/// What to look at.
#[derive(Clone, Debug, Subcommand)]
pub enum PolicyCommand {
    /// Put another version of a standing policy live, and say what it changes
    ///
    /// The change is one flip: an attempt is judged by the old version or by the new one. A version that is
    /// not valid, or cannot be enforced fully here, leaves the old one live. Sockets that are connected
    /// already are not asked again.
    #[command(after_help = APPLY_HELP)]
    Apply(ApplyArgs),
    /// List the policies that stand
    List,
    /// Print what each rule of a standing policy decided
    Stats(StatsArgs),
    /// Print the tables that a policy is compiled to
    Dump(DumpArgs),
    /// Print the built-in sets, such as @private, with their members and where those come from
    Sets,
    /// Print the JSON schema of the policy language
    Schema,
}

const APPLY_HELP: &str = "\
Examples:
  sudo tidegate policy apply -f shop.yaml --dry-run
  sudo tidegate policy apply -f shop.yaml

Exit codes:
  0 it is live, or nothing changes; 1 could not run, or no such policy stands; 2 the command line is
  wrong; 3 the policy is not valid; 5 it is live, but this kernel cannot do all of what it says
  (--best-effort).";

/// Arguments of `tidegate policy stats`.
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// Name the policy stands under; all of them unless given
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// Arguments of `tidegate policy dump`.
#[derive(Clone, Debug, Args)]
pub struct DumpArgs {
    /// Policy file; `-` is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Print at most so many intervals of each table
    #[arg(long, value_name = "N", default_value_t = crate::compile::dump::DEFAULT_LIMIT)]
    pub limit: usize,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}
