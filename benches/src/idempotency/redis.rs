//! Redis: `SET NX PX` and `SET` a key against the store's claim and completion, and the claim without a script that was
//! considered instead.

use std::sync::Arc;

use probity_idempotency::RedisStore;
use redis::IntoConnectionInfo;
use redis::aio::ConnectionManager;
use redis::io::tcp::TcpSettings;

use super::calls::{BODY, Manager, completed, first_run, fresh, replay};
use super::contest::{Contender, contest, table};
use crate::closed_loop::{Rounds, say};

const KEEP_MS: u64 = 3_600_000;

#[expect(clippy::expect_used, reason = "a bench that cannot reach its store has nothing to measure")]
pub(super) async fn measure(rounds: Rounds) {
    let server = testkit::Redis::start_with(&["--appendonly", "no"]);
    let store = RedisStore::connect(server.url()).await.expect("connect");
    let manager: Manager = Arc::new(store);
    // As the store connects: nothing waits to be sent.
    let info = server.url().into_connection_info().expect("a URL");
    let client =
        redis::Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true))).expect("a URL");
    let raw = ConnectionManager::new(client).await.expect("connect");
    table("Redis, one multiplexed connection, no append-only file");
    for tasks in [1, 16, 64, 256] {
        let ours = Arc::clone(&manager);
        let contenders = [raw_first_run(raw.clone()), Contender::new("store", move |_, _| first_run(&ours))];
        contest("first run", tasks, rounds, &contenders).await;
    }
    let key = completed(&manager).await;
    set(&mut raw.clone(), "raw:replayed", false).await;
    for tasks in [1, 16, 64, 256] {
        let ours = Arc::clone(&manager);
        let contenders = [raw_replay(raw.clone()), Contender::new("store", move |_, _| replay(&ours, key))];
        contest("replay of one key", tasks, rounds, &contenders).await;
    }
    for tasks in [1, 16, 64, 256] {
        let ours = Arc::clone(&manager);
        let contenders = [
            set_and_ttl(raw.clone(), false),
            set_and_ttl(raw.clone(), true),
            Contender::new("begin of the store, a script", move |_, _| claim(&ours)),
        ];
        contest("claim alone", tasks, rounds, &contenders).await;
    }
    let used: u64 = redis::cmd("MEMORY")
        .arg("USAGE")
        .arg(format!("idempotency:{}", key.record.to_hex()))
        .query_async(&mut raw.clone())
        .await
        .expect("a size");
    say(format!("\nBytes per finished record in Redis, with a body of {}: {used}", BODY.len()));
}

/// `SET key value [NX] PX`, as one does by hand.
#[expect(clippy::expect_used, reason = "as above")]
async fn set(connection: &mut ConnectionManager, key: &str, only_if_new: bool) {
    let mut command = redis::cmd("SET");
    command.arg(key).arg(BODY);
    if only_if_new {
        command.arg("NX");
    }
    let done: Option<String> =
        command.arg("PX").arg(KEEP_MS).query_async(connection).await.expect("an answer");
    assert!(done.is_some(), "a new key is free");
}

fn raw_first_run(connection: ConnectionManager) -> Contender {
    Contender::new("raw SET NX PX and SET", move |_, _| {
        let mut connection = connection.clone();
        async move {
            let key = fresh().record.to_hex();
            set(&mut connection, &key, true).await;
            set(&mut connection, &key, false).await;
        }
    })
}

#[expect(clippy::expect_used, reason = "as above")]
fn raw_replay(connection: ConnectionManager) -> Contender {
    Contender::new("raw GET", move |_, _| {
        let mut connection = connection.clone();
        async move {
            let found: Option<String> =
                redis::cmd("GET").arg("raw:replayed").query_async(&mut connection).await.expect("an answer");
            assert!(found.is_some());
        }
    })
}

/// The claim without a script: what is there, and how old it is, in one round trip.
#[expect(clippy::expect_used, reason = "as above")]
fn set_and_ttl(connection: ConnectionManager, atomic: bool) -> Contender {
    let name = if atomic { "the same in MULTI and EXEC" } else { "SET NX GET PX and PTTL, pipelined" };
    Contender::new(name, move |_, _| {
        let mut connection = connection.clone();
        async move {
            let claim = fresh();
            let key = claim.record.to_hex();
            // Token, fingerprint, effects and terms, about as long as packed.
            let record = [&claim.token.as_bytes()[..], claim.fingerprint.as_bytes(), &[0; 33]].concat();
            let mut pair = redis::pipe();
            if atomic {
                pair.atomic();
            }
            let (found, _left): (Option<Vec<u8>>, i64) = pair
                .cmd("SET")
                .arg(&key)
                .arg(record)
                .arg("NX")
                .arg("GET")
                .arg("PX")
                .arg(KEEP_MS)
                .cmd("PTTL")
                .arg(&key)
                .query_async(&mut connection)
                .await
                .expect("an answer");
            assert!(found.is_none());
        }
    })
}

#[expect(clippy::expect_used, reason = "as above")]
fn claim(manager: &Manager) -> impl Future<Output = ()> + Send + use<> {
    let manager = Arc::clone(manager);
    async move {
        let _ = manager.claim(&fresh()).await.expect("an answer");
    }
}
