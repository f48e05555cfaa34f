//! The body of the fuzz target `request`.

use bytes::Bytes;
use http::Request;

use super::json::{self, Fields};
use super::{FingerprintRules, media_type::MediaType, multipart};
use crate::core::identity::HashKey;

/// Reads `data` as a content type, a line break and a body, and checks what holds of the fingerprints of that request.
///
/// # Panics
/// If a rule is broken: that is what the fuzzer looks for.
pub fn request(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (content_type, body) = (&data[..end], data.get(end + 1..).unwrap_or_default());
    if let Some(boundary) = MediaType::parse(content_type).boundary {
        let pieces: usize = multipart::split(body, &boundary).iter().map(|piece| piece.len()).sum();
        assert!(pieces <= body.len(), "no byte counts twice");
    }
    let Ok(request) = Request::post("/").header("content-type", content_type).body(()) else { return };
    let (parts, ()) = request.into_parts();
    let body = Bytes::copy_from_slice(body);
    for rules in [
        FingerprintRules::new(),
        FingerprintRules::new().canonical_json(),
        FingerprintRules::new().ignore_field("/a").only_fields(["/a/b", "/c"]),
    ] {
        let of = || rules.apply(&HashKey::default(), &parts, &body);
        assert_eq!(of(), of());
    }
    if let Some(canonical) = json::canonical(&body, &Fields::default()) {
        let spaced = [b" \r\n", &body[..], b"\t"].concat();
        assert_eq!(json::canonical(&spaced, &Fields::default()), Some(canonical), "space says nothing");
    }
}
