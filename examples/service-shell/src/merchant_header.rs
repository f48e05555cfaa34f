//! Whose data an internal call is about: services tell each other in a header, behind the service token.

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;
use utoipa::IntoParams;

use crate::{Id, Problem, text_enum};

/// The header that names the merchant.
pub const MERCHANT_HEADER: &str = "x-merchant-id";
/// The header that names the mode.
pub const MODE_HEADER: &str = "x-merchant-mode";

text_enum! {
    /// The mode of the API key behind an internal call. The data of one mode is never seen in the other.
    pub enum Mode {
        /// No money moves.
        Test = "test",
        /// Money moves.
        Production = "production",
    }
}

impl Mode {
    /// Reads the header; `production` when it is missing.
    ///
    /// # Errors
    /// 400 when it is no mode.
    pub fn from_headers(headers: &HeaderMap) -> Result<Mode, Problem> {
        let Some(value) = headers.get(MODE_HEADER) else { return Ok(Mode::Production) };
        let mode = value.to_str().ok().and_then(|text| text.parse().ok());
        mode.ok_or_else(|| Problem::bad_request("X-Merchant-Mode must be test or production"))
    }
}

impl<S: Sync> FromRequestParts<S> for Mode {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Mode, Problem> {
        Mode::from_headers(&parts.headers)
    }
}

/// The data that an internal call is about: of one merchant, in one mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Header)]
pub struct World {
    /// The merchant.
    #[param(rename = "X-Merchant-Id")]
    pub merchant: Id,
    /// The mode; `production` when it is missing.
    #[param(rename = "X-Merchant-Mode", required = false)]
    pub mode: Mode,
}

impl World {
    /// Reads both headers.
    ///
    /// # Errors
    /// The errors of [`MerchantId::from_headers`] and [`Mode::from_headers`].
    pub fn from_headers(headers: &HeaderMap) -> Result<World, Problem> {
        let merchant = MerchantId::from_headers(headers)?.0;
        Ok(World { merchant, mode: Mode::from_headers(headers)? })
    }
}

impl<S: Sync> FromRequestParts<S> for World {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<World, Problem> {
        World::from_headers(&parts.headers)
    }
}

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
