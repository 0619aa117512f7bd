//! Runs one scenario again: of a file, or of a seed.

use std::path::Path;
use std::process::ExitCode;

use gdbpool_sim::oracle::{check, lost_commits};
use gdbpool_sim::scenario::{SavedScenario, Scenario, run};

use super::What;

/// Runs it, prints what is wrong, and both histories when `GDBPOOL_SIM_TRACE` is set.
pub(crate) fn replay(what: &What) -> ExitCode {
    let saved = match what {
        What::Seed(seed) => None.ok_or(*seed),
        What::File(path) => match SavedScenario::load(Path::new(path)) {
            Ok(saved) => Ok(saved),
            Err(error) => {
                let cause = std::error::Error::source(&error).map_or_else(String::new, |cause| format!(": {cause}"));
                eprintln!("{}: {error}{cause}", path.display());
                return ExitCode::from(2);
            }
        },
    };
    let scenario = match &saved {
        Ok(saved) => saved.scenario.clone(),
        Err(seed) => Scenario::from_seed(*seed),
    };
    std::panic::set_hook(Box::new(|_| {}));
    let ran = run(&scenario);
    let _ = std::panic::take_hook();
    let found = check(&scenario, &ran);
    let hash = format!("{:032x}", ran.trace_hash);
    if std::env::var_os("GDBPOOL_SIM_TRACE").is_some() {
        print_histories(&ran);
    }
    if let Ok(saved) = &saved
        && saved.trace_hash != hash
    {
        println!(
            "its run is another one than when it was saved: {} then, {hash} now",
            saved.trace_hash
        );
    }
    for violation in &found {
        println!("{violation}");
    }
    let lost = lost_commits(&scenario, &ran);
    if !lost.is_empty() {
        println!("commits that a promotion left behind: {lost:?}");
    }
    println!(
        "events={} statements={} violations={} trace={hash}",
        scenario.size(),
        ran.statements,
        found.len()
    );
    if found.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

/// Both histories, in one order.
fn print_histories(ran: &gdbpool_sim::scenario::Ran) {
    let mut clients = ran.clients.events.iter().peekable();
    for event in ran.server.events() {
        while let Some(said) = clients.next_if(|said| said.after <= event.seq) {
            println!("{said}");
        }
        println!("{event}");
    }
    for said in clients {
        println!("{said}");
    }
}
