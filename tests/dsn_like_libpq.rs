//! Promise: a connection string means here what it means to libpq, or both refuse it, and so do libpq's variables, service
//! files and password files; the differences that stay are in tables, here and in `values.rs`, each with its reason.
//!
//! The judge is libpq itself, by `PQconninfoParse`, `PQconndefaults` and `PQconnectStart`: version 18, and the machine's own,
//! which may be older. What is written after a failure reads it again: `GDBPOOL_DSN=… cargo test --test dsn_like_libpq`. The numbers of
//! strings and the seed are `GDBPOOL_DSN_CASES` and `GDBPOOL_DSN_SEED`.

#[path = "../src/config/conninfo/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the library's own files")]
mod conninfo;
#[path = "dsn_like_libpq/library.rs"]
mod library;
#[path = "dsn_like_libpq/passwords.rs"]
mod passwords;
#[path = "dsn_like_libpq/strings.rs"]
mod strings;
#[path = "dsn_like_libpq/surroundings.rs"]
mod surroundings;
#[path = "dsn_like_libpq/values.rs"]
mod values;

use std::collections::BTreeMap;
use std::env;

use gdbpool_libpq::Libpq;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::conninfo::KEYS;
use crate::library::libraries;

/// How many strings are tried with each libpq.
const CASES: usize = 12_000;

/// A difference from libpq that stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// A raw `@` or `?` in a URI by which libpq would make a part of a password the name of a host, a user or a database.
    /// Refused here: names are shown in errors and logs.
    PasswordAsName,
    /// `%ff` and the like: a value that is not UTF-8. Refused here: values are Rust strings.
    NotUtf8,
    /// Keys that this libpq does not have yet, and `keepalives_retries`, tokio-postgres's name for `keepalives_count`.
    KeysOfOthers,
    /// Blanks in a URI: before version 18, libpq neither drops nor refuses them. Here as in 18.
    BlanksInUri,
}

/// One string for each difference, and whether libpq (18, or before 18) takes it, and we do.
const EXAMPLES: [(&str, Difference); 7] = [
    ("postgresql://u:pass@word@h/d", Difference::PasswordAsName),
    ("postgresql://u:12/34@h/d", Difference::PasswordAsName),
    ("postgresql://h?user=u&password=p@ss", Difference::PasswordAsName),
    ("postgresql://u:%ff@h/d", Difference::NotUtf8),
    ("keepalives_retries=3", Difference::KeysOfOthers),
    ("servicefile=x", Difference::KeysOfOthers),
    ("postgresql://h/d?user= u ", Difference::BlanksInUri),
];

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    BothRefuse,
    Differs(Difference),
    Same,
}

#[derive(Default)]
struct Counts {
    parsed: usize,
    refused: usize,
    differences: BTreeMap<Difference, usize>,
}

#[test]
fn strings_mean_the_same() {
    for library in libraries() {
        if let Ok(text) = env::var("GDBPOOL_DSN") {
            println!(
                "{}: {:?}",
                library.name,
                judge(&library.libpq, &text).expect("the same")
            );
            continue;
        }
        let (cases, seed) = (number("GDBPOOL_DSN_CASES", CASES), number("GDBPOOL_DSN_SEED", 1));
        let mut runner = runner(seed);
        let strings = strings::mixed();
        let mut counts = Counts::default();
        for _ in 0..cases {
            let tree = strings.new_tree(&mut runner).expect("a string");
            match judge(&library.libpq, &tree.current()) {
                Ok(Verdict::Same) => counts.parsed += 1,
                Ok(Verdict::BothRefuse) => counts.refused += 1,
                Ok(Verdict::Differs(difference)) => *counts.differences.entry(difference).or_default() += 1,
                Err(complaint) => fail(&library.libpq, tree, complaint),
            }
        }
        println!(
            "{}: {cases} strings tried (seed {seed}): {} parsed by both, {} refused by both, differences {:?}",
            library.name, counts.parsed, counts.refused, counts.differences
        );
        assert!(counts.parsed * 4 > cases, "too few of the strings are any good");
        assert!(counts.refused * 20 > cases, "too few of the strings are bad");
    }
}

#[test]
fn the_differences_are_still_there() {
    for library in libraries() {
        for (text, difference) in EXAMPLES {
            let verdict = judge(&library.libpq, text).unwrap_or_else(|complaint| panic!("{complaint}"));
            let is_over = difference == Difference::BlanksInUri && library.libpq.version() >= 180_000
                || text.starts_with("servicefile") && library.libpq.version() >= 190_000;
            let expected = if is_over {
                Verdict::Same
            } else {
                Verdict::Differs(difference)
            };
            assert_eq!(verdict, expected, "{text} with {}", library.name);
        }
    }
}

#[test]
fn every_key_of_libpq_is_known_with_its_variable() {
    for library in libraries() {
        for setting in library.libpq.defaults() {
            let key = KEYS.iter().find(|key| key.name == setting.key);
            let key = key.unwrap_or_else(|| panic!("{} of {} is not known", setting.key, library.name));
            // A debugging aid of versions that had none before.
            let variable = setting.variable.filter(|variable| variable != "PGSSLKEYLOGFILE");
            assert_eq!(key.variable, variable.as_deref(), "{} of {}", key.name, library.name);
        }
    }
}

/// What both make of a text; an error if that cannot be explained.
fn judge(libpq: &Libpq, text: &str) -> Result<Verdict, String> {
    let theirs = libpq.parse(text).map(|settings| {
        let given = settings
            .into_iter()
            .filter_map(|setting| Some((setting.key, setting.value?)));
        given.collect::<BTreeMap<_, _>>()
    });
    let ours = conninfo::parse(text).map(|parameters| {
        let given = parameters
            .iter()
            .map(|(key, text)| (key.to_owned(), text.as_bytes().to_vec()));
        given.collect::<BTreeMap<_, _>>()
    });
    let is_older = libpq.version() < 180_000;
    let blank_in_uri = is_older && text.contains("://") && text.contains(' ');
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) if ours == theirs => Ok(Verdict::Same),
        (Err(_), Err(_)) => Ok(Verdict::BothRefuse),
        (Err(refusal), Ok(_)) if refusal.to_string().contains("%40") => {
            Ok(Verdict::Differs(Difference::PasswordAsName))
        }
        (Err(refusal), Ok(_)) if refusal.to_string().contains("UTF-8") => Ok(Verdict::Differs(Difference::NotUtf8)),
        _ if blank_in_uri => Ok(Verdict::Differs(Difference::BlanksInUri)),
        (Ok(_), Err(message)) if names_a_key_of_others(libpq, message) => {
            Ok(Verdict::Differs(Difference::KeysOfOthers))
        }
        _ => Err(format!("{text:?}\n  ours:   {ours:?}\n  theirs: {theirs:?}")),
    }
}

/// Whether libpq complains of a key that we know and it does not.
fn names_a_key_of_others(libpq: &Libpq, message: &str) -> bool {
    let named = message.split('"').nth(1).filter(|_| message.starts_with("invalid "));
    named.is_some_and(|named| {
        let theirs = libpq.defaults().iter().any(|setting| setting.key == named);
        let ours = named == "keepalives_retries" || KEYS.iter().any(|key| key.name == named);
        ours && !theirs
    })
}

/// Makes the string as short as it can be, and says how to read it again.
fn fail(libpq: &Libpq, mut tree: impl ValueTree<Value = String>, complaint: String) -> ! {
    let mut shortest = (complaint, tree.current());
    let mut smaller = tree.simplify();
    for _ in 0..10_000 {
        if !smaller {
            break;
        }
        smaller = match judge(libpq, &tree.current()) {
            Err(complaint) => {
                shortest = (complaint, tree.current());
                tree.simplify()
            }
            Ok(_) => tree.complicate(),
        };
    }
    let (complaint, text) = shortest;
    let in_shell = |letter: char| match letter {
        '\\' | '\'' => format!("\\{letter}"),
        control if control.is_ascii_control() => format!("\\x{:02x}", u32::from(control)),
        other => other.to_string(),
    };
    let text: String = text.chars().map(in_shell).collect();
    panic!(
        "{complaint}\nto replay: GDBPOOL_DSN=$'{text}' cargo test --test dsn_like_libpq strings_mean -- --nocapture"
    );
}

fn number(variable: &str, default: usize) -> usize {
    env::var(variable).map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable} is a number"))
    })
}

fn runner(seed: usize) -> TestRunner {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(seed as u64).to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}
