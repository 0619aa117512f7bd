//! This library beside its peers: deadpool-postgres, bb8-postgres, sqlx, and tokio-postgres without a pool.
//!
//! Starts a throwaway PostgreSQL server, lets all contenders do the same in turn, round after round, in one process on
//! one executor with two threads, until the time is over. Prints tables, and as its last line `name=number` pairs: the
//! medians over the rounds of our operations per second over theirs, or of their worst wait over ours; more is better.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- [--seconds N] [--only SCENARIO] [--contender NAME]…
//! ```
//!
//! `--only` takes the beginning of a scenario's name; `--contender` leaves out the others.
#![expect(clippy::disallowed_methods, reason = "the time to measure is real")]

#[path = "../../../tests/support/cluster.rs"]
mod cluster;
mod peers;
mod report;
mod slice;

use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use self::cluster::{Cluster, ClusterOptions, Server};
use self::peers::{Bare, Bb8, Deadpool, Ours, Sqlx};
use self::report::Results;
use self::slice::{Contender, Hold, Pooled, Unpooled, Work};

/// Rows of the table that is read.
const ROWS: u32 = 10_000;
/// How long one contender is measured before the next one's turn.
const SLICE: Duration = Duration::from_millis(80);
const SECONDS: f64 = 90.0;
const THREADS: usize = 2;

/// One thing that all contenders do.
struct Scenario {
    name: &'static str,
    work: Work,
    sessions: u32,
    tasks: usize,
}

const fn scenario(name: &'static str, work: Work, sessions: u32, tasks: usize) -> Scenario {
    Scenario {
        name,
        work,
        sessions,
        tasks,
    }
}

const MICROS: Hold = Hold::For(Duration::from_micros(50));

const SCENARIOS: [Scenario; 9] = [
    scenario("checkout_uncontended", Work::Checkout(Hold::Nothing), 8, 1),
    scenario("checkout_yield64", Work::Checkout(Hold::Yield), 8, 64),
    scenario("checkout_50us", Work::Checkout(MICROS), 8, 64),
    scenario("waits_yield64", Work::Noted(Hold::Yield), 8, 64),
    scenario("waits_50us", Work::Noted(MICROS), 8, 64),
    scenario("reads_s4_t8", Work::Read(ROWS), 4, 8),
    scenario("reads_s4_t64", Work::Read(ROWS), 4, 64),
    scenario("reads_s8_t8", Work::Read(ROWS), 8, 8),
    scenario("reads_s8_t64", Work::Read(ROWS), 8, 64),
];

/// All contenders with the same number of sessions, this library first.
struct Field {
    sessions: u32,
    ours: Arc<Ours>,
    contenders: Vec<Box<dyn Contender>>,
}

impl Field {
    async fn open(dsn: &str, sessions: u32, arguments: &Arguments) -> Self {
        let ours = Arc::new(Ours::open(dsn, sessions).await);
        let deadpool = Arc::new(Deadpool::open(dsn, sessions));
        let bb8 = Arc::new(Bb8::open(dsn, sessions).await);
        let sqlx = Arc::new(Sqlx::open(dsn, sessions, true));
        let sqlx_noping = Arc::new(Sqlx::open(dsn, sessions, false));
        peers::warm_up(&ours, sessions).await;
        peers::warm_up(&deadpool, sessions).await;
        peers::warm_up(&bb8, sessions).await;
        peers::warm_up(&sqlx, sessions).await;
        peers::warm_up(&sqlx_noping, sessions).await;
        let mut contenders: Vec<Box<dyn Contender>> = vec![
            Box::new(Pooled("ours", Arc::clone(&ours))),
            Box::new(Pooled("deadpool", deadpool)),
            Box::new(Pooled("bb8", bb8)),
            Box::new(Pooled("sqlx", sqlx)),
            Box::new(Pooled("sqlx_noping", sqlx_noping)),
            Box::new(Unpooled("bare", Arc::new(Bare::open(dsn, sessions).await))),
        ];
        contenders.retain(|contender| arguments.wants(contender.name()));
        Self {
            sessions,
            ours,
            contenders,
        }
    }
}

/// What the command line says.
struct Arguments {
    seconds: f64,
    only: String,
    contenders: Vec<String>,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self {
            seconds: SECONDS,
            only: String::new(),
            contenders: Vec::new(),
        };
        let mut words = env::args().skip(1);
        while let Some(word) = words.next() {
            let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
            match word.as_str() {
                "--seconds" => read.seconds = value.parse().expect("a number of seconds"),
                "--only" => read.only = value,
                "--contender" => read.contenders.push(value),
                _ => panic!("unknown argument {word}: there are --seconds, --only and --contender"),
            }
        }
        read
    }

    fn wants(&self, contender: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|wanted| wanted == contender)
    }
}

fn main() {
    let arguments = Arguments::read();
    let options = ClusterOptions::new(Server::V15).max_connections(200);
    let server = Cluster::start(options.setting("fsync", "off").setting("shared_buffers", "64MB"));
    let runtime = runtime();
    let fields = runtime.block_on(async {
        peers::fill(&server.dsn(), ROWS).await;
        let dsn = server.dsn();
        [
            Field::open(&dsn, 4, &arguments).await,
            Field::open(&dsn, 8, &arguments).await,
        ]
    });

    let mut all: Vec<(&Scenario, Results)> = SCENARIOS
        .iter()
        .filter(|scenario| scenario.name.starts_with(&arguments.only))
        .map(|scenario| (scenario, Results::new(scenario.name)))
        .collect();
    let end = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut rounds = 0;
    while rounds == 0 || Instant::now() < end {
        for (scenario, results) in &mut all {
            round(runtime.handle(), &fields, scenario, results);
        }
        rounds += 1;
    }

    println!(
        "PostgreSQL {}, {} threads, {rounds} rounds of {SLICE:?} each; sqlx_noping is sqlx without its ping before each \
         checkout",
        server.version(),
        THREADS
    );
    let overtakes: u64 = fields.iter().map(|field| field.ours.overtakes()).sum();
    print(&all, overtakes);
    // The sessions end before the server does.
    drop(fields);
    drop(runtime);
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    let builder = builder.worker_threads(THREADS).enable_all();
    builder.build().expect("start the executor")
}

/// Every contender's turn.
fn round(runtime: &Handle, fields: &[Field], scenario: &Scenario, results: &mut Results) {
    let field = fields.iter().find(|field| field.sessions == scenario.sessions);
    for contender in &field.expect("a field of that size").contenders {
        if let Some(slice) = contender.measure(runtime, scenario.work, scenario.tasks, SLICE) {
            results.add(contender.name(), slice);
        }
    }
}

fn print(all: &[(&Scenario, Results)], overtakes: u64) {
    let mut pairs = Vec::new();
    for (scenario, results) in all {
        if let Work::Noted(hold) = scenario.work {
            print!("{}", results.waits());
            let (wait, passed) = match hold {
                Hold::Yield => ("worst_wait", "passed_by"),
                _ => ("worst_wait_50us", "passed_by_50us"),
            };
            pairs.extend(results.wait_pairs(wait));
            pairs.extend(results.passed_by_pairs(passed));
        } else {
            print!("{}", results.throughput());
            pairs.extend(results.throughput_pairs());
        }
    }
    pairs.push(format!("overtakes.ours={overtakes}"));
    println!(
        "\novertakes: grants that callers saw before one who had asked earlier saw his; woken callers run in the order of \
         the executor. overtakes.ours: the ledger's own count.\n\n{}",
        pairs.join(" ")
    );
}
