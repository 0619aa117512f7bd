//! Pinning, over generated clusters, programs and faults: every statement of a partial transaction runs on one backend
//! between its beginning and its end, nothing foreign does, and a lost pin is reported, never moved.

use gdbpool_sim::scenario::{functions, pins, prove, reads_and_writes, scenarios_of};
use proptest::prelude::*;

#[test]
fn a_pinned_transaction_stays_where_it_is() {
    // Others want its backends meanwhile.
    let mix = prop_oneof![4 => pins(), 1 => functions(), 2 => reads_and_writes()];
    prove(scenarios_of(mix.boxed()), 40);
}
