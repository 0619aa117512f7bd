//! What stands between client and server in these tests: a relay that keeps what clients send, one that takes the encryption
//! off and puts it on again with a certificate of its own, one with a cipher of its own; and a TLS server that says one thing.
#![expect(
    clippy::disallowed_methods,
    reason = "what stands before real servers lives on threads"
)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use futures::io::{AsyncReadExt, AsyncWriteExt};
use futures_rustls::{TlsAcceptor, TlsConnector};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use smol::Async;

use super::pki::{Pki, owned};

/// A client's request for encryption.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Passes on, and keeps what clients sent, connection by connection.
pub(crate) struct Relay {
    port: u16,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Relay {
    pub(crate) fn to(upstream: u16) -> Self {
        let sent: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let keeping = Arc::clone(&sent);
        let port = serve(move |client| {
            let number = {
                let mut sent = keeping.lock().expect("whole");
                sent.push(Vec::new());
                sent.len() - 1
            };
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
            let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
            let keeping = Arc::clone(&keeping);
            thread::spawn(move || {
                drop(pass(from_client, to_server, |bytes| {
                    keeping.lock().expect("whole")[number].extend_from_slice(bytes);
                }));
            });
            pass(server, client, |_| {})
        });
        Self { port, sent }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn sent(&self) -> Vec<Vec<u8>> {
        self.sent.lock().expect("whole").clone()
    }
}

/// Takes connections on a thread of their own each.
fn serve(work: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let work = Arc::new(work);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let work = Arc::clone(&work);
            thread::spawn(move || drop(work(client)));
        }
    });
    port
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut see: impl FnMut(&mut [u8])) -> io::Result<()> {
    let mut buffer = [0; 4_096];
    loop {
        let read = from.read(&mut buffer)?;
        see(&mut buffer[..read]);
        if read == 0 {
            return to.shutdown(Shutdown::Write);
        }
        to.write_all(&buffer[..read])?;
    }
}

/// Says yes to encryption, and means a cipher of its own: every bit turned over, on the way to a server without any.
pub(crate) fn turned_over(upstream: u16) -> u16 {
    serve(move |mut client| {
        let mut request = [0; 8];
        client.read_exact(&mut request)?;
        assert_eq!(request, SSL_REQUEST);
        client.write_all(b"S")?;
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream))?;
        let turn = |bytes: &mut [u8]| bytes.iter_mut().for_each(|byte| *byte = !*byte);
        let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
        thread::spawn(move || drop(pass(from_client, to_server, turn)));
        pass(server, client, turn)
    })
}

/// Stands in the middle, with a certificate of the false authority, and an honest client's encryption on its other side.
pub(crate) fn man_in_the_middle(upstream: u16) -> u16 {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(b"postgresql")));
    let connector = TlsConnector::from(Arc::new(client_config()));
    serve(move |client| {
        let (acceptor, connector) = (acceptor.clone(), connector.clone());
        smol::block_on(async move {
            let mut client = Async::new(client)?;
            let mut request = [0; 8];
            client.read_exact(&mut request).await?;
            client.write_all(b"S").await?;
            let client = acceptor.accept(client).await?;
            let mut server = Async::<TcpStream>::connect((Ipv4Addr::LOCALHOST, upstream)).await?;
            server.write_all(&SSL_REQUEST).await?;
            server.read_exact(&mut request[..1]).await?;
            let name = ServerName::try_from("localhost").expect("a name");
            let server = connector.connect(name, server).await?;
            let (client, mut to_client) = client.split();
            let (server, mut to_server) = server.split();
            let there = async {
                futures::io::copy(client, &mut to_server).await?;
                to_server.close().await
            };
            let back = async {
                futures::io::copy(server, &mut to_client).await?;
                to_client.close().await
            };
            futures::future::try_join(there, back).await.map(drop)
        })
    })
}

/// A server that begins with TLS, with this protocol if it is one, and says `words` to whatever comes.
pub(crate) fn tls_server(alpn: &[u8], words: Vec<u8>) -> u16 {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(alpn)));
    serve(move |client| {
        smol::block_on(async {
            let mut client = acceptor.accept(Async::new(client)?).await?;
            let mut any = [0; 64];
            if client.read(&mut any).await? > 0 {
                client.write_all(&words).await?;
            }
            client.close().await
        })
    })
}

fn server_config(alpn: &[u8]) -> ServerConfig {
    let (certificate, key) = &Pki::get().false_identity;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = builder.with_no_client_auth();
    let mut config = builder
        .with_single_cert(vec![certificate.clone()], owned(key))
        .expect("a certificate");
    // A server without a word for a protocol takes a client that has one.
    config.alpn_protocols = if alpn.is_empty() {
        Vec::new()
    } else {
        vec![alpn.to_vec()]
    };
    config
}

fn client_config() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let root = rustls::pki_types::CertificateDer::from_pem_file(Pki::get().path("ca.crt")).expect("a certificate");
    roots.add(root).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    builder.with_root_certificates(roots).with_no_client_auth()
}

pub(crate) fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
