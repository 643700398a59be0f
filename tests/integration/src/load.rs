//! The result of continuous load (task `load` of the test client): how often each call to each destination had each
//! result.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// How often a call to a destination had one result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCount {
    /// The destination.
    pub to: SocketAddr,
    /// `connect` or `sendto`.
    pub call: String,
    /// `ok`, or the kernel's name of the error.
    pub result: String,
    /// How often.
    pub count: u64,
}

impl CallCount {
    /// Reads the counts from the output of the test client.
    ///
    /// # Panics
    /// When it does not contain them.
    pub fn read(output: &str) -> Vec<CallCount> {
        let line = output.lines().find(|line| line.starts_with('['));
        let line = line.unwrap_or_else(|| panic!("no counts in {output}"));
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}
