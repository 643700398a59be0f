//! The header of every record.

/// First bytes of every record. 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RecordHeader {
    /// [`RecordKind`].
    pub kind: u16,
    /// [`crate::ABI_VERSION`].
    pub abi: u16,
    /// Bytes of the record with this header.
    pub length: u32,
    /// Records lost in this ring buffer before this one, since it was created.
    pub lost: u64,
    /// Time of the record, nanoseconds of CLOCK_BOOTTIME (`bpf_ktime_get_boot_ns`, Linux 5.8).
    pub ktime_ns: u64,
    /// Id of the cgroup that the policy is attached to; 0 for records without one.
    pub scope: u64,
}

/// Kinds of records. A value is never reused for another layout; 16 to 31 are for processes, 32 to 47 for names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum RecordKind {
    /// [`AttemptRecord`](super::AttemptRecord).
    Attempt = 1,
    /// [`LocalAddressRecord`](super::LocalAddressRecord).
    LocalAddress = 2,
    /// [`UnixRecord`](super::UnixRecord).
    Unix = 3,
    /// [`MigrationRecord`](super::MigrationRecord).
    CgroupMigration = 4,
}

const _: () = assert!(size_of::<RecordHeader>() == 32);
