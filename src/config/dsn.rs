//! Connection strings: libpq's keyword and URI forms, for one host, as a dial plan.
//!
//! Values only. The reading is tokio-postgres's; here it is narrowed to what can be dialled today and its errors name the
//! offending key. Host lists, services, password files and TLS have their place here and are refused until then.

use tokio_postgres::config::{self, SslMode, TargetSessionAttrs};

use super::SocketOptions;
use super::target::{
    ChannelBinding, Host, HostTarget, Secret, SessionAttributes, StartUpParameters, Target, TlsSettings,
};
use crate::error::{BadInput, Error};

/// Reads a connection string.
pub(crate) fn parse(text: &str) -> Result<Target, Error> {
    check_at_signs(text)?;
    let config: tokio_postgres::Config = text.parse().map_err(|error| bad(describe(text, &error)))?;
    let user = config.get_user().filter(|user| !user.is_empty());
    let user = user.ok_or_else(|| bad("user is missing".into()))?;
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
    let host = match one("host", config.get_hosts())? {
        None => Host::Tcp("localhost".into()),
        Some(config::Host::Tcp(name)) => Host::Tcp(name.clone()),
        #[cfg(unix)]
        Some(config::Host::Unix(folder)) => Host::Unix(folder.clone()),
    };
    let host = HostTarget {
        host,
        hostaddr: one("hostaddr", config.get_hostaddrs())?.copied(),
        port: one("port", config.get_ports())?.copied().unwrap_or(5432),
        password: None,
    };
    Ok(Target {
        hosts: vec![HostTarget {
            password: password(&config)?,
            ..host
        }],
        user: user.into(),
        dbname: config.get_dbname().map(str::to_owned),
        attributes: SessionAttributes::Any,
        load_balance: false,
        connect_timeout: config.get_connect_timeout().copied().filter(|span| !span.is_zero()),
        start_up: StartUpParameters {
            options: config.get_options().map(str::to_owned),
            application_name: config.get_application_name().map(str::to_owned),
        },
        tls: TlsSettings::default(),
        channel_binding: match config.get_channel_binding() {
            config::ChannelBinding::Disable => ChannelBinding::Disable,
            config::ChannelBinding::Require => ChannelBinding::Require,
            _ => ChannelBinding::Prefer,
        },
        require_auth: None,
        socket: socket(&config),
    })
}

fn password(config: &tokio_postgres::Config) -> Result<Option<Secret>, Error> {
    let Some(password) = config.get_password() else {
        return Ok(None);
    };
    let password = std::str::from_utf8(password).map_err(|_| bad("password is not UTF-8".into()))?;
    Ok(Some(Secret::new(password)))
}

fn socket(config: &tokio_postgres::Config) -> SocketOptions {
    SocketOptions {
        keepalives: config.get_keepalives(),
        keepalives_idle: Some(config.get_keepalives_idle()),
        keepalives_interval: config.get_keepalives_interval(),
        keepalives_retries: config.get_keepalives_retries(),
        tcp_user_timeout: config.get_tcp_user_timeout().copied().filter(|span| !span.is_zero()),
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

#[cfg(test)]
mod tests {
    use super::parse;

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
            let Err(error) = parse(dsn) else {
                panic!("{dsn:?} was taken")
            };
            let text = error.to_string();
            assert!(text.contains(names), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn what_follows_a_blank_in_a_password_is_not_shown() {
        let Err(error) = parse("host=a user=u password=hun ter2=x") else {
            panic!("it was taken");
        };
        assert!(!error.to_string().contains("ter2"), "{error}");
        let Err(error) = parse("host=a user=u password=x ssl_mode=require") else {
            panic!("it was taken");
        };
        assert!(error.to_string().contains("ssl_mode"), "{error}");
    }

    #[test]
    fn both_forms_mean_the_same() {
        let keywords = parse("host=db1 port=5433 user=app dbname=shop").ok().unwrap();
        let uri = parse("postgresql://app@db1:5433/shop").ok().unwrap();
        assert_eq!((keywords.hosts, keywords.dbname), (uri.hosts, uri.dbname));
    }
}
