//! The record of a local address.

use super::RecordHeader;

/// The local address of a connection. It is known when the SYN is about to be sent, which is after the attempt was
/// evaluated and reported. 64 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LocalAddressRecord {
    /// The header.
    pub header: RecordHeader,
    /// The key in [`AttemptRecord::local_address`](super::AttemptRecord::local_address) of the records that expect it.
    pub key: u64,
    /// Address, network order; IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// Port, host order.
    pub port: u16,
    /// Family of `address`: 4 or 6. It is the socket's family: the address may be IPv4-mapped.
    pub family: u8,
    /// Reserved, zero.
    pub reserved: [u8; 5],
}

/// Connections whose local address may be pending at the same time. If there are more, the events of the least recent
/// ones have no local address.
pub const MAX_PENDING_LOCAL_ADDRESSES: u32 = 4096;

const _: () = assert!(size_of::<LocalAddressRecord>() == 64);
