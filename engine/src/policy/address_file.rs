//! Files with one address or network a line, such as feeds of bad hosts.

use std::path::Path;

use engine_common::limits::MAX_CIDRS;
use ipnet::IpNet;

use super::{
    diagnostic::{Code, Diagnostic, Fault, Place, Severity, more},
    network,
    source::{self, ReadError},
};

/// Most faults of one file that are listed.
const MAX_LISTED: usize = 20;

/// Why a file could not be taken.
pub(super) enum AddressFileError {
    /// It cannot be read at all.
    Read(ReadError),
    /// What is wrong in it; more in number than are listed, perhaps.
    Faults(Vec<Diagnostic>),
}

/// Reads an address file: one address or network a line, `#` starts a comment.
pub(super) fn read(path: &Path) -> Result<Vec<IpNet>, AddressFileError> {
    let bytes = source::read_address_file(path).map_err(AddressFileError::Read)?;
    parse(&path.display().to_string(), &bytes).map_err(AddressFileError::Faults)
}

fn parse(name: &str, bytes: &[u8]) -> Result<Vec<IpNet>, Vec<Diagnostic>> {
    let mut networks = Vec::new();
    let mut faults = Vec::new();
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
        let fault = if !is_text {
            Fault::new(
                Code::NotText,
                "a line that is not UTF-8",
                "write plain text: one address or network a line",
            )
        } else if text.is_empty() {
            continue;
        } else if networks.len() == MAX_CIDRS {
            Fault::new(
                Code::TooLarge,
                format!("more than {MAX_CIDRS} addresses and networks"),
                "merge neighbouring networks, or split the policy",
            )
        } else {
            match network::parse(text) {
                Ok(network) => {
                    networks.push(network);
                    continue;
                }
                Err(fault) => refined(text, *fault),
            }
        };
        count += 1;
        let stop = fault.code == Code::TooLarge;
        if faults.len() < MAX_LISTED {
            let start = entry.len() - entry.trim_start().len();
            let place = source::place_in_line(number + 1, content.trim_end(), start, start + text.len());
            faults.push(diagnostic(name, fault, place));
        }
        if stop {
            break;
        }
    }
    if count == 0 {
        return Ok(networks);
    }
    if count > faults.len() {
        faults.push(more(name, count - faults.len()));
    }
    Err(faults)
}

/// Help that fits a file better than a list of a policy.
fn refined(text: &str, fault: Fault) -> Fault {
    if text.starts_with('@') {
        return Fault {
            help: "sets are named in policies, not in address files".to_owned(),
            ..fault
        };
    }
    if text.contains(|c: char| c.is_whitespace() || c == ',') {
        return Fault {
            help: "write one address or network a line; a comment starts with `#`".to_owned(),
            ..fault
        };
    }
    fault
}

fn diagnostic(name: &str, fault: Fault, place: Place) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: fault.code,
        file: name.to_owned(),
        place: Some(place),
        message: fault.message,
        help: fault.help,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_blank_lines_and_line_ends() {
        let text = b"\xef\xbb\xbf# feed\r\n203.0.113.7 # bad\r\n\n  2001:db8::/32\n";
        let networks = parse("feed", text).unwrap();
        let read: Vec<String> = networks.iter().map(ToString::to_string).collect();
        assert_eq!(read, ["203.0.113.7/32", "2001:db8::/32"]);
    }

    #[test]
    fn faults_have_their_line_and_are_bounded() {
        let mut text = String::from("203.0.113.7\n  203.0.113.9/24 # host bits\n");
        for _ in 0..30 {
            text.push_str("nothing\n");
        }
        let faults = parse("feed", text.as_bytes()).unwrap_err();
        let place = faults[0].place.as_ref().unwrap();
        assert_eq!(
            (place.line, place.column, place.text.as_str()),
            (2, 3, "203.0.113.9/24")
        );
        assert_eq!(faults.len(), MAX_LISTED + 1);
        assert_eq!(faults[MAX_LISTED].message, "and 11 more");
    }

    #[test]
    fn lines_that_are_no_text_are_faults() {
        let faults = parse("feed", b"203.0.113.7\n\xff\xfe\n").unwrap_err();
        assert_eq!(faults[0].code, Code::NotText);
    }
}
