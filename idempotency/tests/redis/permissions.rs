//! Redis users with few permissions: the commands that suffice, the refusal at start, and the effect of a later
//! refusal.
#![cfg(feature = "redis")]
#![cfg_attr(
    feature = "redis",
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

use std::error::Error;
use std::time::Duration;

use probity_idempotency::store::{
    Answer, Claim, Fence, OwnerToken, RecordId, Renewed, Resolution, Terms, Written,
};
use probity_idempotency::*;
use redis::aio::ConnectionManager;
use testkit::Redis;

const KEPT: Duration = Duration::from_secs(60);

/// A server, its administrator, and how the user `payments` logs in.
struct Subject {
    _server: Redis,
    admin: ConnectionManager,
    url: String,
}

impl Subject {
    /// `payments` may run `commands`, on keys of the store's usual prefix.
    async fn permitting(commands: &[&str]) -> Self {
        let server = tokio::task::spawn_blocking(Redis::start).await.unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let admin = ConnectionManager::new(client).await.unwrap();
        let url = server.url().replace("redis://", "redis://payments:secret@");
        let mut subject = Self { _server: server, admin, url };
        subject.may(&["on", ">secret", "resetchannels", "~idempotency:*", "-@all"]).await;
        for command in commands {
            subject.may(&[&format!("+{command}")]).await;
        }
        subject
    }

    async fn may(&mut self, rules: &[&str]) {
        let mut command = redis::cmd("ACL");
        let () =
            command.arg("SETUSER").arg("payments").arg(rules).query_async(&mut self.admin).await.unwrap();
    }

    /// The record as it is kept, and until when; nothing if it is not there.
    async fn kept(&mut self, claim: &Claim) -> (Option<Vec<u8>>, i64) {
        let key = format!("idempotency:{}", claim.record.to_hex());
        let kept = redis::cmd("GET").arg(&key).query_async(&mut self.admin).await.unwrap();
        (kept, redis::cmd("PEXPIRETIME").arg(&key).query_async(&mut self.admin).await.unwrap())
    }
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

/// A call for a record that is in flight, or has never been claimed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    Claim,
    ClaimAgain,
    TakeOver,
    Renew,
    Mark,
    Complete,
    Tombstone,
    Release,
    Resolve,
    Get,
}

const CALLS: [Call; 10] = [
    Call::Claim,
    Call::ClaimAgain,
    Call::TakeOver,
    Call::Renew,
    Call::Mark,
    Call::Complete,
    Call::Tombstone,
    Call::Release,
    Call::Resolve,
    Call::Get,
];

impl Call {
    /// Leaves the record as the call needs to find it.
    async fn prepare(self, store: &RedisStore, claim: &Claim) {
        if self == Call::Claim {
            return;
        }
        assert!(matches!(store.claim(claim).await.unwrap(), Answer::Acquired(_)));
        if matches!(self, Call::TakeOver | Call::Resolve) {
            assert_eq!(
                store.renew(&claim.holder(), Duration::ZERO).await.unwrap(),
                Renewed::Held(Duration::ZERO)
            );
        }
    }

    async fn make(self, store: &RedisStore, claim: &Claim, fence: Fence) -> Result<(), StoreError> {
        let holder = claim.holder();
        match self {
            Call::Claim | Call::ClaimAgain => {
                assert!(matches!(store.claim(claim).await?, Answer::Acquired(_)));
            }
            Call::TakeOver => {
                let rival = Claim { token: OwnerToken::generate().unwrap(), ..*claim };
                assert!(matches!(store.claim(&rival).await?, Answer::Acquired(_)));
            }
            Call::Renew => assert!(matches!(store.renew(&holder, KEPT).await?, Renewed::Held(_))),
            Call::Mark => assert_eq!(store.mark_effect(&holder).await?, Written::Applied),
            Call::Complete => {
                assert_eq!(store.complete(&holder, &Recording::new(200), KEPT).await?, Written::Applied);
            }
            Call::Tombstone => {
                let buried = Tombstone { reason: TombstoneReason::TooLarge, status: 200, location: None };
                assert_eq!(store.tombstone(&holder, &buried, KEPT).await?, Written::Applied);
            }
            Call::Release => assert_eq!(store.release(&holder).await?, Written::Applied),
            Call::Resolve => {
                let absent = store.resolve(claim.record, fence, &Resolution::Absent, KEPT).await?;
                assert_eq!(absent, Written::Applied);
            }
            Call::Get => assert!(store.get(claim.record).await?.is_some()),
        }
        Ok(())
    }

    fn claim(self) -> Claim {
        a_claim(if self == Call::TakeOver { Effects::Marked } else { Effects::Opaque })
    }
}

async fn fence(store: &RedisStore, claim: &Claim) -> Fence {
    store.get(claim.record).await.unwrap().map_or(Fence(0), |found| found.fence)
}

#[tokio::test]
async fn the_named_commands_suffice_for_everything() {
    let subject = Subject::permitting(&RedisStore::COMMANDS).await;
    let store = RedisStore::connect(&subject.url).await.unwrap();
    for call in CALLS {
        let claim = call.claim();
        call.prepare(&store, &claim).await;
        let fence = fence(&store, &claim).await;
        call.make(&store, &claim, fence).await.unwrap();
    }
    store.permitted().await.unwrap();
}

#[tokio::test]
async fn a_user_who_lacks_a_command_or_the_keys_is_refused_at_start() {
    let mut subject = Subject::permitting(&RedisStore::COMMANDS).await;
    for command in RedisStore::COMMANDS {
        subject.may(&[&format!("-{command}")]).await;
        let refused = RedisStore::connect(&subject.url).await.unwrap_err();
        let why = refused.source().unwrap().to_string();
        assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Rejected, Effect::NotApplied), "{why}");
        assert!(why.contains(command), "without {command}: {why}");
        subject.may(&[&format!("+{command}")]).await;
    }
    subject.may(&["resetkeys", "~payments:*"]).await;
    let refused = RedisStore::connect(&subject.url).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Rejected);
    // The prefix is set after connecting.
    subject.may(&["~idempotency:*"]).await;
    let elsewhere = RedisStore::connect(&subject.url).await.unwrap().prefix("refunds:");
    assert_eq!(elsewhere.permitted().await.unwrap_err().kind(), ErrorKind::Rejected);
    subject.may(&["~refunds:*"]).await;
    elsewhere.permitted().await.unwrap();
}

// A script that has written and then fails is not undone by Redis.
// proves: I-5
#[tokio::test]
async fn a_call_refused_for_a_missing_permission_has_changed_nothing() {
    let mut subject = Subject::permitting(&RedisStore::COMMANDS).await;
    let store = RedisStore::connect(&subject.url).await.unwrap();
    let mut refusals = 0;
    for command in RedisStore::COMMANDS {
        for call in CALLS {
            let claim = call.claim();
            call.prepare(&store, &claim).await;
            let fence = fence(&store, &claim).await;
            let before = subject.kept(&claim).await;
            subject.may(&[&format!("-{command}")]).await;
            let made = call.make(&store, &claim, fence).await;
            subject.may(&[&format!("+{command}")]).await;
            let Err(refused) = made else { continue };
            refusals += 1;
            let why = format!("{call:?} without {command}: {:?}", refused.source());
            assert_eq!(
                (refused.kind(), refused.effect()),
                (ErrorKind::Rejected, Effect::NotApplied),
                "{why}"
            );
            assert_eq!(subject.kept(&claim).await, before, "{why}");
            call.make(&store, &claim, fence).await.unwrap();
        }
    }
    assert!(refusals > 40, "only {refusals} calls were refused");
}
