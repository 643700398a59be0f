//! The text of a policy file and the locations in it. The only file of this module that reads files.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::diagnostic::SourceLocation;

/// Maximum size of a policy file, in bytes.
pub const MAX_POLICY_BYTES: u64 = 4 << 20;
/// Maximum size of an address file, in bytes.
pub const MAX_ADDRESS_FILE_BYTES: u64 = 64 << 20;

/// Maximum length of a line excerpt in a diagnostic, in bytes.
const MAX_EXCERPT: usize = 240;

/// A byte range of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The name and text of a file.
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

    /// The location of a span.
    pub(super) fn location(&self, span: Span) -> SourceLocation {
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
        location_in_line(line, content, start - from, end.saturating_sub(from))
    }
}

/// The location of `start..end` in a line. `start` and `end` are byte offsets in `content`, which is the
/// text of the line numbered `line`; the range is truncated at the end of the line.
pub(super) fn location_in_line(line: usize, content: &str, start: usize, end: usize) -> SourceLocation {
    let boundary = |at: usize| {
        (0..=at.min(content.len()))
            .rev()
            .find(|&i| content.is_char_boundary(i))
            .unwrap_or(0)
    };
    let start = boundary(start);
    let end = boundary(end.clamp(start, content.len()));
    // The excerpt of a very long line is a window around the start.
    let from = if content.len() > MAX_EXCERPT {
        boundary(start.saturating_sub(MAX_EXCERPT / 2))
    } else {
        0
    };
    let to = boundary((from + MAX_EXCERPT).min(content.len()));
    let cut = end.min(to).max(start);
    SourceLocation {
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

/// Reads a policy file. Pipes are allowed, because shells pass one for `<(command)`.
pub(super) fn read_policy(path: &Path) -> Result<Vec<u8>, ReadError> {
    bounded(File::open(path)?, MAX_POLICY_BYTES)
}

/// Reads an address file. It must be a regular file, so that a policy cannot make the program block on a
/// pipe or read a device.
pub(super) fn read_address_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let file = OpenOptions::new()
        .read(true)
        // Without this flag, opening a pipe blocks.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(ReadError::NotAFile);
    }
    bounded(file, MAX_ADDRESS_FILE_BYTES)
}

/// Reads a stream of at most `limit` bytes to its end.
pub(super) fn bounded(stream: impl Read, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    stream.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::TooLarge { limit });
    }
    Ok(bytes)
}
