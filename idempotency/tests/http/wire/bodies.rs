//! Request bodies with a wrong length, that stop, or that are too large.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::client::{post, raw, read, send_and_stop};
use super::server::Server;

/// The key is not claimed by whatever came before: another body may use it.
async fn the_key_is_unused(server: &Server) {
    let answer = server.answers(&post("k", "another body")).await;
    assert_eq!((answer.status, answer.header("idempotency-status")), (201, Some(&b"created"[..])));
}

#[tokio::test]
async fn a_body_that_stops_halfway_claims_nothing() {
    let server = Server::paying(|layer| layer).await;
    for request in [
        raw(b"idempotency-key: k\r\ncontent-length: 10\r\n", b"12345"),
        raw(b"idempotency-key: k\r\ntransfer-encoding: chunked\r\n", b"a\r\n12345"),
        raw(b"idempotency-key: k\r\ntransfer-encoding: chunked\r\n", b"5\r\n12345\r\n"),
    ] {
        // The server may hang up on half a request; if it answers, then with a refusal.
        if let Some(answer) = send_and_stop(server.at, &request).await {
            assert_eq!((answer.status, answer.problem().as_str()), (400, "body-incomplete"));
        }
    }
    the_key_is_unused(&server).await;
    server.is_sound(1).await;
}

#[tokio::test]
async fn a_stalled_body_claims_nothing_and_blocks_no_other_request() {
    let server = Server::paying(|layer| layer).await;
    let mut stalled = TcpStream::connect(server.at).await.unwrap();
    let half = raw(b"idempotency-key: k\r\ncontent-length: 10\r\n", b"12345");
    stalled.write_all(&half).await.unwrap();
    the_key_is_unused(&server).await;
    assert_eq!(server.tasks.running(), 0, "nothing runs for it");
    // The body goes on, but the key now belongs to another request.
    stalled.write_all(b"67890").await.unwrap();
    assert_eq!(read(stalled).await.unwrap().problem(), "mismatch");
    server.is_sound(1).await;
}

#[tokio::test]
async fn lengths_that_contradict_are_refused_or_mean_one_thing() {
    let server = Server::paying(|layer| layer).await;
    for head in [
        &b"idempotency-key: k\r\ncontent-length: 2\r\ncontent-length: 3\r\n"[..],
        b"idempotency-key: k\r\ncontent-length: -1\r\n",
        b"idempotency-key: k\r\ncontent-length: 2x\r\n",
        b"idempotency-key: k\r\ntransfer-encoding: chunked, gzip\r\n",
    ] {
        let answer = server.answers(&raw(head, b"{}")).await;
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(head));
    }
    let not_a_size = raw(b"idempotency-key: k\r\ntransfer-encoding: chunked\r\n", b"xyz\r\n{}\r\n0\r\n\r\n");
    let answer = server.answers(&not_a_size).await;
    assert_eq!((answer.status, answer.problem().as_str()), (400, "body-incomplete"));
    assert_eq!(server.runs(), 0);
    // More bytes than announced are the next request of the connection, which here is garbage.
    let longer = b"POST / HTTP/1.1\r\nhost: t\r\nidempotency-key: k\r\ncontent-length: 2\r\n\r\n{}{\"amount\":1}\r\n\r\n";
    let answer = server.answers(longer).await;
    assert_eq!((answer.status, &answer.body[..16]), (201, &b"run 1 of 2 bytes"[..]));
    server.is_sound(1).await;
}

#[tokio::test]
async fn a_body_above_the_cap_is_refused_before_anything_is_claimed() {
    let server = Server::paying(|layer| layer.request_cap(8)).await;
    let announced = raw(b"idempotency-key: k\r\ncontent-length: 9\r\n", b"123456789");
    let huge = raw(b"idempotency-key: k\r\ncontent-length: 1000000000000000\r\n", b"1");
    let chunked = raw(
        b"idempotency-key: k\r\ntransfer-encoding: chunked\r\n",
        b"5\r\n12345\r\n5\r\n67890\r\n0\r\n\r\n",
    );
    for request in [announced, huge, chunked] {
        let answer = server.answers(&request).await;
        assert_eq!((answer.status, answer.problem().as_str()), (413, "body-too-large"));
    }
    let answer = server.answers(&post("k", "12345678")).await;
    assert_eq!(answer.status, 201, "a body as large as the cap is not too large");
    server.is_sound(1).await;
}

// proves: I-3
#[tokio::test]
async fn a_compressed_body_is_another_body_unless_it_is_compressed_again_in_the_same_way() {
    let server = Server::paying(|layer| layer).await;
    let gzip = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let head = |encoding: &str| {
        format!("idempotency-key: k\r\n{encoding}content-length: {}\r\n", gzip.len()).into_bytes()
    };
    let first = server.answers(&raw(&head("content-encoding: gzip\r\n"), gzip)).await;
    let again = server.answers(&raw(&head("content-encoding: gzip\r\n"), gzip)).await;
    assert_eq!((first.status, &first.body), (201, &again.body));
    // The same bytes with another encoding, and the decompressed bytes.
    for other in [raw(&head(""), gzip), post("k", "{}")] {
        assert_eq!(server.answers(&other).await.problem(), "mismatch");
    }
    server.is_sound(1).await;
}
