//! In the simulator: futures dropped after every poll, a dead executor, and a pooler that voids LISTEN.

use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use gdbpool::{ErrorKind, GapCause, InteractionPool, ListenEvent, PoolConfig, Subscription};
use gdbpool_sim::{Answer, ScriptedServer, Sim};

use crate::scripted;

fn open(sim: &Sim, self_test: bool) -> (ScriptedServer, InteractionPool) {
    let server = scripted::server(sim, 1);
    let config = scripted::config("p", 1).listen_self_test(self_test);
    let builder = InteractionPool::builder(sim.runtime()).pool(config);
    let db = sim.block_on(builder.open()).expect("open");
    (server, db)
}

fn subscribe(sim: &Sim, db: &InteractionPool) -> Subscription {
    sim.block_on(db.listen_on("c").subscribe()).expect("a subscription")
}

/// The channels that sessions which are not over listen to.
fn listened(server: &ScriptedServer) -> usize {
    let sessions = server.sessions();
    sessions
        .iter()
        .filter(|session| !session.closed)
        .map(|session| session.listens.len())
        .sum()
}

#[test]
fn a_subscribe_dropped_after_any_poll_leaves_nothing() {
    let mut polls_to_the_end = None;
    for polls in 0..100 {
        let sim = Sim::new(polls);
        let (server, db) = open(&sim, false);
        let mut begun = sim.manual(Box::pin(db.listen_on("c").subscribe()));
        let mut done = false;
        for _ in 0..polls {
            done |= begun.poll().is_ready();
            if done {
                break;
            }
            // A little of everything else, in between.
            sim.advance(Duration::from_nanos(1));
        }
        drop(begun);
        sim.advance(Duration::from_secs(5));
        assert_eq!(listened(&server), 0, "after {polls} polls");
        assert_eq!(server.open_sessions(), 0, "after {polls} polls");
        assert_eq!(server.violations(), Vec::<String>::new());
        if done {
            polls_to_the_end = Some(polls);
            break;
        }
    }
    assert!(polls_to_the_end.is_some(), "it never came to its end");
}

#[test]
fn a_message_after_which_everything_is_dropped_never_leaves_a_channel() {
    for messages in 0..40 {
        let sim = Sim::new(messages);
        let (server, db) = open(&sim, false);
        server.hold_after_event(messages);
        let mut begun = sim.manual(Box::pin(db.listen_on("c").subscribe()));
        let done = begun.settle().is_ready();
        drop(begun);
        server.release();
        sim.advance(Duration::from_secs(10));
        assert_eq!(
            (listened(&server), server.open_sessions()),
            (0, 0),
            "after {messages} messages"
        );
        let mut subscription = subscribe(&sim, &db);
        assert_eq!(sim.block_on(subscription.next()), Some(ListenEvent::Subscribed));
        server.push_notification("c", "1");
        let event = sim.block_on(subscription.next()).expect("an event");
        assert!(matches!(event, ListenEvent::Notification(_)), "{event:?}");
        subscription.cancel();
        let mut closed = sim.manual(Box::pin(subscription.closed()));
        assert!(closed.poll().is_pending());
        drop(closed);
        sim.block_on(subscription.closed());
        assert_eq!(listened(&server), 0, "the barrier holds");
        if done && messages > 20 {
            return;
        }
    }
}

#[test]
fn a_dead_executor_ends_the_stream_and_every_wait() {
    for moment in 0..3 {
        let sim = Sim::new(moment);
        let (_server, db) = open(&sim, true);
        let mut subscription = subscribe(&sim, &db);
        if moment > 0 {
            assert_eq!(sim.block_on(subscription.next()), Some(ListenEvent::Subscribed));
        }
        let mut waiting = Box::pin(db.listen_on("other").subscribe());
        assert!((&mut waiting).now_or_never().is_none());
        if moment == 2 {
            subscription.cancel();
        }
        drop(sim);
        let error = waiting.now_or_never().expect("an answer").expect_err("no executor");
        assert!(matches!(error.kind(), ErrorKind::Lost), "{error:?}");
        assert!(subscription.closed().now_or_never().is_some());
        let mut rest = Vec::new();
        while let Some(event) = subscription.next().now_or_never().expect("no wait") {
            rest.push(event);
        }
        let gap = ListenEvent::Gap {
            cause: GapCause::ConnectionLost,
            since: gdbpool::Instant::from_nanos(0),
            dropped: 0,
        };
        let told = rest
            .last()
            .is_some_and(|last| std::mem::discriminant(last) == std::mem::discriminant(&gap));
        assert!(told, "{rest:?}");
    }
}

/// A pooler that leads each new connection to another place: what one of them sends, another one does not receive.
struct Pooler {
    sim: Sim,
    places: [ScriptedServer; 2],
    turns: usize,
}

impl Pooler {
    fn new() -> Self {
        let sim = Sim::new(1);
        let places = [1, 2].map(|number| scripted::server(&sim, number));
        for place in &places {
            // The self-test's own connection comes a second after the listener's.
            let late = Answer::After(Duration::from_secs(1), Box::new(Answer::Default));
            place.on_prefix("LISTEN \"gdbpool_self_test", late);
        }
        let pooler = Self { sim, places, turns: 0 };
        pooler.sim.add_host("pooler", [10, 0, 0, 1].into());
        pooler
    }

    fn turn(&mut self) {
        self.turns += 1;
        let number = 1 + u8::from(self.turns % 2 == 1);
        self.sim.remove_host("pooler");
        self.sim.add_host("pooler", [10, 0, 0, number].into());
    }

    /// A minute of turns, one each second.
    fn run(&mut self) {
        for _ in 0..60 {
            self.turn();
            self.sim.advance(Duration::from_secs(1));
        }
    }
}

#[test]
fn a_pooler_that_voids_listen_is_found() {
    let mut pooler = Pooler::new();
    let dsn = "host=pooler user=app dbname=shop password=unused";
    let config = PoolConfig::new("p", dsn).expect("a sound DSN");
    let builder = InteractionPool::builder(pooler.sim.runtime()).pool(config);
    let db = pooler.sim.block_on(builder.open()).expect("open");
    let mut subscription = subscribe(&pooler.sim, &db);
    assert_eq!(pooler.sim.block_on(subscription.next()), Some(ListenEvent::Subscribed));
    // In the middle between the two connections.
    pooler.sim.advance(Duration::from_millis(500));
    pooler.run();
    let told = subscription.next().now_or_never().flatten().expect("an event");
    assert!(
        matches!(
            told,
            ListenEvent::Gap {
                cause: GapCause::Unsupported,
                ..
            }
        ),
        "{told:?}"
    );
    assert!(subscription.next().now_or_never().is_none(), "it is never believed");
    let mut begun = pooler.sim.manual(Box::pin(db.listen_on("d").subscribe()));
    assert!(begun.settle().is_pending());
    pooler.run();
    let Poll::Ready(refused) = begun.settle() else {
        panic!("no answer");
    };
    let error = refused.expect_err("it is known by now");
    assert!(matches!(error.kind(), ErrorKind::ListenUnsupported), "{error:?}");
    // All lead to one place from here on: the next self-test passes, and the gap is over.
    pooler.sim.advance(Duration::from_secs(60));
    assert_eq!(subscription.next().now_or_never().flatten(), Some(ListenEvent::Resumed));
    let violations: Vec<String> = pooler.places.iter().flat_map(ScriptedServer::violations).collect();
    assert_eq!(violations, Vec::<String>::new());
}
