//! Why a validated policy cannot become an image.

use std::path::PathBuf;

use engine_common::image::Dimension;

/// What keeps a policy from being compiled. Only limits, and what the caller has to bring along.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// A rule names an executable whose identity is not known.
    #[error(
        "rule {rule:?} names the executable {}, which was not found here: correct the path, or install it first",
        path.display()
    )]
    MissingExecutable {
        /// The rule.
        rule: String,
        /// The path it names.
        path: PathBuf,
    },
    /// A rule names a unix socket whose place is not known.
    #[error("rule {rule:?} names the unix socket {name}, which was not looked up here")]
    MissingSocket {
        /// The rule.
        rule: String,
        /// The name, as policies write it.
        name: String,
    },
    /// More rules than a bitmap has bits.
    #[error("the policy has {rules} rules; at most {limit} are possible: join some, or use two policies")]
    TooManyRules {
        /// How many it has.
        rules: usize,
        /// How many it may have.
        limit: usize,
    },
    /// More address ranges than can be compiled in reasonable time and memory.
    #[error(
        "the rules cover {ranges} address ranges in all, at most {limit} are possible (a set counts \
         once for each rule that uses it): use the set in fewer rules"
    )]
    TooManyRanges {
        /// How many there are, over all rules.
        ranges: usize,
        /// How many there may be.
        limit: usize,
    },
    /// More NAT64 prefixes than the header has room for.
    #[error("the policy has {prefixes} NAT64 prefixes; at most {limit} are possible: leave some out")]
    TooManyNat64Prefixes {
        /// How many it has.
        prefixes: usize,
        /// How many it may have.
        limit: usize,
    },
    /// A protocol number that the tables have no room for.
    #[error("rule {rule:?} names the protocol {protocol}, which is not below {limit}: correct the number")]
    UnknownProtocol {
        /// The rule.
        rule: String,
        /// The number.
        protocol: u16,
        /// First number that is none.
        limit: u16,
    },
    /// The image would be too big.
    #[error(
        "the policy needs more than {limit} pages of 4 KiB: use fewer addresses, or fewer rules \
         whose addresses overlap"
    )]
    TooManyPages {
        /// How many pages an image may have.
        limit: u32,
    },
    /// A line has more intervals than its search can tell apart.
    #[error(
        "the rules cut the {line:?} line into {intervals} intervals, which is too many: use fewer addresses"
    )]
    TooManyIntervals {
        /// The line.
        line: Dimension,
        /// The intervals of the fullest part of it.
        intervals: usize,
    },
}
