//! The other side: it honours keys (one effect per key, and none after its undo), and keeps a log to which rows are only
//! added: every call, in the order in which they came, by whom, and whether the saga was the caller's at that moment.
//!
//! It is in the database of the sagas, so that a row of the log is written while the saga's row is held: no claim comes
//! between what it says about the owner and its place in the order.

use std::time::Duration;

use probity_saga::{Evidence, Probe, StepContext, StepError};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Row};

/// The calls of the channel, and `Answered`: a call is about to give an answer that its driver has to write down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Execute,
    Compensate,
    Probe,
    Answered,
}

impl What {
    pub(crate) const ALL: [(Self, &str); 4] = [
        (Self::Execute, "execute"),
        (Self::Compensate, "compensate"),
        (Self::Probe, "probe"),
        (Self::Answered, "answered"),
    ];

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(what, _)| *what == self).unwrap().1
    }
}

const TABLES: &str = "
    CREATE TABLE effects (key text PRIMARY KEY, calls bigint NOT NULL, undone boolean NOT NULL);
    CREATE TABLE booked (saga uuid NOT NULL, what text NOT NULL);
    CREATE TABLE calls (
        seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, saga uuid NOT NULL, step text NOT NULL,
        what text NOT NULL, key text NOT NULL, attempt bigint NOT NULL, pid bigint NOT NULL, epoch bigint NOT NULL,
        owned boolean NOT NULL)";

pub(crate) async fn create(pool: &PgPool) {
    sqlx::raw_sql(TABLES).execute(pool).await.unwrap();
}

#[derive(Clone)]
pub(crate) struct Channel {
    pool: PgPool,
}

impl Channel {
    pub(crate) async fn connect(url: &str) -> Self {
        // However long the parent holds calls up, the others wait for their turn.
        let options = PgPoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(3600));
        Self { pool: options.connect(url).await.unwrap() }
    }

    /// Begins a call. From here on the parent may hold it up, to stop its worker inside it.
    pub(crate) async fn called(
        &self,
        what: What,
        cx: &StepContext<u64>,
        step: &str,
    ) -> Result<(), StepError> {
        self.log(what, cx, step).await?;
        report();
        let gate = sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(pid());
        gate.execute(&self.pool).await?;
        Ok(())
    }

    pub(crate) async fn answered(&self, cx: &StepContext<u64>, step: &str) -> Result<(), StepError> {
        self.log(What::Answered, cx, step).await
    }

    async fn log(&self, what: What, cx: &StepContext<u64>, step: &str) -> Result<(), StepError> {
        let row = sqlx::query(
            "INSERT INTO calls (saga, step, what, key, attempt, pid, epoch, owned)
             SELECT h.id, $2, $3, $4, $5, $6, h.lease_epoch, COALESCE(w.pid = $6, false)
             FROM (SELECT id, lease_epoch, owner_id FROM saga_heads WHERE id = $1::uuid FOR SHARE) h
             LEFT JOIN saga_workers w ON w.worker_id = h.owner_id",
        );
        let row = row.bind(cx.saga_id().to_string()).bind(step).bind(what.name()).bind(cx.execute_key());
        row.bind(i64::from(cx.attempt())).bind(pid()).execute(&self.pool).await?;
        Ok(())
    }

    pub(crate) async fn have(&self, key: &str) -> Result<(), StepError> {
        let row = sqlx::query(
            "INSERT INTO effects (key, calls, undone) VALUES ($1, 1, false)
             ON CONFLICT (key) DO UPDATE SET calls = effects.calls + 1 RETURNING undone",
        );
        let undone: bool = row.bind(key).fetch_one(&self.pool).await?.get(0);
        if undone { Err(StepError::rejected("this key was undone")) } else { Ok(()) }
    }

    /// A request may still be on its way, so what was not seen is never called absent.
    pub(crate) async fn look(&self, key: &str, output: u64) -> Result<Probe<u64>, StepError> {
        let row = sqlx::query("SELECT FROM effects WHERE key = $1 AND NOT undone").bind(key);
        let seen = row.fetch_optional(&self.pool).await?.is_some();
        Ok(if seen { Probe::Applied(output) } else { Probe::NotSeenYet })
    }

    pub(crate) async fn undo(&self, key: &str) -> Result<Evidence, StepError> {
        let row = sqlx::query(
            "INSERT INTO effects (key, calls, undone) VALUES ($1, 0, true)
             ON CONFLICT (key) DO UPDATE SET undone = true",
        );
        row.bind(key).execute(&self.pool).await?;
        Ok(Evidence::new("undone"))
    }
}

fn pid() -> i64 {
    std::process::id().into()
}

/// The line that a worker writes for each call.
pub(crate) const CALLED: &str = "a call of the channel";

#[expect(clippy::print_stdout, reason = "the parent reads it")]
fn report() {
    println!("{CALLED}");
}
