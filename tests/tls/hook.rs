//! Another TLS library: what it is told, that it is used for all that is sent, and that its word counts.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};
use gdbpool::{BoxFuture, BoxStream, PoolConfig, TlsConnection, TlsHandshake, TlsRequest, TlsVerification};

use super::pki::Pki;
use super::relay::turned_over;
use super::runtimes::until;
use super::world::{connect, dsn, on_each_server, open};

/// A cipher that turns every bit over.
#[derive(Clone, Default)]
struct TurnedOver {
    asked: Arc<Mutex<Vec<(String, TlsVerification)>>>,
    fails: bool,
}

struct TurnedStream(BoxStream);

impl TlsHandshake for TurnedOver {
    fn handshake(&self, stream: BoxStream, request: TlsRequest) -> BoxFuture<'static, io::Result<TlsConnection>> {
        let host = request.host().to_owned();
        self.asked.lock().expect("whole").push((host, request.verification()));
        assert_eq!(request.alpn(), b"postgresql");
        assert_eq!(
            request.root_certificates().is_some(),
            request.verification() > TlsVerification::Nothing
        );
        let fails = self.fails;
        Box::pin(async move {
            if fails {
                return Err(io::Error::other("no dice"));
            }
            Ok(TlsConnection::new(Box::new(TurnedStream(stream))))
        })
    }
}

impl AsyncRead for TurnedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        buf[..read].iter_mut().for_each(|byte| *byte = !*byte);
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for TurnedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let turned: Vec<u8> = buf.iter().map(|byte| !byte).collect();
        Pin::new(&mut self.0).poll_write(cx, &turned)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

#[test]
fn another_library_does_it_all() {
    on_each_server(|runtime, cluster, _| {
        let port = turned_over(cluster.port());
        Box::pin(async move {
            let library = TurnedOver::default();
            let rest = format!(
                "user=postgres sslmode=verify-ca sslrootcert={}",
                Pki::get().of("ca.crt")
            );
            let config = PoolConfig::new("p", &dsn("localhost", port, &rest))
                .expect("a sound DSN")
                .tls(library.clone());
            let pool = open(&runtime, config);
            let lease = pool.checkout().await.expect("a lease");
            let mut working = Box::pin(async move { lease.query("SELECT pg_sleep(600)", &[]).await.map(drop) });
            assert!(futures::poll!(&mut working).is_pending());
            let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            let begun = until(&*runtime, "it sleeps", || cluster.psql(sleeping) != "0");
            futures::pin_mut!(begun);
            drop(futures::future::select(&mut working, begun).await);
            drop(working);
            pool.checkout()
                .await
                .expect("a lease")
                .query_one("SELECT 2", &[])
                .await
                .expect("a row");
            // A session, and at least one cancel request.
            let asked = library.asked.lock().expect("whole");
            assert!(asked.len() >= 2, "{asked:?}");
            let expected = ("localhost".to_owned(), TlsVerification::Chain);
            assert!(asked.iter().all(|asked| *asked == expected), "{asked:?}");
            assert_eq!(pool.status().connects, 1);
        })
    });
}

#[test]
fn its_no_counts() {
    on_each_server(|runtime, cluster, _| {
        let port = turned_over(cluster.port());
        Box::pin(async move {
            let library = TurnedOver {
                fails: true,
                ..TurnedOver::default()
            };
            let config = PoolConfig::new("p", &dsn("localhost", port, "user=postgres sslmode=require")).expect("a DSN");
            let (_pool, lease) = connect(&runtime, config.tls(library)).await;
            assert!(lease.expect_err("refused").contains("no dice"));
        })
    });
}

/// What it does not tell is not taken for granted: no protocol, no channel binding, no certificate that was sent.
#[test]
fn what_it_does_not_tell_is_missing() {
    on_each_server(|runtime, cluster, _| {
        let port = turned_over(cluster.port());
        Box::pin(async move {
            let pki = Pki::get();
            let ours = format!("sslcert={} sslkey={}", pki.of("client.crt"), pki.of("client.key"));
            for (rest, words) in [
                (
                    format!("user=postgres sslcertmode=require {ours}"),
                    "sslcertmode=require",
                ),
                (
                    "user=app password=hunter2 channel_binding=require".into(),
                    "channel binding",
                ),
            ] {
                let dsn = dsn("localhost", port, &format!("sslmode=require {rest}"));
                let config = PoolConfig::new("p", &dsn)
                    .expect("a sound DSN")
                    .tls(TurnedOver::default());
                let (_pool, lease) = connect(&runtime, config).await;
                let text = lease.expect_err("refused");
                assert!(text.contains(words), "{words} in {text}");
            }
        })
    });
}
