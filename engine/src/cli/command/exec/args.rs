//! Arguments of `tidegate exec`.

use std::{ffi::OsString, os::fd::RawFd, path::PathBuf};

use clap::{
    Args, ValueEnum, ValueHint,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use engine_common::{Action, Mode};

use crate::cli::{command::rule_flags::RuleFlags, variable::VariableArgs};

/// Run one command under a policy
///
/// The command starts inside a cgroup of its own that carries the policy; everything it starts is under
/// it too. It runs as the user who called sudo, keeps its terminal, signals and exit code, and at the
/// end a report on standard error says where it went and which rule decided. Needs root.
#[derive(Clone, Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what-holds").required(true).multiple(true)
        .args(["policy", "allow", "deny", "default"]),
    after_help = "\
Examples:
  See where a build connects to, and change nothing:
    sudo tidegate exec --default audit -- npm ci
  Allow a registry and names, deny the rest:
    sudo tidegate exec --allow registry.npmjs.org:443 --allow '@resolvers:53' -- npm ci
  Keep a command away from the cloud's metadata service:
    sudo tidegate exec --deny @cloud-metadata -- ./run-tests
  Try a policy without enforcing it, and keep every event:
    sudo tidegate exec --policy payments.yaml --mode audit --report events.jsonl -- ./payments
  Two policies, the stricter answer holds; a variable of theirs given:
    sudo tidegate exec --policy house.yaml --policy payments.yaml --set DB=10.20.0.5 -- ./payments

Exit codes:
  The command's own; 128+n when signal n ended it; 125 when tidegate itself failed, 126 when the
  command cannot be executed, 127 when it was not found; 2 when the command line is wrong, 3 when
  a policy is not valid."
)]
pub struct ExecArgs {
    /// Policy file; given several times, all are asked and the strictest answer holds
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub policy: Vec<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub rule_flags: RuleFlags,

    /// What holds where no --allow or --deny matches
    ///
    /// Without it: block when there is an --allow, allow when there are only --deny. Policy files
    /// have their own default.
    #[arg(long, value_name = "ACTION", value_parser = actions())]
    pub default: Option<Action>,

    /// Act on verdicts or only report them, whatever the policies say themselves
    #[arg(long, value_name = "MODE", value_parser = modes())]
    pub mode: Option<Mode>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,

    /// Run the command as this user: a name, or UID, or UID:GID
    ///
    /// Without it: the user who called sudo, otherwise yourself.
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username, help_heading = "The command")]
    pub user: Option<String>,

    /// Leave the command a capability that it would lose: a name such as CAP_NET_RAW, or `all`
    ///
    /// A command run as root loses the capabilities with which it could leave the cgroup, change the
    /// policy or send packets round it: CAP_SYS_ADMIN, CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE,
    /// CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT, CAP_PERFMON and CAP_DAC_READ_SEARCH.
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "The command"
    )]
    pub keep_capability: Vec<String>,

    /// Leave the command open file descriptors: numbers such as 3,4, or `all`
    ///
    /// Standard input, output and error are always kept. Others are closed: a socket that is connected
    /// already is past the policy.
    #[arg(long, value_name = "FDS", value_parser = kept_fds, default_value = "", hide_default_value = true, help_heading = "The command")]
    pub keep_fds: KeptFds,

    /// What becomes of processes that outlive the command
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value_t,
        help_heading = "The command"
    )]
    pub descendants: Survivors,

    /// Print no report at the end
    #[arg(long, short, help_heading = "The report")]
    pub quiet: bool,

    /// Write every event, and at the end a summary, to FILE as JSON lines; `-` is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "The report")]
    pub report: Option<PathBuf>,

    /// Print events to standard error as they happen
    #[arg(long, help_heading = "The report")]
    pub live: bool,

    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

impl ExecArgs {
    /// What --allow and --deny say and their texts, in the order of the command line.
    pub fn rules(&self) -> Vec<(Action, String)> {
        self.rule_flags.rules().to_vec()
    }
}

/// What becomes of processes that outlive the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Survivors {
    /// They are asked to end, and killed when they do not within two seconds
    #[default]
    End,
    /// They are waited for
    Wait,
    /// They go on running under the policy, and their cgroup stays
    Keep,
}

/// Which open file descriptors the command keeps beyond 0, 1 and 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeptFds {
    /// None.
    #[default]
    Standard,
    /// These too, each 3 or above.
    Also(Vec<RawFd>),
    /// All.
    All,
}

fn kept_fds(text: &str) -> Result<KeptFds, String> {
    match text {
        "" => return Ok(KeptFds::Standard),
        "all" => return Ok(KeptFds::All),
        _ => {}
    }
    let mut fds = Vec::new();
    for number in text.split(',') {
        match number.parse::<RawFd>() {
            Ok(0..=2) => return Err(format!("{number} is always kept, leave it out")),
            Ok(fd) if fd > 2 => fds.push(fd),
            _ => return Err("write `all` or numbers of file descriptors: 3,4".to_owned()),
        }
    }
    fds.sort_unstable();
    fds.dedup();
    Ok(KeptFds::Also(fds))
}

/// The words of the policy language for actions.
fn actions() -> impl TypedValueParser<Value = Action> {
    let helps = [
        "Let it pass and say nothing",
        "Let it pass and report it",
        "Deny it and report it",
        "Deny it, kill the process, and report it",
    ];
    let values = Action::ALL.into_iter().zip(helps);
    PossibleValuesParser::new(values.map(|(action, help)| PossibleValue::new(action.as_str()).help(help)))
        .try_map(|word| {
            let found = Action::ALL.into_iter().find(|action| action.as_str() == word);
            found.ok_or("not an action")
        })
}

/// The words of the policy language for modes.
pub(crate) fn modes() -> impl TypedValueParser<Value = Mode> {
    const MODES: [(Mode, &str); 2] = [
        (Mode::Enforce, "Block and kill are carried out"),
        (Mode::Audit, "Nothing is denied; reports say what would have been"),
    ];
    PossibleValuesParser::new(MODES.map(|(mode, help)| PossibleValue::new(mode.as_str()).help(help))).try_map(
        |word| {
            let found = MODES.into_iter().find(|(mode, _)| mode.as_str() == word);
            found.map(|(mode, _)| mode).ok_or("not a mode")
        },
    )
}
