//! Mistakes in a definition that must not compile; `definition/tests.rs` has those that `build` refuses. The
//! expected messages belong to the pinned toolchain; after an upgrade look at each new one before
//! accepting it with `TRYBUILD=overwrite`.

// proves: S-5
#[test]
fn a_definition_that_could_not_keep_its_promises_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}

// proves: S-9
#[cfg(all(feature = "sqlite", feature = "postgres"))]
#[test]
fn a_local_step_whose_record_is_in_another_database_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui_local/*.rs");
}
