//! What there is to do: a line each, fields between tabs.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Load a kernel module.
    Module(String),
    /// An environment variable of the tests that follow.
    Variable(String, String),
    /// The folder that the tests that follow start in.
    Folder(String),
    /// Run a test program.
    Test(Test),
}

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Test {
    /// What it is called on the console.
    pub(crate) name: String,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
}

impl Order {
    /// Reads all lines.
    ///
    /// # Errors
    /// When one is not understood: what is not done must not look done.
    pub(crate) fn read_all(text: &str) -> Result<Vec<Order>> {
        text.lines().map(Order::read).collect()
    }

    fn read(line: &str) -> Result<Order> {
        let fields: Vec<&str> = line.split('\t').collect();
        Ok(match fields.as_slice() {
            ["module", path] => Order::Module((*path).to_owned()),
            ["variable", name, value] => Order::Variable((*name).to_owned(), (*value).to_owned()),
            ["folder", path] => Order::Folder((*path).to_owned()),
            ["test", name, seconds, words @ ..] if !words.is_empty() => Order::Test(Test {
                name: (*name).to_owned(),
                limit: Duration::from_secs(seconds.parse().with_context(|| line.to_owned())?),
                words: words.iter().map(|&word| word.to_owned()).collect(),
            }),
            _ => bail!("not understood: {line}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "module\t/m.ko\nvariable\tA\tb c\nfolder\t/x\ntest\tname\t60\t/bin/t\t--exact";
        let test = Test {
            name: "name".into(),
            limit: Duration::from_secs(60),
            words: vec!["/bin/t".into(), "--exact".into()],
        };
        let expected = [
            Order::Module("/m.ko".into()),
            Order::Variable("A".into(), "b c".into()),
            Order::Folder("/x".into()),
            Order::Test(test),
        ];
        assert_eq!(Order::read_all(text).unwrap(), expected);
        for bad in ["test\tname\tsoon\tx", "test\tname\t1", "dance"] {
            assert!(Order::read_all(bad).is_err(), "{bad}");
        }
    }
}
