//! The one explicit reader of the process's environment, and of the files libpq's users keep.
//!
//! A value: it is read once, where the application says so, and can be made by hand. Nothing else in the library looks at
//! variables, home folders or the user's name.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use super::conninfo::{KEYS, Sources, VARIABLES};
use crate::error::{BadInput, Error};

/// What a process knows beside its connection strings: libpq's variables (`PGHOST`, `PGPASSWORD` and the others), the home
/// folder with `.pgpass`, `.pg_service.conf` and `.postgresql/`, and the user's name.
///
/// For [`PoolConfig::from_environment`](crate::PoolConfig::from_environment), which reads the files; the page
/// [`connecting`](crate::connecting) lists what counts. Secrets in it do not show in `Debug`.
///
/// ```
/// use gdbpool::{Environment, PoolConfig};
///
/// // Environment::read() takes the process's; in a test, say, it is made by hand.
/// let environment = Environment::empty().variable("PGHOST", "db1").variable("PGUSER", "app");
/// let config = PoolConfig::from_environment("primary", "dbname=shop", &environment)?;
/// # Ok::<(), gdbpool::Error>(())
/// ```
#[derive(Clone)]
pub struct Environment {
    pub(super) sources: Sources,
}

impl Environment {
    /// Nothing at all: no variable, no home folder, no user.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            sources: Sources::default(),
        }
    }

    /// The process's: its variables, home folder and user, and where this machine keeps PostgreSQL's socket
    /// (`/var/run/postgresql`, else `/tmp`) and `pg_service.conf` (`/etc/postgresql-common`, `/etc/sysconfig/pgsql`).
    ///
    /// Looks into the file system and the list of users, and may block for that time; it opens none of the files yet.
    ///
    /// # Errors
    /// [`BadInput::Dsn`] with the name of a variable whose value is not UTF-8.
    pub fn read() -> Result<Self, Error> {
        let mut sources = Sources {
            home: home(),
            user: whoami::username().ok().filter(|name| !name.is_empty()),
            ..Sources::default()
        };
        if cfg!(unix) {
            let debian = Path::new("/var/run/postgresql");
            sources.socket_folder = Some(if debian.is_dir() { debian } else { Path::new("/tmp") }.to_owned());
            sources.system_folders = ["/etc/postgresql-common", "/etc/sysconfig/pgsql"]
                .map(PathBuf::from)
                .into();
        }
        for name in KEYS.iter().filter_map(|key| key.variable).chain(VARIABLES) {
            if let Some(value) = env::var_os(name) {
                sources.variables.insert(name.to_owned(), text(name, &value)?);
            }
        }
        Ok(Self { sources })
    }

    /// With this variable, instead of what it was. An empty value is a value. Names that libpq does not know are without
    /// effect.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Without this variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.sources.variables.remove(name);
        self
    }

    /// With this home folder, for `.pgpass`, `.pg_service.conf` and `.postgresql/`. (On Windows, the folder that has
    /// `pgpass.conf` in it.)
    #[must_use]
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Self {
        self.sources.home = Some(folder.into());
        self
    }

    /// With this user's name, for connection strings that name no user.
    #[must_use]
    pub fn user(mut self, name: &str) -> Self {
        self.sources.user = Some(name.to_owned()).filter(|name| !name.is_empty());
        self
    }

    /// With this folder for the local server's socket, for connection strings that name no host. Without one they mean
    /// `localhost`.
    #[must_use]
    pub fn socket_folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.sources.socket_folder = Some(folder.into());
        self
    }
}

fn text(name: &str, value: &OsStr) -> Result<String, Error> {
    value.to_str().map(str::to_owned).ok_or_else(|| {
        Error::bad_input(BadInput::Dsn {
            reason: format!("the variable {name} is not UTF-8"),
        })
    })
}

fn home() -> Option<PathBuf> {
    if cfg!(windows) {
        return Some(PathBuf::from(env::var_os("APPDATA")?).join("postgresql"));
    }
    env::home_dir().filter(|folder| !folder.as_os_str().is_empty())
}

/// Variables by name only.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.sources.variables.keys().collect();
        f.debug_struct("Environment")
            .field("variables", &names)
            .field("home", &self.sources.home)
            .field("user", &self.sources.user)
            .field("socket_folder", &self.sources.socket_folder)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::conninfo::{KEYS, VARIABLES};
    use super::Environment;

    #[test]
    fn the_page_names_every_key_and_variable() {
        let page = include_str!("connecting.md");
        for key in &KEYS {
            let row = match key.variable {
                Some(variable) => format!("| `{}` | `{variable}` | ", key.name),
                None => format!("| `{}` | | ", key.name),
            };
            assert!(page.contains(&row), "the page has no row {row:?}");
        }
        for variable in VARIABLES {
            assert!(
                page.contains(&format!("`{variable}`")),
                "the page does not say what {variable} is"
            );
        }
    }

    #[test]
    fn nothing_secret_shows() {
        let environment = Environment::empty().variable("PGPASSWORD", "hunter2").user("u");
        let shown = format!("{environment:?} {environment:#?}");
        assert!(shown.contains("PGPASSWORD") && !shown.contains("hunter2"), "{shown}");
    }
}
