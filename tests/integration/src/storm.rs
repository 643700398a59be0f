//! What a storm of attempts came to: how often each result was seen of each call to each place.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// One kind of result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weather {
    /// Where to.
    pub to: SocketAddr,
    /// `connect` or `sendto`.
    pub call: String,
    /// `ok`, or the kernel's name of the error.
    pub result: String,
    /// How often.
    pub count: u64,
}

impl Weather {
    /// What a storm told, in its output.
    ///
    /// # Panics
    /// When it told nothing.
    pub fn read(output: &str) -> Vec<Weather> {
        let line = output.lines().find(|line| line.starts_with('['));
        let line = line.unwrap_or_else(|| panic!("the storm told nothing: {output}"));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}
