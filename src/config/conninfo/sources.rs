//! Where values come from that a connection string does not give: the service file, then the environment's variables.
//!
//! What libpq's `conninfo_add_defaults` does, except for compiled-in defaults, which are `resolve`'s. Reads the service
//! files and nothing else; variables and folders are given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{KEYS, Key, Origin, Parameters, Refusal, keys, read_file, service};

/// Variables that are no key's: server settings that libpq sends at start-up, with their names.
pub(crate) const SETTINGS: [(&str, &str); 3] = [("PGDATESTYLE", "datestyle"), ("PGTZ", "timezone"), ("PGGEQO", "geqo")];

/// All variables that mean something, beside those of [`KEYS`].
pub(crate) const VARIABLES: [&str; 5] = ["PGDATESTYLE", "PGGEQO", "PGREQUIRESSL", "PGSYSCONFDIR", "PGTZ"];

/// What a process knows beside the connection string.
#[derive(Clone, Default)]
pub(crate) struct Sources {
    pub(crate) variables: BTreeMap<String, String>,
    /// The user's home folder; on Windows, `%APPDATA%\postgresql`.
    pub(crate) home: Option<PathBuf>,
    /// The name of the process's user.
    pub(crate) user: Option<String>,
    /// Where a local server's socket is.
    pub(crate) socket_folder: Option<PathBuf>,
    /// Where `pg_service.conf` may be; the first that has one counts, and `PGSYSCONFDIR` before all.
    pub(crate) system_folders: Vec<PathBuf>,
}

impl Parameters {
    /// Adds what is not given, from the service and the environment, if there are any, and what follows from what is given.
    pub(crate) fn complete(&mut self, sources: Option<&Sources>) -> Result<(), Refusal> {
        if let Some(sources) = sources {
            self.add_service(sources)?;
            self.add_variables(sources);
        }
        if self.get("sslmode").is_none() && self.get("sslrootcert") == Some("system") {
            let origin = self.origin("sslrootcert").unwrap_or(Origin::Given);
            self.add("sslmode", "verify-full", origin);
        }
        Ok(())
    }

    fn add(&mut self, name: &str, text: &str, origin: Origin) {
        if let Some(key) = keys::find(name).filter(|key| self.get(key.name).is_none()) {
            self.set(key, text, origin);
        }
    }

    fn add_service(&mut self, sources: &Sources) -> Result<(), Refusal> {
        let Some(service) = self.get("service").or_else(|| sources.variable("PGSERVICE")) else {
            return Ok(());
        };
        let own = self.get("servicefile").or_else(|| sources.variable("PGSERVICEFILE"));
        for (key, text) in sources.service(service, own)? {
            self.add(key.name, &text, Origin::Service);
        }
        Ok(())
    }

    fn add_variables(&mut self, sources: &Sources) {
        for key in &KEYS {
            if let Some(variable) = key.variable
                && let Some(text) = sources.variable(variable)
            {
                self.add(key.name, text, Origin::Variable(variable));
            }
        }
        if sources
            .variable("PGREQUIRESSL")
            .is_some_and(|text| text.starts_with('1'))
        {
            self.add("sslmode", "require", Origin::Variable("PGREQUIRESSL"));
        }
    }
}

impl Sources {
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The user's password file, unless another one is named.
    pub(crate) fn password_file(&self) -> Option<PathBuf> {
        let name = if cfg!(windows) { "pgpass.conf" } else { ".pgpass" };
        self.home.as_ref().map(|home| home.join(name))
    }

    /// The folder of the user's certificates.
    pub(crate) fn certificates(&self) -> Option<PathBuf> {
        let home = self.home.clone()?;
        Some(if cfg!(windows) { home } else { home.join(".postgresql") })
    }

    /// The section of `service`; `own` is the user's file if it is named, which must exist then.
    fn service(&self, service: &str, own: Option<&str>) -> Result<Vec<(&'static Key, String)>, Refusal> {
        let own = match own {
            Some(named) => Some(PathBuf::from(named)),
            None => self
                .home
                .as_ref()
                .map(|home| home.join(".pg_service.conf"))
                .filter(|file| file.exists()),
        };
        let system = match self.variable("PGSYSCONFDIR") {
            Some(folder) => vec![PathBuf::from(folder)],
            None => self.system_folders.clone(),
        };
        let system = system.into_iter().map(|folder| folder.join("pg_service.conf"));
        let files = own.into_iter().chain(system.filter(|file| file.exists()).take(1));
        for file in files {
            if let Some(entries) = service::section(&read(&file)?, service, &shown(&file))? {
                return Ok(entries);
            }
        }
        Err(Refusal::new("service names one that no service file defines"))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, Refusal> {
    read_file(file).map_err(|error| Refusal::new(format!("{} could not be read: {error}", shown(file))))
}

fn shown(file: &Path) -> String {
    format!("the service file {}", file.display())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::{Sources, VARIABLES};

    fn completed(text: &str, variables: &[(&str, &str)]) -> Vec<(&'static str, String)> {
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let sources = Sources {
            variables: variables.collect(),
            ..Sources::default()
        };
        let mut parameters = parse(text).expect("a sound string");
        parameters.complete(Some(&sources)).expect("sound sources");
        parameters.iter().map(|(key, text)| (key, text.to_owned())).collect()
    }

    #[test]
    fn the_string_goes_before_the_environment() {
        let found = completed("host=a port=", &[("PGHOST", "b"), ("PGPORT", "1"), ("PGUSER", "")]);
        let expected = [("host", "a"), ("port", ""), ("user", "")];
        assert_eq!(found, expected.map(|(key, text)| (key, text.to_owned())));
    }

    #[test]
    fn sslmode_follows_from_others() {
        for (text, variables, mode) in [
            ("", vec![("PGREQUIRESSL", "1")], Some("require")),
            ("", vec![("PGREQUIRESSL", "yes")], None),
            ("", vec![("PGREQUIRESSL", "1"), ("PGSSLMODE", "allow")], Some("allow")),
            ("sslrootcert=system", vec![], Some("verify-full")),
            ("sslrootcert=system", vec![("PGREQUIRESSL", "1")], Some("require")),
        ] {
            let found = completed(text, &variables);
            let found = found.iter().find(|(key, _)| *key == "sslmode").map(|(_, text)| &**text);
            assert_eq!(found, mode, "{text:?} {variables:?}");
        }
        assert!(VARIABLES.is_sorted());
    }
}
