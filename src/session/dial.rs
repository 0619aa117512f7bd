//! From an address to a session: look-up, connect, start-up and authentication, for one host.
//!
//! Called by the pool, which owns the deadline over all of it and the decision to try again. Host lists, TLS and
//! password files are not here yet; their place is between `connect` and `start_up`.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio_postgres::NoTls;

use super::driver::Driver;
use super::tap::{Observed, Tap};
use super::{Session, SessionSettings, TemplateError};
use crate::config::target::{ChannelBinding, Host, HostTarget, Target};
use crate::config::{PasswordRequest, PasswordSource, SocketOptions};
use crate::runtime::{BoxStream, Endpoint, Runtime};

/// Where a session is, for those who must reach the same server process group again: cancel requests.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) endpoint: Endpoint,
    pub(crate) options: SocketOptions,
}

/// Everything a dial needs to know.
#[derive(Clone)]
pub(crate) struct DialPlan {
    /// The pool's name.
    pub(crate) pool: Arc<str>,
    /// Asked at each dial, if there is one; the password in `target` is not used then.
    pub(crate) password: Option<PasswordSource>,
    pub(crate) target: Target,
    pub(crate) settings: SessionSettings,
}

/// Why a dial failed, and at which of its steps.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The name could not be looked up, or has no address.
    Resolve { host: String, source: io::Error },
    /// No stream to the address.
    Connect { endpoint: Endpoint, source: io::Error },
    /// The function that gives passwords failed.
    Password(Box<dyn std::error::Error + Send + Sync>),
    /// The session ended, or the time was over, before its template had been run.
    SetUp(Option<Arc<tokio_postgres::Error>>),
    /// A part of the session template failed.
    Template(TemplateError),
    /// The server refused, or broke off, the start-up.
    StartUp {
        endpoint: Endpoint,
        source: tokio_postgres::Error,
    },
    /// The start-up ended, but not as PostgreSQL ends it.
    Strange { endpoint: Endpoint, what: &'static str },
}

/// Makes one session. Dropping the future abandons the attempt and closes what was opened.
pub(crate) async fn dial(runtime: &Arc<dyn Runtime>, plan: &DialPlan) -> Result<(Arc<Session>, Driver), DialError> {
    let mut config = client(&plan.target);
    match (&plan.password, &plan.first().password) {
        (Some(source), _) => drop(config.password(ask(plan, source).await?)),
        (None, Some(password)) => drop(config.password(password.reveal())),
        (None, None) => {}
    }
    let (stream, address) = connect(&**runtime, plan).await?;
    let (tap, observed) = Tap::new(stream);
    let started = config.connect_raw(tap, NoTls).await;
    let endpoint = address.endpoint.clone();
    let (client, connection) = started.map_err(|source| DialError::StartUp {
        endpoint: endpoint.clone(),
        source,
    })?;
    let (pid, key) = backend(&observed).ok_or(DialError::Strange {
        endpoint,
        what: "no process id was sent",
    })?;
    let (session, driver) = Session::new(
        client,
        connection,
        observed,
        Arc::clone(runtime),
        address,
        (pid, key),
        plan.settings.clone(),
    );
    Ok((session, driver))
}

/// What tokio-postgres sends at start-up; the password apart.
fn client(target: &Target) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config
        .user(&target.user)
        .ssl_mode(tokio_postgres::config::SslMode::Disable);
    if let Some(dbname) = &target.dbname {
        config.dbname(dbname);
    }
    if let Some(options) = &target.start_up.options {
        config.options(options);
    }
    config.application_name(target.start_up.application_name.as_deref().unwrap_or("gdbpool"));
    config.channel_binding(match target.channel_binding {
        ChannelBinding::Disable => tokio_postgres::config::ChannelBinding::Disable,
        ChannelBinding::Prefer => tokio_postgres::config::ChannelBinding::Prefer,
        ChannelBinding::Require => tokio_postgres::config::ChannelBinding::Require,
    });
    config
}

async fn ask(plan: &DialPlan, source: &PasswordSource) -> Result<String, DialError> {
    let host = plan.first();
    let request = PasswordRequest {
        pool: Arc::clone(&plan.pool),
        host: host.host.to_string(),
        port: host.port,
        user: plan.target.user.clone(),
        dbname: plan.target.dbname.clone(),
    };
    source.ask(request).await.map_err(DialError::Password)
}

fn backend(observed: &Observed) -> Option<(i32, i32)> {
    observed.facts().backend
}

/// Tries the addresses of the host in order; the last failure is the one reported.
async fn connect(runtime: &dyn Runtime, plan: &DialPlan) -> Result<(BoxStream, Address), DialError> {
    let mut failure = None;
    for endpoint in endpoints(runtime, plan).await? {
        match runtime.connect(&endpoint, &plan.target.socket).await {
            Ok(stream) => {
                return Ok((
                    stream,
                    Address {
                        endpoint,
                        options: plan.target.socket.clone(),
                    },
                ));
            }
            Err(source) => failure = Some(DialError::Connect { endpoint, source }),
        }
    }
    Err(failure.unwrap_or_else(|| DialError::Resolve {
        host: plan.first().host.to_string(),
        source: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
    }))
}

async fn endpoints(runtime: &dyn Runtime, plan: &DialPlan) -> Result<Vec<Endpoint>, DialError> {
    let HostTarget {
        host, hostaddr, port, ..
    } = plan.first();
    if let Some(ip) = hostaddr {
        return Ok(vec![Endpoint::Tcp((*ip, *port).into())]);
    }
    match host {
        Host::Tcp(name) => match name.parse::<IpAddr>() {
            Ok(ip) => Ok(vec![Endpoint::Tcp((ip, *port).into())]),
            Err(_) => {
                let found = runtime.resolve(name, *port).await;
                let addresses = found.map_err(|source| DialError::Resolve {
                    host: name.clone(),
                    source,
                })?;
                Ok(addresses.into_iter().map(Endpoint::Tcp).collect())
            }
        },
        Host::Unix(folder) => Ok(vec![Endpoint::Unix(folder.join(format!(".s.PGSQL.{port}")))]),
    }
}

impl DialPlan {
    /// The only host so far.
    fn first(&self) -> &HostTarget {
        &self.target.hosts[0]
    }
}

impl fmt::Debug for DialPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialPlan")
            .field("hosts", &self.target.hosts)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve { host, .. } => write!(f, "could not look up the host \"{host}\""),
            Self::Connect { endpoint, .. } => write!(f, "could not connect to {endpoint}"),
            Self::Password(_) => f.write_str("the function that gives the password failed"),
            Self::SetUp(_) => f.write_str("the session template (on_connect) was not run to its end"),
            Self::Template(error) => error.fmt(f),
            Self::StartUp { endpoint, .. } => write!(f, "the server at {endpoint} refused the start-up"),
            Self::Strange { endpoint, what } => {
                write!(f, "the server at {endpoint} does not speak as PostgreSQL: {what}")
            }
        }
    }
}

impl std::error::Error for DialError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve { source, .. } | Self::Connect { source, .. } => Some(source),
            Self::Password(source) => Some(&**source),
            Self::SetUp(reason) => reason.as_ref().map(|reason| reason as _),
            Self::Template(error) => error.source(),
            Self::StartUp { source, .. } => Some(source),
            Self::Strange { .. } => None,
        }
    }
}
