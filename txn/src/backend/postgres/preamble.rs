//! The text of BEGIN, with the settings of the transaction.

use std::fmt::Write as _;

use crate::isolation::Isolation;
use crate::settings::{Locals, Settings};

/// Writes BEGIN and the SET LOCALs as one simple query: values are numbers that are formatted here, or quoted.
pub(super) fn preamble(settings: &Settings) -> String {
    const READ_COMMITTED: &str = "READ COMMITTED";
    // The capacity includes the query for the transaction's id.
    let mut sql = String::with_capacity(400);
    // The level is always set, because a lock that was waited for proves nothing at some defaults of the database, the
    // role or the session. It is set in two steps: inside a transaction that was left open BEGIN only warns, but a
    // transaction that has begun to read cannot change its level, so one of the two steps fails there.
    let (first, level) = match settings.isolation {
        None | Some(Isolation::ReadCommitted) => ("REPEATABLE READ", READ_COMMITTED),
        Some(Isolation::RepeatableRead) => (READ_COMMITTED, "REPEATABLE READ"),
        Some(Isolation::Serializable) => (READ_COMMITTED, "SERIALIZABLE"),
    };
    sql.push_str("BEGIN ISOLATION LEVEL ");
    sql.push_str(first);
    if settings.read_only {
        sql.push_str(" READ ONLY");
    }
    sql.push_str("; SET TRANSACTION ISOLATION LEVEL ");
    sql.push_str(level);
    let policy = &settings.policy;
    for (name, value) in [
        ("lock_timeout", policy.lock_timeout),
        ("statement_timeout", policy.statement_timeout),
        ("idle_in_transaction_session_timeout", policy.idle_timeout),
    ] {
        if let Some(timeout) = value {
            let milliseconds = timeout.as_millis().clamp(1, i32::MAX as u128);
            // Writing to a String cannot fail.
            let _ = write!(sql, "; SET LOCAL {name} = {milliseconds}");
        }
    }
    if !settings.locals.after_the_token {
        set_locals(&mut sql, &settings.locals);
    }
    sql
}

/// Appends the statements that make the settings of the caller.
pub(super) fn set_locals(sql: &mut String, locals: &Locals) {
    for (name, value) in &locals.values {
        // Writing to a String cannot fail.
        let _ = write!(sql, "; SET LOCAL \"{name}\" = ");
        quote(sql, value);
    }
}

/// Writes a string constant that means `value` whatever `standard_conforming_strings` and `client_encoding` are: with
/// escapes, and in ASCII alone, so that no byte of it can be half of another character.
fn quote(sql: &mut String, value: &str) {
    sql.push_str("E'");
    for character in value.chars() {
        match character {
            '\'' => sql.push_str("''"),
            '\\' => sql.push_str("\\\\"),
            ' '..='~' => sql.push(character),
            other => {
                let _ = write!(sql, "\\U{:08X}", u32::from(other));
            }
        }
    }
    sql.push('\'');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::Policy;

    #[test]
    fn the_preamble_is_one_query_with_isolation_and_timeouts() {
        let settings = Settings {
            isolation: Some(Isolation::Serializable),
            policy: Policy {
                lock_timeout: Some(Duration::from_secs(2)),
                statement_timeout: None,
                idle_timeout: Some(Duration::from_micros(3)),
                ..Policy::payments()
            },
            ..Settings::new("capture")
        };
        assert_eq!(
            preamble(&settings),
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; \
             SET LOCAL lock_timeout = 2000; SET LOCAL idle_in_transaction_session_timeout = 1"
        );
        let unsaid = preamble(&Settings { read_only: true, ..Settings::new("capture") });
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; ";
        assert!(unsaid.starts_with(begin), "{unsaid}");
    }

    #[test]
    fn a_value_cannot_leave_its_quotes() {
        let mut sql = String::new();
        quote(&mut sql, "it's \\ é\n");
        assert_eq!(sql, "E'it''s \\\\ \\U000000E9\\U0000000A'");
    }
}
