//! The routes of the channel, and the behaviour of its test methods.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use service_shell::{
    Credential, Drain, Guarded, Health, HttpTimeouts, Json, Mode, Pool, Problem, ServiceToken, Settings,
    StartError, api, database, http_client, shell,
};
use tower_layer::Identity;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::book::{Book, PAYMENTS, TRANSFERS};
use crate::domain::{Answer, Behaviour, Cancelled, Demand, Known, Status};
use crate::events::Sender;
use crate::refund::{self, RefundAnswer, RefundDemand};
use crate::settings::{Delays, Own};
use crate::store;
use crate::wire::{
    PaymentBody, RefundBody, RefundShown, Shown, TransferBody, behaviour, demand, idempotency_key, money,
    refused, valid_number,
};

/// The state that the handlers share.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pool: Pool,
    delays: Delays,
}

/// Opens the ledger and returns the routes, and what to do after serving.
///
/// # Cancel safety
/// Safe: an opened database is closed again.
///
/// # Errors
/// [`StartError`] when a setting or the database cannot be used.
pub async fn start(settings: Settings) -> Result<(Router, Drain), StartError> {
    let Own { delays, channel_webhook_url, channel_webhook_secret } = settings.own()?;
    let pool = database::open(&settings).await?;
    store::SCHEMA.apply(&pool).await?;
    let sending = match channel_webhook_url {
        None => None,
        Some(url) => {
            let secret = settings.secret("CHANNEL_WEBHOOK_SECRET", channel_webhook_secret)?;
            let client = http_client(HttpTimeouts::default())?;
            Some(tokio::spawn(Sender { pool: pool.clone(), client, url, secret }.run()))
        }
    };
    let stop = move || async move {
        if let Some(sending) = sending {
            sending.abort();
        }
    };
    let drain = Drain::nothing().then("webhooks", stop).close(&pool);
    let health = Health::named(settings.name).database(&pool);
    let routes = routes(&settings.service_token).with_state(App { pool, delays });
    Ok((shell(settings.name, health, routes)?, drain))
}

/// All routes, behind the service token.
fn routes(token: &ServiceToken) -> OpenApiRouter<App> {
    let demands = OpenApiRouter::default()
        .routes(routes!(pay))
        .routes(routes!(give_back))
        .routes(routes!(transfer))
        // The ledger itself is what makes a key move money once.
        .keyed(Identity::new());
    api("Stands in for payment providers and a bank. Money is an integer of minor units.")
        .merge(demands)
        .routes(routes!(payment))
        .routes(routes!(cancel_payment))
        .routes(routes!(refund_of))
        .routes(routes!(transfer_of))
        .routes(routes!(cancel_transfer))
        .require(Credential::Service, token)
}

/// Charges, once per key.
#[utoipa::path(post, path = "/api/v1/channel/payments", params(("X-Merchant-Mode" = Option<Mode>, Header)), responses(
    (status = 201, description = "Charged.", body = Shown),
    (status = 402, description = "The channel refused; no money moved."),
    (status = 504, description = "The demand was lost; GET and cancel tell more."),
))]
async fn pay(
    State(app): State<App>,
    mode: Mode,
    headers: HeaderMap,
    Json(body): Json<PaymentBody>,
) -> Result<Response, Problem> {
    let money = money(body.amount, &body.currency)?;
    let behaviour = behaviour("payment_method", "card_", &body.payment_method)?;
    let demand = demand(&headers, ("payment_no", body.payment_no), body.payment_method, money)?;
    app.act(&PAYMENTS, mode, behaviour, demand).await
}

/// Sends money out, once per key.
#[utoipa::path(post, path = "/api/v1/channel/transfers", params(("X-Merchant-Mode" = Option<Mode>, Header)), responses(
    (status = 201, description = "Sent.", body = Shown),
    (status = 402, description = "The channel refused; no money moved."),
    (status = 504, description = "The demand was lost; GET and cancel tell more."),
))]
async fn transfer(
    State(app): State<App>,
    mode: Mode,
    headers: HeaderMap,
    Json(body): Json<TransferBody>,
) -> Result<Response, Problem> {
    let money = money(body.amount, &body.currency)?;
    // The refusal of an account that does not exist is a row of the ledger, so that GET proves it.
    let behaviour = Behaviour::of(&body.account).unwrap_or(Behaviour::Declined);
    let demand = demand(&headers, ("transfer_no", body.transfer_no), body.account, money)?;
    app.act(&TRANSFERS, mode, behaviour, demand).await
}

impl App {
    async fn act(
        self,
        book: &'static Book,
        mode: Mode,
        behaviour: Behaviour,
        demand: Demand,
    ) -> Result<Response, Problem> {
        match behaviour {
            Behaviour::Ok | Behaviour::Declined => answered(book, &self.record(book, mode, &demand).await?),
            Behaviour::Hangs => {
                let answer = self.record(book, mode, &demand).await?;
                if matches!(&answer, Answer::Entry(entry) if entry.attempts == 1) {
                    tokio::time::sleep(self.delays.hang).await;
                }
                answered(book, &answer)
            }
            Behaviour::Slow => {
                // A task of its own: a caller who hangs up does not stop what a provider has accepted.
                let late = tokio::spawn(async move {
                    tokio::time::sleep(self.delays.slow).await;
                    self.record(book, mode, &demand).await
                });
                answered(book, &late.await.map_err(|error| Problem::internal(&error))??)
            }
            Behaviour::NeverArrives => {
                tokio::time::sleep(self.delays.hang).await;
                Err(Problem::new(
                    StatusCode::GATEWAY_TIMEOUT,
                    "never-arrived",
                    "the demand was lost inside the channel; ask with GET, or cancel to make that final",
                ))
            }
        }
    }

    async fn record(&self, book: &Book, mode: Mode, demand: &Demand) -> Result<Answer, Problem> {
        store::demand(&self.pool, book, mode, demand).await.map_err(ledger_failed)
    }
}

/// 201 when money moved, 402 when the channel said no: definitely no effect.
fn answered(book: &Book, answer: &Answer) -> Result<Response, Problem> {
    match answer {
        Answer::KeyReused => Err(Problem::key_reused()),
        Answer::NumberTaken => {
            Err(Problem::conflict("number-taken", "the number was used in the other mode: use another one"))
        }
        Answer::Entry(entry) if entry.status == book.done => {
            Ok((StatusCode::CREATED, Json(Shown::row(book, entry))).into_response())
        }
        Answer::Entry(entry) => Err(refused(entry.reason.as_deref(), entry.status)),
    }
}

/// Shows a charge.
#[utoipa::path(get, path = "/api/v1/channel/payments/{payment_no}", params(("X-Merchant-Mode" = Option<Mode>, Header)), responses(
    (status = 200, description = "The row that decides.", body = Shown),
    (status = 404, description = "Nothing came yet; one may still be on its way."),
))]
async fn payment(
    State(app): State<App>,
    mode: Mode,
    Path(number): Path<String>,
) -> Result<Json<Shown>, Problem> {
    known(&app, &PAYMENTS, mode, &number).await
}

/// Shows a transfer.
#[utoipa::path(get, path = "/api/v1/channel/transfers/{transfer_no}", params(("X-Merchant-Mode" = Option<Mode>, Header)), responses(
    (status = 200, description = "The row that decides.", body = Shown),
    (status = 404, description = "Nothing came yet; one may still be on its way."),
))]
async fn transfer_of(
    State(app): State<App>,
    mode: Mode,
    Path(number): Path<String>,
) -> Result<Json<Shown>, Problem> {
    known(&app, &TRANSFERS, mode, &number).await
}

async fn known(app: &App, book: &Book, mode: Mode, number: &str) -> Result<Json<Shown>, Problem> {
    match store::look_up(&app.pool, book, mode, number).await? {
        Known::Entry(entry) => Ok(Json(Shown::row(book, &entry))),
        Known::CancelledUnseen => Ok(Json(Shown::cancelled(book, number.to_owned(), None))),
        Known::NeverSeen => Err(never_seen()),
    }
}

fn never_seen() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "never-seen",
        "no demand with this number arrived yet; one may still be on its way, and a cancel makes sure",
    )
    .with("final", false)
}

/// Takes a charge back, or makes it impossible.
#[utoipa::path(post, path = "/api/v1/channel/payments/{payment_no}/cancel", params(("X-Merchant-Mode" = Option<Mode>, Header)), responses(
    (status = 200, description = "Nothing is charged, now or later.", body = Shown),
    (status = 409, description = "The money was sent or refunded."),
    (status = 422, description = "The number cannot be one."),
))]
async fn cancel_payment(
    State(app): State<App>,
    mode: Mode,
    Path(number): Path<String>,
) -> Result<Json<Shown>, Problem> {
    cancel(&app, &PAYMENTS, mode, &number).await
}

/// Makes a transfer impossible that was not sent.
#[utoipa::path(post, path = "/api/v1/channel/transfers/{transfer_no}/cancel", params(("X-Merchant-Mode" = Option<Mode>, Header)), responses(
    (status = 200, description = "Nothing is charged, now or later.", body = Shown),
    (status = 409, description = "The money was sent or refunded."),
    (status = 422, description = "The number cannot be one."),
))]
async fn cancel_transfer(
    State(app): State<App>,
    mode: Mode,
    Path(number): Path<String>,
) -> Result<Json<Shown>, Problem> {
    cancel(&app, &TRANSFERS, mode, &number).await
}

/// Needs no idempotency key: the number is one, and the second cancel changes nothing.
async fn cancel(app: &App, book: &Book, mode: Mode, number: &str) -> Result<Json<Shown>, Problem> {
    let number = valid_number(book.number, number.to_owned())?;
    match store::cancel(&app.pool, book, mode, &number).await.map_err(ledger_failed)? {
        Cancelled::Done { voided } => Ok(Json(Shown::cancelled(book, number, Some(voided)))),
        Cancelled::NeverSeen => Err(never_seen()),
        Cancelled::TooLate(status) => Err(Problem::conflict(
            "too-late-to-cancel",
            format!("the money was {} already and cannot be taken back by a cancel", status.as_str()),
        )
        .with("state", status.as_str())),
    }
}

/// Gives money of a charge back, once per key.
#[utoipa::path(post, path = "/api/v1/channel/refunds", params(("X-Merchant-Mode" = Option<Mode>, Header)), responses(
    (status = 201, description = "Given back.", body = RefundShown),
    (status = 402, description = "The channel refused; no money moved."),
))]
async fn give_back(
    State(app): State<App>,
    mode: Mode,
    headers: HeaderMap,
    Json(body): Json<RefundBody>,
) -> Result<Response, Problem> {
    let money = money(body.amount, &body.currency)?;
    let demand = RefundDemand {
        key: idempotency_key(&headers)?,
        refund_no: valid_number("refund_no", body.refund_no)?,
        payment_no: valid_number("payment_no", body.payment_no)?,
        amount: money.amount(),
        currency: money.currency().code().to_owned(),
    };
    match refund::give_back(&app.pool, mode, &demand).await.map_err(ledger_failed)? {
        RefundAnswer::KeyReused => Err(Problem::key_reused()),
        RefundAnswer::Refund(refund) if refund.status == Status::Refunded => {
            Ok((StatusCode::CREATED, Json(RefundShown::from(&refund))).into_response())
        }
        RefundAnswer::Refund(refund) => Err(refused(refund.reason.as_deref(), refund.status)),
    }
}

/// Shows a refund.
#[utoipa::path(get, path = "/api/v1/channel/refunds/{refund_no}", params(("X-Merchant-Mode" = Option<Mode>, Header)), responses(
    (status = 200, description = "The row that decides.", body = RefundShown),
    (status = 404, description = "Nothing came yet; one may still be on its way."),
))]
async fn refund_of(
    State(app): State<App>,
    mode: Mode,
    Path(refund_no): Path<String>,
) -> Result<Json<RefundShown>, Problem> {
    match refund::find(&app.pool, mode, &refund_no).await? {
        Some(refund) => Ok(Json(RefundShown::from(&refund))),
        None => Err(Problem::new(
            StatusCode::NOT_FOUND,
            "never-seen",
            "no refund with this number arrived yet; one may still be on its way",
        )
        .with("final", false)),
    }
}

fn ledger_failed(error: probity_txn::Error<sqlx::Error>) -> Problem {
    Problem::unavailable("the ledger", &error)
}
