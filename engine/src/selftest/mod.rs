//! Every way out of a process, tried against receivers of our own: what arrived there did get out.
//!
//! ```text
//! Network (a namespace, loopback only) -> Receiver (outside the gate)            <- what arrived
//!                                      -> test client, in a cgroup, goes its TestCase  -> ClientResult, events
//! ```

pub mod client;
pub mod client_result;
pub mod egress_method;
mod fixture;
mod forbidden;
mod link;
pub mod network;
pub mod receiver;
pub mod report;
mod run_case;
mod test_case;

use nix::sys::utsname::uname;
use thiserror::Error;

pub use self::forbidden::built_in;
use self::{
    fixture::Bench,
    forbidden::Judge,
    network::{Network, NetworkError},
    receiver::ReceiverError,
    report::{Line, Report},
};
use crate::{
    cgroup::{Hierarchy, HierarchyError},
    datapath,
    instance::Instance,
    launch::{SignalError, SignalSource, sweep_stale},
    policy::Policy,
};

/// Why the self-test could not be made, or not to its end.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SelftestError {
    /// The built-in policy.
    #[error("the built-in policy is not valid:\n{0}")]
    BuiltIn(String),
    /// The policy cannot be put live.
    #[error("the policy cannot be put live")]
    Policy(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No network of our own.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A receiver.
    #[error(transparent)]
    Receiver(#[from] ReceiverError),
    /// The hierarchy of cgroups.
    #[error(transparent)]
    Hierarchy(#[from] HierarchyError),
    /// Signals.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// The gate.
    #[error("the gate cannot be made")]
    Gate(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A test client could not be sent, or not be waited for.
    #[error("a way cannot be tried")]
    TestClient(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A signal.
    #[error("interrupted")]
    Interrupted,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Ways that were tried.
    pub done: usize,
    /// Ways there are.
    pub all: usize,
    /// The one that is tried now.
    pub way: &'a str,
}

/// Tries every way under a policy. The calling thread is in another network namespace afterwards, for good.
///
/// # Errors
/// When something that it stands on cannot be had; what a way comes to is no error.
pub fn run(
    instance: &Instance,
    policy: &Policy,
    mut tell: impl FnMut(Progress<'_>),
) -> Result<Report, SelftestError> {
    let signals = SignalSource::open()?;
    let hierarchy = Hierarchy::find()?;
    // What resists is no reason not to run.
    if let Err(error) = sweep_stale(&hierarchy) {
        tracing::warn!(%error, "left-over cgroups were not looked for");
    }
    if let Err(error) = datapath::sweep(instance, |cgroup| hierarchy.has(cgroup)) {
        tracing::warn!(%error, "left-over pins were not removed");
    }
    let judge = Judge::of(policy)?;
    let image = judge.image()?;
    let network = Network::enter()?;
    for (address, prefix) in test_case::addresses() {
        // Without the address nothing arrives there, which its control run tells.
        if let Err(error) = network.add(address, prefix) {
            tracing::debug!(%error, "a destination less");
        }
    }
    let bench = Bench::set(instance, &signals, &hierarchy, &image, policy)?;
    let courses = test_case::all();
    let tried: Result<Vec<Line>, SelftestError> = courses
        .iter()
        .enumerate()
        .map(|(done, course)| {
            tell(Progress {
                done,
                all: courses.len(),
                way: course.passage.name(),
            });
            run_case::try_out(&bench, &judge, course)
        })
        .collect();
    bench.clear();
    Ok(Report {
        kernel: uname().map_or_else(
            |errno| errno.to_string(),
            |names| names.release().to_string_lossy().into_owned(),
        ),
        policy: policy.name.clone(),
        mode: policy.mode.as_str(),
        ways: tried?,
    })
}
