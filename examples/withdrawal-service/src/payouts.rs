//! Starts the sagas of withdrawals, and sees to it that none is forgotten.
//!
//! Invariant: a row in `processing` is the intent to pay it out. Starting its saga again is harmless, so a
//! process that dies between the commit of the row and the start of the saga loses nothing: the next sweep
//! starts what has no saga. The same sweep gives a row the end of its saga, which nothing else does.

use std::time::Duration;

use clap::Args;
use probity_saga::{BuildError, Orchestrator, Probe, Saga};
use saga_operations::{Operations, TwoOperators};
use service_shell::{
    HttpTimeouts, Peer, Pool, Settings, StartError, http_client, milliseconds, step_policy, traced_sagas,
};

use crate::bank::Bank;
use crate::domain::Payout;
use crate::steps::{BankTransfer, DeductBalance, FreezeBalance, RequireFrozen, WITHDRAWAL};
use crate::store;

#[cfg(not(feature = "postgres"))]
type Sagas = probity_saga::SqliteStore;
#[cfg(feature = "postgres")]
type Sagas = probity_saga::PostgresStore;

const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The settings of withdrawal-service alone.
#[derive(Args, Clone, Copy, Debug)]
pub struct Own {
    /// The time that one call of the bank may take, in milliseconds.
    #[arg(long = "bank-timeout-ms", env = "BANK_TIMEOUT_MS", default_value = "120000", value_parser = milliseconds)]
    bank_timeout: Duration,
    /// The wait before the first retry of a step, doubled for each of the three, in milliseconds.
    #[arg(long = "step-retry-ms", env = "STEP_RETRY_MS", default_value = "2000", value_parser = milliseconds)]
    step_retry: Duration,
    /// The number of pauses for a bank that is away before a step is given up; 18 are about an hour.
    #[arg(long, env = "STEP_PATIENCE", default_value = "18")]
    step_patience: u32,
    /// The time without a sign of life after which another process takes over its sagas, in milliseconds.
    #[arg(long = "saga-lease-ms", env = "SAGA_LEASE_MS", default_value = "30000", value_parser = milliseconds)]
    saga_lease: Duration,
    /// The time between two questions to the bank about each transfer of which it could not tell the outcome, in milliseconds.
    #[arg(long = "bank-ask-again-ms", env = "BANK_ASK_AGAIN_MS", default_value = "60000", value_parser = milliseconds)]
    bank_ask_again: Duration,
    /// The number of withdrawals that this process drives at the same time.
    #[arg(long, env = "SAGAS_IN_FLIGHT", default_value = "1024", value_parser = service_shell::in_flight)]
    sagas_in_flight: usize,
    /// Read by the routes of operators; here for the help.
    #[command(flatten)]
    _operators: TwoOperators,
}

/// Runs withdrawals to their end.
#[derive(Clone, Debug)]
pub(crate) struct Payouts {
    pool: Pool,
    bank: Bank,
    bank_ask_again: Duration,
    store: Sagas,
    sagas: Orchestrator,
}

impl Payouts {
    /// Resumes what an earlier process left behind and takes new withdrawals.
    pub(crate) async fn start(settings: &Settings, pool: &Pool) -> Result<Payouts, StartError> {
        let own: Own = settings.own()?;
        let client = http_client(HttpTimeouts { total: own.bank_timeout, ..HttpTimeouts::default() })?;
        let bank = Bank::new(Peer::new(&client, "bank", &settings.peers.channel, &settings.service_token));
        let policy = step_policy(own.step_retry, own.step_patience);
        // Its locks are held for as long, and on SQLite it is the only writer.
        let local = policy.clone().timeout(Duration::from_secs(5));
        let require = RequireFrozen { pool: pool.clone(), policy: policy.clone() };
        let transfer = policy.timeout(own.bank_timeout).provider(bank.name());
        let failed = |error: BuildError| StartError::other("the withdrawal saga", error);
        let saga = Saga::named(WITHDRAWAL)
            .local_step(FreezeBalance { policy: local.clone() })
            .step(require)
            .pivot(BankTransfer { pool: pool.clone(), bank: bank.clone(), policy: transfer })
            .local_step(DeductBalance { policy: local })
            .build()
            .map_err(failed)?;
        let store =
            Sagas::new(pool.clone()).await.map_err(|error| StartError::other("the saga store", error))?;
        let sagas = traced_sagas(Orchestrator::new(store.clone()));
        let sagas = sagas.lease(own.saga_lease).in_flight(own.sagas_in_flight).register(saga);
        let sagas = sagas.start().await.map_err(failed)?;
        Ok(Payouts { pool: pool.clone(), bank, bank_ask_again: own.bank_ask_again, store, sagas })
    }

    /// Starts the saga of a withdrawal that is `processing`, unless it runs already.
    pub(crate) async fn run(&self, payout: &Payout) {
        // Who calls it need not wait: the row says how far it is.
        if let Err(error) = self.sagas.start(WITHDRAWAL, &payout.withdrawal_no, payout).await {
            tracing::warn!(withdrawal_no = payout.withdrawal_no, %error, "the next sweep starts this saga");
        }
    }

    /// The state of the operators' routes.
    pub(crate) fn operations(&self, two_operators_from: i64) -> Operations {
        Operations {
            sagas: self.sagas.clone(),
            types: &[WITHDRAWAL],
            pool: self.pool.clone(),
            two_operators_from,
        }
    }

    /// Starts what has no saga yet and closes what has ended, now and every second, until it is aborted.
    pub(crate) async fn sweep(self) {
        loop {
            match store::without_saga(&self.pool).await {
                Ok(payouts) => {
                    for payout in payouts {
                        self.run(&payout).await;
                    }
                }
                Err(error) => tracing::warn!(%error, "withdrawals without a saga cannot be looked for"),
            }
            if let Err(error) = store::close_ended(&self.pool).await {
                tracing::warn!(%error, "withdrawals of ended sagas cannot be looked for");
            }
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    }

    /// Asks the bank about transfers whose outcome it could not tell in all the time that a saga asks, until it is aborted.
    /// Once the bank knows, the saga goes on: it asks as well, and ends by the answer.
    pub(crate) async fn ask_again(self) {
        loop {
            tokio::time::sleep(self.bank_ask_again).await;
            match store::in_doubt(&self.pool).await {
                Ok(payouts) => self.ask_about(&payouts).await,
                Err(error) => tracing::warn!(%error, "transfers in doubt cannot be looked for"),
            }
        }
    }

    async fn ask_about(&self, payouts: &[Payout]) {
        for payout in payouts {
            let number = &payout.withdrawal_no;
            let reason = match self.bank.look(payout).await {
                Ok(Probe::Applied(transfer)) => {
                    format!("the bank has sent it as {}", transfer.bank_reference)
                }
                Ok(Probe::NotApplied) => "the bank has not sent it and never will".to_owned(),
                Ok(_) => continue,
                // The bank is away: the next round asks about all of them.
                Err(error) => {
                    return tracing::warn!(number, %error, "a transfer in doubt cannot be asked about");
                }
            };
            match self.sagas.operator(self.bank.name()).retry_now(WITHDRAWAL, number, &reason).await {
                Ok(()) => tracing::info!(number, reason, "a transfer in doubt goes on"),
                // A person was faster.
                Err(error) => tracing::warn!(number, %error, "a transfer in doubt stays as it is"),
            }
        }
    }

    /// Forgets sagas that ended long ago, after their withdrawals were told so: one without a saga would begin again.
    pub(crate) async fn purge(&self, keep: Duration, batch: u32) -> Result<u64, String> {
        store::close_ended(&self.pool).await.map_err(|error| error.to_string())?;
        self.store.purge(keep, batch).await.map_err(|error| error.to_string())
    }

    /// Gives every saga back, so that the next process need not wait.
    pub(crate) async fn drain(self) {
        if let Err(error) = self.sagas.drain().await {
            tracing::warn!(%error, "sagas wait for their lease to run out");
        }
    }
}
