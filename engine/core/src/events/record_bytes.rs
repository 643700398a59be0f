//! The bytes of records, field by field: independent of alignment and of this machine's byte order.

use engine_common::{
    record::{AttemptRecord, LocalAddressRecord, MigrationRecord, RecordHeader, UnixRecord},
    scope::SlotRef,
};

/// A value with a fixed encoding, little endian.
pub trait Encoding: Sized {
    /// Takes the value off the front of the bytes; `None` if there are too few.
    fn take(bytes: &mut &[u8]) -> Option<Self>;

    /// Appends the encoding of the value.
    fn put(&self, bytes: &mut Vec<u8>);
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Encoding for $type {
            fn take(bytes: &mut &[u8]) -> Option<$type> {
                let (field, rest) = bytes.split_first_chunk()?;
                *bytes = rest;
                Some(<$type>::from_le_bytes(*field))
            }

            fn put(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

integers!(u8, u16, u32, u64);

impl<const N: usize> Encoding for [u8; N] {
    fn take(bytes: &mut &[u8]) -> Option<[u8; N]> {
        let (field, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(*field)
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self);
    }
}

impl<const N: usize> Encoding for [SlotRef; N] {
    fn take(bytes: &mut &[u8]) -> Option<[SlotRef; N]> {
        let mut slots = [SlotRef::NONE; N];
        for slot in &mut slots {
            *slot = SlotRef(u32::take(bytes)?);
        }
        Some(slots)
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        for slot in self {
            slot.0.put(bytes);
        }
    }
}

/// Implements [`Encoding`] for a record: its fields in the order of the layout.
macro_rules! layout {
    ($record:ident { $($field:ident,)* }) => {
        impl Encoding for $record {
            fn take(bytes: &mut &[u8]) -> Option<$record> {
                // A struct expression evaluates its fields in the order written.
                Some($record { $($field: Encoding::take(bytes)?,)* })
            }

            fn put(&self, bytes: &mut Vec<u8>) {
                $(self.$field.put(bytes);)*
            }
        }
    };
}

layout!(RecordHeader {
    kind,
    abi,
    length,
    lost,
    ktime_ns,
    scope,
});

layout!(AttemptRecord {
    header,
    generation,
    cgroup,
    socket_cookie,
    executable_device,
    executable_inode,
    destination,
    original,
    local_address,
    comm,
    slot,
    pid,
    tid,
    uid,
    gid,
    repeats,
    detail,
    errno,
    port,
    protocol,
    local_port,
    hook,
    verdict,
    outcome,
    reason,
    family,
    original_family,
    flags,
    reserved,
});

layout!(LocalAddressRecord {
    header,
    key,
    address,
    port,
    family,
    reserved,
});

layout!(UnixRecord {
    attempt,
    name_length,
    name,
});

layout!(MigrationRecord {
    header,
    from,
    to,
    comm,
    migrated_by_comm,
    slots,
    pid,
    tid,
    migrated_by_pid,
    migrated_by_uid,
    flags,
    reserved,
});

/// The value whose encoding is exactly these bytes. Whether the values of its fields are valid is checked by
/// [`decode`](super::decode()).
pub fn parse<T: Encoding>(mut bytes: &[u8]) -> Option<T> {
    T::take(&mut bytes).filter(|_| bytes.is_empty())
}

/// The bytes of a record as the kernel programs write them.
pub fn encode(record: &impl Encoding) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.put(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parsed bytes are the ones that the compiler's layout, which the kernel programs write, has in memory.
    fn check_layout<T: Encoding>() {
        let bytes: Vec<u8> = (0..size_of::<T>()).map(|i| i as u8).collect();
        let record: T = parse(&bytes).unwrap();
        assert_eq!(encode(&record), bytes);
        // SAFETY: records have no padding, so that all bytes of one are initialised.
        let memory = unsafe { std::slice::from_raw_parts((&raw const record).cast::<u8>(), size_of::<T>()) };
        assert_eq!(memory, bytes);
        assert!(parse::<T>(&bytes[1..]).is_none());
        assert!(parse::<T>(&[&bytes[..], &[0]].concat()).is_none());
        assert!(parse::<T>(&[]).is_none());
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn every_record_has_the_layout_of_the_compiler() {
        check_layout::<RecordHeader>();
        check_layout::<AttemptRecord>();
        check_layout::<LocalAddressRecord>();
        check_layout::<UnixRecord>();
        check_layout::<MigrationRecord>();
    }
}
