//! Offsets of structure members and ids of functions, from the type information (BTF) of the running kernel.
//!
//! Rust emits no CO-RE relocations, and an offset fixed at compile time would be wrong on other kernels. Therefore offsets
//! are looked up when the programs are loaded, and passed to them as constants. Format: Documentation/bpf/btf.rst; only
//! the parts needed for this are parsed.

use std::{fs, io, path::PathBuf};

use thiserror::Error;

/// The type information of the kernel (Linux 5.4, CONFIG_DEBUG_INFO_BTF).
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNC: u32 = 12;
/// Maximum nesting of anonymous members. The kernel nests about four levels.
const MAX_NESTING: u32 = 16;

/// Why an offset could not be determined.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BtfError {
    /// The type information could not be read.
    #[error(
        "cannot read the kernel's type information at {}: the kernel must be built with CONFIG_DEBUG_INFO_BTF",
        path.display()
    )]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// It does not have the documented format.
    #[error("the kernel's type information is malformed: {0}")]
    Malformed(&'static str),
    /// The kernel has no structure with this name.
    #[error("the kernel has no structure `{0}`")]
    NoStruct(&'static str),
    /// Several structures with this name have the member at different offsets. Choosing one could read wrong memory.
    #[error("the kernel has several structures `{0}` that put `{1}` at different offsets")]
    Ambiguous(&'static str, &'static str),
    /// The member must be the first of the structure and is not, so offsets relative to it would be wrong.
    #[error("the kernel's `{0}` does not begin with `{1}`")]
    NotFirst(&'static str, &'static str),
    /// The structure has no such member.
    #[error("the kernel's `{0}` has no member `{1}`")]
    NoMember(&'static str, &'static str),
}

/// The type information of a kernel.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Offset of each type in `data`, by type id. Type 0 is void and has none.
    types: Vec<usize>,
    /// Offsets of the structures with members, which are a tenth of all types. A structure without members is a forward
    /// declaration.
    structures: Vec<usize>,
}

impl Btf {
    /// Reads the type information of the running kernel.
    ///
    /// # Errors
    /// When it cannot be read or is malformed.
    pub fn of_running_kernel() -> Result<Btf, BtfError> {
        let data = fs::read(VMLINUX).map_err(|source| BtfError::Unreadable {
            path: VMLINUX.into(),
            source,
        })?;
        Btf::parse(data)
    }

    /// Parses type information in the byte order of this machine.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(data: Vec<u8>) -> Result<Btf, BtfError> {
        let mut btf = Btf {
            data,
            strings: 0,
            types: vec![0],
            structures: Vec::new(),
        };
        let magic = btf.data.get(..2).map(|b| u16::from_ne_bytes([b[0], b[1]]));
        if magic != Some(MAGIC) {
            return Err(BtfError::Malformed("wrong magic"));
        }
        let header = btf.word(4)? as usize;
        let type_start = header + btf.word(8)? as usize;
        let type_end = type_start + btf.word(12)? as usize;
        btf.strings = header + btf.word(16)? as usize;
        if type_end > btf.data.len() || btf.strings > btf.data.len() {
            return Err(BtfError::Malformed("a section exceeds the data"));
        }
        let mut at = type_start;
        while at < type_end {
            btf.types.push(at);
            let info = btf.word(at + 4)?;
            if kind(info) == KIND_STRUCT && vlen(info) != 0 {
                btf.structures.push(at);
            }
            at += 12 + btf.body_len(at)?;
        }
        Ok(btf)
    }

    /// Offset of a member in bytes. Members of anonymous members are found too.
    ///
    /// # Errors
    /// When the structure or the member does not exist, is ambiguous, or the member is a bit field.
    pub fn offset(&self, structure: &'static str, member: &'static str) -> Result<u32, BtfError> {
        let bits = self.bit(structure, member)?;
        if bits % 8 != 0 {
            return Err(BtfError::Malformed("the member is a bit field"));
        }
        Ok(bits / 8)
    }

    /// Offset of a member or bit field in bits.
    ///
    /// # Errors
    /// When the structure or the member does not exist or is ambiguous.
    pub fn bit(&self, structure: &'static str, member: &'static str) -> Result<u32, BtfError> {
        let mut found = None;
        let mut exists = false;
        for &at in &self.structures {
            if !self.is_named(self.word(at)?, structure) {
                continue;
            }
            exists = true;
            let bits = self
                .member_bits(at, member, 0)?
                .ok_or(BtfError::NoMember(structure, member))?;
            match found {
                Some(other) if other != bits => return Err(BtfError::Ambiguous(structure, member)),
                _ => found = Some(bits),
            }
        }
        match found {
            Some(offset) => Ok(offset),
            None if exists => Err(BtfError::NoMember(structure, member)),
            None => Err(BtfError::NoStruct(structure)),
        }
    }

    /// The type id of a function.
    pub(super) fn function_id(&self, name: &str) -> Option<u32> {
        let is_match = |&(_, &at): &(usize, &usize)| {
            let (name_at, info) = (self.word(at), self.word(at + 4));
            matches!((name_at, info), (Ok(name_at), Ok(info))
                if kind(info) == KIND_FUNC && self.is_named(name_at, name))
        };
        let found = self.types.iter().enumerate().skip(1).find(is_match);
        found.map(|(id, _)| id as u32)
    }

    fn member_bits(&self, at: usize, member: &str, depth: u32) -> Result<Option<u32>, BtfError> {
        if depth > MAX_NESTING {
            return Err(BtfError::Malformed("members are nested too deeply"));
        }
        let info = self.word(at + 4)?;
        for i in 0..vlen(info) as usize {
            let entry = at + 12 + i * 12;
            let name = self.word(entry)?;
            let type_id = self.word(entry + 4)? as usize;
            let mut bits = self.word(entry + 8)?;
            // With the kind flag set, the upper byte is the size of a bit field.
            if info >> 31 != 0 {
                bits &= 0xff_ffff;
            }
            if name != 0 {
                if self.is_named(name, member) {
                    return Ok(Some(bits));
                }
                continue;
            }
            let Some(&inner) = self.types.get(type_id).filter(|_| type_id != 0) else {
                continue;
            };
            if matches!(kind(self.word(inner + 4)?), KIND_STRUCT | KIND_UNION)
                && let Some(below) = self.member_bits(inner, member, depth + 1)?
            {
                return Ok(Some(bits + below));
            }
        }
        Ok(None)
    }

    /// Size of what follows the 12 bytes of `struct btf_type`, which depends on the kind.
    fn body_len(&self, at: usize) -> Result<usize, BtfError> {
        let info = self.word(at + 4)?;
        let n = vlen(info) as usize;
        Ok(match kind(info) {
            1 => 4,                    // int
            2 | 7..=12 | 16 | 18 => 0, // ptr, fwd, typedef, qualifiers, func, float, type tag
            3 => 12,                   // array
            KIND_STRUCT | KIND_UNION => n * 12,
            6 => n * 8,   // enum
            13 => n * 8,  // func proto
            14 => 4,      // var
            15 => n * 12, // datasec
            17 => 4,      // decl tag
            19 => n * 12, // enum64
            _ => return Err(BtfError::Malformed("unknown kind")),
        })
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        match self.data.get(at..at + 4) {
            Some(b) => Ok(u32::from_ne_bytes([b[0], b[1], b[2], b[3]])),
            None => Err(BtfError::Malformed("unexpected end")),
        }
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let stored = self
            .data
            .get(self.strings + offset as usize..)
            .unwrap_or_default();
        // The length first: this rejects most of the hundred thousand names without comparing them.
        stored.get(name.len()) == Some(&0) && stored.starts_with(name.as_bytes())
    }
}

const fn kind(info: u32) -> u32 {
    info >> 24 & 0x1f
}

const fn vlen(info: u32) -> u32 {
    info & 0xffff
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; struct { int b; union { int c; int member; }; }; }`.
    fn blob(copies: &[u32]) -> Vec<u8> {
        let strings = b"\0outer\0member\0";
        let mut types: Vec<u32> = Vec::new();
        types.extend([0, 1 << 24, 4, 32]); // 1: int
        types.extend([0, KIND_UNION << 24 | 1, 4, 7, 1, 0]); // 2
        types.extend([0, KIND_STRUCT << 24 | 1, 8, 0, 2, 32]); // 3
        for &offset in copies {
            types.extend([1, KIND_STRUCT << 24 | 1, 16, 0, 3, offset]);
        }
        let type_len = types.len() as u32 * 4;
        let mut data = Vec::new();
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        for word in [24, 0, type_len, type_len, strings.len() as u32] {
            data.extend(word.to_ne_bytes());
        }
        data.extend(types.iter().flat_map(|w| w.to_ne_bytes()));
        data.extend(strings);
        data
    }

    #[test]
    fn finds_members_of_anonymous_members() {
        let btf = Btf::parse(blob(&[64])).unwrap();
        assert_eq!(btf.offset("outer", "member").unwrap(), 12);
        assert!(matches!(btf.offset("outer", "nope"), Err(BtfError::NoMember(..))));
        assert!(matches!(
            btf.offset("inner", "member"),
            Err(BtfError::NoStruct(_))
        ));
    }

    #[test]
    fn ambiguous_or_truncated_types_are_an_error() {
        assert!(
            Btf::parse(blob(&[64, 64]))
                .unwrap()
                .offset("outer", "member")
                .is_ok()
        );
        let btf = Btf::parse(blob(&[64, 96])).unwrap();
        assert!(matches!(
            btf.offset("outer", "member"),
            Err(BtfError::Ambiguous(..))
        ));
        for cut in 0..80 {
            let mut data = blob(&[64]);
            data.truncate(cut);
            // Must not panic.
            let _ = Btf::parse(data).map(|btf| btf.offset("outer", "member"));
        }
    }
}
