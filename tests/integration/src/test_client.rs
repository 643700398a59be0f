//! The client program of the tests, as they call it.

use std::{
    ffi::OsString,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{captured::Captured, client_result::ClientResult, egress_method::EgressMethod};

/// The built client program. Only tests know where cargo put it, so each says
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

    /// The words that send it out one way.
    pub fn words(&self, way: EgressMethod, to: SocketAddr, via: Option<SocketAddr>) -> Vec<OsString> {
        let mut words = self.task("go", &[way.name(), &to.to_string()]);
        if let Some(via) = via {
            words.push(format!("--via={via}").into());
        }
        words
    }

    /// The words for another of its tasks.
    pub fn task(&self, task: &str, arguments: &[&str]) -> Vec<OsString> {
        let mut words = vec![self.0.clone().into_os_string(), OsString::from(task)];
        words.extend(arguments.iter().map(OsString::from));
        words
    }

    /// Sends it out without a gate.
    ///
    /// # Panics
    /// When it does not tell how it went.
    pub fn go_plain(&self, way: EgressMethod, to: SocketAddr, via: Option<SocketAddr>) -> ClientResult {
        let words = self.words(way, to, via);
        let ended = Captured::run(Command::new(&words[0]).args(&words[1..]));
        ended.expect_code(0);
        let told = ClientResult::read(&ended.stdout).pop();
        told.unwrap_or_else(|| panic!("{way:?} told nothing: {}", ended.stderr))
    }
}
