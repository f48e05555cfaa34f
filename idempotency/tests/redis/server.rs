//! Redis: round trips counted, and servers that forget, refuse and break.
#![cfg(feature = "redis")]
#![cfg_attr(
    feature = "redis",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Once;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use probity_idempotency::store::{Answer, Claim, OwnerToken, RecordId, Terms, Written};
use probity_idempotency::*;
use redis::aio::ConnectionManager;
use testkit::Redis;

/// Longer than a server is away, on the slowest machine.
const KEPT: Duration = Duration::from_secs(3600);

async fn started(options: &'static [&'static str]) -> Redis {
    subscribe();
    tokio::task::spawn_blocking(|| Redis::start_with(options)).await.unwrap()
}

async fn connection(server: &Redis) -> ConnectionManager {
    let client = redis::Client::open(server.url()).unwrap();
    ConnectionManager::new(client).await.unwrap()
}

fn a_claim(effects: Effects) -> Claim {
    let mut record = [0; 32];
    record[..16].copy_from_slice(OwnerToken::generate().unwrap().as_bytes());
    Claim {
        record: RecordId::from_bytes(record),
        token: OwnerToken::generate().unwrap(),
        fingerprint: Fingerprint::of(&HashKey::default(), &[b"pay"]),
        effects,
        terms: Terms { lease: KEPT, lease_cap: KEPT, ..Terms::default() },
    }
}

/// Everything that was sent to a server. What scripts call on their own there is not.
struct Overheard {
    said: Pin<Box<dyn Stream<Item = String> + Send>>,
    other: ConnectionManager,
}

impl Overheard {
    async fn at(server: &Redis) -> Self {
        let client = redis::Client::open(server.url()).unwrap();
        let monitor = client.get_async_monitor().await.unwrap();
        Self { said: Box::pin(monitor.into_on_message()), other: connection(server).await }
    }

    /// Returns the commands that were sent since it was asked last.
    async fn sent(&mut self) -> Vec<String> {
        let () = redis::cmd("ECHO").arg("so far").query_async(&mut self.other).await.unwrap();
        let mut sent = Vec::new();
        while let Some(said) = self.said.next().await {
            if said.contains("so far") {
                return sent;
            }
            if !said.contains(" lua]") {
                sent.push(said);
            }
        }
        panic!("the server hung up")
    }
}

#[tokio::test]
async fn a_first_run_is_two_round_trips_and_a_replay_one() {
    let server = started(&[]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut overheard = Overheard::at(&server).await;
    for round in 0..3 {
        let claim = a_claim(Effects::Opaque);
        overheard.sent().await;
        assert!(matches!(store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
        let completed = store.complete(&claim.holder(), &Recording::new(200).body("paid"), KEPT).await;
        assert_eq!(completed.unwrap(), Written::Applied);
        let first_run = overheard.sent().await;
        assert!(matches!(store.claim(&claim).await.unwrap(), Answer::Replay(_)));
        let replay = overheard.sent().await;
        // The server has to get the text of each script once.
        let expected = if round == 0 { (4, 1) } else { (2, 1) };
        assert_eq!((first_run.len(), replay.len()), expected, "{first_run:?} {replay:?}");
    }
}

#[tokio::test]
async fn a_flushed_script_cache_costs_a_round_trip_and_nothing_else() {
    let server = started(&[]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut other = connection(&server).await;
    let claim = a_claim(Effects::Opaque);
    assert!(matches!(store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut other).await.unwrap();
    assert!(matches!(
        store.claim(&Claim { token: OwnerToken::generate().unwrap(), ..claim }).await.unwrap(),
        Answer::InFlight { .. }
    ));
    let completed = store.complete(&claim.holder(), &Recording::new(200), KEPT).await.unwrap();
    assert_eq!(completed, Written::Applied);
}

// proves: I-9
#[tokio::test]
async fn a_foreign_value_at_the_key_is_an_error_and_never_a_grant() {
    let server = started(&[]).await;
    let store = RedisStore::connect(server.url()).await.unwrap().prefix("t:");
    let mut other = connection(&server).await;
    let claim = a_claim(Effects::Opaque);
    let key = format!("t:{}", claim.record.to_hex());
    let _: () = redis::cmd("HSET").arg(&key).arg("not").arg("ours").query_async(&mut other).await.unwrap();
    assert_eq!(store.claim(&claim).await.unwrap_err().effect(), Effect::NotApplied);
    for nonsense in ["", "1", "1i", "1x", "not ours", &"1i".repeat(200), &"1r".repeat(200)] {
        let _: () = redis::cmd("DEL").arg(&key).query_async(&mut other).await.unwrap();
        let _: () = redis::cmd("SET").arg(&key).arg(nonsense).query_async(&mut other).await.unwrap();
        assert_eq!(store.claim(&claim).await.unwrap_err().effect(), Effect::NotApplied, "{nonsense}");
        let kept: String = redis::cmd("GET").arg(&key).query_async(&mut other).await.unwrap();
        assert_eq!(kept, nonsense);
    }
}

// proves: I-9
#[tokio::test]
async fn a_full_or_read_only_server_grants_nothing_and_still_replays() {
    let server = started(&["--maxmemory-policy", "noeviction"]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut other = connection(&server).await;
    let done = a_claim(Effects::Opaque);
    assert!(matches!(store.claim(&done).await.unwrap(), Answer::Acquired(_)));
    let _ = store.complete(&done.holder(), &Recording::new(200), KEPT).await.unwrap();
    let _: () =
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").query_async(&mut other).await.unwrap();
    let refused = store.claim(&a_claim(Effects::Opaque)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Full, Effect::NotApplied));
    assert!(matches!(store.claim(&done).await.unwrap(), Answer::Replay(_)));
    let _: () =
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("0").query_async(&mut other).await.unwrap();
    let _: () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg("1").query_async(&mut other).await.unwrap();
    let refused = store.claim(&a_claim(Effects::Opaque)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    assert!(!store.durability().await.unwrap().is_master);
}

#[tokio::test]
async fn durability_reports_the_settings_of_the_server() {
    let server = started(&["--maxmemory-policy", "allkeys-lru", "--appendonly", "no"]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let found = store.durability().await.unwrap();
    assert_eq!((found.never_evicts, found.append_only, found.is_master), (false, false, true));
    assert_eq!((found.replicas, found.servers), (0, 1));
}

thread_local! {
    /// The log of this thread, which runs one test.
    static LOGGED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOGGED.with_borrow_mut(|logged| logged.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Subscribes for the whole process, before anything is logged. A subscriber per thread misses what another thread
/// without one logs first.
fn subscribe() {
    static ONCE: Once = Once::new();
    let subscriber = || tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).finish();
    ONCE.call_once(|| tracing::subscriber::set_global_default(subscriber()).unwrap());
}

/// A store, and what it says of its server when it connects.
async fn said_at_start(server: &Redis) -> (RedisStore, String) {
    LOGGED.take();
    let store = RedisStore::connect(server.url()).await.unwrap();
    (store, String::from_utf8(LOGGED.take()).unwrap())
}

#[tokio::test]
async fn faults_of_a_server_are_logged_at_start() {
    let server = started(&["--maxmemory-policy", "volatile-ttl", "--appendonly", "no"]).await;
    let (_, said) = said_at_start(&server).await;
    assert!(said.contains("never_evicts=false append_only=false"), "{said}");
    assert!(said.contains("WARN") && said.contains("may evict records"), "{said}");
    assert!(said.contains("forgets records when it restarts"), "{said}");
    let server = started(&["--maxmemory-policy", "noeviction", "--appendonly", "yes"]).await;
    let (_, said) = said_at_start(&server).await;
    assert!(said.contains("never_evicts=true append_only=true") && !said.contains("WARN"), "{said}");
}

#[tokio::test]
async fn a_server_that_hides_its_settings_is_accepted_with_a_warning() {
    let server = started(&[]).await;
    let mut other = connection(&server).await;
    let () = redis::cmd("ACL").arg(&["SETUSER", "default", "-info"]).query_async(&mut other).await.unwrap();
    let (store, said) = said_at_start(&server).await;
    assert!(said.contains("WARN") && said.contains("permit INFO"), "{said}");
    assert_eq!(store.durability().await.unwrap_err().kind(), ErrorKind::Rejected);
    assert!(matches!(store.claim(&a_claim(Effects::Opaque)).await.unwrap(), Answer::Acquired(_)));
}

#[tokio::test]
async fn indeterminate_records_do_not_expire_and_finished_ones_do() {
    let server = started(&[]).await;
    let store = RedisStore::connect(server.url()).await.unwrap().prefix("t:");
    let mut other = connection(&server).await;
    for (effects, mark, finish, expires) in [
        (Effects::Opaque, false, false, false),
        (Effects::Opaque, false, true, true),
        (Effects::Local, false, false, true),
        (Effects::Marked, false, false, true),
        (Effects::Marked, true, false, false),
        (Effects::Marked, true, true, true),
    ] {
        let claim = a_claim(effects);
        assert!(matches!(store.claim(&claim).await.unwrap(), Answer::Acquired(_)));
        if mark {
            assert_eq!(store.mark_effect(&claim.holder()).await.unwrap(), Written::Applied);
            // The key's end no longer gives the time of the claim, and the lease still ends.
            let found = store.get(claim.record).await.unwrap().unwrap();
            assert!(found.lease_left <= claim.terms.lease && !found.lease_left.is_zero(), "{found:?}");
        }
        if finish {
            let _ = store.complete(&claim.holder(), &Recording::new(200), KEPT).await.unwrap();
        }
        let key = format!("t:{}", claim.record.to_hex());
        let left: i64 = redis::cmd("TTL").arg(key).query_async(&mut other).await.unwrap();
        let years = left / (365 * 24 * 3600);
        assert_eq!((left > 0, years < 1), (true, expires), "{effects:?} {mark} {finish}: {left} s");
    }
}

// proves: I-9
#[tokio::test]
async fn a_killed_server_grants_nothing_until_it_is_back() {
    let mut server = started(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let done = a_claim(Effects::Opaque);
    assert!(matches!(store.claim(&done).await.unwrap(), Answer::Acquired(_)));
    let _ = store.complete(&done.holder(), &Recording::new(200), KEPT).await.unwrap();
    server = tokio::task::spawn_blocking(move || {
        server.kill9();
        server
    })
    .await
    .unwrap();
    assert!(store.claim(&a_claim(Effects::Opaque)).await.is_err());
    let server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .unwrap();
    let store = RedisStore::connect(server.url()).await.unwrap();
    assert!(matches!(store.claim(&done).await.unwrap(), Answer::Replay(_)));
}
