//! Which server certificates are good, by libpq's measures.
//!
//! Called by rustls in each handshake. Chains, times, revocation and names are webpki's to check; here it is only said which
//! of them count for which `sslmode`, and a certificate that is itself in the list of roots is taken, as PostgreSQL's manual
//! tells to make one and OpenSSL takes it. That the server holds the certificate's key is verified in every mode.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};

use super::certificate;

#[derive(Debug)]
pub(super) struct Verifier {
    /// `None`: nothing is asked of the certificate.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Certificates that are good by themselves.
    pinned: Vec<CertificateDer<'static>>,
    with_name: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn of_nothing(algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self {
            chain: None,
            pinned: Vec::new(),
            with_name: false,
            algorithms,
        }
    }

    pub(super) fn new(
        chain: Arc<WebPkiServerVerifier>,
        pinned: Vec<CertificateDer<'static>>,
        with_name: bool,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            chain: Some(chain),
            pinned,
            with_name,
            algorithms,
        }
    }

    /// A certificate of the list of roots: it needs to be of today, and to have the name.
    fn verify_pinned(&self, der: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
        let validity = certificate::validity(der);
        let (from, to) = validity.ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        if now.as_secs() < from {
            return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
        }
        if now.as_secs() > to {
            return Err(Error::InvalidCertificate(CertificateError::Expired));
        }
        if self.with_name {
            verify_server_name(&ParsedCertificate::try_from(der)?, name)?;
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            self.verify_pinned(end_entity, name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
            // The name is looked at last, when all else was found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.with_name => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
