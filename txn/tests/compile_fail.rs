//! Tests that misuse does not compile. The expected messages belong to the pinned toolchain; after an upgrade look
//! at each new one before accepting it with `TRYBUILD=overwrite`.
#![cfg(feature = "sqlite")]

#[test]
fn code_that_a_retry_or_the_end_of_the_transaction_would_break_does_not_compile() {
    // proves: T-4
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
