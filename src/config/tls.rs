//! The hook for TLS: what a pool asks of a TLS library for one connection, and what it gets.
//!
//! Values and one trait. Asking the server for encryption, falling back, and checking what came of it are `session`'s;
//! with feature `tls-rustls` there is an implementation in `tls`.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::PoolConfig;
use super::target::{RootCertificates, SslMode, TlsSettings, TlsVersion};
use crate::stream::{BoxFuture, BoxStream};

/// The protocol's name in the handshake (ALPN).
const ALPN: &[u8] = b"postgresql";

/// A TLS library, as far as a pool needs one; see [`PoolConfig::tls`].
///
/// ```
/// use gdbpool::{BoxFuture, BoxStream, PoolConfig, TlsConnection, TlsHandshake, TlsRequest};
///
/// struct Library;
///
/// impl TlsHandshake for Library {
///     fn handshake(&self, stream: BoxStream, request: TlsRequest) -> BoxFuture<'static, std::io::Result<TlsConnection>> {
///         Box::pin(async move {
///             let encrypted = encrypt(stream, request.host(), request.root_certificates()).await?;
///             Ok(TlsConnection::new(encrypted))
///         })
///     }
/// }
///
/// let config = PoolConfig::new("primary", "host=db1 user=app dbname=shop")?.tls(Library);
/// # async fn encrypt(_: BoxStream, _: &str, _: Option<&[u8]>) -> std::io::Result<BoxStream> {
/// #     Err(std::io::ErrorKind::Unsupported.into())
/// # }
/// # Ok::<(), gdbpool::Error>(())
/// ```
pub trait TlsHandshake: Send + Sync + 'static {
    /// Makes `stream`, on which the server waits for a ClientHello, an encrypted one.
    ///
    /// It has to do all that `request` asks for, certificates above all: nobody checks them again. The deadline is the
    /// connect's.
    ///
    /// # Errors
    /// Whatever went wrong; it becomes the source of the connect error. Under `sslmode=prefer`, plaintext is tried next.
    ///
    /// # Cancel safety
    /// The future may be dropped at any time; that closes the stream.
    fn handshake(&self, stream: BoxStream, request: TlsRequest) -> BoxFuture<'static, io::Result<TlsConnection>>;
}

/// How a connection is to be encrypted: the connection string's words, with the files' contents.
#[derive(Clone)]
pub struct TlsRequest {
    host: Arc<str>,
    settings: Arc<TlsSettings>,
}

/// What of the server's certificate is to be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVerification {
    /// Nothing, as libpq does for `sslmode` up to `require` without root certificates.
    Nothing,
    /// That a trusted authority vouches for it: `verify-ca`, and weaker modes where root certificates are given.
    Chain,
    /// That, and that it is for [`TlsRequest::host`]: `verify-full`.
    ChainAndName,
}

/// What a handshake came to.
#[non_exhaustive]
pub struct TlsConnection {
    /// The stream that is plain to us.
    pub stream: BoxStream,
    /// The hash of the server's certificate for channel binding (`tls-server-end-point`, RFC 5929), if it can be told.
    ///
    /// SHA-256 of the certificate's DER, or the stronger hash its signature was made with. Without it SCRAM runs without
    /// channel binding, which `channel_binding=require` refuses.
    pub server_end_point: Option<Vec<u8>>,
    /// The protocol that the server chose (ALPN), if it chose one.
    pub alpn: Option<Vec<u8>>,
    /// Whether the server asked for our certificate, and was given it.
    pub certificate_was_sent: bool,
}

impl TlsConnection {
    /// An encrypted stream of which nothing more is known.
    #[must_use]
    pub fn new(stream: BoxStream) -> Self {
        Self {
            stream,
            server_end_point: None,
            alpn: None,
            certificate_was_sent: false,
        }
    }
}

impl TlsRequest {
    pub(crate) fn new(host: Arc<str>, settings: Arc<TlsSettings>) -> Self {
        Self { host, settings }
    }

    /// The host as the connection string names it: a name, or an address as text.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What is to be verified.
    #[must_use]
    pub fn verification(&self) -> TlsVerification {
        self.settings.verification()
    }

    /// Trusted authorities (`sslrootcert`), in PEM.
    #[must_use]
    pub fn root_certificates(&self) -> Option<&[u8]> {
        match &self.settings.root {
            RootCertificates::Pem(file) => Some(&file.bytes),
            RootCertificates::Absent | RootCertificates::System => None,
        }
    }

    /// Whether the system's authorities are trusted (`sslrootcert=system`).
    #[must_use]
    pub fn trusts_the_system(&self) -> bool {
        self.settings.root == RootCertificates::System
    }

    /// Revocation lists (`sslcrl`, `sslcrldir`), in PEM. Where there are any, a certificate of whose issuer none is given
    /// is not to be trusted.
    pub fn revocation_lists(&self) -> impl Iterator<Item = &[u8]> {
        self.settings.revocation.iter().map(|file| &*file.bytes)
    }

    /// Our certificate and what stands between it and its authority (`sslcert`), in PEM, for a server that asks.
    #[must_use]
    pub fn certificate(&self) -> Option<&[u8]> {
        self.settings
            .identity
            .as_ref()
            .map(|identity| &*identity.certificate.bytes)
    }

    /// The key of [`certificate`](Self::certificate) (`sslkey`), in PEM.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        self.settings.identity.as_ref().map(|identity| &*identity.key.bytes)
    }

    /// The password of the key (`sslpassword`), if it is encrypted.
    #[must_use]
    pub fn key_password(&self) -> Option<&str> {
        let identity = self.settings.identity.as_ref()?;
        identity.key_password.as_ref().map(|password| password.reveal())
    }

    /// Whether a host's name is sent in the clear at the beginning of the handshake (`sslsni`). Never that of an address.
    #[must_use]
    pub fn sends_host(&self) -> bool {
        self.settings.sni
    }

    /// The protocol to offer (ALPN). Whether the server must have chosen it is checked afterwards.
    #[must_use]
    pub fn alpn(&self) -> &'static [u8] {
        ALPN
    }

    /// The oldest version of TLS that will do; `None` leaves it to the library.
    #[must_use]
    pub fn min_version(&self) -> Option<TlsVersion> {
        self.settings.min_version
    }

    /// The newest version of TLS that will do; `None` leaves it to the library.
    #[must_use]
    pub fn max_version(&self) -> Option<TlsVersion> {
        self.settings.max_version
    }
}

impl TlsSettings {
    /// As in libpq, root certificates are not given in vain: with them, also the weaker modes verify the chain.
    pub(crate) fn verification(&self) -> TlsVerification {
        match (self.mode, &self.root) {
            (SslMode::VerifyFull, _) => TlsVerification::ChainAndName,
            (SslMode::VerifyCa, _) => TlsVerification::Chain,
            (_, RootCertificates::Absent) => TlsVerification::Nothing,
            (_, RootCertificates::Pem(_) | RootCertificates::System) => TlsVerification::Chain,
        }
    }
}

impl PoolConfig {
    /// Encrypts the pool's connections with this library instead of the one that comes with feature `tls-rustls`.
    ///
    /// When and whether TLS is used, and what it has to verify, is the connection string's word (`sslmode` and its like);
    /// the hook gets it with each [`TlsRequest`]. It is asked for cancel requests, too. Default: rustls with feature
    /// `tls-rustls`; without it and without a hook, `sslmode` `allow` and `prefer` mean plaintext and stronger modes are
    /// refused when the pool is opened.
    #[must_use]
    pub fn tls(mut self, library: impl TlsHandshake) -> Self {
        self.tls = Some(Arc::new(library));
        self
    }
}

impl<T: TlsHandshake + ?Sized> TlsHandshake for Arc<T> {
    fn handshake(&self, stream: BoxStream, request: TlsRequest) -> BoxFuture<'static, io::Result<TlsConnection>> {
        (**self).handshake(stream, request)
    }
}

impl fmt::Debug for TlsRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsRequest")
            .field("host", &self.host)
            .field("verification", &self.verification())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConnection")
            .field("alpn", &self.alpn)
            .finish_non_exhaustive()
    }
}
