//! Control over what the kernel's verifier tracks.

/// Returns `value`, as a scalar with unknown value to the verifier. The verifier explores a separate path for every
/// known value (a constant, an index in an unrolled loop): 2^9 for a binary search between constant bounds,
/// 1,024 for a rule's index. On other targets it does nothing.
///
/// It applies exclusive-or with `unknown`, a word of a map value, twice; in assembly, because the compiler
/// would remove both.
#[inline(always)]
pub fn forget(value: u64, unknown: u64) -> u64 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: arithmetic on two registers.
        unsafe {
            core::arch::asm!(
                "{0} ^= {1}",
                "{0} ^= {1}",
                inout(reg) value,
                in(reg) unknown,
                options(pure, nomem, nostack)
            );
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        let _ = unknown;
        value
    }
}
