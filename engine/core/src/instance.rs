//! One instance of Tidegate on a machine: where it keeps its pins and records, and what its programs are loaded with.
//! Built once from the environment by the binary and handed down; nothing else reads these variables.

use std::{ffi::OsString, path::PathBuf};

use thiserror::Error;

use crate::hint::Hint;

/// Environment variable that names the BPF file system for pins.
pub const BPFFS_VARIABLE: &str = "TIDEGATE_BPFFS";

/// Environment variable that names the directory of records of attached policies.
pub const RUN_VARIABLE: &str = "TIDEGATE_RUN";

/// Environment variable that names the directory of state that survives a reboot.
pub const STATE_VARIABLE: &str = "TIDEGATE_STATE";

/// Environment variable with the size of the event ring in bytes.
pub const RING_BYTES_VARIABLE: &str = "TIDEGATE_EVENT_RING_BYTES";

/// Environment variable with a comma-separated list of kernel features and program groups not to use. For tests of what an
/// older kernel would do: it can only take features away.
pub const DISABLE_VARIABLE: &str = "TIDEGATE_DISABLE";

const RUN_DIR: &str = "/run/tidegate";
const STATE_DIR: &str = "/var/lib/tidegate";
/// The smallest page size there is; a ring is a whole number of pages.
const SMALLEST_RING: u32 = 4096;

/// Where one instance keeps what it has, and what its programs are loaded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The BPF file system. `None`: the mounted one, or one that is mounted when it is needed.
    pub bpffs: Option<PathBuf>,
    /// Records of attached policies; gone after a reboot, as the pins are.
    pub run_dir: PathBuf,
    /// State that survives a reboot.
    pub state_dir: PathBuf,
    /// Size of the event ring in bytes: a power of two, at least 4096. `None`: the default size.
    pub ring_bytes: Option<u32>,
    /// Features and program groups not to use.
    pub disabled: Disabled,
}

/// Names of kernel features and program groups that are not to be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disabled(Vec<String>);

/// Why an environment variable could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InstanceError {
    /// The size of the ring is not a valid one.
    #[error("invalid value `{0}` of {RING_BYTES_VARIABLE}: must be a power of two >= {SMALLEST_RING}")]
    RingBytes(String),
    /// A word that names no feature.
    #[error("invalid value `{word}` in {DISABLE_VARIABLE}; expected a comma-separated list of: {}", known.join(", "))]
    Disable {
        /// The word.
        word: String,
        /// What is accepted.
        known: Vec<&'static str>,
    },
    /// A directory must be named by an absolute path, since commands run in different directories.
    #[error("invalid value `{}` of {variable}: must be an absolute path", path.display())]
    RelativePath {
        /// The variable.
        variable: &'static str,
        /// Its value.
        path: PathBuf,
    },
}

impl Hint for InstanceError {}

impl InstanceError {
    /// Stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            InstanceError::RingBytes(_) => "invalid_ring_bytes",
            InstanceError::Disable { .. } => "invalid_disable_word",
            InstanceError::RelativePath { .. } => "relative_path",
        }
    }
}

impl Default for Instance {
    fn default() -> Instance {
        Instance {
            bpffs: None,
            run_dir: RUN_DIR.into(),
            state_dir: STATE_DIR.into(),
            ring_bytes: None,
            disabled: Disabled::default(),
        }
    }
}

impl Instance {
    /// Reads the variables by `get`; one that is empty counts as not set. `known` are the words that may be disabled.
    ///
    /// # Errors
    /// [`InstanceError`] when a variable has a value that is not accepted.
    pub fn from_variables(
        get: impl Fn(&str) -> Option<OsString>,
        known: &[&'static str],
    ) -> Result<Instance, InstanceError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let directory = |variable: &'static str| match get(variable).map(PathBuf::from) {
            Some(path) if path.is_relative() => Err(InstanceError::RelativePath { variable, path }),
            path => Ok(path),
        };
        let default = Instance::default();
        let text = |name: &str| get(name).map(|value| value.to_string_lossy().into_owned());
        Ok(Instance {
            bpffs: directory(BPFFS_VARIABLE)?,
            run_dir: directory(RUN_VARIABLE)?.unwrap_or(default.run_dir),
            state_dir: directory(STATE_VARIABLE)?.unwrap_or(default.state_dir),
            ring_bytes: text(RING_BYTES_VARIABLE).map(ring_bytes).transpose()?,
            disabled: Disabled::parse(&text(DISABLE_VARIABLE).unwrap_or_default(), known)?,
        })
    }
}

fn ring_bytes(text: String) -> Result<u32, InstanceError> {
    match text.parse::<u32>() {
        Ok(bytes) if bytes.is_power_of_two() && bytes >= SMALLEST_RING => Ok(bytes),
        _ => Err(InstanceError::RingBytes(text)),
    }
}

impl Disabled {
    /// Parses a comma-separated list; spaces around a word are ignored, and so are empty words.
    ///
    /// # Errors
    /// [`InstanceError::Disable`] for a word that is not in `known`.
    pub fn parse(text: &str, known: &[&'static str]) -> Result<Disabled, InstanceError> {
        let mut words = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if !known.contains(&word) {
                return Err(InstanceError::Disable {
                    word: word.to_owned(),
                    known: known.to_vec(),
                });
            }
            words.push(word.to_owned());
        }
        words.sort();
        words.dedup();
        Ok(Disabled(words))
    }

    /// Whether a feature or program group is not to be used.
    pub fn has(&self, word: &str) -> bool {
        self.0.iter().any(|disabled| disabled == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 2] = ["lsm", "send_signal"];

    fn with(name: &str, value: &str) -> Result<Instance, InstanceError> {
        Instance::from_variables(|variable| (variable == name).then(|| value.into()), &KNOWN)
    }

    #[test]
    fn unset_and_empty_variables_give_the_defaults() {
        assert_eq!(
            Instance::from_variables(|_| None, &KNOWN),
            Ok(Instance::default())
        );
        assert_eq!(with(BPFFS_VARIABLE, ""), Ok(Instance::default()));
    }

    #[test]
    fn directories_are_absolute() {
        let run = with(RUN_VARIABLE, "/tmp/run").unwrap();
        assert_eq!(run.run_dir, PathBuf::from("/tmp/run"));
        let state = with(STATE_VARIABLE, "/tmp/state").unwrap();
        assert_eq!(state.state_dir, PathBuf::from("/tmp/state"));
        assert_eq!(
            with(BPFFS_VARIABLE, "bpf").unwrap_err().to_string(),
            "invalid value `bpf` of TIDEGATE_BPFFS: must be an absolute path"
        );
    }

    #[test]
    fn the_ring_has_a_size_that_the_kernel_accepts() {
        assert_eq!(with(RING_BYTES_VARIABLE, "8192").unwrap().ring_bytes, Some(8192));
        for wrong in ["2048", "5000", "many", "-1"] {
            assert_eq!(
                with(RING_BYTES_VARIABLE, wrong).unwrap_err().to_string(),
                format!(
                    "invalid value `{wrong}` of TIDEGATE_EVENT_RING_BYTES: must be a power of two >= 4096"
                )
            );
        }
    }

    #[test]
    fn unknown_words_are_refused() {
        let disabled = with(DISABLE_VARIABLE, " send_signal,lsm,, lsm").unwrap().disabled;
        assert!(disabled.has("lsm") && disabled.has("send_signal") && !disabled.has("tracer"));
        assert_eq!(
            with(DISABLE_VARIABLE, "lsm,kill").unwrap_err().to_string(),
            "invalid value `kill` in TIDEGATE_DISABLE; expected a comma-separated list of: lsm, send_signal"
        );
    }
}
