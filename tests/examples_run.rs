//! Promise: the examples do what they say. Each is run as a program of its own, on throwaway servers (the tour on simulated
//! ones, too), and must end well.

#![cfg(unix)]

use std::path::PathBuf;
use std::process::Command;

/// Cargo builds the examples of a package before it runs all its tests.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let built = test.ancestors().nth(2).expect("the folder of the build");
    built.join("examples").join(name)
}

/// Runs an example to its end; gives what it printed.
fn run(name: &str, arguments: &[&str]) -> String {
    let program = example(name);
    assert!(
        program.exists(),
        "{} is not built: cargo build --all-features --examples",
        program.display()
    );
    let done = Command::new(&program)
        .args(arguments)
        .env_remove("DATABASE_URL")
        .env_remove("REPLICA_URL")
        .output()
        .expect("the example starts");
    let (said, complained) = (
        String::from_utf8_lossy(&done.stdout).into_owned(),
        String::from_utf8_lossy(&done.stderr).into_owned(),
    );
    assert!(done.status.success(), "{name}: {}\n{said}\n{complained}", done.status);
    said
}

#[cfg(feature = "smol")]
#[test]
fn the_web_application_on_smol() {
    let said = run("web_smol", &[]);
    assert!(said.contains("(cached)"), "{said}");
    assert!(said.trim_end().ends_with("cut: [], remaining: 0 }"), "{said}");
}

#[cfg(feature = "smol")]
#[test]
fn tools_of_the_ecosystem() {
    let said = run("ecosystem", &[]);
    assert!(
        said.contains("V2__customers") && said.contains("ann@example.org"),
        "{said}"
    );
}

#[cfg(feature = "async-std")]
#[test]
fn the_web_application_on_async_std() {
    let said = run("web_async_std", &[]);
    assert!(said.contains("(cached)"), "{said}");
    assert!(said.trim_end().ends_with("cut: [], remaining: 0 }"), "{said}");
}

/// What is simulated depends on the seed alone: the same text each time.
#[test]
fn the_tour_on_the_simulator() {
    let first = run("tour", &[]);
    assert!(
        first.contains("Servers: a simulated primary and standby, seed 1"),
        "{first}"
    );
    assert_eq!(run("tour", &["--seed", "1"]), first);
    for seed in 2..6 {
        run("tour", &["--seed", &seed.to_string()]);
    }
}

/// One tour: the same steps, with the same marks, on simulated servers as on real ones.
#[cfg(feature = "smol")]
#[test]
fn the_simulated_tour_is_the_real_one() {
    let steps = |said: &str| -> Vec<String> {
        let lines = said.lines().filter_map(|line| line.strip_prefix("   ok "));
        // Notes have figures in them; which session served how many is up to the scheduler.
        let steps = lines.filter_map(|line| line.get(..36));
        let steps = steps.map(|step| step.trim_end().to_owned());
        let named = steps.filter(|step| !step.contains(": ") && step != ".read()" && step != "checkout()");
        named.collect()
    };
    let (simulated, real) = (run("tour", &[]), run("tour", &["--real"]));
    assert!(steps(&simulated).len() > 40, "{simulated}");
    assert_eq!(steps(&simulated), steps(&real), "{simulated}\n{real}");
}

#[cfg(all(feature = "smol", feature = "async-std", feature = "tokio"))]
#[test]
fn the_tour_on_every_runtime() {
    for runtime in ["smol", "async-std", "tokio"] {
        let said = run("tour", &["--runtime", runtime]);
        assert!(said.contains(&format!("Runtime: {runtime}")), "{said}");
    }
}
