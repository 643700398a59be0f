//! Tries every known egress method against local receivers, without a policy and under one. What arrives at a
//! receiver was not blocked, whatever an event says.
//!
//! ```text
//! Network (namespace, loopback only) -> Receiver (outside the policy)              <- what arrived
//!                                    -> test client in a cgroup runs its TestCase  -> ClientResult, events
//! ```

pub mod client;
pub mod client_result;
pub mod egress_method;
mod expectation;
mod fixture;
pub mod network;
pub mod receiver;
pub mod report;
mod rtnetlink;
mod run_case;
mod test_case;

use nix::sys::utsname::uname;
use thiserror::Error;

pub use self::expectation::built_in;
use self::{
    expectation::Expectation,
    fixture::Fixture,
    network::{Network, NetworkError},
    receiver::ReceiverError,
    report::{CaseResult, Report},
};
use tidegate_core::{
    cgroup::{Hierarchy, HierarchyError},
    datapath,
    hint::Hint,
    host::{Requirements, unmet},
    instance::Instance,
    launch::{Environment, SignalError, SignalSource, sweep_stale},
    policy::Policy,
};

/// Why the self-test could not start, or not finish.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SelftestError {
    /// The built-in policy has errors; its diagnostics, as text.
    #[error("internal error: the built-in policy is not valid:\n{0}")]
    BuiltIn(String),
    /// The policy could not be compiled, or the executables of its rules not be identified.
    #[error("failed to compile the policy")]
    Policy(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The network namespace could not be created or configured.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A receiver could not listen, or did not receive its own sentinel.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// No usable cgroup2 hierarchy.
    #[error(transparent)]
    Hierarchy(#[from] HierarchyError),
    /// The signals of this process could not be handled.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The programs could not be loaded, or not be attached to the cgroup of the test client.
    #[error("failed to attach the policy")]
    Datapath(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A test client could not be started, or not be waited for.
    #[error("failed to run a test client")]
    TestClient(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// SIGINT, SIGTERM or SIGHUP ended the self-test.
    #[error("interrupted")]
    Interrupted,
}

impl Hint for SelftestError {
    fn hint(&self) -> Option<String> {
        match self {
            SelftestError::BuiltIn(_) | SelftestError::Interrupted => None,
            SelftestError::Hierarchy(error) => error.hint(),
            _ => Some("`tidegate probe` shows what this machine supports".to_owned()),
        }
    }
}

/// Passed to the progress callback before each test case.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Test cases that are finished.
    pub done: usize,
    /// Test cases in total.
    pub total: usize,
    /// Name of the egress method that runs next.
    pub method: &'a str,
}

/// Runs every test case under a policy. Moves the calling thread to another network namespace permanently.
///
/// # Errors
/// When the environment of the tests cannot be set up. A bypass is not an error: it is part of the report.
pub fn run(
    instance: &Instance,
    environment: &Environment,
    policy: &Policy,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Report, SelftestError> {
    let signals = SignalSource::open()?;
    let hierarchy = Hierarchy::find()?;
    // Leftovers of an earlier run do not disturb this one.
    if let Err(error) = sweep_stale(&hierarchy) {
        tracing::warn!(%error, "failed to remove stale cgroups");
    }
    if let Err(error) = datapath::sweep(instance, |cgroup| hierarchy.has(cgroup)) {
        tracing::warn!(%error, "failed to remove stale pins");
    }
    let expectation = Expectation::of(policy)?;
    let image = expectation.image()?;
    let network = Network::enter()?;
    for (address, prefix) in test_case::addresses() {
        // Without the address its test cases fail already without a policy, and are reported as unsupported.
        if let Err(error) = network.add(address, prefix) {
            tracing::debug!(%error, "a destination address is not available");
        }
    }
    let fixture = Fixture::attach(instance, environment, &signals, &hierarchy, &image, policy)?;
    let cases = test_case::all();
    let results: Result<Vec<CaseResult>, SelftestError> = cases
        .iter()
        .enumerate()
        .map(|(done, case)| {
            progress(Progress {
                done,
                total: cases.len(),
                method: case.technique.name(),
            });
            run_case::run_case(&fixture, &expectation, case)
        })
        .collect();
    let unmet = unmet(&Requirements::of(policy), fixture.capabilities());
    fixture.remove();
    let kernel = uname().map_or_else(
        |errno| errno.to_string(),
        |names| names.release().to_string_lossy().into_owned(),
    );
    Ok(Report::new(kernel, policy, unmet, results?))
}
