//! Names of bound unix sockets.

use std::fmt;

use engine_common::unix_socket_id::UNIX_NAME_BYTES;

use super::escape::word;

/// The name that a unix socket was bound to: any bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BoundName {
    bytes: [u8; UNIX_NAME_BYTES],
    length: u8,
}

impl BoundName {
    /// The name in a `sun_path`; `None` if it is too long. A path ends at its NUL.
    pub fn new(name: &[u8]) -> Option<BoundName> {
        let name = match name {
            [0, ..] | [] => name,
            path => path.split(|&byte| byte == 0).next().unwrap_or_default(),
        };
        let mut bytes = [0; UNIX_NAME_BYTES];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(BoundName {
            bytes,
            length: name.len() as u8,
        })
    }

    /// The path, or the abstract name prefixed with `@`; `None` if the socket has no name.
    pub fn name(&self) -> Option<Vec<u8>> {
        match &self.bytes[..usize::from(self.length)] {
            [] => None,
            [0, name @ ..] => Some([b"@", name].concat()),
            path => Some(path.to_vec()),
        }
    }
}

impl fmt::Display for BoundName {
    /// `unix:/run/docker.sock`, `unix:@name`, `unix socket`; safe for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "unix:{}", word(&name)),
            None => f.write_str("unix socket"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_form_of_policies() {
        let shown = |name: &[u8]| BoundName::new(name).unwrap().to_string();
        assert_eq!(shown(b"/run/docker.sock\0"), "unix:/run/docker.sock");
        assert_eq!(shown(b"\0/tmp/.X11-unix/X0"), "unix:@/tmp/.X11-unix/X0");
        assert_eq!(shown(b""), "unix socket");
        assert_eq!(shown(b"/run/\x1b[2J"), "unix:\"/run/\\x1b[2J\"");
        assert!(BoundName::new(&[b'a'; 108]).is_some());
        assert!(BoundName::new(&[b'a'; 109]).is_none());
    }
}
