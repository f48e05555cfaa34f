//! A client that sends the given bytes unchanged, and reads until the server closes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A local server that has not answered by then will not answer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// An answer as it came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }

    /// The last part of the problem's type.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some(&b"application/problem+json"[..]), "{self:?}");
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(document["status"], self.status);
        document["type"].as_str().unwrap().rsplit('#').next().unwrap().to_owned()
    }
}

/// A POST with this key and body.
pub(crate) fn post(key: &str, body: &str) -> Vec<u8> {
    let head = format!("idempotency-key: {key}\r\ncontent-length: {}\r\n", body.len());
    raw(head.as_bytes(), body.as_bytes())
}

/// A POST with these header lines and this body, whatever they claim.
pub(crate) fn raw(headers: &[u8], body: &[u8]) -> Vec<u8> {
    [b"POST /payments HTTP/1.1\r\nhost: test\r\nconnection: close\r\n", headers, b"\r\n", body].concat()
}

/// Sends it, leaves the sending side open, and reads all there is; `None` if the server closes without an answer.
pub(crate) async fn send(to: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // A server may answer and close before it has read everything.
    let _ = stream.write_all(request).await;
    read(stream).await
}

/// Sends it and ends the sending side, in the middle of a body if that is where it ends.
pub(crate) async fn send_and_stop(to: SocketAddr, request: &[u8]) -> Option<Answer> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    read(stream).await
}

pub(crate) async fn read(mut stream: TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    // A server that refuses to read on resets the connection; what came before counts.
    let _ = timeout(LIMIT, stream.read_to_end(&mut bytes)).await.unwrap();
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
    let mut lines = bytes[..end].split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let status = std::str::from_utf8(&lines.next()?[9..12]).unwrap().parse().unwrap();
    let header = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':').unwrap();
        (
            String::from_utf8(line[..colon].to_ascii_lowercase()).unwrap(),
            line[colon + 1..].trim_ascii().to_vec(),
        )
    };
    let headers: Vec<_> = lines.map(header).collect();
    let rest = &bytes[end + 4..];
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == b"chunked");
    let (body, trailers) = if chunked { unchunked(rest) } else { (rest.to_vec(), Vec::new()) };
    Some(Answer { status, headers, body, trailers })
}

/// The data of a chunked body, as far as it came, and what follows the last chunk.
fn unchunked(mut rest: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut data = Vec::new();
    while let Some(end) = rest.windows(2).position(|part| part == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            return (data, rest.to_vec());
        }
        data.extend_from_slice(&rest[..size.min(rest.len())]);
        rest = rest.get(size + 2..).unwrap_or_default();
    }
    (data, Vec::new())
}
