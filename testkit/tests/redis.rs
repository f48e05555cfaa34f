//! Redis as tests see it: shared, own, broken, and as a cluster.
#![expect(clippy::expect_used, reason = "a test fails by panicking, in its helpers too")]

use std::time::Duration;

use redis::AsyncTypedCommands;
use testkit::Redis;

async fn connect(url: &str) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(url).expect("a Redis URL");
    client.get_multiplexed_async_connection().await.expect("a running server")
}

#[tokio::test]
async fn every_test_has_keys_of_its_own() {
    let server = Redis::shared();
    let (one, other) = (server.key_prefix(), server.key_prefix());
    let mut redis = connect(server.url()).await;
    redis.set(format!("{one}payment"), "PAY-1").await.expect("a write");
    assert_eq!(redis.get(format!("{other}payment")).await.expect("a read"), None);
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_and_the_url_stays() {
    let mut server = Redis::start();
    connect(server.url()).await.set("charge", 100).await.expect("a write");
    server.kill9();
    server.restart();
    assert_eq!(connect(server.url()).await.get("charge").await.expect("a read"), Some("100".to_owned()));
    server.stop();
    assert!(
        std::net::TcpStream::connect(server.url().trim_start_matches("redis://").trim_end_matches('/'))
            .is_err()
    );
    server.restart();
    assert_eq!(connect(server.url()).await.get("charge").await.expect("a read"), Some("100".to_owned()));
}

#[tokio::test]
async fn a_paused_server_answers_nothing_and_goes_on_when_resumed() {
    let mut server = Redis::start();
    let mut redis = connect(server.url()).await;
    server.pause();
    let mut asked = tokio::spawn(async move { redis::cmd("PING").query_async::<String>(&mut redis).await });
    let answer = tokio::time::timeout(Duration::from_millis(200), &mut asked).await;
    assert!(answer.is_err(), "a paused server answered: {answer:?}");
    server.resume();
    assert_eq!(asked.await.expect("no panic").expect("the answer that was only late"), "PONG");
}

#[tokio::test]
async fn options_reach_the_server() {
    let server = Redis::start_with(&["--maxmemory", "3mb"]);
    let mut redis = connect(server.url()).await;
    let answer: (String, String) =
        redis::cmd("CONFIG").arg("GET").arg("maxmemory").query_async(&mut redis).await.expect("a read");
    assert_eq!(answer.1, (3 * 1024 * 1024).to_string());
}

#[tokio::test]
async fn a_cluster_sends_keys_to_the_node_that_has_their_slot_and_survives_a_kill() {
    let mut cluster = Redis::cluster();
    assert_eq!(cluster.urls().len(), 3);
    let mut moved = 0; // the slots of a, b and c are 15495, 3300 and 7365: one on each node
    for key in ["a", "b", "c"] {
        let mut redis = connect(&cluster.urls()[0]).await;
        match redis.set(key, "1").await {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.kind(), redis::ErrorKind::Server(redis::ServerErrorKind::Moved), "{error}");
                moved += 1;
            }
        }
    }
    assert_eq!(moved, 2);
    cluster.kill9(1);
    cluster.restart(1);
}
