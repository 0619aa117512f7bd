//! Scenarios that failed, on disk and in print: a JSON file that replays, and a test to paste.
//!
//! Beside the shrinker and the command. The only file I/O of scenarios; it runs nothing.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Scenario;
use crate::oracle::Oracle;
use crate::source::rust_source;

/// A failing scenario with what is needed to know it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedScenario {
    /// The version of this crate that made it.
    pub version: String,
    /// The oracle that found it.
    pub oracle: Option<Oracle>,
    /// The hash of its run, in hexadecimal: another one means that the code has changed since.
    pub trace_hash: String,
    /// The scenario.
    pub scenario: Scenario,
}

/// A file that cannot be read or written, or holds no scenario.
#[derive(Debug)]
pub enum FileError {
    /// The file itself.
    Io(io::Error),
    /// What is in it.
    Json(serde_json::Error),
}

impl SavedScenario {
    /// A scenario to be saved.
    #[must_use]
    pub fn new(scenario: Scenario, oracle: Option<Oracle>, trace_hash: u128) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            oracle,
            trace_hash: format!("{trace_hash:032x}"),
            scenario,
        }
    }

    /// Writes it to a file.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let text = serde_json::to_string_pretty(self).map_err(FileError::Json)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(FileError::Io)?;
        }
        fs::write(path, text).map_err(FileError::Io)
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// [`FileError::Io`]; [`FileError::Json`] for a file of something else.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path).map_err(FileError::Io)?;
        serde_json::from_str(&text).map_err(FileError::Json)
    }
}

/// The one line that replays a file.
#[must_use]
pub fn replay_line(file: &Path) -> String {
    format!("cargo run --release -p gdbpool-sim -- replay {}", file.display())
}

/// A test to paste, which fails as long as the scenario does.
#[must_use]
pub fn as_test(scenario: &Scenario) -> String {
    format!(
        "#[test]\nfn scenario_{}() {{\n    use gdbpool_sim::fault::*;\n    use gdbpool_sim::scenario::*;\n    \
         use gdbpool_sim::{{Choices, Cut, Direction, Schedule}};\n\n    let scenario = {};\n    \
         check_run(&scenario).unwrap();\n}}\n",
        scenario.seed,
        rust_source(scenario)
    )
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(_) => f.write_str("a scenario's file cannot be read or written"),
            Self::Json(_) => f.write_str("the file holds no scenario"),
        }
    }
}

impl std::error::Error for FileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Json(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_a_scenario() {
        for seed in 0..50 {
            let saved = SavedScenario::new(Scenario::from_seed(seed), Some(Oracle::O9), 7);
            let text = serde_json::to_string(&saved).unwrap();
            assert_eq!(serde_json::from_str::<SavedScenario>(&text).unwrap(), saved);
        }
    }

    #[test]
    fn the_test_to_paste_holds_the_whole_scenario() {
        let scenario = Scenario::from_seed(3);
        let text = as_test(&scenario);
        assert!(text.contains(&format!("{scenario:?}")), "{text}");
        assert!(text.contains("fn scenario_3()"));
    }
}
