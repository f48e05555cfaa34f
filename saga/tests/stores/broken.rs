//! The contract catches every broken store, by each of its clauses.
#![cfg(feature = "testing")]

use probity_saga::MemoryStore;
use probity_saga::testing::broken::{BrokenStore, Fault};
use probity_saga::testing::contract;

#[tokio::test]
async fn each_broken_store_is_caught_by_the_clause_that_names_its_fault() {
    for (fault, name) in Fault::ALL {
        let caught = contract::clause(name, &BrokenStore::new(*fault)).await;
        assert!(caught.is_err(), "{fault:?} passed {name}");
        let held = contract::clause(name, &MemoryStore::new()).await;
        assert_eq!(held, Ok(()), "{name} catches the specification");
    }
}

#[test]
fn each_clause_catches_a_broken_store() {
    for clause in contract::names() {
        assert!(Fault::ALL.iter().any(|(_, by)| *by == clause), "no fault is caught by {clause}");
    }
}

/// A clause that is not in the macro tests no store.
#[test]
fn the_macros_make_a_test_of_each_clause() {
    let (whole, local) =
        (include_str!("../../src/testing/contract.rs"), include_str!("../../src/testing/contract/local.rs"));
    for (text, clause) in contract::names()
        .map(|name| (whole, name))
        .chain(contract::LOCAL_CLAUSES.iter().map(|name| (local, *name)))
    {
        let listed = text.lines().any(|line| line.trim() == clause);
        assert!(listed, "the macro does not list {clause}");
    }
}
