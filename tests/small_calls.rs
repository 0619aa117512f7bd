//! Promise: the future of a call is small, so that allocators give and take it on their fastest way: glibc's ends at 1,032
//! bytes, beyond which a call costs a fifth more of this library's own work.

#[path = "support/scripted.rs"]
mod scripted;

use std::mem::size_of_val;

use gdbpool::InteractionPool;
use gdbpool_sim::Sim;

const FAST: usize = 1_032;

#[test]
fn a_calls_future_fits_the_fast_sizes_of_allocators() {
    let sim = Sim::new(1);
    let builder = InteractionPool::builder(sim.runtime()).pool(scripted::config("p", 1).size(1));
    let db = sim.block_on(builder.open()).expect("open");
    let run = || db.run("SELECT 1").bind(1i32).read();
    let sizes = [
        ("rows", size_of_val(&*run().into_future())),
        ("one", size_of_val(&*run().one().into_future())),
        ("opt", size_of_val(&*run().opt().into_future())),
        ("scalar", size_of_val(&*run().scalar::<i32>().into_future())),
        ("typed", size_of_val(&*run().typed::<(i32,)>().into_future())),
        ("execute", size_of_val(&*run().execute().into_future())),
    ];
    for (call, size) in sizes {
        assert!(size <= FAST, "{call}: {size} bytes; of all: {sizes:?}");
    }
}
