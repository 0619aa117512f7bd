//! A child process that cleans up after one server: stops it and removes its temporary folder.
//!
//! Below `cluster.rs`. It acts when its standard input ends, which happens on drop and also when this process is killed
//! in any way. So there is one way to clean up, and it always runs. It signals only the process that holds the lock file
//! of this folder's data and was started on it.

use std::env;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::server::give_to_server;

/// Owns a temporary folder and the server in it.
#[derive(Debug)]
pub(super) struct Watchdog {
    child: Child,
    folder: PathBuf,
}

impl Watchdog {
    /// Makes a new temporary folder, owned by the servers' user, and starts guarding it.
    pub(super) fn start() -> Self {
        let folder = new_folder();
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(SCRIPT)
            .arg("watchdog")
            .arg(&folder)
            .current_dir("/");
        // Its own group: a Ctrl-C or a kill of the whole group of tests must not reach it.
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        let watchdog = Self {
            child: command.spawn().expect("run sh"),
            folder,
        };
        give_to_server(&watchdog.folder).expect("hand the folder to the servers' user");
        watchdog
    }

    /// Has the server stopped and the folder removed, and waits for it.
    pub(super) fn finish(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }

    /// The folder, which also holds the Unix socket.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder's own name, unique on this machine.
    pub(super) fn name(&self) -> String {
        self.folder.file_name().expect("a name").to_string_lossy().into_owned()
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The server's log.
    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.finish();
    }
}

fn new_folder() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let parent = env::temp_dir().canonicalize().expect("a temporary folder");
    loop {
        let folder = parent.join(format!(
            "gdbpool-{}-{}",
            process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        match fs::create_dir(&folder) {
            Ok(()) => return folder,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => panic!("cannot make {}: {error}", folder.display()),
        }
    }
}

/// An immediate stop, 10 s later a hard one. A zombie has an empty command line, so it counts as gone.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
cat
folder=$1
pid=$(head -n 1 "$folder/data/postmaster.pid")
runs() { [ -n "$pid" ] && grep -qF "$folder/data" "/proc/$pid/cmdline"; }
if runs; then
    kill -QUIT "$pid"
    tries=0
    while runs && [ $tries -lt 200 ]; do
        sleep 0.05
        tries=$((tries + 1))
    done
    if runs; then kill -KILL "$pid"; fi
fi
for _ in 1 2 3 4 5; do
    rm -rf "$folder" && exit 0
    sleep 0.2
done
exit 1
"#;
