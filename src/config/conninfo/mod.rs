//! libpq's connection strings: text in, keys and values out, with libpq's meaning, byte for byte.
//!
//! A house of its own within `config`: it uses nothing but std and itself, so that `tests/dsn_like_libpq.rs` can put the
//! same files beside libpq. Whether a value makes sense is not asked here, but in `resolve`. Refusals name keys and
//! variables, and never a value.

mod keys;
mod keywords;
mod password_file;
mod service;
mod sources;
mod uri;

pub(crate) use self::keys::{KEYS, Key};
pub(crate) use self::password_file::PasswordFile;
#[cfg(fuzzing)]
pub(crate) use self::service::section as service_section;
pub(crate) use self::sources::{SETTINGS, Sources, VARIABLES};

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// What a connection string says, and later also what a service and the environment add: each key at most once.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Parameters {
    values: BTreeMap<&'static str, Value>,
}

#[derive(Clone, PartialEq, Eq)]
struct Value {
    text: String,
    origin: Origin,
}

/// Where a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// In the connection string.
    Given,
    /// In the service's section of a service file.
    Service,
    /// In this environment variable.
    Variable(&'static str),
}

/// Why something cannot be used; never with a value in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(String);

/// No file that is read here is larger; the system's whole bundle of certificates has about 250 kB.
const MAX_FILE: u64 = 16 << 20;

/// Reads a connection string in either form.
pub(crate) fn parse(text: &str) -> Result<Parameters, Refusal> {
    if text.contains('\0') {
        return Err(Refusal::new("the connection string has a NUL in it"));
    }
    let mut parameters = Parameters::default();
    let uri = text
        .strip_prefix("postgresql://")
        .or_else(|| text.strip_prefix("postgres://"));
    match uri {
        Some(rest) => uri::parse(rest, &mut parameters)?,
        None => keywords::parse(text, &mut parameters)?,
    }
    Ok(parameters)
}

impl Parameters {
    /// The value, which may be empty; an empty value is not an absent one.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| &*value.text)
    }

    /// The value, if it is there and not empty.
    pub(crate) fn filled(&self, key: &str) -> Option<&str> {
        self.get(key).filter(|text| !text.is_empty())
    }

    pub(crate) fn origin(&self, key: &str) -> Option<Origin> {
        self.values.get(key).map(|value| value.origin)
    }

    /// All of them, by key.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values.iter().map(|(key, value)| (*key, &*value.text))
    }

    /// In the keyword form, secrets included, so that it can be read again.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn print(&self) -> String {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let pairs = self.iter().map(|(key, text)| format!("{key}='{}'", quoted(text)));
        pairs.collect::<Vec<_>>().join(" ")
    }

    /// Sets a value as a connection string does: what comes later wins. False for a key that there is not.
    fn give(&mut self, key: &str, text: &str) -> bool {
        let (key, text) = match (key, text) {
            // As libpq has it still.
            ("requiressl", text) if text.starts_with('1') => ("sslmode", "require"),
            ("requiressl", _) => ("sslmode", "prefer"),
            // As tokio-postgres calls it.
            ("keepalives_retries", text) => ("keepalives_count", text),
            same => same,
        };
        let Some(key) = keys::find(key) else { return false };
        self.set(key, text, Origin::Given);
        true
    }

    fn set(&mut self, key: &'static Key, text: &str, origin: Origin) {
        let text = text.to_owned();
        self.values.insert(key.name, Value { text, origin });
    }
}

impl Refusal {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    pub(crate) fn into_reason(self) -> String {
        self.0
    }

    /// A key that there is not, with the one that may be meant. `before` is the text in front of it.
    ///
    /// A password with a blank or an `&` in it ends there, unless it is quoted, and what follows looks like a key: behind a
    /// password only what resembles a key is shown.
    fn unknown_key(key: &str, before: &str) -> Self {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if key.is_empty() || key.len() > 40 || !key.chars().all(is_word) {
            return Self::new("an unknown key that is not even a word; a URI begins with postgresql://");
        }
        let alike = keys::alike(key);
        let behind_a_password = ["pass", "secret", "scram_", ":"]
            .iter()
            .any(|part| before.contains(part));
        match alike {
            Some(known) => Self::new(format!("unknown key {key}; is {known} meant?")),
            None if behind_a_password => Self::new(
                "an unknown key behind the password; quote a password that has blanks in it, and write & as %26 in a URI",
            ),
            None => Self::new(format!("unknown key {key}")),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The keys only.
impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

/// A file's content, bounded also where the file has no end.
pub(crate) fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 16 MiB"));
    }
    Ok(bytes)
}

/// libpq's `isspace`, in the C locale.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

#[cfg(test)]
mod tests {
    use super::{KEYS, parse};

    #[track_caller]
    fn reads(text: &str) -> Vec<(&'static str, String)> {
        let parameters = parse(text).unwrap_or_else(|refusal| panic!("{text:?}: {refusal}"));
        let again = parse(&parameters.print()).expect("it can be read again");
        assert_eq!(again, parameters);
        parameters.iter().map(|(key, text)| (key, text.to_owned())).collect()
    }

    #[track_caller]
    fn refuses(text: &str, part: &str) {
        match parse(text) {
            Ok(parameters) => panic!("{text:?} was taken: {:?}", parameters.print()),
            Err(refusal) => {
                let refusal = refusal.to_string();
                assert!(refusal.contains(part), "{text:?}: {refusal}");
                assert!(!refusal.contains("hunter"), "{text:?}: {refusal}");
            }
        }
    }

    #[track_caller]
    fn says(text: &str, pairs: &[(&'static str, &str)]) {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        assert_eq!(reads(text), pairs, "{text:?}");
    }

    #[test]
    fn keywords_quotes_and_backslashes() {
        says("", &[]);
        says(" host = a\tport=5 ", &[("host", "a"), ("port", "5")]);
        says(
            "password='it\\'s \\\\ it' host=b",
            &[("host", "b"), ("password", "it's \\ it")],
        );
        says("password=a\\ b\\", &[("password", "a b")]);
        says("user='a'host=b", &[("host", "b"), ("user", "a")]);
        says("host=a host=", &[("host", "")]);
        says("host='' user=\x0bx", &[("host", ""), ("user", "x")]);
        says("user=a'b", &[("user", "a'b")]);
        says("requiressl=1", &[("sslmode", "require")]);
        says("keepalives_retries=3", &[("keepalives_count", "3")]);
    }

    #[test]
    fn a_uri_and_its_parts() {
        says("postgresql://", &[]);
        says("postgres://u@", &[("user", "u")]);
        says(
            "postgresql://u:p%40ss@h:1,[::1]:2,i/d?sslmode=require&ssl=true",
            &[
                ("dbname", "d"),
                ("host", "h,::1,i"),
                ("password", "p@ss"),
                ("port", "1,2,"),
                ("sslmode", "require"),
                ("user", "u"),
            ],
        );
        says("postgresql:///d?host=/tmp&", &[("dbname", "d"), ("host", "/tmp")]);
        says("postgresql://%2Ftmp", &[("host", "/tmp")]);
        says("postgresql://h?user= a ", &[("host", "h"), ("user", "a")]);
        says(
            "postgresql://h/?options=-c%20geqo%3Doff",
            &[("host", "h"), ("options", "-c geqo=off")],
        );
        says("postgresql://h:/", &[("host", "h")]);
        says(
            "postgresql://h/d?password=p@ss",
            &[("dbname", "d"), ("host", "h"), ("password", "p@ss")],
        );
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_shows() {
        for (text, part) in [
            ("host", "\"=\""),
            ("password=correct hunter2 dbname=d", "\"=\""),
            ("password='hunter2", "unterminated"),
            ("host=a\0", "NUL"),
            ("=hunter", "key"),
            ("user=u colour=blue", "colour"),
            ("password=x hunter2=y", "behind the password"),
            ("password=x ssl_mode=y", "is sslmode meant"),
            ("Postgres://u:hunter2@h?x=y", "postgresql://"),
            ("postgresql://[::1", "]"),
            ("postgresql://[]", "IPv6"),
            ("postgresql://[::1]x", "behind"),
            ("postgresql://u:hunter2%0@h", "password"),
            ("postgresql://h%00", "host"),
            ("postgresql://h/d%zz", "dbname"),
            ("postgresql://h/d d", "%20"),
            ("postgresql://u:hunter%ff@h", "password is not UTF-8"),
            ("postgresql://u:hunter2@h/d?password", "parameter"),
            ("postgresql://h?user=a=b", "parameter"),
            ("postgresql://h?&user=a", "parameter"),
            ("postgresql://h?passw0rd=hunter2", "is password meant"),
            ("postgresql://u:x@h?hunter=2", "behind the password"),
        ] {
            refuses(text, part);
        }
    }

    /// libpq takes these: a part of the password would be a host's or a database's name, and be shown as such.
    #[test]
    fn what_would_show_a_password_is_refused() {
        for text in [
            "postgresql://u:pass@hunter2@h/d",
            "postgresql://u:pass@word/hunter2@h/d",
            "postgresql://u:12/hunter2@h/d",
            "postgresql://h?password=p@hunter2",
            "postgresql://h?user=u&password=hunter@h",
        ] {
            refuses(text, "%40");
        }
        says(
            "postgresql://u:w?t@h",
            &[("host", "h"), ("password", "w?t"), ("user", "u")],
        );
    }

    #[test]
    fn keys_are_in_order_and_known_once() {
        assert!(KEYS.is_sorted_by(|a, b| a.name < b.name));
    }
}
