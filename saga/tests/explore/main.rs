//! Tests with the crash explorer: of the engine, of the databases, and of the explorer itself.
#![cfg(feature = "testing")]

#[macro_use]
#[path = "../undoable/mod.rs"]
mod undoable;

mod databases;
mod fakes;
mod people;
mod promises;
mod uses;
