//! `--allow` and `--deny`: rules on the command line, in their order.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use engine_common::Action;

const FLAGS: [(&str, Action, &str, &str); 2] = [
    (
        "allow",
        Action::Allow,
        "Allow connections to SPEC",
        "Allow connections to SPEC: an address, network, set or host name, with an optional port and protocol. \
         Examples: 10.0.0.0/8, 192.0.2.1:443, [2001:db8::1]:53/udp, @private:5432, www.example.com:443, *:53/udp. \
         Without a protocol, SPEC matches every protocol, or with a port every protocol that has ports (TCP, UDP, ...). \
         A host name is resolved once, when the command starts. The first matching --allow or --deny decides",
    ),
    (
        "deny",
        Action::Block,
        "Deny connections to SPEC",
        "Deny connections to SPEC, written as for --allow",
    ),
];

/// The rules of the command line. Implemented by hand: only the indices of the matches give the order of
/// two different flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleFlags {
    rules: Vec<(Action, String)>,
}

impl RuleFlags {
    /// The action and the SPEC of each flag, in the order of the command line.
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
