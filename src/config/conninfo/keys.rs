//! The keys of libpq 18 (and `servicefile` of 19), with their environment variables. A plain machine.

/// One key of a connection string.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// The environment variable that stands in for it.
    pub(crate) variable: Option<&'static str>,
}

const fn key(name: &'static str, variable: &'static str) -> Key {
    Key {
        name,
        variable: Some(variable),
    }
}

const fn bare(name: &'static str) -> Key {
    Key { name, variable: None }
}

/// All of them, by name.
pub(crate) const KEYS: [Key; 51] = [
    key("application_name", "PGAPPNAME"),
    key("channel_binding", "PGCHANNELBINDING"),
    key("client_encoding", "PGCLIENTENCODING"),
    key("connect_timeout", "PGCONNECT_TIMEOUT"),
    key("dbname", "PGDATABASE"),
    bare("fallback_application_name"),
    key("gssdelegation", "PGGSSDELEGATION"),
    key("gssencmode", "PGGSSENCMODE"),
    key("gsslib", "PGGSSLIB"),
    key("host", "PGHOST"),
    key("hostaddr", "PGHOSTADDR"),
    bare("keepalives"),
    bare("keepalives_count"),
    bare("keepalives_idle"),
    bare("keepalives_interval"),
    key("krbsrvname", "PGKRBSRVNAME"),
    key("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    key("max_protocol_version", "PGMAXPROTOCOLVERSION"),
    key("min_protocol_version", "PGMINPROTOCOLVERSION"),
    bare("oauth_client_id"),
    bare("oauth_client_secret"),
    bare("oauth_issuer"),
    bare("oauth_scope"),
    key("options", "PGOPTIONS"),
    key("passfile", "PGPASSFILE"),
    key("password", "PGPASSWORD"),
    key("port", "PGPORT"),
    bare("replication"),
    key("require_auth", "PGREQUIREAUTH"),
    key("requirepeer", "PGREQUIREPEER"),
    bare("scram_client_key"),
    bare("scram_server_key"),
    key("service", "PGSERVICE"),
    key("servicefile", "PGSERVICEFILE"),
    key("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    key("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    key("sslcert", "PGSSLCERT"),
    key("sslcertmode", "PGSSLCERTMODE"),
    key("sslcompression", "PGSSLCOMPRESSION"),
    key("sslcrl", "PGSSLCRL"),
    key("sslcrldir", "PGSSLCRLDIR"),
    key("sslkey", "PGSSLKEY"),
    bare("sslkeylogfile"),
    key("sslmode", "PGSSLMODE"),
    key("sslnegotiation", "PGSSLNEGOTIATION"),
    bare("sslpassword"),
    key("sslrootcert", "PGSSLROOTCERT"),
    key("sslsni", "PGSSLSNI"),
    key("target_session_attrs", "PGTARGETSESSIONATTRS"),
    bare("tcp_user_timeout"),
    key("user", "PGUSER"),
];

pub(super) fn find(name: &str) -> Option<&'static Key> {
    let at = KEYS.binary_search_by(|key| key.name.cmp(name)).ok()?;
    Some(&KEYS[at])
}

/// The key that `word` is most probably a misspelling of.
pub(super) fn alike(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let near = KEYS.iter().map(|key| (distance(&word, key.name), key.name)).min()?;
    (near.0 <= 2 && near.0 * 3 < word.len()).then_some(near.1)
}

/// How many letters must be added, left out or replaced.
fn distance(from: &str, to: &str) -> usize {
    let to = to.as_bytes();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, have) in from.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], at + 1);
        for (column, want) in to.iter().enumerate() {
            let replaced = corner + usize::from(have != *want);
            corner = row[column + 1];
            row[column + 1] = replaced.min(corner + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::{alike, distance};

    #[test]
    fn misspellings_find_their_key() {
        assert_eq!(alike("ssl_mode"), Some("sslmode"));
        assert_eq!(alike("Application-Name"), Some("application_name"));
        assert_eq!(alike("pasword"), Some("password"));
        assert_eq!(alike("colour"), None);
        assert_eq!(alike("xyz"), None, "anything is near to something short");
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
