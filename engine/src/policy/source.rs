//! The text of one file, and where in it things are. The only place of this room that reads files.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::diagnostic::Place;

/// Greatest size of a policy file, in bytes.
pub const MAX_POLICY_BYTES: u64 = 4 << 20;
/// Greatest size of an address file, in bytes.
pub const MAX_ADDRESS_FILE_BYTES: u64 = 64 << 20;

/// Longest excerpt of a line that a diagnostic carries, in bytes.
const MAX_EXCERPT: usize = 240;

/// A range of bytes of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The text of a file with its name.
#[derive(Debug)]
pub(super) struct Source<'t> {
    pub(super) name: &'t str,
    pub(super) text: &'t str,
    /// Byte offset of the start of each line.
    line_starts: Vec<usize>,
}

impl<'t> Source<'t> {
    pub(super) fn new(name: &'t str, text: &'t str) -> Source<'t> {
        let breaks = text.bytes().enumerate().filter(|&(_, b)| b == b'\n');
        Source {
            name,
            text,
            line_starts: std::iter::once(0).chain(breaks.map(|(i, _)| i + 1)).collect(),
        }
    }

    /// The line number (from 1) of a byte offset.
    pub(super) fn line(&self, at: usize) -> usize {
        self.line_starts.partition_point(|&start| start <= at).max(1)
    }

    /// The place of a span, for a diagnostic.
    pub(super) fn place(&self, span: Span) -> Place {
        let floor = |at: usize| {
            (0..=at.min(self.text.len()))
                .rev()
                .find(|&i| self.text.is_char_boundary(i))
                .unwrap_or(0)
        };
        let (start, end) = (floor(span.start), floor(span.end));
        let line = self.line(start);
        let from = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let to = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let content = self.text[from..to].trim_end_matches(['\n', '\r']);
        place_in_line(line, content, start - from, end.saturating_sub(from))
    }
}

/// The place of `start..end` (byte offsets in the line; what goes beyond it is cut) of line number
/// `line`.
pub(super) fn place_in_line(line: usize, content: &str, start: usize, end: usize) -> Place {
    let boundary = |at: usize| {
        (0..=at.min(content.len()))
            .rev()
            .find(|&i| content.is_char_boundary(i))
            .unwrap_or(0)
    };
    let start = boundary(start);
    let end = boundary(end.clamp(start, content.len()));
    // Of a very long line, a window around the start.
    let from = if content.len() > MAX_EXCERPT {
        boundary(start.saturating_sub(MAX_EXCERPT / 2))
    } else {
        0
    };
    let to = boundary((from + MAX_EXCERPT).min(content.len()));
    let cut = end.min(to).max(start);
    Place {
        line,
        column: content[..start].chars().count() + 1,
        text: content[start..cut].trim_end().to_owned(),
        excerpt: content[from..to].to_owned(),
        range: start - from..cut - from,
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is not a regular file")]
    NotAFile,
    #[error("is larger than {limit} bytes")]
    TooLarge { limit: u64 },
}

/// Reads a policy file: anything but a directory, since shells hand over pipes for `<(command)`.
pub(super) fn read_policy(path: &Path) -> Result<Vec<u8>, ReadError> {
    bounded(File::open(path)?, MAX_POLICY_BYTES)
}

/// Reads an address file, which must be a regular file: a policy must not make its reader wait at
/// a pipe or read a device.
pub(super) fn read_address_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let file = OpenOptions::new()
        .read(true)
        // Without it the open itself waits at a pipe.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(ReadError::NotAFile);
    }
    bounded(file, MAX_ADDRESS_FILE_BYTES)
}

/// Reads all of a stream that must not have more than `limit` bytes.
pub(super) fn bounded(stream: impl Read, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    stream.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge { limit });
    }
    Ok(bytes)
}
