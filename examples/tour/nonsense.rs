//! The last chapter: calls that cannot work, and what each is told.
//!
//! Every error has to name the offender, and none may show a password. Pools that lead nowhere are added here and removed.

use std::time::Duration;

use gdbpool::{BadInput, Error, ErrorKind, PoolConfig, TimeoutCause};

use crate::guide::{Guide, Place, with_causes};
use crate::{BoxError, Tour, pool};

const WRONG_PASSWORD: &str = "not-the-password";

/// How long a caller waits for a pool that leads nowhere; the default is 30 s.
const PATIENCE: Duration = Duration::from_millis(500);

/// One nonsense after the other.
pub(crate) async fn nonsense(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    guide.chapter("Nonsense: each with its own error, before or instead of harm");
    let db = &tour.db;
    let result = db.run("SELECT 1").on_pool("nowhere").execute().await;
    guide.refusal("an unknown pool", result, |error| {
        matches!(error.kind(), ErrorKind::BadInput(BadInput::UnknownPool { .. }))
    });

    wrong_password(tour, guide).await?;
    let config = pool("dead", &tour.nodes.dead())?.checkout_timeout(PATIENCE);
    let result = try_pool(tour, config).await;
    guide.refusal("a dead server (nobody on its port)", result, |error| {
        gave_up_because(error, TimeoutCause::ConnectFails)
    });

    let select = format!("SELECT name FROM {} WHERE id = $1", tour.table);
    let result = db.run(&*select).bind("seven").one().await;
    guide.refusal("a value of the wrong type", result, |error| {
        matches!(
            error.kind(),
            ErrorKind::BadInput(BadInput::ParameterType { position: 1, .. })
        )
    });
    let result = db.run(&*select).one().await;
    guide.refusal("a value missing", result, |error| {
        matches!(error.kind(), ErrorKind::BadInput(BadInput::ParameterCount { .. }))
    });
    let several = format!("UPDATE {0} SET name = 'x'; DELETE FROM {0}", tour.table);
    let result = db.run(several).execute().await;
    guide.refusal("several statements in one text", result, |error| {
        matches!(error.kind(), ErrorKind::BadInput(BadInput::SeveralStatements))
    });
    let result = db.run("SELEKT 1").execute().await;
    guide.refusal("a mistake in the SQL", result, |error| {
        error.sqlstate().is_some_and(|state| state.code() == "42601")
    });
    settings(tour, guide);
    Ok(())
}

/// Mistakes in a pool's settings.
fn settings(tour: &Tour<'_>, guide: &mut Guide) {
    let result = PoolConfig::new("typo", "host=db1 user=app colour=blue");
    guide.refusal("an unknown key in a DSN", result, |error| {
        matches!(error.kind(), ErrorKind::BadInput(BadInput::Dsn { .. }))
    });
    let result = pool("empty", &tour.nodes.primary).and_then(|config| tour.db.add_pool(config.size(0)));
    guide.refusal("a pool of no sessions", result, |error| {
        matches!(error.kind(), ErrorKind::BadInput(BadInput::OutOfBounds { .. }))
    });
    let result = pool("primary", &tour.nodes.primary).and_then(|config| tour.db.add_pool(config));
    guide.refusal("a second pool of one name", result, |error| {
        matches!(error.kind(), ErrorKind::BadInput(BadInput::DuplicatePool { .. }))
    });
}

/// Refused by the tour's own servers; yours may trust whoever comes.
async fn wrong_password(tour: &Tour<'_>, guide: &mut Guide) -> Result<(), BoxError> {
    let config = pool("intruder", &tour.nodes.with_password(WRONG_PASSWORD))?.checkout_timeout(PATIENCE);
    let error = match try_pool(tour, config).await {
        Ok(_) if !tour.nodes.are_its_own() => {
            let result = "this server asks for no password";
            guide.step("a wrong password", &Place::on_pool("intruder"), "done", result, true);
            return Ok(());
        }
        result => result,
    };
    let told = match &error {
        Err(error) => format!("{error:?} {}", with_causes(error).join(" ")),
        Ok(_) => String::new(),
    };
    guide.refusal("a wrong password", error, |error| {
        gave_up_because(error, TimeoutCause::AuthenticationFailed)
    });
    guide.note("no password in that error", !told.contains(WRONG_PASSWORD));
    Ok(())
}

/// Adds a pool, runs a statement on it, and removes it again.
async fn try_pool(tour: &Tour<'_>, config: PoolConfig) -> Result<u64, Error> {
    let name = config.name().to_owned();
    tour.db.add_pool(config)?;
    let result = tour.db.run("SELECT 1").on_pool(&name).execute().await;
    tour.db.remove_pool(&name, PATIENCE).await?;
    result
}

fn gave_up_because(error: &Error, cause: TimeoutCause) -> bool {
    matches!(error.kind(), ErrorKind::CheckoutTimeout(report) if report.cause == cause)
}
