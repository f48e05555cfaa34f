//! Golden files of what services and merchants send each other: both ends are deployed by different people.

use std::fmt::Write as _;

use http::{HeaderMap, Method};
use service_shell::signature::{SignedBy, body_sha256, canonical, verify};

const SECRET: &[u8] = b"sk_test_1";
/// Method, path and query, and body of the requests in the file.
const REQUESTS: [(Method, &str, &[u8]); 3] = [
    (Method::GET, "/api/v1/payments?limit=5&after=PAY-1", b""),
    (Method::POST, "/api/v1/payments", br#"{"amount":100,"currency":"CNY"}"#),
    (Method::POST, "/api/v1/payments/PAY-1/refunds", "{\"reason\":\"zurück\"}".as_bytes()),
];

#[test]
fn merchants_sign_as_in_version_1_and_their_signatures_are_accepted() {
    let mut text = String::new();
    for (method, path, body) in &REQUESTS {
        let signed = SignedBy::sign("pk_test_1", SECRET, method, path, 1_700_000_000, "nonce-1", body);
        writeln!(text, "# {method} {path}").unwrap();
        for (name, value) in signed.headers() {
            writeln!(text, "{name}: {value}").unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/wire/v1/signed_requests.txt");
    let sent = testkit::golden(path, &text);

    for (request, (method, path, body)) in sent.split("# ").skip(1).zip(&REQUESTS) {
        let lines = request.lines().skip(1).map(|line| line.split_once(": ").unwrap());
        let headers: HeaderMap =
            lines.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let Ok(signed) = SignedBy::from_headers(&headers) else { panic!("{request}") };
        let text = canonical(method.as_str(), path, &signed.timestamp, &signed.nonce, &body_sha256(body));
        assert!(verify(SECRET, text.as_bytes(), &signed.signature), "{request}");
    }
}
