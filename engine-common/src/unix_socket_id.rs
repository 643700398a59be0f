//! Identity of bound unix sockets, which rules about unix sockets match.

/// Identity of the unix socket that a task connects or sends to: the name that the socket was bound to.
///
/// It does not depend on the path that the task passed: relative paths, symbolic links, bind mounts and other root
/// directories lead to the same socket. The name of a socket in a file system is its path from the root of that file
/// system, independent of mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct UnixSocketId {
    /// `s_dev` of the superblock in the kernel's own encoding ([`crate::ExecutableId::device`]);
    /// [`UnixSocketId::ABSTRACT`] for abstract names.
    pub device: u64,
    /// Hash of the name ([`NameHash`]); [`UnixSocketId::UNKNOWN`] if it cannot be determined.
    pub name_hash: u64,
}

impl UnixSocketId {
    /// `device` of abstract names; not the id of any device.
    pub const ABSTRACT: u64 = 0;
    /// `name_hash` of an unknown name; not the hash of any name.
    pub const UNKNOWN: u64 = u64::MAX;
    /// Most components of a path from the root of its file system that the programs read. The name of a deeper
    /// socket is unknown, so that no rule matches it.
    pub const MAX_DEPTH: usize = 24;
    /// Bytes of a component (NAME_MAX, include/uapi/linux/limits.h).
    pub const MAX_COMPONENT: usize = 255;
    /// Bytes of an abstract name without the leading NUL (`sun_path`, include/uapi/linux/un.h).
    pub const MAX_ABSTRACT: usize = UNIX_NAME_BYTES - 1;

    /// The socket with an abstract name, given without its leading NUL.
    pub fn of_abstract(name: &[u8]) -> UnixSocketId {
        UnixSocketId {
            device: Self::ABSTRACT,
            name_hash: NameHash::START.with(name).finish(),
        }
    }

    /// The socket at a path of a file system. `components` are those of its path from the root, the last one first.
    pub fn in_file_system<'n>(device: u64, components: impl IntoIterator<Item = &'n [u8]>) -> UnixSocketId {
        let hash = components.into_iter().fold(NameHash::START, NameHash::with);
        UnixSocketId {
            device,
            name_hash: hash.finish(),
        }
    }
}

/// Bytes of `sun_path`.
pub const UNIX_NAME_BYTES: usize = 108;

/// Incremental hash of a name. The kernel programs add each component when they read it, four bytes
/// at a time, so that they need no buffer for the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct NameHash(pub u64);

impl NameHash {
    /// Initial value.
    pub const START: NameHash = NameHash(0x243f_6a88_85a3_08d3);
    /// Odd, so that the multiplication is invertible.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    /// Adds four bytes; the last ones of a component are padded with zeroes.
    #[inline(always)]
    pub const fn word(self, word: u32) -> NameHash {
        let mixed = (self.0 ^ word as u64).wrapping_mul(Self::FACTOR);
        NameHash(mixed ^ mixed >> 32)
    }

    /// Ends a component of `length` bytes.
    #[inline(always)]
    pub const fn end(self, length: u32) -> NameHash {
        self.word(length | 1 << 31)
    }

    /// Adds a whole component.
    pub fn with(self, component: &[u8]) -> NameHash {
        let mut hash = self;
        for chunk in component.chunks(4) {
            let mut word = [0; 4];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            hash = hash.word(u32::from_le_bytes(word));
        }
        hash.end(component.len() as u32)
    }

    /// The hash; never [`UnixSocketId::UNKNOWN`].
    #[inline(always)]
    pub const fn finish(self) -> u64 {
        if self.0 == UnixSocketId::UNKNOWN {
            self.0 - 1
        } else {
            self.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> UnixSocketId {
        UnixSocketId::in_file_system(1, path.rsplit('/').map(str::as_bytes))
    }

    #[test]
    fn different_names_have_different_ids() {
        let names = [
            "docker.sock",
            "docker.soc",
            "docker.sockk",
            "docker/sock",
            "dockers/ock",
            "sock/docker",
            "dock/er.sock",
            "a",
            "b",
            "a/",
            "/a",
            "",
        ];
        for (i, one) in names.iter().enumerate() {
            for (j, other) in names.iter().enumerate() {
                assert_eq!(at(one) == at(other), i == j, "{one} {other}");
            }
        }
        assert_ne!(
            UnixSocketId::of_abstract(b"a"),
            UnixSocketId::in_file_system(1, [&b"a"[..]])
        );
    }

    #[test]
    fn trailing_zeroes_change_the_id() {
        assert_ne!(UnixSocketId::of_abstract(b"a"), UnixSocketId::of_abstract(b"a\0"));
        assert_ne!(
            UnixSocketId::of_abstract(b""),
            UnixSocketId::of_abstract(b"\0\0\0\0")
        );
    }

    #[test]
    fn no_name_has_the_unknown_hash() {
        assert_ne!(NameHash(UnixSocketId::UNKNOWN).finish(), UnixSocketId::UNKNOWN);
    }
}
