//! Escapes untrusted text for terminals. Processes choose their names and paths, and could move the cursor,
//! change colours or the reading direction.

use std::fmt::{self, Write};

/// Whether a terminal prints the character unchanged: not a control or format
/// character (bidi, zero width, tags), not a separator other than the plain space, not unassigned, and
/// not a combining mark, which would change its neighbour.
pub fn is_printable(c: char) -> bool {
    match c {
        ' ' | '"' | '\'' | '\\' => true,
        _ => c.escape_debug().len() == 1,
    }
}

/// The text with characters escaped that are not [`is_printable`]: `\x1b` for a byte below 128 and for
/// bytes that are not UTF-8, `\u{202e}` for other characters. A backslash is doubled, so that the
/// escaping can be reversed.
pub fn escaped(bytes: &[u8]) -> impl fmt::Display {
    Escaped {
        bytes,
        as_word: false,
    }
}

/// Like [`escaped`], as a single word: in double quotes if the text is empty or contains more than names and paths
/// usually do.
pub fn word(bytes: &[u8]) -> impl fmt::Display {
    Escaped { bytes, as_word: true }
}

struct Escaped<'a> {
    bytes: &'a [u8],
    as_word: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = self.as_word && (self.bytes.is_empty() || !self.bytes.iter().all(is_plain));
        if quoted {
            f.write_char('"')?;
        }
        for chunk in self.bytes.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    '\\' => f.write_str("\\\\")?,
                    '"' if quoted => f.write_str("\\\"")?,
                    _ if is_printable(c) => f.write_char(c)?,
                    _ if c.is_ascii() => write!(f, "\\x{:02x}", u32::from(c))?,
                    _ => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        if quoted {
            f.write_char('"')?;
        }
        Ok(())
    }
}

/// Whether a byte needs no quotes: letters and digits of any script, and punctuation that is usual in names and paths.
fn is_plain(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"_-./:+@%=,#~".contains(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_and_format_characters_are_escaped() {
        for (bytes, text) in [
            (&b"curl"[..], "curl"),
            (b"a b", "a b"),
            (b"\x1b[31mred", "\\x1b[31mred"),
            (b"a\nb\tc\rd\x08", "a\\x0ab\\x09c\\x0dd\\x08"),
            (b"\x7f\0", "\\x7f\\x00"),
            (b"\xff\xfeok\xc3", "\\xff\\xfeok\\xc3"),
            (b"a\\b", "a\\\\b"),
            ("b\u{fc}ro".as_bytes(), "b\u{fc}ro"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("\u{202e}txt\u{2066}".as_bytes(), "\\u{202e}txt\\u{2066}"),
            ("\u{200b}\u{feff}\u{ad}".as_bytes(), "\\u{200b}\\u{feff}\\u{ad}"),
            ("\u{2028}\u{a0}".as_bytes(), "\\u{2028}\\u{a0}"),
            ("e\u{301}".as_bytes(), "e\\u{301}"),
            ("\u{e0041}".as_bytes(), "\\u{e0041}"),
        ] {
            assert_eq!(escaped(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_word_has_no_unquoted_blank() {
        for (bytes, text) in [
            (&b"/usr/bin/curl"[..], "/usr/bin/curl"),
            (b"", "\"\""),
            (b"a[1] uid 0", "\"a[1] uid 0\""),
            (b"say \"hi\"", "\"say \\\"hi\\\"\""),
            (b"a\\", "\"a\\\\\""),
        ] {
            assert_eq!(word(bytes).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn escaped_bytes_are_printable(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(escaped(&bytes).to_string().chars().all(is_printable));
            let word = word(&bytes).to_string();
            prop_assert!(word.starts_with('"') || !word.contains(' '));
        }

        #[test]
        fn escaped_text_is_printable(text in "\\PC{0,20}|.{0,20}") {
            prop_assert!(escaped(text.as_bytes()).to_string().chars().all(is_printable));
        }
    }
}
