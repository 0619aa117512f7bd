//! A fake server in a run of the simulator, which answers each message of a client with bytes of a test's choice, and keeps
//! everything it was sent.
//!
//! For what no honest server does. It understands nothing of the protocol but where a message ends.
#![allow(dead_code, reason = "every test binary uses its own part of the support")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures::io::{AsyncReadExt, AsyncWriteExt};
use gdbpool_sim::wire::{Backend, Severity};
use gdbpool_sim::{PipeEnd, Sim};

/// One message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Type byte; zero for those without: a start-up packet, a request for encryption, a cancel request.
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
}

/// What the server does then.
pub(crate) enum Reply {
    Send(Vec<u8>),
    /// The same, and the connection closes.
    Last(Vec<u8>),
}

/// See the file's header.
#[derive(Clone, Default)]
pub(crate) struct Fake {
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Message {
    /// The code of a message without a type byte: the protocol's version, or which request it is.
    pub(crate) fn code(&self) -> Option<u32> {
        let code = self.body.first_chunk::<4>().filter(|_| self.kind == 0)?;
        Some(u32::from_be_bytes(*code))
    }

    pub(crate) fn asks_for_tls(&self) -> bool {
        self.code() == Some(80_877_103)
    }

    pub(crate) fn is_start_up(&self) -> bool {
        self.code() == Some(196_608)
    }

    pub(crate) fn is_cancel(&self) -> bool {
        self.code() == Some(80_877_102)
    }
}

impl Fake {
    /// Listens at `address`; `answer` gets each message with the number of its connection, counted from zero.
    pub(crate) fn start(
        sim: &Sim,
        address: SocketAddr,
        answer: impl Fn(usize, &Message) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let fake = Self::default();
        let listener = sim.listen(address);
        let answer = Arc::new(answer);
        let serving = fake.clone();
        let runtime = sim.runtime();
        drop(sim.spawn(async move {
            loop {
                let end = listener.accept().await;
                let number = serving.open();
                let (fake, answer) = (serving.clone(), Arc::clone(&answer));
                let serve = async move { fake.serve(number, end, &*answer).await };
                gdbpool::Runtime::spawn(&runtime, Box::pin(serve));
            }
        }));
        fake
    }

    /// All bytes of each connection so far.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().expect("whole").clone()
    }

    fn open(&self) -> usize {
        let mut received = self.received.lock().expect("whole");
        received.push(Vec::new());
        received.len() - 1
    }

    async fn serve(&self, number: usize, mut end: PipeEnd, answer: &(dyn Fn(usize, &Message) -> Reply + Send + Sync)) {
        let mut is_started = false;
        let mut buffer = Vec::new();
        let mut chunk = [0; 1_024];
        loop {
            while let Some(message) = take(&mut buffer, is_started) {
                is_started |= message.is_start_up();
                let (bytes, is_last) = match answer(number, &message) {
                    Reply::Send(bytes) => (bytes, false),
                    Reply::Last(bytes) => (bytes, true),
                };
                if end.write_all(&bytes).await.is_err() || is_last {
                    let _ = end.close().await;
                    return;
                }
            }
            match end.read(&mut chunk).await {
                Ok(read @ 1..) => {
                    buffer.extend_from_slice(&chunk[..read]);
                    self.received.lock().expect("whole")[number].extend_from_slice(&chunk[..read]);
                }
                _ => return,
            }
        }
    }
}

/// Messages of a server, as bytes.
pub(crate) fn bytes(messages: &[Backend]) -> Vec<u8> {
    let mut out = Vec::new();
    messages.iter().for_each(|message| message.encode(&mut out));
    out
}

/// An error that ends the session.
pub(crate) fn fatal(sqlstate: &str, message: &str) -> Vec<u8> {
    let report = gdbpool_sim::wire::Report::new(Severity::Fatal, sqlstate, message);
    bytes(&[Backend::ErrorResponse(report)])
}

/// The end of a start-up that went well, from AuthenticationOk on.
pub(crate) fn welcome(reports: &[(&str, &str)]) -> Vec<u8> {
    let mut messages = vec![Backend::AuthenticationOk];
    let reports = reports
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    messages.extend(reports.map(|(name, value)| Backend::ParameterStatus(name, value)));
    messages.push(Backend::BackendKeyData { pid: 7, key: 8 });
    messages.push(Backend::ReadyForQuery(b'I'));
    bytes(&messages)
}

/// The answer to a simple query for one value.
pub(crate) fn one_value(name: &str, value: &str) -> Vec<u8> {
    bytes(&[
        Backend::RowDescription(vec![gdbpool_sim::wire::Column::expression(
            name,
            gdbpool_sim::Type::Text,
            false,
        )]),
        Backend::DataRow(vec![Some(value.as_bytes().to_vec())]),
        Backend::CommandComplete("SELECT 1".into()),
        Backend::ReadyForQuery(b'I'),
    ])
}

fn take(buffer: &mut Vec<u8>, is_started: bool) -> Option<Message> {
    let head = usize::from(is_started);
    let length = buffer.get(head..head + 4)?.first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let whole = buffer.get(..head + length)?;
    let message = Message {
        kind: if is_started { whole[0] } else { 0 },
        body: whole[head + 4..].to_vec(),
    };
    buffer.drain(..head + length);
    Some(message)
}
