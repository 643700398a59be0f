//! Untrusted text made safe for a terminal. Processes choose their names and paths; without this
//! they could move the cursor, colour the report or turn the reading direction.

use std::fmt::{self, Write};

/// Whether a terminal shows the character as itself and nothing else: no control, no format
/// character (bidi, zero width, tags), no separator but the plain space, nothing unassigned, and
/// no combining mark, which would join its neighbour.
pub fn shows_as_itself(c: char) -> bool {
    match c {
        ' ' | '"' | '\'' | '\\' => true,
        _ => c.escape_debug().len() == 1,
    }
}

/// The text with everything escaped that does not show as itself: `\x1b` for a byte below 128 and for
/// bytes that are not UTF-8, `\u{202e}` for other characters. A backslash is doubled, so that the
/// result can be read back.
pub fn escaped(bytes: &[u8]) -> impl fmt::Display {
    Escaped {
        bytes,
        as_word: false,
    }
}

/// Like [`escaped`], for text among other text: in double quotes when it is empty or could be taken
/// for more than one word.
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
                    _ if shows_as_itself(c) => f.write_char(c)?,
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

/// What needs no quotes: letters and digits of any script, and the marks usual in names and paths.
fn is_plain(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"_-./:+@%=,#~".contains(byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
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
    fn a_word_stays_one_word() {
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
        fn nothing_unsafe_comes_out(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert!(escaped(&bytes).to_string().chars().all(shows_as_itself));
            let word = word(&bytes).to_string();
            prop_assert!(word.starts_with('"') || !word.contains(' '));
        }

        #[test]
        fn nothing_unsafe_comes_out_of_text(text in "\\PC{0,20}|.{0,20}") {
            prop_assert!(escaped(text.as_bytes()).to_string().chars().all(shows_as_itself));
        }
    }
}
