//! What TLS is to do, and the files it needs, read here so that no dial has to wait for a disk.
//!
//! Nothing is read under `sslmode=disable`, nor where all hosts are Unix sockets, which are never encrypted. The user's own
//! files (`~/.postgresql`) are looked for only where an environment was given.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::conninfo::{Parameters, Refusal, Sources, read_file};
use super::super::target::{
    CertificateMode, ClientIdentity, Negotiation, PemFile, RootCertificates, Secret, SslMode, TlsSettings, TlsVersion,
};
use super::values::{bad, one_of};

/// `is_local`: there are Unix sockets only.
pub(super) fn settings(
    parameters: &Parameters,
    sources: Option<&Sources>,
    is_local: bool,
) -> Result<TlsSettings, Refusal> {
    let modes = [
        ("disable", SslMode::Disable),
        ("allow", SslMode::Allow),
        ("prefer", SslMode::Prefer),
        ("require", SslMode::Require),
        ("verify-ca", SslMode::VerifyCa),
        ("verify-full", SslMode::VerifyFull),
    ];
    let mode = one_of(parameters, "sslmode", &modes)?.unwrap_or_default();
    let negotiations = [("postgres", Negotiation::Postgres), ("direct", Negotiation::Direct)];
    let negotiation = one_of(parameters, "sslnegotiation", &negotiations)?.unwrap_or_default();
    if negotiation == Negotiation::Direct && mode < SslMode::Require {
        let what = "is direct, which needs sslmode require, verify-ca or verify-full";
        return Err(bad(parameters, "sslnegotiation", what));
    }
    let certificate_modes = [
        ("disable", CertificateMode::Disable),
        ("allow", CertificateMode::Allow),
        ("require", CertificateMode::Require),
    ];
    let certificate_mode = one_of(parameters, "sslcertmode", &certificate_modes)?.unwrap_or_default();
    let min_version = version(parameters, "ssl_min_protocol_version", Some(TlsVersion::V1_2))?;
    let max_version = version(parameters, "ssl_max_protocol_version", None)?;
    if min_version.zip(max_version).is_some_and(|(min, max)| min > max) {
        return Err(bad(
            parameters,
            "ssl_min_protocol_version",
            "is above ssl_max_protocol_version",
        ));
    }
    let files = Files {
        parameters,
        folder: sources.and_then(Sources::certificates),
        are_read: mode != SslMode::Disable && !is_local,
    };
    let root = files.root(mode)?;
    Ok(TlsSettings {
        mode,
        negotiation,
        revocation: files.revocation(&root)?,
        root,
        identity: files.identity(certificate_mode)?,
        certificate_mode,
        sni: parameters.get("sslsni").is_none_or(|text| text.starts_with('1')),
        min_version,
        max_version,
    })
}

/// An empty value takes the bound away.
fn version(parameters: &Parameters, key: &str, default: Option<TlsVersion>) -> Result<Option<TlsVersion>, Refusal> {
    const VERSIONS: [(&str, TlsVersion); 4] = [
        ("TLSv1", TlsVersion::V1),
        ("TLSv1.1", TlsVersion::V1_1),
        ("TLSv1.2", TlsVersion::V1_2),
        ("TLSv1.3", TlsVersion::V1_3),
    ];
    match parameters.get(key) {
        None => Ok(default),
        Some("") => Ok(None),
        Some(text) => {
            let found = VERSIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
            let what = "must be one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3";
            found
                .map(|(_, version)| Some(*version))
                .ok_or_else(|| bad(parameters, key, what))
        }
    }
}

struct Files<'a> {
    parameters: &'a Parameters,
    /// Where the user's own are.
    folder: Option<PathBuf>,
    /// Where there is anything to encrypt.
    are_read: bool,
}

impl Files<'_> {
    fn root(&self, mode: SslMode) -> Result<RootCertificates, Refusal> {
        const KEY: &str = "sslrootcert";
        if self.parameters.get(KEY) == Some("system") {
            if mode != SslMode::VerifyFull {
                return Err(bad(self.parameters, KEY, "is system, which needs sslmode=verify-full"));
            }
            return Ok(RootCertificates::System);
        }
        if !self.are_read {
            return Ok(RootCertificates::Absent);
        }
        match self.file(KEY, "root.crt")? {
            Some(file) => Ok(RootCertificates::Pem(file)),
            None if mode >= SslMode::VerifyCa => Err(bad(
                self.parameters,
                KEY,
                "names no file that exists, and sslmode wants the server's certificate verified",
            )),
            None => Ok(RootCertificates::Absent),
        }
    }

    /// A list that is named has to be there: libpq goes on without it, and would trust what was revoked.
    fn revocation(&self, root: &RootCertificates) -> Result<Vec<PemFile>, Refusal> {
        if *root == RootCertificates::Absent || !self.are_read {
            return Ok(Vec::new());
        }
        let named = self.parameters.filled("sslcrl");
        let folder = self.parameters.filled("sslcrldir");
        let mut lists = Vec::new();
        if named.is_some() || folder.is_none() {
            lists.extend(self.file("sslcrl", "root.crl")?);
        }
        if named.is_some() && lists.is_empty() {
            return Err(bad(self.parameters, "sslcrl", "names no file that exists"));
        }
        if let Some(folder) = folder {
            lists.extend(self.all_in(Path::new(folder))?);
        }
        Ok(lists)
    }

    /// The files of a folder, by name.
    fn all_in(&self, folder: &Path) -> Result<Vec<PemFile>, Refusal> {
        let failed = |error: io::Error| bad(self.parameters, "sslcrldir", &format!("could not be read: {error}"));
        let entries = fs::read_dir(folder).map_err(failed)?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        let lists = paths
            .into_iter()
            .map(|path| self.read("sslcrldir", path))
            .collect::<Result<Vec<_>, _>>()?;
        if lists.is_empty() {
            return Err(bad(self.parameters, "sslcrldir", "has no file in it"));
        }
        Ok(lists.into_iter().flatten().collect())
    }

    fn identity(&self, certificate_mode: CertificateMode) -> Result<Option<ClientIdentity>, Refusal> {
        if !self.are_read || certificate_mode == CertificateMode::Disable {
            return Ok(None);
        }
        let Some(certificate) = self.file("sslcert", "postgresql.crt")? else {
            return match certificate_mode {
                CertificateMode::Require => Err(bad(
                    self.parameters,
                    "sslcertmode",
                    "is require, and there is no certificate (sslcert)",
                )),
                _ => Ok(None),
            };
        };
        if cfg!(unix) && self.parameters.filled("sslkey").is_some_and(|text| text.contains(':')) {
            return Err(bad(
                self.parameters,
                "sslkey",
                "has a colon, by which libpq names an OpenSSL engine",
            ));
        }
        let Some(key) = self.file("sslkey", "postgresql.key")? else {
            return Err(bad(
                self.parameters,
                "sslkey",
                "names no file that exists, and there is a certificate",
            ));
        };
        self.check_mode(&key.path)?;
        Ok(Some(ClientIdentity {
            certificate,
            key,
            key_password: self.parameters.filled("sslpassword").map(Secret::new),
        }))
    }

    /// The named file, or else the user's own of that name; `None` if it does not exist.
    fn file(&self, key: &str, own: &str) -> Result<Option<PemFile>, Refusal> {
        let named = self.parameters.filled(key).map(PathBuf::from);
        match named.or_else(|| Some(self.folder.as_ref()?.join(own))) {
            Some(path) => self.read(key, path),
            None => Ok(None),
        }
    }

    fn read(&self, key: &str, path: PathBuf) -> Result<Option<PemFile>, Refusal> {
        let failed = |what: String| {
            bad(
                self.parameters,
                key,
                &format!("({}) could not be read: {what}", path.display()),
            )
        };
        match fs::metadata(&path) {
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error.to_string())),
            Ok(_) => {}
        }
        let bytes = read_file(&path).map_err(|error| failed(error.to_string()))?;
        Ok(Some(PemFile {
            path,
            bytes: bytes.into(),
        }))
    }

    /// libpq's rule for the private key: a plain file, of ours and closed to others, or root's and at most readable by us.
    fn check_mode(&self, path: &Path) -> Result<(), Refusal> {
        let shown = path.display();
        let about = fs::metadata(path);
        let about = about.map_err(|error| bad(self.parameters, "sslkey", &format!("({shown}): {error}")))?;
        if !about.is_file() {
            return Err(bad(
                self.parameters,
                "sslkey",
                &format!("({shown}) is not a plain file"),
            ));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let others = if about.uid() == 0 { 0o037 } else { 0o077 };
            if about.mode() & others != 0 {
                return Err(bad(
                    self.parameters,
                    "sslkey",
                    &format!("({shown}) may be used by others: its mode must be 0600 or less, or 0640 if it is root's"),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use super::super::super::conninfo::{Sources, parse};
    use super::super::super::target::{RootCertificates, SslMode, TlsSettings};
    use super::settings;

    /// A home with the user's own certificates in it.
    struct Home(PathBuf);

    impl Home {
        fn new(name: &str) -> Self {
            let home = std::env::temp_dir().join(format!("gdbpool-tls-{}-{name}", std::process::id()));
            fs::create_dir_all(home.join(".postgresql/lists")).expect("make a home");
            Self(home)
        }

        fn with(self, name: &str, mode: u32) -> Self {
            let path = self.0.join(".postgresql").join(name);
            fs::write(&path, name).expect("write a file");
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set its mode");
            self
        }

        fn path(&self, name: &str) -> String {
            self.0.join(".postgresql").join(name).display().to_string()
        }

        fn settings(&self, text: &str) -> Result<TlsSettings, String> {
            let sources = Sources {
                home: Some(self.0.clone()),
                ..Sources::default()
            };
            let mut parameters = parse(text).expect("a sound string");
            parameters.complete(Some(&sources)).expect("sound sources");
            settings(&parameters, Some(&sources), false).map_err(|refusal| refusal.to_string())
        }

        #[track_caller]
        fn refuses(&self, text: &str, part: &str) {
            let refusal = self.settings(text).expect_err(text);
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }

    impl Drop for Home {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_users_own_files_are_found_and_named_ones_go_before() {
        let files = [
            "root.crt",
            "root.crl",
            "postgresql.crt",
            "other.crt",
            "lists/b",
            "lists/a",
        ];
        let home = files
            .into_iter()
            .fold(Home::new("own"), |home, name| home.with(name, 0o644));
        let home = home.with("postgresql.key", 0o600).with("other.key", 0o600);
        let found = home.settings("").expect("sound files");
        assert_eq!(found.mode, SslMode::Prefer);
        assert!(matches!(&found.root, RootCertificates::Pem(file) if &*file.bytes == b"root.crt"));
        assert_eq!(found.revocation.len(), 1);
        let identity = found.identity.expect("a certificate");
        assert_eq!(
            (&*identity.certificate.bytes, &*identity.key.bytes),
            (&b"postgresql.crt"[..], &b"postgresql.key"[..])
        );

        let text = format!("sslcert={} sslkey={}", home.path("other.crt"), home.path("other.key"));
        let identity = home
            .settings(&text)
            .expect("sound files")
            .identity
            .expect("a certificate");
        assert_eq!(&*identity.certificate.bytes, b"other.crt");
        let lists = home
            .settings(&format!("sslcrldir={}", home.path("lists")))
            .expect("sound files")
            .revocation;
        assert_eq!(
            lists.iter().map(|list| &*list.bytes).collect::<Vec<_>>(),
            [b"lists/a", b"lists/b"]
        );

        let none = home.settings("sslmode=disable").expect("nothing is read");
        assert!(none.root == RootCertificates::Absent && none.identity.is_none() && none.revocation.is_empty());
        assert!(
            home.settings("sslcertmode=disable")
                .expect("sound files")
                .identity
                .is_none()
        );
        assert_eq!(
            home.settings("sslrootcert=system").expect("sound").root,
            RootCertificates::System
        );
    }

    #[test]
    fn what_is_missing_counts_where_it_must() {
        let home = Home::new("missing");
        let found = home
            .settings("sslmode=require sslrootcert=/nowhere/x sslcert=/nowhere/y")
            .expect("as libpq");
        assert!(found.root == RootCertificates::Absent && found.identity.is_none());
        home.refuses("sslmode=verify-ca", "sslrootcert");
        home.refuses("sslmode=verify-full sslrootcert=/nowhere/x", "sslrootcert");
        home.refuses("sslcertmode=require", "sslcertmode");
        let home = home.with("root.crt", 0o644).with("postgresql.crt", 0o644);
        home.refuses("", "sslkey");
        home.refuses("sslkey=engine:key", "sslkey");
        home.refuses("sslcertmode=disable sslcrl=/nowhere/x", "sslcrl");
        home.refuses("sslcertmode=disable sslcrldir=/nowhere", "sslcrldir");
        home.refuses(
            &format!("sslcertmode=disable sslcrldir={}", home.path("lists")),
            "sslcrldir has no file",
        );
    }

    #[test]
    fn for_unix_sockets_alone_nothing_is_read() {
        let home = Home::new("local")
            .with("postgresql.crt", 0o644)
            .with("postgresql.key", 0o644);
        let sources = Sources {
            home: Some(home.0.clone()),
            ..Sources::default()
        };
        for text in [
            "",
            "sslmode=verify-full",
            "sslmode=verify-ca sslrootcert=/nowhere/x sslcrl=/nowhere/y",
            "sslrootcert=system sslcrl=/nowhere/x",
        ] {
            let parameters = parse(text).and_then(|mut parameters| {
                parameters.complete(Some(&sources))?;
                Ok(parameters)
            });
            let parameters = parameters.expect("sound");
            let found = settings(&parameters, Some(&sources), true).expect(text);
            assert!(found.identity.is_none() && found.revocation.is_empty(), "{text}");
            assert!(settings(&parameters, Some(&sources), false).is_err(), "{text}");
        }
        let weak = parse("sslmode=require sslrootcert=system").expect("a sound string");
        assert!(settings(&weak, Some(&sources), true).is_err(), "as libpq has it");
    }

    #[test]
    fn a_key_that_others_may_use_is_refused() {
        for (mode, taken) in [
            (0o600, true),
            (0o400, true),
            (0o644, false),
            (0o660, false),
            (0o601, false),
        ] {
            let home = Home::new("key")
                .with("postgresql.crt", 0o644)
                .with("postgresql.key", mode);
            match home.settings("") {
                Ok(_) => assert!(taken, "{mode:o}"),
                Err(refusal) => assert!(!taken && refusal.contains("sslkey"), "{mode:o}: {refusal}"),
            }
        }
    }

    #[test]
    fn a_file_without_an_end_is_not_read_for_ever() {
        if Path::new("/dev/zero").exists() {
            Home::new("endless").refuses("sslmode=verify-ca sslrootcert=/dev/zero", "larger than 16 MiB");
        }
    }
}
