//! What every [`Runtime`] has to keep, as one body per promise, for any number of runtimes.
//!
//! A test file names its runtimes ("arms": functions that run a check to its end) and calls `check_runtime!` for each.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::{self, Either};
use futures::{AsyncReadExt, AsyncWriteExt, poll};
use gdbpool::{BoxFuture, BoxStream, Endpoint, Instant, Runtime, SocketOptions};

/// How long anything here may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) type Check = fn(Arc<dyn Runtime>) -> BoxFuture<'static, ()>;

/// One test per promise, in a module named after the arm.
macro_rules! check_runtime {
    ($arm:ident) => {
        check_runtime!(@ $arm:
            now_never_goes_backwards,
            sleep_never_fires_early,
            sleeps_can_be_dropped_or_last_for_ever,
            spawn_runs_and_tasks_talk,
            resolve_keeps_the_port,
            resolve_reports_a_bad_name,
            random_differs,
            tcp_carries_bytes_both_ways,
            unix_carries_bytes_both_ways,
            closing_ends_the_sending_side_only,
            dropping_a_stream_closes_it,
            dropping_a_connect_closes_it,
            refused_connects_say_so,
            streams_work_in_tasks_and_elsewhere,
        );
    };
    (@ $arm:ident: $($check:ident),+ $(,)?) => {
        mod $arm {
            $(
                #[test]
                fn $check() {
                    crate::runtime_checks::within_the_limit(|| {
                        super::$arm(|runtime| Box::pin(crate::runtime_checks::$check(runtime)));
                    });
                }
            )+
        }
    };
}

/// Runs `work` on a thread of its own, and fails where it would hang.
pub(crate) fn within_the_limit(work: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel::<()>();
    let running = thread::spawn(move || {
        let _ends = sender;
        work();
    });
    assert_ne!(
        receiver.recv_timeout(LIMIT),
        Err(mpsc::RecvTimeoutError::Timeout),
        "still running after {LIMIT:?}"
    );
    joined(running);
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

pub(crate) async fn now_never_goes_backwards(runtime: Arc<dyn Runtime>) {
    let latest = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (runtime, latest) = (Arc::clone(&runtime), Arc::clone(&latest));
            thread::spawn(move || {
                for _ in 0..10_000 {
                    let before = latest.load(Ordering::SeqCst);
                    let now = runtime.now().as_nanos();
                    assert!(now >= before, "{now} after {before}");
                    latest.fetch_max(now, Ordering::SeqCst);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(joined);
    assert!(runtime.now() < Instant::FAR_FUTURE);
}

pub(crate) async fn sleep_never_fires_early(runtime: Arc<dyn Runtime>) {
    let start = runtime.now();
    // Past and present complete, on the second poll at the latest in some runtimes.
    runtime.sleep_until(Instant::from_nanos(0)).await;
    runtime.sleep_until(start).await;
    // Odd spans, as timers round to milliseconds; made before the first is awaited, and awaited out of order.
    let ends = [30_000_001, 999, 7_654_321, 1_000_000].map(|nanos| start + Duration::from_nanos(nanos));
    let sleeps = ends.map(|end| {
        let sleep = runtime.sleep_until(end);
        let runtime = Arc::clone(&runtime);
        async move {
            sleep.await;
            assert!(runtime.now() >= end, "woken at {:?} instead of {end:?}", runtime.now());
        }
    });
    future::join_all(sleeps).await;
}

pub(crate) async fn sleeps_can_be_dropped_or_last_for_ever(runtime: Arc<dyn Runtime>) {
    let start = runtime.now();
    let mut never = runtime.sleep_until(Instant::FAR_FUTURE);
    let mut ages = runtime.sleep_until(start + Duration::from_secs(400 * 365 * 86_400));
    let mut hour = runtime.sleep_until(start + Duration::from_secs(3_600));
    let unpolled = runtime.sleep_until(start + Duration::from_secs(3_600));
    assert!(poll!(&mut never).is_pending());
    assert!(poll!(&mut ages).is_pending());
    assert!(poll!(&mut hour).is_pending());
    runtime.sleep_until(start + Duration::from_millis(3)).await;
    assert!(poll!(&mut never).is_pending());
    assert!(poll!(&mut ages).is_pending());
    // Dropped on a thread that belongs to no runtime.
    joined(thread::spawn(move || drop((never, ages, hour, unpolled))));
    runtime.sleep_until(start + Duration::from_millis(5)).await;
}

pub(crate) async fn spawn_runs_and_tasks_talk(runtime: Arc<dyn Runtime>) {
    let finished = Arc::new(AtomicU32::new(0));
    let mut answers = Vec::new();
    for number in 0_u32..50 {
        let (ask, asked) = oneshot::channel::<u32>();
        let (answer, answered) = oneshot::channel::<u32>();
        let (inner, finished) = (Arc::clone(&runtime), Arc::clone(&finished));
        // From a thread outside any executor, and from within a task.
        let outside = Arc::clone(&runtime);
        let task = Box::pin(async move {
            inner.spawn(Box::pin(async move {
                let got = asked.await.expect("asked");
                finished.fetch_add(1, Ordering::SeqCst);
                answer.send(got * 2).expect("somebody waits");
            }));
        });
        joined(thread::spawn(move || outside.spawn(task)));
        ask.send(number).expect("the task waits");
        answers.push(answered);
    }
    for (number, answered) in (0_u32..).zip(answers) {
        assert_eq!(answered.await, Ok(number * 2));
    }
    assert_eq!(finished.load(Ordering::SeqCst), 50);
}

pub(crate) async fn resolve_keeps_the_port(runtime: Arc<dyn Runtime>) {
    let addresses = runtime.resolve("localhost", 5_432).await.expect("localhost");
    assert!(!addresses.is_empty());
    for address in addresses {
        assert!(address.ip().is_loopback(), "{address}");
        assert_eq!(address.port(), 5_432);
    }
    for (literal, written) in [("127.0.0.1", "127.0.0.1:1"), ("::1", "[::1]:1")] {
        let expected: SocketAddr = written.parse().expect("an address");
        assert_eq!(runtime.resolve(literal, 1).await.expect(literal), [expected]);
    }
}

pub(crate) async fn resolve_reports_a_bad_name(runtime: Arc<dyn Runtime>) {
    // Refused before any server is asked.
    let error = runtime.resolve("no\0name", 1).await.expect_err("not a name");
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
}

pub(crate) async fn random_differs(runtime: Arc<dyn Runtime>) {
    let mut drawn: Vec<u64> = (0..1_000).map(|_| runtime.random()).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 1_000);
}

pub(crate) async fn tcp_carries_bytes_both_ways(runtime: Arc<dyn Runtime>) {
    let (address, server) = tcp_server(echo);
    carries_bytes(connect(&*runtime, &address).await).await;
    joined(server);
}

pub(crate) async fn unix_carries_bytes_both_ways(runtime: Arc<dyn Runtime>) {
    let folder = Folder::new();
    let path = folder.0.join(".s.PGSQL.5432");
    let listener = UnixListener::bind(&path).expect("bind");
    let server = thread::spawn(move || echo(listener.accept().expect("accept").0));
    carries_bytes(connect(&*runtime, &Endpoint::Unix(path)).await).await;
    joined(server);
}

pub(crate) async fn closing_ends_the_sending_side_only(runtime: Arc<dyn Runtime>) {
    let (address, server) = tcp_server(|mut stream| {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("the client's end");
        stream.write_all(b"heard ").expect("the client still reads");
        stream.write_all(&heard).expect("the client still reads");
    });
    let mut stream = connect(&*runtime, &address).await;
    stream.write_all(b"goodbye").await.expect("write");
    stream.close().await.expect("close");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert_eq!(answer, "heard goodbye");
    joined(server);
    stream.close().await.expect("closing twice, after the peer has gone");
}

pub(crate) async fn dropping_a_stream_closes_it(runtime: Arc<dyn Runtime>) {
    let (address, server) = tcp_server(|mut stream| {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).expect("the client's end");
        heard
    });
    let mut stream = connect(&*runtime, &address).await;
    stream.write_all(b"last words").await.expect("write");
    stream.flush().await.expect("flush");
    let mut buf = [0; 1];
    assert!(poll!(stream.read(&mut buf)).is_pending());
    // On a thread that belongs to no runtime.
    joined(thread::spawn(move || drop(stream)));
    assert_eq!(joined(server), b"last words");
}

pub(crate) async fn dropping_a_connect_closes_it(runtime: Arc<dyn Runtime>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = Endpoint::Tcp(listener.local_addr().expect("address"));
    let mut abandoned = 0;
    for _ in 0..100 {
        let mut connecting = runtime.connect(&address, &SocketOptions::default());
        abandoned += u32::from(poll!(&mut connecting).is_pending());
        drop(connecting);
        // The system completes the handshake by itself, so the listener has the connection, and then its end.
        let (mut peer, _) = listener.accept().expect("accept");
        peer.set_read_timeout(Some(LIMIT)).expect("a read timeout");
        let read = peer.read(&mut [0; 1]);
        let reset = read
            .as_ref()
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
        assert!(reset || read.as_ref().is_ok_and(|count| *count == 0), "{read:?}");
    }
    assert!(abandoned > 0, "no connect was dropped half-way");
}

pub(crate) async fn refused_connects_say_so(runtime: Arc<dyn Runtime>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = Endpoint::Tcp(listener.local_addr().expect("address"));
    drop(listener);
    assert_eq!(refused(&*runtime, &address).await, io::ErrorKind::ConnectionRefused);

    let folder = Folder::new();
    let path = folder.0.join(".s.PGSQL.5432");
    assert_eq!(
        refused(&*runtime, &Endpoint::Unix(path.clone())).await,
        io::ErrorKind::NotFound
    );
    drop(UnixListener::bind(&path).expect("bind"));
    assert_eq!(
        refused(&*runtime, &Endpoint::Unix(path)).await,
        io::ErrorKind::ConnectionRefused
    );
}

pub(crate) async fn streams_work_in_tasks_and_elsewhere(runtime: Arc<dyn Runtime>) {
    let (address, server) = tcp_server(echo);
    let (done, finished) = oneshot::channel();
    let inner = Arc::clone(&runtime);
    runtime.spawn(Box::pin(async move {
        let mut stream = connect(&*inner, &address).await;
        ping(&mut stream, b"from a task").await;
        drop(done.send(stream));
    }));
    let mut stream = finished.await.expect("the task");
    ping(&mut stream, b"from the test").await;
    let inner = Arc::clone(&runtime);
    let (done, finished) = oneshot::channel();
    let bare = thread::spawn(move || {
        crate::bare_runtime::block_on(async move {
            ping(&mut stream, b"from a bare thread").await;
            // A wait under a deadline, the commonest use of all.
            let mut buf = [0; 1];
            let deadline = inner.sleep_until(inner.now() + Duration::from_millis(2));
            let silence = future::select(stream.read(&mut buf), deadline).await;
            assert!(matches!(silence, Either::Right(_)), "the echo has nothing to say");
        });
        done.send(()).expect("the test waits");
    });
    // Awaited, not joined: a runtime of this thread has to go on meanwhile.
    finished.await.expect("the bare thread");
    joined(bare);
    joined(server);
}

async fn connect(runtime: &dyn Runtime, to: &Endpoint) -> BoxStream {
    runtime
        .connect(to, &SocketOptions::default())
        .await
        .unwrap_or_else(|error| panic!("{to}: {error}"))
}

async fn refused(runtime: &dyn Runtime, to: &Endpoint) -> io::ErrorKind {
    match runtime.connect(to, &SocketOptions::default()).await {
        Ok(_) => panic!("{to} answered"),
        Err(error) => error.kind(),
    }
}

async fn ping(stream: &mut BoxStream, words: &[u8]) {
    stream.write_all(words).await.expect("write");
    stream.flush().await.expect("flush");
    let mut echoed = vec![0; words.len()];
    stream.read_exact(&mut echoed).await.expect("read");
    assert_eq!(echoed, words);
}

/// More than the system buffers, so that both directions have to wait for the peer.
async fn carries_bytes(stream: BoxStream) {
    let sent: Vec<u8> = (0_u32..1_500_000).flat_map(u32::to_le_bytes).collect();
    let (mut reading, mut writing) = stream.split();
    let mut got = Vec::new();
    let (wrote, read) = futures::join!(
        async {
            writing.write_all(&sent).await?;
            writing.close().await
        },
        reading.read_to_end(&mut got)
    );
    wrote.expect("write");
    read.expect("read");
    assert!(
        got == sent,
        "{} bytes came back of {}, or others",
        got.len(),
        sent.len()
    );
}

fn tcp_server<T: Send + 'static>(
    serve: impl FnOnce(std::net::TcpStream) -> T + Send + 'static,
) -> (Endpoint, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address");
    (
        Endpoint::Tcp(address),
        thread::spawn(move || serve(listener.accept().expect("accept").0)),
    )
}

/// Sends back what it hears, until the client's end.
fn echo(mut stream: impl Read + Write) {
    let mut buf = vec![0; 32 * 1024];
    loop {
        match stream.read(&mut buf).expect("read") {
            0 => return,
            count => stream.write_all(&buf[..count]).expect("write"),
        }
    }
}

/// A new folder, removed when dropped.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "gdbpool-runtime-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a new folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
