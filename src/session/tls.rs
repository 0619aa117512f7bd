//! From a connected stream to an encrypted one: the question to the server, its answer, the handshake, what must come of it.
//!
//! Under `dial` and `cancel_request`, between the runtime's stream and the tap. The handshake itself is a library's, behind
//! [`TlsHandshake`]. Of the server's answer exactly one byte is read: whatever somebody pushed behind it meets the TLS
//! library, which refuses it, and is never taken for the server's word (CVE-2021-23222).

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::{AsyncReadExt as _, AsyncWriteExt as _};
use postgres_protocol::message::frontend;

use crate::config::target::{CertificateMode, Host, Negotiation, SslMode, Target, TlsSettings};
use crate::config::{TlsHandshake, TlsRequest};
use crate::error::{BadInput, Error};
use crate::runtime::BoxStream;

/// How the sessions of a pool are encrypted.
#[derive(Clone)]
pub(crate) struct Tls {
    library: Arc<dyn TlsHandshake>,
    settings: Arc<TlsSettings>,
}

/// A stream whose bytes are plain to us, and what binds an authentication to it.
pub(super) struct Secured {
    pub(super) stream: BoxStream,
    /// Whether it is encrypted underneath.
    pub(super) is_encrypted: bool,
    /// `tls-server-end-point`.
    pub(super) server_end_point: Option<Vec<u8>>,
}

/// Why a stream could not be encrypted.
#[derive(Debug)]
pub(crate) enum TlsFault {
    /// The server answered "no".
    NotOffered,
    /// The server answered with an error. Nobody vouches for its text before the handshake, so it is not read.
    ErrorAnswer,
    /// The server answered with something else.
    StrangeAnswer(u8),
    /// The connection failed before the handshake.
    Lost(io::Error),
    /// The library's words: the handshake failed, or a certificate was not good.
    Handshake(io::Error),
    /// A server that is spoken to directly must say that it is a PostgreSQL server.
    NoAlpn,
    /// `sslcertmode=require`, and the server did not ask.
    CertificateNotAsked,
}

impl Tls {
    /// What `target` needs: `None` where nothing is ever encrypted.
    ///
    /// # Errors
    /// When `sslmode` asks for more than this build has, or the library cannot use what the settings name.
    pub(crate) fn of(target: &Target, hook: Option<&Arc<dyn TlsHandshake>>) -> Result<Option<Self>, Error> {
        let mode = target.tls.mode;
        let is_local = target.hosts.iter().all(|host| matches!(host.host, Host::Unix(_)));
        if mode == SslMode::Disable || is_local {
            return Ok(None);
        }
        let library = match hook {
            Some(hook) => Some(Arc::clone(hook)),
            None => built_in(&target.tls)?,
        };
        Self::by(target, library)
    }

    /// By this library, or without one where the mode has no need of it.
    fn by(target: &Target, library: Option<Arc<dyn TlsHandshake>>) -> Result<Option<Self>, Error> {
        match library {
            Some(library) => Ok(Some(Self {
                library,
                settings: Arc::new(target.tls.clone()),
            })),
            None if target.tls.mode < SslMode::Require => Ok(None),
            None => Err(Error::bad_input(BadInput::Dsn {
                reason: "sslmode asks for TLS, and this build has none: it needs the feature tls-rustls, or a library \
                         given with PoolConfig::tls"
                    .into(),
            })),
        }
    }

    /// Encrypts `stream`, or says why not. `or_plain`: a server that has no TLS is spoken to without.
    pub(super) async fn secure(
        &self,
        mut stream: BoxStream,
        host: Arc<str>,
        or_plain: bool,
    ) -> Result<Secured, TlsFault> {
        let is_direct = self.settings.negotiation == Negotiation::Direct;
        if !is_direct && !ask(&mut stream).await? {
            return if or_plain {
                Ok(Secured::plain(stream))
            } else {
                Err(TlsFault::NotOffered)
            };
        }
        let request = TlsRequest::new(host, Arc::clone(&self.settings));
        let protocol = request.alpn();
        let made = self
            .library
            .handshake(stream, request)
            .await
            .map_err(TlsFault::Handshake)?;
        if is_direct && made.alpn.as_deref() != Some(protocol) {
            return Err(TlsFault::NoAlpn);
        }
        if self.settings.certificate_mode == CertificateMode::Require && !made.certificate_was_sent {
            return Err(TlsFault::CertificateNotAsked);
        }
        Ok(Secured {
            stream: made.stream,
            is_encrypted: true,
            server_end_point: made.server_end_point,
        })
    }
}

impl Secured {
    pub(super) fn plain(stream: BoxStream) -> Self {
        Self {
            stream,
            is_encrypted: false,
            server_end_point: None,
        }
    }
}

/// Asks the server whether it has TLS.
async fn ask(stream: &mut BoxStream) -> Result<bool, TlsFault> {
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    let mut answer = [0];
    let exchange = async {
        stream.write_all(&request).await?;
        stream.flush().await?;
        stream.read_exact(&mut answer).await
    };
    exchange.await.map_err(TlsFault::Lost)?;
    match answer[0] {
        b'S' => Ok(true),
        b'N' => Ok(false),
        b'E' => Err(TlsFault::ErrorAnswer),
        other => Err(TlsFault::StrangeAnswer(other)),
    }
}

#[cfg(feature = "tls-rustls")]
fn built_in(settings: &TlsSettings) -> Result<Option<Arc<dyn TlsHandshake>>, Error> {
    Ok(Some(Arc::new(crate::tls::Rustls::new(settings)?)))
}

#[cfg(not(feature = "tls-rustls"))]
fn built_in(_: &TlsSettings) -> Result<Option<Arc<dyn TlsHandshake>>, Error> {
    Ok(None)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("mode", &self.settings.mode)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOffered => f.write_str("the server has no TLS, which sslmode asks for"),
            Self::ErrorAnswer => f.write_str("the server answered the request for TLS with an error"),
            Self::StrangeAnswer(byte) => {
                write!(
                    f,
                    "the server answered the request for TLS with the byte {byte:#04x}, which means nothing"
                )
            }
            Self::Lost(_) => f.write_str("the connection was lost at the request for TLS"),
            Self::Handshake(_) => f.write_str("the TLS handshake failed"),
            Self::NoAlpn => {
                f.write_str("sslnegotiation=direct: the server did not say that it is a PostgreSQL server (ALPN)")
            }
            Self::CertificateNotAsked => {
                f.write_str("sslcertmode=require: the server did not ask for a certificate, or was not given one")
            }
        }
    }
}

impl std::error::Error for TlsFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Lost(source) | Self::Handshake(source) => Some(source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tls;
    use crate::config::PoolConfig;

    /// Encrypted or plain, or what is said: for a build without TLS and a pool without a library of its own.
    fn without_a_library(rest: &str) -> Result<bool, String> {
        let config = PoolConfig::new("p", &format!("user=u {rest}")).expect("a sound DSN");
        let made = Tls::by(&config.target, None);
        made.map(|tls| tls.is_some()).map_err(|error| error.to_string())
    }

    #[test]
    fn without_a_library_the_strong_modes_are_refused_and_the_weak_ones_plain() {
        for mode in ["allow", "prefer"] {
            assert_eq!(
                without_a_library(&format!("host=a sslmode={mode}")),
                Ok(false),
                "{mode}"
            );
        }
        for rest in [
            "host=a sslmode=require",
            "host=/tmp,a sslmode=require",
            "host=a sslmode=require sslnegotiation=direct",
            "host=a sslrootcert=system",
        ] {
            let said = without_a_library(rest).expect_err(rest);
            let names = said.contains("sslmode") && said.contains("tls-rustls") && said.contains("PoolConfig::tls");
            assert!(names, "{rest}: {said}");
        }
    }

    /// The same by the way a pool takes, in the build that has none: `cargo test --lib --no-default-features`.
    #[cfg(not(feature = "tls-rustls"))]
    #[test]
    fn this_build_has_none() {
        let config = |rest: &str| PoolConfig::new("p", &format!("user=u {rest}")).expect("a sound DSN");
        let of = |rest: &str| Tls::of(&config(rest).target, None).map(|tls| tls.is_some());
        assert!(of("host=a sslmode=require").is_err());
        for rest in ["host=a", "host=a sslmode=disable", "host=/tmp sslmode=require"] {
            assert!(!of(rest).expect(rest), "{rest}");
        }
    }
}
