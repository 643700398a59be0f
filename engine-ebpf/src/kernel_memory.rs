//! Reads of kernel memory.

use core::mem::MaybeUninit;

use aya_ebpf::{EbpfContext, helpers::generated::bpf_probe_read_kernel};

/// Types for which every bit pattern is a valid value.
pub(crate) trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),*) => {$(impl Plain for $type {})*};
}

plain!(u8, u16, u32, u64, [u64; 2], [u64; 3], [u64; 4], [u64; 5]);

/// Arguments of the function that a program is attached to, as scalars: the verifier does not allow passing its
/// typed pointers to global functions.
#[inline(always)]
pub(crate) fn arguments<const N: usize>(context: &impl EbpfContext) -> [u64; N]
where
    [u64; N]: Plain,
{
    read(context.as_ptr() as u64)
}

/// Reads a value at an address; zero if it cannot be read. (Not an `Option`: see
/// `engine_common::verdict::VerdictWord`.)
#[inline(always)]
pub(crate) fn read<T: Plain>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address and fails instead of faulting; then it fills the value with zeroes
    // (`bpf_probe_read_kernel_common`, kernel/trace/bpf_trace.c). Every bit pattern is valid for these types.
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            address as *const _,
        );
        value.assume_init()
    }
}

/// Reads a field of a structure; zero if it cannot be read.
#[inline(always)]
pub(crate) fn field<T: Plain>(structure: u64, offset: u32) -> T {
    read(structure.wrapping_add(offset as u64))
}

/// Reads a bit of a structure, at an offset in bits; not set if it cannot be read.
#[inline(always)]
pub(crate) fn bit(structure: u64, offset: u32) -> bool {
    field::<u8>(structure, offset / 8) >> (offset % 8) & 1 != 0
}
