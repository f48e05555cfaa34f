//! The routes of the channel, and the behaviour of its test methods.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use service_shell::{
    Drain, Health, HttpTimeouts, JsonBody, Mode, Pool, Problem, Routes, ServiceToken, Settings, Shell,
    StartError, database, http_client,
};

use crate::book::{Book, PAYMENTS, TRANSFERS};
use crate::domain::{Answer, Behaviour, Cancelled, Demand, Known, Status};
use crate::events::Sender;
use crate::refund::{self, RefundAnswer, RefundDemand};
use crate::settings::{Delays, Own};
use crate::store;
use crate::wire::{
    PaymentBody, RefundBody, TransferBody, behaviour, demand, idempotency_key, money, refund_shown, refused,
    shown, valid_number,
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
    let shell = Shell::new(settings.name, Health::named(settings.name).database(&pool), crate::OPENAPI)?;
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
    let router = routes(&settings.service_token).into_router().with_state(App { pool, delays });
    Ok((shell.wrap(router), drain))
}

/// All routes, behind the service token.
pub(crate) fn routes(token: &ServiceToken) -> Routes<App> {
    Routes::new()
        .post("/api/v1/channel/payments", pay)
        .get("/api/v1/channel/payments/{payment_no}", payment)
        .post("/api/v1/channel/payments/{payment_no}/cancel", cancel_payment)
        .post("/api/v1/channel/refunds", give_back)
        .get("/api/v1/channel/refunds/{refund_no}", refund_of)
        .post("/api/v1/channel/transfers", transfer)
        .get("/api/v1/channel/transfers/{transfer_no}", transfer_of)
        .post("/api/v1/channel/transfers/{transfer_no}/cancel", cancel_transfer)
        .require(token)
}

async fn pay(
    State(app): State<App>,
    mode: Mode,
    headers: HeaderMap,
    JsonBody(body): JsonBody<PaymentBody>,
) -> Result<Response, Problem> {
    let money = money(body.amount, &body.currency)?;
    let behaviour = behaviour("payment_method", "card_", &body.payment_method)?;
    let demand = demand(&headers, ("payment_no", body.payment_no), body.payment_method, money)?;
    app.act(&PAYMENTS, mode, behaviour, demand).await
}

async fn transfer(
    State(app): State<App>,
    mode: Mode,
    headers: HeaderMap,
    JsonBody(body): JsonBody<TransferBody>,
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
            Ok((StatusCode::CREATED, Json(shown(book, entry))).into_response())
        }
        Answer::Entry(entry) => Err(refused(entry.reason.as_deref(), entry.status)),
    }
}

async fn payment(
    State(app): State<App>,
    mode: Mode,
    Path(number): Path<String>,
) -> Result<Json<Value>, Problem> {
    known(&app, &PAYMENTS, mode, &number).await
}

async fn transfer_of(
    State(app): State<App>,
    mode: Mode,
    Path(number): Path<String>,
) -> Result<Json<Value>, Problem> {
    known(&app, &TRANSFERS, mode, &number).await
}

async fn known(app: &App, book: &Book, mode: Mode, number: &str) -> Result<Json<Value>, Problem> {
    match store::look_up(&app.pool, book, mode, number).await? {
        Known::Entry(entry) => Ok(Json(shown(book, &entry))),
        Known::CancelledUnseen => Ok(Json(json!({book.number: number, "status": Status::Cancelled}))),
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

async fn cancel_payment(
    State(app): State<App>,
    mode: Mode,
    Path(number): Path<String>,
) -> Result<Json<Value>, Problem> {
    cancel(&app, &PAYMENTS, mode, &number).await
}

async fn cancel_transfer(
    State(app): State<App>,
    mode: Mode,
    Path(number): Path<String>,
) -> Result<Json<Value>, Problem> {
    cancel(&app, &TRANSFERS, mode, &number).await
}

/// Needs no idempotency key: the number is one, and the second cancel changes nothing.
async fn cancel(app: &App, book: &Book, mode: Mode, number: &str) -> Result<Json<Value>, Problem> {
    let number = valid_number(book.number, number.to_owned())?;
    match store::cancel(&app.pool, book, mode, &number).await.map_err(ledger_failed)? {
        Cancelled::Done { voided } => {
            Ok(Json(json!({book.number: number, "status": Status::Cancelled, "voided": voided})))
        }
        Cancelled::NeverSeen => Err(never_seen()),
        Cancelled::TooLate(status) => Err(Problem::conflict(
            "too-late-to-cancel",
            format!("the money was {} already and cannot be taken back by a cancel", status.as_str()),
        )
        .with("state", status.as_str())),
    }
}

async fn give_back(
    State(app): State<App>,
    mode: Mode,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RefundBody>,
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
            Ok((StatusCode::CREATED, Json(refund_shown(&refund))).into_response())
        }
        RefundAnswer::Refund(refund) => Err(refused(refund.reason.as_deref(), refund.status)),
    }
}

async fn refund_of(
    State(app): State<App>,
    mode: Mode,
    Path(refund_no): Path<String>,
) -> Result<Json<Value>, Problem> {
    match refund::find(&app.pool, mode, &refund_no).await? {
        Some(refund) => Ok(Json(refund_shown(&refund))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_lists_exactly_the_routes() {
        let routes = routes(&ServiceToken::new("0123456789abcdef"));
        assert_eq!(*routes.listed(), service_shell::operations(crate::OPENAPI));
    }
}
