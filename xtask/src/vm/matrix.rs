//! `vm-tests/kernels.toml`: which kernels there are, and what must hold on each.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::command::workspace;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Matrix {
    /// How long a test program may take, seconds.
    pub(crate) program_seconds: u64,
    /// How long a kernel may take in all, seconds.
    pub(crate) kernel_seconds: u64,
    /// The kernel that `cargo xtask demo --vm` boots unless another is named.
    pub(crate) demo_kernel: String,
    /// Modules to load where they are modules.
    pub(crate) modules: Vec<String>,
    /// Tests that are run on no kernel of the matrix.
    #[serde(default)]
    pub(crate) left_out: Vec<Rule>,
    /// Tests that are run only when all are asked for.
    #[serde(default)]
    pub(crate) slow: Vec<Rule>,
    /// The kernels, in the order they are run.
    #[serde(rename = "kernel")]
    pub(crate) kernels: Vec<Kernel>,
}

/// A row of the matrix.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kernel {
    /// What `--kernel` takes.
    pub(crate) name: String,
    /// Why this row is there.
    pub(crate) about: String,
    /// What a user finds different there.
    #[serde(default)]
    pub(crate) differs: String,
    /// Suites of Debian to look in; the newest version of all is taken.
    pub(crate) suites: Vec<String>,
    /// Name of the package that has the kernel; `*` stands for the version.
    pub(crate) package: String,
    /// Other packages that belong to it; `*` stands for what it stood for in `package`.
    #[serde(default)]
    pub(crate) with: Vec<String>,
    /// What is added to the kernel's command line.
    #[serde(default)]
    pub(crate) command_line: String,
    /// Tests that are not run on this kernel.
    #[serde(default)]
    pub(crate) left_out: Vec<Rule>,
    /// Tests that are run on this kernel only when all are asked for.
    #[serde(default)]
    pub(crate) slow: Vec<Rule>,
    /// Tests that need not pass here; all others must.
    #[serde(default)]
    pub(crate) cannot: Vec<Rule>,
}

impl Kernel {
    fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.cannot.iter().chain(&self.left_out).chain(&self.slow)
    }
}

/// Something said of some tests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// `program::test`, `*` for anything.
    pub(crate) tests: Vec<String>,
    /// On these kernels only; on all where none is named. For rules that stand below no kernel.
    #[serde(default)]
    pub(crate) kernels: Vec<String>,
    /// Why.
    pub(crate) reason: String,
}

impl Rule {
    fn covers(&self, test: &str) -> bool {
        self.tests.iter().any(|glob| matches(glob, test))
    }
}

/// The reason of the first rule about a test.
pub(crate) fn reason<'a>(rules: &'a [Rule], test: &str) -> Option<&'a str> {
    let rule = rules.iter().find(|rule| rule.covers(test))?;
    Some(&rule.reason)
}

/// Whether a name is one of those that a pattern means; `*` stands for anything.
pub(crate) fn matches(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            // The shortest first; the rest of the pattern says whether it was enough.
            let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            starts.any(|at| matches(tail, &rest[at..]))
        }),
    }
}

impl Matrix {
    /// Reads the file.
    ///
    /// # Errors
    /// When it is not there or not as it should be.
    pub(crate) fn read() -> Result<Matrix> {
        let path = workspace().join("vm-tests/kernels.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Matrix::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> Result<Matrix> {
        let mut matrix: Matrix = toml::from_str(text)?;
        matrix.hand_down()?;
        matrix.chosen(std::slice::from_ref(&matrix.demo_kernel))?;
        for kernel in &matrix.kernels {
            let stars = kernel.package.matches('*').count();
            ensure!(stars == 1, "{}: `package` has {stars} `*`, not one", kernel.name);
            for rule in kernel.rules() {
                ensure!(
                    !rule.reason.is_empty(),
                    "{}: a rule without a reason",
                    kernel.name
                );
            }
        }
        Ok(matrix)
    }

    /// Gives rules that name kernels to these.
    fn hand_down(&mut self) -> Result<()> {
        let of_all = [&mut self.left_out, &mut self.slow];
        let [left_out, slow] = of_all
            .map(|rules| -> Vec<Rule> { rules.extract_if(.., |rule| !rule.kernels.is_empty()).collect() });
        for rule in left_out.iter().chain(&slow) {
            self.chosen(&rule.kernels)?;
        }
        for kernel in &mut self.kernels {
            let own = [&kernel.left_out, &kernel.slow, &kernel.cannot];
            ensure!(
                own.into_iter().flatten().all(|rule| rule.kernels.is_empty()),
                "{}: a rule below a kernel names kernels",
                kernel.name
            );
            let is_meant = |rule: &&Rule| rule.kernels.contains(&kernel.name);
            kernel.left_out.extend(left_out.iter().filter(is_meant).cloned());
            kernel.slow.extend(slow.iter().filter(is_meant).cloned());
        }
        Ok(())
    }

    /// Holds every pattern, of the file and those asked for, against the tests there are: one that means
    /// none of them is a mistake, or older than the tests.
    ///
    /// # Errors
    /// When there is such a pattern.
    pub(crate) fn meant(&self, asked: &[String], tests: &[String]) -> Result<()> {
        let of_kernels = self.kernels.iter().flat_map(Kernel::rules);
        let rules = self.left_out.iter().chain(&self.slow).chain(of_kernels);
        let globs = rules.flat_map(|rule| &rule.tests).chain(asked);
        for glob in globs {
            ensure!(
                tests.iter().any(|test| matches(glob, test)),
                "no test is named {glob:?}"
            );
        }
        Ok(())
    }

    /// The rows of these names, or all.
    ///
    /// # Errors
    /// When there is no such row.
    pub(crate) fn chosen(&self, names: &[String]) -> Result<Vec<&Kernel>> {
        let known = || {
            let names: Vec<&str> = self.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
            names.join(", ")
        };
        if let Some(unknown) = names
            .iter()
            .find(|name| self.kernels.iter().all(|kernel| kernel.name != **name))
        {
            bail!("there is no kernel {unknown:?}; the kernels are {}", known());
        }
        let wanted = |kernel: &&Kernel| names.is_empty() || names.contains(&kernel.name);
        Ok(self.kernels.iter().filter(wanted).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_anything() {
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
    fn the_file_of_this_repository_is_understood() {
        let matrix = Matrix::read().unwrap();
        assert!(matrix.kernels.len() >= 6);
        assert!(matrix.chosen(&["6.1".to_owned()]).unwrap().len() == 1);
        let error = matrix.chosen(&["6.2".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("6.2") && error.contains("6.12"), "{error}");
    }

    #[test]
    fn a_pattern_that_means_no_test_is_a_mistake() {
        let head = "program_seconds = 1\nkernel_seconds = 1\ndemo_kernel = \"x\"\nmodules = []\n[[kernel]]\nname = \"x\"\nabout = \"\"\nsuites = []\npackage = \"a-*\"\n";
        let slow = "\n[[slow]]\ntests = [\"kill::*\"]\nreason = \"x\"";
        let matrix = Matrix::parse(&format!("{head}{slow}")).unwrap();
        let tests = ["kill::a".to_owned(), "ring_buffer::b".to_owned()];
        assert!(matrix.meant(&[], &tests).is_ok());
        assert!(matrix.meant(&["ring_buffer::*".to_owned()], &tests).is_ok());
        assert!(matrix.meant(&["rong::*".to_owned()], &tests).is_err());
        assert!(matrix.meant(&[], &tests[1..]).is_err());
    }

    #[test]
    fn a_rule_that_names_kernels_is_theirs() {
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
    fn mistakes_are_refused() {
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
