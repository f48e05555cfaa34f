//! Redis: round trips counted, and servers that forget, refuse and break.
#![cfg(feature = "redis")]
#![cfg_attr(
    feature = "redis",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::time::Duration;

use probity_idempotency::*;
use redis::aio::ConnectionManager;
use testkit::Redis;

async fn started(options: &'static [&'static str]) -> Redis {
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
        terms: Terms::default(),
    }
}

async fn calls(connection: &mut ConnectionManager) -> u64 {
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(connection).await.unwrap();
    let line = stats.lines().find(|line| line.starts_with("cmdstat_evalsha:calls=")).unwrap_or_default();
    line.split(['=', ',']).nth(1).map_or(0, |calls| calls.parse().unwrap())
}

#[tokio::test]
async fn a_first_run_is_two_round_trips_and_a_replay_one() {
    let server = started(&[]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut observer = connection(&server).await;
    let retention = Duration::from_secs(60);
    for round in 0..3 {
        let claim = a_claim(Effects::Opaque);
        let before = calls(&mut observer).await;
        assert!(matches!(store.begin(&claim).await.unwrap(), Answer::Acquired(_)));
        let completed = store.complete(&claim.holder(), &Recording::new(200).body("paid"), retention).await;
        assert_eq!(completed.unwrap(), Written::Applied);
        let first_run = calls(&mut observer).await - before;
        assert!(matches!(store.begin(&claim).await.unwrap(), Answer::Replay(_)));
        let replay = calls(&mut observer).await - before - first_run;
        if round > 0 {
            assert_eq!((first_run, replay), (2, 1), "after the server has learned the scripts");
        }
    }
}

#[tokio::test]
async fn a_flushed_script_cache_costs_a_round_trip_and_nothing_else() {
    let server = started(&[]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut other = connection(&server).await;
    let claim = a_claim(Effects::Opaque);
    assert!(matches!(store.begin(&claim).await.unwrap(), Answer::Acquired(_)));
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut other).await.unwrap();
    assert!(matches!(
        store.begin(&Claim { token: OwnerToken::generate().unwrap(), ..claim }).await.unwrap(),
        Answer::InFlight { .. }
    ));
    let completed =
        store.complete(&claim.holder(), &Recording::new(200), Duration::from_secs(60)).await.unwrap();
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
    let _: () = redis::cmd("SET").arg(&key).arg("not a hash").query_async(&mut other).await.unwrap();
    assert_eq!(store.begin(&claim).await.unwrap_err().effect(), Effect::NotApplied);
    let _: () = redis::cmd("DEL").arg(&key).query_async(&mut other).await.unwrap();
    let _: () =
        redis::cmd("HSET").arg(&key).arg("state").arg("nonsense").query_async(&mut other).await.unwrap();
    assert!(store.begin(&claim).await.is_err());
}

// proves: I-9
#[tokio::test]
async fn a_full_or_read_only_server_grants_nothing_and_still_replays() {
    let server = started(&["--maxmemory-policy", "noeviction"]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let mut other = connection(&server).await;
    let done = a_claim(Effects::Opaque);
    assert!(matches!(store.begin(&done).await.unwrap(), Answer::Acquired(_)));
    let _ = store.complete(&done.holder(), &Recording::new(200), Duration::from_secs(60)).await.unwrap();
    let _: () =
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("1").query_async(&mut other).await.unwrap();
    let refused = store.begin(&a_claim(Effects::Opaque)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Full, Effect::NotApplied));
    assert!(matches!(store.begin(&done).await.unwrap(), Answer::Replay(_)));
    let _: () =
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg("0").query_async(&mut other).await.unwrap();
    let _: () = redis::cmd("REPLICAOF").arg("127.0.0.1").arg("1").query_async(&mut other).await.unwrap();
    let refused = store.begin(&a_claim(Effects::Opaque)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    assert!(!store.durability().await.unwrap().is_master);
}

#[tokio::test]
async fn the_server_says_how_far_it_can_be_trusted() {
    let server = started(&["--maxmemory-policy", "allkeys-lru", "--appendonly", "no"]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let found = store.durability().await.unwrap();
    assert_eq!(found, Durability { never_evicts: false, append_only: false, is_master: true, replicas: 0 });
}

#[tokio::test]
async fn what_must_be_settled_by_hand_does_not_expire_and_what_is_finished_does() {
    let server = started(&[]).await;
    let store = RedisStore::connect(server.url()).await.unwrap().prefix("t:");
    let mut other = connection(&server).await;
    for (effects, finish, expires) in
        [(Effects::Opaque, false, false), (Effects::Opaque, true, true), (Effects::Local, false, true)]
    {
        let claim = a_claim(effects);
        assert!(matches!(store.begin(&claim).await.unwrap(), Answer::Acquired(_)));
        if finish {
            let _ =
                store.complete(&claim.holder(), &Recording::new(200), Duration::from_secs(60)).await.unwrap();
        }
        let key = format!("t:{}", claim.record.to_hex());
        let left: i64 = redis::cmd("PTTL").arg(key).query_async(&mut other).await.unwrap();
        assert_eq!(left > 0, expires, "{effects:?} {finish}: {left}");
    }
}

// proves: I-9
#[tokio::test]
async fn a_killed_server_grants_nothing_until_it_is_back() {
    let mut server = started(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let store = RedisStore::connect(server.url()).await.unwrap();
    let done = a_claim(Effects::Opaque);
    assert!(matches!(store.begin(&done).await.unwrap(), Answer::Acquired(_)));
    let _ = store.complete(&done.holder(), &Recording::new(200), Duration::from_secs(60)).await.unwrap();
    server = tokio::task::spawn_blocking(move || {
        server.kill9();
        server
    })
    .await
    .unwrap();
    assert!(store.begin(&a_claim(Effects::Opaque)).await.is_err());
    let server = tokio::task::spawn_blocking(move || {
        server.restart();
        server
    })
    .await
    .unwrap();
    let store = RedisStore::connect(server.url()).await.unwrap();
    assert!(matches!(store.begin(&done).await.unwrap(), Answer::Replay(_)));
}
