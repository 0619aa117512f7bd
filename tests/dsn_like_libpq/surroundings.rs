//! Variables and service files: what our reader adds to an empty string, and what libpq's defaults are.
//!
//! libpq looks at its own process's environment, so it is asked in a child: this very test, run again.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::conninfo::{KEYS, Parameters, Sources};
use crate::library::libraries;
use crate::{number, runner};

/// Each takes a child process.
const CASES: usize = 150;

/// Tells the child that it is one.
const CHILD: &str = "GDBPOOL_TEST_ASKS_LIBPQ";

/// Everything beside the connection string.
#[derive(Clone, Debug)]
struct Surroundings {
    variables: BTreeMap<String, String>,
    service: Option<String>,
    users_file: Option<Vec<String>>,
    system_file: Option<Vec<String>>,
}

/// What one libpq found: whether the service could not be used, and each key's value with what is compiled in.
#[derive(Debug)]
struct Answer {
    version: i32,
    refuses: bool,
    values: BTreeMap<String, (Option<String>, Option<String>)>,
}

#[test]
fn variables_and_services_mean_the_same() {
    if env::var_os(CHILD).is_some() {
        return answer();
    }
    let home = env::temp_dir().join(format!("gdbpool-surroundings-{}", std::process::id()));
    fs::create_dir_all(home.join("system")).expect("make a home");
    let (cases, seed) = (
        number("GDBPOOL_DSN_CASES", CASES).min(CASES),
        number("GDBPOOL_DSN_SEED", 3),
    );
    let mut runner = runner(seed);
    let strategy = surroundings();
    let (mut sound, mut refused) = (0, 0);
    for _ in 0..cases {
        let surroundings = strategy.new_tree(&mut runner).expect("surroundings").current();
        match compare(&surroundings, &home) {
            Ok(true) => sound += 1,
            Ok(false) => refused += 1,
            Err(complaint) => panic!("{surroundings:#?}\n{complaint}\nto replay: GDBPOOL_DSN_SEED={seed}"),
        }
    }
    fs::remove_dir_all(&home).expect("remove the home");
    println!("{cases} environments (seed {seed}): {sound} mean the same, {refused} have a service that both refuse");
    assert!(sound * 3 > cases && refused * 10 > cases, "{sound} {refused}");
}

/// Whether the service is sound; an error where libpq disagrees.
fn compare(surroundings: &Surroundings, home: &Path) -> Result<bool, String> {
    for (name, lines) in [
        (".pg_service.conf", &surroundings.users_file),
        ("system/pg_service.conf", &surroundings.system_file),
    ] {
        let _ = fs::remove_file(home.join(name));
        if let Some(lines) = lines {
            fs::write(home.join(name), lines.join("\n")).expect("write a service file");
        }
    }
    let mut variables = surroundings.variables.clone();
    variables.insert("PGSYSCONFDIR".into(), home.join("system").display().to_string());
    variables.extend(
        surroundings
            .service
            .clone()
            .map(|service| ("PGSERVICE".to_owned(), service)),
    );
    let sources = Sources {
        variables: variables.clone(),
        home: Some(home.to_owned()),
        ..Sources::default()
    };
    let mut parameters = Parameters::default();
    let completed = parameters.complete(Some(&sources));
    for theirs in ask(&variables, home) {
        let lines = surroundings
            .users_file
            .iter()
            .chain(&surroundings.system_file)
            .flatten();
        let has_unknown = lines
            .filter_map(|line| line.trim().split_once('='))
            .any(|(key, _)| KEYS.iter().any(|known| known.name == key) && !theirs.values.contains_key(key));
        if surroundings.service.is_some() && has_unknown {
            // An older libpq stumbles over keys that came later.
            continue;
        }
        if completed.is_err() != theirs.refuses {
            return Err(format!("ours: {completed:?}\ntheirs: {theirs:?}"));
        }
        for (key, (value, compiled)) in &theirs.values {
            let is_system = theirs.version < 160_000 && parameters.get("sslrootcert") == Some("system");
            // The process's user, and a rule that came with sslrootcert=system.
            if theirs.refuses || (key == "user" && parameters.get(key).is_none()) || (key == "sslmode" && is_system) {
                continue;
            }
            let ours = parameters.get(key).or(compiled.as_deref());
            if ours != value.as_deref() {
                return Err(format!("{key}: ours {ours:?}, theirs {value:?} of {}", theirs.version));
            }
        }
    }
    Ok(completed.is_ok())
}

/// The child's part.
fn answer() {
    for library in libraries() {
        println!("@version {}", library.libpq.version());
        // Fails in any case; what it says first is about the service.
        let started = library.libpq.start("host=/nowhere sslmode=disable");
        let words = ["definition of service", "service file"];
        println!("@refuses {}", words.iter().any(|words| started.message.contains(words)));
        for setting in library.libpq.defaults() {
            let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
            println!(
                "@value {:?}",
                (setting.key, text(setting.value), text(setting.compiled))
            );
        }
    }
}

fn ask(variables: &BTreeMap<String, String>, home: &Path) -> Vec<Answer> {
    let mut child = Command::new(env::current_exe().expect("this test"));
    child.args([
        "--exact",
        "surroundings::variables_and_services_mean_the_same",
        "--nocapture",
    ]);
    child.env_clear().envs(variables).env("HOME", home).env(CHILD, "1");
    if let Some(folder) = env::var_os("GDBPOOL_PG18_BIN") {
        child.env("GDBPOOL_PG18_BIN", folder);
    }
    let output = child.output().expect("run the child");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut answers: Vec<Answer> = Vec::new();
    for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
        // The harness writes in front of the first.
        if let Some((_, version)) = line.split_once("@version ") {
            answers.push(Answer {
                version: version.parse().expect("a number"),
                refuses: false,
                values: BTreeMap::new(),
            });
        } else if let Some(refuses) = line.strip_prefix("@refuses ") {
            answers.last_mut().expect("a version").refuses = refuses == "true";
        } else if let Some(value) = line.strip_prefix("@value ") {
            let (key, value) = read(value);
            answers.last_mut().expect("a version").values.insert(key, value);
        }
    }
    assert_eq!(answers.len(), libraries().len());
    answers
}

/// `("key", Some("value"), None)`, as `Debug` writes it.
fn read(text: &str) -> (String, (Option<String>, Option<String>)) {
    let mut parts = Vec::new();
    let mut rest = text.trim_matches(['(', ')']);
    while !rest.is_empty() {
        rest = rest.trim_start_matches([',', ' ', ')']);
        if let Some(behind) = rest.strip_prefix("None") {
            parts.push(None);
            rest = behind;
            continue;
        }
        let Some(quoted) = rest.trim_start_matches("Some(").strip_prefix('"') else {
            break;
        };
        let (mut plain, mut escaped, mut end) = (String::new(), false, quoted.len());
        for (at, letter) in quoted.char_indices() {
            match letter {
                '\\' if !escaped => escaped = true,
                '"' if !escaped => {
                    end = at + 1;
                    break;
                }
                'n' if escaped => plain.push('\n'),
                't' if escaped => plain.push('\t'),
                other => plain.push(other),
            }
            escaped = letter == '\\' && !escaped;
        }
        parts.push(Some(plain));
        rest = &quoted[end..];
    }
    let mut parts = parts.into_iter();
    let key = parts.next().flatten().expect("a key");
    (key, (parts.next().flatten(), parts.next().flatten()))
}

fn surroundings() -> impl Strategy<Value = Surroundings> {
    // A file named by a variable would have to exist.
    let names: Vec<&str> = KEYS
        .iter()
        .filter_map(|key| key.variable)
        .chain(["PGREQUIRESSL"])
        .collect();
    let names: Vec<&str> = names
        .into_iter()
        .filter(|name| !name.starts_with("PGSERVICE"))
        .collect();
    let value = prop::sample::select(vec!["", "1", "x", "require", "system", "größe", "a,b", "it's"]);
    let variables = prop::collection::btree_map(
        prop::sample::select(names).prop_map(str::to_owned),
        value.prop_map(str::to_owned),
        0..8,
    );
    let service = prop_oneof![
        2 => Just(None),
        6 => prop::sample::select(vec!["a", "b"]).prop_map(|name| Some(name.to_owned())),
        1 => prop::sample::select(vec!["", "missing", "a]"]).prop_map(|name| Some(name.to_owned())),
    ];
    let file = || prop::option::weighted(0.8, prop::collection::vec(line(), 0..10));
    (variables, service, file(), file()).prop_map(|(variables, service, users_file, system_file)| Surroundings {
        variables,
        service,
        users_file,
        system_file,
    })
}

fn line() -> impl Strategy<Value = String> {
    let good = vec![
        "host=h1",
        "host=",
        "port=5",
        "  user=u \t",
        "dbname=d=e",
        "password='x y'",
        "sslmode=allow",
        "sslrootcert=system",
        "options= -c geqo=off",
        "host=h2\r",
        "require_auth=md5",
        "# host=h3",
        "",
        "connect_timeout=5",
    ];
    let bad = vec![
        "port = 5",
        "colour=blue",
        "service=b",
        "nonsense",
        "requiressl=1",
        "[",
        "=x",
        "HOST=h",
    ];
    prop_oneof![
        4 => prop::sample::select(vec!["[a]", "[b]", " [a]", "[b] x", "[c]"]),
        12 => prop::sample::select(good),
        1 => prop::sample::select(bad),
    ]
    .prop_map(str::to_owned)
}
