//! Arguments of `tidegate policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use crate::cli::variable::VariableArgs;

/// Look into policies and their language
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
    /// Print the tables that a policy is compiled to
    Dump(DumpArgs),
    /// Print the built-in sets, such as @private, with their members and where those come from
    Sets,
    /// Print the JSON schema of the policy language
    Schema,
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
