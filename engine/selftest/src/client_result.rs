//! What a test client reports about its run: one line of JSON.

use serde::{Deserialize, Serialize};

/// The step at which a run failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Setup before the measured calls: an io_uring, a connection to the first destination.
    Preparation,
    /// socket(2).
    Socket,
    /// connect(2), or the call that replaces it.
    Connect,
    /// Sending, with or without an address.
    Send,
    /// Waiting for data or for a connection.
    Receive,
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientResult {
    /// Name of the egress method.
    pub method: String,
    /// Whether every step succeeded.
    pub ok: bool,
    /// The kernel's name of the error, or `TIMEOUT` after [`TIMEOUT`](super::client::TIMEOUT), `DIED` when a
    /// thread or grandchild ended without a result.
    pub errno: Option<String>,
    /// The step that failed.
    pub step: Option<Step>,
}

impl ClientResult {
    /// A run in which every step succeeded.
    pub fn success(method: &str) -> ClientResult {
        ClientResult {
            method: method.to_owned(),
            ok: true,
            errno: None,
            step: None,
        }
    }

    /// A run that failed at a step.
    pub fn failure(method: &str, step: Step, errno: &str) -> ClientResult {
        ClientResult {
            method: method.to_owned(),
            ok: false,
            errno: Some(errno.to_owned()),
            step: Some(step),
        }
    }

    /// The results in a text; lines that are not results are skipped.
    pub fn read(text: &str) -> Vec<ClientResult> {
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// Whether the kernel does not implement the method: the error is not a denial.
    pub fn is_unsupported(&self) -> bool {
        let unsupported = [
            "EPROTONOSUPPORT",
            "ESOCKTNOSUPPORT",
            "EAFNOSUPPORT",
            "ENOSYS",
            "ENOPROTOOPT",
        ];
        matches!(self.step, Some(Step::Socket | Step::Preparation))
            && self
                .errno
                .as_deref()
                .is_some_and(|errno| unsupported.contains(&errno))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_a_round_trip() {
        let refused = ClientResult::failure("udp-sendto", Step::Send, "EPERM");
        let line = serde_json::to_string(&refused).unwrap();
        assert_eq!(
            line,
            r#"{"method":"udp-sendto","ok":false,"errno":"EPERM","step":"send"}"#
        );
        assert_eq!(ClientResult::read(&format!("noise\n{line}\n")), [refused]);
    }

    #[test]
    fn only_missing_kernel_support_is_unsupported() {
        assert!(ClientResult::failure("raw", Step::Socket, "EPROTONOSUPPORT").is_unsupported());
        assert!(!ClientResult::failure("raw", Step::Socket, "EPERM").is_unsupported());
        assert!(!ClientResult::failure("raw", Step::Send, "ENOSYS").is_unsupported());
        assert!(!ClientResult::success("raw").is_unsupported());
    }
}
