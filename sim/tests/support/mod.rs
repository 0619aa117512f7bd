//! What the tests share: tokio-postgres over a simulated connection, and a client whose driver is a task.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test binaries; each uses its own part"
)]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::channel::mpsc;
use futures::{AsyncRead, AsyncWrite, StreamExt};
use gdbpool::{BoxStream, Endpoint, Runtime, SocketOptions};
use gdbpool_sim::{ScriptedServer, Sim, SimRuntime};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Notification};

/// A `futures` stream as tokio-postgres wants it.
pub struct Tokio(pub BoxStream);

impl tokio::io::AsyncRead for Tokio {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = ready!(Pin::new(&mut self.0).poll_read(cx, buffer.initialize_unfilled()))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl tokio::io::AsyncWrite for Tokio {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// A client with its driver running as a task; notifications and the driver's end come through channels.
pub struct Connected {
    pub client: Client,
    pub notifications: mpsc::UnboundedReceiver<Notification>,
    pub end: mpsc::UnboundedReceiver<Result<(), String>>,
}

pub fn config() -> Config {
    let mut config = Config::new();
    config.user("app").dbname("shop");
    config
}

pub fn server(sim: &Sim) -> ScriptedServer {
    ScriptedServer::start(sim, "10.0.0.1:5432".parse().unwrap())
}

pub async fn stream(runtime: &SimRuntime, server: &ScriptedServer) -> io::Result<BoxStream> {
    runtime.connect(&server.endpoint(), &SocketOptions::default()).await
}

pub async fn connect(runtime: &SimRuntime, server: &ScriptedServer) -> Result<Connected, tokio_postgres::Error> {
    connect_with(runtime, server, &config()).await
}

pub async fn connect_with(
    runtime: &SimRuntime,
    server: &ScriptedServer,
    config: &Config,
) -> Result<Connected, tokio_postgres::Error> {
    let stream = Tokio(stream(runtime, server).await.expect("the server listens"));
    connect_over(runtime, stream, config).await
}

/// Connects to a node of a cluster, as user `app` unless the configuration says otherwise.
pub async fn connect_node(runtime: &SimRuntime, node: &str) -> Result<Connected, tokio_postgres::Error> {
    let mut config = Config::new();
    config.user("app").dbname("postgres");
    connect_node_with(runtime, node, &config).await
}

pub async fn connect_node_with(
    runtime: &SimRuntime,
    node: &str,
    config: &Config,
) -> Result<Connected, tokio_postgres::Error> {
    let stream = node_stream(runtime, node).await.expect("the node listens");
    connect_over(runtime, stream, config).await
}

/// A bare connection to a node of a cluster.
pub async fn node_stream(runtime: &SimRuntime, node: &str) -> io::Result<Tokio> {
    let addresses = runtime.resolve(node, 5432).await?;
    let stream = runtime.connect(&Endpoint::Tcp(addresses[0]), &SocketOptions::default());
    Ok(Tokio(stream.await?))
}

async fn connect_over(
    runtime: &SimRuntime,
    stream: Tokio,
    config: &Config,
) -> Result<Connected, tokio_postgres::Error> {
    let (client, mut connection) = config.connect_raw(stream, NoTls).await?;
    let (sender, notifications) = mpsc::unbounded();
    let (ended, end) = mpsc::unbounded();
    runtime.spawn(Box::pin(async move {
        let mut messages = futures::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(message) = messages.next().await {
            match message {
                Ok(AsyncMessage::Notification(notification)) => drop(sender.unbounded_send(notification)),
                Ok(_) => {}
                Err(error) => {
                    let text = error
                        .as_db_error()
                        .map_or(error.to_string(), |db| db.code().code().to_owned());
                    drop(ended.unbounded_send(Err(text)));
                    return;
                }
            }
        }
        drop(ended.unbounded_send(Ok(())));
    }));
    Ok(Connected {
        client,
        notifications,
        end,
    })
}

/// The SQLSTATE of a failed operation.
pub fn code<T>(result: Result<T, tokio_postgres::Error>) -> String {
    match result {
        Ok(_) => "no error".to_owned(),
        Err(error) => error
            .code()
            .map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    }
}
