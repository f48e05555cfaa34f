//! A strict JSON body: what cannot be read is refused with the place and the reason.

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{BODY_LIMIT, Problem};

/// Reads `T` from an `application/json` body, and writes it; a body that cannot be read is a [`Problem`].
///
/// It has the name of axum's, so that `utoipa` finds the body of a handler in its arguments.
///
/// Give request types `#[serde(deny_unknown_fields)]`: a misspelt field of a payment is an error, not a default.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T> Json<T>
where
    T: DeserializeOwned,
{
    /// Reads bytes that are already in memory, as a middleware that verified a signature holds them.
    ///
    /// # Errors
    /// A 400 problem with line, column and what was expected.
    pub fn from_bytes(bytes: &[u8]) -> Result<Json<T>, Problem> {
        if bytes.is_empty() {
            return Err(Problem::bad_request("the body is empty: send a JSON object"));
        }
        let refused = |detail| Problem::new(StatusCode::BAD_REQUEST, "bad-json", detail);
        // An array would be read as the fields in their order: a guess, where every field has a name.
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            return Err(refused("the body is a JSON array: send a JSON object".to_owned()));
        }
        // PostgreSQL takes no NUL in a text and would answer with an error of its own.
        if holds_nul(bytes) {
            return Err(refused("the body holds \\u0000: leave it out".to_owned()));
        }
        serde_json::from_slice(bytes).map(Json).map_err(|error| {
            let fault = if error.is_data() { "does not fit" } else { "is not valid JSON" };
            let error = error.to_string().replace("expected i64", "expected a whole number");
            refused(format!("the body {fault}: {error}"))
        })
    }
}

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Json<T>, Problem> {
        refuse_other_kinds(request.headers())?;
        let bytes =
            Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => too_large(),
                _ => Problem::bad_request("the body broke off: send it again"),
            })?;
        Json::from_bytes(&bytes)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// Returns true if a text of a JSON document has the escape of a NUL; a NUL itself is not valid in JSON.
fn holds_nul(json: &[u8]) -> bool {
    let escapes = json.windows(6).enumerate().filter(|(_, window)| window == b"\\u0000");
    // An even number of backslashes before it are escaped backslashes.
    escapes
        .map(|(at, _)| json[..at].iter().rev().take_while(|byte| **byte == b'\\').count())
        .any(|before| before % 2 == 0)
}

/// 413 in the words used everywhere.
pub(crate) fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
        format!("the body is larger than {BODY_LIMIT} bytes: send less"),
    )
}

/// A body that is not JSON in UTF-8, or says two things of itself, is refused before it is read.
fn refuse_other_kinds(headers: &HeaderMap) -> Result<(), Problem> {
    let refused =
        |detail| Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", detail));
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let kind = kinds.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kinds.next().is_some() {
        return Err(Problem::bad_request("there are two Content-Type headers: send one"));
    }
    let mut parts = kind.split(';').map(str::trim);
    if !parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return refused("send the body with Content-Type: application/json");
    }
    let charset =
        parts.find_map(|part| part.to_ascii_lowercase().strip_prefix("charset=").map(str::to_owned));
    if charset.is_some_and(|charset| charset.trim_matches('"') != "utf-8") {
        return refused("send the body in UTF-8");
    }
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
        return refused("send the body without Content-Encoding");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        amount: i64,
    }

    fn detail(text: &str) -> String {
        Json::<Order>::from_bytes(text.as_bytes()).expect_err("refused").detail().to_owned()
    }

    #[test]
    fn a_fitting_body_is_read() {
        assert_eq!(Json::<Order>::from_bytes(b"{\"amount\":5}").unwrap().0.amount, 5);
    }

    #[test]
    fn a_nul_is_refused_and_a_backslash_before_u0000_is_none() {
        let read = |body: &[u8]| Json::<String>::from_bytes(body).map(|text| text.0);
        assert!(read(br#""a\u0000""#).unwrap_err().detail().contains("u0000"));
        assert!(read(br#""a\\\u0000""#).is_err());
        assert_eq!(read(br#""a\\u0000""#).unwrap(), "a\\u0000");
    }

    #[test]
    fn faults_are_named_with_their_place() {
        assert!(detail("").contains("empty"));
        assert!(detail("{\"amount\":").contains("is not valid JSON"));
        assert!(detail("{\"amount\":\"5\"}").contains("does not fit: invalid type: string"));
        assert!(detail("{\"amont\":5}").contains("unknown field `amont`, expected `amount`"));
        assert!(detail("{\"amount\":99999999999999999999}").contains("does not fit"));
        assert!(detail("{\"amount\":1.5}").contains("does not fit"));
    }
}
