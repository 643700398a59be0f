//! The orders for init: one per line, with tab-separated fields.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// An order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Load a kernel module.
    Module(String),
    /// Set an environment variable for the following tests.
    Variable(String, String),
    /// Set the working directory of the following tests.
    Directory(String),
    /// Run a test program.
    Test(Test),
}

/// A test program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Test {
    /// Its name on the console.
    pub(crate) name: String,
    /// Its time limit.
    pub(crate) limit: Duration,
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
}

impl Order {
    /// Reads all lines.
    ///
    /// # Errors
    /// When a line is not a valid order: a skipped order must not look like a success.
    pub(crate) fn read_all(text: &str) -> Result<Vec<Order>> {
        text.lines().map(Order::read).collect()
    }

    fn read(line: &str) -> Result<Order> {
        let fields: Vec<&str> = line.split('\t').collect();
        Ok(match fields.as_slice() {
            ["module", path] => Order::Module((*path).to_owned()),
            ["variable", name, value] => Order::Variable((*name).to_owned(), (*value).to_owned()),
            ["directory", path] => Order::Directory((*path).to_owned()),
            ["test", name, seconds, args @ ..] if !args.is_empty() => Order::Test(Test {
                name: (*name).to_owned(),
                limit: Duration::from_secs(seconds.parse().with_context(|| line.to_owned())?),
                args: args.iter().map(|&arg| arg.to_owned()).collect(),
            }),
            _ => bail!("invalid order: {line}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let text = "module\t/m.ko\nvariable\tA\tb c\ndirectory\t/x\ntest\tname\t60\t/bin/t\t--exact";
        let test = Test {
            name: "name".into(),
            limit: Duration::from_secs(60),
            args: vec!["/bin/t".into(), "--exact".into()],
        };
        let expected = [
            Order::Module("/m.ko".into()),
            Order::Variable("A".into(), "b c".into()),
            Order::Directory("/x".into()),
            Order::Test(test),
        ];
        assert_eq!(Order::read_all(text).unwrap(), expected);
        for bad in ["test\tname\tsoon\tx", "test\tname\t1", "dance"] {
            assert!(Order::read_all(bad).is_err(), "{bad}");
        }
    }
}
