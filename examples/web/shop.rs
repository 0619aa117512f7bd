//! The application: a shop's items, a cache of them that a listener keeps honest, and a queue of work on them.
//!
//! Under both `smol.rs` and `async_std.rs`, which give it requests and run its two background tasks. Nothing here knows
//! which runtime it is on.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gdbpool::{Cancel, Error, InteractionPool, ListenEvent, Partial, PoolConfig, Runtime};

use crate::http::{Request, Response};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS shop_items (id int PRIMARY KEY, name text NOT NULL, label text);
    CREATE TABLE IF NOT EXISTS shop_jobs (id bigint GENERATED ALWAYS AS IDENTITY, item int NOT NULL, done timestamptz)";

/// The next job that nobody else is at. It stays locked until the transaction that took it ends.
const NEXT_JOB: &str = "SELECT id, item FROM shop_jobs WHERE done IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";

/// What handlers and tasks share.
pub(crate) struct Shop {
    db: InteractionPool,
    cache: Mutex<Cache>,
    /// Set when the application is to end.
    pub(crate) stop: Cancel,
}

#[derive(Default)]
struct Cache {
    /// Names by item; `None` while the listener cannot vouch for them.
    names: Option<BTreeMap<i32, String>>,
    /// How much news there was: what was read before the last of it is not kept.
    news: u64,
}

impl Shop {
    /// Opens the pool and makes the tables.
    pub(crate) async fn open(runtime: impl Runtime, dsn: &str) -> Result<Self, Error> {
        let config = PoolConfig::new("shop", dsn)?.size(8).application_name("shop");
        let db = InteractionPool::builder(runtime).pool(config).open().await?;
        db.run(TABLES).batch().await?;
        Ok(Self {
            db,
            cache: Mutex::default(),
            stop: Cancel::new(),
        })
    }

    /// Ends the pool; every session says goodbye.
    pub(crate) async fn close(&self) {
        for report in self.db.close(std::time::Duration::from_secs(5)).await {
            println!("closed: {report:?}");
        }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One request. An error of the database is one to the client, too, which learns what became of its request.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        let id = request.path.strip_prefix("/items/").and_then(|id| id.parse().ok());
        let answered = match (&*request.method, &*request.path, id) {
            ("GET", _, Some(id)) => self.item(id).await,
            ("PUT", _, Some(id)) => self.put_item(id, request.body).await,
            ("GET", "/stats", _) => Ok(Response::new(200, self.db.stats().to_string())),
            ("POST", "/stop", _) => {
                self.stop.cancel();
                Ok(Response::new(202, "stopping\n"))
            }
            _ => Ok(Response::new(404, "no such thing\n")),
        };
        answered.unwrap_or_else(|error| {
            let status = if error.is_retryable() { 503 } else { 500 };
            Response::new(status, format!("{error}\n"))
        })
    }

    async fn item(&self, id: i32) -> Result<Response, Error> {
        let news = {
            let cache = self.cache();
            if let Some(name) = cache.names.as_ref().and_then(|names| names.get(&id)) {
                return Ok(Response::new(200, format!("{name} (cached)\n")));
            }
            cache.news
        };
        let sql = "SELECT name || coalesce(' ' || label, '') FROM shop_items WHERE id = $1";
        let found = self.db.run(sql).bind(id).read().opt().await?;
        let Some(row) = found else {
            return Ok(Response::new(404, "no such item\n"));
        };
        let name: String = row.get(0);
        let mut cache = self.cache();
        if cache.news == news
            && let Some(names) = &mut cache.names
        {
            names.insert(id, name.clone());
        }
        Ok(Response::new(200, format!("{name}\n")))
    }

    /// The item, its job and the news of it: all of them, or none.
    async fn put_item(&self, id: i32, name: String) -> Result<Response, Error> {
        self.db
            .transact(|tx| {
                let name = name.clone();
                async move {
                    let upsert = "INSERT INTO shop_items (id, name) VALUES ($1, $2) \
                        ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name, label = NULL";
                    tx.execute(upsert, &[&id, &name]).await?;
                    tx.execute("INSERT INTO shop_jobs (item) VALUES ($1)", &[&id]).await?;
                    let news = "SELECT pg_notify('shop_items', $1), pg_notify('shop_jobs', '')";
                    tx.query(news, &[&id.to_string()]).await?;
                    Ok(())
                }
            })
            .await?;
        Ok(Response::new(201, "made\n"))
    }

    /// A background task: forgets what changed. While news may be missing there is no cache at all.
    pub(crate) async fn keep_cache(&self) -> Result<(), Error> {
        let listen = self.db.listen_on("shop_items").cancel_on(&self.stop);
        let mut news = listen.subscribe().await?;
        while let Some(event) = news.next().await {
            let mut cache = self.cache();
            cache.news += 1;
            match event {
                // From here on nothing is missed: begin with an empty one.
                ListenEvent::Subscribed | ListenEvent::Resumed => cache.names = Some(BTreeMap::new()),
                ListenEvent::Notification(changed) => {
                    if let (Some(names), Ok(id)) = (&mut cache.names, changed.payload().parse()) {
                        names.remove(&id);
                    }
                }
                _ => cache.names = None,
            }
        }
        Ok(())
    }

    /// A background task: works off the queue, and waits for news when it is empty.
    pub(crate) async fn work(&self) -> Result<(), Error> {
        let listen = self.db.listen_on("shop_jobs").cancel_on(&self.stop);
        let mut news = listen.subscribe().await?;
        loop {
            while !self.stop.is_cancelled() && self.work_once().await? {}
            // Any event will do: also after a gap there may be jobs.
            if news.next().await.is_none() {
                return Ok(());
            }
        }
    }

    /// Takes a job, does it, and marks it, in one transaction that stays open meanwhile: if this process dies, the job is
    /// free again.
    async fn work_once(&self) -> Result<bool, Error> {
        let Partial {
            result: job,
            mut transaction,
        } = self.db.run(NEXT_JOB).opt().partial().await?;
        let Some(job) = job else { return Ok(false) };
        let (id, item): (i64, i32) = (job.get(0), job.get(1));
        let label = "UPDATE shop_items SET label = '[' || length(name) || ' letters]' WHERE id = $1";
        self.db.run(label).bind(item).execute().within(&mut transaction).await?;
        let done = "UPDATE shop_jobs SET done = now() WHERE id = $1";
        self.db.run(done).bind(id).execute().within(&mut transaction).await?;
        let told = "SELECT pg_notify('shop_items', $1)";
        self.db
            .run(told)
            .bind(item.to_string())
            .within(&mut transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }
}
