//! The clauses about local steps, for stores that answer [`SagaStore::local`].

use std::any::Any;
use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;

use super::Violation;
use super::scene::{LONG, Result, change, check, claim_by, load, record, saga, step, worker};
use crate::record::{Record, SagaId, StepRow};
use crate::status::{Status, StepStatus};
use crate::store::{LocalTransaction, LocalVerdict, SagaStore};

/// Rows in the database of a store: how a clause has an effect, and how it sees from outside whether it is there.
#[async_trait]
pub trait LocalRows: Send + Sync {
    /// Inserts a row with this key. It may be there already, then there are two.
    ///
    /// # Cancel safety
    /// For tests.
    ///
    /// # Errors
    /// If the connection is not of the database, or the database refuses the row.
    async fn insert(
        &self,
        connection: &mut (dyn Any + Send),
        key: &str,
    ) -> std::result::Result<(), Box<dyn Error + Send + Sync>>;

    /// Counts the committed rows with this key.
    ///
    /// # Cancel safety
    /// Read only.
    ///
    /// # Errors
    /// If the database cannot be used.
    async fn count(&self, key: &str) -> std::result::Result<u64, Box<dyn Error + Send + Sync>>;
}

async fn begin(store: &dyn SagaStore) -> Result<Box<dyn LocalTransaction>> {
    let local = store.local().ok_or_else(|| Violation("the store has no local transactions".into()))?;
    Ok(local.begin(Duration::from_secs(60)).await?)
}

/// A transaction in which the effect has happened.
async fn with_effect(
    store: &dyn SagaStore,
    rows: &dyn LocalRows,
    key: &str,
) -> Result<Box<dyn LocalTransaction>> {
    let mut tx = begin(store).await?;
    rows.insert(tx.connection(), key).await.map_err(|error| Violation(error.to_string()))?;
    Ok(tx)
}

async fn effects(rows: &dyn LocalRows, key: &str, expected: u64) -> Result {
    let found = rows.count(key).await.map_err(|error| Violation(error.to_string()))?;
    check(found == expected, || format!("{found} effects of {key:?} are there, not {expected}"))
}

async fn steps(store: &dyn SagaStore, saga: SagaId, expected: &[StepStatus]) -> Result {
    let found: Vec<_> = load(store, saga).await?.steps.iter().map(|row: &StepRow| row.status).collect();
    check(found == expected, || format!("the step rows are {found:?}, not {expected:?}"))
}

fn is_applied(verdict: &LocalVerdict) -> bool {
    matches!(verdict, LocalVerdict::Applied(_))
}

macro_rules! clauses {
    ($($(#[doc = $doc:literal])+ $name:ident($store:ident, $rows:ident) $body:block)+) => {
    $(
        $(#[doc = $doc])+
        ///
        /// # Cancel safety
        /// For tests; the store is left as it is.
        ///
        /// # Errors
        /// [`Violation`] with what the store did instead.
        pub async fn $name($store: &dyn SagaStore, $rows: &dyn LocalRows) -> Result $body
    )+

        /// The clauses about local steps, by their names.
        pub const LOCAL_CLAUSES: &[&str] = &[$(stringify!($name)),+];

        /// Checks the clause about local steps of this name.
        ///
        /// # Cancel safety
        /// For tests; the store is left as it is.
        ///
        /// # Errors
        /// [`Violation`] with what the store did instead, or if there is no such clause.
        pub async fn local_clause(name: &str, store: &dyn SagaStore, rows: &dyn LocalRows) -> Result {
            $(if name == stringify!($name) {
                return $name(store, rows).await;
            })+
            Err(Violation(format!("there is no clause {name}")))
        }
    };
}

clauses! {
    /// Before the commit neither the effect nor the record is seen, after it both are.
    a_local_effect_and_its_record_commit_together(store, rows) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "L-1").await?;
        let tx = with_effect(store, rows, "both").await?;
        effects(rows, "both", 0).await?;
        steps(store, id, &[]).await?;
        let verdict = tx.commit(&record(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        effects(rows, "both", 1).await?;
        steps(store, id, &[StepStatus::Succeeded]).await?;
        let found = load(store, id).await?.instance;
        let seen = (found.current_step, found.write_no, found.epoch);
        check(seen == (1, 1, 1), || format!("{seen:?}"))
    }

    /// A transaction that is not committed leaves nothing behind.
    a_local_effect_without_a_commit_is_not_there(store, rows) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "L-1").await?;
        drop(with_effect(store, rows, "dropped").await?);
        let verdict = begin(store).await?.commit(&record(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("the next transaction: {verdict:?}"))?;
        effects(rows, "dropped", 0).await
    }

    /// A worker that lost the saga between its effect and its commit commits neither; the new owner can.
    a_local_zombie_commits_neither(store, rows) {
        let (dead, me) = (worker(store, Duration::ZERO).await?, worker(store, LONG).await?);
        let id = saga(store, dead, "L-1").await?;
        let claimed = store.claim(&claim_by(me)).await?.len();
        check(claimed == 1, || format!("{claimed} sagas were claimed"))?;
        let zombie = with_effect(store, rows, "zombie").await?;
        let verdict = zombie.commit(&record(id, 1, 1)).await?;
        check(verdict == LocalVerdict::Fenced, || format!("the zombie's commit: {verdict:?}"))?;
        effects(rows, "zombie", 0).await?;
        steps(store, id, &[]).await?;
        let owner = with_effect(store, rows, "owner").await?;
        let verdict = owner.commit(&record(id, 2, 1)).await?;
        check(is_applied(&verdict), || format!("the owner's commit: {verdict:?}"))?;
        effects(rows, "owner", 1).await
    }

    /// A record that believes in another status takes its effect along.
    a_local_record_from_another_status_takes_its_effect_along(store, rows) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "L-1").await?;
        let mut wrong = record(id, 1, 1);
        wrong.from = Status::Committing;
        let verdict = with_effect(store, rows, "wrong").await?.commit(&wrong).await?;
        check(verdict == LocalVerdict::Fenced, || format!("{verdict:?}"))?;
        effects(rows, "wrong", 0).await
    }

    /// A record that cannot be stored takes its effect along.
    a_local_record_that_is_refused_takes_its_effect_along(store, rows) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "L-1").await?;
        let mut unproven = record(id, 1, 1);
        (unproven.change.status, unproven.change.unresolved) = (Status::Completed, 1);
        let verdict = with_effect(store, rows, "refused").await?.commit(&unproven).await?;
        check(matches!(verdict, LocalVerdict::Refused(_)), || format!("{verdict:?}"))?;
        effects(rows, "refused", 0).await?;
        steps(store, id, &[]).await
    }

    /// A record that was written before has no second effect.
    a_local_record_written_before_has_no_second_effect(store, rows) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "L-1").await?;
        let verdict = with_effect(store, rows, "once").await?.commit(&record(id, 1, 1)).await?;
        check(is_applied(&verdict), || format!("{verdict:?}"))?;
        let verdict = with_effect(store, rows, "once").await?.commit(&record(id, 1, 1)).await?;
        check(verdict == LocalVerdict::Fenced, || format!("the repetition: {verdict:?}"))?;
        effects(rows, "once", 1).await
    }

    /// An undo commits with its evidence and the end of the saga.
    a_local_undo_commits_with_its_evidence(store, rows) {
        let me = worker(store, LONG).await?;
        let id = saga(store, me, "L-1").await?;
        let mut turn = record(id, 1, 1);
        (turn.change.status, turn.change.unresolved) = (Status::Compensating, 1);
        let verdict = with_effect(store, rows, "done").await?.commit(&turn).await?;
        check(is_applied(&verdict), || format!("the turn: {verdict:?}"))?;
        let end = change(Status::Compensated, vec![step(1, StepStatus::Compensated)]);
        let end = Record { from: Status::Compensating, change: end, ..record(id, 1, 2) };
        let verdict = with_effect(store, rows, "undone").await?.commit(&end).await?;
        check(is_applied(&verdict), || format!("the end: {verdict:?}"))?;
        effects(rows, "undone", 1).await?;
        let found = load(store, id).await?;
        let evidence = found.steps.first().and_then(|row| row.evidence.clone());
        let seen = (found.instance.status, found.instance.owner, evidence.as_deref());
        check(seen == (Status::Compensated, None, Some("receipt 7")), || format!("{seen:?}"))
    }
}

/// Makes one `#[tokio::test]` of each clause about local steps. `$make` is an async function that answers an empty
/// store, its [`LocalRows`](crate::testing::contract::LocalRows), and a guard that keeps both alive.
#[macro_export]
macro_rules! local_store_contract {
    ($make:path) => {
        $crate::local_store_contract!(@each $make;
            a_local_effect_and_its_record_commit_together
            a_local_effect_without_a_commit_is_not_there
            a_local_zombie_commits_neither
            a_local_record_from_another_status_takes_its_effect_along
            a_local_record_that_is_refused_takes_its_effect_along
            a_local_record_written_before_has_no_second_effect
            a_local_undo_commits_with_its_evidence
        );
    };
    (@each $make:path; $($clause:ident)+) => {$(
        #[tokio::test]
        async fn $clause() {
            let (store, rows, _guard) = $make().await;
            if let Err(violation) = $crate::testing::contract::$clause(&store, &rows).await {
                panic!("{violation}");
            }
        }
    )+};
}
