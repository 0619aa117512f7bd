//! The core brings no runtime along: without adapters there is no executor in its dependency tree, and of tokio it
//! enables only byte buffers' I/O traits and synchronisation.

use std::collections::BTreeSet;
use std::process::Command;

#[test]
fn of_tokio_only_io_util_and_sync() {
    // Lines about tokio's features read: tokio feature "sync"
    let tree = cargo_tree(&["--edges", "normal,features", "--invert", "tokio"]);
    let features = tree
        .lines()
        .filter_map(|line| line.strip_prefix("tokio feature \"")?.split('"').next());
    let features: BTreeSet<&str> = features.collect();
    assert!(
        features.contains("io-util") && features.contains("sync"),
        "not the expected kind of tree:\n{tree}"
    );

    let allowed = BTreeSet::from(["bytes", "default", "io-util", "sync"]);
    let foreign: Vec<&&str> = features.difference(&allowed).collect();
    assert!(foreign.is_empty(), "the core enables {foreign:?} on tokio:\n{tree}");
}

#[test]
fn no_runtime_without_adapters() {
    let core = crates(&cargo_tree(&["--edges", "normal"]));
    assert!(
        core.contains("tokio-postgres"),
        "not the expected kind of tree: {core:?}"
    );
    for runtime in [
        "async-executor",
        "async-global-executor",
        "async-io",
        "async-std",
        "fastrand",
        "mio",
        "smol",
    ] {
        assert!(!core.contains(runtime), "the core depends on {runtime}");
    }
}

#[test]
fn an_adapter_brings_its_own_runtime_only() {
    for (feature, brings, not) in [
        ("smol", "smol", "async-std"),
        ("async-std", "async-std", "smol"),
        ("tokio", "mio", "smol"),
    ] {
        let with_adapter = crates(&cargo_tree(&["--edges", "normal", "--features", feature]));
        assert!(
            with_adapter.contains(brings),
            "feature {feature} does not bring {brings}: {with_adapter:?}"
        );
        assert!(!with_adapter.contains(not), "feature {feature} brings {not}");
    }
}

/// The tree of the library without default features, one dependency per line.
fn cargo_tree(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args([
        "tree",
        "--locked",
        "--package",
        "gdbpool",
        "--no-default-features",
        "--prefix",
        "none",
    ]);
    let output = command.args(arguments).output().expect("run cargo");
    assert!(
        output.status.success(),
        "cargo tree failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("plain text")
}

/// The names of the crates in a tree.
fn crates(tree: &str) -> BTreeSet<String> {
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}
