//! `--set` and `--env`: values for the variables of policies.

use crate::policy::{LoadContext, is_variable_name};

// On each flag: `next_help_heading` would go on over whatever comes after them.
const HEADING: &str = "Variables of policies";

/// Values for `${NAME}` in policies.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct VariableArgs {
    /// Give the variable ${NAME} of a policy its value; in a list it may stand for several items, split by
    /// spaces or commas
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment, help_heading = HEADING)]
    pub set: Vec<(String, String)>,

    /// Take variables that --set does not give from the environment
    #[arg(long, help_heading = HEADING)]
    pub env: bool,
}

impl VariableArgs {
    /// What policies are loaded with on this machine.
    pub fn context(&self) -> LoadContext {
        LoadContext::from_system(&self.set, self.env)
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("write NAME=VALUE".to_owned());
    };
    if !is_variable_name(name) {
        return Err(format!(
            "`{name}` cannot be the name of a variable: it has letters, digits and `_`, no digit first"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_split_at_the_first_sign() {
        assert_eq!(assignment("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(assignment("A="), Ok(("A".to_owned(), String::new())));
        assert!(assignment("A").is_err());
        assert!(assignment("1A=b").is_err());
    }
}
