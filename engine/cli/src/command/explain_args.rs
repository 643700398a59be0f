//! Arguments of `tidegate explain`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::{Exit, help::HelpEnd, variable_args::VariableArgs};

/// Explain which verdict policies give for a destination, and why
///
/// Use it to test a policy without running anything. Prints the verdict, the rule that decides, and why each rule
/// before it does not match. Uses the same decision function and tables as the kernel programs. No packet is sent.
/// Needs no privileges, except with --live.
///
/// For a protocol without an address hook (icmp, raw, sctp, ...), no hook sees the destination. `explain` then prints the
/// verdict on the creation of the socket, which is the same for all addresses.
#[derive(Clone, Debug, Args)]
#[command(
    group = clap::ArgGroup::new("policies").required(true).multiple(true).args(["policy", "live"]),
    after_help = help()
)]
pub struct ExplainArgs {
    /// Policy file; repeatable: all policies are evaluated and the strictest verdict is enforced
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub policy: Vec<PathBuf>,

    /// Attached policy; repeatable, also together with --policy. Needs root
    ///
    /// The policy is compiled again from the text and the variables it was attached with. If the result differs from
    /// the image in the kernel (what the attached policy was compiled to), for example because an executable was
    /// replaced, the differences are printed.
    #[arg(long, value_name = "NAME")]
    pub live: Vec<String>,

    /// Destination: ADDRESS:PORT for tcp, ADDRESS:PORT/PROTOCOL, ADDRESS/PROTOCOL for a protocol without ports,
    /// unix:PATH or unix:@NAME
    #[arg(long, value_name = "DESTINATION")]
    pub to: String,

    /// User id of the process; default: your own
    #[arg(long, value_name = "UID")]
    pub uid: Option<u32>,

    /// Executable of the process; default: one that no rule selects
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    pub binary: Option<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}

fn help() -> String {
    HelpEnd {
        examples: &[
            (
                "Explain a TCP connection",
                &["tidegate explain --policy shop.yaml --to 10.20.0.5:5432"],
            ),
            (
                "Explain a TCP connection by an attached policy",
                &["sudo tidegate explain --live shop --to 10.20.0.5:5432"],
            ),
            (
                "Explain a datagram that a user sends with an executable",
                &[
                    "tidegate explain -p shop.yaml --to '[2001:db8::1]:53/udp' \\",
                    "  --uid 1000 --binary /usr/bin/dig",
                ],
            ),
            (
                "Explain a protocol without ports, as JSON",
                &["tidegate explain -p shop.yaml --to 192.0.2.1/icmp --output json"],
            ),
            (
                "Explain a connection to a unix socket",
                &["tidegate explain -p sandbox.yaml --to unix:/run/docker.sock"],
            ),
        ],
        exits: &[
            (
                Exit::Success,
                "the attempt would be allowed; always in mode audit",
            ),
            (
                Exit::CouldNotRun,
                "a file cannot be read, or no such policy is attached",
            ),
            (Exit::Usage, "invalid command line"),
            (Exit::PolicyInvalid, "a policy is not valid"),
            (Exit::Denied, "the attempt would be denied"),
        ],
        ..HelpEnd::default()
    }
    .text()
}
