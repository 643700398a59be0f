//! Arguments of `tidegate policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

use crate::{Exit, help::HelpEnd, variable_args::VariableArgs};

/// Inspect policies and the policy language
///
/// `show` prints a policy that is attached. The other subcommands need no privileges and read no kernel state.
#[derive(Clone, Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true, after_help = help())]
pub struct PolicyArgs {
    #[command(subcommand)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub command: PolicyCommand,
}

fn help() -> String {
    HelpEnd {
        notes: &[
            "To attach, change or list policies, see `tidegate attach`, `tidegate apply` and `tidegate status`.",
        ],
        examples: &[
            ("Show an attached policy", &["sudo tidegate policy show shop"]),
            (
                "List the built-in address sets",
                &["tidegate policy sets"],
            ),
        ],
        exits: &EXITS,
        ..HelpEnd::default()
    }
    .text()
}

const EXITS: [(Exit, &str); 4] = [
    (Exit::Success, "success"),
    (Exit::CouldNotRun, "could not run, or no such policy is attached"),
    (Exit::Usage, "invalid command line"),
    (Exit::PolicyInvalid, "a policy is not valid"),
];

/// What to inspect.
#[derive(Clone, Debug, Subcommand)]
pub enum PolicyCommand {
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Show(ShowArgs),
    #[expect(missing_docs, reason = "help texts are those of the arguments' types")]
    Dump(DumpArgs),
    /// Print the built-in address sets, such as @private, with their members and sources
    ///
    /// Use it to find a set for `to` and `except` in a policy. Needs no privileges.
    #[command(after_help = sets_help())]
    Sets,
    /// Print the JSON Schema of the policy language
    ///
    /// Editors that support YAML schemas use it to check and complete policies.
    #[command(after_help = schema_help())]
    Schema,
}

/// Show an attached policy: its state, the counters of its rules, and its text
///
/// Use it to see which version of a policy is active, where it came from, with which variables, and how often each
/// rule has decided. The text is the one that was attached, even if the file has changed since. Needs root.
#[derive(Clone, Debug, Args)]
#[command(after_help = show_help())]
pub struct ShowArgs {
    /// Name of the attached policy
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Print only the text of the policy, byte for byte as it was read from the file
    ///
    /// The text contains no values of variables. Without this option, control characters of the text are escaped.
    #[arg(long)]
    pub text: bool,
}

fn show_help() -> String {
    HelpEnd {
        notes: &[
            "ATTEMPTS counts the attempts that a rule decided in the active generation, TOTAL in all generations \
             since the policy was attached.",
        ],
        examples: &[
            ("Show a policy", &["sudo tidegate policy show shop"]),
            (
                "Save the text of a policy",
                &["sudo tidegate policy show shop --text > shop.yaml"],
            ),
            (
                "Print it as JSON",
                &["sudo tidegate policy show shop --output json | jq .policy"],
            ),
        ],
        exits: &EXITS[..3],
        ..HelpEnd::default()
    }
    .text()
}

/// Print the tables that a policy is compiled to
///
/// Use it to see how addresses, ports and protocols are merged into disjoint intervals, and which rules each
/// interval matches. Needs no privileges.
#[derive(Clone, Debug, Args)]
#[command(after_help = dump_help())]
pub struct DumpArgs {
    /// Policy file; `-` is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,

    /// Maximum number of intervals to print per table
    #[arg(long, value_name = "N", default_value_t = tidegate_core::compile::dump::DEFAULT_LIMIT)]
    pub limit: usize,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}

fn dump_help() -> String {
    HelpEnd {
        examples: &[(
            "Print the tables of a policy",
            &["tidegate policy dump shop.yaml"],
        )],
        exits: &[
            (Exit::Success, "success"),
            (Exit::CouldNotRun, "the file cannot be read"),
            (Exit::Usage, "invalid command line"),
            (Exit::PolicyInvalid, "the policy is not valid"),
        ],
        ..HelpEnd::default()
    }
    .text()
}

fn sets_help() -> String {
    HelpEnd {
        notes: &["A policy selects a set by its name in quotes, such as `to: [\"@private\"]`."],
        examples: &[(
            "Print the members of the first set as JSON",
            &["tidegate policy sets --output json | jq '.sets[0].members'"],
        )],
        exits: &[(Exit::Success, "success"), (Exit::Usage, "invalid command line")],
        ..HelpEnd::default()
    }
    .text()
}

fn schema_help() -> String {
    HelpEnd {
        examples: &[(
            "Save the schema",
            &["tidegate policy schema > tidegate.schema.json"],
        )],
        exits: &[(Exit::Success, "success"), (Exit::Usage, "invalid command line")],
        ..HelpEnd::default()
    }
    .text()
}
