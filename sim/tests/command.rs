//! The command `gdbpool-sim`: what it prints, the status it ends with, and what it says of arguments it does not understand.

use std::path::PathBuf;
use std::process::{Command, Output};

use gdbpool_sim::scenario::{SavedScenario, Scenario, run};

fn command(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gdbpool-sim"));
    command.args(arguments).output().expect("the command runs")
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("gdbpool-sim-{}-{name}", std::process::id()))
}

#[test]
fn exploring_ends_with_one_line_of_figures() {
    let output = command(&["explore", "--seeds", "4", "--seed", "5", "--threads", "2"]);
    let text = said(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}{}", said(&output.stderr));
    let last = text.lines().last().expect("a last line");
    let names: Vec<_> = last
        .split(' ')
        .map(|field| field.split_once('=').expect("name=value").0)
        .collect();
    assert_eq!(names, ["scenarios", "failures", "unseen", "scenarios_per_minute"]);
    assert!(last.starts_with("scenarios=4 failures=0 unseen="), "{last}");
    // The table above names what was never seen, too.
    assert!(text.contains("fault.server.crash.applied"), "{text}");
    assert!(text.contains("sqlstate.57P01"), "{text}");
}

#[test]
fn a_file_replays_with_the_same_trace() {
    let scenario = Scenario::from_seed(5);
    let hash = run(&scenario).trace_hash;
    let file = file("good.json");
    SavedScenario::new(scenario, None, hash).save(&file).unwrap();
    let output = command(&["replay", &file.display().to_string()]);
    std::fs::remove_file(&file).unwrap();
    let text = said(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let last = text.lines().last().expect("a last line");
    assert!(last.ends_with(&format!("violations=0 trace={hash:032x}")), "{last}");
    assert!(!text.contains("another one"), "{text}");
}

#[test]
fn a_run_that_differs_from_what_was_saved_says_so() {
    let file = file("other.json");
    SavedScenario::new(Scenario::from_seed(5), None, 1).save(&file).unwrap();
    let output = command(&["replay", &file.display().to_string()]);
    std::fs::remove_file(&file).unwrap();
    assert!(said(&output.stdout).contains("another one than when it was saved"));
}

#[test]
fn what_is_not_understood_is_an_error_that_names_it() {
    let broken = file("broken.json");
    std::fs::write(&broken, "{}").unwrap();
    let broken_name = broken.display().to_string();
    for (arguments, name) in [
        (&["explore", "--seeds", "many"][..], "\"many\""),
        (&["explore", "--seeds", "0"], "--seeds"),
        (&["explore", "--speed", "1"], "--speed"),
        (&["replay"], "replay"),
        (&["replay", "/there/is/no/such.json"], "/there/is/no/such.json"),
        (&["replay", &broken_name], "holds no scenario"),
        (&["dance"], "\"dance\""),
    ] {
        let output = command(arguments);
        let text = said(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(name), "{arguments:?}: {text}");
    }
    std::fs::remove_file(&broken).unwrap();
    let help = command(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(said(&help.stdout).contains("explore"));
}
