//! Programs of a few instructions, assembled by hand (Documentation/bpf/standardization/instruction-set.rst).

use std::os::fd::{AsRawFd, BorrowedFd};

/// Id of the helper `bpf_get_current_comm` (`__BPF_FUNC_MAPPER`, include/uapi/linux/bpf.h).
const GET_CURRENT_COMM: i32 = 16;

/// `dst = imm`.
const MOV_IMM: u8 = 0xb7;
/// `dst = src`.
const MOV_REG: u8 = 0xbf;
/// `dst += imm`.
const ADD_IMM: u8 = 0x07;
/// `dst = imm`, 64 bits in two instructions.
const LOAD_IMM64: u8 = 0x18;
/// `dst = *(u64 *)(src + offset)`.
const LOAD_MEM: u8 = 0x79;
/// `*(u64 *)(dst + offset) = imm`.
const STORE_IMM: u8 = 0x7a;
/// `if (dst != src) goto pc + offset`.
const JUMP_NE: u8 = 0x5d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Source register of [`LOAD_IMM64`] for the address of a map value (`BPF_PSEUDO_MAP_VALUE`, Linux 5.2): the immediates
/// are the file descriptor of the map and an offset in its first value.
const PSEUDO_MAP_VALUE: u8 = 2;
/// Source register of [`LOAD_IMM64`] for a map, by its file descriptor (`BPF_PSEUDO_MAP_FD`).
const PSEUDO_MAP_FD: u8 = 1;

/// The first argument of a helper.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// The program's own context.
    Context,
    /// Zero; also for helpers without arguments.
    Zero,
    /// Eight bytes of the stack, for `bpf_probe_read_*(dst, size, unsafe_ptr)` with a null source.
    Buffer,
}

/// Instructions in the layout of the kernel.
#[derive(Clone, Debug)]
pub(super) struct Bytecode(Vec<u64>);

impl Bytecode {
    pub(super) fn words(&self) -> &[u64] {
        &self.0
    }

    /// Sets the word at `offset` of the first value of `calls` to 1, and returns `result`.
    pub(super) fn record_call(calls: BorrowedFd<'_>, offset: u32, result: i32) -> Bytecode {
        Bytecode(Vec::new()).store_one(calls, offset).exit_with(result)
    }

    /// The same only for calls of threads whose name begins with these eight bytes.
    pub(super) fn record_call_of(
        thread: [u8; 8],
        calls: BorrowedFd<'_>,
        offset: u32,
        result: i32,
    ) -> Bytecode {
        let name = u64::from_ne_bytes(thread);
        Bytecode(vec![
            instruction(MOV_REG, 1, 10, 0, 0),
            instruction(ADD_IMM, 1, 0, 0, -16),
            instruction(MOV_IMM, 2, 0, 0, 16),
            instruction(CALL, 0, 0, 0, GET_CURRENT_COMM),
            instruction(LOAD_MEM, 1, 10, -16, 0),
            instruction(LOAD_IMM64, 2, 0, 0, name as u32 as i32),
            instruction(0, 0, 0, 0, (name >> 32) as u32 as i32),
            // Skips the three instructions of `store_one`.
            instruction(JUMP_NE, 1, 2, 3, 0),
        ])
        .store_one(calls, offset)
        .exit_with(result)
    }

    /// Calls a helper, and returns `result`.
    pub(super) fn call_helper(helper: i32, first: Argument, result: i32) -> Bytecode {
        let mut code = match first {
            // Register 1 has it at the start of a program.
            Argument::Context => Vec::new(),
            Argument::Zero => vec![instruction(MOV_IMM, 1, 0, 0, 0)],
            Argument::Buffer => vec![
                instruction(STORE_IMM, 10, 0, -8, 0),
                instruction(MOV_REG, 1, 10, 0, 0),
                instruction(ADD_IMM, 1, 0, 0, -8),
                instruction(MOV_IMM, 2, 0, 0, 8),
                instruction(MOV_IMM, 3, 0, 0, 0),
            ],
        };
        code.push(instruction(CALL, 0, 0, 0, helper));
        Bytecode(code).exit_with(result)
    }

    /// Writes eight bytes into a ring buffer: `bpf_ringbuf_output(ring, data, 8, 0)`.
    pub(super) fn write_to_ring(ring: BorrowedFd<'_>, helper: i32, result: i32) -> Bytecode {
        Bytecode(vec![
            instruction(STORE_IMM, 10, 0, -8, 1),
            instruction(MOV_REG, 2, 10, 0, 0),
            instruction(ADD_IMM, 2, 0, 0, -8),
            instruction(LOAD_IMM64, 1, PSEUDO_MAP_FD, 0, ring.as_raw_fd()),
            instruction(0, 0, 0, 0, 0),
            instruction(MOV_IMM, 3, 0, 0, 8),
            instruction(MOV_IMM, 4, 0, 0, 0),
            instruction(CALL, 0, 0, 0, helper),
        ])
        .exit_with(result)
    }

    /// Calls a helper that takes a map and flags: `bpf_get_local_storage(map, 0)`.
    pub(super) fn get_from_map(map: BorrowedFd<'_>, helper: i32, result: i32) -> Bytecode {
        Bytecode(vec![
            instruction(LOAD_IMM64, 1, PSEUDO_MAP_FD, 0, map.as_raw_fd()),
            instruction(0, 0, 0, 0, 0),
            instruction(MOV_IMM, 2, 0, 0, 0),
            instruction(CALL, 0, 0, 0, helper),
        ])
        .exit_with(result)
    }

    /// Three instructions.
    fn store_one(mut self, map: BorrowedFd<'_>, offset: u32) -> Bytecode {
        self.0.extend([
            instruction(LOAD_IMM64, 1, PSEUDO_MAP_VALUE, 0, map.as_raw_fd()),
            instruction(0, 0, 0, 0, offset as i32),
            instruction(STORE_IMM, 1, 0, 0, 1),
        ]);
        self
    }

    fn exit_with(mut self, result: i32) -> Bytecode {
        self.0.extend([
            instruction(MOV_IMM, 0, 0, 0, result),
            instruction(EXIT, 0, 0, 0, 0),
        ]);
        self
    }
}

/// `struct bpf_insn`: the order of the two register fields, of four bits each, depends on the byte order.
fn instruction(opcode: u8, dst: u8, src: u8, offset: i16, imm: i32) -> u64 {
    let registers = if cfg!(target_endian = "little") {
        dst | src << 4
    } else {
        src | dst << 4
    };
    let [o1, o2] = offset.to_ne_bytes();
    let [i1, i2, i3, i4] = imm.to_ne_bytes();
    u64::from_ne_bytes([opcode, registers, o1, o2, i1, i2, i3, i4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_have_the_layout_of_the_kernel() {
        // r1 = r10; *(u64 *)(r10 - 8) = -2.
        assert_eq!(instruction(MOV_REG, 1, 10, 0, 0).to_ne_bytes()[..2], [0xbf, 0xa1]);
        assert_eq!(
            instruction(STORE_IMM, 10, 0, -8, -2).to_ne_bytes(),
            [0x7a, 0x0a, 0xf8, 0xff, 0xfe, 0xff, 0xff, 0xff]
        );
    }
}
