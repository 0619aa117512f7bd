//! Connection strings: libpq's keyword and URI forms, for one host, as a dial plan.
//!
//! Values only. The reading is tokio-postgres's; here it is narrowed to what can be dialled today and its errors name the
//! offending key. Host lists, services, password files and TLS have their place here and are refused until then.

use std::fmt::Write as _;

use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::SocketOptions;
use crate::error::{BadInput, Error};

/// What a connection string says, checked.
#[derive(Clone)]
pub(crate) struct Dsn {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) socket: SocketOptions,
}

impl Dsn {
    /// Reads a connection string.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        check_at_signs(text)?;
        let mut config: tokio_postgres::Config = text.parse().map_err(|error| bad(describe(text, &error)))?;
        if config.get_user().is_none_or(str::is_empty) {
            return Err(bad("user is missing".into()));
        }
        for (key, value) in [
            ("user", config.get_user()),
            ("dbname", config.get_dbname()),
            ("options", config.get_options()),
            ("application_name", config.get_application_name()),
        ] {
            if value.is_some_and(|value| value.contains('\0')) {
                return Err(bad(format!("{key} has a NUL in it")));
            }
        }
        if config.get_ssl_mode() == SslMode::Require {
            return Err(bad("sslmode is require, and this build has no TLS".into()));
        }
        if config.get_target_session_attrs() != TargetSessionAttrs::Any {
            return Err(bad(
                "target_session_attrs is not supported yet; name one node per pool".into()
            ));
        }
        config.ssl_mode(SslMode::Disable);
        let host = one("host", config.get_hosts())?
            .cloned()
            .unwrap_or_else(|| Host::Tcp("localhost".into()));
        let host = match one("hostaddr", config.get_hostaddrs())? {
            Some(address) => Host::Tcp(address.to_string()),
            None => host,
        };
        let port = one("port", config.get_ports())?.copied().unwrap_or(5432);
        let mut socket = SocketOptions {
            keepalives: config.get_keepalives(),
            ..SocketOptions::default()
        };
        socket.tcp_user_timeout = config.get_tcp_user_timeout().copied().filter(|span| !span.is_zero());
        socket.keepalives_idle = Some(config.get_keepalives_idle());
        socket.keepalives_interval = config.get_keepalives_interval();
        socket.keepalives_retries = config.get_keepalives_retries();
        Ok(Self {
            config,
            host,
            port,
            socket,
        })
    }

    /// Sets server settings for the whole session by start-up options, so that RESET ALL returns to them.
    pub(crate) fn set_start_up(&mut self, settings: &[(String, String)]) {
        if self.config.get_application_name().is_none() {
            self.config.application_name("gdbpool");
        }
        let mut options = self.config.get_options().unwrap_or_default().to_owned();
        for (name, value) in settings {
            // Both as a parameter and in the options, the parameter would win: what was set last must.
            if name.eq_ignore_ascii_case("application_name") {
                self.config.application_name(value);
                continue;
            }
            let _ = write!(options, " -c {}={}", escape(name), escape(value));
        }
        if !options.is_empty() {
            self.config.options(options.trim_start());
        }
    }
}

/// In the URI form everything up to the first `@` is user and password; a second one means that a part of the password
/// would be taken, and shown, as a host or database name.
fn check_at_signs(text: &str) -> Result<(), Error> {
    let uri = text
        .strip_prefix("postgres://")
        .or_else(|| text.strip_prefix("postgresql://"));
    let node = uri.and_then(|uri| uri.split('?').next());
    if node.is_some_and(|node| node.matches('@').count() > 1) {
        return Err(bad(
            "there is more than one '@': write those of user, password and dbname as %40".into(),
        ));
    }
    Ok(())
}

fn one<'a, T>(key: &str, values: &'a [T]) -> Result<Option<&'a T>, Error> {
    match values {
        [] => Ok(None),
        [value] => Ok(Some(value)),
        more => Err(bad(format!("{key} has {} values; name one node per pool", more.len()))),
    }
}

fn bad(reason: String) -> Error {
    Error::bad_input(BadInput::Dsn { reason })
}

/// tokio-postgres names the key in the cause of its error, and never a value.
///
/// But a password with a blank in it, unquoted, ends there, and what follows it looks like a key: behind a password only
/// what resembles a key is shown.
fn describe(text: &str, error: &tokio_postgres::Error) -> String {
    let words = match std::error::Error::source(error) {
        Some(cause) => cause.to_string(),
        None => error.to_string(),
    };
    let Some(key) = words
        .strip_prefix("unknown option")
        .and_then(|rest| rest.split('`').nth(1))
    else {
        return words;
    };
    let in_keywords = text.find("password").is_some_and(|at| text[at..].contains(key));
    let user = text.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    let in_uri = user.is_some_and(|(user, _)| user.contains(':'));
    if (in_keywords || in_uri) && !resembles_a_key(key) {
        return "an unknown option behind the password; quote the password if it has blanks in it".into();
    }
    words
}

/// Whether `word` is a key of libpq, or shares its beginning with one.
fn resembles_a_key(word: &str) -> bool {
    const BEGINNINGS: [&str; 16] = [
        "appl", "auth", "chan", "clie", "conn", "dbna", "gss", "host", "keep", "krb", "load", "opti", "pas", "port",
        "serv", "ssl",
    ];
    const WORDS: [&str; 7] = ["fallback", "replication", "require", "scram", "target", "tcp", "user"];
    BEGINNINGS.iter().chain(&WORDS).any(|known| word.starts_with(known))
}

/// Start-up options are split at blanks; a backslash keeps the next character (manual, "options").
fn escape(text: &str) -> String {
    text.chars()
        .flat_map(|c| (c.is_whitespace() || c == '\\').then_some('\\').into_iter().chain([c]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Dsn;

    #[test]
    fn errors_name_the_key_and_never_the_value() {
        for (dsn, names) in [
            ("host=a user=u colour=blue", "colour"),
            ("host=a user=u port=hunter2", "port"),
            ("host=a,b user=u", "host"),
            ("host=a", "user"),
            ("host=a user=u sslmode=require", "sslmode"),
            ("host=a user=u target_session_attrs=read-write", "target_session_attrs"),
        ] {
            let Err(error) = Dsn::parse(dsn) else {
                panic!("{dsn:?} was taken")
            };
            let text = error.to_string();
            assert!(text.contains(names), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_follows_a_blank_in_a_password_is_not_shown() {
        let Err(error) = Dsn::parse("host=a user=u password=hun ter2=x") else {
            panic!("it was taken");
        };
        assert!(!error.to_string().contains("ter2"), "{error}");
        let Err(error) = Dsn::parse("host=a user=u password=x ssl_mode=require") else {
            panic!("it was taken");
        };
        assert!(error.to_string().contains("ssl_mode"), "{error}");
    }

    #[test]
    fn both_forms_mean_the_same() {
        let keywords = Dsn::parse("host=db1 port=5433 user=app dbname=shop").ok().unwrap();
        let uri = Dsn::parse("postgresql://app@db1:5433/shop").ok().unwrap();
        assert_eq!(keywords.host, uri.host);
        assert_eq!(
            (keywords.port, keywords.config.get_dbname()),
            (uri.port, uri.config.get_dbname())
        );
    }

    #[test]
    fn start_up_options_keep_blanks_in_values() {
        let mut dsn = Dsn::parse("host=a user=u options='-c geqo=off'").ok().unwrap();
        dsn.set_start_up(&[("search_path".into(), "a, b\\c".into())]);
        assert_eq!(dsn.config.get_options(), Some("-c geqo=off -c search_path=a,\\ b\\\\c"));
    }
}
