//! Member offsets from the running kernel's type information (BTF).
//!
//! Rust emits no CO-RE relocations, and a compiled-in offset is silently wrong on another kernel:
//! offsets are looked up here and handed to the programs as constants. The format is described in
//! Documentation/bpf/btf.rst of the kernel; this reads what that takes and nothing more.

use std::{fs, io, path::PathBuf};

use thiserror::Error;

/// Where the kernel shows its types (Linux 5.4, CONFIG_DEBUG_INFO_BTF).
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNCTION: u32 = 12;
/// Anonymous members nest this deep at most; the kernel's own nest about four.
const MAX_NESTING: u32 = 16;

/// Why an offset could not be found.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BtfError {
    /// The file could not be read.
    #[error(
        "cannot read the kernel's type information at {}: the kernel must be built with CONFIG_DEBUG_INFO_BTF",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what the format says.
    #[error("the kernel's type information is malformed: {0}")]
    Malformed(&'static str),
    /// No structure of that name.
    #[error("the kernel has no structure `{0}`")]
    NoStruct(&'static str),
    /// Structures of one name that differ: guessing would read the wrong memory.
    #[error("the kernel has several structures `{0}` that put `{1}` at different offsets")]
    Ambiguous(&'static str, &'static str),
    /// The member is not where it always was: what is read by its offset would be something else.
    #[error("the kernel's `{0}` does not begin with `{1}`")]
    NotFirst(&'static str, &'static str),
    /// The structure has no such member.
    #[error("the kernel's `{0}` has no member `{1}`")]
    NoMember(&'static str, &'static str),
}

/// A kernel's types.
#[derive(Debug)]
pub struct Btf {
    data: Vec<u8>,
    strings: usize,
    /// Where each type starts; index 0 is void.
    types: Vec<usize>,
    /// Where each structure with members starts: a tenth of all, and what is asked for. One without is a forward
    /// declaration in disguise.
    structures: Vec<usize>,
}

impl Btf {
    /// Reads the running kernel's.
    ///
    /// # Errors
    /// [`BtfError::Unreadable`], [`BtfError::Malformed`].
    pub fn of_running_kernel() -> Result<Btf, BtfError> {
        let data = fs::read(VMLINUX).map_err(|source| BtfError::Unreadable {
            path: VMLINUX.into(),
            source,
        })?;
        Btf::parse(data)
    }

    /// Parses a BTF blob of this machine's byte order.
    ///
    /// # Errors
    /// [`BtfError::Malformed`].
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
            return Err(BtfError::Malformed("sections beyond the end"));
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

    /// Offset of a member in bytes, looked for in anonymous members too.
    ///
    /// # Errors
    /// When structure or member is not there, or not in one place.
    pub fn offset(&self, structure: &'static str, member: &'static str) -> Result<u32, BtfError> {
        let bits = self.bit(structure, member)?;
        if bits % 8 != 0 {
            return Err(BtfError::Malformed("a bit field where a member was wanted"));
        }
        Ok(bits / 8)
    }

    /// The same in bits: of a bit field too.
    ///
    /// # Errors
    /// As [`Btf::offset`].
    pub fn bit(&self, structure: &'static str, member: &'static str) -> Result<u32, BtfError> {
        let mut found = None;
        let mut seen = false;
        for &at in &self.structures {
            if !self.is_named(self.word(at)?, structure) {
                continue;
            }
            seen = true;
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
            None if seen => Err(BtfError::NoMember(structure, member)),
            None => Err(BtfError::NoStruct(structure)),
        }
    }

    /// The number of the type of a function, by its name.
    pub(super) fn function_id(&self, name: &str) -> Option<u32> {
        let is_it = |&(_, &at): &(usize, &usize)| {
            let (name_at, info) = (self.word(at), self.word(at + 4));
            matches!((name_at, info), (Ok(name_at), Ok(info))
                if kind(info) == KIND_FUNCTION && self.is_named(name_at, name))
        };
        let found = self.types.iter().enumerate().skip(1).find(is_it);
        found.map(|(id, _)| id as u32)
    }

    fn member_bits(&self, at: usize, member: &str, depth: u32) -> Result<Option<u32>, BtfError> {
        if depth > MAX_NESTING {
            return Err(BtfError::Malformed("members nested too deep"));
        }
        let info = self.word(at + 4)?;
        for i in 0..vlen(info) as usize {
            let entry = at + 12 + i * 12;
            let name = self.word(entry)?;
            let type_id = self.word(entry + 4)? as usize;
            let mut bits = self.word(entry + 8)?;
            // With the kind flag the upper byte is a bit field's size.
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

    /// Bytes after the 12 of `btf_type`, by kind.
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
            _ => return Err(BtfError::Malformed("a kind this version does not know")),
        })
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        match self.data.get(at..at + 4) {
            Some(b) => Ok(u32::from_ne_bytes([b[0], b[1], b[2], b[3]])),
            None => Err(BtfError::Malformed("cut off")),
        }
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        let stored = self
            .data
            .get(self.strings + offset as usize..)
            .unwrap_or_default();
        // The length first: a look where nearly all of a hundred thousand names differ.
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
    fn refuses_to_guess() {
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
            // No panic, whatever is cut off.
            let _ = Btf::parse(data).map(|btf| btf.offset("outer", "member"));
        }
    }
}
