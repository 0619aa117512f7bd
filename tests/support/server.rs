//! Where the machine's PostgreSQL binaries are, and as which user they can run.
//!
//! Below `cluster.rs`. It finds and runs programs; it knows nothing of data folders or ports.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::OnceLock;

/// Which PostgreSQL to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// The machine's own: version 15 where it is installed, else the newest there is. Folder: `GDBPOOL_PG15_BIN`.
    V15,
    /// Version 18, as fetched by `tests/run.sh`. Folder: `GDBPOOL_PG18_BIN`.
    V18,
}

impl Server {
    /// The folder of the server's binaries (`postgres`, `initdb`).
    ///
    /// # Panics
    ///
    /// When there are none; the message says what to do.
    pub(super) fn binaries(self) -> PathBuf {
        static V15: OnceLock<PathBuf> = OnceLock::new();
        static V18: OnceLock<PathBuf> = OnceLock::new();
        match self {
            Self::V15 => V15.get_or_init(|| self.find("GDBPOOL_PG15_BIN", installed)).clone(),
            Self::V18 => V18.get_or_init(|| self.find("GDBPOOL_PG18_BIN", fetched)).clone(),
        }
    }

    fn find(self, variable: &str, search: fn() -> Option<PathBuf>) -> PathBuf {
        let found = match env::var_os(variable) {
            Some(folder) => Some(PathBuf::from(folder)).filter(|folder| has_server(folder)),
            None => search(),
        };
        let folder = found.unwrap_or_else(|| {
            panic!(
                "no PostgreSQL binaries for {self:?}: run `sh tests/run.sh --setup`, or set {variable} to their folder"
            )
        });
        reachable(folder)
    }
}

/// A user and group that server programs run as; they refuse to run as root.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// The current user; when that is root, `postgres` or else `nobody`.
    pub(super) fn for_servers() -> Option<Self> {
        if current_uid() != 0 {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("read the list of users");
        let account = ["postgres", "nobody"]
            .iter()
            .find_map(|name| Self::named(name, &passwd));
        Some(account.expect("a user `postgres` or `nobody`, because servers refuse to run as root"))
    }

    fn named(name: &str, passwd: &str) -> Option<Self> {
        let entry = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = entry.split(':').skip(2);
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { uid, gid })
    }
}

/// A command that runs as the servers' user, in a folder that user can enter, with nothing of ours in its environment.
pub(super) fn server_command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    without_libpq_variables(&mut command);
    if let Some(Account { uid, gid }) = Account::for_servers() {
        command.uid(uid).gid(gid);
    }
    command
}

/// Hands `path` to the servers' user.
pub(super) fn give_to_server(path: &Path) -> io::Result<()> {
    match Account::for_servers() {
        Some(Account { uid, gid }) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// Runs SQL with `psql` wherever `dsn` leads; the error is what `psql` said.
pub(crate) fn try_psql_at(dsn: &str, sql: &str) -> Result<String, String> {
    let output = psql(dsn)
        .args(["-c", sql])
        .stdin(Stdio::null())
        .output()
        .expect("run psql");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned())
    }
}

/// A `psql` that prints bare values and stops at the first error; the machine's own speaks to newer servers as well.
pub(super) fn psql(dsn: &str) -> Command {
    let folders = installed().into_iter().chain(debian_folders()).chain(path_folders());
    let program = folders
        .map(|folder| folder.join("psql"))
        .find(|program| program.is_file());
    let mut command = Command::new(program.expect("a `psql`: run `sh tests/run.sh --setup`"));
    without_libpq_variables(&mut command);
    command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", dsn]);
    command.env("PGCONNECT_TIMEOUT", "30");
    command
}

/// A stray PGOPTIONS or PGSSLMODE must not decide how a test runs.
fn without_libpq_variables(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
}

fn current_uid() -> u32 {
    fs::metadata("/proc/self").expect("a /proc file system").uid()
}

fn has_server(folder: &Path) -> bool {
    ["postgres", "initdb"]
        .iter()
        .all(|program| folder.join(program).is_file())
}

fn installed() -> Option<PathBuf> {
    let by_pg_config = Command::new("pg_config").arg("--bindir").output().ok().map(|output| {
        let folder = String::from_utf8_lossy(&output.stdout);
        PathBuf::from(folder.trim())
    });
    let folders = debian_folders().into_iter().chain(by_pg_config).chain(path_folders());
    folders.into_iter().find(|folder| has_server(folder))
}

/// Debian keeps each version's programs apart: 15 first, then the newest.
fn debian_folders() -> Vec<PathBuf> {
    let entries = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_by_key(|version| (*version != 15, u32::MAX - version));
    versions
        .into_iter()
        .map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")))
        .collect()
}

fn path_folders() -> Vec<PathBuf> {
    env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default()
}

/// `target/postgres-18` of this repository; workspaces inside it (benches) look upwards.
fn fetched() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .map(|folder| folder.join("target/postgres-18/bin"))
        .find(|folder| has_server(folder))
}

/// `folder` if the servers' user can run what is in it, else a copy in the temporary folder.
///
/// A repository under a home folder is often closed to other users. The copy is kept for the next run.
fn reachable(folder: PathBuf) -> PathBuf {
    if runs(&folder) {
        return folder;
    }
    let installation = folder.parent().expect("binaries in a `bin` folder");
    let stamp = fs::metadata(folder.join("postgres"))
        .map(|file| (file.len(), file.mtime()))
        .expect("the server's file");
    let copy = env::temp_dir().join(format!("gdbpool-postgres-{}-{}", stamp.0, stamp.1));
    if !is_ours(&copy) {
        let draft = env::temp_dir().join(format!("gdbpool-postgres-draft-{}", process::id()));
        let copied = Command::new("cp").arg("-R").arg(installation).arg(&draft).status();
        assert!(
            copied.is_ok_and(|status| status.success()),
            "cannot copy {} to {}",
            folder.display(),
            draft.display()
        );
        let opened = Command::new("chmod").args(["-R", "a+rX"]).arg(&draft).status();
        assert!(
            opened.is_ok_and(|status| status.success()),
            "cannot open {} to others",
            draft.display()
        );
        // Losing this race to another test binary is as good as winning it.
        if fs::rename(&draft, &copy).is_err() {
            let _ = fs::remove_dir_all(&draft);
        }
    }
    let bin = copy.join("bin");
    assert!(
        is_ours(&copy) && runs(&bin),
        "the PostgreSQL binaries in {} do not run",
        bin.display()
    );
    bin
}

/// Nobody else may have put a folder of programs there.
fn is_ours(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|folder| folder.is_dir() && folder.uid() == current_uid())
}

fn runs(folder: &Path) -> bool {
    let version = server_command(&folder.join("postgres"), Path::new("/"))
        .arg("--version")
        .output();
    version.is_ok_and(|output| output.status.success())
}
