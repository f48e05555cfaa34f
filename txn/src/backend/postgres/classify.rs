//! Reads PostgreSQL's errors into classes.
//!
//! Invariant: no I/O, no clock.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::classify::Class;
use crate::sqlstate::{self, Condition};

/// Reads an error of the database.
pub(super) fn classify(error: &dyn DatabaseError) -> Class {
    match class(sqlstate::of(error).condition) {
        Class::StalePlan => {
            let error = error.try_downcast_ref::<PgDatabaseError>();
            not_supported(error.and_then(PgDatabaseError::routine))
        }
        class => class,
    }
}

/// Names the class of a condition.
fn class(condition: Condition) -> Class {
    match condition {
        Condition::Serialization => Class::Serialization,
        Condition::Deadlock => Class::Deadlock,
        Condition::LockTimeout => Class::LockTimeout,
        Condition::Canceled => Class::Timeout,
        Condition::ConnectionLost | Condition::NotConnected => Class::ConnectionLost,
        Condition::SessionTimeout => Class::SessionTimeout,
        Condition::ReadOnly => Class::ReadOnly,
        Condition::Constraint => Class::Constraint,
        Condition::Aborted => Class::Aborted,
        Condition::StalePlan => Class::StalePlan,
        Condition::Resources | Condition::TooManyConnections => Class::Overloaded,
        Condition::Storage | Condition::Corrupt => Class::Storage,
        Condition::Data | Condition::Forbidden | Condition::Statement | Condition::Unrecognized => {
            Class::Other
        }
    }
}

/// Names the class of "feature not supported", which many routines say. Only the cache of plans means a stale plan.
fn not_supported(routine: Option<&str>) -> Class {
    // A message would be in the server's language. An error that names no routine is believed.
    match routine {
        None | Some("RevalidateCachedQuery") => Class::StalePlan,
        Some(_) => Class::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlstate::{Severity, read};

    #[test]
    fn a_sqlstate_has_the_class_of_its_condition() {
        for (code, class) in [
            ("40001", Class::Serialization),
            ("40P01", Class::Deadlock),
            ("40003", Class::ConnectionLost),
            ("40000", Class::Serialization),
            ("40002", Class::Constraint),
            ("08004", Class::ConnectionLost),
            ("58030", Class::Storage),
            ("XX001", Class::Storage),
            ("53400", Class::Overloaded),
            ("42501", Class::Other),
            ("P0001", Class::Other),
            ("57P04", Class::ConnectionLost),
            ("55P03", Class::LockTimeout),
            ("08006", Class::ConnectionLost),
            ("57P01", Class::ConnectionLost),
            ("57014", Class::Timeout),
            ("23505", Class::Constraint),
            ("25P02", Class::Aborted),
            ("25P03", Class::SessionTimeout),
            ("25P04", Class::SessionTimeout),
            ("25006", Class::ReadOnly),
            ("0A000", Class::StalePlan),
            ("57P03", Class::ConnectionLost),
            ("57P05", Class::ConnectionLost),
            ("53300", Class::Overloaded),
            ("42601", Class::Other),
            ("", Class::Other),
        ] {
            assert_eq!(super::class(read(code, Severity::Unsigned).condition), class, "{code}");
        }
    }

    #[test]
    fn a_feature_that_is_not_supported_is_a_stale_plan_only_if_the_cache_of_plans_says_so() {
        assert_eq!(not_supported(Some("RevalidateCachedQuery")), Class::StalePlan);
        assert_eq!(not_supported(None), Class::StalePlan);
        assert_eq!(not_supported(Some("transformUpdateStmt")), Class::Other);
    }
}
