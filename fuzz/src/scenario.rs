//! Arbitrary bytes as a whole scenario: a cluster, its clients, faults and a schedule, with all oracles held to its run.
//!
//! What the fuzz target `scenario` runs, and the simulator's tests, over the committed corpus. The first two bytes say of
//! which numbered scenario the cluster and the schedule are; each further three take one client or one fault of another: a
//! change of one byte changes one part.

use gdbpool_sim::scenario::{Broken, Scenario, as_test, check_run};

/// A scenario has at most so many.
const CLIENTS: usize = 6;
const FAULTS: usize = 8;

/// The scenario that these bytes are.
pub fn scenario(bytes: &[u8]) -> Scenario {
    let (first, parts) = bytes.split_at(bytes.len().min(2));
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let mut made = Scenario::from_seed(number(first));
    let own = std::mem::take(&mut made.clients);
    made.faults.clear();
    for part in parts.chunks_exact(3) {
        let from = Scenario::from_seed(number(&part[1..]));
        let place = usize::from(part[0] / 2);
        if part[0] % 2 == 0 {
            if made.clients.len() < CLIENTS {
                made.clients.push(from.clients[place % from.clients.len()].clone());
            }
        } else if !from.faults.is_empty() && made.faults.len() < FAULTS {
            made.faults.push(from.faults[place % from.faults.len()].clone());
        }
    }
    if made.clients.is_empty() {
        made.clients = own;
    }
    made
}

/// Runs the scenario; what was broken, and the test that shows it, if anything was.
pub fn broken(bytes: &[u8]) -> Option<String> {
    let Broken {
        violations, scenario, ..
    } = check_run(&scenario(bytes)).err()?;
    let violations: Vec<_> = violations.iter().map(ToString::to_string).collect();
    Some(format!("{}\n{}", violations.join("\n"), as_test(&scenario)))
}
