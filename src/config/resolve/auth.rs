//! `require_auth`: which ways to authenticate the server may ask for, as libpq reads the list.

use super::super::conninfo::{Parameters, Refusal};
use super::super::target::RequireAuth;
use super::values::bad;

/// The words libpq knows; the last three are never served here.
const METHODS: [&str; 7] = ["none", "password", "md5", "scram-sha-256", "gss", "sspi", "oauth"];

pub(super) fn required(parameters: &Parameters) -> Result<Option<RequireAuth>, Refusal> {
    const KEY: &str = "require_auth";
    let Some(list) = parameters.filled(KEY) else {
        return Ok(None);
    };
    let negated = list.starts_with('!');
    // Without a list, everything is allowed; the negated one takes away, the other one begins with nothing.
    let mut allowed = METHODS.map(|_| negated);
    for word in list.split(',') {
        let (is_negated, name) = word.strip_prefix('!').map_or((false, word), |name| (true, name));
        if is_negated != negated {
            return Err(bad(parameters, KEY, "mixes methods with and without \"!\""));
        }
        let Some(at) = METHODS.iter().position(|method| *method == name) else {
            let what = format!(
                "may have these methods: {}; all of them with \"!\" in front, or none",
                METHODS.join(", ")
            );
            return Err(bad(parameters, KEY, &what));
        };
        if allowed[at] != negated {
            return Err(bad(parameters, KEY, &format!("names {name} twice")));
        }
        allowed[at] = !negated;
    }
    let [none, password, md5, scram_sha_256, ..] = allowed;
    if !(none || password || md5 || scram_sha_256) {
        return Err(bad(
            parameters,
            KEY,
            "leaves no method that is served here: none, password, md5, scram-sha-256",
        ));
    }
    Ok(Some(RequireAuth {
        none,
        password,
        md5,
        scram_sha_256,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::super::conninfo::parse;
    use super::required;

    /// The methods allowed, by their first letters.
    fn of(list: &str) -> Option<String> {
        let parameters = parse(&format!("require_auth='{list}'")).expect("a sound string");
        let required = required(&parameters).expect("a sound list")?;
        let letters = [
            (required.none, 'n'),
            (required.password, 'p'),
            (required.md5, 'm'),
            (required.scram_sha_256, 's'),
        ];
        Some(
            letters
                .iter()
                .filter(|(allowed, _)| *allowed)
                .map(|(_, letter)| *letter)
                .collect(),
        )
    }

    #[test]
    fn a_list_allows_or_takes_away() {
        assert_eq!(of(""), None);
        assert_eq!(of("scram-sha-256").as_deref(), Some("s"));
        assert_eq!(of("scram-sha-256,gss,none").as_deref(), Some("ns"));
        assert_eq!(of("!password,!md5").as_deref(), Some("ns"));
        assert_eq!(of("!none").as_deref(), Some("pms"));
    }
}
