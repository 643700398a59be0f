//! The errors of the datapath.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};
use engine_common::limits::MAX_POLICIES;
use thiserror::Error;

use super::{btf::BtfError, maps::Slot, pin_directory::CONVENTIONAL_BPFFS};
use crate::{compile::ImageError, hint::Hint, instance::BPFFS_VARIABLE};

/// Why programs and maps could not be loaded, pinned, opened, attached or detached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatapathError {
    /// An offset in a structure of the kernel is unknown.
    #[error("cannot read the kernel's type information")]
    Btf(#[from] BtfError),
    /// aya could not read the kernel's types.
    #[error("cannot read the kernel's type information")]
    Types(#[source] Box<aya::BtfError>),
    /// The kernel refused the maps, or the object.
    #[error("failed to create eBPF maps")]
    CreateMaps(#[source] Box<EbpfError>),
    /// The kernel refused a program.
    #[error("the kernel refused the program `{program}`")]
    Load {
        /// Its name.
        program: &'static str,
        /// The reason, with the log of the verifier.
        #[source]
        source: Box<ProgramError>,
    },
    /// The embedded object lacks a program or map.
    #[error("internal error: `{0}` missing from the embedded object")]
    Missing(&'static str),
    /// No BPF file system, and none could be mounted.
    #[error("no BPF file system is mounted, and none can be mounted at {CONVENTIONAL_BPFFS}")]
    NotMounted(#[source] io::Error),
    /// Something could not be pinned.
    #[error("cannot pin {}", path.display())]
    Pin {
        /// The path of the pin.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<PinError>,
    },
    /// A pinned map could not be opened.
    #[error("cannot open the pinned map {}", path.display())]
    Open {
        /// The path of the pin.
        path: PathBuf,
        /// The reason.
        #[source]
        source: Box<MapError>,
    },
    /// A pinned map is not of the type it should be.
    #[error("a pinned map has an unexpected type")]
    MapType(#[from] MapError),
    /// The kernel refused to attach a program.
    #[error("the kernel refused to attach `{program}`")]
    Attach {
        /// The program.
        program: &'static str,
        /// The reason.
        #[source]
        source: Box<ProgramError>,
    },
    /// A program of a cgroup was to be attached without one.
    #[error("internal error: `{0}` attaches to a cgroup, and none was given")]
    NoCgroup(&'static str),
    /// The kernel attached a program without a bpf_link.
    #[error("bpf_link for `{program}` not supported (requires Linux 5.7)")]
    Link {
        /// The program.
        program: &'static str,
        /// The reason.
        #[source]
        source: Box<LinkError>,
    },
    /// The kernel refused to attach a program to one of its functions.
    #[error("the kernel refused to attach `{program}`")]
    Tracing {
        /// The program.
        program: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The list of policies of a cgroup could not be read or written.
    #[error("cannot {step} the policies of the cgroup")]
    Scope {
        /// `read` or `write`.
        step: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// A map could not be read or written.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The event ring could not be opened.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A directory or pin could not be created, read, moved or removed.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The directory or pin.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

impl DatapathError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            DatapathError::Btf(_) | DatapathError::Types(_) => "kernel_types_unreadable",
            DatapathError::CreateMaps(_) => "maps_refused",
            DatapathError::Load { .. } => "program_refused",
            DatapathError::Missing(_) | DatapathError::NoCgroup(_) => "internal",
            DatapathError::NotMounted(_) => "bpffs_not_mounted",
            DatapathError::Pin { .. } => "pin_failed",
            DatapathError::Open { .. } | DatapathError::MapType(_) => "pinned_map_unusable",
            DatapathError::Attach { .. } | DatapathError::Tracing { .. } => "attach_refused",
            DatapathError::Link { .. } => "link_not_supported",
            DatapathError::Scope { .. } => "scope_failed",
            DatapathError::Table(error) => error.code(),
            DatapathError::Ring(error) => error.code(),
            DatapathError::Io { .. } => "io",
        }
    }
}

impl Hint for DatapathError {
    fn hint(&self) -> Option<String> {
        match self {
            DatapathError::NotMounted(_) => Some(format!(
                "run `mount -t bpf -o mode=700 bpf {CONVENTIONAL_BPFFS}`, or name one with {BPFFS_VARIABLE}"
            )),
            DatapathError::Open { .. } | DatapathError::MapType(_) => Some(
                "the pin may have been removed by hand; `tidegate detach --all` removes what is left"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Why a map could not be read or written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TableError {
    /// All slots are in use.
    #[error("no free slot for another policy: {MAX_POLICIES} are live")]
    Full,
    /// No policy is live in a slot that should have one.
    #[error("no policy is live in slot {}", slot.0)]
    Empty {
        /// The slot.
        slot: Slot,
    },
    /// aya reported an error.
    #[error("cannot {step}")]
    Map {
        /// What was tried.
        step: &'static str,
        /// The reason.
        #[source]
        source: Box<MapError>,
    },
    /// The kernel reported an error.
    #[error("cannot {step}")]
    Io {
        /// What was tried.
        step: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The content of a slot is not an image of this version.
    #[error("the policy in slot {} is not an image of this version", slot.0)]
    Image {
        /// The slot.
        slot: Slot,
        /// The reason.
        #[source]
        source: ImageError,
    },
}

impl TableError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            TableError::Full => "no_free_slot",
            TableError::Empty { .. } => "slot_empty",
            TableError::Map { .. } | TableError::Io { .. } => "map_failed",
            TableError::Image { .. } => "image_invalid",
        }
    }
}

/// Why the event ring could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RingError {
    /// It could not be mapped into memory.
    #[error("cannot map the event ring")]
    Map(#[from] MapError),
    /// It cannot be waited for.
    #[error("cannot wait for the event ring")]
    Wait(#[source] io::Error),
}

impl RingError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        "event_ring_unusable"
    }
}
