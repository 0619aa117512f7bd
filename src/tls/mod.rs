//! TLS by rustls (feature `tls-rustls`): settings in, a [`TlsHandshake`] out.
//!
//! Beside the runtime, under `session`, which asks the server for encryption and hands the stream over here. `verifier` says
//! which certificates are good, `certificate` reads what rustls does not tell of them. Certificates and keys are read once,
//! when the pool is opened. The clock is the system's, as certificates count in calendar time, and so is the randomness: both
//! are rustls's own, and the one exception to "all through `Runtime`" in this room.

mod certificate;
mod verifier;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_rustls::TlsConnector;
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion};

use self::verifier::Verifier;
use crate::config::target::{ClientIdentity, PemFile, RootCertificates, TlsSettings, TlsVersion};
use crate::config::{TlsConnection, TlsHandshake, TlsRequest, TlsVerification};
use crate::error::{BadInput, Error};
use crate::stream::{BoxFuture, BoxStream};

/// One pool's settings, read and checked.
pub(crate) struct Rustls {
    config: Arc<ClientConfig>,
    /// Our certificate, if we have one.
    identity: Option<Arc<CertifiedKey>>,
}

/// Gives our certificate to a server that asks, and remembers that it did.
#[derive(Debug)]
struct Identity {
    key: Option<Arc<CertifiedKey>>,
    was_given: AtomicBool,
}

impl Rustls {
    /// # Errors
    /// What cannot be used, with the key of the connection string and the file.
    pub(crate) fn new(settings: &TlsSettings) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = verifier(settings, &provider)?;
        let identity = match &settings.identity {
            Some(identity) => Some(Arc::new(certified(identity, &provider)?)),
            None => None,
        };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(settings)?)
            .map_err(|error| bad(format!("TLS cannot be set up: {error}")))?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.enable_sni = settings.sni;
        // PostgreSQL gives no tickets; what is resumed would be verified by nobody.
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            identity,
        })
    }
}

impl TlsHandshake for Rustls {
    fn handshake(&self, stream: BoxStream, request: TlsRequest) -> BoxFuture<'static, io::Result<TlsConnection>> {
        let given = Arc::new(Identity {
            key: self.identity.clone(),
            was_given: AtomicBool::new(false),
        });
        let mut config = (*self.config).clone();
        config.alpn_protocols = vec![request.alpn().to_vec()];
        config.client_auth_cert_resolver = Arc::clone(&given) as Arc<dyn ResolvesClientCert>;
        Box::pin(async move {
            let name = server_name(&request)?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            let (_, session) = stream.get_ref();
            let end_entity = session.peer_certificates().and_then(<[_]>::first);
            let server_end_point = end_entity.and_then(|der| certificate::server_end_point(der));
            let alpn = session.alpn_protocol().map(<[u8]>::to_vec);
            let mut made = TlsConnection::new(Box::new(stream));
            made.server_end_point = server_end_point;
            made.alpn = alpn;
            made.certificate_was_sent = given.was_given.load(Ordering::Acquire);
            Ok(made)
        })
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let key = self.key.as_ref()?;
        key.key.choose_scheme(schemes)?;
        self.was_given.store(true, Ordering::Release);
        Some(Arc::clone(key))
    }

    fn has_certs(&self) -> bool {
        self.key.is_some()
    }
}

/// The name to verify, and to send if it is one. What is not verified needs none.
fn server_name(request: &TlsRequest) -> io::Result<ServerName<'static>> {
    let host = request.host();
    match ServerName::try_from(host.to_owned()) {
        Ok(name) => Ok(name),
        Err(_) if request.verification() < TlsVerification::ChainAndName => Ok(ServerName::from(IpAddr::from([0; 4]))),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("\"{host}\" is a name that no certificate can be for"),
        )),
    }
}

fn verifier(settings: &TlsSettings, provider: &Arc<CryptoProvider>) -> Result<Verifier, Error> {
    let algorithms = provider.signature_verification_algorithms;
    let anchors = match (&settings.root, settings.verification()) {
        (RootCertificates::Absent, TlsVerification::Nothing) => return Ok(Verifier::of_nothing(algorithms)),
        (RootCertificates::Absent, _) => {
            return Err(bad("sslmode asks for root certificates, and there are none".into()));
        }
        (RootCertificates::Pem(file), _) => certificates(file, "sslrootcert")?,
        (RootCertificates::System, _) => of_the_system()?,
    };
    let mut roots = RootCertStore::empty();
    for anchor in &anchors {
        match (roots.add(anchor.clone()), &settings.root) {
            // Of a system's hundreds, single ones may be of a kind that is not understood.
            (Ok(()), _) | (Err(_), RootCertificates::System) => {}
            (Err(error), _) => return Err(bad(format!("sslrootcert: a certificate cannot be used: {error}"))),
        }
    }
    let mut revocation = Vec::new();
    for file in &settings.revocation {
        let lists = CertificateRevocationListDer::pem_slice_iter(&file.bytes);
        let lists: Result<Vec<_>, pem::Error> = lists.collect();
        revocation.extend(lists.map_err(|error| unreadable("sslcrl", file, &error))?);
    }
    let is_pinned_enough = revocation.is_empty();
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .with_crls(revocation)
        .enforce_revocation_expiration()
        .build()
        .map_err(|error| bad(format!("sslrootcert or sslcrl cannot be used: {error}")))?;
    let pinned = if is_pinned_enough { anchors } else { Vec::new() };
    let with_name = settings.verification() == TlsVerification::ChainAndName;
    Ok(Verifier::new(chain, pinned, with_name, algorithms))
}

/// Reads the system's files; once per pool, when it is opened.
fn of_the_system() -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first().map(|error| format!(": {error}"));
        return Err(bad(format!(
            "sslrootcert=system: the system has no certificates{}",
            why.unwrap_or_default()
        )));
    }
    Ok(found.certs)
}

fn certified(identity: &ClientIdentity, provider: &CryptoProvider) -> Result<CertifiedKey, Error> {
    let chain = certificates(&identity.certificate, "sslcert")?;
    let file = &identity.key;
    if is_encrypted(&file.bytes) {
        return Err(bad(format!(
            "sslkey: {} is encrypted, which this TLS library does not read: decrypt it, or give another library with \
             PoolConfig::tls",
            file.path.display()
        )));
    }
    let key = PrivateKeyDer::from_pem_slice(&file.bytes).map_err(|error| unreadable("sslkey", file, &error))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let path = file.path.display();
        bad(format!("sslkey: {path} cannot be used with its certificate: {error}"))
    })
}

fn certificates(file: &PemFile, key: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&file.bytes).collect();
    let found = found.map_err(|error| unreadable(key, file, &error))?;
    if found.is_empty() {
        return Err(bad(format!("{key}: {} has no certificate in it", file.path.display())));
    }
    Ok(found)
}

/// Either of the two forms an encrypted key has in PEM.
fn is_encrypted(pem: &[u8]) -> bool {
    let has = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
    has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED")
}

/// rustls speaks 1.2 and 1.3: an older least version is met by them, an older newest one is not.
fn versions(settings: &TlsSettings) -> Result<Vec<&'static SupportedProtocolVersion>, Error> {
    let known = [
        (TlsVersion::V1_2, &rustls::version::TLS12),
        (TlsVersion::V1_3, &rustls::version::TLS13),
    ];
    let wanted = known.into_iter().filter(|(version, _)| {
        settings.min_version.is_none_or(|min| min <= *version) && settings.max_version.is_none_or(|max| *version <= max)
    });
    let versions: Vec<_> = wanted.map(|(_, version)| version).collect();
    if versions.is_empty() {
        return Err(bad(
            "ssl_max_protocol_version: this TLS library speaks TLSv1.2 and TLSv1.3 only".into(),
        ));
    }
    Ok(versions)
}

/// Its own words may quote the file, so only their kind is shown.
fn unreadable(key: &str, file: &PemFile, error: &pem::Error) -> Error {
    let what = match error {
        pem::Error::NoItemsFound => "has nothing of that kind in it",
        _ => "is not sound PEM",
    };
    bad(format!("{key}: {} {what}", file.path.display()))
}

fn bad(reason: String) -> Error {
    Error::bad_input(BadInput::Dsn { reason })
}

impl fmt::Debug for Rustls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rustls").finish_non_exhaustive()
    }
}
