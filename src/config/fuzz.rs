//! The door for the fuzz target `dsn`. Compiled for fuzzing only.

use super::conninfo::{Parameters, PasswordFile, Sources, parse, service_section};
use super::resolve;

/// The bytes as a connection string, as a service file and as a password file.
///
/// # Panics
/// Where one of them panics, or a string that was read does not come back the same.
pub fn fuzz_dsn(bytes: &[u8]) {
    let _ = service_section(bytes, "a", "a file");
    let _ = PasswordFile::from(bytes.to_vec()).find("h", "1", "d", "u");
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(parameters) = parse(text) else { return };
    let printed = parameters.print();
    assert_eq!(parse(&printed).as_ref(), Ok(&parameters), "{printed}");
    assert_eq!(parse(&printed).map(|again| again.print()).as_ref(), Ok(&printed));
    // Without what would open files of the machine.
    if reads_files(&parameters) {
        return;
    }
    let sources = Sources {
        user: Some("u".into()),
        socket_folder: Some("/run".into()),
        ..Sources::default()
    };
    let target = resolve::target(text, Some(&sources));
    if let Ok(target) = &target {
        assert!(!target.hosts.is_empty() && !target.user.is_empty());
        assert!(target.hosts.iter().all(|host| host.port > 0));
    }
    let again = resolve::target(&printed, Some(&sources));
    let shown =
        |target: Result<_, _>| target.map_or_else(|error: crate::Error| error.to_string(), |it| format!("{it:?}"));
    assert_eq!(shown(target), shown(again));
}

fn reads_files(parameters: &Parameters) -> bool {
    let keys = [
        "passfile",
        "service",
        "servicefile",
        "sslcert",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslrootcert",
    ];
    keys.iter().any(|key| parameters.get(key).is_some())
}
