//! Programs of a few instructions, assembled by hand (Documentation/bpf/standardization/instruction-set.rst).

use std::os::fd::{AsRawFd, BorrowedFd};

/// Number of the helper `bpf_get_current_comm` (`__BPF_FUNC_MAPPER`, include/uapi/linux/bpf.h).
const GET_CURRENT_COMM: i32 = 16;

/// `rD = number`.
const MOVE_NUMBER: u8 = 0xb7;
/// `rD = rS`.
const MOVE: u8 = 0xbf;
/// `rD += number`.
const ADD_NUMBER: u8 = 0x07;
/// `rD = number`, 64 bits in two instructions.
const LOAD_NUMBER: u8 = 0x18;
/// `rD = *(u64 *)(rS + offset)`.
const LOAD: u8 = 0x79;
/// `*(u64 *)(rD + offset) = number`.
const STORE_NUMBER: u8 = 0x7a;
/// `if rD != rS, on by offset`.
const JUMP_IF_OTHER: u8 = 0x5d;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Source register of [`LOAD_NUMBER`]: the number is a map's descriptor, and an offset in its first
/// value (`BPF_PSEUDO_MAP_VALUE`, Linux 5.2); the register gets an address.
const VALUE_OF_MAP: u8 = 2;
/// The same: the register gets the map (`BPF_PSEUDO_MAP_FD`).
const MAP: u8 = 1;

/// What the first argument of a helper is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument {
    /// The program's own context.
    Context,
    /// Zero; also for helpers that take none.
    Zero,
    /// Eight bytes of the stack, read as `(destination, size, source)`: `bpf_probe_read_*` of nothing.
    Buffer,
}

/// Instructions as they lie in memory.
#[derive(Clone, Debug)]
pub(super) struct Bytecode(Vec<u64>);

impl Bytecode {
    pub(super) fn words(&self) -> &[u64] {
        &self.0
    }

    /// Marks, and returns `passes`.
    pub(super) fn marking(marks: BorrowedFd<'_>, offset: u32, passes: i32) -> Bytecode {
        Bytecode(Vec::new()).mark(marks, offset).leave(passes)
    }

    /// Marks where the calling thread has this name, and returns `passes`.
    pub(super) fn marking_calls_of(
        name: [u8; 8],
        marks: BorrowedFd<'_>,
        offset: u32,
        passes: i32,
    ) -> Bytecode {
        let name = u64::from_ne_bytes(name);
        Bytecode(vec![
            instruction(MOVE, 1, 10, 0, 0),
            instruction(ADD_NUMBER, 1, 0, 0, -16),
            instruction(MOVE_NUMBER, 2, 0, 0, 16),
            instruction(CALL, 0, 0, 0, GET_CURRENT_COMM),
            instruction(LOAD, 1, 10, -16, 0),
            instruction(LOAD_NUMBER, 2, 0, 0, name as u32 as i32),
            instruction(0, 0, 0, 0, (name >> 32) as u32 as i32),
            // Over the three instructions of a mark.
            instruction(JUMP_IF_OTHER, 1, 2, 3, 0),
        ])
        .mark(marks, offset)
        .leave(passes)
    }

    /// Calls a helper, and returns `passes`.
    pub(super) fn calling(helper: i32, first: Argument, passes: i32) -> Bytecode {
        let mut code = match first {
            // It is in register 1 from the beginning.
            Argument::Context => Vec::new(),
            Argument::Zero => vec![instruction(MOVE_NUMBER, 1, 0, 0, 0)],
            Argument::Buffer => vec![
                instruction(STORE_NUMBER, 10, 0, -8, 0),
                instruction(MOVE, 1, 10, 0, 0),
                instruction(ADD_NUMBER, 1, 0, 0, -8),
                instruction(MOVE_NUMBER, 2, 0, 0, 8),
                instruction(MOVE_NUMBER, 3, 0, 0, 0),
            ],
        };
        code.push(instruction(CALL, 0, 0, 0, helper));
        Bytecode(code).leave(passes)
    }

    /// Gives eight bytes to a ring: `bpf_ringbuf_output(ring, bytes, 8, 0)`.
    pub(super) fn sending(ring: BorrowedFd<'_>, helper: i32, passes: i32) -> Bytecode {
        Bytecode(vec![
            instruction(STORE_NUMBER, 10, 0, -8, 1),
            instruction(MOVE, 2, 10, 0, 0),
            instruction(ADD_NUMBER, 2, 0, 0, -8),
            instruction(LOAD_NUMBER, 1, MAP, 0, ring.as_raw_fd()),
            instruction(0, 0, 0, 0, 0),
            instruction(MOVE_NUMBER, 3, 0, 0, 8),
            instruction(MOVE_NUMBER, 4, 0, 0, 0),
            instruction(CALL, 0, 0, 0, helper),
        ])
        .leave(passes)
    }

    /// Calls a helper that takes a map and flags: `bpf_get_local_storage(map, 0)`.
    pub(super) fn asking(map: BorrowedFd<'_>, helper: i32, passes: i32) -> Bytecode {
        Bytecode(vec![
            instruction(LOAD_NUMBER, 1, MAP, 0, map.as_raw_fd()),
            instruction(0, 0, 0, 0, 0),
            instruction(MOVE_NUMBER, 2, 0, 0, 0),
            instruction(CALL, 0, 0, 0, helper),
        ])
        .leave(passes)
    }

    fn mark(mut self, marks: BorrowedFd<'_>, offset: u32) -> Bytecode {
        self.0.extend([
            instruction(LOAD_NUMBER, 1, VALUE_OF_MAP, 0, marks.as_raw_fd()),
            instruction(0, 0, 0, 0, offset as i32),
            instruction(STORE_NUMBER, 1, 0, 0, 1),
        ]);
        self
    }

    fn leave(mut self, result: i32) -> Bytecode {
        self.0.extend([
            instruction(MOVE_NUMBER, 0, 0, 0, result),
            instruction(EXIT, 0, 0, 0, 0),
        ]);
        self
    }
}

/// One instruction: `struct bpf_insn`, whose fields of four bits lie by the machine's byte order.
fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, number: i32) -> u64 {
    let registers = if cfg!(target_endian = "little") {
        destination | source << 4
    } else {
        source | destination << 4
    };
    let [o1, o2] = offset.to_ne_bytes();
    let [n1, n2, n3, n4] = number.to_ne_bytes();
    u64::from_ne_bytes([opcode, registers, o1, o2, n1, n2, n3, n4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_lie_as_the_kernel_wants_them() {
        // r1 = r10; *(u64 *)(r10 - 8) = -2.
        assert_eq!(instruction(MOVE, 1, 10, 0, 0).to_ne_bytes()[..2], [0xbf, 0xa1]);
        assert_eq!(
            instruction(STORE_NUMBER, 10, 0, -8, -2).to_ne_bytes(),
            [0x7a, 0x0a, 0xf8, 0xff, 0xfe, 0xff, 0xff, 0xff]
        );
    }
}
