//! The kernel programs of Tidegate: one set for all policies. Each hook turns its context into a
//! [`request`], [`evaluate`] evaluates it for each policy of the scope, [`enforce`] enforces and [`report`]s the
//! verdicts, and the program returns the strictest outcome.
//!
//! Cgroup programs find the policies of the cgroup they are attached to in the cgroup storage ([`scope`]), the
//! others by the calling task's cgroup ([`task_scope`]). User space detects the features of the kernel when it loads
//! the programs and passes them as read-only constants ([`features`]).
#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod cgroup_hooks;
#[cfg(target_arch = "bpf")]
mod counter;
#[cfg(target_arch = "bpf")]
mod dedup;
#[cfg(target_arch = "bpf")]
mod egress_filter;
#[cfg(target_arch = "bpf")]
mod enforce;
#[cfg(target_arch = "bpf")]
mod evaluate;
#[cfg(target_arch = "bpf")]
mod features;
#[cfg(target_arch = "bpf")]
mod images;
#[cfg(target_arch = "bpf")]
mod kernel_memory;
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
mod sending_socket;
#[cfg(target_arch = "bpf")]
mod socket_user;
#[cfg(target_arch = "bpf")]
mod subject;
#[cfg(target_arch = "bpf")]
mod task_scope;
#[cfg(target_arch = "bpf")]
mod tracer;
#[cfg(target_arch = "bpf")]
mod unspecified;

/// GPL-only helpers (probe_read, send_signal) require a compatible licence.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Optimised code contains no panic; if one were left, the verifier would reject the endless loop.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// On other targets the crate is empty, so that workspace commands can include it.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
