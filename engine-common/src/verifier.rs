//! What the kernel's verifier must be told, or must not know.

/// The value, but of a value that the verifier knows (a constant, an index in an unrolled loop) it
/// knows nothing afterwards. It follows every path that a known value makes distinct: 2^9 of a
/// binary search between known ends, 1,024 of a rule's index. On other targets: the value.
///
/// Two exclusive-ors with `unknown`, a word of some map's value; in assembly, since the compiler
/// would see that they cancel out.
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
