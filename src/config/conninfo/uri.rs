//! The URI form: `postgresql://user:password@host:port,host:port/dbname?key=value&…`, as libpq 18's `conninfo_uri_parse`
//! reads it. A plain machine.
//!
//! Stricter in one thing: where libpq would take a piece of a password for a name that is shown, it is refused.

use super::{Parameters, Refusal};

/// Reads what follows `postgresql://`.
pub(super) fn parse(text: &str, parameters: &mut Parameters) -> Result<(), Refusal> {
    let rest = credentials(text, parameters)?;
    let (hosts, ports, rest) = hosts(rest)?;
    store("host", &hosts, parameters)?;
    store("port", &ports, parameters)?;
    let query = match rest.strip_prefix('/') {
        Some(path) => {
            let (dbname, query) = path.split_once('?').unwrap_or((path, ""));
            store("dbname", dbname, parameters)?;
            query
        }
        None => rest.strip_prefix('?').unwrap_or(rest),
    };
    let in_front = &text[..text.len() - query.len()];
    queries(query, in_front, parameters)
}

/// User and password, if there is an `@` before the first `/`; the rest.
fn credentials<'a>(text: &'a str, parameters: &mut Parameters) -> Result<&'a str, Refusal> {
    let at = text.find(['@', '/']).filter(|at| text[*at..].starts_with('@'));
    let (found, rest) = match at {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => ("", text),
    };
    // Of `h?password=a@b` libpq makes the user `h?password=a` and the host `b`.
    if found.split_once('?').is_some_and(|(_, query)| query.contains('=')) {
        return Err(Refusal::new(
            "there is a '?' and then a '=' in front of the first '@': in user and password write '?' as %3F, and in a \
             parameter write '@' as %40",
        ));
    }
    // Of `u:a@b@h` it makes the host `b@h`, of `u:1/2@h` the host `u`, the port `1` and the database `2@h`.
    if rest.split('?').next().is_some_and(|names| names.contains('@')) {
        return Err(Refusal::new(
            "there is an '@' that does not end user and password: write those of user, password, host and dbname as %40, \
             and '/' in a password as %2F",
        ));
    }
    let (user, password) = found.split_once(':').unwrap_or((found, ""));
    store("user", user, parameters)?;
    store("password", password, parameters)?;
    Ok(rest)
}

/// The list of hosts, the list of ports, and the rest, which begins with `/` or `?` or is empty.
fn hosts(text: &str) -> Result<(String, String, &str), Refusal> {
    let (mut hosts, mut ports) = (String::new(), String::new());
    let mut rest = text;
    loop {
        let (host, behind) = match rest.strip_prefix('[') {
            Some(inside) => bracketed(inside)?,
            None => rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len())),
        };
        hosts.push_str(host);
        rest = behind;
        if let Some(behind) = rest.strip_prefix(':') {
            let (port, behind) = behind.split_at(behind.find(['/', '?', ',']).unwrap_or(behind.len()));
            ports.push_str(port);
            rest = behind;
        }
        match rest.strip_prefix(',') {
            Some(next) => {
                hosts.push(',');
                ports.push(',');
                rest = next;
            }
            None => return Ok((hosts, ports, rest)),
        }
    }
}

fn bracketed(inside: &str) -> Result<(&str, &str), Refusal> {
    let Some((address, behind)) = inside.split_once(']') else {
        return Err(Refusal::new("the IPv6 address in host has no closing ]"));
    };
    if address.is_empty() {
        return Err(Refusal::new("the IPv6 address in host is empty"));
    }
    if !(behind.is_empty() || behind.starts_with([':', '/', '?', ','])) {
        return Err(Refusal::new(
            "behind the IPv6 address in host there is something else than a port, a path or another host",
        ));
    }
    Ok((address, behind))
}

/// `key=value&key=value`; `in_front` is the text before it.
fn queries(text: &str, in_front: &str, parameters: &mut Parameters) -> Result<(), Refusal> {
    let mut rest = text;
    let mut before = in_front.to_owned();
    while !rest.is_empty() {
        let (pair, behind) = rest.split_once('&').unwrap_or((rest, ""));
        rest = behind;
        // Not with the words themselves: they may be a part of a password.
        let Some((key, value)) = pair.split_once('=') else {
            return Err(Refusal::new("a URI parameter without \"=\""));
        };
        if value.contains('=') {
            return Err(Refusal::new("a URI parameter with a second \"=\"; write it as %3D"));
        }
        let key = decode(key, "a parameter's key")?;
        // A key that there is not is said before its value is looked at.
        let value = decode(value, &shown(&key))?;
        let (key, value) = match (&*key, &*value) {
            // As JDBC has it.
            ("ssl", "true") => ("sslmode", "require"),
            same => same,
        };
        if !parameters.give(key, value) {
            return Err(Refusal::unknown_key(key, &before));
        }
        before.push_str(pair);
    }
    Ok(())
}

fn shown(key: &str) -> String {
    match super::keys::find(key) {
        Some(known) => known.name.to_owned(),
        None => "a parameter".to_owned(),
    }
}

/// Stores a part of the URI that may be absent.
fn store(key: &str, text: &str, parameters: &mut Parameters) -> Result<(), Refusal> {
    if !text.is_empty() {
        let value = decode(text, key)?;
        parameters.give(key, &value);
    }
    Ok(())
}

/// Undoes percent signs. Blanks around the text are dropped, and others refused, as since libpq 18.
fn decode(text: &str, what: &str) -> Result<String, Refusal> {
    let text = text.trim_matches(' ');
    if text.contains(' ') {
        return Err(Refusal::new(format!("{what} has a blank in it; write it as %20")));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let byte = match rest {
            [high, low, behind @ ..] => {
                rest = behind;
                digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low)
            }
            _ => None,
        };
        match byte {
            None => {
                return Err(Refusal::new(format!(
                    "{what} has a % without two hexadecimal digits behind it; write % itself as %25"
                )));
            }
            Some(0) => return Err(Refusal::new(format!("{what} has %00 in it, which stands for a NUL"))),
            Some(byte) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| Refusal::new(format!("{what} is not UTF-8")))
}

fn digit(letter: u8) -> Option<u8> {
    char::from(letter).to_digit(16).and_then(|digit| digit.try_into().ok())
}
