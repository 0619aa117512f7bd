//! Connection strings: most of them good or nearly good, in both forms, with everything odd that the forms allow.

use proptest::prelude::*;

use crate::conninfo::KEYS;

/// All kinds of them.
pub(crate) fn mixed() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => keywords(),
        6 => uri(),
        2 => (prop_oneof![keywords(), uri()], any::<prop::sample::Index>(), letter()).prop_map(inserted),
        1 => (prop_oneof![keywords(), uri()], any::<prop::sample::Index>()).prop_map(cut),
        1 => prop::collection::vec(piece(), 0..12).prop_map(|pieces| pieces.concat()),
    ]
}

fn key() -> impl Strategy<Value = String> {
    let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    prop_oneof![
        30 => prop::sample::select(known).prop_map(str::to_owned),
        8 => prop::sample::select(vec!["host", "port", "user", "password", "dbname", "sslmode"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["requiressl", "keepalives_retries", "ssl", "HOST", "tty", "hots", "", "größe"])
            .prop_map(str::to_owned),
    ]
}

/// A value before anything is quoted.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "", "1", "0", "5432", " 42 ", "db1,db2", "localhost", "/var/run/postgresql", "@abstract", "::1", "require",
            "true", "disable", "it's", "back\\slash", "-c geqo=off", "pass word", "größe", "漢字", "a=b", "100%", "%41",
        ])
        .prop_map(str::to_owned),
        3 => "[a-z0-9._-]{0,12}",
        2 => prop::collection::vec(letter(), 0..10).prop_map(String::from_iter),
    ]
}

fn letter() -> impl Strategy<Value = char> {
    prop::sample::select(
        "abzAZ019'\"\\ \t\n\r\u{b}\u{c}\u{85}\u{a0}=%@/?&:;,[]{}#+-_.!*$é漢😀"
            .chars()
            .collect::<Vec<_>>(),
    )
}

fn blanks() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just(" \t"), 1 => Just("\n"), 1 => Just("\u{b}\r")]
        .prop_map(str::to_owned)
}

fn keywords() -> impl Strategy<Value = String> {
    let pair = (
        key(),
        blanks(),
        blanks(),
        written(),
        prop_oneof![9 => Just(" "), 1 => Just("")],
        blanks(),
    );
    let pair =
        pair.prop_map(|(key, before, behind, value, gap, more)| format!("{key}{before}={behind}{value}{gap}{more}"));
    (blanks(), prop::collection::vec(pair, 0..6)).prop_map(|(blanks, pairs)| blanks + &pairs.concat())
}

/// A value as it is written: escaped, quoted, or as it comes.
fn written() -> impl Strategy<Value = String> {
    let escaped = |blanks_too: bool| {
        move |value: String| -> String {
            let mut text = String::new();
            for letter in value.chars() {
                if matches!(letter, '\'' | '\\') || blanks_too && letter.is_ascii_whitespace() {
                    text.push('\\');
                }
                text.push(letter);
            }
            text
        }
    };
    prop_oneof![
        4 => value().prop_map(escaped(false)).prop_map(|text| format!("'{text}'")),
        4 => value().prop_map(escaped(true)),
        2 => value(),
        1 => value().prop_map(|text| format!("'{text}'")),
    ]
}

fn uri() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![
        12 => Just("postgresql://"), 6 => Just("postgres://"),
        1 => prop::sample::select(vec!["postgresql:/", "POSTGRES://", " postgres://", "postgresql:", "http://"]),
    ];
    let credentials = prop_oneof![
        4 => Just(String::new()),
        4 => (part(), part()).prop_map(|(user, password)| format!("{user}:{password}@")),
        2 => part().prop_map(|user| format!("{user}@")),
        1 => Just("@".to_owned()),
    ];
    let hosts = prop::collection::vec((host(), port()).prop_map(|(host, port)| host + &port), 1..4);
    let path =
        prop_oneof![3 => Just(String::new()), 4 => part().prop_map(|name| format!("/{name}")), 1 => Just("/".into())];
    (scheme, credentials, hosts, path, query()).prop_map(|(scheme, credentials, hosts, path, query)| {
        format!("{scheme}{credentials}{}{path}{query}", hosts.join(","))
    })
}

fn query() -> impl Strategy<Value = String> {
    let key = prop_oneof![12 => key(), 1 => Just("ssl".to_owned()), 1 => Just("%68ost".to_owned())];
    let value = prop_oneof![8 => part(), 2 => Just("true".to_owned()), 1 => value()];
    let pair = (key, prop_oneof![20 => Just("="), 1 => Just(""), 1 => Just("==")], value)
        .prop_map(|(key, sign, value)| format!("{key}{sign}{value}"));
    let pairs = prop::collection::vec(pair, 0..5).prop_map(|pairs| pairs.join("&"));
    let end = prop_oneof![12 => Just(""), 1 => Just("&"), 1 => Just("&&")];
    prop_oneof![
        2 => Just(String::new()),
        5 => (pairs, end).prop_map(|(pairs, end)| format!("?{pairs}{end}")),
    ]
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec![
            "db1", "localhost", "127.0.0.1", "[::1]", "[2001:db8::7]", "%2Fvar%2Frun", "%2ftmp", "db1%2Cdb2", "größe",
        ])
        .prop_map(str::to_owned),
        2 => Just(String::new()),
        1 => prop::sample::select(vec!["[", "[]", "[::1", "[::1]x", "::1", "[%3A%3A1]", "a[b]", "a b", "%00", "%"])
            .prop_map(str::to_owned),
        1 => part(),
    ]
}

fn port() -> impl Strategy<Value = String> {
    prop_oneof![
        5 => Just(String::new()),
        4 => (1_u16..).prop_map(|port| format!(":{port}")),
        1 => prop::sample::select(vec![":", ":0", ":99999", ": 5", ":x", ":%35", "::"]).prop_map(str::to_owned),
    ]
}

/// A part of a URI, most often with everything odd written by percent signs.
fn part() -> impl Strategy<Value = String> {
    let encoded = |value: String| -> String {
        let byte = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        };
        value.bytes().map(byte).collect()
    };
    prop_oneof![
        8 => value().prop_map(encoded),
        1 => value(),
        1 => prop::sample::select(vec!["%", "%4", "%zz", "%00", "%ff", "%c3%a9", " a", "a ", " ", "a b", "%20a"])
            .prop_map(str::to_owned),
    ]
}

/// For soups.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => letter().prop_map(String::from),
        1 => key(),
        1 => value(),
        1 => prop::sample::select(vec!["postgresql://", "postgres://", "=", "='", "' ", "@", "&", "?", "/", ":", "%2", "\\"])
            .prop_map(str::to_owned),
    ]
}

fn inserted((text, at, letter): (String, prop::sample::Index, char)) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    letters.insert(at.index(letters.len() + 1), letter);
    letters.into_iter().collect()
}

fn cut((text, at): (String, prop::sample::Index)) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    if !letters.is_empty() {
        letters.remove(at.index(letters.len()));
    }
    letters.into_iter().collect()
}
