//! The story: its world, its order, and how it can fail.
//!
//! [`tell`] builds the world, plays the acts of `acts.rs`, prints the tables, and compares every row once more. The
//! world is torn down on every way out, so a failure leaves neither a process nor a file behind.

use std::collections::BTreeMap;
use std::path::PathBuf;

use service_shell::{StartError, random_text};

use crate::console::Console;
use crate::evidence::{Evidence, OPERATOR_STATEMENTS, Traces};
use crate::fleet::{Berths, Fleet, Service};
use crate::folder::Folder;
use crate::gateway_process::GatewayProcess;
use crate::merchant_client::MerchantClient;
use crate::{acts, registration};

/// The reason for which the program ends with status 1.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Something was claimed that the evidence does not show.
    #[error("this should hold, and does not: {claim}\n  found  {found}\n  needed {needed}")]
    Claim { claim: String, found: String, needed: String },
    /// The world could not be built.
    #[error("{0}")]
    Setup(String),
    /// A service refused to start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A request that needed an answer got none.
    #[error("no answer: {0}")]
    NoAnswer(#[from] reqwest::Error),
    /// The evidence could not be read.
    #[error("cannot read the evidence: {0}")]
    Database(#[from] sqlx::Error),
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    pub(crate) fn setup(what: &str, error: impl std::fmt::Display) -> Self {
        Failure::Setup(format!("cannot {what}: {error}"))
    }
}

/// Everything an act can touch.
pub(crate) struct World {
    pub(crate) console: Console,
    pub(crate) evidence: Evidence,
    pub(crate) gateway: GatewayProcess,
    pub(crate) merchant: MerchantClient,
}

/// Short leases and time limits, so that what takes half a minute in production takes seconds here.
fn variables() -> BTreeMap<String, String> {
    [
        ("SERVICE_TOKEN", random_text(32).as_str()),
        ("CHANNEL_WEBHOOK_SECRET", random_text(32).as_str()),
        ("CHANNEL_TIMEOUT_MS", "1500"),
        ("CHANNEL_SLOW_MS", "4000"),
        ("CHANNEL_HANG_MS", "4000"),
        ("SAGA_LEASE_MS", "2000"),
        ("IDEMPOTENCY_LEASE_MS", "3000"),
        ("RUST_LOG", "warn"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

/// Tells the story once in a folder of its own.
///
/// # Errors
/// The first claim that does not hold, or what kept the story from being told.
pub(crate) async fn tell(data: Option<PathBuf>) -> Result<(), Failure> {
    if service_shell::POSTGRES {
        return Err(Failure::Setup(
            "the demo reads embedded SQLite files; build it without the feature `postgres`".to_owned(),
        ));
    }
    let folder = Folder::open_empty(data)?;
    let mut console = Console::new();
    console.line("Probity: a payment is charged once, and undone cleanly.");
    console.say(format!("databases in {}", folder.path().display()));

    let mut berths = Berths::on_free_ports(folder.path(), variables()).await?;
    let (address, environment) = berths
        .release(Service::Gateway)
        .ok_or_else(|| Failure::Setup("the gateway has no port".to_owned()))?;
    let fleet = berths.start().await?;
    let log = folder.path().join("payment-gateway.log");
    let told = match GatewayProcess::start(address, environment, log).await {
        Ok(gateway) => play(&fleet, gateway, console).await,
        Err(refused) => Err(refused),
    };
    fleet.stop().await;
    let mut console = told?;
    farewell(&mut console, folder);
    Ok(())
}

async fn play(fleet: &Fleet, gateway: GatewayProcess, mut console: Console) -> Result<Console, Failure> {
    let evidence = Evidence::open(fleet).await?;
    let merchant = registration::register(&mut console, fleet, &gateway.url()).await?;
    let mut world = World { console, evidence, gateway, merchant };

    acts::paid_once(&mut world).await?;
    acts::another_body_is_refused(&mut world).await?;
    acts::declined_is_undone(&mut world).await?;
    acts::silence_is_asked(&mut world).await?;
    acts::no_more_is_given_back_than_was_paid(&mut world).await?;
    acts::killed_and_finished(&mut world).await?;
    settle_accounts(&mut world).await?;

    let World { console, evidence, mut gateway, .. } = world;
    evidence.close().await;
    gateway.stop().await?;
    Ok(console)
}

/// Prints what every database holds, and checks every row of it.
async fn settle_accounts(world: &mut World) -> Result<(), Failure> {
    let World { console, evidence, .. } = world;
    console.act("The accounts, read from the databases");
    let traces = evidence.traces().await?;
    let header = ["payment", "order no", "payment is", "order is", "saga is", "charges"].map(str::to_owned);
    let rows = traces.iter().map(|t| {
        vec![
            t.payment_no.clone(),
            t.order_no.clone(),
            t.payment.clone(),
            t.order.clone(),
            t.saga.clone(),
            t.charges.to_string(),
        ]
    });
    console.table(
        "payments, orders, sagas and charges at the channel",
        &std::iter::once(header.to_vec()).chain(rows).collect::<Vec<_>>(),
    );

    let refunds = usize::try_from(evidence.refunds().await?).unwrap_or(usize::MAX);
    for (number, template) in OPERATOR_STATEMENTS.iter().enumerate() {
        let last = traces.last().map_or("", |traces| traces.payment_no.as_str());
        let statement = template.replace("{payment_no}", last);
        let answer = evidence.statement(&statement).await?;
        console.line(format!("\n   sqlite> {statement}"));
        console.say(format!("{} rows", answer.len().saturating_sub(1)));
        console.checked(
            format!("operators' statement {} answers", number + 1),
            answer.len().saturating_sub(1),
            [traces.len() + refunds, 3, 0][number],
        )?;
    }

    console.line("");
    let paid = |traces: &&Traces| traces.payment == "success";
    console.checked(
        "every paid payment has its order paid, its saga completed, and one charge",
        traces
            .iter()
            .filter(paid)
            .map(|t| (t.order.as_str(), t.saga.as_str(), t.charges))
            .collect::<Vec<_>>(),
        traces.iter().filter(paid).map(|_| ("paid", "completed", 1)).collect(),
    )?;
    console.checked(
        "every failed payment has its order cancelled, its saga compensated, and no charge",
        traces
            .iter()
            .filter(|t| !paid(t))
            .map(|t| (t.payment.as_str(), t.order.as_str(), t.saga.as_str(), t.charges))
            .collect::<Vec<_>>(),
        traces.iter().filter(|t| !paid(t)).map(|_| ("failed", "cancelled", "compensated", 0)).collect(),
    )?;
    let paid_count = traces.iter().filter(paid).count();
    console.checked(
        "the ledger holds no charge that no payment knows",
        evidence.charges_in_all().await?,
        i64::try_from(paid_count).unwrap_or(i64::MAX),
    )?;
    let most = traces.iter().map(|t| t.charges).max().unwrap_or(0);
    console.checked("nothing was charged twice", most, 1)?;
    console.line(format!("\ncharges per payment: {most}"));
    Ok(())
}

fn farewell(console: &mut Console, folder: Folder) {
    let claims = console.claims();
    let path = folder.keep();
    let database = path.join("payment-gateway.sqlite3");
    console.line(format!(
        "{claims} claims checked against the answers, the databases and the channel's ledger; all hold."
    ));
    console.line(format!(
        "\nLook for yourself:\n  sqlite3 '{0}' '{1}'\n  rm -r '{2}'",
        database.display(),
        OPERATOR_STATEMENTS[0],
        path.display()
    ));
}
