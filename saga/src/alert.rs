//! The alarm for a person: one line of the level ERROR for each saga that stopped.

use crate::status::Status;

/// Says that a saga waits for a person. The business id is in it, because it is what that person looks up; no payload is.
pub(crate) fn tell_of_stop(
    id: impl std::fmt::Display,
    saga_type: &str,
    business_id: &str,
    status: Status,
    reason: Option<&str>,
) {
    tracing::error!(
        saga_id = %id,
        saga_type,
        business_id,
        status = status.as_str(),
        reason = reason.unwrap_or_default(),
        "the saga stopped and waits for a person: read the reason, then resolve, resume or abort it"
    );
}
