//! Which libpq there is to compare with.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use gdbpool_libpq::Libpq;

#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) name: String,
    pub(crate) libpq: Libpq,
}

/// Version 18, which `tests/run.sh` fetches with its server, and the machine's.
///
/// # Panics
/// Without one of them; the message says what to install.
pub(crate) fn libraries() -> &'static [Library] {
    static LIBRARIES: OnceLock<Vec<Library>> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        // By its bare name, and therefore first: once another one is loaded, the name would mean that.
        let machine = load(Path::new("libpq.so.5"), "install the package libpq5");
        let fetched = load(&fetched(), "run `sh tests/run.sh --setup`");
        assert!(fetched.libpq.version() >= 180_000, "{} is too old", fetched.name);
        vec![fetched, machine]
    })
}

/// Version 18.
pub(crate) fn newest() -> &'static Library {
    &libraries()[0]
}

fn load(path: &Path, hint: &str) -> Library {
    let libpq = Libpq::open(path).unwrap_or_else(|error| panic!("no libpq: {hint} ({error})"));
    let name = format!("libpq {}", libpq.version());
    Library { name, libpq }
}

fn fetched() -> PathBuf {
    let folder = match env::var_os("GDBPOOL_PG18_BIN") {
        Some(programs) => PathBuf::from(programs).join("../lib"),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgres-18/lib"),
    };
    folder.join("libpq.so.5")
}
