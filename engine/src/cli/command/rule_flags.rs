//! `--allow` and `--deny`: rules written on the command line, in the order they were given.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use engine_common::Action;

const FLAGS: [(&str, Action, &str, &str); 2] = [
    (
        "allow",
        Action::Allow,
        "Let the command reach SPEC",
        "Let the command reach SPEC: an address, network, set or name, with a port if only that is meant: \
         10.0.0.0/8, 192.0.2.1:443, [2001:db8::1]:53/udp, @private:5432, github.com:443, *:53/udp. Names are \
         resolved once, at the start. Of several --allow and --deny, the first that matches decides",
    ),
    (
        "deny",
        Action::Block,
        "Keep the command from reaching SPEC",
        "Keep the command from reaching SPEC, written as for --allow",
    ),
];

/// The rules of the command line. Not derived: only the indices of the matches know the order between
/// two different flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFlags {
    rules: Vec<(Action, String)>,
}

impl RuleFlags {
    /// What each flag says and its text, in the order of the command line.
    pub fn rules(&self) -> &[(Action, String)] {
        &self.rules
    }
}

impl Args for RuleFlags {
    fn augment_args(command: Command) -> Command {
        FLAGS
            .into_iter()
            .fold(command, |command, (id, _, help, long_help)| {
                command.arg(
                    Arg::new(id)
                        .long(id)
                        .value_name("SPEC")
                        .action(ArgAction::Append)
                        .help(help)
                        .long_help(long_help),
                )
            })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RuleFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<RuleFlags, Error> {
        let mut placed: Vec<(usize, Action, String)> = Vec::new();
        for (id, action, ..) in FLAGS {
            let indices = matches.indices_of(id).into_iter().flatten();
            let specs = matches.get_many::<String>(id).into_iter().flatten();
            placed.extend(
                indices
                    .zip(specs)
                    .map(|(index, spec)| (index, action, spec.clone())),
            );
        }
        placed.sort_by_key(|(index, ..)| *index);
        Ok(RuleFlags {
            rules: placed
                .into_iter()
                .map(|(_, action, spec)| (action, spec))
                .collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
