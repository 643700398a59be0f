//! `tidegate attach`: policies on cgroups, for as long as they should stand.

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
    attached::{self, CgroupArgs},
    exec::args::modes,
    existing_text,
    policy_files::{self, SourcedPolicy},
};
use crate::{
    cgroup::{Hierarchy, Located},
    cli::{Exit, Failure, Output, environment, output::print, variable::VariableArgs},
    control::{AttachRequest, Control, Existing},
    events::{escape::escaped, json::document},
};

/// Put policies on a cgroup, to stand until they are detached
///
/// What enforces is pinned in the kernel: no process of tidegate stays behind, and ending one changes
/// nothing. The policy holds for every process of the cgroup and of those below it, from one moment on,
/// for sockets made there; --existing looks for those that are connected already. It ends by `tidegate detach`, or with the cgroup.
#[derive(Clone, Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["policy", "batch"]),
    group = clap::ArgGroup::new("where").required(true).args(["cgroup", "unit", "pid", "host", "batch"]),
    after_help = "\
Examples:
  Hold a service to its policy:
    sudo tidegate attach --policy shop.yaml --unit shop.service
  See first what it would deny:
    sudo tidegate attach --policy shop.yaml --unit shop.service --mode audit
    sudo tidegate events --follow
    sudo tidegate set-mode shop enforce
  A login session, by any process in it:
    sudo tidegate attach --policy house.yaml --pid 4711
  Many at once, a line each: POLICY-FILE CGROUP [NAME]
    sudo tidegate attach --batch fleet.txt
  What is connected already and denied from now on: see it, then cut it
    sudo tidegate attach --policy shop.yaml --unit shop.service --existing audit
    sudo tidegate attach --policy shop.yaml --unit shop.service --existing destroy

Exit codes:
  0 they stand; 1 could not run, nothing was changed; 2 the command line is wrong; 3 a policy is
  not valid; 5 they stand, but this kernel cannot do all of what they say (--best-effort), or not all
  sockets that existed could be looked at, or cut (--existing)."
)]
pub struct AttachArgs {
    /// Policy file; given several times, all stand and the strictest answer holds
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub policy: Vec<PathBuf>,

    /// Name to stand under, instead of the policy's own
    #[arg(long, value_name = "NAME", conflicts_with = "batch")]
    pub name: Option<String>,

    /// Act on verdicts or only report them, whatever the policy says itself
    #[arg(long, value_name = "MODE", value_parser = modes())]
    pub mode: Option<Mode>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub cgroup: CgroupArgs,

    /// Attach what the lines of FILE say: POLICY-FILE CGROUP [NAME]; `-` is standard input
    ///
    /// Empty lines and those that start with `#` are passed over. Nothing is changed when one of them
    /// is wrong.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub batch: Option<PathBuf>,

    /// Take what this kernel can do of a policy, where it cannot do all
    #[arg(long)]
    pub best_effort: bool,

    /// What to do about sockets of the cgroup and those below that exist already
    ///
    /// A policy is asked when a socket connects: what is connected goes on. With `audit` or `destroy`
    /// those sockets are looked for when the policies stand, and each that they would not silently allow
    /// is told of, with its processes and the rule. Connections that others opened are left alone. In mode
    /// audit nothing is cut.
    #[arg(long, value_name = "WHAT", value_parser = existing(), default_value = "allow")]
    pub existing: ExistingChoice,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a doc comment here would replace the help text")]
    pub variables: VariableArgs,
}

/// What is done about sockets that exist; `None` where they are let be.
pub type ExistingChoice = Option<Existing>;

fn existing() -> impl TypedValueParser<Value = ExistingChoice> {
    const CHOICES: [(&str, ExistingChoice, &str); 3] = [
        ("allow", None, "They go on, and nobody looks"),
        ("audit", Some(Existing::Audit), "They go on, and are told of"),
        (
            "destroy",
            Some(Existing::Destroy),
            "Those that a policy blocks or kills for are cut",
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
/// When a policy is not valid or cannot stand there.
pub fn run(args: &AttachArgs, output: Output) -> Result<ExitCode, Failure> {
    attached::require_root("attach")?;
    let invocation = environment::invocation()?;
    let hierarchy = attached::hierarchy()?;
    let wanted = match &args.batch {
        Some(file) => from_batch(args, file, &hierarchy, output)?,
        None => from_flags(args, &hierarchy, output)?,
    };
    if let Some(existing) = args.existing {
        existing.is_possible().map_err(attached::failed)?;
    }
    let mut standing =
        Control::open_or_make(&invocation, hierarchy, attached::waiting).map_err(attached::failed)?;
    let attached = standing
        .attach(wanted, args.best_effort)
        .map_err(attached::failed)?;
    let existing = args
        .existing
        .map(|existing| standing.existing(&attached, existing));
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
                let already = if one.already { " already" } else { "" };
                // Writing to a string cannot fail.
                let _ = writeln!(
                    text,
                    "{} stands{already} on {} ({}, generation {})",
                    one.policy,
                    escaped(one.cgroup.as_bytes()),
                    one.mode.as_str(),
                    one.generation
                );
                for reason in &one.partial {
                    let _ = writeln!(text, "  partial: {reason}");
                }
            }
            if let Some(report) = &existing {
                text += &existing_text::text(report);
            }
            text
        }
    };
    print(&text)?;
    Ok(if partial { Exit::Partial } else { Exit::Fine }.into())
}

fn from_flags(
    args: &AttachArgs,
    hierarchy: &Hierarchy,
    output: Output,
) -> Result<Vec<AttachRequest>, Failure> {
    if args.name.is_some() && args.policy.len() > 1 {
        return Err(Failure::of(
            Exit::Usage,
            "--name is for one policy, and there are several",
        ));
    }
    let policies =
        policy_files::load_all(&args.policy, &args.variables.context(), output, Exit::CouldNotRun)?;
    let mut wanted = Vec::new();
    for sourced in policies {
        // One open directory each.
        let Some(cgroup) = args.cgroup.locate(hierarchy)? else {
            return Err(Failure::of(Exit::Usage, "there is no cgroup"));
        };
        wanted.push(to_wanted(sourced, args.name.clone(), args.mode, cgroup));
    }
    Ok(wanted)
}

fn to_wanted(
    sourced: SourcedPolicy,
    name: Option<String>,
    mode: Option<Mode>,
    cgroup: Located,
) -> AttachRequest {
    let SourcedPolicy { mut policy, source } = sourced;
    if let Some(mode) = mode {
        policy.mode = mode;
    }
    AttachRequest {
        mode,
        name: name.unwrap_or_else(|| policy.name.clone()),
        source: full_path(&source),
        policy,
        cgroup,
    }
}

/// The journal outlives the folder a command was run in.
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
    let mut wanted = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (policy, cgroup, name) = match words.as_slice() {
            [] => continue,
            [first, ..] if first.starts_with('#') => continue,
            [policy, cgroup] => (policy, cgroup, None),
            [policy, cgroup, name] => (policy, cgroup, Some((*name).to_owned())),
            _ => {
                let message = format!("{shown}:{number}: `{line}` is not POLICY-FILE CGROUP [NAME]");
                return Err(Failure::of(Exit::Usage, message));
            }
        };
        let located = CgroupArgs {
            cgroup: Some(cgroup.into()),
            host: args.cgroup.host,
            ..CgroupArgs::default()
        };
        let Some(cgroup) = located.locate(hierarchy)? else {
            continue;
        };
        let sourced = policy_files::load_all(&[policy.into()], &context, output, Exit::CouldNotRun)?;
        // One file, one policy.
        let Some(sourced) = sourced.into_iter().next() else {
            continue;
        };
        wanted.push(to_wanted(sourced, name, args.mode, cgroup));
    }
    Ok(wanted)
}
