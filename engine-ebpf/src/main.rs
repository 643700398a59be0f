//! The kernel programs of Tidegate: one set for all policies. Each hook turns its context into a
//! question, [`gate`] asks every policy of the scope, and the strictest answer is returned.
//!
//! A program runs for a cgroup through its attachment; which policies stand there it learns from
//! the cgroup storage ([`scope`]). What differs between kernels is decided in user space at load
//! and arrives as read-only constants ([`features`]).
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod counter;
#[cfg(target_arch = "bpf")]
mod dedup;
#[cfg(target_arch = "bpf")]
mod egress_filter;
#[cfg(target_arch = "bpf")]
mod enforce;
#[cfg(target_arch = "bpf")]
mod features;
#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
mod images;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod local_address;
#[cfg(target_arch = "bpf")]
mod lsm;
#[cfg(target_arch = "bpf")]
mod migration;
#[cfg(target_arch = "bpf")]
mod report;
#[cfg(target_arch = "bpf")]
mod request;
#[cfg(target_arch = "bpf")]
mod scope;
#[cfg(target_arch = "bpf")]
mod sender;
#[cfg(target_arch = "bpf")]
mod socket_user;
#[cfg(target_arch = "bpf")]
mod subject;
#[cfg(target_arch = "bpf")]
mod task_scope;
#[cfg(target_arch = "bpf")]
mod tracer;

/// The kernel wants a licence that its GPL-only helpers (probe_read, send_signal) accept.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Nothing here can panic once optimised; the verifier refuses an endless loop if something does.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The crate is for the kernel; on the host it is empty, so that workspace commands may name it.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
