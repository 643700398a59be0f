//! What a test client tells about its run: one line of JSON.

use serde::{Deserialize, Serialize};

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// What comes before: an io_uring, a first place to go to.
    Preparation,
    /// socket(2).
    Socket,
    /// connect(2), or what stands for it.
    Connect,
    /// Sending, with or without an address.
    Send,
    /// Waiting for what somebody else sends, or for somebody who connects.
    Receive,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientResult {
    /// The way that was tried.
    pub way: String,
    /// Whether all of it was done.
    pub ok: bool,
    /// The kernel's name of the error, `STALLED` for a wait that was given up, `DIED` for a process
    /// that told nothing.
    pub errno: Option<String>,
    /// The step that failed.
    pub step: Option<Step>,
}

impl ClientResult {
    /// A run without a failure.
    pub fn done(way: &str) -> ClientResult {
        ClientResult {
            way: way.to_owned(),
            ok: true,
            errno: None,
            step: None,
        }
    }

    /// A run that ended at a step.
    pub fn ended(way: &str, step: Step, errno: &str) -> ClientResult {
        ClientResult {
            way: way.to_owned(),
            ok: false,
            errno: Some(errno.to_owned()),
            step: Some(step),
        }
    }

    /// The results in a text of one JSON document a line; other lines are passed over.
    pub fn read(text: &str) -> Vec<ClientResult> {
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Whether this kernel does not have the way at all: nothing was refused.
    pub fn is_impossible(&self) -> bool {
        let absent = [
            "EPROTONOSUPPORT",
            "ESOCKTNOSUPPORT",
            "EAFNOSUPPORT",
            "ENOSYS",
            "ENOPROTOOPT",
        ];
        matches!(self.step, Some(Step::Socket | Step::Preparation))
            && self.errno.as_deref().is_some_and(|errno| absent.contains(&errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back() {
        let refused = ClientResult::ended("udp-sendto", Step::Send, "EPERM");
        let line = serde_json::to_string(&refused).unwrap();
        assert_eq!(
            line,
            r#"{"way":"udp-sendto","ok":false,"errno":"EPERM","step":"send"}"#
        );
        assert_eq!(ClientResult::read(&format!("noise\n{line}\n")), [refused]);
    }

    #[test]
    fn only_what_the_kernel_lacks_is_impossible() {
        assert!(ClientResult::ended("raw", Step::Socket, "EPROTONOSUPPORT").is_impossible());
        assert!(!ClientResult::ended("raw", Step::Socket, "EPERM").is_impossible());
        assert!(!ClientResult::ended("raw", Step::Send, "ENOSYS").is_impossible());
        assert!(!ClientResult::done("raw").is_impossible());
    }
}
