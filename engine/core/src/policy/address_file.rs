//! Reads address files, which have one address or network on each line, such as threat feeds.

use std::path::Path;

use engine_common::limits::MAX_CIDRS;
use ipnet::IpNet;

use super::{
    diagnostic::{Code, Diagnostic, Problem, Severity, SourceLocation, more},
    network,
    source::{self, ReadError},
};

/// Maximum number of errors listed for one file.
const MAX_LISTED: usize = 20;

/// Why an address file was refused.
pub(super) enum AddressFileError {
    /// The file cannot be read.
    Read(ReadError),
    /// The errors in the file, up to a limit.
    Problems(Vec<Diagnostic>),
}

/// Reads an address file. `#` starts a comment.
pub(super) fn read(path: &Path) -> Result<Vec<IpNet>, AddressFileError> {
    let bytes = source::read_address_file(path).map_err(AddressFileError::Read)?;
    parse(&path.display().to_string(), &bytes).map_err(AddressFileError::Problems)
}

fn parse(name: &str, bytes: &[u8]) -> Result<Vec<IpNet>, Vec<Diagnostic>> {
    let mut networks = Vec::new();
    let mut problems = Vec::new();
    let mut count = 0usize;
    for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
        let lossy;
        let (content, is_text) = match std::str::from_utf8(line) {
            Ok(content) => (content, true),
            Err(_) => {
                lossy = String::from_utf8_lossy(line);
                (&*lossy, false)
            }
        };
        let content = if number == 0 {
            content.trim_start_matches('\u{feff}')
        } else {
            content
        };
        let entry = content.split('#').next().unwrap_or_default();
        let text = entry.trim();
        let problem = if !is_text {
            Problem::new(
                Code::NotText,
                "invalid UTF-8",
                "write one address or network on each line",
            )
        } else if text.is_empty() {
            continue;
        } else if networks.len() == MAX_CIDRS {
            Problem::new(
                Code::TooLarge,
                format!("more than {MAX_CIDRS} addresses and networks"),
                "merge adjacent networks, or split the policy",
            )
        } else {
            match network::parse(text) {
                Ok(network) => {
                    networks.push(network);
                    continue;
                }
                Err(problem) => refined(text, *problem),
            }
        };
        count += 1;
        let stop = problem.code == Code::TooLarge;
        if problems.len() < MAX_LISTED {
            let start = entry.len() - entry.trim_start().len();
            let location =
                source::location_in_line(number + 1, content.trim_end(), start, start + text.len());
            problems.push(diagnostic(name, problem, location));
        }
        if stop {
            break;
        }
    }
    if count == 0 {
        return Ok(networks);
    }
    if count > problems.len() {
        problems.push(more(name, count - problems.len()));
    }
    Err(problems)
}

/// Replaces help that only applies to a list in a policy.
fn refined(text: &str, problem: Problem) -> Problem {
    if text.starts_with('@') {
        return Problem {
            help: "an address file cannot refer to sets: use the set in the policy".to_owned(),
            ..problem
        };
    }
    if text.contains(|c: char| c.is_whitespace() || c == ',') {
        return Problem {
            help: "write one address or network on each line; a comment starts with `#`".to_owned(),
            ..problem
        };
    }
    problem
}

fn diagnostic(name: &str, problem: Problem, location: SourceLocation) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: problem.code,
        file: name.to_owned(),
        location: Some(location),
        message: problem.message,
        help: problem.help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_line_ends_are_accepted() {
        let text = b"\xef\xbb\xbf# feed\r\n203.0.113.7 # bad\r\n\n  2001:db8::/32\n";
        let networks = parse("feed", text).unwrap();
        let read: Vec<String> = networks.iter().map(ToString::to_string).collect();
        assert_eq!(read, ["203.0.113.7/32", "2001:db8::/32"]);
    }

    #[test]
    fn errors_have_locations_and_are_limited() {
        let mut text = String::from("203.0.113.7\n  203.0.113.9/24 # host bits\n");
        for _ in 0..30 {
            text.push_str("nothing\n");
        }
        let problems = parse("feed", text.as_bytes()).unwrap_err();
        let location = problems[0].location.as_ref().unwrap();
        assert_eq!(
            (location.line, location.column, location.text.as_str()),
            (2, 3, "203.0.113.9/24")
        );
        assert_eq!(problems.len(), MAX_LISTED + 1);
        assert_eq!(problems[MAX_LISTED].message, "11 more errors not shown");
    }

    #[test]
    fn invalid_utf8_is_an_error() {
        let problems = parse("feed", b"203.0.113.7\n\xff\xfe\n").unwrap_err();
        assert_eq!(problems[0].code, Code::NotText);
    }
}
