//! `--set` and `--env`: values for the variables of policies.

use tidegate_core::policy::{LoadContext, is_variable_name};

// Set on each flag: `next_help_heading` would apply to all arguments that follow.
const HEADING: &str = "Policy variables";

/// Values of `${NAME}` in policies.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct VariableArgs {
    /// Set the policy variable ${NAME}. If ${NAME} is an item of a YAML list, VALUE can have several items, separated
    /// by spaces or commas. A variable that no policy uses is ignored
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment, help_heading = HEADING)]
    pub set: Vec<(String, String)>,

    /// Take variables without --set from the environment
    #[arg(long, help_heading = HEADING)]
    pub env: bool,
}

impl VariableArgs {
    /// The context to load policies with: these variables and the name servers of this machine.
    pub fn context(&self) -> LoadContext {
        LoadContext::from_system(&self.set, self.env.then(std::env::vars_os).into_iter().flatten())
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("expected NAME=VALUE".to_owned());
    };
    if !is_variable_name(name) {
        return Err(format!(
            "invalid variable name `{name}`: use letters, digits and `_`, and do not begin with a digit"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_split_at_the_first_equals_sign() {
        assert_eq!(assignment("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(assignment("A="), Ok(("A".to_owned(), String::new())));
        assert!(assignment("A").is_err());
        assert!(assignment("1A=b").is_err());
    }
}
