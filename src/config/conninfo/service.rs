//! A service file's text: the section of one service, as libpq's `parseServiceFile` reads it. A plain machine.

use super::{KEYS, Key, Refusal, is_blank};

/// The keys and values of the section `[service]`; `None` if there is no such section. `file` is for messages.
pub(crate) fn section(text: &[u8], service: &str, file: &str) -> Result<Option<Vec<(&'static Key, String)>>, Refusal> {
    let title = format!("[{service}]");
    let mut found = None;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let line = trim(line);
        if line.first().is_none_or(|first| *first == b'#') {
            continue;
        }
        if line.starts_with(b"[") {
            // What follows the bracket does not matter; the first section of that name is the only one.
            if found.is_some() {
                break;
            }
            found = line.starts_with(title.as_bytes()).then(Vec::new);
        } else if let Some(entries) = &mut found {
            let entry = entry(line).map_err(|what| Refusal::new(format!("{what} in {file}, line {number}")))?;
            entries.push(entry);
        }
    }
    Ok(found)
}

fn entry(line: &[u8]) -> Result<(&'static Key, String), &'static str> {
    let line = str::from_utf8(line).map_err(|_| "something that is not UTF-8")?;
    if line.starts_with("ldap") {
        return Err("an LDAP look-up, which is not supported,");
    }
    let (name, value) = line.split_once('=').ok_or("a line without \"=\"")?;
    if name == "service" || name == "servicefile" {
        return Err("a service within a service, which is not supported,");
    }
    // No blanks around the "=" here, and no other spellings of a key.
    let key = KEYS.iter().find(|key| key.name == name).ok_or("an unknown key")?;
    Ok((key, value.to_owned()))
}

fn trim(line: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| is_blank(char::from(*byte));
    let start = line.iter().position(|byte| !is_blank(byte)).unwrap_or(line.len());
    let end = line
        .iter()
        .rposition(|byte| !is_blank(byte))
        .map_or(start, |last| last + 1);
    &line[start..end]
}

#[cfg(test)]
mod tests {
    use super::section;

    const FILE: &str =
        "# mine\n[a]\nhost=h1\n\n[b]  \r\n  host=h2 \r\n#x\nport= 5\nhost=h3\n[b]\nhost=h4\n[c]\nldap://x\n";

    fn of(service: &str) -> Result<Option<Vec<(&'static str, String)>>, String> {
        let found = section(FILE.as_bytes(), service, "the file").map_err(|refusal| refusal.to_string())?;
        Ok(found.map(|entries| entries.into_iter().map(|(key, value)| (key.name, value)).collect()))
    }

    #[test]
    fn the_first_section_of_the_name_counts() {
        let pairs = [("host", "h2"), ("port", " 5"), ("host", "h3")].map(|(key, value)| (key, value.to_owned()));
        assert_eq!(of("b"), Ok(Some(pairs.to_vec())));
        assert_eq!(of("d"), Ok(None));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        assert!(of("c").expect_err("LDAP").ends_with("in the file, line 13"));
        for line in ["host", "service=x", "colour=blue", "host =x", "requiressl=1"] {
            let text = format!("[x]\n{line}\n");
            let refusal = section(text.as_bytes(), "x", "f").expect_err(line).to_string();
            assert!(
                refusal.ends_with("in f, line 2") && !refusal.contains("blue"),
                "{refusal}"
            );
        }
    }
}
