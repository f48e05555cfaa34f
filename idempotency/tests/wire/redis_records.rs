//! The strings of the Redis store, with the names of their keys.

use std::sync::Arc;

use probity_idempotency::{IdempotencyManager, RedisStore};
use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use testkit::Redis;

use super::payments::{KEYS, TOKEN, fill, record, retry};
use super::v1;

/// The places of the token of the holder, of the end of the key and of the time it is kept, by `packed.rs`.
const TOKEN_AT: std::ops::Range<usize> = 2..18;
const ENDED_AT: std::ops::Range<usize> = 80..94;
const KEPT_AT: std::ops::Range<usize> = 94..108;
/// Stands in the golden file for the end of a key, which is a time of the server.
const END: &[u8; 14] = b"a time in msec";
const NO_END: &[u8; 14] = b"00000000000000";
const MINUTE: i64 = 60_000;

async fn connected() -> (ConnectionManager, String) {
    let server = tokio::task::spawn_blocking(Redis::shared).await.unwrap();
    let connection = ConnectionManager::new(redis::Client::open(server.url()).unwrap()).await.unwrap();
    (connection, server.key_prefix())
}

fn digits(field: &[u8]) -> i64 {
    std::str::from_utf8(field).unwrap().parse().unwrap()
}

/// The record without what differs from run to run.
fn masked(mut stored: Vec<u8>) -> String {
    stored[TOKEN_AT].copy_from_slice(TOKEN);
    if stored[ENDED_AT] != *NO_END {
        stored[ENDED_AT].copy_from_slice(END);
    }
    stored.escape_ascii().to_string()
}

/// The bytes that [`masked`] wrote, with an end of the key as if it had been claimed now.
fn unmasked(line: &str, now: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().unwrap() {
                b'x' => {
                    let code = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&code).unwrap(), 16).unwrap()
                }
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                itself => itself,
            },
            byte => byte,
        });
    }
    if bytes[ENDED_AT] == *END {
        let end = format!("{:014}", now + digits(&bytes[KEPT_AT]));
        bytes[ENDED_AT].copy_from_slice(end.as_bytes());
    }
    bytes
}

// proves: I-2
#[tokio::test]
async fn records_of_redis_are_written_and_read_as_in_version_1() {
    let (mut connection, prefix) = connected().await;
    let store: Arc<dyn IdempotencyManager> = Arc::new(RedisStore::new(connection.clone()).prefix(&prefix));
    fill(&store).await;
    let mut lines = String::from("# name of the key behind the prefix, minutes it is kept, value\n");
    for key in KEYS {
        let name = record(key).to_hex();
        let value: Vec<u8> = connection.get(format!("{prefix}{name}")).await.unwrap();
        let left: i64 = connection.pttl(format!("{prefix}{name}")).await.unwrap();
        lines += &format!("\n# {key}\n{name} {} {}\n", (left + MINUTE / 2) / MINUTE, masked(value));
    }
    let stored = testkit::golden(v1!("records_redis.txt"), &lines);

    let (mut connection, prefix) = connected().await;
    let (seconds, micros): (i64, i64) = redis::cmd("TIME").query_async(&mut connection).await.unwrap();
    let now = seconds * 1000 + micros / 1000;
    for line in stored.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let [name, minutes, value] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let value = unmasked(value, now);
        // A claim without a written end was made as long before the key's own end as it is kept.
        let kept = if value[ENDED_AT] == *NO_END {
            digits(&value[KEPT_AT])
        } else {
            minutes.parse::<i64>().unwrap() * MINUTE
        };
        let set = redis::cmd("SET").arg(format!("{prefix}{name}")).arg(value).arg("PX").arg(kept).to_owned();
        let () = set.query_async(&mut connection).await.unwrap();
    }
    let store: Arc<dyn IdempotencyManager> = Arc::new(RedisStore::new(connection).prefix(&prefix));
    retry(&store).await;
}
