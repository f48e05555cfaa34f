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
        if !is_json(request.headers()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                "send the body with Content-Type: application/json",
            ));
        }
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

/// 413 in the words used everywhere.
pub(crate) fn too_large() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body-too-large",
        format!("the body is larger than {BODY_LIMIT} bytes: send less"),
    )
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(header::CONTENT_TYPE).map(|value| value.to_str()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
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
    fn faults_are_named_with_their_place() {
        assert!(detail("").contains("empty"));
        assert!(detail("{\"amount\":").contains("is not valid JSON"));
        assert!(detail("{\"amount\":\"5\"}").contains("does not fit: invalid type: string"));
        assert!(detail("{\"amont\":5}").contains("unknown field `amont`, expected `amount`"));
        assert!(detail("{\"amount\":99999999999999999999}").contains("does not fit"));
        assert!(detail("{\"amount\":1.5}").contains("does not fit"));
    }
}
