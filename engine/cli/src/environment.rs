//! Reads the environment of the program: variables, user and command line. No other crate reads them.

use jiff::Timestamp;

use super::{Exit, Failure};
use tidegate_core::{
    control::{Actor, Invocation},
    datapath::disable_words,
    instance::Instance,
    launch,
};

/// The instance that the environment names.
///
/// # Errors
/// When a variable has a value that is not accepted; exits with `exit`.
pub fn instance(exit: Exit) -> Result<Instance, Failure> {
    Instance::from_variables(|name| std::env::var_os(name), &disable_words())
        .map_err(|error| Failure::by(exit, &error))
}

/// This invocation, for changes of attached policies.
///
/// # Errors
/// When a variable has a value that is not accepted.
pub fn invocation() -> Result<Invocation, Failure> {
    let words = std::env::args_os().skip(1).take(2);
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    Ok(Invocation {
        instance: instance(Exit::Usage)?,
        actor: actor(),
        command: format!("tidegate {}", words.join(" ")),
        now: Timestamp::now,
    })
}

/// The variables of this process, for commands that it runs.
pub fn variables() -> launch::Environment {
    std::env::vars_os().collect()
}

/// The user who runs this process, and the one who called sudo.
fn actor() -> Actor {
    Actor {
        uid: nix::unistd::getuid().as_raw(),
        sudo_user: std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty()),
    }
}
