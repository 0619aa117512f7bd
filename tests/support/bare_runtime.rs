//! A runtime written by hand from the standard library alone: a thread for each task, blocking sockets behind threads.
//!
//! Shows that [`Runtime`] needs no executor of any library. Slow and simple on purpose; it sets no socket option but
//! `TCP_NODELAY`.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant as StdInstant};

use futures::channel::oneshot;
use futures::io::{AsyncRead, AsyncWrite};
use gdbpool::{BoxFuture, BoxStream, Endpoint, Instant, Runtime, SocketOptions};

/// Bytes a stream holds in each direction between its user and its threads.
const BUFFER_BYTES: usize = 64 * 1024;

/// Runs `future` on this thread, which sleeps while there is nothing to do.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// See the file's header.
pub(crate) struct BareRuntime {
    origin: StdInstant,
    timers: Arc<Timers>,
}

impl BareRuntime {
    pub(crate) fn new() -> Self {
        let timers = Arc::new(Timers::default());
        let running = Arc::clone(&timers);
        thread::spawn(move || running.run());
        Self {
            origin: StdInstant::now(),
            timers,
        }
    }
}

impl Drop for BareRuntime {
    fn drop(&mut self) {
        self.timers.lock().closed = true;
        self.timers.changed.notify_all();
    }
}

impl Runtime for BareRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        thread::spawn(move || block_on(task));
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let Some(at) = self.origin.checked_add(Duration::from_nanos(at.as_nanos())) else {
            return Box::pin(std::future::pending());
        };
        Box::pin(Sleep {
            at,
            id: None,
            timers: Arc::clone(&self.timers),
        })
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(0) + self.origin.elapsed()
    }

    fn random(&self) -> u64 {
        // Each `RandomState` has keys of its own.
        RandomState::new().build_hasher().finish()
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let host = host.to_owned();
        on_thread(move || Ok((host.as_str(), port).to_socket_addrs()?.collect()))
    }

    fn connect(&self, to: &Endpoint, _options: &SocketOptions) -> BoxFuture<'static, io::Result<BoxStream>> {
        let to = to.clone();
        // An abandoned attempt ends on its own thread, which then drops the stream.
        on_thread(move || match to {
            Endpoint::Tcp(address) => {
                let socket = TcpStream::connect(address)?;
                socket.set_nodelay(true)?;
                Ok(Box::new(Stream::start(socket)) as BoxStream)
            }
            Endpoint::Unix(path) => Ok(Box::new(Stream::start(UnixStream::connect(path)?)) as BoxStream),
            other => Err(io::Error::new(io::ErrorKind::Unsupported, other.to_string())),
        })
    }
}

/// What blocking `work` returns, awaited.
fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> BoxFuture<'static, io::Result<T>> {
    Box::pin(async move {
        let (sender, receiver) = oneshot::channel();
        thread::spawn(move || drop(sender.send(work())));
        receiver
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the helping thread panicked")))
    })
}

/// All sleepers of a runtime, woken by one thread.
#[derive(Default)]
struct Timers {
    state: Mutex<TimerState>,
    changed: Condvar,
}

#[derive(Default)]
struct TimerState {
    sleepers: BTreeMap<(StdInstant, u64), Waker>,
    next_id: u64,
    closed: bool,
}

impl Timers {
    fn lock(&self) -> MutexGuard<'_, TimerState> {
        self.state.lock().expect("timers")
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.closed {
            let Some(entry) = state.sleepers.first_entry() else {
                state = self.changed.wait(state).expect("timers");
                continue;
            };
            let left = entry.key().0.saturating_duration_since(StdInstant::now());
            if left.is_zero() {
                let waker = entry.remove();
                drop(state);
                waker.wake();
                state = self.lock();
            } else {
                state = self.changed.wait_timeout(state, left).expect("timers").0;
            }
        }
    }
}

struct Sleep {
    at: StdInstant,
    id: Option<u64>,
    timers: Arc<Timers>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if StdInstant::now() >= self.at {
            return Poll::Ready(());
        }
        let timers = Arc::clone(&self.timers);
        let mut state = timers.lock();
        let id = *self.id.get_or_insert_with(|| {
            state.next_id += 1;
            state.next_id
        });
        state.sleepers.insert((self.at, id), cx.waker().clone());
        timers.changed.notify_all();
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.timers.lock().sleepers.remove(&(self.at, id));
        }
    }
}

/// A blocking socket, used from two threads at once.
trait Socket: Send + Sync + 'static {
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize>;
    fn send(&self, buf: &[u8]) -> io::Result<usize>;
    fn shut(&self, how: Shutdown);
}

impl Socket for TcpStream {
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn send(&self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn shut(&self, how: Shutdown) {
        // Fails when the peer was quicker.
        drop(self.shutdown(how));
    }
}

impl Socket for UnixStream {
    fn receive(&self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn send(&self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn shut(&self, how: Shutdown) {
        // Fails when the peer was quicker.
        drop(self.shutdown(how));
    }
}

/// A socket with a thread that reads ahead and one that writes behind.
struct Stream {
    shared: Arc<Shared>,
}

struct Shared {
    socket: Box<dyn Socket>,
    state: Mutex<StreamState>,
    changed: Condvar,
}

#[derive(Default)]
struct StreamState {
    inbox: VecDeque<u8>,
    /// How reading ended.
    end: Option<Result<(), io::ErrorKind>>,
    reader: Option<Waker>,
    /// Not yet with the system; flushed means empty.
    outbox: VecDeque<u8>,
    failed: Option<io::ErrorKind>,
    writer: Option<Waker>,
    closing: bool,
    closed: bool,
    dropped: bool,
}

impl Stream {
    fn start(socket: impl Socket) -> Self {
        let shared = Arc::new(Shared {
            socket: Box::new(socket),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        for run in [Shared::read_ahead, Shared::write_behind] {
            let shared = Arc::clone(&shared);
            thread::spawn(move || run(&shared));
        }
        Self { shared }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().expect("stream")
    }

    /// Waits until `ready`.
    fn wait(&self, ready: impl Fn(&StreamState) -> bool) -> MutexGuard<'_, StreamState> {
        self.changed
            .wait_while(self.lock(), |state| !ready(state))
            .expect("stream")
    }

    fn read_ahead(&self) {
        let mut chunk = [0; 16 * 1024];
        loop {
            drop(self.wait(|state| state.inbox.len() < BUFFER_BYTES || state.dropped));
            let received = self.socket.receive(&mut chunk);
            let mut state = self.lock();
            match received {
                Ok(0) => state.end = Some(Ok(())),
                Ok(count) => state.inbox.extend(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => state.end = Some(Err(error.kind())),
            }
            wake(&mut state.reader);
            if state.dropped || state.end.is_some() {
                return;
            }
        }
    }

    fn write_behind(&self) {
        let mut chunk = Vec::new();
        loop {
            let state = self.wait(|state| !state.outbox.is_empty() || state.closing || state.dropped);
            if state.outbox.is_empty() || state.failed.is_some() {
                break;
            }
            chunk.clear();
            chunk.extend(state.outbox.iter().take(16 * 1024));
            drop(state);
            let sent = self.socket.send(&chunk);
            let mut state = self.lock();
            match sent {
                Ok(count) => drop(state.outbox.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => state.failed = Some(error.kind()),
            }
            wake(&mut state.writer);
        }
        let mut state = self.lock();
        self.socket
            .shut(if state.dropped { Shutdown::Both } else { Shutdown::Write });
        state.closed = true;
        wake(&mut state.writer);
    }
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.dropped = true;
        // As with a real socket, what was written still goes out; the writing thread shuts the socket after it.
        if state.outbox.is_empty() || state.failed.is_some() {
            self.shared.socket.shut(Shutdown::Both);
        }
        drop(state);
        self.shared.changed.notify_all();
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        if state.inbox.is_empty() {
            return match state.end {
                Some(end) => Poll::Ready(end.map(|()| 0).map_err(io::Error::from)),
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let count = state.inbox.read(buf)?;
        self.shared.changed.notify_all();
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.shared.lock();
        if let Some(kind) = state.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if state.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = BUFFER_BYTES.saturating_sub(state.outbox.len());
        if room == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = room.min(buf.len());
        state.outbox.extend(&buf[..count]);
        self.shared.changed.notify_all();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if let Some(kind) = state.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if state.outbox.is_empty() {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if let Some(kind) = state.failed {
            return Poll::Ready(Err(kind.into()));
        }
        state.closing = true;
        self.shared.changed.notify_all();
        if state.closed {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}
