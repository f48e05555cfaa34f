//! Handlers with unusual answers, or none.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper_util::rt::TokioIo;
use probity_idempotency::Effects;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::client::{Answer, post, raw, send};
use super::server::{Incoming1, Server};

type Whole = Full<Bytes>;

async fn answering(response: fn() -> Response<Whole>) -> Server {
    Server::start(
        |layer| layer.keep_header(http::HeaderName::from_static("x-raw")),
        move |_, _: Request<Incoming1>| async move { Ok::<_, Infallible>(response()) },
    )
    .await
}

/// The first answer and the second to the same request.
async fn twice(server: &Server) -> (Answer, Answer) {
    (server.answers(&post("k", "{}")).await, server.answers(&post("k", "{}")).await)
}

fn status(status: u16) -> Response<Whole> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

// proves: I-2
#[tokio::test]
async fn answers_without_a_body_and_server_errors_are_replayed() {
    for response in [|| status(204), || status(304), || status(500), || status(503)] {
        let server = answering(response).await;
        let (first, second) = twice(&server).await;
        let expected = response().status().as_u16();
        assert_eq!((first.status, second.status), (expected, expected));
        assert_eq!((second.header("idempotent-replayed"), second.body.len()), (Some(&b"true"[..]), 0));
        server.is_possible();
        assert_eq!((server.runs(), server.panics()), (1, 0));
    }
}

// proves: I-10
#[tokio::test]
async fn an_interim_status_as_an_answer_becomes_a_tombstone() {
    for response in [|| status(100), || status(102), || status(103)] {
        let server = answering(response).await;
        // hyper refuses to send it as a final answer, so the first client gets a 500 of hyper's, or nothing.
        let first = send(server.at, &post("k", "{}")).await;
        assert!(first.is_none_or(|first| first.status == 500));
        let second = server.answers(&post("k", "{}")).await;
        assert_eq!((second.status, second.problem().as_str()), (409, "not-replayable"));
        assert_eq!((server.runs(), server.panics()), (1, 0));
        server.is_possible();
    }
}

// proves: I-10
#[tokio::test]
async fn an_upgrade_works_once_and_is_never_repeated() {
    let server = Server::start(
        |layer| layer,
        async |_, mut request: Request<Incoming1>| {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut upgraded = TokioIo::new(upgrade.await.unwrap());
                upgraded.write_all(b"hello over the new protocol").await.unwrap();
            });
            let mut response = status(101);
            response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
            response.headers_mut().insert("upgrade", HeaderValue::from_static("greeting"));
            Ok::<_, Infallible>(response)
        },
    )
    .await;
    let request = b"POST / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: greeting\r\nidempotency-key: k\r\ncontent-length: 0\r\n\r\n";
    let first = server.answers(request).await;
    assert_eq!((first.status, &first.body[..]), (101, &b"hello over the new protocol"[..]));
    let second = server.answers(&raw(b"idempotency-key: k\r\ncontent-length: 0\r\n", b"")).await;
    assert_eq!(second.problem(), "mismatch", "another path");
    let retry =
        b"POST / HTTP/1.1\r\nhost: t\r\nconnection: close\r\nidempotency-key: k\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(server.answers(retry).await.problem(), "not-replayable");
    assert_eq!((server.runs(), server.panics()), (1, 0));
    server.is_possible();
}

// proves: I-2
#[tokio::test]
async fn raw_header_bytes_are_replayed_and_cookies_are_not() {
    let server = answering(|| {
        let mut response = status(201);
        let headers = response.headers_mut();
        headers.append("x-raw", HeaderValue::from_bytes(b"caf\xe9 \xff").unwrap());
        headers.append("content-disposition", HeaderValue::from_bytes(b"attachment; filename=\xe9").unwrap());
        headers.append("link", HeaderValue::from_static("</a>; rel=next"));
        headers.append("link", HeaderValue::from_static("</b>; rel=prev"));
        headers.append("set-cookie", HeaderValue::from_static("session=1"));
        headers.append("set-cookie", HeaderValue::from_static("theme=dark"));
        response
    })
    .await;
    let (first, second) = twice(&server).await;
    let all = |answer: &Answer, wanted: &str| -> Vec<Vec<u8>> {
        answer.headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.clone()).collect()
    };
    for name in ["x-raw", "content-disposition", "link"] {
        assert_eq!(all(&first, name), all(&second, name));
        assert!(!all(&second, name).is_empty());
    }
    assert_eq!(second.header("x-raw"), Some(&b"caf\xe9 \xff"[..]));
    assert_eq!((all(&first, "set-cookie").len(), all(&second, "set-cookie").len()), (2, 0));
    assert_eq!((server.runs(), server.panics()), (1, 0));
}

// proves: I-10
#[tokio::test]
async fn an_answer_compressed_for_one_client_is_not_given_to_the_next() {
    let server = answering(|| {
        let mut response = status(201);
        response.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
        response.headers_mut().insert("location", HeaderValue::from_static("/payments/1"));
        response
    })
    .await;
    let (first, second) = twice(&server).await;
    assert_eq!((first.status, first.header("content-encoding")), (201, Some(&b"gzip"[..])));
    assert_eq!((second.status, second.problem().as_str()), (409, "not-replayable"));
    assert_eq!(second.header("location"), Some(&b"/payments/1"[..]));
    assert_eq!((server.runs(), server.panics()), (1, 0));
    server.is_possible();
}

// proves: I-5
#[tokio::test]
async fn a_handler_that_panics_ends_the_connection_and_is_not_run_again() {
    let server = Server::start(
        |layer| layer,
        async |run, _: Request<Incoming1>| -> Result<Response<Whole>, Infallible> { panic!("run {run}") },
    )
    .await;
    assert_eq!(send(server.at, &post("k", "{}")).await, None);
    let second = server.answers(&post("k", "{}")).await;
    assert_eq!((second.status, second.problem().as_str()), (409, "outcome-unknown"));
    assert_eq!((server.runs(), server.panics()), (1, 1), "the handler's own panic, where it would have been");
    server.is_possible();
}

// proves: I-5
#[tokio::test]
async fn an_error_of_the_service_reaches_hyper_and_an_opaque_one_is_not_run_again() {
    for (effects, runs) in [(Effects::Opaque, 1), (Effects::Marked, 2)] {
        let server = Server::start(
            |layer| layer.effects(effects),
            async |_, _: Request<Incoming1>| Err::<Response<Whole>, _>(std::io::Error::other("down")),
        )
        .await;
        assert_eq!(send(server.at, &post("k", "{}")).await, None);
        let second = send(server.at, &post("k", "{}")).await;
        assert_eq!(second.map(|second| second.problem()), (runs == 1).then(|| "outcome-unknown".into()));
        assert_eq!((server.runs(), server.panics()), (runs, 0));
    }
}

// proves: I-6
#[tokio::test]
async fn a_hanging_handler_blocks_no_retry_and_its_answer_is_replayed() {
    let gate = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&gate);
    let server = Server::start(
        |layer| layer,
        move |run, _: Request<Incoming1>| {
            let inside = Arc::clone(&inside);
            async move {
                inside.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(format!("run {run}"))))
            }
        },
    )
    .await;
    let mut impatient = TcpStream::connect(server.at).await.unwrap();
    impatient.write_all(&post("k", "{}")).await.unwrap();
    let started = async {
        while server.runs() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), started).await.unwrap();
    drop(impatient);
    let meanwhile = server.answers(&post("k", "{}")).await;
    assert_eq!((meanwhile.status, meanwhile.problem().as_str()), (409, "in-flight"));
    assert!(meanwhile.header("retry-after").is_some());
    gate.add_permits(1);
    server.tasks.drain().await;
    let retry = server.answers(&post("k", "{}")).await;
    assert_eq!((&retry.body[..], retry.header("idempotent-replayed")), (&b"run 1"[..], Some(&b"true"[..])));
    assert_eq!((server.runs(), server.panics()), (1, 0));
    server.is_possible();
}

// proves: I-10
#[tokio::test]
async fn a_stream_without_end_reaches_its_client_and_is_never_run_again() {
    let server = Server::start(
        |layer| layer.response_cap(64 * 1024),
        async |_, _: Request<Incoming1>| {
            let chunks = futures_util::stream::repeat_with(|| {
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[b'x'; 1024])))
            });
            Ok::<_, Infallible>(Response::new(StreamBody::new(chunks).boxed()))
        },
    )
    .await;
    let mut reader = TcpStream::connect(server.at).await.unwrap();
    reader.write_all(&post("k", "{}")).await.unwrap();
    let mut much = vec![0; 300 * 1024];
    reader.read_exact(&mut much).await.unwrap();
    assert!(much.starts_with(b"HTTP/1.1 200 OK"), "more than the cap, as it comes");
    let second = server.answers(&post("k", "{}")).await;
    assert_eq!((second.status, second.problem().as_str()), (409, "not-replayable"));
    drop(reader);
    assert_eq!((server.runs(), server.panics()), (1, 0));
    server.is_possible();
}
