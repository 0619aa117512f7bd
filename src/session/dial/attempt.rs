//! One attempt at one address: connect, encrypt, start up, authenticate, look whether it is what was asked for.
//!
//! The step that `dial` repeats. `connect_timeout` is over all of it, as in libpq; a second way of encryption, where the
//! mode allows one, is part of the same attempt.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio_postgres::config::{ChannelBinding as RawChannelBinding, SslMode as RawSslMode, SslNegotiation};
use tokio_postgres::{Client, Config, SimpleQueryMessage};

use super::fault::{Doing, Fault};
use super::order::GoOn;
use super::role::{Judgement, Question, Seen, judge};
use super::ways::{Way, Ways};
use super::{Address, DialPlan, Log, Visit};
use crate::config::target::{CertificateMode, ChannelBinding, Target};
use crate::runtime::{Endpoint, Runtime, point};
use crate::session::Session;
use crate::session::auth_gate::AuthRefusal;
use crate::session::bound::{Bind, RawConnection};
use crate::session::driver::Driver;
use crate::session::guarded::guard;
use crate::session::tap::{Observed, Tap};
use crate::session::tls::{Secured, TlsFault};

/// How long the farewell to a session may take that is not wanted.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the server shows of a session without an `application_name`.
const OUR_NAME: &str = "gdbpool";

pub(super) struct Attempt<'a> {
    pub(super) runtime: &'a Arc<dyn Runtime>,
    pub(super) plan: &'a DialPlan,
    pub(super) visit: &'a Visit,
    pub(super) endpoint: Endpoint,
    /// A standby is preferred, and none was found.
    pub(super) any_will_do: bool,
    pub(super) log: &'a Log,
}

/// A session that has been let in.
struct Started {
    client: Client,
    connection: RawConnection,
    observed: Observed,
    is_encrypted: bool,
}

impl Attempt<'_> {
    /// Makes a session, or writes down why not and says where to go on.
    pub(super) async fn run(&self) -> Result<(Arc<Session>, Driver), GoOn> {
        let Some(span) = self.plan.target.connect_timeout else {
            return self.in_all_ways().await;
        };
        let trying = pin!(self.in_all_ways());
        match select(trying, self.runtime.sleep_until(self.runtime.now() + span)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(self.failed(Fault::Overdue(span, self.log.now_doing()))),
        }
    }

    async fn in_all_ways(&self) -> Result<(Arc<Session>, Driver), GoOn> {
        let is_unix = !matches!(self.endpoint, Endpoint::Tcp(_));
        let (mut way, mut others) = Ways::new(self.plan.target.tls.mode, is_unix, self.plan.tls.is_some());
        loop {
            match self.in_one_way(way).await {
                Ok(made) => return Ok(made),
                Err(fault) => {
                    let other = others.after(fault.way_end());
                    let go_on = self.failed(fault);
                    way = other.ok_or(go_on)?;
                }
            }
        }
    }

    fn failed(&self, fault: Fault) -> GoOn {
        self.log
            .failed(self.visit.name.clone(), Some(self.endpoint.clone()), fault)
    }

    fn doing(&self, doing: Doing) {
        self.log.doing(&self.visit.name, Some(&self.endpoint), doing);
    }

    async fn in_one_way(&self, way: Way) -> Result<(Arc<Session>, Driver), Fault> {
        let secured = self.connect(way).await?;
        point!(self.runtime, "dial.connected");
        let started = self.start_up(secured).await?;
        point!(self.runtime, "dial.authenticated");
        let started = self.check_role(started).await?;
        let backend = started.observed.facts().backend;
        let backend = backend.ok_or(Fault::Strange("no process id was sent"))?;
        let tls = self.plan.tls.clone().filter(|_| started.is_encrypted);
        let address = Address {
            endpoint: self.endpoint.clone(),
            options: self.plan.target.socket.clone(),
            tls: tls.map(|tls| (tls, Arc::clone(&self.visit.name.name))),
        };
        Ok(Session::new(
            started.client,
            started.connection,
            started.observed,
            Arc::clone(self.runtime),
            address,
            backend,
            self.plan.settings.clone(),
        ))
    }

    async fn connect(&self, way: Way) -> Result<Secured, Fault> {
        self.doing(Doing::Connect);
        let connecting = self.runtime.connect(&self.endpoint, &self.plan.target.socket);
        let stream = connecting.await.map_err(Fault::Connect)?;
        let secured = match (way, &self.plan.tls) {
            (Way::Tls { or_plain }, Some(tls)) => {
                self.doing(Doing::Tls);
                let securing = tls.secure(stream, Arc::clone(&self.visit.name.name), or_plain);
                securing.await.map_err(Fault::Tls)?
            }
            // Without a library there is no other way than plain: a pool that needs one was not opened.
            (Way::Plain | Way::Tls { .. }, _) => Secured::plain(stream),
        };
        if !secured.is_encrypted && self.plan.target.tls.certificate_mode == CertificateMode::Require {
            return Err(Fault::Tls(TlsFault::CertificateNotAsked));
        }
        Ok(secured)
    }

    async fn start_up(&self, secured: Secured) -> Result<Started, Fault> {
        self.doing(Doing::StartUp);
        let Secured {
            stream,
            is_encrypted,
            server_end_point,
        } = secured;
        let target = &self.plan.target;
        let password = self.visit.password.as_ref().map(|password| password.reveal());
        let config = client_config(target, password, is_encrypted);
        let (tap, observed) = Tap::new(guard(stream, target.require_auth), self.plan.settings.pooling);
        let (client, connection) = config
            .connect_raw(tap, Bind { server_end_point })
            .await
            .map_err(|source| match auth_refusal(&source) {
                Some(refusal) => Fault::Auth(refusal),
                None => Fault::StartUp {
                    source,
                    was_encrypted: is_encrypted,
                },
            })?;
        Ok(Started {
            client,
            connection,
            observed,
            is_encrypted,
        })
    }

    /// Gives the session back if it is what was asked for; else says goodbye to the server.
    async fn check_role(&self, mut started: Started) -> Result<Started, Fault> {
        let facts = started.observed.facts();
        let mut seen = Seen {
            read_only: facts.read_only,
            in_hot_standby: facts.in_hot_standby,
        };
        let fault = loop {
            match judge(self.plan.target.attributes, self.any_will_do, seen) {
                Judgement::Fits => return Ok(started),
                Judgement::Wrong(what) => break Fault::Role(what),
                Judgement::Ask(question) => {
                    self.doing(Doing::Role);
                    match started.ask(question).await {
                        Ok(answer) => seen = question.answered(&answer),
                        Err(fault) => break fault,
                    }
                }
            }
        };
        let patience = self.runtime.sleep_until(self.runtime.now() + FAREWELL);
        let _ = select(pin!(started.hang_up()), patience).await;
        Err(fault)
    }
}

impl Started {
    /// The only value of the only row.
    async fn ask(&mut self, question: Question) -> Result<String, Fault> {
        let Self { client, connection, .. } = self;
        let mut asking = pin!(client.simple_query(question.sql()));
        let answer = std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = asking.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            // Its end, too, is told by the answer.
            let _ = drive(connection, cx);
            asking.as_mut().poll(cx)
        });
        let messages = answer.await.map_err(|error| Fault::NoRole(question, Some(error)))?;
        let value = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        value.map(str::to_owned).ok_or(Fault::NoRole(question, None))
    }

    async fn hang_up(self) {
        let Self {
            client, mut connection, ..
        } = self;
        drop(client);
        std::future::poll_fn(|cx| drive(&mut connection, cx)).await;
    }
}

/// Moves what there is to move; ready at the connection's end.
fn drive(connection: &mut RawConnection, cx: &mut Context<'_>) -> Poll<()> {
    loop {
        match connection.poll_message(cx) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
}

fn client_config(target: &Target, password: Option<&str>, is_encrypted: bool) -> Config {
    let mut config = Config::new();
    config.user(&target.user);
    if let Some(dbname) = &target.dbname {
        config.dbname(dbname);
    }
    if let Some(options) = &target.start_up.options {
        config.options(options);
    }
    config.application_name(target.start_up.application_name.as_deref().unwrap_or(OUR_NAME));
    if let Some(password) = password {
        config.password(password);
    }
    config.channel_binding(match target.channel_binding {
        ChannelBinding::Disable => RawChannelBinding::Disable,
        ChannelBinding::Prefer => RawChannelBinding::Prefer,
        ChannelBinding::Require => RawChannelBinding::Require,
    });
    if is_encrypted {
        // It is encrypted already; this way tokio-postgres asks our side for the channel binding.
        config
            .ssl_mode(RawSslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct);
    } else {
        config.ssl_mode(RawSslMode::Disable);
    }
    config
}

/// The gate's word, out of what tokio-postgres made of it.
fn auth_refusal(error: &tokio_postgres::Error) -> Option<AuthRefusal> {
    let io = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
    io.get_ref()?.downcast_ref::<AuthRefusal>().copied()
}
