//! Arbitrary client bytes never make the server panic or spin: the fuzzer's corpus, and mutations of it.

#![allow(unreachable_pub, reason = "the shared part is a fuzz target's, too")]

#[path = "../../fuzz/src/frontend.rs"]
mod frontend;

use std::fs;
use std::path::Path;

use gdbpool_sim::Stream;

/// Mutations of each file of the corpus.
const MUTATIONS: u64 = 60;

fn corpus() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/server_frontend");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 10, "{paths:?}");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn the_corpus_is_answered() {
    let answered = corpus().iter().filter(|input| frontend::frontend(input) > 0).count();
    assert!(answered >= 10, "{answered} inputs were answered");
}

#[test]
fn mutations_are_survived() {
    let inputs = corpus();
    for (number, input) in inputs.iter().enumerate() {
        let mut random = Stream::new(1, "mutation", number as u64);
        let mut below = |bound: usize| usize::try_from(random.below(bound as u64)).unwrap();
        for _ in 0..MUTATIONS {
            let mut bytes = input.clone();
            for _ in 0..=below(4) {
                let at = below(bytes.len());
                match below(4) {
                    0 => bytes[at] = u8::try_from(below(256)).unwrap(),
                    1 => bytes.truncate(at.max(3)),
                    2 => bytes.insert(at, u8::try_from(below(256)).unwrap()),
                    _ => bytes.extend_from_slice(&inputs[below(inputs.len())][2..]),
                }
            }
            frontend::frontend(&bytes);
        }
    }
}
