//! Single values: numbers as libpq's `pqParseIntParam` reads them, words of a list, and what cannot be served.

use super::super::conninfo::{Origin, Parameters, Refusal};
use super::super::target::{Host, HostTarget};

/// A refusal that names the key, and where its value was found.
pub(super) fn bad(parameters: &Parameters, key: &str, what: &str) -> Refusal {
    Refusal::new(match parameters.origin(key) {
        Some(Origin::Variable(variable)) => format!("{key} (from {variable}) {what}"),
        Some(Origin::Service) => format!("{key} (from the service file) {what}"),
        Some(Origin::Given) | None => format!("{key} {what}"),
    })
}

/// The meaning of the key's word.
pub(super) fn one_of<T: Copy>(parameters: &Parameters, key: &str, words: &[(&str, T)]) -> Result<Option<T>, Refusal> {
    let Some(text) = parameters.get(key) else {
        return Ok(None);
    };
    let found = words.iter().find(|(word, _)| *word == text);
    found.map(|(_, meaning)| Some(*meaning)).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        bad(parameters, key, &format!("must be one of {}", words.join(", ")))
    })
}

/// The key's number.
pub(super) fn number(parameters: &Parameters, key: &str) -> Result<Option<i32>, Refusal> {
    let Some(text) = parameters.get(key) else {
        return Ok(None);
    };
    integer(text)
        .map(Some)
        .ok_or_else(|| bad(parameters, key, "is not a whole number"))
}

/// The key's number if it is above zero: anything else stands for "not set".
pub(super) fn positive(parameters: &Parameters, key: &str) -> Result<Option<u32>, Refusal> {
    let number = number(parameters, key)?;
    Ok(number
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| *number > 0))
}

/// A number of 32 bits in decimal, blanks around it, with a sign or without.
pub(super) fn integer(text: &str) -> Option<i32> {
    let is_blank = |c| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    text.trim_matches(is_blank).parse().ok()
}

/// What travels to the server as text ended by a NUL has none in it. (A connection string cannot have one, a variable of a
/// hand-made environment can.)
pub(super) fn without_nul(parameters: &Parameters) -> Result<(), Refusal> {
    let keys = [
        "user",
        "dbname",
        "password",
        "options",
        "application_name",
        "fallback_application_name",
        "host",
    ];
    for key in keys {
        if parameters.get(key).is_some_and(|text| text.contains('\0')) {
            return Err(bad(parameters, key, "has a NUL in it"));
        }
    }
    Ok(())
}

/// Names what would need something that this library does not have.
pub(super) fn refuse_unserved(parameters: &Parameters, hosts: &[HostTarget]) -> Result<(), Refusal> {
    let modes = [("disable", true), ("prefer", true), ("require", false)];
    if one_of(parameters, "gssencmode", &modes)? == Some(false) {
        return Err(bad(parameters, "gssencmode", "is require, and there is no GSSAPI here"));
    }
    replication(parameters)?;
    encoding(parameters)?;
    protocol(parameters)?;
    for (key, why) in [
        (
            "oauth_client_id",
            "needs OAuth, which is not served; password_from can give a token as the password",
        ),
        (
            "oauth_client_secret",
            "needs OAuth, which is not served; password_from can give a token as the password",
        ),
        (
            "oauth_issuer",
            "needs OAuth, which is not served; password_from can give a token as the password",
        ),
        (
            "oauth_scope",
            "needs OAuth, which is not served; password_from can give a token as the password",
        ),
        ("scram_client_key", "is not served; give the password"),
        ("scram_server_key", "is not served; give the password"),
        (
            "sslkeylogfile",
            "is not served: it would write the session's secrets to a file",
        ),
    ] {
        if parameters.filled(key).is_some() {
            return Err(bad(parameters, key, why));
        }
    }
    // libpq ignores it for TCP.
    let is_local = hosts.iter().any(|host| matches!(host.host, Host::Unix(_)));
    if is_local && parameters.filled("requirepeer").is_some() {
        return Err(bad(
            parameters,
            "requirepeer",
            "is not served: a Runtime cannot tell whose process is behind a Unix socket",
        ));
    }
    Ok(())
}

/// The server's words for a truth value.
fn replication(parameters: &Parameters) -> Result<(), Refusal> {
    let Some(text) = parameters.filled("replication") else {
        return Ok(());
    };
    let text = text.to_ascii_lowercase();
    let is_word = |words: &[&str]| words.contains(&&*text);
    if is_word(&["0", "f", "false", "n", "no", "of", "off"]) {
        Ok(())
    } else if is_word(&["1", "database", "on", "t", "true", "y", "ye", "yes"]) {
        Err(bad(
            parameters,
            "replication",
            "is not served: a pool runs SQL on ordinary connections",
        ))
    } else {
        Err(bad(parameters, "replication", "must be off"))
    }
}

/// The server compares letters and digits only, in lower case.
fn encoding(parameters: &Parameters) -> Result<(), Refusal> {
    let Some(text) = parameters.filled("client_encoding") else {
        return Ok(());
    };
    let letters = text.chars().filter(char::is_ascii_alphanumeric);
    let letters: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    if ["auto", "unicode", "utf8"].contains(&&*letters) {
        return Ok(());
    }
    Err(bad(parameters, "client_encoding", "must be UTF8: Rust's texts are"))
}

fn protocol(parameters: &Parameters) -> Result<(), Refusal> {
    let versions = [("3.0", 0), ("3.2", 2), ("latest", 2)];
    let min = one_of(parameters, "min_protocol_version", &versions)?;
    let max = one_of(parameters, "max_protocol_version", &versions)?;
    if min.zip(max).is_some_and(|(min, max)| min > max) {
        return Err(bad(parameters, "min_protocol_version", "is above max_protocol_version"));
    }
    if min.is_some_and(|min| min > 0) {
        return Err(bad(
            parameters,
            "min_protocol_version",
            "must be 3.0, the version that is spoken here",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::integer;

    #[test]
    fn numbers_as_strtol_reads_them() {
        for (text, number) in [
            ("1", Some(1)),
            (" \t+07\n", Some(7)),
            ("-2147483648", Some(i32::MIN)),
            ("2147483648", None),
            ("", None),
            (" ", None),
            ("+", None),
            ("- 1", None),
            ("1x", None),
            ("0x10", None),
            ("1 2", None),
        ] {
            assert_eq!(integer(text), number, "{text:?}");
        }
    }
}
