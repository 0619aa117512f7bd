//! Plants bugs, one after the other, and lets the scenarios find them: `cargo run -p gdbpool-sim --bin mutants`.
//!
//! Each bug is a patch to `src/` of a copy of the tree, below `target/mutants`; nothing is ever planted in the tree itself.
//! The copy stays, so that each bug, and each later run, compiles only what changed. Arguments are patch files; without
//! any, those of `tests/mutants`. `--seeds N` bounds the search. Prints a table: bug, oracle, scenarios needed, events
//! after shrinking. Exit status 1 when one is not found.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

/// The most scenarios a bug may need.
const SEEDS: u64 = 1_000;

/// What became of a planted bug.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// By this oracle, after so many scenarios, shrunk to so many events.
    Found {
        oracle: String,
        scenarios: u64,
        events: u64,
    },
    /// No scenario failed.
    Hidden,
    /// It could not be planted, or does not compile.
    Unplanted(String),
}

fn main() -> ExitCode {
    let (mut seeds, mut patches) = (SEEDS, Vec::new());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument != "--seeds" {
            patches.push(PathBuf::from(argument));
            continue;
        }
        match arguments.next().and_then(|value| value.parse().ok()) {
            Some(number) => seeds = number,
            None => {
                eprintln!("--seeds needs a number");
                return ExitCode::from(2);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    if patches.is_empty() {
        patches = all_patches(&root.join("tests/mutants"));
    }
    let copy = root.join("target/mutants");
    if let Err(wrong) = copy_tree(&root, &copy) {
        eprintln!("the tree cannot be copied: {wrong}");
        return ExitCode::from(2);
    }
    let mut rows = Vec::new();
    for patch in &patches {
        let name = patch
            .file_stem()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        eprintln!("{name} ...");
        let fate = hunt(&copy, patch, seeds);
        eprintln!("{name}: {fate:?}");
        rows.push((name, fate));
    }
    print_table(&rows)
}

fn all_patches(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let mut patches: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "patch"))
        .collect();
    patches.sort();
    patches
}

/// Every file that git knows of, as it is now.
fn copy_tree(root: &Path, copy: &Path) -> Result<(), String> {
    let listed = run(Command::new("git")
        .current_dir(root)
        .args(["ls-files", "-z", "--cached"]))?;
    for name in String::from_utf8_lossy(&listed.stdout)
        .split('\0')
        .filter(|name| !name.is_empty())
    {
        let (from, to) = (root.join(name), copy.join(name));
        // A file that was deleted and not yet committed is not there.
        if !from.is_file() {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        }
        // Cargo goes by the times of files: what did not change is not touched.
        let wanted = fs::read(&from).map_err(|error| format!("{name}: {error}"))?;
        if fs::read(&to).is_ok_and(|there| there == wanted) {
            continue;
        }
        fs::write(&to, wanted).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

fn hunt(copy: &Path, patch: &Path, seeds: u64) -> Fate {
    let patch = match fs::canonicalize(patch) {
        Ok(patch) => patch,
        Err(error) => return Fate::Unplanted(error.to_string()),
    };
    let apply = |reverse: bool| {
        let mut command = Command::new("git");
        // The copy lies within a repository, and git would look for the files in that.
        command
            .current_dir(copy)
            .env("GIT_DIR", copy.join("no-git"))
            .arg("apply");
        if reverse {
            command.arg("--reverse");
        }
        run(command.arg(&patch))
    };
    if let Err(wrong) = apply(false) {
        return Fate::Unplanted(wrong);
    }
    let fate = explore(copy, seeds);
    match apply(true) {
        Ok(_) => fate,
        Err(wrong) => Fate::Unplanted(format!("could not be taken out again: {wrong}")),
    }
}

fn explore(copy: &Path, seeds: u64) -> Fate {
    let built = run(cargo(copy).args([
        "build",
        "--quiet",
        "--profile",
        "search",
        "-p",
        "gdbpool-sim",
        "--bin",
        "gdbpool-sim",
    ]));
    if let Err(wrong) = built {
        return Fate::Unplanted(wrong);
    }
    let output = Command::new(copy.join("target/search/gdbpool-sim"))
        .current_dir(copy)
        .args(["explore", "--seeds", &seeds.to_string()])
        .output();
    match output {
        Ok(output) => read_fate(&String::from_utf8_lossy(&output.stdout)),
        Err(error) => Fate::Unplanted(error.to_string()),
    }
}

fn cargo(copy: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(copy).env("CARGO_TARGET_DIR", copy.join("target"));
    command
}

/// Reads what `explore` says of its first failure.
fn read_fate(said: &str) -> Fate {
    let Some(line) = said.lines().find(|line| line.starts_with("failure: ")) else {
        return match said.lines().any(|line| line.starts_with("scenarios=")) {
            true => Fate::Hidden,
            false => Fate::Unplanted("explore did not come to its end".to_owned()),
        };
    };
    let field = |name: &str| {
        let words = line.split_whitespace();
        let mut values = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        values.next().unwrap_or_default().to_owned()
    };
    Fate::Found {
        oracle: field("oracle"),
        scenarios: field("scenarios").parse().unwrap_or_default(),
        events: field("events").parse().unwrap_or_default(),
    }
}

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(output),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

fn print_table(rows: &[(String, Fate)]) -> ExitCode {
    println!("{:<30} {:<8} {:>9} {:>6}", "bug", "oracle", "scenarios", "events");
    let mut missed = 0;
    for (name, fate) in rows {
        match fate {
            Fate::Found {
                oracle,
                scenarios,
                events,
            } => println!("{name:<30} {oracle:<8} {scenarios:>9} {events:>6}"),
            Fate::Hidden => {
                missed += 1;
                println!("{name:<30} not found");
            }
            Fate::Unplanted(wrong) => {
                missed += 1;
                println!("{name:<30} not planted: {}", wrong.lines().next().unwrap_or_default());
            }
        }
    }
    println!("bugs={} missed={missed}", rows.len());
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_explore_says_is_read() {
        let said =
            "to replay: x\nfailure: oracle=O6 seed=7 scenarios=12 events=4 of 30 tries=90\nscenarios=12 failures=1";
        let found = Fate::Found {
            oracle: "O6".to_owned(),
            scenarios: 12,
            events: 4,
        };
        assert_eq!(read_fate(said), found);
        assert_eq!(read_fate("scenarios=1000 failures=0 unseen=3"), Fate::Hidden);
        assert!(matches!(read_fate("killed"), Fate::Unplanted(_)));
    }

    #[test]
    fn every_patch_of_the_repository_says_what_it_plants() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/mutants");
        let patches = all_patches(&folder);
        assert!(patches.len() >= 25, "only {} planted bugs", patches.len());
        for patch in patches {
            let text = fs::read_to_string(&patch).unwrap();
            assert!(text.starts_with("# "), "{} does not say what it is", patch.display());
            assert!(
                text.contains("\ndiff --git a/src/"),
                "{} is no patch to src/",
                patch.display()
            );
        }
    }
}
