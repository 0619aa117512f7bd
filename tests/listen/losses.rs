//! Numbered notifications through everything that can break a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join;
use gdbpool::{GapCause, InteractionPool, ListenEvent, PoolConfig};

use crate::runtimes::on_each;
use crate::support::{Cluster, ClusterOptions, Mode, fresh_database};
use crate::{SERVERS, World, next, on_each_server, payload, watchful};

/// What publisher, reader and the one who does harm know of each other.
#[derive(Default)]
struct Numbers {
    /// Nothing above has been sent.
    begun: AtomicU64,
    /// The harm is over.
    is_over: AtomicBool,
    /// The number that is published when all is over.
    last: AtomicU64,
    /// How often the reader was told that a gap is over.
    resumed: AtomicU64,
}

/// Follows one subscription, and checks every step.
struct Reader<'a> {
    numbers: &'a Numbers,
    newest: u64,
    is_begun: bool,
    is_in_gap: bool,
    /// Right after a mark: numbers up to this one may be missing.
    excused: Option<u64>,
    received: u64,
    missing: u64,
    gaps: Vec<GapCause>,
}

impl<'a> Reader<'a> {
    fn new(numbers: &'a Numbers) -> Self {
        Self {
            numbers,
            newest: 0,
            is_begun: false,
            is_in_gap: false,
            excused: None,
            received: 0,
            missing: 0,
            gaps: Vec::new(),
        }
    }

    fn take(&mut self, event: &ListenEvent) {
        match event {
            ListenEvent::Subscribed => {
                assert!(!self.is_begun, "subscribed twice");
                self.is_begun = true;
                self.excused = Some(self.numbers.begun.load(Ordering::SeqCst));
            }
            ListenEvent::Gap { cause, dropped, .. } => {
                assert!(self.is_begun && *dropped == 0, "{event:?}");
                self.is_in_gap = true;
                self.gaps.push(*cause);
            }
            ListenEvent::Resumed => {
                assert!(self.is_in_gap, "resumed without a gap");
                self.is_in_gap = false;
                self.excused = Some(self.numbers.begun.load(Ordering::SeqCst));
                self.numbers.resumed.fetch_add(1, Ordering::SeqCst);
            }
            ListenEvent::Notification(notification) => {
                let number: u64 = notification.payload().parse().expect("a number");
                assert!(self.is_begun && !self.is_in_gap, "{number} where nothing is received");
                assert!(number > self.newest, "{number} after {}", self.newest);
                let excused = self.excused.take().unwrap_or(0).max(self.newest);
                assert!(
                    number <= excused + 1,
                    "{number} after {}: missing outside a gap",
                    self.newest
                );
                self.missing += number - self.newest - 1;
                self.newest = number;
                self.received += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn publish(world: &World, numbers: &Numbers) {
    while !numbers.is_over.load(Ordering::SeqCst) {
        let number = numbers.begun.fetch_add(1, Ordering::SeqCst) + 1;
        world.notify("n", &number.to_string()).await;
    }
}

/// Waits for one more end of a gap.
async fn one_more(world: &World, numbers: &Numbers, before: u64) {
    world
        .until("the gap is over", || numbers.resumed.load(Ordering::SeqCst) > before)
        .await;
}

/// Publishes and reads on pool "ear" while `harm` is done so many times, each time up to the end of the gap it makes.
async fn through<F: Future<Output = ()>>(world: &World, times: u64, cause: GapCause, harm: impl Fn() -> F) {
    let numbers = Numbers::default();
    let listen = world.db.listen_on("n").on_pool("ear").capacity(1_000_000);
    let mut subscription = listen.subscribe().await.expect("a subscription");
    let harming = async {
        for before in 0..times {
            harm().await;
            one_more(world, &numbers, before).await;
        }
        numbers.is_over.store(true, Ordering::SeqCst);
    };
    let publishing = async {
        join(publish(world, &numbers), harming).await;
        let last = numbers.begun.fetch_add(1, Ordering::SeqCst) + 1;
        numbers.last.store(last, Ordering::SeqCst);
        world.notify("n", &last.to_string()).await;
    };
    let reading = async {
        let mut reader = Reader::new(&numbers);
        while reader.newest == 0 || reader.newest != numbers.last.load(Ordering::SeqCst) {
            let event = subscription.next().await.expect("the subscription goes on");
            reader.take(&event);
        }
        reader
    };
    let (reader, ()) = join(reading, publishing).await;
    assert_eq!(reader.gaps.len() as u64, times, "{:?}", reader.gaps);
    assert!(reader.gaps.iter().all(|gap| *gap == cause), "{:?}", reader.gaps);
    println!(
        "{cause:?}: {} received, {} missing, all inside {times} gaps",
        reader.received, reader.missing
    );
}

#[test]
fn a_killed_backend() {
    on_each_server(true, |world| async move {
        through(&world, 5, GapCause::ConnectionLost, || async {
            let sql = "SELECT count(pg_terminate_backend(pid, 60000)) FROM pg_stat_activity \
                       WHERE datname = current_database() AND application_name = 'ear'";
            world.until("there is one to kill", || world.psql(sql) != "0").await;
        })
        .await;
    });
}

#[test]
fn a_cut_connection() {
    on_each_server(false, |world| async move {
        through(&world, 5, GapCause::ConnectionLost, || async { world.proxy.cut() }).await;
    });
}

/// Nothing is said and nothing is closed: only the heartbeat finds out.
#[test]
fn a_half_open_link() {
    on_each_server(false, |world| async move {
        through(&world, 2, GapCause::Silent, || async {
            world.proxy.pause();
            let accepted = world.proxy.connections_accepted();
            world
                .until("the listener dials again", || {
                    world.proxy.connections_accepted() > accepted
                })
                .await;
            world.proxy.cut();
            world.proxy.resume();
        })
        .await;
    });
}

#[test]
fn since_is_the_last_sign_of_life() {
    on_each_server(false, |world| async move {
        let mut subscription = world
            .db
            .listen_on("c")
            .on_pool("ear")
            .subscribe()
            .await
            .expect("a subscription");
        assert_eq!(next(&mut subscription).await, ListenEvent::Subscribed);
        world.notify("c", "alive").await;
        assert_eq!(payload(&mut subscription).await, "alive");
        let before = world.runtime.now();
        world.proxy.pause();
        let told = next(&mut subscription).await;
        let ListenEvent::Gap {
            cause: GapCause::Silent,
            since,
            ..
        } = told
        else {
            panic!("{told:?}");
        };
        // The notification was such a sign, a heartbeat after it may have been another; since then an interval has passed.
        let told_at = world.runtime.now();
        assert!(
            since + Duration::from_millis(100) < told_at,
            "{since:?} is no loss at {told_at:?}"
        );
        assert!(
            before - since < told_at - since,
            "{since:?} is not before the loss was noticed"
        );
        world.proxy.cut();
        world.proxy.resume();
        assert_eq!(next(&mut subscription).await, ListenEvent::Resumed);
    });
}

#[test]
fn a_server_that_restarts() {
    for server in SERVERS {
        let cluster = Arc::new(Cluster::start(ClusterOptions::new(server)));
        let dsn = fresh_database(&cluster);
        on_each(|runtime| {
            let (cluster, dsn) = (Arc::clone(&cluster), dsn.clone());
            Box::pin(async move {
                let config = watchful(PoolConfig::new("p", &dsn).expect("a sound DSN"));
                let builder = InteractionPool::builder(Arc::clone(&runtime)).pool(config);
                let db = builder.open().await.expect("sound settings");
                let mut subscription = db.listen_on("c").subscribe().await.expect("a subscription");
                assert_eq!(next(&mut subscription).await, ListenEvent::Subscribed);
                for mode in [Mode::Fast, Mode::Immediate] {
                    cluster.stop(mode);
                    let told = next(&mut subscription).await;
                    assert!(matches!(told, ListenEvent::Gap { .. }), "{told:?}");
                    cluster.start_again();
                    assert_eq!(next(&mut subscription).await, ListenEvent::Resumed);
                    cluster.psql_in(dsn.rsplit("dbname=").next().expect("a database"), "NOTIFY c, 'back'");
                    assert_eq!(payload(&mut subscription).await, "back");
                }
                db.close(Duration::from_secs(20)).await;
                assert!(matches!(subscription.next().await, Some(ListenEvent::Gap { .. })));
                assert_eq!(subscription.next().await, None);
            })
        });
    }
}
