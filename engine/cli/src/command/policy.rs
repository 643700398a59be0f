//! `tidegate policy`: inspects policies and the policy language.

use std::{fmt::Write, process::ExitCode};

use engine_common::image::Revision;
use serde_json::json;

use super::{
    policy_args::{DumpArgs, PolicyArgs, PolicyCommand},
    policy_files, policy_show,
};
use crate::{
    Exit, Failure, Output,
    output::{document, print},
};
use tidegate_core::{
    compile::{Identities, compile, dump},
    policy,
};

/// Runs the subcommand.
///
/// # Errors
/// When a policy is not valid or not attached, or the result cannot be written.
pub fn run(args: &PolicyArgs, output: Output) -> Result<ExitCode, Failure> {
    match &args.command {
        PolicyCommand::Show(args) => policy_show::run(args, output),
        PolicyCommand::Dump(args) => dump_tables(args, output),
        PolicyCommand::Sets => print(&sets(output)),
        PolicyCommand::Schema => print(&format!("{:#}\n", json!(policy::schema()))),
    }
}

fn dump_tables(args: &DumpArgs, output: Output) -> Result<ExitCode, Failure> {
    let context = args.variables.context();
    let files = std::slice::from_ref(&args.file);
    for sourced in policy_files::load_all(files, &context, output, Exit::CouldNotRun)? {
        let policy = &sourced.policy;
        let executables = Identities::synthetic(policy);
        let revision = Revision {
            generation: 1,
            mode: policy.mode,
        };
        let image =
            compile(policy, &executables, revision).map_err(|e| Failure::by(Exit::CouldNotRun, &e))?;
        let rules: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
        let text = dump::dump(&image, &rules, args.limit);
        match output {
            Output::Text => print(&format!("policy {}\n{text}", policy.name))?,
            Output::Json => print(&document(&json!({
                "policy": policy.name,
                "pages": image.pages().len(),
                "bytes": size_of_val(image.pages()),
                "rules": rules,
                "tables": text.lines().collect::<Vec<_>>(),
            })))?,
        };
    }
    Ok(Exit::Success.into())
}

fn sets(output: Output) -> String {
    let members = |set: &policy::builtin::Builtin| -> Vec<serde_json::Value> {
        let members = set.members.iter();
        members
            .map(|(network, source)| json!({"network": network, "source": source}))
            .collect()
    };
    if output == Output::Json {
        let all: Vec<_> = policy::builtin::all()
            .iter()
            .map(|set| json!({"name": format!("@{}", set.name), "about": set.about, "members": members(set)}))
            .collect();
        return document(&json!({ "sets": all }));
    }
    let mut text = String::new();
    for set in policy::builtin::all() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "@{}: {}", set.name, set.about);
        for (network, source) in set.members {
            let _ = writeln!(text, "  {network:<22} {source}");
        }
        if set.members.is_empty() {
            let _ = writeln!(
                text,
                "  the name servers in /etc/resolv.conf when the policy is loaded"
            );
        }
    }
    text
}
