//! The policy language: parses the text of a policy file into a validated [`Policy`]. Knows nothing of the
//! kernel. Reads only the policy files and address files that are named.
//!
//! ```text
//! text -> yaml (tree with spans) -> variable (substitution) -> validate -> Policy + diagnostics
//! command-line flags             -> flags ----------------------------> Policy
//! RawPolicy -> to_yaml -> text
//! ```
//!
//! Loading reports all errors of a file at once, each with its location and a correction.

mod address_file;
pub mod address_set;
pub mod builtin;
mod dedup;
mod definition;
pub mod diagnostic;
pub mod explain_target;
mod family;
mod fields;
pub mod from_flags;
mod hooks;
mod load;
mod load_context;
pub mod model;
mod name;
mod nearest;
mod network;
mod path;
mod port;
mod process;
pub mod raw;
mod render;
mod resolvers;
mod rule;
mod rule_flag;
mod service;
mod set;
mod set_order;
mod shadow;
mod source;
mod unix;
mod validate;
mod variable;
mod write;
mod yaml;
mod yaml_node;

pub use address_set::AddressSet;
pub use definition::PolicyDefinition;
pub use diagnostic::{Code, Diagnostic, Severity, SourceLocation};
pub use explain_target::{Destination, Target, TargetError, parse_destination, parse_target};
pub use from_flags::{FlagError, FlagPolicy, from_flags};
pub use load::{LoadResult, load, load_stream, load_text};
pub use load_context::LoadContext;
pub use model::{
    Binary, Dedup, Errno, Hooks, Policy, PortRange, Rule, Service, Services, Subject, UnixName, UnixSockets,
};
pub use raw::{RawPolicy, schema};
pub use source::{MAX_ADDRESS_FILE_BYTES, MAX_POLICY_BYTES};
pub use variable::{MAX_SUBSTITUTED_BYTES, Variables, is_variable_name};
pub use write::{WriteError, to_yaml};
