//! The start of a connection: encryption requests, start-up packet, limits, authentication, settings, or a cancel request.
//!
//! The first station of a session's task.

use std::collections::BTreeMap;
use std::sync::Arc;

use gdbpool::Instant;

use super::halt::Halt;
use super::wait::Woken;
use super::{Session, lock, trace};
use crate::executor::Origin;
use crate::fault::CancelFate;
use crate::history::EventKind;
use crate::postgres::server::{Activity, Phase, refusal};
use crate::runtime::Sleep;
use crate::wire::{Backend as Message, Frontend, Illegal, Report, Severity};

/// The newest version of the protocol that is spoken: 3.0.
const NEWEST: u32 = 3 << 16;

/// Places that only a superuser may take.
const RESERVED: usize = 3;

impl Session {
    /// Runs the start-up to its ReadyForQuery.
    pub(crate) async fn start(&mut self) -> Result<(), Halt> {
        let parameters = match self.first_packet().await {
            Err(Halt::Illegal(error)) => {
                self.illegal(&error.to_string());
                // Too short or too long a packet is no PostgreSQL client: nothing is said.
                return Err(if error.illegal() == Illegal::Length {
                    Halt::Over
                } else {
                    Halt::Illegal(error)
                });
            }
            other => other?,
        };
        let user = parameters.get("user").cloned().unwrap_or_default();
        let database = parameters
            .get("database")
            .filter(|name| !name.is_empty())
            .unwrap_or(&user)
            .clone();
        if user.is_empty() {
            let text = "no PostgreSQL user name specified in startup packet";
            return Err(Halt::Fatal(Report::fatal("28000", text)));
        }
        self.welcome(&user)?;
        self.introduce(&user, &database, &parameters);
        self.authenticate(&user).await?;
        self.take_place(&database)?;
        self.open(&user, &database, &parameters)?;
        let key = self.backend(|backend| backend.key).unwrap_or_default();
        let pid = self.pid;
        self.send(&Message::BackendKeyData { pid, key });
        self.record_opened();
        self.ready().await
    }

    /// Answers encryption requests and serves a cancel request; gives the start-up packet's parameters.
    async fn first_packet(&mut self) -> Result<BTreeMap<String, String>, Halt> {
        loop {
            match self.read_message(false).await? {
                Frontend::SslRequest | Frontend::GssEncRequest => {
                    self.send(&Message::SslRefused);
                    self.flush().await?;
                }
                Frontend::CancelRequest { pid, key } => return self.serve_cancel(pid, key).await,
                Frontend::StartUp { version, parameters } if version >> 16 == 3 => {
                    let unknown = parameters.keys().filter(|name| name.starts_with("_pq_."));
                    let unknown: Vec<String> = unknown.cloned().collect();
                    if version > NEWEST || !unknown.is_empty() {
                        self.send(&Message::NegotiateProtocolVersion {
                            newest: NEWEST,
                            unknown,
                        });
                    }
                    return Ok(parameters);
                }
                Frontend::StartUp { version, .. } => {
                    let (major, minor) = (version >> 16, version & 0xffff);
                    let text = format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0");
                    return Err(Halt::Fatal(Report::fatal("0A000", text)));
                }
                other => {
                    let text = format!("{} before the start-up packet", trace::kind(&other));
                    self.illegal(&text);
                    return Err(Halt::Fatal(Report::fatal("08P01", text)));
                }
            }
        }
    }

    /// Whether the server takes sessions at all at present.
    fn welcome(&self, user: &str) -> Result<(), Halt> {
        let mut open = self.lock();
        let now = open.now();
        if matches!(open.nodes[self.node].phase, Phase::Starting { until } if until <= now) {
            open.started(self.node);
        }
        let node = &open.nodes[self.node];
        if !node.is_up() {
            return Err(Halt::Fatal(Report::fatal(
                "57P03",
                "the database system is starting up",
            )));
        }
        match node.faults.refuse {
            Some(why) => {
                open.felt("server.refuse");
                Err(Halt::Fatal(refusal(why, user)))
            }
            None => Ok(()),
        }
    }

    /// From here on the others see whose session this is, and it takes a place.
    fn introduce(&self, user: &str, database: &str, parameters: &BTreeMap<String, String>) {
        let superuser = self.lock().users.get(user).is_some_and(|login| login.superuser);
        let application = parameters.get("application_name").map_or("", String::as_str);
        self.backend(|backend| {
            backend.user = Arc::from(user);
            backend.database = Arc::from(database);
            backend.application = Arc::from(application);
            backend.superuser = superuser;
        });
    }

    fn take_place(&self, database: &str) -> Result<(), Halt> {
        let open = self.lock();
        let node = &open.nodes[self.node];
        let limit = node
            .settings
            .settings
            .get("max_connections")
            .and_then(|limit| limit.parse().ok());
        let superuser = node.backends.get(&self.pid).is_some_and(|backend| backend.superuser);
        let taken = node.sessions();
        let too_many = match (node.faults.max_sessions, limit) {
            (Some(limit), _) if taken > limit => Some("sorry, too many clients already"),
            (None, Some(limit)) if taken > limit => Some("sorry, too many clients already"),
            (None, Some(limit)) if !superuser && limit > RESERVED && taken > limit - RESERVED => {
                Some("remaining connection slots are reserved for non-replication superuser connections")
            }
            _ => None,
        };
        if let Some(text) = too_many {
            if node.faults.max_sessions.is_some() {
                open.felt("server.max_sessions");
            }
            return Err(Halt::Fatal(Report::fatal("53300", text)));
        }
        if !open.databases.contains(database) {
            let text = format!("database \"{database}\" does not exist");
            return Err(Halt::Fatal(Report::fatal("3D000", text)));
        }
        Ok(())
    }

    /// The engine's session begins, with the settings of the packet and of its `options`; it tells what clients must know.
    fn open(&mut self, user: &str, database: &str, parameters: &BTreeMap<String, String>) -> Result<(), Halt> {
        let settings = parameters.iter().filter(|(name, _)| {
            !matches!(name.as_str(), "user" | "database" | "replication") && !name.starts_with("_pq_.")
        });
        let settings: BTreeMap<String, String> = settings.map(|(name, value)| (name.clone(), value.clone())).collect();
        let pid = self.pid;
        let opened = self.engine(|engine, _| engine.open(pid, user, database, &settings));
        opened.map_err(|report| {
            Halt::Fatal(Report {
                severity: Severity::Fatal,
                ..report
            })
        })?;
        self.engine(|engine, moment| {
            engine.set_activity(pid, |activity| activity.backend_start = moment.wall);
        });
        let reported = self.engine(|engine, _| engine.reported(pid));
        for (name, value) in reported {
            self.send(&Message::ParameterStatus(name, value));
        }
        Ok(())
    }

    fn record_opened(&self) {
        let opened = self.backend(|backend| {
            backend.activity = Activity::Between;
            EventKind::SessionOpened {
                pid: backend.pid,
                user: Arc::clone(&backend.user),
                application: Arc::clone(&backend.application),
            }
        });
        if let Some(kind) = opened {
            self.record(kind);
        }
    }

    /// The side connection of a cancel request: no bytes come back, only its end.
    async fn serve_cancel<T>(&mut self, pid: i32, key: i32) -> Result<T, Halt> {
        let fate = self.lock().nodes[self.node].faults.cancel;
        if fate.is_some() {
            self.lock().felt("protocol.cancel");
        }
        match fate {
            None => self.cancel(pid, key),
            Some(CancelFate::Delayed(by)) => {
                let until = self.shared.now() + by.span();
                while !matches!(self.wait(until).await, Woken::Due | Woken::End(_)) {}
                self.cancel(pid, key);
            }
            Some(CancelFate::Hang) => while !matches!(self.wait(Instant::FAR_FUTURE).await, Woken::End(_)) {},
            Some(CancelFate::Late(by)) => {
                let (world, shared, node) = (Arc::clone(&self.world), Arc::clone(&self.shared), self.node);
                let at = shared.now() + by.span();
                let late = async move {
                    Sleep::new(&shared, at, Origin::World).await;
                    lock(&world).cancel(node, pid, key);
                };
                self.shared.spawn(Box::pin(late), Origin::World);
            }
            Some(CancelFate::Lost) => {
                let hit = false;
                self.record(EventKind::CancelArrived { pid, hit, op: None });
            }
        }
        Err(Halt::Over)
    }

    fn cancel(&self, pid: i32, key: i32) {
        self.lock().cancel(self.node, pid, key);
    }
}
