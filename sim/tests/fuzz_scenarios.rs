//! The fuzzer's scenarios: each input of the committed corpus is a scenario that breaks no promise, and the same one at each
//! reading.

#![allow(unreachable_pub, reason = "the shared part is a fuzz target's, too")]

#[path = "../../fuzz/src/scenario.rs"]
mod scenario;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn the_corpus_keeps_its_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/scenario");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "{paths:?}");
    let mut classes = BTreeSet::new();
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        let made = scenario::scenario(&bytes);
        assert_eq!(made, scenario::scenario(&bytes));
        assert_eq!(scenario::broken(&bytes), None, "{}", path.display());
        println!(
            "{}: {} clients, {} faults, {:?}",
            path.display(),
            made.clients.len(),
            made.faults.len(),
            made.schedule
        );
        classes.extend(made.faults.iter().map(|fault| fault.what.name()));
    }
    assert!(classes.len() >= 10, "the corpus has few kinds of faults: {classes:?}");
}
