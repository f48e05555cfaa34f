//! Whose data an internal call is about: services tell each other in a header, behind the service token.

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use utoipa::IntoParams;

use crate::{Id, Problem};

/// The header.
pub const MERCHANT_HEADER: &str = "x-merchant-id";

/// The merchant an internal call is about. Meaningful only on routes behind the service token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoParams)]
#[into_params(names("X-Merchant-Id"), parameter_in = Header)]
pub struct MerchantId(pub Id);

impl MerchantId {
    /// Reads the header.
    ///
    /// # Errors
    /// 400 when it is missing or not a UUID.
    pub fn from_headers(headers: &HeaderMap) -> Result<MerchantId, Problem> {
        headers
            .get(MERCHANT_HEADER)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok())
            .map(MerchantId)
            .ok_or_else(|| Problem::bad_request("send X-Merchant-Id with the merchant's id, a UUID"))
    }
}

impl<S: Sync> FromRequestParts<S> for MerchantId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<MerchantId, Problem> {
        MerchantId::from_headers(&parts.headers)
    }
}
