//! `tidegate attach`: attaches policies to cgroups.

use std::{
    fmt::Write,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    ValueHint,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use engine_common::Mode;
use serde_json::json;

use super::{
    attached,
    cgroup_args::CgroupArgs,
    exec::args::modes,
    existing_text,
    policy_files::{self, SourcedPolicy},
};
use crate::{
    Exit, Failure, Output, environment,
    help::HelpEnd,
    output::{document, print},
    variable_args::VariableArgs,
};
use tidegate_core::{
    cgroup::{CgroupHandle, Hierarchy},
    control::{AttachRequest, Control, Existing},
    events::escape::escaped,
};

/// Attach policies to a cgroup
///
/// Use it for services and sessions that run permanently. After `attach` returns, the policy applies to all processes
/// of the cgroup and of the cgroups below it; connections that exist already continue (see --existing). Programs and
/// maps are pinned in the kernel: no tidegate process needs to keep running.
///
/// The policy stays attached until `tidegate detach`, or until the cgroup is removed. A restarted service has a new
/// cgroup, and a reboot removes all cgroups: attach the policy again then. docs/recipes.md shows how systemd does it at
/// each start of a service. Needs root.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["policy", "batch"]),
    group = clap::ArgGroup::new("where").required(true).args(CgroupArgs::OPTIONS).arg("batch"),
    override_usage = "tidegate attach [OPTIONS] --policy <FILE> (--cgroup <PATH>|--unit <NAME>|--pid <PID>|--host)\n       \
                      tidegate attach [OPTIONS] --batch <FILE>",
    after_help = help()
)]
pub struct AttachArgs {
    /// Policy file; repeatable: all policies are evaluated and the strictest verdict is enforced
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub policy: Vec<PathBuf>,

    /// Name for the attached policy, instead of the name in the file
    #[arg(long, value_name = "NAME", conflicts_with = "batch")]
    pub name: Option<String>,

    /// Enforce verdicts or only report them; overrides the mode of the policy
    #[arg(long, value_name = "MODE", value_parser = modes())]
    pub mode: Option<Mode>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub cgroup: CgroupArgs,

    /// File with many attachments, one per line; `-` is standard input
    ///
    /// A line is POLICY_FILE CGROUP [NAME], separated by spaces or tabs; a path cannot contain them. CGROUP is a
    /// path as for --cgroup. NAME replaces the name in the file; each name may occur once, so use NAME to attach one
    /// file twice. Empty lines and lines that start with `#` are ignored. All lines are checked first: if one is not
    /// valid, nothing is attached.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub batch: Option<PathBuf>,

    /// Attach the policy even if this kernel can enforce only a part of it
    #[arg(long)]
    pub best_effort: bool,

    /// How to handle sockets that exist already in the cgroup and in the cgroups below it
    ///
    /// A policy decides when a socket connects, so an existing connection continues. With `audit` and `destroy`,
    /// tidegate lists existing sockets after the policy is attached, and reports each one for which the verdict is
    /// audit, block or kill, with its processes and the rule. Inbound connections are not changed. In audit mode no
    /// socket is destroyed.
    #[arg(long, value_name = "ACTION", value_parser = existing(), default_value = "allow")]
    pub existing: ExistingChoice,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}

fn help() -> String {
    HelpEnd {
        notes: &["To put one policy on several cgroups, run `attach` once for each cgroup."],
        examples: &[
            (
                "Attach a policy to a systemd service",
                &["sudo tidegate attach --policy shop.yaml --unit shop.service"],
            ),
            (
                "Only report first, then enforce",
                &[
                    "sudo tidegate attach --policy shop.yaml --unit shop.service --mode audit",
                    "sudo tidegate events --follow",
                    "sudo tidegate set-mode shop enforce",
                ],
            ),
            (
                "Attach to the cgroup of process 4711, such as its login session",
                &["sudo tidegate attach --policy session.yaml --pid 4711"],
            ),
            (
                "Destroy existing connections that the policy denies",
                &[
                    "sudo tidegate attach --policy shop.yaml --unit shop.service \\",
                    "  --existing destroy",
                ],
            ),
            (
                "Attach two policies at once",
                &[
                    "printf '%s\\n' 'shop.yaml /system.slice/shop.service' \\",
                    "  'mail.yaml /system.slice/mail.service' > attachments.txt",
                    "sudo tidegate attach --batch attachments.txt",
                ],
            ),
        ],
        exits: &[
            (Exit::Success, "attached"),
            (Exit::CouldNotRun, "could not run; nothing was changed"),
            (Exit::Usage, "invalid command line"),
            (Exit::PolicyInvalid, "a policy is not valid"),
            (
                Exit::Partial,
                "attached, but not fully enforced, or a socket was not destroyed",
            ),
        ],
        ..HelpEnd::default()
    }
    .text()
}

/// How to handle existing sockets; `None` does not look for them.
pub type ExistingChoice = Option<Existing>;

fn existing() -> impl TypedValueParser<Value = ExistingChoice> {
    const CHOICES: [(&str, ExistingChoice, &str); 3] = [
        ("allow", None, "Do not look for them"),
        ("audit", Some(Existing::Audit), "Report them; they continue"),
        (
            "destroy",
            Some(Existing::Destroy),
            "Destroy those that a policy blocks or kills",
        ),
    ];
    PossibleValuesParser::new(CHOICES.map(|(word, _, help)| PossibleValue::new(word).help(help))).try_map(
        |word| {
            let found = CHOICES.into_iter().find(|(name, ..)| *name == word);
            found.map(|(_, choice, _)| choice).ok_or("not a choice")
        },
    )
}

/// Attaches.
///
/// # Errors
/// When a policy is not valid or cannot be attached; then nothing is.
pub fn run(args: &AttachArgs, output: Output) -> Result<ExitCode, Failure> {
    attached::require_root("attach")?;
    let invocation = environment::invocation()?;
    let hierarchy = attached::hierarchy()?;
    let requests = match &args.batch {
        Some(file) => from_batch(args, file, &hierarchy, output)?,
        None => from_flags(args, &hierarchy, output)?,
    };
    if let Some(existing) = args.existing {
        existing.is_possible().map_err(attached::failed)?;
    }
    let mut control =
        Control::open_or_make(&invocation, hierarchy, attached::waiting).map_err(attached::failed)?;
    let attached = control
        .attach(requests, args.best_effort)
        .map_err(attached::failed)?;
    let existing = args
        .existing
        .map(|existing| control.existing(&attached, existing));
    let partial = attached.iter().any(|one| !one.partial.is_empty())
        || existing.as_ref().is_some_and(|report| !report.is_complete());
    let text = match output {
        Output::Json => match &existing {
            Some(report) => document(&json!({ "attached": attached, "existing": report })),
            None => document(&json!({ "attached": attached })),
        },
        Output::Text => {
            let mut text = String::new();
            for one in &attached {
                let verb = if one.already {
                    "already attached"
                } else {
                    "attached"
                };
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "{verb} policy {} to {} (mode {}, generation {})",
                    one.policy,
                    escaped(one.cgroup.as_bytes()),
                    one.mode.as_str(),
                    one.generation
                );
                text += &attached::partial_lines(&one.partial);
            }
            if let Some(report) = &existing {
                text += &existing_text::text(report);
            }
            text
        }
    };
    print(&text)?;
    Ok(if partial { Exit::Partial } else { Exit::Success }.into())
}

fn from_flags(
    args: &AttachArgs,
    hierarchy: &Hierarchy,
    output: Output,
) -> Result<Vec<AttachRequest>, Failure> {
    if args.name.is_some() && args.policy.len() > 1 {
        return Err(Failure::of(Exit::Usage, "--name requires exactly one --policy"));
    }
    let policies =
        policy_files::load_all(&args.policy, &args.variables.context(), output, Exit::CouldNotRun)?;
    let mut requests = Vec::new();
    for sourced in policies {
        // Each request owns an open directory of the cgroup.
        let Some(cgroup) = args.cgroup.locate(hierarchy)? else {
            return Err(Failure::of(Exit::Usage, "no cgroup given"));
        };
        requests.push(request(sourced, args.name.clone(), args.mode, cgroup));
    }
    Ok(requests)
}

fn request(
    sourced: SourcedPolicy,
    name: Option<String>,
    mode: Option<Mode>,
    cgroup: CgroupHandle,
) -> AttachRequest {
    let SourcedPolicy {
        mut policy,
        source,
        definition,
    } = sourced;
    if let Some(mode) = mode {
        policy.mode = mode;
    }
    AttachRequest {
        mode,
        name: name.unwrap_or_else(|| policy.name.clone()),
        source: full_path(&source),
        definition,
        policy,
        cgroup,
    }
}

/// The absolute path: records are read later, from other working directories.
pub(super) fn full_path(source: &str) -> String {
    fs::canonicalize(source).map_or_else(|_| source.to_owned(), |path| path.display().to_string())
}

fn from_batch(
    args: &AttachArgs,
    file: &Path,
    hierarchy: &Hierarchy,
    output: Output,
) -> Result<Vec<AttachRequest>, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        fs::read_to_string(file).map(|read| text = read)
    };
    let shown = file.display();
    read.map_err(|error| Failure::of(Exit::CouldNotRun, format!("cannot read {shown}")).because(&error))?;
    let context = args.variables.context();
    let mut requests = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let position = format!("{shown}:{number}");
        let words: Vec<&str> = line.split_whitespace().collect();
        let (policy, cgroup, name) = match words.as_slice() {
            [] => continue,
            [first, ..] if first.starts_with('#') => continue,
            [policy, cgroup] => (policy, cgroup, None),
            [policy, cgroup, name] => (policy, cgroup, Some((*name).to_owned())),
            _ => {
                let message = format!("{position}: expected POLICY_FILE CGROUP [NAME], found `{line}`");
                return Err(Failure::of(Exit::Usage, message));
            }
        };
        let located = CgroupArgs {
            cgroup: Some(cgroup.into()),
            host: args.cgroup.host,
            ..CgroupArgs::default()
        };
        let located = located
            .locate(hierarchy)
            .map_err(|failure| failure.at(&position))?;
        let Some(cgroup) = located else {
            continue;
        };
        let sourced = policy_files::load_all(&[policy.into()], &context, output, Exit::CouldNotRun)
            .map_err(|failure| failure.at(&position))?;
        // A file has one policy.
        let Some(sourced) = sourced.into_iter().next() else {
            continue;
        };
        requests.push(request(sourced, name, args.mode, cgroup));
    }
    Ok(requests)
}
