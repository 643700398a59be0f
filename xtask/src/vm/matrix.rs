//! Parses `vm-tests/kernels.toml`: the kernels, and the tests that must pass on each.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::command::workspace;

/// The kernel matrix.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matrix {
    /// Time limit of a test program, in seconds.
    pub(crate) program_seconds: u64,
    /// Time limit of a kernel, in seconds.
    pub(crate) kernel_seconds: u64,
    /// The default kernel of `cargo xtask demo --vm`.
    pub(crate) demo_kernel: String,
    /// Modules to load, unless they are built into the kernel.
    pub(crate) modules: Vec<String>,
    /// Tests that are not run on any kernel of the matrix.
    #[serde(default)]
    pub(crate) left_out: Vec<Rule>,
    /// Tests that are run only with `--all`.
    #[serde(default)]
    pub(crate) slow: Vec<Rule>,
    /// The kernels.
    #[serde(rename = "kernel")]
    pub(crate) kernels: Vec<Kernel>,
}

/// A row of the matrix.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    /// Name for `--kernel`.
    pub(crate) name: String,
    /// A description of the kernel.
    pub(crate) about: String,
    /// What is different for users.
    #[serde(default)]
    pub(crate) differs: String,
    /// Debian suites to search; the newest version is used.
    pub(crate) suites: Vec<String>,
    /// Package of the kernel; `*` matches the version.
    pub(crate) package: String,
    /// Further packages; `*` is replaced by what it matched in `package`.
    #[serde(default)]
    pub(crate) with: Vec<String>,
    /// Appended to the kernel's command line.
    #[serde(default)]
    pub(crate) command_line: String,
    /// The suite of systemd and D-Bus, if the machine boots with them.
    #[serde(default)]
    pub(crate) systemd: Option<String>,
    /// Patterns for the only tests that are run on this kernel; empty for all tests.
    #[serde(default)]
    pub(crate) only: Vec<String>,
    /// Tests that are not run on this kernel.
    #[serde(default)]
    pub(crate) left_out: Vec<Rule>,
    /// Tests that are run on this kernel only with `--all`.
    #[serde(default)]
    pub(crate) slow: Vec<Rule>,
    /// Tests that may fail on this kernel; all others must pass.
    #[serde(default)]
    pub(crate) cannot: Vec<Rule>,
}

impl Kernel {
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.cannot.iter().chain(&self.left_out).chain(&self.slow)
    }

    fn patterns(&self) -> impl Iterator<Item = &String> {
        self.rules().flat_map(|rule| &rule.tests).chain(&self.only)
    }
}

/// A rule about some tests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// Patterns for `program::test`; `*` matches any text.
    pub(crate) tests: Vec<String>,
    /// The kernels that it applies to; empty for all. Only for rules outside of a kernel.
    #[serde(default)]
    pub(crate) kernels: Vec<String>,
    /// The reason, for the report.
    pub(crate) reason: String,
}

impl Rule {
    fn covers(&self, test: &str) -> bool {
        self.tests.iter().any(|glob| matches(glob, test))
    }
}

/// The reason of the first rule that matches a test.
pub(crate) fn reason<'a>(rules: &'a [Rule], test: &str) -> Option<&'a str> {
    let rule = rules.iter().find(|rule| rule.covers(test))?;
    Some(&rule.reason)
}

/// Whether a pattern matches a name; `*` matches any text.
pub(crate) fn matches(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            // Try the shortest match first.
            let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts.any(|at| matches(tail, &rest[at..]))
        }),
    }
}

impl Matrix {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read or is not valid.
    pub(crate) fn read() -> Result<Matrix> {
        let path = workspace().join("vm-tests/kernels.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Matrix::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Matrix> {
        let mut matrix: Matrix = toml::from_str(text)?;
        matrix.distribute_rules()?;
        matrix.select(std::slice::from_ref(&matrix.demo_kernel))?;
        for kernel in &matrix.kernels {
            let stars = kernel.package.matches('*').count();
            ensure!(
                stars == 1,
                "{}: `package` has {stars} `*`; expected one",
                kernel.name
            );
            for rule in kernel.rules() {
                ensure!(!rule.reason.is_empty(), "{}: a rule has no reason", kernel.name);
            }
        }
        Ok(matrix)
    }

    /// Moves rules that name kernels to these kernels.
    fn distribute_rules(&mut self) -> Result<()> {
        let of_all = [&mut self.left_out, &mut self.slow];
        let [left_out, slow] = of_all
            .map(|rules| -> Vec<Rule> { rules.extract_if(.., |rule| !rule.kernels.is_empty()).collect() });
        for rule in left_out.iter().chain(&slow) {
            self.select(&rule.kernels)?;
        }
        for kernel in &mut self.kernels {
            let own = [&kernel.left_out, &kernel.slow, &kernel.cannot];
            ensure!(
                own.into_iter().flatten().all(|rule| rule.kernels.is_empty()),
                "{}: a rule of a kernel must not name kernels",
                kernel.name
            );
            let applies = |rule: &&Rule| rule.kernels.contains(&kernel.name);
            kernel.left_out.extend(left_out.iter().filter(applies).cloned());
            kernel.slow.extend(slow.iter().filter(applies).cloned());
        }
        Ok(())
    }

    /// Checks that every pattern, of the file and of the command line, matches a test.
    ///
    /// # Errors
    /// When a pattern matches no test.
    pub(crate) fn check_patterns(&self, asked: &[String], tests: &[String]) -> Result<()> {
        let of_all = self.left_out.iter().chain(&self.slow);
        let of_kernels = self.kernels.iter().flat_map(Kernel::patterns);
        let globs = of_all.flat_map(|rule| &rule.tests).chain(of_kernels);
        for glob in globs.chain(asked) {
            ensure!(
                tests.iter().any(|test| matches(glob, test)),
                "no test matches {glob:?}"
            );
        }
        Ok(())
    }

    /// Whether a test is run on a kernel. Tests that `only` lists are run even if a rule for all kernels leaves them out
    /// or calls them slow.
    pub(crate) fn runs(&self, kernel: &Kernel, test: &str, with_slow: bool) -> bool {
        let covered = |rules: &[Rule]| reason(rules, test).is_some();
        let excluded = |left_out: &[Rule], slow: &[Rule]| covered(left_out) || !with_slow && covered(slow);
        if excluded(&kernel.left_out, &kernel.slow) {
            return false;
        }
        match kernel.only.as_slice() {
            [] => !excluded(&self.left_out, &self.slow),
            only => only.iter().any(|glob| matches(glob, test)),
        }
    }

    /// The kernels with these names, or all.
    ///
    /// # Errors
    /// When a name is unknown.
    pub(crate) fn select(&self, names: &[String]) -> Result<Vec<&Kernel>> {
        let known = || {
            let names: Vec<&str> = self.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
            names.join(", ")
        };
        if let Some(unknown) = names
            .iter()
            .find(|name| self.kernels.iter().all(|kernel| kernel.name != **name))
        {
            bail!("unknown kernel {unknown:?}; expected one of: {}", known());
        }
        let wanted = |kernel: &&Kernel| names.is_empty() || names.contains(&kernel.name);
        Ok(self.kernels.iter().filter(wanted).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_text() {
        for (glob, name, expected) in [
            ("kill::*", "kill::at_connect", true),
            ("kill::*", "skill::at_connect", false),
            ("*::*udplite*", "egress_paths::udplite_sendto", true),
            ("ring_buffer::slow_reader", "ring_buffer::slow_reader", true),
            ("ring_buffer::slow", "ring_buffer::slow_reader", false),
            (
                "linux-image-6.1.*-cloud-amd64",
                "linux-image-6.1.0-56-cloud-amd64",
                true,
            ),
            (
                "linux-image-6.1.*-cloud-amd64",
                "linux-image-6.12.1-cloud-amd64",
                false,
            ),
            (
                "linux-image-6.1.*-cloud-amd64",
                "linux-image-6.1.0-cloud-amd64-unsigned",
                false,
            ),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} {name}");
        }
    }

    #[test]
    fn the_file_of_this_repository_is_valid() {
        let matrix = Matrix::read().unwrap();
        assert!(matrix.kernels.len() >= 6);
        assert!(matrix.select(&["6.1".to_owned()]).unwrap().len() == 1);
        let error = matrix.select(&["6.2".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("6.2") && error.contains("6.12"), "{error}");
    }

    #[test]
    fn a_pattern_that_matches_no_test_is_an_error() {
        let head = "program_seconds = 1\nkernel_seconds = 1\ndemo_kernel = \"x\"\nmodules = []\n[[kernel]]\nname = \"x\"\nabout = \"\"\nsuites = []\npackage = \"a-*\"\n";
        let slow = "\n[[slow]]\ntests = [\"kill::*\"]\nreason = \"x\"";
        let matrix = Matrix::parse(&format!("{head}{slow}")).unwrap();
        let tests = ["kill::a".to_owned(), "ring::b".to_owned()];
        assert!(matrix.check_patterns(&[], &tests).is_ok());
        assert!(matrix.check_patterns(&["ring::*".to_owned()], &tests).is_ok());
        assert!(matrix.check_patterns(&["rong::*".to_owned()], &tests).is_err());
        assert!(matrix.check_patterns(&[], &tests[1..]).is_err());
    }

    #[test]
    fn a_rule_that_names_kernels_applies_to_these() {
        let head = "program_seconds = 1\nkernel_seconds = 1\ndemo_kernel = \"a\"\nmodules = []\n";
        let kernel = |name: &str| {
            format!("[[kernel]]\nname = \"{name}\"\nabout = \"\"\nsuites = []\npackage = \"a-*\"\n")
        };
        let slow =
            |kernels: &str| format!("[[slow]]\ntests = [\"*\"]\nkernels = {kernels}\nreason = \"x\"\n");
        let text = |kernels: &str| [head, &kernel("a"), &kernel("b"), &slow(kernels)].concat();
        let matrix = Matrix::parse(&text("[\"b\"]")).unwrap();
        assert!(matrix.slow.is_empty() && matrix.kernels[0].slow.is_empty());
        assert_eq!(matrix.kernels[1].slow.len(), 1);
        assert!(Matrix::parse(&text("[\"c\"]")).is_err());
        let below = "cannot = [{tests = [\"*\"], kernels = [\"a\"], reason = \"x\"}]\n";
        assert!(Matrix::parse(&[head, &kernel("a"), below].concat()).is_err());
    }

    #[test]
    fn a_kernel_with_only_runs_these_tests() {
        let head = "program_seconds = 1\nkernel_seconds = 1\ndemo_kernel = \"a\"\nmodules = []\n\
                    left_out = [{tests = [\"scope::*\"], reason = \"x\"}]\n\
                    slow = [{tests = [\"exec::slow\"], reason = \"x\"}]\n";
        let kernel = |name: &str, more: &str| {
            format!("[[kernel]]\nname = \"{name}\"\nabout = \"\"\nsuites = []\npackage = \"a-*\"\n{more}\n")
        };
        let only = "only = [\"scope::*\", \"exec::*\"]\nslow = [{tests = [\"exec::own\"], reason = \"x\"}]\n\
                    left_out = [{tests = [\"scope::no\"], reason = \"x\"}]";
        let matrix = Matrix::parse(&[head, &kernel("a", ""), &kernel("b", only)].concat()).unwrap();
        let [all, few] = &matrix.kernels[..] else {
            panic!("two kernels");
        };
        for (test, of_all, of_few) in [
            ("kill::at_connect", true, false),
            ("scope::one", false, true),
            ("scope::no", false, false),
            ("exec::fast", true, true),
            ("exec::slow", false, true),
            ("exec::own", true, false),
        ] {
            assert_eq!(matrix.runs(all, test, false), of_all, "{test}");
            assert_eq!(matrix.runs(few, test, false), of_few, "{test}");
        }
        assert!(matrix.runs(all, "exec::slow", true) && matrix.runs(few, "exec::own", true));
        let tests = ["exec::slow", "exec::own", "scope::no"].map(str::to_owned);
        assert!(matrix.check_patterns(&[], &tests).is_ok());
        assert!(matrix.check_patterns(&[], &tests[2..]).is_err());
    }

    #[test]
    fn invalid_files_are_refused() {
        let with = |kernel: &str| {
            let head = "program_seconds = 1\nkernel_seconds = 1\ndemo_kernel = \"x\"\nmodules = []\n[[kernel]]\nname = \"x\"\nabout = \"\"\nsuites = []\n";
            Matrix::parse(&format!("{head}{kernel}")).is_ok()
        };
        assert!(with("package = \"a-*\""));
        assert!(!with("package = \"a\""));
        assert!(!with("package = \"a-*\"\nnonsense = 1"));
        assert!(!with(
            "package = \"a-*\"\ncannot = [{tests = [\"*\"], reason = \"\"}]"
        ));
    }
}
