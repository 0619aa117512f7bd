//! Everything else that has to hold, over generated clusters, programs and faults of all kinds: honest outcomes, nothing
//! done twice, clean sessions, slots, order, deadlines, an end to everything once faults have stopped, no leaks.

use gdbpool_sim::scenario::{leases, operations, prove, scenarios, scenarios_of};
use proptest::prelude::*;

#[test]
fn every_promise_holds_in_every_scenario() {
    prove(scenarios(), 60);
}

#[test]
fn whatever_a_lease_leaves_behind_is_gone() {
    let mix = prop_oneof![2 => leases(), 1 => operations()];
    prove(scenarios_of(mix.boxed()), 20);
}
