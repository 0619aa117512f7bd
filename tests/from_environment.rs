//! Promise: `PoolConfig::from_environment` reaches the server that `psql` reaches in the same surroundings, as the same user,
//! with the same settings and the password from the same file; and where `psql` gets no password, there is none here.

#[path = "support/runtimes.rs"]
mod runtimes;
mod support;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use gdbpool::{BadInput, BoxFuture, ConnectionPool, Environment, ErrorKind, PoolConfig, Runtime};

use runtimes::{on_each, until};
use support::{Auth, Cluster, ClusterOptions, Server};

/// With everything in it that a password file escapes.
const PASSWORD: &str = "it's : a \\ secret";

/// Who we are and what is set.
const QUESTION: &str = "SELECT concat_ws('|', current_user, current_database(), current_setting('application_name'), \
                        current_setting('TimeZone'), current_setting('geqo'), current_setting('search_path'))";

/// A home folder and variables, for us and for `psql`.
#[derive(Clone)]
struct Surroundings {
    dsn: String,
    home: PathBuf,
    variables: BTreeMap<&'static str, String>,
}

impl Surroundings {
    fn new(name: &str, dsn: &str) -> Self {
        let home = env::temp_dir().join(format!("gdbpool-from-environment-{}-{name}", std::process::id()));
        fs::create_dir_all(&home).expect("make a home");
        Self {
            dsn: dsn.to_owned(),
            home,
            variables: BTreeMap::new(),
        }
    }

    fn file(self, name: &str, text: &str, mode: u32) -> Self {
        let path = self.home.join(name);
        fs::write(&path, text).expect("write a file");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set its mode");
        self
    }

    fn variable(mut self, name: &'static str, value: impl ToString) -> Self {
        self.variables.insert(name, value.to_string());
        self
    }

    fn environment(&self) -> Environment {
        let environment = Environment::empty().home(&self.home);
        self.variables.iter().fold(environment, |environment, (name, value)| {
            environment.variable(name, value)
        })
    }

    /// What `psql` is told, or what it says.
    fn psql(&self) -> Result<String, String> {
        let mut psql = Command::new("psql");
        psql.env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home);
        psql.envs(&self.variables)
            .args(["-X", "-A", "-t", "-w", "-c", QUESTION]);
        if !self.dsn.is_empty() {
            psql.args(["-d", &self.dsn]);
        }
        let output = psql.output().expect("a `psql`: run `sh tests/run.sh --setup`");
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// What we are told.
    async fn ours(&self, runtime: Arc<dyn Runtime>) -> String {
        let config = PoolConfig::from_environment("main", &self.dsn, &self.environment()).expect("sound surroundings");
        let pool = ConnectionPool::open(runtime, config).expect("sound settings");
        let lease = pool.checkout().await.expect("a session");
        let answer = lease.query_one(QUESTION, &[]).await.expect("an answer").get(0);
        drop(lease);
        pool.close(Duration::from_secs(5)).await;
        answer
    }
}

fn cluster(server: Server) -> Cluster {
    Cluster::start(ClusterOptions::new(server).auth(Auth::Scram {
        password: PASSWORD.into(),
    }))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace(':', "\\:")
}

/// The same by `psql` and on each runtime, and what it is.
fn same(surroundings: &Surroundings, expected: &str) {
    assert_eq!(surroundings.psql().as_deref(), Ok(expected), "psql");
    let expected: Arc<str> = expected.into();
    on_each(|runtime| -> BoxFuture<'static, ()> {
        let (surroundings, expected) = (surroundings.clone(), Arc::clone(&expected));
        Box::pin(async move { assert_eq!(surroundings.ours(runtime).await, *expected) })
    });
}

#[test]
fn a_service_and_a_password_file() {
    for server in [Server::V15, Server::V18] {
        let cluster = cluster(server);
        let service = format!(
            "[shop]\nhost=127.0.0.1\nport={}\nuser=app\ndbname=template1\n",
            cluster.port()
        );
        let passwords = format!(
            "other:*:*:*:no\n127.0.0.1:{}:*:app:{}\n",
            cluster.port(),
            escaped(PASSWORD)
        );
        let surroundings = Surroundings::new("service", "service=shop application_name=mine dbname=postgres")
            .file(".pg_service.conf", &service, 0o644)
            .file(".pgpass", &passwords, 0o600);
        same(
            &surroundings,
            &format!("app|postgres|mine|{}|on|\"$user\", public", zone(&cluster)),
        );
        fs::remove_dir_all(&surroundings.home).expect("remove the home");
    }
}

#[test]
fn variables_alone() {
    for server in [Server::V15, Server::V18] {
        let cluster = cluster(server);
        let surroundings = Surroundings::new("variables", "")
            .variable("PGHOST", "127.0.0.1")
            .variable("PGPORT", cluster.port())
            .variable("PGUSER", "app")
            .variable("PGDATABASE", "postgres")
            .variable("PGPASSWORD", PASSWORD)
            .variable("PGAPPNAME", "from the environment")
            .variable("PGTZ", "Europe/Lisbon")
            .variable("PGGEQO", "off")
            .variable("PGOPTIONS", "-c search_path=a,\\ b -c TimeZone=UTC");
        same(
            &surroundings,
            "app|postgres|from the environment|Europe/Lisbon|off|a, b",
        );
        fs::remove_dir_all(&surroundings.home).expect("remove the home");
    }
}

#[test]
fn a_socket_and_a_password_file_of_another_name() {
    let cluster = cluster(Server::V18);
    let folder = cluster.socket_dir().display().to_string();
    let named =
        Surroundings::new("socket", "").file("passwords", &format!("{folder}:*:*:*:{}", escaped(PASSWORD)), 0o400);
    let passfile = named.home.join("passwords").display().to_string();
    let named = named
        .variable("PGPASSFILE", passfile)
        .variable("PGHOST", &folder)
        .variable("PGPORT", cluster.port())
        .variable("PGUSER", "app")
        .variable("PGDATABASE", "postgres")
        // Not for Unix sockets: neither asks for the file of the authorities.
        .variable("PGSSLMODE", "verify-full")
        .variable("PGAPPNAME", "x");
    let expected = format!("app|postgres|x|{}|on|\"$user\", public", zone(&cluster));
    same(&named, &expected);

    // The local server's default folder is `localhost` in a password file.
    fs::write(
        named.home.join("passwords.2"),
        format!("localhost:*:*:*:{}", escaped(PASSWORD)),
    )
    .expect("write a file");
    fs::set_permissions(named.home.join("passwords.2"), Permissions::from_mode(0o600)).expect("close it");
    let environment = named.environment().without("PGHOST").socket_folder(&folder);
    let environment = environment.variable("PGPASSFILE", &named.home.join("passwords.2").display().to_string());
    let config = PoolConfig::from_environment("main", "", &environment).expect("sound surroundings");
    on_each(|runtime| -> BoxFuture<'static, ()> {
        let config = config.clone();
        Box::pin(async move {
            let pool = ConnectionPool::open(runtime, config).expect("sound settings");
            drop(pool.checkout().await.expect("a session"));
            pool.close(Duration::from_secs(5)).await;
        })
    });
    fs::remove_dir_all(&named.home).expect("remove the home");
}

#[test]
fn a_password_file_that_others_can_read_is_none() {
    let cluster = cluster(Server::V15);
    let surroundings = Surroundings::new("open", "user=app dbname=postgres host=127.0.0.1")
        .variable("PGPORT", cluster.port())
        .file(".pgpass", &format!("*:*:*:*:{}", escaped(PASSWORD)), 0o644);
    let said = surroundings.psql().expect_err("there is no password");
    assert!(
        said.contains("group or world access") && said.contains("no password supplied"),
        "{said}"
    );
    on_each(|runtime| -> BoxFuture<'static, ()> {
        let surroundings = surroundings.clone();
        Box::pin(async move {
            let environment = surroundings.environment();
            let config = PoolConfig::from_environment("main", &surroundings.dsn, &environment).expect("sound");
            let pool = ConnectionPool::open(Arc::clone(&runtime), config.min_size(1)).expect("sound settings");
            until(&*runtime, "the server refuses", || pool.last_connect_error().is_some()).await;
            let error = format!("{:?}", pool.last_connect_error());
            assert!(error.contains("password missing"), "{error}");
            pool.close(Duration::from_secs(5)).await;
        })
    });
    fs::remove_dir_all(&surroundings.home).expect("remove the home");
}

/// The process's own surroundings can be read; what is bad in them is named.
#[test]
fn the_process_has_an_environment() {
    let environment = Environment::read().expect("variables in UTF-8");
    let environment = environment
        .without("PGHOST")
        .without("PGSERVICE")
        .without("PGPORT")
        .without("PGUSER");
    let config = PoolConfig::from_environment("main", "host=h sslmode=disable", &environment).expect("a user");
    let user = Command::new("id").arg("-un").output().expect("run id").stdout;
    let user = String::from_utf8(user).expect("UTF-8");
    assert!(
        format!("{config:?}").contains(&format!("user: {:?}", user.trim())),
        "{config:?}"
    );

    let environment = Environment::empty().variable("PGPORT", "hunter2").user("u");
    let error = PoolConfig::from_environment("main", "", &environment).expect_err("no port");
    assert!(
        matches!(error.kind(), ErrorKind::BadInput(BadInput::Dsn { .. })),
        "{error:?}"
    );
    let said = error.to_string();
    assert!(said.contains("PGPORT") && !said.contains("hunter2"), "{said}");
}

fn zone(cluster: &Cluster) -> String {
    let dsn = cluster.dsn();
    support::try_psql_at(&dsn, "SHOW timezone").expect("the server's time zone")
}
