//! Where and how the sessions of a pool connect: what a connection string, the environment and files said, resolved.
//!
//! Values only, whole and checked: whoever dials needs no file, no environment and no default of its own. Made by the
//! readers beside this file. Nothing here shows a secret in `Debug`.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::SocketOptions;

/// Everything a dial needs to know of the server side.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// At least one, in the order given.
    pub(crate) hosts: Vec<HostTarget>,
    /// Never empty.
    pub(crate) user: String,
    /// `None`: the server takes the user's name.
    pub(crate) dbname: Option<String>,
    /// `target_session_attrs`.
    pub(crate) attributes: SessionAttributes,
    /// `load_balance_hosts=random`: hosts and their addresses in random order.
    pub(crate) load_balance: bool,
    /// For each address that is tried, as in libpq; `None` leaves only the pool's deadline over all.
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) start_up: StartUpParameters,
    pub(crate) tls: TlsSettings,
    pub(crate) channel_binding: ChannelBinding,
    /// `None`: any method will do.
    pub(crate) require_auth: Option<RequireAuth>,
    pub(crate) socket: SocketOptions,
}

/// One entry of the host list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostTarget {
    /// What the user calls it: certificates, passwords and messages go by this.
    pub(crate) host: Host,
    /// Where to connect instead of looking `host` up.
    pub(crate) hostaddr: Option<IpAddr>,
    pub(crate) port: u16,
    /// For exactly this entry: from the string, the environment or the password file.
    pub(crate) password: Option<Secret>,
}

/// What a host entry names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name to look up, or an address written as text.
    Tcp(String),
    /// The folder of a Unix socket; one that begins with `@` is in Linux's abstract namespace.
    Unix(PathBuf),
}

/// `target_session_attrs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SessionAttributes {
    #[default]
    Any,
    PreferStandby,
    Primary,
    ReadOnly,
    ReadWrite,
    Standby,
}

/// What is sent at start-up beside user and database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StartUpParameters {
    /// Command-line options for the server's process, blanks escaped by backslashes.
    pub(crate) options: Option<String>,
    /// Of `application_name`, else of `fallback_application_name`, else ours.
    pub(crate) application_name: Option<String>,
}

/// All that TLS needs; files are already read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) mode: SslMode,
    pub(crate) negotiation: Negotiation,
    pub(crate) root: RootCertificates,
    /// Revocation lists, in PEM.
    pub(crate) revocation: Vec<PemFile>,
    /// The client's certificate chain and its key: both or neither.
    pub(crate) identity: Option<ClientIdentity>,
    pub(crate) certificate_mode: CertificateMode,
    /// Whether the host's name is sent (`sslsni`); never for an address.
    pub(crate) sni: bool,
    pub(crate) min_version: Option<TlsVersion>,
    pub(crate) max_version: Option<TlsVersion>,
}

/// `sslmode`, from the weakest on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SslMode {
    Disable,
    Allow,
    #[default]
    Prefer,
    /// Verifies the chain, as `VerifyCa` does, if root certificates are given.
    Require,
    VerifyCa,
    VerifyFull,
}

/// `sslnegotiation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Negotiation {
    /// Without asking first; only with `SslMode::Require` and above.
    Direct,
    /// By SSLRequest.
    #[default]
    Postgres,
}

/// Which authorities are trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum RootCertificates {
    /// No file was named, or it does not exist: the chain is not verified. With `SslMode::VerifyCa` and above only where
    /// there is nothing to encrypt: with Unix sockets alone.
    #[default]
    Absent,
    Pem(PemFile),
    /// The system's; only with `SslMode::VerifyFull`.
    System,
}

/// A file's content.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PemFile {
    /// For messages.
    pub(crate) path: PathBuf,
    pub(crate) bytes: Arc<[u8]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientIdentity {
    pub(crate) certificate: PemFile,
    pub(crate) key: PemFile,
    /// `sslpassword`: of an encrypted key.
    pub(crate) key_password: Option<Secret>,
}

/// `sslcertmode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CertificateMode {
    /// The identity is sent if there is one and the server asks for it.
    #[default]
    Allow,
    /// Not sent; the identity is absent then.
    Disable,
    /// A server that does not ask for it is refused.
    Require,
}

/// A version of TLS, of `ssl_min_protocol_version` and `ssl_max_protocol_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// 1.0.
    V1,
    /// 1.1.
    V1_1,
    /// 1.2.
    V1_2,
    /// 1.3.
    V1_3,
}

/// `channel_binding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ChannelBinding {
    Disable,
    #[default]
    Prefer,
    Require,
}

/// `require_auth`, as the set of what the server may do; a negated list is resolved into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequireAuth {
    /// Nothing at all: the server lets us in without a question.
    pub(crate) none: bool,
    /// The password in clear text.
    pub(crate) password: bool,
    pub(crate) md5: bool,
    pub(crate) scram_sha_256: bool,
}

/// A text that must not show.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Arc<str>);

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl StartUpParameters {
    /// Adds server settings for the whole session, so that RESET ALL returns to them.
    pub(crate) fn set(&mut self, settings: &[(String, String)]) {
        let mut options = self.options.take().unwrap_or_default();
        for (name, value) in settings {
            // Both as a parameter and in the options, the parameter would win: what was set last must.
            if name.eq_ignore_ascii_case("application_name") {
                self.application_name = Some(value.clone());
                continue;
            }
            let _ = write!(options, " -c {}={}", escape(name), escape(value));
        }
        self.options = Some(options.trim_start().to_owned()).filter(|options| !options.is_empty());
    }
}

/// Start-up options are split at blanks; a backslash keeps the next character (manual, "options").
fn escape(text: &str) -> String {
    text.chars()
        .flat_map(|c| (c.is_whitespace() || c == '\\').then_some('\\').into_iter().chain([c]))
        .collect()
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            mode: SslMode::default(),
            negotiation: Negotiation::default(),
            root: RootCertificates::default(),
            revocation: Vec::new(),
            identity: None,
            certificate_mode: CertificateMode::default(),
            sni: true,
            min_version: Some(TlsVersion::V1_2),
            max_version: None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name) => f.write_str(name),
            Self::Unix(folder) => folder.display().fmt(f),
        }
    }
}

impl fmt::Debug for PemFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PemFile")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::StartUpParameters;

    #[test]
    fn start_up_options_keep_blanks_in_values() {
        let mut start_up = StartUpParameters {
            options: Some("-c geqo=off".into()),
            application_name: None,
        };
        start_up.set(&[("search_path".into(), "a, b\\c".into())]);
        assert_eq!(
            start_up.options.as_deref(),
            Some("-c geqo=off -c search_path=a,\\ b\\\\c")
        );
    }
}
