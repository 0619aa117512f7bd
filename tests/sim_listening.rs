//! Listening, over generated clusters, programs and faults: a subscription gets every notification once and in order, or a
//! gap says where some may be missing; after its barrier nothing is delivered, and the server has no such channel.

use gdbpool_sim::scenario::{functions, prove, scenarios_of, subscriptions};
use proptest::prelude::*;

#[test]
fn a_listener_never_lies_and_its_barrier_holds() {
    let mix = prop_oneof![8 => subscriptions(), 1 => functions()];
    prove(scenarios_of(mix.boxed()), 40);
}
