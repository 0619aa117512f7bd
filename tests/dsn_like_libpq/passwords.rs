//! Password files: the password that libpq would send, and the one that is found here.

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::conninfo::PasswordFile;
use crate::library::libraries;
use crate::{number, runner};

const CASES: usize = 1_000;

#[test]
fn password_files_mean_the_same() {
    let path = env::temp_dir().join(format!("gdbpool-passwords-{}", std::process::id()));
    let (cases, seed) = (
        number("GDBPOOL_DSN_CASES", CASES).min(CASES),
        number("GDBPOOL_DSN_SEED", 4),
    );
    let mut runner = runner(seed);
    let strategy = (prop::collection::vec(line(), 0..8), wanted());
    let mut found = 0;
    for _ in 0..cases {
        let (lines, wanted) = strategy.new_tree(&mut runner).expect("a file").current();
        let [host, port, dbname, user] = &wanted;
        // Nobody who reads has it open: it is made anew, closed to others before there is anything in it.
        let _ = fs::remove_file(&path);
        fs::write(&path, "").expect("make the file");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("close it");
        fs::write(&path, lines.join("\n")).expect("write the file");
        let file = PasswordFile::read(&path).expect("a good file");
        let ours = file.find(host, port, dbname, user).unwrap_or_default();
        found += usize::from(!ours.is_empty());
        for library in libraries() {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
            let text = format!(
                "hostaddr=127.0.0.1 host='{}' port={port} dbname='{}' user='{}' passfile='{}' sslmode=disable",
                quoted(host),
                quoted(dbname),
                quoted(user),
                path.display()
            );
            let theirs = String::from_utf8(library.libpq.start(&text).password).expect("UTF-8");
            assert_eq!(
                ours, theirs,
                "{} {lines:#?} {wanted:?}\nto replay: GDBPOOL_DSN_SEED={seed}",
                library.name
            );
        }
    }
    fs::remove_file(&path).expect("remove the file");
    println!("{cases} password files (seed {seed}): the same password, {found} times one at all");
    assert!(found * 5 > cases && found < cases);
}

/// Names with what has to be escaped in them.
fn name() -> impl Strategy<Value = String> {
    let names = vec!["a", "b", "::1", "it's", "back\\slash", "c:d", "größe", "#x", "*", "a b"];
    prop_oneof![3 => Just("a"), 2 => prop::sample::select(names)].prop_map(str::to_owned)
}

fn wanted() -> impl Strategy<Value = [String; 4]> {
    let port = prop::sample::select(vec!["1", "5432"]).prop_map(str::to_owned);
    (name(), port, name(), name()).prop_map(|(host, port, dbname, user)| [host, port, dbname, user])
}

fn line() -> impl Strategy<Value = String> {
    let escaped = |text: String| text.replace('\\', "\\\\").replace(':', "\\:");
    let field = move || {
        prop_oneof![
            4 => Just("*".to_owned()),
            4 => name().prop_map(escaped),
            1 => name(),
            1 => prop::sample::select(vec!["", "**", "*a", "\\*", "\\a", "1", "5432"]).prop_map(str::to_owned),
        ]
    };
    let port = prop::sample::select(vec!["*", "1", "5432", "\\1", ""]);
    let password = prop::sample::select(vec![
        "x", "a\\:b", "a:b", "\\\\", "\\", "", "p w", "größe", "end\r", " x ",
    ]);
    prop_oneof![
        12 => (field(), port, field(), field(), password)
            .prop_map(|(host, port, dbname, user, password)| format!("{host}:{port}:{dbname}:{user}:{password}")),
        1 => prop::sample::select(vec!["", "#*:*:*:*:no", " #", "*:*:*:*", "::::", "*:*", "\\"]).prop_map(str::to_owned),
    ]
}
