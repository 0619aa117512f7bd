//! From keys and values to a `Target`: what each value means, what stands in for an absent one, what cannot be served.
//!
//! Between `conninfo`, which knows no meaning, and the dial, which finds everything decided. Reads the files that TLS needs
//! and the password file; errors name the key, and the variable a value came from, never the value.

mod auth;
mod hosts;
mod tls;
mod values;

use std::time::Duration;

use super::SocketOptions;
use super::conninfo::{Parameters, Refusal, SETTINGS, Sources};
use super::target::{ChannelBinding, Host, SessionAttributes, StartUpParameters, Target};
use crate::error::{BadInput, Error};

/// Reads a connection string, adds what `sources` know, and decides what it all means.
pub(super) fn target(text: &str, sources: Option<&Sources>) -> Result<Target, Error> {
    let target = super::conninfo::parse(text).and_then(|mut parameters| {
        parameters.complete(sources)?;
        resolved(&parameters, sources)
    });
    target.map_err(|refusal| {
        Error::bad_input(BadInput::Dsn {
            reason: refusal.into_reason(),
        })
    })
}

fn resolved(parameters: &Parameters, sources: Option<&Sources>) -> Result<Target, Refusal> {
    if sources.is_none() {
        for key in ["service", "servicefile", "passfile"] {
            if parameters.filled(key).is_some() {
                return Err(Refusal::new(format!(
                    "{key} is a matter of files: PoolConfig::new reads none of it, PoolConfig::from_environment does"
                )));
            }
        }
    }
    values::without_nul(parameters)?;
    let user = parameters.filled("user").or_else(|| sources?.user.as_deref());
    let user = user.ok_or_else(|| Refusal::new("user is missing"))?;
    let dbname = parameters.filled("dbname");
    let hosts = hosts::hosts(parameters, sources, user, dbname.unwrap_or(user))?;
    let is_local = hosts.iter().all(|host| matches!(host.host, Host::Unix(_)));
    values::refuse_unserved(parameters, &hosts)?;
    let attributes = [
        ("any", SessionAttributes::Any),
        ("read-write", SessionAttributes::ReadWrite),
        ("read-only", SessionAttributes::ReadOnly),
        ("primary", SessionAttributes::Primary),
        ("standby", SessionAttributes::Standby),
        ("prefer-standby", SessionAttributes::PreferStandby),
    ];
    let binding = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    let balance = [("disable", false), ("random", true)];
    Ok(Target {
        hosts,
        user: user.into(),
        dbname: dbname.map(str::to_owned),
        attributes: values::one_of(parameters, "target_session_attrs", &attributes)?.unwrap_or_default(),
        load_balance: values::one_of(parameters, "load_balance_hosts", &balance)?.unwrap_or_default(),
        connect_timeout: values::positive(parameters, "connect_timeout")?.map(|secs| Duration::from_secs(secs.into())),
        start_up: start_up(parameters, sources),
        tls: tls::settings(parameters, sources, is_local)?,
        channel_binding: values::one_of(parameters, "channel_binding", &binding)?.unwrap_or_default(),
        require_auth: auth::required(parameters)?,
        socket: socket(parameters)?,
    })
}

fn start_up(parameters: &Parameters, sources: Option<&Sources>) -> StartUpParameters {
    let name = parameters.filled("application_name");
    let mut start_up = StartUpParameters {
        options: parameters.filled("options").map(str::to_owned),
        application_name: name
            .or_else(|| parameters.filled("fallback_application_name"))
            .map(str::to_owned),
    };
    // libpq sends these as parameters of their own, which win over the options: so they come behind those.
    let settings = SETTINGS.iter().filter_map(|(variable, setting)| {
        let text = sources?.variable(variable)?;
        (!text.eq_ignore_ascii_case("default")).then(|| ((*setting).to_owned(), text.to_owned()))
    });
    start_up.set(&settings.collect::<Vec<_>>());
    start_up
}

fn socket(parameters: &Parameters) -> Result<SocketOptions, Refusal> {
    let seconds = |key| Ok(values::positive(parameters, key)?.map(|secs| Duration::from_secs(secs.into())));
    let millis = values::positive(parameters, "tcp_user_timeout")?;
    Ok(SocketOptions {
        keepalives: values::number(parameters, "keepalives")? != Some(0),
        keepalives_idle: seconds("keepalives_idle")?,
        keepalives_interval: seconds("keepalives_interval")?,
        keepalives_retries: values::positive(parameters, "keepalives_count")?,
        tcp_user_timeout: millis.map(|millis| Duration::from_millis(millis.into())),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::target::{SessionAttributes, SslMode, Target};
    use super::{Sources, target};

    #[track_caller]
    fn of(text: &str) -> Target {
        target(text, None).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    #[track_caller]
    fn refuses(text: &str, part: &str) {
        let Err(error) = target(text, Some(&Sources::default())) else {
            panic!("{text:?} was taken")
        };
        let error = error.to_string();
        assert!(error.contains(part), "{text:?}: {error}");
        assert!(!error.contains("hunter"), "{text:?}: {error}");
    }

    #[test]
    fn both_forms_mean_the_same() {
        let keywords = of("host=db1 port=5433 user=app dbname=shop");
        let uri = of("postgresql://app@db1:5433/shop");
        assert_eq!((keywords.hosts, keywords.dbname), (uri.hosts, uri.dbname));
    }

    #[test]
    fn values_are_read_as_libpq_reads_them() {
        let target = of(
            "user=u connect_timeout=' +3 ' keepalives=2 keepalives_idle=-1 tcp_user_timeout=250 \
                         target_session_attrs=prefer-standby load_balance_hosts=random fallback_application_name=x",
        );
        assert_eq!(target.connect_timeout, Some(Duration::from_secs(3)));
        assert_eq!(target.socket.tcp_user_timeout, Some(Duration::from_millis(250)));
        assert!(target.socket.keepalives && target.socket.keepalives_idle.is_none());
        assert_eq!(target.attributes, SessionAttributes::PreferStandby);
        assert!(target.load_balance);
        assert_eq!(target.start_up.application_name.as_deref(), Some("x"));
        assert_eq!(of("user=u connect_timeout=-5").connect_timeout, None);
        assert!(!of("user=u keepalives=0").socket.keepalives);
        assert_eq!(of("user=u sslrootcert=system").tls.mode, SslMode::VerifyFull);
        assert_eq!(
            of("user=u client_encoding=utf-8 replication=off gssencmode=prefer").user,
            "u"
        );
    }

    #[test]
    fn what_makes_no_sense_or_cannot_be_served_is_named() {
        for (text, part) in [
            ("host=a", "user is missing"),
            ("user=''", "user is missing"),
            ("user=u port=hunter2", "port"),
            ("user=u port=0", "port"),
            ("user=u port=65536", "port"),
            ("user=u host=a port=1,2", "2 values"),
            ("user=u host=a,b hostaddr=::1", "hostaddr"),
            ("user=u hostaddr=hunter2", "hostaddr"),
            ("user=u connect_timeout=3s", "connect_timeout"),
            ("user=u connect_timeout=''", "connect_timeout"),
            ("user=u connect_timeout=2147483648", "connect_timeout"),
            ("user=u keepalives=hunter2", "keepalives"),
            (
                "user=u sslmode=hunter2",
                "disable, allow, prefer, require, verify-ca, verify-full",
            ),
            ("user=u sslmode=''", "sslmode"),
            ("user=u target_session_attrs=hunter2", "target_session_attrs"),
            ("user=u load_balance_hosts=hunter2", "load_balance_hosts"),
            ("user=u channel_binding=hunter2", "channel_binding"),
            ("user=u sslnegotiation=direct", "sslnegotiation"),
            ("user=u sslrootcert=system sslmode=require", "sslrootcert"),
            (
                "user=u ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=tlsv1.2",
                "ssl_min_protocol_version",
            ),
            ("user=u ssl_min_protocol_version=hunter2", "ssl_min_protocol_version"),
            ("user=u min_protocol_version=3.2", "min_protocol_version"),
            ("user=u max_protocol_version=hunter2", "max_protocol_version"),
            ("user=u gssencmode=require", "gssencmode"),
            ("user=u gssencmode=hunter2", "gssencmode"),
            ("user=u replication=database", "replication"),
            ("user=u replication=hunter2", "replication"),
            ("user=u client_encoding=latin1", "client_encoding"),
            ("user=u requirepeer=hunter host=/tmp", "requirepeer"),
            ("user=u oauth_issuer=hunter2", "oauth_issuer"),
            ("user=u scram_client_key=hunter2", "scram_client_key"),
            ("user=u sslkeylogfile=hunter2", "sslkeylogfile"),
            ("user=u require_auth=hunter2", "require_auth"),
            ("user=u require_auth=md5,!password", "require_auth"),
            ("user=u require_auth=md5,md5", "require_auth"),
            ("user=u require_auth=gss", "require_auth"),
            ("user=u service=hunter2", "service"),
        ] {
            refuses(text, part);
        }
        for key in ["service", "servicefile", "passfile"] {
            let error = target(&format!("user=u {key}=x"), None)
                .map(drop)
                .expect_err(key)
                .to_string();
            assert!(error.contains(key) && error.contains("from_environment"), "{error}");
        }
    }

    #[test]
    fn a_variable_is_named_where_its_value_is_wrong() {
        let sources = Sources {
            variables: [("PGPORT".into(), "hunter2".into())].into(),
            user: Some("u".into()),
            ..Sources::default()
        };
        let error = target("", Some(&sources)).map(drop).expect_err("no port").to_string();
        assert!(error.contains("port (from PGPORT)"), "{error}");
    }

    #[test]
    fn settings_from_the_environment_come_behind_the_options() {
        let sources = Sources {
            variables: [
                ("PGTZ".into(), "Europe/Paris".into()),
                ("PGGEQO".into(), "default".into()),
                ("PGOPTIONS".into(), "-c TimeZone=UTC".into()),
            ]
            .into(),
            user: Some("u".into()),
            ..Sources::default()
        };
        let target = target("", Some(&sources))
            .map_err(|error| error.to_string())
            .expect("a target");
        assert_eq!(
            target.start_up.options.as_deref(),
            Some("-c TimeZone=UTC -c timezone=Europe/Paris")
        );
    }
}
