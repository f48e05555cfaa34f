//! The rows of the table of tokens, as statements that insert them. A result that a later version cannot read leaves its
//! caller without an answer; a token that it does not find runs the work again.

use std::collections::BTreeMap;

use probity_txn::{create_token_table, on};
use serde::{Deserialize, Serialize};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::SqlitePoolOptions;

use super::v1;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Receipt {
    number: String,
    cents: i64,
    rate: f64,
    note: Option<String>,
    parts: Vec<(u8, bool)>,
    tags: BTreeMap<String, u64>,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum State {
    Booked,
    Held { until: u64 },
}

fn receipt() -> Receipt {
    Receipt {
        number: "R-1 \"quoted\" 'and' ü".to_owned(),
        cents: i64::MIN,
        rate: 0.945_270_695_553_922_3,
        note: None,
        parts: vec![(1, true), (2, false)],
        tags: BTreeMap::from([("b".to_owned(), u64::MAX), ("a".to_owned(), 0)]),
        state: State::Held { until: 5 },
    }
}

/// Runs with every token. What the closures answer is `fresh`, so that a stored result can be told from a new one.
macro_rules! run_all {
    ($pool:expr, $fresh:expr) => {{
        let pool = $pool;
        let once = |token: &str| on(pool, "payout").once(token);
        let fresh: bool = $fresh;
        let pick = |stored, new| if fresh { stored } else { new };
        let number = once("number").run(async |_tx| Ok::<_, sqlx::Error>(pick(7_i64, 0))).await;
        let unit = once("unit").run(async |_tx| Ok::<_, sqlx::Error>(())).await;
        let nothing = once("nothing")
            .run(async |_tx| Ok::<_, sqlx::Error>(if fresh { None } else { Some(1_i64) }))
            .await;
        let booked = once("booked")
            .run(async |_tx| {
                Ok::<_, sqlx::Error>(if fresh { State::Booked } else { State::Held { until: 0 } })
            })
            .await;
        let other = Receipt { cents: 0, ..receipt() };
        let whole = once("receipt")
            .run(async |_tx| Ok::<_, sqlx::Error>(if fresh { receipt() } else { other.clone() }))
            .await;
        assert_eq!((number.unwrap(), nothing.unwrap(), booked.unwrap()), (7, None, State::Booked));
        unit.unwrap();
        let whole = whole.unwrap();
        assert_eq!((&whole, whole.rate.to_bits()), (&receipt(), receipt().rate.to_bits()));
    }};
}

const TOKENS: [&str; 5] = ["number", "unit", "nothing", "booked", "receipt"];

/// Writes the rows as a script for both databases. The time of a row is the database's.
macro_rules! script {
    ($pool:expr) => {{
        let mut script = String::new();
        for token in TOKENS {
            let row = "SELECT label, result FROM probity_txn_tokens WHERE token = $1";
            let (label, result): (String, String) =
                sqlx::query_as(row).bind(token).fetch_one($pool).await.unwrap();
            let result = result.replace('\'', "''");
            script += &format!(
                "INSERT INTO probity_txn_tokens (token, label, result)\nVALUES ('{token}', '{label}', '{result}');\n"
            );
        }
        script
    }};
}

macro_rules! are_written_and_read {
    ($name:ident, $open:expr) => {
        // proves: T-6
        #[tokio::test]
        async fn $name() {
            let (_kept, pool) = $open.await;
            create_token_table(&pool).await.unwrap();
            run_all!(&pool, true);
            let stored = testkit::golden(v1!("tokens.sql"), &script!(&pool));

            let (_kept, pool) = $open.await;
            create_token_table(&pool).await.unwrap();
            sqlx::raw_sql(AssertSqlSafe(stored)).execute(&pool).await.unwrap();
            run_all!(&pool, false);
        }
    };
}

async fn sqlite() -> ((), sqlx::SqlitePool) {
    ((), SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap())
}

async fn postgres() -> (testkit::TestDatabase, sqlx::PgPool) {
    let database = tokio::task::spawn_blocking(|| testkit::Postgres::shared().database()).await.unwrap();
    let pool = PgPoolOptions::new().max_connections(2).connect(database.url()).await.unwrap();
    (database, pool)
}

are_written_and_read!(tokens_of_sqlite_are_written_and_read_as_in_version_1, sqlite());
are_written_and_read!(tokens_of_postgresql_are_written_and_read_as_in_version_1, postgres());
