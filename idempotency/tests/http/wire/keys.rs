//! Key headers that are not one key.

use super::client::{post, raw};
use super::server::Server;

// proves: I-8
#[tokio::test]
async fn a_request_without_exactly_one_valid_key_is_refused_and_not_run() {
    let server = Server::paying(|layer| layer).await;
    let long = "k".repeat(256);
    for key in [
        &b""[..],
        b"   ",
        b"\"\"",
        long.as_bytes(),
        b"two words",
        b"tab\there",
        "ключ".as_bytes(),
        b"\xff\xfe",
        b"\"ends nowhere",
        b"\"a\"b",
        b"a;p=1",
        b"\"a\";p=1",
        b"a,b",
        b"\"a\", \"b\"",
    ] {
        let head = [b"idempotency-key: ", key, b"\r\ncontent-length: 2\r\n"].concat();
        let answer = server.answers(&raw(&head, b"{}")).await;
        assert_eq!((answer.status, answer.problem().as_str()), (400, "key-malformed"), "{key:?}");
        assert_eq!(answer.header("idempotency-status"), Some(&b"refused"[..]));
    }
    let twice = b"idempotency-key: a\r\nidempotency-key: a\r\ncontent-length: 2\r\n";
    assert_eq!(server.answers(&raw(twice, b"{}")).await.problem(), "key-malformed");
    assert_eq!(server.answers(&raw(b"content-length: 2\r\n", b"{}")).await.problem(), "key-missing");
    server.is_sound(0).await;
}

#[tokio::test]
async fn a_key_with_control_characters_is_refused_by_the_server() {
    let server = Server::paying(|layer| layer).await;
    for key in [&b"a\x00b"[..], b"a\x01b", b"a\x7fb", b"a\nb"] {
        let head = [b"idempotency-key: ", key, b"\r\ncontent-length: 2\r\n"].concat();
        let answer = server.answers(&raw(&head, b"{}")).await;
        assert_eq!((answer.status, answer.body.len()), (400, 0), "{key:?}");
    }
    server.is_sound(0).await;
}

#[tokio::test]
async fn the_longest_key_works_bare_and_quoted_and_is_one_key() {
    let server = Server::paying(|layer| layer).await;
    let longest = "k".repeat(255);
    let bare = server.answers(&post(&longest, "{}")).await;
    let quoted = server.answers(&post(&format!("\"{longest}\""), "{}")).await;
    assert_eq!((bare.status, quoted.header("idempotent-replayed")), (201, Some(&b"true"[..])));
    assert_eq!(bare.body, quoted.body);
    server.is_sound(1).await;
}
