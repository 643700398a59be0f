//! Arguments of `tidegate exec`.

use std::{ffi::OsString, os::fd::RawFd, path::PathBuf};

use clap::{
    Args, ValueEnum, ValueHint,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use engine_common::{Action, Mode};
use tidegate_core::launch::CgroupManager;

use crate::{Exit, command::rule_flags::RuleFlags, help::HelpEnd, variable_args::VariableArgs};

const CHILD: &str = "Command options";
const REPORT: &str = "Report options";

/// Run one command under a policy
///
/// Use it for builds, tests and scripts; nothing has to be set up. The command starts inside a new cgroup with the
/// policy attached; all processes that it starts are under the policy too. It runs as the user who called
/// sudo and keeps its terminal, signals and exit code. When it has ended, a report on standard error lists the
/// connections that were audited or denied, with the rule that decided. Needs root.
#[derive(Clone, Debug, Args)]
#[command(
    group = clap::ArgGroup::new("rules-or-policy").required(true).multiple(true)
        .args(["policy", "allow", "deny", "default"]),
    after_help = help(),
)]
pub struct ExecArgs {
    /// Policy file; repeatable: all policies are evaluated and the strictest verdict is enforced
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub policy: Vec<PathBuf>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub rule_flags: RuleFlags,

    /// Action for destinations that no --allow or --deny matches
    ///
    /// Default: block if there is an --allow, allow if there are only --deny flags. Beside --policy, these flags form
    /// one more policy, with a default of its own; it cannot allow what a policy file denies.
    #[arg(long, value_name = "ACTION", value_parser = actions())]
    pub default: Option<Action>,

    /// Enforce verdicts or only report them; overrides the mode of the policies
    #[arg(long, value_name = "MODE", value_parser = modes())]
    pub mode: Option<Mode>,

    /// Run the command even if this kernel can enforce only a part of the policies
    ///
    /// Without it, tidegate refuses such a policy and does not start the command. With it, the report lists what is not
    /// enforced; with --quiet, this is one line.
    #[arg(long)]
    pub best_effort: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,

    /// User to run the command as: a name, UID or UID:GID
    ///
    /// Default: the user who called sudo, or the current user.
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username, help_heading = CHILD)]
    pub user: Option<String>,

    /// Keep a capability that is dropped by default: a name such as CAP_NET_RAW (or net_raw), or `all`
    ///
    /// A command that runs as root loses the capabilities that allow it to leave the cgroup, change the
    /// policy or bypass it: CAP_SYS_ADMIN, CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_PTRACE,
    /// CAP_SYS_MODULE, CAP_SYS_RAWIO, CAP_SYS_BOOT, CAP_PERFMON and CAP_DAC_READ_SEARCH.
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = CHILD)]
    pub keep_capability: Vec<String>,

    /// Open file descriptors to pass to the command: a list such as 3,4, or `all`
    ///
    /// Standard input, output and error are always passed. All others are closed, because cgroup hooks do not check
    /// a socket that was created outside of the command's cgroup.
    #[arg(long, value_name = "FDS", value_parser = kept_fds, default_value = "", hide_default_value = true, help_heading = CHILD)]
    pub keep_fds: KeptFds,

    /// How to handle processes that outlive the command
    #[arg(long, value_name = "ACTION", value_enum, default_value_t, help_heading = CHILD)]
    pub descendants: DescendantsAction,

    /// What creates the cgroup of the command
    ///
    /// systemd creates a scope with Delegate=yes in the slice above the caller's cgroup: root owns it, so a command
    /// that runs as a user cannot leave it.
    #[arg(long, value_name = "MANAGER", value_enum, default_value_t, help_heading = CHILD)]
    pub cgroup_manager: CgroupManagerName,

    /// Do not print the report
    #[arg(long, short, help_heading = REPORT)]
    pub quiet: bool,

    /// Write all events and a summary to FILE as JSON lines; `-` is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = REPORT)]
    pub report: Option<PathBuf>,

    /// Print events to standard error as they occur
    #[arg(long, help_heading = REPORT)]
    pub live: bool,

    /// The command and its arguments, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

fn help() -> String {
    HelpEnd {
        notes: &[
            "If tidegate itself fails, it prints a line to standard error that begins with `tidegate: error:` (with \
             `--output json`, an object `error`). This tells its exit codes 2 and 3 from those of the command.",
        ],
        examples: &[
            (
                "See where a command connects to; nothing is denied",
                &["sudo tidegate exec --default audit -- curl https://www.example.com"],
            ),
            (
                "Allow one host and the name servers, deny everything else",
                &[
                    "sudo tidegate exec --allow www.example.com:443 \\",
                    "  --allow '@resolvers:53' -- curl https://www.example.com",
                ],
            ),
            (
                "The same for a build whose tests connect to this machine",
                &[
                    "sudo tidegate exec --allow www.example.com:443 \\",
                    "  --allow '@resolvers:53' --allow @loopback -- make test",
                ],
            ),
            (
                "Deny the metadata service of the cloud provider, but not its name server",
                &[
                    "sudo tidegate exec --allow '@resolvers:53' --deny @cloud-metadata \\",
                    "  --default allow -- curl https://www.example.com",
                ],
            ),
            (
                "Try a policy without enforcing it, and record all events",
                &["sudo tidegate exec -p shop.yaml --mode audit --report events.jsonl -- ./shop"],
            ),
            (
                "Use two policies, and set a variable that they use",
                &["sudo tidegate exec -p base.yaml -p shop.yaml --set DB=10.20.0.5 -- ./shop"],
            ),
        ],
        exits: &[
            (Exit::Usage, "invalid command line (or the exit code of the command)"),
            (
                Exit::PolicyInvalid,
                "a policy is not valid (or the exit code of the command)",
            ),
            (Exit::ExecFailed, "tidegate failed; the command was not started"),
            (Exit::NotExecutable, "the command cannot be executed"),
            (Exit::NotFound, "the command was not found"),
        ],
        other_exits: &[
            ("128+n", "signal n terminated the command"),
            ("other", "the exit code of the command"),
        ],
    }
    .text()
}

impl ExecArgs {
    /// The rules of --allow and --deny, in the order of the command line.
    pub fn rules(&self) -> Vec<(Action, String)> {
        self.rule_flags.rules().to_vec()
    }
}

/// How to handle processes that outlive the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DescendantsAction {
    /// Send SIGTERM, and SIGKILL after two seconds
    #[default]
    End,
    /// Wait until they exit
    Wait,
    /// Leave them running under the policy, and keep their cgroup
    Keep,
}

/// What creates the cgroup of the command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CgroupManagerName {
    /// systemd, when it runs and the caller is in a session or in cgroups of a user; otherwise cgroupfs
    #[default]
    Auto,
    /// systemd, as a transient scope
    Systemd,
    /// tidegate, below its own cgroup
    Cgroupfs,
}

impl From<CgroupManagerName> for CgroupManager {
    fn from(name: CgroupManagerName) -> CgroupManager {
        match name {
            CgroupManagerName::Auto => CgroupManager::Auto,
            CgroupManagerName::Systemd => CgroupManager::Systemd,
            CgroupManagerName::Cgroupfs => CgroupManager::Cgroupfs,
        }
    }
}

/// Which open file descriptors the command inherits, besides 0, 1 and 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeptFds {
    /// No others.
    #[default]
    Standard,
    /// These, each 3 or above.
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
            Ok(0..=2) => return Err(format!("{number} is always passed; leave it out")),
            Ok(fd) if fd > 2 => fds.push(fd),
            _ => return Err("expected `all` or a list of file descriptors such as 3,4".to_owned()),
        }
    }
    fds.sort_unstable();
    fds.dedup();
    Ok(KeptFds::Also(fds))
}

/// Accepts the action names of the policy language.
fn actions() -> impl TypedValueParser<Value = Action> {
    let helps = [
        "Allow, without a report",
        "Allow and report",
        "Deny and report",
        "Deny, kill the process, and report",
    ];
    let values = Action::ALL.into_iter().zip(helps);
    PossibleValuesParser::new(values.map(|(action, help)| PossibleValue::new(action.as_str()).help(help)))
        .try_map(|word| {
            let found = Action::ALL.into_iter().find(|action| action.as_str() == word);
            found.ok_or("not an action")
        })
}

/// Accepts the mode names of the policy language.
pub(crate) fn modes() -> impl TypedValueParser<Value = Mode> {
    const MODES: [(Mode, &str); 2] = [
        (
            Mode::Enforce,
            "Deny connections and kill processes as the rules say",
        ),
        (
            Mode::Audit,
            "Deny nothing; report what would be blocked or killed",
        ),
    ];
    PossibleValuesParser::new(MODES.map(|(mode, help)| PossibleValue::new(mode.as_str()).help(help))).try_map(
        |word| {
            let found = MODES.into_iter().find(|(mode, _)| mode.as_str() == word);
            found.map(|(mode, _)| mode).ok_or("not a mode")
        },
    )
}
