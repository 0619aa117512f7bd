//! From a list of hosts to a session: look-up, connect, encryption, start-up and authentication, and its role.
//!
//! Called by the pool and the listener, which own the deadline over all of it and the decision to try again. Which host and
//! address comes next is decided by `order`, in which ways by `ways`, what a session is by `role`; `attempt` makes one
//! session at one address; what failed is kept in `fault`. All as libpq does it.

mod attempt;
mod fault;
mod order;
mod role;
mod ways;

pub(crate) use self::fault::DialError;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::{Either, select};

use self::attempt::Attempt;
use self::fault::{Doing, Failures, Fault, HostName};
use self::order::{GoOn, Order, Step};
use super::driver::Driver;
use super::tls::Tls;
use super::{Session, SessionSettings};
use crate::Instant;
use crate::config::target::{Host, HostTarget, Secret, SessionAttributes, Target};
use crate::config::{PasswordRequest, PasswordSource, SocketOptions};
use crate::runtime::{Endpoint, Runtime};

/// Where a session is, for those who must reach the same server process group again: cancel requests.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) endpoint: Endpoint,
    pub(crate) options: SocketOptions,
    /// How the session is encrypted, if it is, and the host's name.
    pub(super) tls: Option<(Tls, Arc<str>)>,
}

/// Everything a dial needs to know.
#[derive(Clone)]
pub(crate) struct DialPlan {
    /// The pool's name.
    pub(crate) pool: Arc<str>,
    pub(crate) target: Arc<Target>,
    /// Asked for each host that is tried, if there is one; the passwords in `target` are not used then.
    pub(crate) password: Option<PasswordSource>,
    pub(crate) tls: Option<Tls>,
    pub(crate) settings: SessionSettings,
}

/// What is known of a dial from outside, when it is cut short.
#[derive(Debug, Default)]
struct Log(Mutex<(Failures, Option<Under>)>);

/// The step under way.
#[derive(Clone, Debug)]
struct Under {
    host: HostName,
    endpoint: Option<Endpoint>,
    doing: Doing,
}

/// One host of the list, while it is tried.
struct Visit {
    name: HostName,
    endpoints: Vec<Endpoint>,
    password: Option<Secret>,
}

/// Makes one session, until `deadline` at the latest. Dropping the future abandons the attempt and closes what was opened.
pub(crate) async fn dial(
    runtime: &Arc<dyn Runtime>,
    plan: &DialPlan,
    deadline: Instant,
) -> Result<(Arc<Session>, Driver), DialError> {
    let log = Log::default();
    let made = {
        let trying = pin!(try_all(runtime, plan, &log));
        match select(trying, runtime.sleep_until(deadline)).await {
            Either::Left((made, _)) => made,
            Either::Right(_) => {
                log.give_up();
                None
            }
        }
    };
    made.ok_or_else(|| DialError::Failed(log.into_failures()))
}

/// Tries what there is; `None` when nothing led to a session.
async fn try_all(runtime: &Arc<dyn Runtime>, plan: &DialPlan, log: &Log) -> Option<(Arc<Session>, Driver)> {
    let target = &plan.target;
    let mut random = || runtime.random();
    let prefers = target.attributes == SessionAttributes::PreferStandby;
    let mut order = Order::new(target.hosts.len(), target.load_balance, prefers, &mut random);
    let mut visit: Option<Visit> = None;
    loop {
        match order.step() {
            Step::LookUp { host } => {
                let host = &target.hosts[host];
                let name = host_name(host);
                match look_up(&**runtime, plan, host, &name, log).await {
                    Ok(endpoints) => {
                        order.found(endpoints.len(), &mut random);
                        visit = Some(Visit {
                            name,
                            endpoints,
                            password: host.password.clone().filter(|_| plan.password.is_none()),
                        });
                    }
                    Err(fault) => order.failed(log.failed(name, None, fault)),
                }
            }
            Step::Try { address, .. } => {
                let visit = visit.as_mut()?;
                let endpoint = visit.endpoints[address].clone();
                if let (Some(source), None) = (&plan.password, &visit.password) {
                    match ask(plan, visit, source, log).await {
                        Ok(password) => visit.password = Some(password),
                        Err(fault) => {
                            order.failed(log.failed(visit.name.clone(), None, fault));
                            continue;
                        }
                    }
                }
                let attempt = Attempt {
                    runtime,
                    plan,
                    visit,
                    endpoint,
                    any_will_do: order.is_second_pass(),
                    log,
                };
                match attempt.run().await {
                    Ok(made) => return Some(made),
                    Err(go_on) => order.failed(go_on),
                }
            }
            Step::Over => return None,
        }
    }
}

/// The addresses of a host, looked up anew each time; at least one.
async fn look_up(
    runtime: &dyn Runtime,
    plan: &DialPlan,
    host: &HostTarget,
    name: &HostName,
    log: &Log,
) -> Result<Vec<Endpoint>, Fault> {
    let text = match (&host.host, host.hostaddr) {
        (_, Some(ip)) => return Ok(vec![Endpoint::Tcp(SocketAddr::new(ip, host.port))]),
        (Host::Unix(folder), None) => return Ok(vec![unix_endpoint(folder, host.port)]),
        (Host::Tcp(text), None) => text,
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(vec![Endpoint::Tcp(SocketAddr::new(ip, host.port))]);
    }
    log.doing(name, None, Doing::LookUp);
    let looking = runtime.resolve(text, host.port);
    let found = match plan.target.connect_timeout {
        None => looking.await,
        // libpq's own look-up blocks, and has no limit.
        Some(span) => match select(looking, runtime.sleep_until(runtime.now() + span)).await {
            Either::Left((found, _)) => found,
            Either::Right(_) => return Err(Fault::LookUp(io::ErrorKind::TimedOut.into())),
        },
    };
    match found {
        Ok(addresses) if addresses.is_empty() => Err(Fault::LookUp(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        ))),
        Ok(addresses) => Ok(addresses.into_iter().map(Endpoint::Tcp).collect()),
        Err(error) => Err(Fault::LookUp(error)),
    }
}

/// The socket's file is named after the port; a folder that begins with `@` is a name without a file.
fn unix_endpoint(folder: &Path, port: u16) -> Endpoint {
    let path = folder.join(format!(".s.PGSQL.{port}"));
    match path.to_str().and_then(|path| path.strip_prefix('@')) {
        Some(name) => Endpoint::UnixAbstract(PathBuf::from(name)),
        None => Endpoint::Unix(path),
    }
}

/// The password for this host, from the function that gives passwords.
async fn ask(plan: &DialPlan, visit: &Visit, source: &PasswordSource, log: &Log) -> Result<Secret, Fault> {
    log.doing(&visit.name, None, Doing::Password);
    let request = PasswordRequest {
        pool: Arc::clone(&plan.pool),
        host: visit.name.name.to_string(),
        port: visit.name.port,
        user: plan.target.user.clone(),
        dbname: plan.target.dbname.clone(),
    };
    let password = source.ask(request).await.map_err(Fault::Password)?;
    Ok(Secret::new(&password))
}

fn host_name(host: &HostTarget) -> HostName {
    HostName {
        name: host.host.to_string().into(),
        port: host.port,
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, (Failures, Option<Under>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step begins.
    fn doing(&self, host: &HostName, endpoint: Option<&Endpoint>, doing: Doing) {
        self.lock().1 = Some(Under {
            host: host.clone(),
            endpoint: endpoint.cloned(),
            doing,
        });
    }

    /// The step under way, for a limit that ends it.
    fn now_doing(&self) -> Doing {
        self.lock().1.as_ref().map_or(Doing::Connect, |under| under.doing)
    }

    fn failed(&self, host: HostName, endpoint: Option<Endpoint>, fault: Fault) -> GoOn {
        let go_on = fault.go_on();
        let mut log = self.lock();
        log.0.push(host, endpoint, fault);
        log.1 = None;
        go_on
    }

    /// The dial's deadline passed.
    fn give_up(&self) {
        let mut log = self.lock();
        log.0.set_overdue();
        if let Some(Under { host, endpoint, doing }) = log.1.take() {
            log.0.push(host, endpoint, Fault::Unfinished(doing));
        }
    }

    fn into_failures(self) -> Failures {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).0
    }
}

impl fmt::Debug for DialPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DialPlan")
            .field("hosts", &self.target.hosts)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
