//! Where a unix socket is bound: what rules about unix sockets compare.

/// Identity of the socket that a task connects or sends to, by the name it was bound to.
///
/// Not the name that the task gave: relative paths, symbolic links, bind mounts and other roots all lead to one
/// socket, and the socket itself knows where it is. A name in a file system is the path from that file system's
/// root on, whatever mounts show of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct UnixSocketId {
    /// `s_dev` of the superblock in the kernel's own encoding ([`crate::ExecutableId::device`]);
    /// [`UnixSocketId::ABSTRACT`] for names that are in no file system.
    pub space: u64,
    /// Hash of the name ([`NameHash`]); [`UnixSocketId::UNKNOWN`] where it cannot be told.
    pub name: u64,
}

impl UnixSocketId {
    /// No device has this number.
    pub const ABSTRACT: u64 = 0;
    /// The hash of no name.
    pub const UNKNOWN: u64 = u64::MAX;
    /// Components that a path from the root of its file system may have: programs go no further. A deeper socket
    /// has no place that a rule could name.
    pub const MAX_DEPTH: usize = 24;
    /// Bytes of a component (NAME_MAX, include/uapi/linux/limits.h).
    pub const MAX_COMPONENT: usize = 255;
    /// Bytes of an abstract name, the NUL before it not counted (`sun_path`, include/uapi/linux/un.h).
    pub const MAX_ABSTRACT: usize = UNIX_NAME_BYTES - 1;

    /// The socket with an abstract name, given without the NUL before it.
    pub fn of_abstract(name: &[u8]) -> UnixSocketId {
        UnixSocketId {
            space: Self::ABSTRACT,
            name: NameHash::START.with(name).finish(),
        }
    }

    /// The socket at a path of a file system. `components` are those from its root on, the last one first.
    pub fn in_file_system<'n>(device: u64, components: impl IntoIterator<Item = &'n [u8]>) -> UnixSocketId {
        let hash = components.into_iter().fold(NameHash::START, NameHash::with);
        UnixSocketId {
            space: device,
            name: hash.finish(),
        }
    }
}

/// Bytes of `sun_path`.
pub const UNIX_NAME_BYTES: usize = 108;

/// The hash of a name, as far as it was read. The kernel programs take each component as they come by it, four bytes
/// at a time, so that no name has to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct NameHash(pub u64);

impl NameHash {
    /// Of nothing.
    pub const START: NameHash = NameHash(0x243f_6a88_85a3_08d3);
    /// Odd, so that nothing is lost.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    /// With four more bytes, those at the end of a component filled up with zeroes.
    #[inline(always)]
    pub const fn word(self, word: u32) -> NameHash {
        let mixed = (self.0 ^ word as u64).wrapping_mul(Self::FACTOR);
        NameHash(mixed ^ mixed >> 32)
    }

    /// At the end of a component of this many bytes.
    #[inline(always)]
    pub const fn end(self, length: u32) -> NameHash {
        self.word(length | 1 << 31)
    }

    /// With a whole component.
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

    /// The hash; never that of an unknown name.
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
    fn names_that_differ_have_other_places() {
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
    fn zeroes_count() {
        assert_ne!(UnixSocketId::of_abstract(b"a"), UnixSocketId::of_abstract(b"a\0"));
        assert_ne!(
            UnixSocketId::of_abstract(b""),
            UnixSocketId::of_abstract(b"\0\0\0\0")
        );
    }

    #[test]
    fn unknown_is_no_name() {
        assert_ne!(NameHash(UnixSocketId::UNKNOWN).finish(), UnixSocketId::UNKNOWN);
    }
}
