//! One slice of a measurement: tasks that do one thing over and over on one contender for a stated span.
//!
//! Between the scenarios and the contenders. The first part of a slice is not counted: sessions that sat idle while
//! others were measured are pinged, caches fill. Nobody in the slice asks a clock for the end; a flag says it.
#![expect(
    clippy::disallowed_methods,
    reason = "what is measured runs on a real executor, in real time"
)]

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, yield_now};

use crate::peers::{Pool, Reader};

/// The share of a slice that is not counted.
const WARM_UP: u32 = 8;

/// What a holder of a session does before it gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Nothing,
    /// One yield to the executor.
    Yield,
    /// Yields until this much time has passed, as if waiting for a server: timers of executors are too coarse for
    /// microseconds, and a plain spin would keep a thread from everybody else.
    For(Duration),
}

/// What the tasks do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Checkout(Hold),
    /// The same, and every caller notes when it asked and when it was served.
    Noted(Hold),
    /// Point reads of keys from 1 to this.
    Read(u32),
}

/// What a slice showed.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    /// Operations of each task.
    pub(crate) done: Vec<u64>,
    pub(crate) span: Duration,
    /// What all threads of this process worked meanwhile; the server is not in it.
    pub(crate) cpu: Duration,
    /// Of noted work only.
    pub(crate) worst_wait: Duration,
    pub(crate) order: Order,
}

/// In which order callers were served.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Order {
    pub(crate) grants: u64,
    /// Grants that came while somebody who had asked earlier was still waiting.
    pub(crate) overtakes: u64,
    /// The most later callers that anybody was passed by.
    pub(crate) passed_by: u64,
}

impl Slice {
    pub(crate) fn per_second(&self) -> f64 {
        self.operations() / self.span.as_secs_f64()
    }

    /// Microseconds of this process's work per operation: what does not change when others use the machine, too.
    pub(crate) fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations()
    }

    fn operations(&self) -> f64 {
        self.done.iter().sum::<u64>() as f64
    }
}

/// How far the slice is; it begins with its warm-up.
#[derive(Debug, Default)]
struct Phase(AtomicU8);

impl Phase {
    const COUNTING: u8 = 1;
    const OVER: u8 = 2;

    fn set(&self, phase: u8) {
        self.0.store(phase, Ordering::Release);
    }

    /// Whether the next operation counts; `None` when the slice is over.
    fn next(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            Self::OVER => None,
            phase => Some(phase == Self::COUNTING),
        }
    }
}

/// What one task brings home.
#[derive(Debug, Default)]
struct Share {
    done: u64,
    worst_wait: Duration,
    /// Of each grant: the caller's number in the order of asking, and in the order of being served.
    grants: Vec<(u64, u64)>,
}

/// Hands out the numbers of noted work.
#[derive(Debug, Default)]
struct Desk {
    asked: AtomicU64,
    served: AtomicU64,
}

/// A contender, whatever its type.
pub(crate) trait Contender {
    fn name(&self) -> &'static str;

    /// Does `work` in `tasks` tasks for `span`. Gives `None` when the contender cannot do it.
    fn measure(&self, runtime: &Handle, work: Work, tasks: usize, span: Duration) -> Option<Slice>;
}

/// A contender that is a pool.
pub(crate) struct Pooled<P>(pub(crate) &'static str, pub(crate) Arc<P>);

/// A contender that only reads.
pub(crate) struct Unpooled<R>(pub(crate) &'static str, pub(crate) Arc<R>);

impl<P: Pool> Contender for Pooled<P> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn measure(&self, runtime: &Handle, work: Work, tasks: usize, span: Duration) -> Option<Slice> {
        let desk = Arc::new(Desk::default());
        let start = |task: usize, phase: Arc<Phase>| -> BoxFuture<'static, Share> {
            let (pool, desk) = (Arc::clone(&self.1), Arc::clone(&desk));
            match work {
                Work::Checkout(hold) => Box::pin(async move { check_out(&*pool, hold, &phase).await }),
                Work::Noted(hold) => Box::pin(async move { check_out_noted(&*pool, hold, &phase, &desk).await }),
                Work::Read(keys) => Box::pin(async move { read(&*pool, keys, task, &phase).await }),
            }
        };
        Some(run(runtime, tasks, span, start))
    }
}

impl<R: Reader> Contender for Unpooled<R> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn measure(&self, runtime: &Handle, work: Work, tasks: usize, span: Duration) -> Option<Slice> {
        let Work::Read(keys) = work else { return None };
        let start = |task: usize, phase: Arc<Phase>| -> BoxFuture<'static, Share> {
            let reader = Arc::clone(&self.1);
            Box::pin(async move { read(&*reader, keys, task, &phase).await })
        };
        Some(run(runtime, tasks, span, start))
    }
}

/// Runs the tasks; the calling thread keeps the time.
fn run(
    runtime: &Handle,
    tasks: usize,
    span: Duration,
    start: impl Fn(usize, Arc<Phase>) -> BoxFuture<'static, Share>,
) -> Slice {
    let phase = Arc::new(Phase::default());
    let running: Vec<JoinHandle<Share>> = (0..tasks)
        .map(|task| runtime.spawn(start(task, Arc::clone(&phase))))
        .collect();
    thread::sleep(span / WARM_UP);
    phase.set(Phase::COUNTING);
    let (begun, cpu) = (Instant::now(), cpu_time());
    thread::sleep(span - span / WARM_UP);
    phase.set(Phase::OVER);
    let (span, cpu) = (begun.elapsed(), cpu_time() - cpu);
    let shares: Vec<Share> = running
        .into_iter()
        .map(|task| runtime.block_on(task).expect("a task that does not fail"))
        .collect();
    Slice {
        done: shares.iter().map(|share| share.done).collect(),
        span,
        cpu,
        worst_wait: shares.iter().map(|share| share.worst_wait).max().unwrap_or_default(),
        order: order(shares.into_iter().flat_map(|share| share.grants).collect()),
    }
}

async fn check_out<P: Pool>(pool: &P, hold: Hold, phase: &Phase) -> Share {
    let mut share = Share::default();
    while let Some(counts) = phase.next() {
        let lease = pool.checkout().await;
        keep(hold).await;
        drop(lease);
        share.done += u64::from(counts);
    }
    share
}

async fn check_out_noted<P: Pool>(pool: &P, hold: Hold, phase: &Phase, desk: &Desk) -> Share {
    let mut share = Share::default();
    while let Some(counts) = phase.next() {
        let since = Instant::now();
        let asked = desk.asked.fetch_add(1, Ordering::Relaxed);
        let lease = pool.checkout().await;
        let served = desk.served.fetch_add(1, Ordering::Relaxed);
        if counts {
            share.worst_wait = share.worst_wait.max(since.elapsed());
        }
        share.grants.push((asked, served));
        keep(hold).await;
        drop(lease);
        share.done += u64::from(counts);
    }
    share
}

async fn read<R: Reader>(reader: &R, keys: u32, task: usize, phase: &Phase) -> Share {
    let mut share = Share::default();
    // Each task walks the keys from a place of its own, so that all of the table is read and nobody draws lots.
    let mut key = task as u32 * 7_919;
    while let Some(counts) = phase.next() {
        key = (key + 4_099) % keys;
        black_box(reader.read(key as i32 + 1).await);
        share.done += u64::from(counts);
    }
    share
}

async fn keep(hold: Hold) {
    match hold {
        Hold::Nothing => {}
        Hold::Yield => yield_now().await,
        Hold::For(span) => {
            let since = Instant::now();
            while since.elapsed() < span {
                yield_now().await;
            }
        }
    }
}

/// How long all threads of this process have run so far.
fn cpu_time() -> Duration {
    let threads = fs::read_dir("/proc/self/task").expect("the list of threads");
    let nanos = threads.map(|thread| {
        let path = thread.expect("a thread").path().join("schedstat");
        // A thread that has just ended has nothing to say.
        let text = fs::read_to_string(path).unwrap_or_default();
        text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    });
    Duration::from_nanos(nanos.sum())
}

/// What became of the order in which callers asked.
fn order(mut grants: Vec<(u64, u64)>) -> Order {
    grants.sort_unstable();
    let mut order = Order {
        grants: grants.len() as u64,
        ..Order::default()
    };
    let mut latest = 0;
    for (asked, served) in grants {
        if served < latest {
            order.overtakes += 1;
        }
        latest = latest.max(served);
        // Both count from zero and nobody is missing: who is served later than asked was passed by that many.
        order.passed_by = order.passed_by.max(served.saturating_sub(asked));
    }
    order
}
