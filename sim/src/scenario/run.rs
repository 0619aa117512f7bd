//! Runs a scenario: first with its faults (safety), then with everything healed (liveness), and looks at what is left.
//!
//! The one place that joins clients, cluster and faults. It writes down what happens and judges nothing.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};
use gdbpool::{Error, InteractionPool, ListenEvent, Runtime};

use super::client::{ClientHistory, Say};
use super::end::{EndState, PoolEnd, Ran};
use super::marks::{CHANNELS, PROBE, call_of};
use super::play::{Stage, play};
use super::statements;
use super::world::{self, World};
use super::{Scenario, as_test, seen};
use crate::oracle::{Violation, check};
use crate::schedule::{Choices, Schedule};
use crate::sim::{Sim, SimTask};

/// How long faults may go on.
const SAFETY: Duration = Duration::from_secs(20);
/// How long everything has to come to its end once they have stopped.
const LIVENESS: Duration = Duration::from_secs(60);
/// How long a probe may take once all clients are through.
const PROBING: Duration = Duration::from_secs(30);
/// How long pools have to come to rest.
const REST: Duration = Duration::from_secs(15);
/// What closing may take.
const CLOSE: Duration = Duration::from_secs(5);
/// How long servers have to notice that their clients are gone: a farewell may have to be sent again and again.
const FAREWELL: Duration = Duration::from_secs(300);
/// How often the runner looks around.
const GLANCE: Duration = Duration::from_millis(20);
/// Polls after which a run counts as a livelock.
const POLLS: u64 = 3_000_000;

/// A scenario that broke promises.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The promises, at least one.
    pub violations: Vec<Violation>,
    /// The scenario.
    pub scenario: Box<Scenario>,
    /// The choices of its run.
    pub choices: Choices,
}

/// Runs a scenario to its end. The same scenario gives the same run.
///
/// ```
/// use gdbpool_sim::oracle::check;
/// use gdbpool_sim::scenario::{Scenario, run};
///
/// let scenario = Scenario::from_seed(5);
/// let ran = run(&scenario);
/// assert_eq!(check(&scenario, &ran), []);
/// assert_eq!(ran.trace_hash, run(&scenario).trace_hash);
/// ```
#[must_use]
pub fn run(scenario: &Scenario) -> Ran {
    let sim = Sim::with_schedule(scenario.seed, scenario.schedule);
    if let Some(choices) = &scenario.choices {
        sim.replay_choices(choices.clone());
    }
    sim.set_step_budget(POLLS);
    sim.tolerate_panics();
    let log = Arc::new(Mutex::new(ClientHistory::default()));
    let mut world = World::new(&sim, scenario);
    let mut end = EndState::default();
    let phases = phases(&sim, &mut world, scenario, &log, &mut end);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| sim.block_on(phases))) {
        end.panics.push(words(&*panic));
    }
    end.panics.extend(sim.task_panics());
    end.ledger = world.ledger();
    end.timeline = world.timeline();
    let server = world.take_history();
    let clients = std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner));
    let mut coverage = sim.coverage();
    seen::count(&server, &clients, &mut coverage);
    Ran {
        statements: world::statements(&server),
        server,
        clients,
        end,
        choices: sim.choices(),
        coverage,
        trace_hash: sim.trace_hash(),
    }
}

/// Runs a scenario and holds all oracles to it: for tests, whose failure prints what is needed to see it again.
///
/// # Errors
/// [`Broken`], with every promise that was.
pub fn check_run(scenario: &Scenario) -> Result<(), Broken> {
    let ran = run(scenario);
    let violations = check(scenario, &ran);
    if violations.is_empty() {
        return Ok(());
    }
    Err(Broken {
        violations,
        scenario: Box::new(scenario.clone()),
        choices: ran.choices,
    })
}

async fn phases(
    sim: &Sim,
    world: &mut World<'_>,
    scenario: &Scenario,
    log: &Arc<Mutex<ClientHistory>>,
    end: &mut EndState,
) {
    let db = match world::open(sim, &scenario.topology).await {
        Ok(db) => db,
        Err(error) => {
            end.probe = Some(format!("the pools could not be opened: {error}"));
            return;
        }
    };
    let cluster = world.cluster.clone();
    let stage = Stage {
        db,
        runtime: sim.runtime(),
        topology: scenario.topology.clone(),
        served: Arc::new(move || cluster.history_len()),
        log: Arc::clone(log),
    };
    let programs = scenario.clients.iter().cloned().enumerate();
    let mut clients: Vec<SimTask<()>> = programs
        .map(|(number, program)| sim.spawn(play(stage.clone(), number, program)))
        .collect();
    wait(sim, world, SAFETY, &mut clients).await;
    world.heal();
    if scenario.choices.is_none() {
        // Fair from here on: that everything ends is promised of fair schedules only.
        sim.set_schedule(Schedule::Random);
    }
    end.healed = sim.now();
    wait(sim, world, LIVENESS, &mut clients).await;
    end.pending = pending(log);
    end.probe = probe(sim, &stage).await.err();
    end.pools = at_rest(sim, &stage.db).await;
    stage.db.close(CLOSE).await;
    end.finished = sim.now();
    drop(stage);
    drop(clients);
    rest(sim, CLOSE + CLOSE).await;
    (end.tasks, end.timers) = (sim.live_tasks(), sim.pending_timers());
    let until = sim.now() + FAREWELL;
    while !world.sessions().is_empty() && sim.now() < until {
        rest(sim, CLOSE).await;
    }
    end.sessions = world.sessions();
}

async fn rest(sim: &Sim, span: Duration) {
    sim.runtime().sleep_until(sim.now() + span).await;
}

/// Waits for the clients, and lets the primary's name follow the primary.
async fn wait(sim: &Sim, world: &mut World<'_>, longest: Duration, clients: &mut Vec<SimTask<()>>) {
    let until = sim.now() + longest;
    while let Some(client) = clients.last_mut() {
        if sim.now() >= until {
            return;
        }
        let glance = pin!(rest(sim, GLANCE));
        if let Either::Left(_) = select(client, glance).await {
            clients.pop();
        }
        world.follow_primary();
    }
}

/// Calls that were asked and have not ended.
fn pending(log: &Mutex<ClientHistory>) -> Vec<u64> {
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pending = Vec::new();
    for event in &log.events {
        match event.say {
            Say::Asked { .. } => pending.push(event.call),
            Say::Ended { .. } => pending.retain(|call| *call != event.call),
            _ => {}
        }
    }
    pending
}

/// Writes, reads and listens, until all of it works.
async fn probe(sim: &Sim, stage: &Stage) -> Result<(), String> {
    let until = sim.now() + PROBING;
    loop {
        let limit = pin!(stage.runtime.sleep_until(until));
        let error = match select(pin!(probe_once(stage)), limit).await {
            Either::Left((Ok(()), _)) => return Ok(()),
            Either::Left((Err(error), _)) => error.to_string(),
            Either::Right(_) => "it takes too long".to_owned(),
        };
        if sim.now() >= until {
            return Err(error);
        }
        rest(sim, GLANCE).await;
    }
}

async fn probe_once(stage: &Stage) -> Result<(), Error> {
    let db = &stage.db;
    db.run(statements::insert(PROBE)).execute().await?;
    db.run(statements::READ).bind(0i32).read().one().await?;
    stage.say(
        call_of(PROBE),
        Say::Asked {
            read: false,
            pool: None,
            deadline: None,
            idempotent: true,
        },
    );
    let mut subscription = db.listen_on(CHANNELS[0]).subscribe().await?;
    db.notify(CHANNELS[0], "probe").await?;
    while let Some(event) = subscription.next().await {
        if matches!(&event, ListenEvent::Notification(heard) if heard.payload() == "probe") {
            break;
        }
        if matches!(event, ListenEvent::Resumed) {
            db.notify(CHANNELS[0], "probe").await?;
        }
    }
    subscription.cancel();
    subscription.closed().await;
    Ok(())
}

/// The pools once nothing moves in them any more, or time is up.
async fn at_rest(sim: &Sim, db: &InteractionPool) -> Vec<PoolEnd> {
    let until = sim.now() + REST;
    loop {
        let status = db.status();
        let is_at_rest = status.iter().all(|pool| pool.idle == pool.size && pool.waiting == 0);
        if is_at_rest || sim.now() >= until {
            let pools = status.into_iter().map(|pool| PoolEnd {
                report: pool.to_string(),
                name: pool.name,
                max: pool.max,
                size: pool.size,
                idle: pool.idle,
                overtakes: pool.overtakes,
            });
            return pools.collect();
        }
        rest(sim, GLANCE).await;
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&'static str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without words".to_owned())
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        f.write_str(&as_test(&self.scenario))
    }
}

impl std::error::Error for Broken {}
