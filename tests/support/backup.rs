//! A copy of a running server's data, to start a standby from.
//!
//! Below `cluster.rs`. It uses the server's own backup functions, the same on every version (15 and later); the registry
//! packages carry no `pg_basebackup`, and an older one refuses a newer server.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;

use super::Cluster;
use super::server::{give_to_server, psql};

/// Copies the data of `primary` to the new folder `data`, set up to start as a standby.
pub(super) fn take(primary: &Cluster, data: &Path) {
    let source = primary.watchdog.data();
    // The backup belongs to one server session, which must stay open while the files are copied.
    let mut command = psql(&primary.admin_dsn("postgres"));
    let mut session = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run psql");
    let mut input = session.stdin.take().expect("psql's input");
    let mut output = BufReader::new(session.stdout.take().expect("psql's output"));

    writeln!(
        input,
        "SET client_min_messages = warning; SELECT pg_backup_start('standby', true);"
    )
    .expect("tell psql");
    let mut started = String::new();
    output.read_line(&mut started).expect("psql's answer");
    assert!(started.contains('/'), "the server did not start a backup");

    let copied = copy_folder(&source, data);

    writeln!(input, "SELECT labelfile FROM pg_backup_stop(false);").expect("tell psql");
    drop(input);
    let mut label = String::new();
    output.read_to_string(&mut label).expect("psql's answer");
    assert!(
        session.wait().is_ok_and(|status| status.success()),
        "the server did not finish the backup"
    );
    copied.expect("copy the server's data");

    for (name, text) in [("backup_label", label.trim_start()), ("standby.signal", "")] {
        fs::write(data.join(name), text).expect("write a file of the standby");
        give_to_server(&data.join(name)).expect("hand a file to the servers' user");
    }
}

/// Files may come and go while they are copied; the WAL that is replayed over the copy makes up for it.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    give_to_server(to)?;
    let contents_wanted = !EMPTY_FOLDERS.iter().any(|name| from.ends_with(name));
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if !contents_wanted || LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let copied = match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_folder(&entry.path(), &target),
            Ok(_) => fs::copy(entry.path(), &target).and_then(|_| give_to_server(&target)),
            Err(error) => Err(error),
        };
        match copied {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// Copied as folders, without what is in them: the server says so in its manual's chapter on backups.
const EMPTY_FOLDERS: [&str; 8] = [
    "pg_dynshmem",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_wal",
];

const LEFT_OUT: [&str; 3] = ["pg_internal.init", "postmaster.opts", "postmaster.pid"];
