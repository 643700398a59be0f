//! The report file of `exec`: JSON lines.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::json;

use crate::hint::Hint;

/// Failure to write a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file could not be opened.
    #[error("cannot create the report {path:?}")]
    Create {
        /// Path of the report.
        path: PathBuf,
        /// The failure of the system call.
        source: io::Error,
    },
    /// A write failed: the disk is full, or the reader of a pipe is gone.
    #[error("cannot write the report {path:?}")]
    Write {
        /// Path of the report.
        path: PathBuf,
        /// The failure of the system call.
        source: io::Error,
    },
    /// An object could not be turned into JSON.
    #[error("cannot turn a line of the report {path:?} into JSON")]
    Json {
        /// Path of the report.
        path: PathBuf,
        /// The failure of serde_json.
        source: serde_json::Error,
    },
}

impl Hint for ReportError {}

/// A report: one JSON object per line ([`json`]). Lines are buffered until [`flush`](ReportFile::flush).
pub struct ReportFile {
    path: PathBuf,
    to: BufWriter<Box<dyn Write + Send>>,
}

impl ReportFile {
    /// Creates or truncates the file, with mode 0666 minus the umask. The path
    /// `-` is standard output; devices and named pipes are opened as they are.
    ///
    /// # Errors
    /// [`ReportError::Create`] if the path cannot be written, or is a directory.
    pub fn create(path: &Path) -> Result<ReportFile, ReportError> {
        let to: Box<dyn Write + Send> = if path == Path::new("-") {
            Box::new(io::stdout())
        } else {
            let file = File::create(path).map_err(|source| ReportError::Create {
                path: path.to_owned(),
                source,
            })?;
            Box::new(file)
        };
        Ok(ReportFile {
            path: path.to_owned(),
            to: BufWriter::new(to),
        })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// [`ReportError::Write`] if the buffer was full and could not be written.
    pub fn write(&mut self, object: &impl Serialize) -> Result<(), ReportError> {
        let line = json::line(object).map_err(|source| ReportError::Json {
            path: self.path.clone(),
            source,
        })?;
        let written = writeln!(self.to, "{line}");
        self.check(written)
    }

    /// Writes all buffered lines.
    ///
    /// # Errors
    /// [`ReportError::Write`] if they could not be written.
    pub fn flush(&mut self) -> Result<(), ReportError> {
        let flushed = self.to.flush();
        self.check(flushed)
    }

    fn check(&self, result: io::Result<()>) -> Result<(), ReportError> {
        result.map_err(|source| ReportError::Write {
            path: self.path.clone(),
            source,
        })
    }
}

impl std::fmt::Debug for ReportFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReportFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::events::test_records::named;

    #[test]
    fn a_report_has_one_object_per_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.jsonl");
        std::fs::write(&path, "earlier content").unwrap();
        let mut report = ReportFile::create(&path).unwrap();
        for _ in 0..2 {
            named(
                |_| {},
                |event| report.write(&json::EventLine::new(event)).unwrap(),
            );
        }
        report.flush().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(object["type"], "event");
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0, "{mode:o}");
    }

    #[test]
    fn errors_name_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let error = ReportFile::create(directory.path()).unwrap_err();
        assert!(
            matches!(&error, ReportError::Create { source, .. } if source.kind() == io::ErrorKind::IsADirectory)
        );
        assert!(error.to_string().contains(directory.path().to_str().unwrap()));

        let mut report = ReportFile::create(Path::new("/dev/full")).unwrap();
        report.write(&1).unwrap();
        let error = report.flush().unwrap_err();
        assert!(
            matches!(&error, ReportError::Write { source, .. } if source.kind() == io::ErrorKind::StorageFull)
        );
    }
}
