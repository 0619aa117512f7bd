//! The names a session's settings may have, which of them the server reports, and their first values.
//!
//! Tables for the session model; no state.

use std::collections::BTreeMap;

use crate::wire::Report;

/// Reported to the client at start-up and on change (PostgreSQL 15), with their values before start-up.
pub(crate) const REPORTED: [(&str, &str); 13] = [
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "Etc/UTC"),
    ("application_name", ""),
    ("client_encoding", "UTF8"),
    ("default_transaction_read_only", "off"),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("is_superuser", "off"),
    ("server_encoding", "UTF8"),
    ("server_version", "15.18"),
    ("session_authorization", ""),
    ("standard_conforming_strings", "on"),
];

/// Settable without being reported, with their first values; more than these needs a name with a dot.
const SILENT: [(&str, &str); 22] = [
    ("bytea_output", "hex"),
    ("client_min_messages", "notice"),
    ("default_transaction_deferrable", "off"),
    ("default_transaction_isolation", "read committed"),
    ("enable_seqscan", "on"),
    ("extra_float_digits", "1"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("jit", "on"),
    ("lock_timeout", "0"),
    ("log_statement", "none"),
    ("maintenance_work_mem", "64MB"),
    ("plan_cache_mode", "auto"),
    ("role", "none"),
    ("row_security", "on"),
    ("search_path", "\"$user\", public"),
    ("session_replication_role", "origin"),
    ("statement_timeout", "0"),
    ("synchronous_commit", "on"),
    ("tcp_user_timeout", "0"),
    ("temp_buffers", "8MB"),
    ("work_mem", "4MB"),
];

/// Values fixed by the server.
const FIXED: [&str; 5] = [
    "in_hot_standby",
    "integer_datetimes",
    "is_superuser",
    "server_encoding",
    "server_version",
];

/// What a session starts from, before its start-up packet.
pub(crate) fn first_values() -> BTreeMap<String, String> {
    REPORTED
        .iter()
        .chain(&SILENT)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The name as the server spells it.
pub(crate) fn canonical(name: &str) -> Result<String, Report> {
    let known = REPORTED.iter().chain(&SILENT).map(|(known, _)| *known);
    for known in known {
        if known.eq_ignore_ascii_case(name) {
            return Ok(known.to_owned());
        }
    }
    if name.contains('.') {
        return Ok(name.to_ascii_lowercase());
    }
    Err(Report::error(
        "42704",
        format!("unrecognized configuration parameter \"{name}\""),
    ))
}

/// The value as the server keeps it, or why it cannot be set.
pub(crate) fn checked(name: &str, value: &str) -> Result<String, Report> {
    if FIXED.contains(&name) {
        return Err(Report::error(
            "55P02",
            format!("parameter \"{name}\" cannot be changed"),
        ));
    }
    if matches!(
        name,
        "default_transaction_read_only" | "default_transaction_deferrable" | "row_security"
    ) {
        return match value.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" | "t" | "y" => Ok("on".to_owned()),
            "off" | "false" | "no" | "0" | "f" | "n" => Ok("off".to_owned()),
            _ => Err(Report::error(
                "22023",
                format!("parameter \"{name}\" requires a Boolean value"),
            )),
        };
    }
    Ok(value.to_owned())
}

/// The `-c name=value` pairs of a start-up packet's `options`.
pub(crate) fn command_line(options: &str) -> Vec<(String, String)> {
    let mut words = vec![String::new()];
    let mut escaped = false;
    for next in options.chars() {
        match (next, words.last_mut()) {
            (_, Some(word)) if escaped => {
                word.push(next);
                escaped = false;
            }
            ('\\', _) => escaped = true,
            (' ', _) => words.push(String::new()),
            (_, Some(word)) => word.push(next),
            (_, None) => {}
        }
    }
    let words = words.into_iter().filter(|word| !word.is_empty() && word != "-c");
    words
        .filter_map(|word| {
            let word = word
                .strip_prefix("-c")
                .or_else(|| word.strip_prefix("--"))
                .unwrap_or(&word);
            word.split_once('=')
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_the_server_reads_them() {
        let pairs = command_line(r"-c a.b=1\ 2 -cstatement_timeout=5s --work_mem=1MB");
        let expected = [("a.b", "1 2"), ("statement_timeout", "5s"), ("work_mem", "1MB")];
        let expected: Vec<_> = expected
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect();
        assert_eq!(pairs, expected);
    }
}
