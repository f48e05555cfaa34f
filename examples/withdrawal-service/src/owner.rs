//! Whose data an internal call is about: a merchant, and the mode of the API key that signed.

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use service_shell::{Id, MerchantId, Problem};
use utoipa::IntoParams;

use crate::domain::Mode;

/// A merchant in one mode. Meaningful only on routes behind the service token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct Owner {
    #[param(rename = "X-Merchant-Id")]
    pub(crate) merchant: Id,
    /// `test` or `live`; `production` is `live`.
    #[param(rename = "X-Merchant-Mode")]
    pub(crate) mode: Mode,
}

impl Owner {
    /// Reads both headers.
    ///
    /// # Errors
    /// 400 when one is missing or cannot be read.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Owner, Problem> {
        let MerchantId(merchant) = MerchantId::from_headers(headers)?;
        let mode = headers.get("x-merchant-mode").and_then(|value| value.to_str().ok());
        let mode = mode.and_then(|text| Mode::read(text).ok());
        let mode = mode.ok_or_else(|| Problem::bad_request("send X-Merchant-Mode: test or live"))?;
        Ok(Owner { merchant, mode })
    }
}

impl<S: Sync> FromRequestParts<S> for Owner {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Owner, Problem> {
        Owner::from_headers(&parts.headers)
    }
}
