//! Reads from an error of the driver or the server whether a call may have written.
//!
//! Invariant: only errors that are known to come before a script writes count as refusals. Between us and the server
//! there may be a proxy, which also answers with errors, and may have passed the call on.

use std::any::TypeId;

use redis::aio::{ConnectionManager, MultiplexedConnection};
use redis::{RedisError, ServerErrorKind};

use crate::error::{ErrorKind, Failure};

/// Errors without a name in the driver by which a server refuses a script, or the first write in it.
const REFUSALS: [(&str, ErrorKind); 7] = [
    ("OOM", ErrorKind::Full),
    ("BUSY", ErrorKind::Unavailable),
    ("NOREPLICAS", ErrorKind::Unavailable),
    ("MISCONF", ErrorKind::Rejected),
    ("WRONGTYPE", ErrorKind::Rejected),
    ("NOAUTH", ErrorKind::Rejected),
    ("WRONGPASS", ErrorKind::Rejected),
];

/// Classifies an error of a call that was sent once at most.
pub(super) fn classify(error: RedisError) -> Failure {
    if error.is_timeout() {
        return Failure::in_doubt(ErrorKind::Timeout, error);
    }
    if error.is_connection_refusal() {
        return Failure::refused(ErrorKind::Unavailable, error);
    }
    match error.kind() {
        redis::ErrorKind::Server(kind) => of_server(kind, error),
        redis::ErrorKind::Extension => {
            let known = REFUSALS.iter().find(|(code, _)| error.code() == Some(code));
            match known {
                Some((_, kind)) => Failure::refused(*kind, error),
                None => Failure::in_doubt(ErrorKind::Rejected, error),
            }
        }
        redis::ErrorKind::AuthenticationFailed | redis::ErrorKind::InvalidClientConfig => {
            Failure::refused(ErrorKind::Rejected, error)
        }
        redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => {
            Failure::in_doubt(ErrorKind::Corrupt, error)
        }
        _ => Failure::in_doubt(ErrorKind::Unavailable, error),
    }
}

fn of_server(kind: ServerErrorKind, error: RedisError) -> Failure {
    match kind {
        ServerErrorKind::BusyLoading
        | ServerErrorKind::TryAgain
        | ServerErrorKind::ClusterDown
        | ServerErrorKind::MasterDown
        | ServerErrorKind::ReadOnly => Failure::refused(ErrorKind::Unavailable, error),
        ServerErrorKind::Moved
        | ServerErrorKind::Ask
        | ServerErrorKind::CrossSlot
        | ServerErrorKind::NoScript
        | ServerErrorKind::NoPerm => Failure::refused(ErrorKind::Rejected, error),
        _ => Failure::in_doubt(ErrorKind::Rejected, error),
    }
}

/// Classifies an error of the script with this name: an error that the script raised came before its write.
pub(super) fn of_script(name: &str, error: RedisError) -> Failure {
    let general = error.kind() == redis::ErrorKind::Server(ServerErrorKind::ResponseError);
    if general && error.detail().is_some_and(|said| said.contains(name)) {
        return Failure::refused(ErrorKind::Rejected, error);
    }
    classify(error)
}

/// Says whether connections of this type send a call once at most. A cluster connection of the driver repeats a call
/// after a broken connection, and then its error is only that of the last try.
pub(super) fn sends_once<C: 'static>() -> bool {
    let this = TypeId::of::<C>();
    #[cfg(feature = "redis-sentinel")]
    if this == TypeId::of::<super::SentinelConnection>() {
        return true;
    }
    this == TypeId::of::<ConnectionManager>() || this == TypeId::of::<MultiplexedConnection>()
}

#[cfg(test)]
mod tests {
    use redis::{ErrorKind as Kind, Value};

    use super::*;
    use crate::error::{Effect, StoreError};

    const SCRIPT: &str = "3fc39d916dec13fdb63700bda5245dd97ba7a1c0";

    /// Makes an error as the driver reads it from the server.
    fn said(error: &str) -> RedisError {
        let read = redis::parse_redis_value(format!("-{error}\r\n").as_bytes());
        read.and_then(Value::extract_error).expect_err("an error")
    }

    fn judged(error: RedisError) -> (ErrorKind, Effect) {
        let error = StoreError::from(of_script(SCRIPT, error));
        (error.kind(), error.effect())
    }

    // proves: I-5
    #[test]
    fn only_errors_known_to_precede_the_write_prove_that_nothing_was_written() {
        let raised = format!("ERR The user can't run this command script: {SCRIPT}, on @user_script:4.");
        for (error, kind) in [
            (raised.as_str(), ErrorKind::Rejected),
            ("NOPERM this user has no permissions to run the 'evalsha' command", ErrorKind::Rejected),
            ("OOM command not allowed when used memory > 'maxmemory'.", ErrorKind::Full),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", ErrorKind::Rejected),
            ("READONLY You can't write against a read only replica.", ErrorKind::Unavailable),
            ("LOADING Redis is loading the dataset in memory", ErrorKind::Unavailable),
            ("CLUSTERDOWN The cluster is down", ErrorKind::Unavailable),
            ("NOREPLICAS Not enough good replicas to write.", ErrorKind::Unavailable),
            ("BUSY Redis is busy running a script.", ErrorKind::Unavailable),
        ] {
            assert_eq!(judged(said(error)), (kind, Effect::NotApplied), "{error}");
        }
        // Errors of a proxy whose server does not answer, and unknown codes.
        for error in ["ERR upstream failure", "ERR Connection timed out", "upstream failure", "NOVEL error"] {
            assert_eq!(judged(said(error)), (ErrorKind::Rejected, Effect::Unknown), "{error}");
        }
        let other = format!("ERR Error in script: {}, on @user_script:4.", "0".repeat(40));
        assert_eq!(judged(said(&other)), (ErrorKind::Rejected, Effect::Unknown));
        let dropped = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert_eq!(judged(dropped), (ErrorKind::Unavailable, Effect::Unknown));
        let unread = RedisError::from((Kind::UnexpectedReturnType, "not a number"));
        assert_eq!(judged(unread), (ErrorKind::Corrupt, Effect::Unknown));
    }
}
