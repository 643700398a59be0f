//! The command lines of the test client.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{client_result::ClientResult, egress_method::EgressMethod, running_command::RunningCommand};

/// The built test client. Cargo gives its path to tests only, so each test uses
/// `TestClient::at(env!("CARGO_BIN_EXE_test-client"))`.
#[derive(Clone, Debug)]
pub struct TestClient(PathBuf);

impl TestClient {
    /// The program at this path.
    pub fn at(path: impl Into<PathBuf>) -> TestClient {
        TestClient(path.into())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The command line that runs an egress method.
    pub fn args(&self, method: EgressMethod, to: SocketAddr, via: Option<SocketAddr>) -> Vec<OsString> {
        let mut args = self.task("run", &[method.name(), &to.to_string()]);
        if let Some(via) = via {
            args.push(format!("--via={via}").into());
        }
        args
    }

    /// The command line of another task.
    pub fn task(&self, task: &str, arguments: &[&str]) -> Vec<OsString> {
        let mut args = vec![self.0.clone().into_os_string(), OsString::from(task)];
        args.extend(arguments.iter().map(OsString::from));
        args
    }

    /// Runs an egress method without a policy and returns the result.
    ///
    /// # Panics
    /// When it reports none.
    pub fn run_without_policy(
        &self,
        method: EgressMethod,
        to: SocketAddr,
        via: Option<SocketAddr>,
    ) -> ClientResult {
        let args = self.args(method, to, via);
        let output = RunningCommand::run(Command::new(&args[0]).args(&args[1..]));
        output.expect_code(0);
        let result = ClientResult::read(&output.stdout).pop();
        result.unwrap_or_else(|| panic!("no result of {method:?}: {}", output.stderr))
    }
}
