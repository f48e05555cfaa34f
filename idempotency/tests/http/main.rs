//! The tower layer: with axum, with plain tower, with a bare server on a socket, and among other layers.

mod app;
mod faults;
mod in_doubt;
mod limits;
mod pending;
mod race;
mod sqlite;
mod stack;
mod tasks;
mod wait;
mod wire;
