//! An authority, a false one, and the certificates that the tests need, as files. Made once per run.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The serial number of the revoked certificate.
const REVOKED: [u8; 2] = [0x7e, 0x01];

/// Where the files are; see [`Pki::of`] for their names.
pub(crate) struct Pki {
    folder: PathBuf,
    /// For a server that is none of ours: a certificate of the false authority for `localhost`, with its key.
    pub(crate) false_identity: (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>),
}

impl Pki {
    /// `ca`, `false_ca`, and `middle`, of `ca`; `crl` (without and `crl_with` the revoked one, and the outdated `crl_old`);
    /// `chained`, of `middle` and with it; `good`, `other_name`, `expired`, `revoked`, of
    /// `false_ca`: `false`; `self_signed`; clients `client` and `false_client`. Each with `.crt` and `.key`.
    pub(crate) fn get() -> &'static Self {
        static PKI: OnceLock<Pki> = OnceLock::new();
        PKI.get_or_init(Self::make)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The path as it stands in a connection string.
    pub(crate) fn of(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn make() -> Self {
        let folder = std::env::temp_dir().join(format!("gdbpool-tls-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (ca, false_ca) = (authority("the authority"), authority("a false authority"));
        fs::write(folder.join("ca.crt"), ca.pem()).expect("write");
        fs::write(folder.join("false_ca.crt"), false_ca.pem()).expect("write");
        let names = ["localhost", "127.0.0.1"];
        server(&folder, "good", &names, &ca, |_| {});
        server(&folder, "other_name", &["db1.example"], &ca, |_| {});
        server(&folder, "expired", &names, &ca, |params| {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(2001, 1, 1);
        });
        server(&folder, "revoked", &names, &ca, |params| {
            params.serial_number = Some(SerialNumber::from_slice(&REVOKED));
        });
        let false_identity = server(&folder, "false", &names, &false_ca, |_| {});
        server(&folder, "client", &[], &ca, |params| {
            params.distinguished_name.push(DnType::CommonName, "certified")
        });
        server(&folder, "false_client", &[], &false_ca, |params| {
            params.distinguished_name.push(DnType::CommonName, "certified");
        });
        let middle =
            CertifiedIssuer::signed_by(of_authority("in the middle"), KeyPair::generate().expect("a key"), &ca);
        let middle = middle.expect("an authority");
        fs::write(folder.join("middle.crt"), middle.pem()).expect("write");
        server(&folder, "chained", &names, &middle, |_| {});
        let chain = fs::read_to_string(folder.join("chained.crt")).expect("read") + &middle.pem();
        fs::write(folder.join("chained.crt"), chain).expect("write");
        self_signed(&folder);
        fs::write(folder.join("crl.pem"), revocation_list(&ca, Vec::new(), 2090)).expect("write");
        fs::write(folder.join("crl_old.pem"), revocation_list(&ca, Vec::new(), 2021)).expect("write");
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from_slice(&REVOKED),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        fs::write(folder.join("crl_with.pem"), revocation_list(&ca, vec![revoked], 2090)).expect("write");
        Self { folder, false_identity }
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(of_authority(name), key).expect("an authority")
}

fn of_authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server(
    folder: &Path,
    file: &str,
    names: &[&str],
    issuer: &CertifiedIssuer<'static, KeyPair>,
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    write(folder, file, &certificate.pem(), &key);
    (certificate.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()))
}

/// As PostgreSQL's manual makes one: an authority for itself.
fn self_signed(folder: &Path) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    write(folder, "self_signed", &certificate.pem(), &key);
}

fn write(folder: &Path, file: &str, certificate: &str, key: &KeyPair) {
    fs::write(folder.join(format!("{file}.crt")), certificate).expect("write");
    let path = folder.join(format!("{file}.key"));
    fs::write(&path, key.serialize_pem()).expect("write");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(path, private).expect("a private key");
}

/// `until`: the year in which the next one is due.
fn revocation_list(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    revoked_certs: Vec<RevokedCertParams>,
    until: i32,
) -> String {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(until, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs,
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(issuer).expect("a list").pem().expect("PEM")
}

/// A key in the form that rustls's servers take.
pub(crate) fn owned(key: &PrivatePkcs8KeyDer<'static>) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(key.clone_key())
}
