//! The record of an attempt to reach a unix socket.

use super::AttemptRecord;
use crate::unix_socket_id::UNIX_NAME_BYTES;

/// An attempt to reach a unix socket: `protocol` is [`crate::Protocol::UNIX`], and `destination` has the words of the
/// [`crate::UnixSocketId`], in network order. 296 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct UnixRecord {
    /// The attempt, with the header of this record.
    pub attempt: AttemptRecord,
    /// Used bytes of `name`.
    pub name_length: u32,
    /// The name as the socket was bound to it (`sun_path`): a path, or a NUL and an abstract name.
    pub name: [u8; UNIX_NAME_BYTES],
}

const _: () = assert!(size_of::<UnixRecord>() == 296);
