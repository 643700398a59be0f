//! Reading the kernel's structures.

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext, helpers::generated::bpf_probe_read_kernel};

/// Numbers, of which any bits are one.
pub(crate) trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),*) => {$(impl Plain for $type {})*};
}

plain!(u8, u16, u32, u64, [u64; 2], [u64; 3], [u64; 4], [u64; 5]);

/// Arguments of the function that a program is called from, as plain numbers: pointers that the verifier knows the
/// type of it does not let global functions have.
#[inline(always)]
pub(crate) fn arguments<const N: usize>(context: &impl EbpfContext) -> [u64; N]
where
    [u64; N]: Plain,
{
    read(context.as_ptr() as u64)
}

/// Reads what stands at an address; zero where it cannot be read. (No `Option`: see
/// `engine_common::verdict::VerdictWord`.)
#[inline(always)]
pub(crate) fn read<T: Plain>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address and fails instead of faulting; it fills the value with zeroes then
    // (`bpf_probe_read_kernel_common`, kernel/trace/bpf_trace.c), and any bits are a value of these types.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const _,
        );
        value.assume_init()
    }
}

/// Reads a field of a structure; zero where it cannot be read.
#[inline(always)]
pub(crate) fn field<T: Plain>(structure: u64, offset: u32) -> T {
    read(structure.wrapping_add(offset as u64))
}
