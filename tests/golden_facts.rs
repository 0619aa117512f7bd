//! Promise: the simulated cluster says, message for message, what PostgreSQL says.
//!
//! Each fact is a script over raw connections: what is sent, and which messages come back (`golden_facts/facts.rs`). The
//! same scripts run against the simulator and against real servers, a primary with a standby; a difference fails. No
//! driver is involved.

#[path = "golden_facts/facts.rs"]
mod facts;
#[path = "golden_facts/messages.rs"]
mod messages;
#[path = "golden_facts/real.rs"]
mod real;
#[path = "golden_facts/script.rs"]
mod script;
#[path = "golden_facts/simulated.rs"]
mod simulated;
mod support;

use self::facts::Fact;
use self::real::Real;
use self::script::Stage;
use self::simulated::Simulated;
use self::support::Server;

#[test]
fn the_simulator_says_what_postgresql_says() {
    let mut failures = Vec::new();
    for fact in facts::all() {
        let mut stage = Simulated::new();
        failures.extend(run(&mut stage, &fact));
    }
    report(&failures);
}

#[test]
fn postgresql_15_says_so() {
    on_real_servers(Server::V15, 15);
}

#[test]
fn postgresql_18_says_so() {
    on_real_servers(Server::V18, 18);
}

/// Facts that stop or promote servers come last, in an order in which the pair survives all but the promotion.
fn on_real_servers(server: Server, version: u32) {
    let mut stage = Real::start(server);
    let mut failures = Vec::new();
    for fact in facts::all()
        .into_iter()
        .filter(|fact| fact.until.is_none_or(|until| version <= until))
    {
        failures.extend(run(&mut stage, &fact));
    }
    report(&failures);
}

fn run(stage: &mut dyn Stage, fact: &Fact) -> Option<String> {
    let differences = script::run(stage, fact.script);
    let told = differences.join("\n    ");
    (!differences.is_empty()).then(|| format!("{}:\n    {told}", fact.name))
}

fn report(failures: &[String]) {
    assert!(
        failures.is_empty(),
        "{} facts do not hold:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
