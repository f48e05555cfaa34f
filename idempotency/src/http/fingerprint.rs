//! Decides whether a retry is the same request as the first one of its key.
//!
//! Invariant: only what the client sent counts, nothing of our routing; and what is left out is what a rule names. Method
//! and target always count: another resource is never the same request (I-3).

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod json;
mod media_type;
mod multipart;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Uri};

use self::json::Fields;
use self::media_type::MediaType;
use crate::core::fingerprint::Fingerprint;
use crate::core::identity::HashKey;

/// Says what counts of a body.
type BodyFn = dyn Fn(&Parts, &Bytes) -> Bytes + Send + Sync;

/// Decides what counts when a request is compared with the first one of its key; without rules: method, path and query
/// as the client sent them, `Content-Type`, `Content-Encoding`, and every byte of the body.
///
/// Parts that only say how a request was written never count: `charset`, and the boundary of a multipart body.
///
/// Other rules give another fingerprint. A deploy that changes them answers retries of what was recorded before with 422,
/// until the retention of those records is over.
///
/// ```
/// # use std::sync::Arc;
/// use http::HeaderName;
/// use probity_idempotency::{IdempotencyLayer, MemoryStore, layer::FingerprintRules};
///
/// let layer = IdempotencyLayer::new(Arc::new(MemoryStore::new())).single_tenant().fingerprint(
///     FingerprintRules::new()
///         .header(HeaderName::from_static("api-version")) // another version is another request
///         .ignore_field("/sent_at"),                      // the client writes it anew for every try
/// );
/// ```
#[derive(Clone)]
#[must_use]
pub struct FingerprintRules {
    headers: Vec<HeaderName>,
    json: Option<Fields>,
    body: Option<Arc<BodyFn>>,
}

impl FingerprintRules {
    /// The rules of a layer that was given none.
    pub fn new() -> Self {
        Self { headers: vec![CONTENT_TYPE, CONTENT_ENCODING], json: None, body: None }
    }

    /// Counts this request header too. A retry without it, or with another value, is refused.
    pub fn header(mut self, name: HeaderName) -> Self {
        if !self.headers.contains(&name) {
            self.headers.push(name);
        }
        self
    }

    /// Stops counting this request header: `Content-Type` and `Content-Encoding` count unless it is said.
    pub fn ignore_header(mut self, name: &HeaderName) -> Self {
        self.headers.retain(|counted| counted != name);
        self
    }

    /// Compares JSON bodies by their values: the order of members, white space and escapes do not count. Numbers count as
    /// they were written, so `1` is not `1.0`, and no amount is rounded. A body that is not JSON, by its `Content-Type` or
    /// by itself, or that repeats a member, counts byte for byte.
    pub fn canonical_json(mut self) -> Self {
        self.json.get_or_insert_default();
        self
    }

    /// Leaves the field at this JSON pointer (`/customer/sent_at`) out of JSON bodies, which are compared by their values.
    ///
    /// # Panics
    /// If it is not a pointer: it begins with a slash.
    #[track_caller]
    pub fn ignore_field(mut self, pointer: &str) -> Self {
        self.json.get_or_insert_default().ignore(pointer);
        self
    }

    /// Counts of JSON bodies nothing but the fields at these JSON pointers, and what is inside them.
    ///
    /// Include every field that decides what happens: a request that differs in other fields gets the first answer.
    ///
    /// # Panics
    /// If one is not a pointer: it begins with a slash.
    #[track_caller]
    pub fn only_fields<'a>(mut self, pointers: impl IntoIterator<Item = &'a str>) -> Self {
        let fields = self.json.get_or_insert_default();
        for pointer in pointers {
            fields.choose(pointer);
        }
        self
    }

    /// Lets `counts` choose the part of a body that counts, for any type of body. It must be the same in every process.
    pub fn body(mut self, counts: impl Fn(&Parts, &Bytes) -> Bytes + Send + Sync + 'static) -> Self {
        self.body = Some(Arc::new(counts));
        self
    }

    /// The fingerprint of a request.
    pub(crate) fn apply(&self, hash: &HashKey, parts: &Parts, body: &Bytes) -> Fingerprint {
        let content_type = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let media_type = MediaType::parse(content_type);
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|name| match *name {
                CONTENT_TYPE => Cow::Borrowed(&*media_type.text),
                _ => values(&parts.headers, name),
            })
            .collect();
        let mut counted = vec![parts.method.as_str().as_bytes(), target(sent(parts))];
        counted.extend(headers.iter().map(|values| &**values));
        let chosen = match (&self.body, &self.json) {
            (Some(counts), _) => Some(counts(parts, body)),
            (None, Some(fields)) if media_type.is_json() => json::canonical(body, fields).map(Bytes::from),
            _ => None,
        };
        match (&chosen, &media_type.boundary) {
            (Some(chosen), _) => counted.push(chosen),
            (None, Some(boundary)) => counted.extend(multipart::split(body, boundary)),
            (None, None) => counted.push(body),
        }
        Fingerprint::of(hash, &counted)
    }
}

impl Default for FingerprintRules {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FingerprintRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FingerprintRules")
            .field("headers", &self.headers)
            .field("json", &self.json)
            .field("body", &self.body.is_some())
            .finish()
    }
}

/// The values of a header, as one list.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Cow<'a, [u8]> {
    let mut values = headers.get_all(name).iter().map(|value| value.as_bytes());
    let first = Cow::Borrowed(values.next().unwrap_or_default());
    values.fold(first, |list, value| Cow::Owned([&list, &b", "[..], value].concat()))
}

fn target(uri: &Uri) -> &[u8] {
    uri.path_and_query().map_or("", PathAndQuery::as_str).as_bytes()
}

/// The target as the client sent it. A router of axum keeps it before it cuts a prefix off; outside of any, the target is
/// still what was sent.
fn sent(parts: &Parts) -> &Uri {
    #[cfg(feature = "axum")]
    if let Some(original) = parts.extensions.get::<axum::extract::OriginalUri>() {
        return &original.0;
    }
    &parts.uri
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn of(rules: &FingerprintRules, headers: &[(&str, &str)], body: &str) -> Fingerprint {
        let mut request = Request::post("/payments?test=1");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).expect("valid").into_parts();
        rules.apply(&HashKey::default(), &parts, &Bytes::copy_from_slice(body.as_bytes()))
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    /// A change here answers every retry with 422 after a deploy: give it a version, and compare with the stored one.
    #[test]
    fn the_fingerprint_of_a_request_never_changes() {
        let rules = FingerprintRules::new();
        let hex = |print: Fingerprint| {
            print.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let form = "--X\r\ncontent-disposition: form-data; name=\"amount\"\r\n\r\n100\r\n--X--\r\n";
        let multipart = ("content-type", "multipart/form-data; boundary=X");
        let chosen = rules.clone().ignore_field("/sent_at").header(HeaderName::from_static("api-version"));
        let sent = r#"{"sent_at":3,"amount":100}"#;
        assert_eq!(
            [
                hex(of(&rules, &[JSON], r#"{"amount":100}"#)),
                hex(of(&rules, &[multipart], form)),
                hex(of(&chosen, &[JSON, ("api-version", "7")], sent)),
            ],
            [
                "0105060121604a70bd45d95be2a32e75735fbd33bdda3cfc45cc1121c37f607333",
                "01e878ce6e18c6f7c498ce594f1cbb415059739752bb9276b5fe2ba117f2974b67",
                "01da845f98ee079c14e2e71cc773a71f943702f75226c273f8e12033b7c557f9d2"
            ]
        );
    }

    #[test]
    fn only_chosen_headers_count_in_the_fingerprint() {
        let version = HeaderName::from_static("api-version");
        let rules = FingerprintRules::new();
        let (one, two) = ([JSON, ("api-version", "1")], [JSON, ("api-version", "2")]);
        assert_eq!(of(&rules, &one, "{}"), of(&rules, &two, "{}"));
        let rules = rules.header(version.clone()).header(version.clone());
        assert_ne!(of(&rules, &one, "{}"), of(&rules, &two, "{}"));
        assert_ne!(of(&rules, &one, "{}"), of(&rules, &[JSON, one[1], two[1]], "{}"), "each of its values");
        let canonical = rules.clone().canonical_json().ignore_header(&CONTENT_TYPE);
        assert_ne!(of(&canonical, &one, "{}"), of(&canonical, &two, "{}"), "the others still count");
        let rules = rules.ignore_header(&version).ignore_header(&CONTENT_TYPE);
        assert_eq!(of(&rules, &one, "{}"), of(&rules, &[two[1]], "{}"));
        assert_ne!(of(&rules, &one, "{}"), of(&rules, &one, "{ }"));
    }

    #[test]
    fn the_rules_choose_which_parts_of_a_body_count() {
        let rules = FingerprintRules::new().only_fields(["/amount"]);
        let plain = ("content-type", "text/plain");
        assert_eq!(
            of(&rules, &[JSON], r#"{"amount":1,"x":1}"#),
            of(&rules, &[JSON], r#"{"x":2,"amount":1}"#)
        );
        assert_ne!(of(&rules, &[JSON], r#"{"amount":1}"#), of(&rules, &[JSON], r#"{"amount":2}"#));
        // A body that is not JSON counts as a whole.
        assert_ne!(
            of(&rules, &[plain], r#"{"amount":1,"x":1}"#),
            of(&rules, &[plain], r#"{"amount":1,"x":2}"#)
        );
        let rules = rules.body(|parts, body| body.slice(..body.len().min(parts.headers.len())));
        assert_eq!(of(&rules, &[plain], "ab"), of(&rules, &[plain], "ac"));
        assert_ne!(of(&rules, &[plain], "ab"), of(&rules, &[plain], "bb"));
    }
}
