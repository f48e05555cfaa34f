use super::*;

#[cfg(feature = "postgres")]
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
        assert_eq!(Class::of_sqlstate(code), class, "{code}");
    }
}

#[test]
fn an_extended_sqlite_code_falls_back_to_its_family() {
    for (code, class) in [
        ("5", Class::Busy),
        ("261", Class::Busy),
        ("517", Class::Busy),
        ("262", Class::Busy),
        ("2067", Class::Constraint),
        ("1299", Class::Constraint),
        ("778", Class::Storage),
        ("13", Class::Overloaded),
        ("1", Class::Other),
        ("not a number", Class::Other),
    ] {
        assert_eq!(Class::of_sqlite_code(code), class, "{code}");
    }
}

#[test]
fn no_code_stands_twice_in_a_table() {
    for (index, (code, _)) in tables::SQLITE_CODES.iter().enumerate() {
        assert!(tables::SQLITE_CODES[..index].iter().all(|(other, _)| other != code));
    }
}

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] sqlx::Error);

#[test]
fn a_driver_error_is_found_through_the_chain_of_sources() {
    let error = Outer(sqlx::Error::WorkerCrashed);
    assert!(matches!(driver_error(&error), Some(sqlx::Error::WorkerCrashed)));
    assert!(driver_error(&std::fmt::Error).is_none());
}

#[test]
fn a_failure_does_not_print_its_message_in_debug() {
    let failure = Failure::local(Class::Other, "invalid input: 4242");
    assert!(!format!("{failure:?}").contains("4242"));
    assert!(failure.to_string().contains("4242"));
}
