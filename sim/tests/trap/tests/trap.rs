//! Inside a run nobody asks the system for randomness, for the time or for a thread.
//!
//! The functions through which std and its friends would ask are defined here, in front of the C library's: called while a
//! run is on the thread, they show the way that led to them and end the process; otherwise they do what the system does.
//! Outside the trap, by design: std's hash keys, which are warmed on the thread before the run; the nonce of SCRAM inside
//! tokio-postgres, and TLS, which no program here uses.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "what is banned elsewhere is what the traps are tried with"
)]

#[path = "../../support/program.rs"]
mod program;

use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::process::{Command, Output};
use std::time::Instant;

use gdbpool_sim::{Schedule, Sim};

thread_local! {
    /// A run is on this thread's stack.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Ends the process if a run is on this thread.
fn spring(name: &str) {
    if INSIDE.replace(false) {
        let way = Backtrace::force_capture();
        eprintln!("trap: {name} was called inside a run\n{way}");
        std::process::abort();
    }
}

/// In front of the C library's `getrandom`.
///
/// # Safety
/// As the C library's: `buffer` is valid for writes of `length` bytes.
// SAFETY: the same name, signature and contract as the function it stands in front of.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(
    buffer: *mut libc::c_void,
    length: libc::size_t,
    flags: libc::c_uint,
) -> libc::ssize_t {
    spring("getrandom");
    // SAFETY: the system call behind the function, with the caller's arguments.
    let got = unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) };
    libc::ssize_t::try_from(got).unwrap_or(-1)
}

/// In front of the C library's `clock_gettime`.
///
/// # Safety
/// As the C library's: `time` is valid for a write.
// SAFETY: the same name, signature and contract as the function it stands in front of.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    spring("clock_gettime");
    // SAFETY: the system call behind the function, with the caller's arguments.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    libc::c_int::try_from(done).unwrap_or(-1)
}

/// In front of the C library's `pthread_attr_init`, with which every thread of std begins.
///
/// # Safety
/// As the C library's: `attributes` is valid for a write.
// SAFETY: the same name, signature and contract as the function it stands in front of.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_attr_init(attributes: *mut libc::pthread_attr_t) -> libc::c_int {
    spring("pthread_attr_init");
    // SAFETY: the name ends in zero; the next definition of it is the C library's.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_attr_init".as_ptr()) };
    assert!(!next.is_null(), "the C library has no pthread_attr_init");
    // SAFETY: the C library's function of that name has this signature.
    let next = unsafe {
        std::mem::transmute::<*mut libc::c_void, unsafe extern "C" fn(*mut libc::pthread_attr_t) -> libc::c_int>(next)
    };
    // SAFETY: the caller's promise.
    unsafe { next(attributes) }
}

/// Runs `program` in a run, with the traps set.
fn trapped(sim: &Sim, program: impl FnOnce(&Sim)) {
    // The thread's hash keys are taken once, here; tokio-postgres's maps only look up.
    let _ = RandomState::new();
    INSIDE.set(true);
    program(sim);
    INSIDE.set(false);
}

#[test]
fn the_library_and_the_simulator_ask_the_system_nothing() {
    for (seed, schedule) in [Schedule::Fifo, Schedule::Random, Schedule::Pct { depth: 3 }]
        .into_iter()
        .enumerate()
    {
        let sim = Sim::with_schedule(seed as u64, schedule);
        trapped(&sim, program::run);
        assert!(sim.trace_events() > 500);
    }
}

/// Names the leak that the test of leaks tries in another process.
const LEAK: &str = "GDBPOOL_SIM_TRAP_LEAK";

#[test]
fn a_leak_for_another_process() {
    let Ok(leak) = std::env::var(LEAK) else { return };
    let leaky = async move {
        match leak.as_str() {
            "clock" => drop(Instant::now()),
            "keys" => {
                // A thread that has none yet would ask for them; this one asks the system straight.
                let mut byte = [0u8; 1];
                // SAFETY: one byte of this frame.
                unsafe { getrandom(byte.as_mut_ptr().cast(), 1, 0) };
            }
            "thread" => drop(std::thread::spawn(|| {})),
            // What is allowed: a map on a warmed thread.
            _ => {
                let map: HashMap<u8, u8> = HashMap::new();
                let _ = map.hasher().hash_one(1u8);
            }
        }
    };
    trapped(&Sim::new(1), |sim| sim.block_on(leaky));
}

#[test]
fn every_trap_springs() {
    let run = |leak: &str| -> Output {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_leak_for_another_process", "--nocapture"])
            .env(LEAK, leak)
            .output()
            .unwrap()
    };
    for (leak, function) in [
        ("clock", "clock_gettime"),
        ("keys", "getrandom"),
        ("thread", "pthread_attr_init"),
    ] {
        let output = run(leak);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{leak} was let through");
        assert!(
            text.contains(&format!("trap: {function} was called inside a run")),
            "{text}"
        );
        assert!(text.contains("a_leak_for_another_process"), "the way is shown: {text}");
    }
    assert!(run("nothing").status.success());
}
