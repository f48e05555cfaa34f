//! Redis over TLS: the contract, and the servers that are refused.
#![cfg(all(
    feature = "testing",
    feature = "redis-tls",
    feature = "redis-cluster",
    feature = "redis-sentinel"
))]
#![cfg_attr(
    all(feature = "testing", feature = "redis-tls", feature = "redis-cluster", feature = "redis-sentinel"),
    expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")
)]

mod certificates;
mod deployments;
mod refusals;

use std::sync::{Arc, LazyLock};

use probity_idempotency::RedisStore;
use probity_idempotency::testing::Subject;
use testkit::{Redis, TempDir, TlsFiles};

use certificates::Authority;

/// The authority that the tests trust, a server that it signed for, and the files of that.
static TRUSTED: LazyLock<Trusted> = LazyLock::new(|| {
    let (authority, folder) = (Authority::new(), testkit::temp_dir());
    let files = authority.files(&folder);
    let server = Redis::start_tls(&files, &[]);
    Trusted { authority, server, files, _folder: folder }
});

struct Trusted {
    authority: Authority,
    server: Redis,
    files: TlsFiles,
    _folder: TempDir,
}

async fn trusted() -> &'static Trusted {
    tokio::task::spawn_blocking(|| LazyLock::force(&TRUSTED)).await.unwrap()
}

async fn subject() -> Subject {
    let Trusted { authority, server, .. } = trusted().await;
    assert!(server.url().starts_with("rediss://"));
    let store = RedisStore::connect_tls(server.url(), authority.trusted()).await.unwrap();
    Subject::new(Arc::new(store.prefix(server.key_prefix())))
}

// proves: I-1
probity_idempotency::store_contract!(subject);
