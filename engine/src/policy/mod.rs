//! What the operator means: from the text of a policy file to a validated [`Policy`]. Pure: no
//! kernel, no aya; files are read only through [`source`](self).

pub mod address_set;
pub mod model;

pub use address_set::AddressSet;
pub use model::{Binary, Errno, Policy, PortRange, Rule, Service, Services, Subject};
