//! Every way out of a process, tried against receivers of our own: what arrived there did get out.
//!
//! ```text
//! Network (a namespace, loopback only) -> Receiver (outside the gate)   <- what arrived
//!                                      -> voyager, in a cgroup, goes a Way -> Voyage
//! ```

mod link;
pub mod network;
pub mod receiver;
pub mod voyage;
pub mod voyager;
pub mod way;
