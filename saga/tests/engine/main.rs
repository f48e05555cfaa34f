//! Tests of the engine: definitions are run by workers, mostly on the memory store and in paused time.

#[macro_use]
#[path = "../undoable/mod.rs"]
mod undoable;

mod bad_input;
mod codec;
mod deadline;
mod documents;
mod draining;
#[path = "../handmade/mod.rs"]
mod handmade;
mod lease;
mod money;
mod operators;
mod outages;
mod panics;
mod recovery;
mod settings;
mod sick_store;
mod starts;
mod story;
mod too_late;
