//! Arguments of `tidegate explain`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::cli::variable::VariableArgs;

/// Say what policies would answer, and why
///
/// Prints the verdict, the rule that decides, and for each rule before it why it does not match. Asks
/// the same decision function as the kernel, over the same tables. Needs no privileges; nothing is
/// sent anywhere.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate explain --policy payments.yaml --to 10.20.0.5:5432
  tidegate explain -p payments.yaml --to '[2001:db8::1]:53/udp' --uid 1000 --binary /usr/bin/dig
  tidegate explain --policy payments.yaml --to 192.0.2.1/icmp --output json
  tidegate explain --policy sandbox.yaml --to unix:/run/docker.sock

Exit codes:
  0  the attempt would be let through
  1  a file could not be read
  2  the command line is wrong
  3  a policy is not valid
  4  the attempt would be denied")]
pub struct ExplainArgs {
    /// Policy file; given several times, all are asked and the strictest answer holds
    #[arg(long, short, required = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub policy: Vec<PathBuf>,

    /// The destination; tcp where no protocol is named. Or a unix socket: unix:PATH, unix:@NAME
    #[arg(long, value_name = "ADDRESS:PORT[/PROTOCOL]")]
    pub to: String,

    /// User id of the process; your own where it is left out
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,

    /// Executable of the process; where it is left out, one that no rule names
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub binary: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}
